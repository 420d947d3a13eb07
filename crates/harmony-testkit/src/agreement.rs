//! The check that ends every scenario: all members hold the same.

use harmony_types::testing::TestError;

use crate::check::members;
use crate::client::{Client, NodeStatus, StateHash};
use crate::history::Moment;
use crate::history::observation::Observation;
use crate::wait::{PATIENCE, until};

/// Waits until all members have applied the same entries, then compares the hashes of their states.
///
/// # Errors
/// The states differ, or the members do not come to one applied index.
pub fn check<'a>(members: impl Iterator<Item = &'a dyn Client>) -> Result<(), TestError> {
    let members: Vec<&dyn Client> = members.collect();
    let statuses = until("all members at one applied index", PATIENCE, || {
        let statuses: Vec<NodeStatus> =
            members.iter().map(|member| member.status()).collect::<Result<_, _>>()?;
        let same = statuses
            .windows(2)
            .all(|pair| (pair[0].applied, pair[0].revision) == (pair[1].applied, pair[1].revision));
        if same { Ok(statuses) } else { Err(format!("{statuses:?}").into()) }
    })?;
    let revision = statuses.first().ok_or("no member runs")?.revision;
    let hashes: Vec<StateHash> =
        members.iter().map(|member| member.state_hash(revision)).collect::<Result<_, _>>()?;
    // Hashes at different compact revisions are not to be compared.
    if hashes.windows(2).any(|pair| pair[0].compact_revision != pair[1].compact_revision) {
        return Err(format!("the members' compact revisions differ: {hashes:?}").into());
    }
    let seen: Vec<Observation> =
        statuses.iter().zip(&hashes).map(|(status, hash)| observation(status, hash)).collect();
    Ok(members::identical(&seen)?)
}

fn observation(status: &NodeStatus, hash: &StateHash) -> Observation {
    Observation {
        at: Moment::default(),
        member: status.id,
        life: 0,
        term: status.term,
        is_leader: status.leader == Some(status.id),
        committed: status.applied,
        applied: status.applied,
        revision: status.revision,
        state_hash: Some(hash.hash.into()),
    }
}
