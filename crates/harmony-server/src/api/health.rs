//! Whether this member serves: what `/health`, `/livez`, `/readyz` and gRPC's health service ask.

use harmony_types::AlarmType;
use harmony_types::txn::Range;

use super::status::ApiError;
use super::{Api, alarms};

/// A check by name, as `/readyz` lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// No damage was found.
    DataCorruption,
    /// Local state can be read.
    SerializableRead,
    /// The cluster confirms that local state is current.
    LinearizableRead,
    /// The member votes.
    NonLearner,
}

/// What `/livez` asks: is it worth keeping the process?
pub(crate) const LIVE: [Check; 1] = [Check::SerializableRead];

/// What `/readyz` asks: should it get traffic?
pub(crate) const READY: [Check; 4] =
    [Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

impl Check {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }
}

impl Api {
    /// Runs one check; the error says why it failed.
    pub(crate) async fn check(&self, check: Check) -> Result<(), String> {
        match check {
            // Damage found by the node stops it, so that none is left to ask then.
            Check::DataCorruption => match self.node.failure() {
                None if self.all_alarms().any(AlarmType::Corrupt) => {
                    Err("alarm activated: CORRUPT".to_owned())
                }
                None => Ok(()),
                Some(failure) => Err(failure),
            },
            Check::SerializableRead => self.probe().map_err(|error| format!("range error: {error}")),
            Check::LinearizableRead => {
                let read = async {
                    self.linearize().await?;
                    self.probe()
                };
                read.await.map_err(|error| format!("range error: {error}"))
            }
            Check::NonLearner if self.node.status().is_learner => {
                Err("this member is a learner and not ready to serve".to_owned())
            }
            Check::NonLearner => Ok(()),
        }
    }

    /// The types of alarms that any member has raised, or this one has because of its disk, by name.
    pub(crate) fn raised_alarms(&self) -> Vec<&'static str> {
        let alarms = self.all_alarms();
        [AlarmType::NoSpace, AlarmType::Corrupt]
            .into_iter()
            .filter(|alarm| alarms.any(*alarm))
            .map(alarms::name)
            .collect()
    }

    /// Whether a leader is known.
    pub(crate) fn has_leader(&self) -> bool {
        self.node.leader().is_some()
    }

    /// The smallest read there is.
    fn probe(&self) -> Result<(), ApiError> {
        let range = Range { key: "health".into(), count_only: true, ..Range::default() };
        self.storage.range(&range)?;
        Ok(())
    }
}
