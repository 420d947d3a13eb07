//! Random requests over a handful of keys, so that they meet each other.

use bytes::Bytes;
use harmony_types::CommandKind;
use harmony_types::alarm::{Alarm, AlarmChange, AlarmType};
use harmony_types::command::Compact;
use harmony_types::fake::seed::SeededRng;
use harmony_types::lease::{LeaseCheckpoint, LeaseGrant, LeaseRemaining, LeaseRevoke};
use harmony_types::txn::{Compare, CompareTarget, DeleteRange, Put, Range, Txn, TxnOp, TxnOpKind};

const KEYS: [&str; 8] = ["a", "ab", "abc", "b", "ba", "c", "d", "\u{7f}"];
const ENDS: [&[u8]; 6] = [b"", b"\0", b"b", b"bb", b"d", b"a"];

/// Draws requests that suit a store at `revision`.
pub struct Generate<'a> {
    pub rng: &'a mut SeededRng,
    pub revision: i64,
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

    pub fn command(&mut self) -> CommandKind {
        match self.rng.below(29) {
            0..=9 => CommandKind::Put(self.put()),
            10..=12 => CommandKind::DeleteRange(self.delete()),
            13..=18 => CommandKind::Txn(self.txn(2)),
            19..=23 => self.lease_command(),
            24..=27 => self.alarm(),
            _ => CommandKind::Compact(Compact { revision: self.some_revision() }),
        }
    }
}
