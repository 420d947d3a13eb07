//! How many operations ran since the storage was opened: those of commands, and reads.

use std::sync::atomic::{AtomicU64, Ordering};

use harmony_types::txn::{OpOutcome, OpOutcomeKind, TxnOutcome};
use harmony_types::{Outcome, OutcomeKind};

/// Operations by kind. What was refused does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpCounts {
    /// Ranges that were read.
    pub ranges: u64,
    /// Keys that were put.
    pub puts: u64,
    /// Ranges that were deleted, and keys that went with their lease.
    pub deletes: u64,
    /// Transactions, and other commands, of more than one of these.
    pub txns: u64,
}

impl OpCounts {
    fn of(outcome: &Outcome) -> Self {
        let mut counts = Self::default();
        match &outcome.kind {
            Some(OutcomeKind::Put(_)) => counts.puts = 1,
            Some(OutcomeKind::DeleteRange(_)) => counts.deletes = 1,
            Some(OutcomeKind::LeaseRevoke(revoked)) => counts.deletes = revoked.deleted.unsigned_abs(),
            Some(OutcomeKind::Txn(txn)) => counts.add_txn(txn),
            _ => {}
        }
        counts.txns = u64::from(1 < counts.ranges + counts.puts + counts.deletes);
        counts
    }

    fn add_txn(&mut self, txn: &TxnOutcome) {
        for OpOutcome { kind } in &txn.responses {
            match kind {
                Some(OpOutcomeKind::Range(_)) => self.ranges += 1,
                Some(OpOutcomeKind::Put(_)) => self.puts += 1,
                Some(OpOutcomeKind::DeleteRange(_)) => self.deletes += 1,
                Some(OpOutcomeKind::Txn(inner)) => self.add_txn(inner),
                None => {}
            }
        }
    }
}

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct OpCounters {
    ranges: AtomicU64,
    puts: AtomicU64,
    deletes: AtomicU64,
    txns: AtomicU64,
}

impl OpCounters {
    /// These ran.
    pub(crate) fn ran(&self, outcomes: &[Outcome]) {
        let mut sum = OpCounts::default();
        for counts in outcomes.iter().map(OpCounts::of) {
            sum.ranges += counts.ranges;
            sum.puts += counts.puts;
            sum.deletes += counts.deletes;
            sum.txns += counts.txns;
        }
        for (counter, count) in [
            (&self.ranges, sum.ranges),
            (&self.puts, sum.puts),
            (&self.deletes, sum.deletes),
            (&self.txns, sum.txns),
        ] {
            if count != 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    /// A range was read.
    pub(crate) fn read(&self) {
        self.ranges.fetch_add(1, Ordering::Relaxed);
    }

    /// The numbers now.
    pub(crate) fn get(&self) -> OpCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        OpCounts {
            ranges: get(&self.ranges),
            puts: get(&self.puts),
            deletes: get(&self.deletes),
            txns: get(&self.txns),
        }
    }
}

#[cfg(test)]
mod tests {
    use harmony_types::lease::LeaseRevokeOutcome;
    use harmony_types::txn::{DeleteRangeOutcome, PutOutcome, RangeOutcome};
    use harmony_types::{OutcomeKind, Refusal};

    use super::*;

    #[track_caller]
    fn check(kind: OutcomeKind, [ranges, puts, deletes, txns]: [u64; 4]) {
        let counters = OpCounters::default();
        counters.ran(&[Outcome { revision: 1, kind: Some(kind) }]);
        assert_eq!(counters.get(), OpCounts { ranges, puts, deletes, txns });
    }

    #[test]
    fn what_ran_counts_also_within_transactions_and_what_was_refused_does_not() {
        let op = |kind| OpOutcome { kind: Some(kind) };
        let txn = |responses| TxnOutcome { succeeded: true, responses };
        let put = op(OpOutcomeKind::Put(PutOutcome::default()));
        let range = op(OpOutcomeKind::Range(RangeOutcome::default()));
        let delete = op(OpOutcomeKind::DeleteRange(DeleteRangeOutcome::default()));
        check(OutcomeKind::Put(PutOutcome::default()), [0, 1, 0, 0]);
        check(OutcomeKind::DeleteRange(DeleteRangeOutcome::default()), [0, 0, 1, 0]);
        check(OutcomeKind::Txn(txn(vec![put.clone()])), [0, 1, 0, 0]);
        let inner = op(OpOutcomeKind::Txn(txn(vec![range, delete])));
        check(OutcomeKind::Txn(txn(vec![put.clone(), put, inner])), [1, 2, 1, 1]);
        check(OutcomeKind::LeaseRevoke(LeaseRevokeOutcome { deleted: 3 }), [0, 0, 3, 1]);
        check(OutcomeKind::Refused(Refusal::KeyNotFound.into()), [0, 0, 0, 0]);
    }
}
