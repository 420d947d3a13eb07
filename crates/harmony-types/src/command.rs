//! What a log entry carries, and what applying it returns. The encoding is protobuf with frozen tags: a log written
//! today is replayed by every later release. The golden bytes in the tests keep it so.

use bytes::Bytes;
use prost::Message as _;

use crate::alarm::{AlarmChange, AlarmOutcome};
use crate::auth::{AuthChange, Author};
use crate::lease::{
    LeaseCheckpoint, LeaseCheckpointOutcome, LeaseGrant, LeaseGrantOutcome, LeaseRevoke, LeaseRevokeOutcome,
};
use crate::txn::{
    DeleteRange, DeleteRangeOutcome, OpOutcome, OpOutcomeKind, Put, PutOutcome, Txn, TxnOutcome,
};

/// A change of the replicated state. Depends on nothing but itself and the state: whoever proposes it puts in all that
/// comes from outside (ids, times).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Command {
    /// Which change. `None` after decoding means a kind that this release does not know: the node stops rather than
    /// skip it. Tags 11 to 15 are free for more of them.
    #[prost(oneof = "CommandKind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub kind: Option<CommandKind>,
    /// On whose behalf. Asked for only while permissions are.
    #[prost(message, optional, tag = "16")]
    pub author: Option<Author>,
}

/// The kinds of command.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum CommandKind {
    /// Write one key.
    #[prost(message, tag = "1")]
    Put(Put),
    /// Delete a range of keys.
    #[prost(message, tag = "2")]
    DeleteRange(DeleteRange),
    /// Run a transaction.
    #[prost(message, tag = "3")]
    Txn(Txn),
    /// Give up the history before a revision.
    #[prost(message, tag = "4")]
    Compact(Compact),
    /// A member tells its name and where clients reach it.
    #[prost(message, tag = "5")]
    PublishMember(PublishMember),
    /// Grant a lease.
    #[prost(message, tag = "6")]
    LeaseGrant(LeaseGrant),
    /// End a lease and delete its keys.
    #[prost(message, tag = "7")]
    LeaseRevoke(LeaseRevoke),
    /// Make known how much of some leases is left.
    #[prost(message, tag = "8")]
    LeaseCheckpoint(LeaseCheckpoint),
    /// Raise or clear an alarm.
    #[prost(message, tag = "9")]
    Alarm(AlarmChange),
    /// Change users, roles, or whether they count.
    #[prost(message, tag = "10")]
    Auth(AuthChange),
}

/// Gives up the history before a revision, which itself stays readable.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Compact {
    /// The new compact revision.
    #[prost(int64, tag = "1")]
    pub revision: i64,
}

/// A member's own attributes, proposed when it has started.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PublishMember {
    /// Which member.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Where clients reach it.
    #[prost(string, repeated, tag = "3")]
    pub client_urls: Vec<String>,
    /// Where peers reach it, as its own flags say.
    #[prost(string, repeated, tag = "4")]
    pub peer_urls: Vec<String>,
}

/// Why a command, valid in itself, changed nothing: decided at apply, the same on every member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Refusal {
    /// Never sent; protobuf enums need a zero.
    Unspecified = 0,
    /// `ignore_value` or `ignore_lease` on a key that does not exist.
    KeyNotFound = 1,
    /// The lease does not exist.
    LeaseNotFound = 2,
    /// A revision below the compact revision; for a compaction, also the compact revision itself.
    Compacted = 3,
    /// A revision that does not exist yet.
    FutureRevision = 4,
    /// A member's quota is used up, and the alarm is raised.
    NoSpace = 5,
    /// The command breaks a rule that is checked before proposing: a peer with other rules let it through.
    Invalid = 6,
    /// A lease with this id exists.
    LeaseExists = 7,
    /// The lease would live longer than any may.
    LeaseTtlTooLarge = 8,
    /// A member's data is not that of the others: nothing is written until that is settled.
    Corrupt = 9,
    /// Permissions cannot be switched on: there is no user `root`.
    RootUserMissing = 10,
    /// Permissions cannot be switched on: the user `root` has no role `root`.
    RootRoleMissing = 11,
    /// A user of this name exists.
    UserExists = 12,
    /// There is no such user.
    UserNotFound = 13,
    /// A role of this name exists.
    RoleExists = 14,
    /// There is no such role.
    RoleNotFound = 15,
    /// The user does not have this role.
    RoleNotGranted = 16,
    /// The role has no permission on this range.
    PermissionNotGranted = 17,
    /// No permission was named.
    PermissionNotGiven = 18,
    /// It would shut everybody out, or a permission's range holds no key.
    InvalidAuthManagement = 19,
    /// A user's name is missing: the one to change, or the author's.
    UserNameEmpty = 20,
    /// The role's name is missing.
    RoleNameEmpty = 21,
    /// The author may not do this.
    PermissionDenied = 22,
    /// Users or roles changed since the author proved who it is: it has to do so again.
    AuthRevisionOld = 23,
}

/// What applying an entry returned.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Outcome {
    /// The store's revision after the entry.
    #[prost(int64, tag = "1")]
    pub revision: i64,
    /// What happened; `None` for entries that are no command (a new leader's first entry, membership changes).
    #[prost(oneof = "OutcomeKind", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12")]
    pub kind: Option<OutcomeKind>,
}

/// The kinds of outcome.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum OutcomeKind {
    /// Nothing changed, and why: a [`Refusal`].
    #[prost(enumeration = "Refusal", tag = "2")]
    Refused(i32),
    /// A key was written.
    #[prost(message, tag = "3")]
    Put(PutOutcome),
    /// Keys were deleted.
    #[prost(message, tag = "4")]
    DeleteRange(DeleteRangeOutcome),
    /// A transaction ran.
    #[prost(message, tag = "5")]
    Txn(TxnOutcome),
    /// The history was compacted: the compact revision.
    #[prost(int64, tag = "6")]
    Compact(i64),
    /// A member's attributes were taken in.
    #[prost(bool, tag = "7")]
    PublishMember(bool),
    /// A lease was granted.
    #[prost(message, tag = "8")]
    LeaseGrant(LeaseGrantOutcome),
    /// A lease and its keys are gone.
    #[prost(message, tag = "9")]
    LeaseRevoke(LeaseRevokeOutcome),
    /// What is left of some leases is known.
    #[prost(message, tag = "10")]
    LeaseCheckpoint(LeaseCheckpointOutcome),
    /// An alarm was raised or cleared.
    #[prost(message, tag = "11")]
    Alarm(AlarmOutcome),
    /// Users, roles, or whether they count were changed: the auth revision.
    #[prost(uint64, tag = "12")]
    Auth(u64),
}

impl Command {
    /// A command on behalf of `author`.
    #[must_use]
    pub const fn by(author: Author, kind: CommandKind) -> Self {
        Self { kind: Some(kind), author: Some(author) }
    }

    /// The bytes for a log entry.
    #[must_use]
    pub fn encode_to_bytes(&self) -> Bytes {
        self.encode_to_vec().into()
    }
}

impl From<CommandKind> for Command {
    fn from(kind: CommandKind) -> Self {
        Self { kind: Some(kind), author: None }
    }
}

impl From<OpOutcomeKind> for OpOutcome {
    fn from(kind: OpOutcomeKind) -> Self {
        Self { kind: Some(kind) }
    }
}

impl Outcome {
    /// A refusal at this revision.
    #[must_use]
    pub fn refused(revision: i64, refusal: Refusal) -> Self {
        Self { revision, kind: Some(OutcomeKind::Refused(refusal.into())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::{Alarm, AlarmType};
    use crate::auth::{AuthChangeKind, Permission, RolePermission, User, UserRole};
    use crate::kv::KeyValue;
    use crate::lease::LeaseRemaining;
    use crate::txn::{Compare, CompareResult, CompareTarget, Range, RangeOutcome, TxnOp, TxnOpKind};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[track_caller]
    fn check_command(kind: CommandKind, golden: &str) {
        let command = Command::from(kind);
        let bytes = command.encode_to_bytes();
        assert_eq!(hex(&bytes), golden, "the encoding of {command:?} changed");
        assert_eq!(Command::decode(bytes).unwrap(), command);
    }

    fn every_put() -> Put {
        Put {
            key: "k".into(),
            value: "v".into(),
            lease: 3,
            prev_kv: true,
            ignore_value: true,
            ignore_lease: true,
        }
    }

    fn every_range() -> Range {
        Range {
            key: "a".into(),
            range_end: "b".into(),
            limit: 1,
            revision: 2,
            sort_order: 1,
            sort_target: 4,
            keys_only: true,
            count_only: true,
            min_mod_revision: 5,
            max_mod_revision: 6,
            min_create_revision: 7,
            max_create_revision: 8,
        }
    }

    #[test]
    fn commands_keep_their_bytes() {
        check_command(
            CommandKind::Put(every_put()),
            "0a0e0a016b120176180320012801 3001".replace(' ', "").as_str(),
        );
        check_command(
            CommandKind::DeleteRange(DeleteRange { key: "a".into(), range_end: "b".into(), prev_kv: true }),
            "12080a01611201621801",
        );
        check_command(CommandKind::Compact(Compact { revision: 300 }), "220308ac02");
        check_command(
            CommandKind::PublishMember(PublishMember {
                id: 7,
                name: "n".into(),
                client_urls: vec!["c".into()],
                peer_urls: vec!["p".into()],
            }),
            "2a0b080712016e1a0163220170",
        );
        check_command(CommandKind::LeaseGrant(LeaseGrant { id: 7, ttl: 60 }), "32040807103c");
        check_command(CommandKind::LeaseRevoke(LeaseRevoke { id: 7 }), "3a020807");
        let leases =
            vec![LeaseRemaining { id: 7, remaining_ttl: 9 }, LeaseRemaining { id: 8, remaining_ttl: 0 }];
        check_command(CommandKind::LeaseCheckpoint(LeaseCheckpoint { leases }), "420a0a04080710090a020808");
        let alarm = Alarm::new(AlarmType::NoSpace, 7);
        check_command(CommandKind::Alarm(AlarmChange::activate(alarm)), "4a080801120408011007");
        check_command(CommandKind::Alarm(AlarmChange::deactivate(alarm)), "4a080802120408011007");
        let compares = [
            CompareTarget::Version(1),
            CompareTarget::CreateRevision(2),
            CompareTarget::ModRevision(3),
            CompareTarget::Value("v".into()),
            CompareTarget::Lease(4),
        ];
        let txn = Txn {
            compare: compares
                .into_iter()
                .map(|target| Compare {
                    key: "a".into(),
                    range_end: Bytes::new(),
                    result: CompareResult::Greater.into(),
                    target: Some(target),
                })
                .collect(),
            success: vec![TxnOp { kind: Some(TxnOpKind::Range(every_range())) }],
            failure: vec![TxnOp { kind: Some(TxnOpKind::Txn(Txn::default())) }],
        };
        check_command(
            CommandKind::Txn(txn),
            "1a500a070a0161180120010a070a0161180128020a070a0161180130030a080a016118013a01760a070a016118014004\
             121c0a1a0a016112016218012002280130043801400148055006580760081a022200",
        );
    }

    #[test]
    fn authors_and_changes_of_users_keep_their_bytes() {
        let user =
            User { name: "u".into(), password_hash: "h".into(), no_password: true, roles: vec!["r".into()] };
        let with_role = UserRole { user: "u".into(), role: "r".into() };
        let permission = Permission { permission: 2, key: "a".into(), range_end: "b".into() };
        let on_role = RolePermission { role: "r".into(), permission: Some(permission) };
        for (change, golden) in [
            (AuthChangeKind::Enable(true), "52020801"),
            (AuthChangeKind::UserAdd(user.clone()), "520d120b0a0175120168180122 0172"),
            (AuthChangeKind::UserDelete("u".into()), "52031a0175"),
            (AuthChangeKind::UserChangePassword(user), "520d220b0a01751201681801220172"),
            (AuthChangeKind::UserGrantRole(with_role.clone()), "52082a060a0175120172"),
            (AuthChangeKind::UserRevokeRole(with_role), "520832060a0175120172"),
            (AuthChangeKind::RoleAdd("r".into()), "52033a0172"),
            (AuthChangeKind::RoleDelete("r".into()), "5203420172"),
            (AuthChangeKind::RoleGrantPermission(on_role.clone()), "520f4a0d0a017212080802120161 1a0162"),
            (AuthChangeKind::RoleRevokePermission(on_role), "520f520d0a0172120808021201611a0162"),
        ] {
            check_command(CommandKind::Auth(change.into()), golden.replace(' ', "").as_str());
        }
        let author = Author { user: "u".into(), auth_revision: 3, by_member: true };
        let command = Command::by(author, CommandKind::LeaseRevoke(LeaseRevoke { id: 7 }));
        let bytes = command.encode_to_bytes();
        assert_eq!(hex(&bytes), "3a0208078201070a017510031801");
        assert_eq!(Command::decode(bytes).unwrap(), command);
    }

    #[test]
    fn outcomes_keep_their_bytes() {
        let kv = KeyValue {
            key: "k".into(),
            create_revision: 2,
            mod_revision: 3,
            version: 2,
            value: "v".into(),
            lease: 9,
        };
        let kinds = [
            (OutcomeKind::Refused(Refusal::Compacted.into()), "08051003"),
            (
                OutcomeKind::Put(PutOutcome { prev_kv: Some(kv.clone()) }),
                "08051a100a0e0a016b1002180320022a01763009",
            ),
            (
                OutcomeKind::DeleteRange(DeleteRangeOutcome { deleted: 1, prev_kvs: vec![kv.clone()] }),
                "0805221208011 20e0a016b1002180320022a01763009",
            ),
            (
                OutcomeKind::Txn(TxnOutcome {
                    succeeded: true,
                    responses: vec![
                        OpOutcomeKind::Range(RangeOutcome { kvs: vec![kv], more: true, count: 2 }).into(),
                    ],
                }),
                "08052a1a0801121 60a140a0e0a016b1002180320022a0176300910011802",
            ),
            (OutcomeKind::Compact(4), "08053004"),
            (OutcomeKind::PublishMember(true), "08053801"),
            (OutcomeKind::LeaseGrant(LeaseGrantOutcome { id: 7, ttl: 60 }), "080542040807103c"),
            (OutcomeKind::LeaseRevoke(LeaseRevokeOutcome { deleted: 2 }), "08054a020802"),
            (OutcomeKind::LeaseCheckpoint(LeaseCheckpointOutcome { known: 1 }), "080552020801"),
            (
                OutcomeKind::Alarm(AlarmOutcome { alarm: Some(Alarm::new(AlarmType::Corrupt, 7)) }),
                "08055a060a0408021007",
            ),
            (OutcomeKind::Auth(300), "080560ac02"),
        ];
        for (kind, golden) in kinds {
            let outcome = Outcome { revision: 5, kind: Some(kind) };
            assert_eq!(
                hex(&outcome.encode_to_vec()),
                golden.replace(' ', ""),
                "the encoding of {outcome:?} changed"
            );
        }
    }

    #[test]
    fn an_unknown_kind_is_seen() {
        // Tag 99, a varint: a command of a newer release.
        assert_eq!(Command::decode(&[0x98, 0x06, 0x01][..]).unwrap().kind, None);
    }
}
