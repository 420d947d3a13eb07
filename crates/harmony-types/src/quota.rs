//! The quota on live bytes: decided by whoever proposes, from its own storage; what follows is replicated as an alarm.
//! Apply knows the alarm alone, so that all members decide the same.

use crate::command::CommandKind;
use crate::txn::{Txn, TxnOpKind};

/// Bytes that a put takes besides key and value, as etcd counts.
const PUT_BYTES: u64 = 256;

/// Bytes that a lease takes, as etcd counts.
const LEASE_BYTES: u64 = 64;

/// How much may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Live bytes from which the alarm is raised.
    pub bytes: u64,
}

/// What to propose about the alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaStep {
    /// Nothing.
    Keep,
    /// Raise it.
    Raise,
    /// Clear it.
    Clear,
}

impl Quota {
    /// Live bytes below which a raised alarm is cleared: a tenth below the quota, so that it does not come and go with
    /// single writes.
    #[must_use]
    pub const fn clear_below(self) -> u64 {
        self.bytes - self.bytes / 10
    }

    /// Whether a command of this [`cost`] fits on top of the live bytes. One that costs nothing always does.
    #[must_use]
    pub const fn admits(self, live_bytes: u64, cost: u64) -> bool {
        cost == 0 || live_bytes.saturating_add(cost) < self.bytes
    }

    /// What becomes of this member's alarm, given whether it is raised.
    #[must_use]
    pub const fn step(self, live_bytes: u64, raised: bool) -> QuotaStep {
        if raised {
            if live_bytes < self.clear_below() { QuotaStep::Clear } else { QuotaStep::Keep }
        } else if self.bytes <= live_bytes {
            QuotaStep::Raise
        } else {
            QuotaStep::Keep
        }
    }
}

/// Bytes that a command may add, about, as etcd counts: of a transaction the branch that adds more.
#[must_use]
pub fn cost(command: &CommandKind) -> u64 {
    match command {
        CommandKind::Put(put) => PUT_BYTES + (put.key.len() + put.value.len()) as u64,
        CommandKind::LeaseGrant(_) => LEASE_BYTES,
        CommandKind::Txn(txn) => txn_cost(txn),
        _ => 0,
    }
}

fn txn_cost(txn: &Txn) -> u64 {
    let branch = |ops: &[crate::txn::TxnOp]| {
        let costs = ops.iter().map(|op| match &op.kind {
            Some(TxnOpKind::Put(put)) => PUT_BYTES + (put.key.len() + put.value.len()) as u64,
            Some(TxnOpKind::Txn(inner)) => txn_cost(inner),
            Some(TxnOpKind::Range(_) | TxnOpKind::DeleteRange(_)) | None => 0,
        });
        costs.sum::<u64>()
    };
    branch(&txn.success).max(branch(&txn.failure))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::LeaseGrant;
    use crate::txn::{DeleteRange, Put, TxnOp};

    #[test]
    fn the_alarm_is_raised_at_the_quota_and_cleared_well_below() {
        let quota = Quota { bytes: 1_000 };
        for (live, raised, expected) in [
            (999, false, QuotaStep::Keep),
            (1_000, false, QuotaStep::Raise),
            (1_001, false, QuotaStep::Raise),
            (5_000, true, QuotaStep::Keep),
            (999, true, QuotaStep::Keep),
            (900, true, QuotaStep::Keep),
            (899, true, QuotaStep::Clear),
            (899, false, QuotaStep::Keep),
        ] {
            assert_eq!(quota.step(live, raised), expected, "{live} live bytes, raised: {raised}");
        }
    }

    #[test]
    fn a_command_fits_while_it_stays_below_the_quota() {
        let quota = Quota { bytes: 1_000 };
        assert!(quota.admits(700, 299));
        assert!(!quota.admits(700, 300));
        assert!(!quota.admits(u64::MAX, 1));
        assert!(quota.admits(5_000, 0), "what frees space runs");
    }

    #[test]
    fn costs_are_etcds() {
        let put = Put { key: "key".into(), value: "value".into(), ..Put::default() };
        assert_eq!(cost(&CommandKind::Put(put.clone())), 264);
        assert_eq!(cost(&CommandKind::LeaseGrant(LeaseGrant { id: 1, ttl: 1 })), 64);
        assert_eq!(cost(&CommandKind::DeleteRange(DeleteRange::default())), 0);
        let op = |kind| TxnOp { kind: Some(kind) };
        let inner = Txn { success: vec![op(TxnOpKind::Put(put.clone()))], ..Txn::default() };
        let txn = Txn {
            success: vec![op(TxnOpKind::Put(put.clone()))],
            failure: vec![op(TxnOpKind::Put(put)), op(TxnOpKind::Txn(inner))],
            ..Txn::default()
        };
        assert_eq!(cost(&CommandKind::Txn(txn)), 528);
    }
}
