//! Alarms: what a member found wrong, made known to all by a command, and what is refused until it is cleared.

use std::collections::BTreeSet;

use crate::command::{CommandKind, Refusal};
use crate::txn::{Txn, TxnOpKind};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum AlarmType {
    /// Nothing; protobuf enums need a zero. Never raised.
    None = 0,
    /// The member's quota is used up.
    NoSpace = 1,
    /// The member's data is not that of the others.
    Corrupt = 2,
}

/// What to do about an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum AlarmAction {
    /// Never sent; protobuf enums need a zero.
    Unspecified = 0,
    /// Raise it.
    Activate = 1,
    /// Clear it.
    Deactivate = 2,
}

/// Raises or clears one alarm. Raising a raised one and clearing one that is not raised change nothing.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct AlarmChange {
    /// See [`AlarmAction`].
    #[prost(enumeration = "AlarmAction", tag = "1")]
    pub action: i32,
    /// Which one.
    #[prost(message, optional, tag = "2")]
    pub alarm: Option<Alarm>,
}

/// One alarm of one member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Message)]
pub struct Alarm {
    /// What is wrong: an [`AlarmType`].
    #[prost(enumeration = "AlarmType", tag = "1")]
    pub alarm: i32,
    /// With which member.
    #[prost(uint64, tag = "2")]
    pub member: u64,
}

/// What a change of an alarm did.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct AlarmOutcome {
    /// The alarm that is raised now, or was cleared; none when there was none to clear.
    #[prost(message, optional, tag = "1")]
    pub alarm: Option<Alarm>,
}

impl Alarm {
    /// The alarm of a member.
    #[must_use]
    pub fn new(alarm: AlarmType, member: u64) -> Self {
        Self { alarm: alarm.into(), member }
    }
}

impl AlarmChange {
    /// Raises an alarm.
    #[must_use]
    pub fn activate(alarm: Alarm) -> Self {
        Self { action: AlarmAction::Activate.into(), alarm: Some(alarm) }
    }

    /// Clears an alarm.
    #[must_use]
    pub fn deactivate(alarm: Alarm) -> Self {
        Self { action: AlarmAction::Deactivate.into(), alarm: Some(alarm) }
    }

    /// What is to be done about which alarm.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] for one that this release does not know.
    pub fn validate(&self) -> Result<(AlarmAction, Alarm), Refusal> {
        let action = AlarmAction::try_from(self.action).map_err(|_| Refusal::Invalid)?;
        let alarm = self.alarm.ok_or(Refusal::Invalid)?;
        let is_known =
            matches!(AlarmType::try_from(alarm.alarm), Ok(AlarmType::NoSpace | AlarmType::Corrupt));
        let is_action = action != AlarmAction::Unspecified;
        if is_known && is_action { Ok((action, alarm)) } else { Err(Refusal::Invalid) }
    }
}

/// All alarms that are raised.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Alarms(BTreeSet<Alarm>);

impl Alarms {
    /// Raises one; false when it was raised already.
    pub fn raise(&mut self, alarm: Alarm) -> bool {
        self.0.insert(alarm)
    }

    /// Clears one; false when it was not raised.
    pub fn clear(&mut self, alarm: &Alarm) -> bool {
        self.0.remove(alarm)
    }

    /// All of them, by type, then member.
    pub fn iter(&self) -> impl Iterator<Item = &Alarm> {
        self.0.iter()
    }

    /// Whether any member raised one of this type.
    #[must_use]
    pub fn any(&self, alarm: AlarmType) -> bool {
        self.0.iter().any(|raised| raised.alarm == i32::from(alarm))
    }

    /// Whether a command may run while these are raised.
    ///
    /// `Corrupt`: no write, compaction, grant or revoke. `NoSpace`: no put, no transaction with a put in any branch, no
    /// grant; deletes, compactions and revokes are how space comes back. What administers the cluster always runs.
    ///
    /// # Errors
    /// [`Refusal::Corrupt`] before [`Refusal::NoSpace`].
    pub fn admit(&self, command: &CommandKind) -> Result<(), Refusal> {
        if self.0.is_empty() {
            return Ok(());
        }
        let (writes, grows) = match command {
            CommandKind::Put(_) | CommandKind::LeaseGrant(_) => (true, true),
            CommandKind::Txn(txn) => (true, puts(txn)),
            CommandKind::DeleteRange(_) | CommandKind::Compact(_) | CommandKind::LeaseRevoke(_) => {
                (true, false)
            }
            CommandKind::PublishMember(_)
            | CommandKind::LeaseCheckpoint(_)
            | CommandKind::Alarm(_)
            | CommandKind::Auth(_) => (false, false),
        };
        if writes && self.any(AlarmType::Corrupt) {
            return Err(Refusal::Corrupt);
        }
        if grows && self.any(AlarmType::NoSpace) { Err(Refusal::NoSpace) } else { Ok(()) }
    }
}

/// Whether there is a put in any branch.
fn puts(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match &op.kind {
        Some(TxnOpKind::Put(_)) => true,
        Some(TxnOpKind::Txn(inner)) => puts(inner),
        Some(TxnOpKind::Range(_) | TxnOpKind::DeleteRange(_)) | None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::AuthChange;
    use crate::command::{Compact, PublishMember};
    use crate::lease::{LeaseCheckpoint, LeaseGrant, LeaseRevoke};
    use crate::txn::{DeleteRange, Put, Range, TxnOp};

    const NO_SPACE: Result<(), Refusal> = Err(Refusal::NoSpace);

    fn txn(kind: TxnOpKind) -> Txn {
        Txn { failure: vec![TxnOp { kind: Some(kind) }], ..Txn::default() }
    }

    /// Checks what happens under `NoSpace`, and whether `Corrupt` stops it.
    #[track_caller]
    fn check(command: CommandKind, no_space: Result<(), Refusal>, writes: bool) {
        let mut alarms = Alarms::default();
        assert_eq!(alarms.admit(&command), Ok(()));
        alarms.raise(Alarm::new(AlarmType::NoSpace, 7));
        assert_eq!(alarms.admit(&command), no_space);
        alarms.raise(Alarm::new(AlarmType::Corrupt, 8));
        assert_eq!(alarms.admit(&command), if writes { Err(Refusal::Corrupt) } else { Ok(()) });
        alarms.clear(&Alarm::new(AlarmType::Corrupt, 8));
        alarms.clear(&Alarm::new(AlarmType::NoSpace, 9));
        assert_eq!(alarms.admit(&command), no_space, "another member's alarm is not cleared");
    }

    #[test]
    fn a_raised_alarm_stops_what_it_must_and_no_more() {
        check(CommandKind::Put(Put::default()), NO_SPACE, true);
        check(CommandKind::LeaseGrant(LeaseGrant::default()), NO_SPACE, true);
        check(CommandKind::Txn(txn(TxnOpKind::Put(Put::default()))), NO_SPACE, true);
        let nested = txn(TxnOpKind::Txn(txn(TxnOpKind::Put(Put::default()))));
        check(CommandKind::Txn(nested), NO_SPACE, true);
        check(CommandKind::Txn(txn(TxnOpKind::Range(Range::default()))), Ok(()), true);
        check(CommandKind::Txn(txn(TxnOpKind::DeleteRange(DeleteRange::default()))), Ok(()), true);
        check(CommandKind::DeleteRange(DeleteRange::default()), Ok(()), true);
        check(CommandKind::Compact(Compact::default()), Ok(()), true);
        check(CommandKind::LeaseRevoke(LeaseRevoke::default()), Ok(()), true);
        check(CommandKind::LeaseCheckpoint(LeaseCheckpoint::default()), Ok(()), false);
        check(CommandKind::PublishMember(PublishMember::default()), Ok(()), false);
        check(CommandKind::Alarm(AlarmChange::default()), Ok(()), false);
        check(CommandKind::Auth(AuthChange::default()), Ok(()), false);
    }

    #[test]
    fn a_change_names_an_action_and_an_alarm_that_are_known() {
        let alarm = Alarm::new(AlarmType::NoSpace, 7);
        assert_eq!(AlarmChange::activate(alarm).validate(), Ok((AlarmAction::Activate, alarm)));
        assert_eq!(AlarmChange::deactivate(alarm).validate(), Ok((AlarmAction::Deactivate, alarm)));
        for wrong in [
            AlarmChange { action: 0, alarm: Some(alarm) },
            AlarmChange { action: 3, alarm: Some(alarm) },
            AlarmChange { action: 1, alarm: None },
            AlarmChange::activate(Alarm::new(AlarmType::None, 7)),
            AlarmChange::activate(Alarm { alarm: 3, member: 7 }),
        ] {
            assert_eq!(wrong.validate(), Err(Refusal::Invalid), "{wrong:?}");
        }
    }
}
