//! Random requests over a handful of keys, so that they meet each other.

use bytes::Bytes;
use harmony_types::alarm::{Alarm, AlarmChange, AlarmType};
use harmony_types::auth::{AuthChangeKind, Permission, RolePermission, User, UserRole};
use harmony_types::command::Compact;
use harmony_types::fake::seed::SeededRng;
use harmony_types::lease::{LeaseCheckpoint, LeaseGrant, LeaseRemaining, LeaseRevoke};
use harmony_types::txn::{Compare, CompareTarget, DeleteRange, Put, Range, Txn, TxnOp, TxnOpKind};
use harmony_types::{Author, Command, CommandKind};

const KEYS: [&str; 8] = ["a", "ab", "abc", "b", "ba", "c", "d", "\u{7f}"];
const ENDS: [&[u8]; 6] = [b"", b"\0", b"b", b"bb", b"d", b"a"];

/// Root, and two users with a role each; permissions are asked for from then on.
pub fn switch_auth_on() -> Vec<Command> {
    let user = |name: &str| {
        let (name, password_hash) = (name.to_owned(), Bytes::from_static(b"hash"));
        AuthChangeKind::UserAdd(User { name, password_hash, ..User::default() })
    };
    let grant = |user: &str, role: &str| {
        AuthChangeKind::UserGrantRole(UserRole { user: user.to_owned(), role: role.to_owned() })
    };
    let permit = |role: &str, permission, key: &'static str, end: &'static str| {
        let permission = Permission { permission, key: key.into(), range_end: end.into() };
        let request = RolePermission { role: role.to_owned(), permission: Some(permission) };
        AuthChangeKind::RoleGrantPermission(request)
    };
    let mut changes = vec![user("root"), user("u1"), user("u2"), grant("root", "root")];
    changes.extend(["r1", "r2"].map(|role| AuthChangeKind::RoleAdd(role.to_owned())));
    changes.extend([grant("u1", "r1"), grant("u2", "r1"), grant("u2", "r2")]);
    changes.extend([permit("r1", 2, "a", "b"), permit("r1", 0, "b", ""), permit("r2", 2, "b", "\0")]);
    changes.push(AuthChangeKind::Enable(true));
    changes.into_iter().map(|change| CommandKind::Auth(change.into()).into()).collect()
}

/// Leases for keys to move between.
pub fn grant_leases() -> Vec<Command> {
    (1..=3).map(|id| CommandKind::LeaseGrant(LeaseGrant { id, ttl: 60 }).into()).collect()
}

/// Draws requests that suit a store at `revision`.
pub struct Generate<'a> {
    pub rng: &'a mut SeededRng,
    pub revision: i64,
    pub auth_revision: u64,
}

impl Generate<'_> {
    fn key(&mut self) -> Bytes {
        Bytes::from_static(self.rng.pick(&KEYS).as_bytes())
    }

    fn end(&mut self) -> Bytes {
        if self.rng.chance(1, 2) { Bytes::new() } else { Bytes::from_static(self.rng.pick::<&[u8]>(&ENDS)) }
    }

    fn small(&mut self) -> i64 {
        i64::try_from(self.rng.below(4)).unwrap()
    }

    /// A revision near those that exist, often 0.
    fn some_revision(&mut self) -> i64 {
        if self.rng.chance(1, 2) {
            return 0;
        }
        let reach = u64::try_from(self.revision).unwrap() + 3;
        i64::try_from(self.rng.below(reach)).unwrap() - 1
    }

    fn value(&mut self) -> Bytes {
        let length = if self.rng.chance(1, 20) { 6_000 } else { self.rng.index(0..4) };
        Bytes::from(self.rng.bytes(length))
    }

    /// A lease, one of a few; of those, 5 is never granted.
    fn lease(&mut self) -> i64 {
        if self.rng.chance(1, 30) { 5 } else { self.small() + 1 }
    }

    fn lease_command(&mut self) -> CommandKind {
        match self.rng.below(8) {
            0..=3 => {
                let ttl = *self.rng.pick(&[0, 1, 60, 60, 9_000_000_000, 9_000_000_001]);
                let id = if self.rng.chance(1, 10) { 0 } else { self.small() + 1 };
                CommandKind::LeaseGrant(LeaseGrant { id, ttl })
            }
            4..=5 => CommandKind::LeaseRevoke(LeaseRevoke { id: self.lease() }),
            _ => {
                let count = self.rng.below(3);
                let mut one = || LeaseRemaining { id: self.lease(), remaining_ttl: self.small() * 30 };
                let mut leases: Vec<_> = (0..count).map(|_| one()).collect();
                if self.rng.chance(1, 10) {
                    leases.push(LeaseRemaining { id: 1, remaining_ttl: -1 });
                }
                CommandKind::LeaseCheckpoint(LeaseCheckpoint { leases })
            }
        }
    }

    /// Mostly clears: a raised alarm stops nearly everything.
    fn alarm(&mut self) -> CommandKind {
        let alarm = if self.rng.chance(2, 3) { AlarmType::NoSpace } else { AlarmType::Corrupt };
        let alarm = Alarm::new(alarm, 1 + self.rng.below(2));
        let activate = self.rng.chance(1, 3);
        CommandKind::Alarm(if activate {
            AlarmChange::activate(alarm)
        } else {
            AlarmChange::deactivate(alarm)
        })
    }

    pub fn put(&mut self) -> Put {
        let ignore_value = self.rng.chance(1, 8);
        let ignore_lease = self.rng.chance(1, 8);
        Put {
            key: self.key(),
            value: if ignore_value { Bytes::new() } else { self.value() },
            lease: if !ignore_lease && self.rng.chance(1, 4) { self.lease() } else { 0 },
            prev_kv: self.rng.chance(1, 2),
            ignore_value,
            ignore_lease,
        }
    }

    pub fn delete(&mut self) -> DeleteRange {
        DeleteRange { key: self.key(), range_end: self.end(), prev_kv: self.rng.chance(1, 2) }
    }

    pub fn range(&mut self) -> Range {
        let mut range = Range {
            key: self.key(),
            range_end: self.end(),
            revision: self.some_revision(),
            ..Range::default()
        };
        if self.rng.chance(1, 2) {
            range.limit = self.small() - 1;
            range.sort_order = i32::try_from(self.rng.below(3)).unwrap();
            range.sort_target = i32::try_from(self.rng.below(5)).unwrap();
            range.keys_only = self.rng.chance(1, 3);
            range.count_only = self.rng.chance(1, 6);
        }
        if self.rng.chance(1, 4) {
            range.min_mod_revision = self.some_revision();
            range.max_mod_revision = self.some_revision();
            range.min_create_revision = self.some_revision();
            range.max_create_revision = self.some_revision();
        }
        range
    }

    fn compare(&mut self) -> Compare {
        let target = match self.rng.below(5) {
            0 => CompareTarget::Version(self.small()),
            1 => CompareTarget::CreateRevision(self.some_revision()),
            2 => CompareTarget::ModRevision(self.some_revision()),
            3 => CompareTarget::Lease(self.small()),
            _ => CompareTarget::Value(self.value()),
        };
        let result = i32::try_from(self.rng.below(4)).unwrap();
        Compare { key: self.key(), range_end: self.end(), result, target: Some(target) }
    }

    pub fn txn(&mut self, depth: u32) -> Txn {
        let compares = self.rng.below(3);
        Txn {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: self.ops(depth),
            failure: self.ops(depth),
        }
    }

    fn ops(&mut self, depth: u32) -> Vec<TxnOp> {
        let ops = self.rng.below(4);
        (0..ops)
            .map(|_| {
                let kind = match self.rng.below(7) {
                    0..=2 => TxnOpKind::Put(self.put()),
                    3..=4 => TxnOpKind::Range(self.range()),
                    5 => TxnOpKind::DeleteRange(self.delete()),
                    _ if depth == 0 => TxnOpKind::Range(self.range()),
                    _ => TxnOpKind::Txn(self.txn(depth - 1)),
                };
                TxnOp { kind: Some(kind) }
            })
            .collect()
    }

    /// A transaction of ranges.
    pub fn read_txn(&mut self) -> Txn {
        let mut ranges = |count: u64| {
            (0..count).map(|_| TxnOp { kind: Some(TxnOpKind::Range(self.range())) }).collect::<Vec<_>>()
        };
        let (success, failure) = (ranges(2), ranges(1));
        Txn { compare: vec![self.compare()], success, failure }
    }

    fn name(&mut self, names: &[&str]) -> String {
        (*self.rng.pick(names)).to_owned()
    }

    fn user(&mut self) -> String {
        self.name(&["root", "root", "u1", "u1", "u2", ""])
    }

    fn role(&mut self) -> String {
        self.name(&["root", "r1", "r1", "r2", ""])
    }

    fn user_role(&mut self) -> UserRole {
        let (user, role) = (self.user(), self.role());
        let is_root = user == "root" && self.rng.chance(3, 4);
        UserRole { user, role: if is_root { "root".to_owned() } else { role } }
    }

    fn role_permission(&mut self) -> RolePermission {
        let permission = i32::try_from(self.rng.below(3)).unwrap();
        let permission = Permission { permission, key: self.key(), range_end: self.end() };
        RolePermission { role: self.role(), permission: (!self.rng.chance(1, 20)).then_some(permission) }
    }

    fn auth(&mut self) -> AuthChangeKind {
        match self.rng.below(16) {
            0..=2 => AuthChangeKind::Enable(true),
            3 => AuthChangeKind::Enable(false),
            4..=6 => {
                let (no_password, hash) = (self.rng.chance(1, 4), self.rng.index(0..3));
                let password_hash = Bytes::from(self.rng.bytes(hash));
                AuthChangeKind::UserAdd(User { name: self.user(), password_hash, no_password, roles: vec![] })
            }
            7 => AuthChangeKind::UserDelete(self.user()),
            8 => {
                let password_hash = Bytes::from(self.rng.bytes(1));
                AuthChangeKind::UserChangePassword(User {
                    name: self.user(),
                    password_hash,
                    ..User::default()
                })
            }
            9..=10 => AuthChangeKind::UserGrantRole(self.user_role()),
            11 => AuthChangeKind::UserRevokeRole(self.user_role()),
            12 => AuthChangeKind::RoleAdd(self.role()),
            13 if self.rng.chance(1, 2) => AuthChangeKind::RoleDelete(self.role()),
            13..=14 => AuthChangeKind::RoleGrantPermission(self.role_permission()),
            _ => AuthChangeKind::RoleRevokePermission(self.role_permission()),
        }
    }

    /// Somebody, mostly under a revision that holds.
    fn author(&mut self) -> Option<Author> {
        let old = u64::from(self.rng.chance(1, 10));
        let auth_revision = self.auth_revision - old;
        let user = match self.rng.below(20) {
            0 => return None,
            1 => return Some(Author { by_member: true, ..Author::default() }),
            2..=8 => "root".to_owned(),
            _ => self.user(),
        };
        Some(Author { user, auth_revision, by_member: false })
    }

    pub fn command(&mut self) -> Command {
        Command { author: self.author(), kind: Some(self.kind()) }
    }

    fn kind(&mut self) -> CommandKind {
        match self.rng.below(36) {
            0..=9 => CommandKind::Put(self.put()),
            10..=12 => CommandKind::DeleteRange(self.delete()),
            13..=18 => CommandKind::Txn(self.txn(2)),
            19..=23 => self.lease_command(),
            24..=27 => self.alarm(),
            28..=34 => CommandKind::Auth(self.auth().into()),
            _ => CommandKind::Compact(Compact { revision: self.some_revision() }),
        }
    }
}
