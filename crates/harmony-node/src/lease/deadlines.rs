//! When the next lease may be over: a heap with one entry a lease, which is put right when it comes up; entries of leases
//! that are gone stay until there are many of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use harmony_types::LeaseId;

/// Moments to look at leases. A renewal moves no entry: the entry comes up at the old moment and is added anew then.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    heap: BinaryHeap<Reverse<(Duration, LeaseId, u64)>>,
}

impl Deadlines {
    /// Looks at the lease at this moment. `serial` tells it from another lease of the same id.
    pub(super) fn add(&mut self, at: Duration, id: LeaseId, serial: u64) {
        self.heap.push(Reverse((at, id, serial)));
    }

    /// The next one whose moment has come.
    pub(super) fn pop(&mut self, now: Duration) -> Option<(LeaseId, u64)> {
        let Reverse((at, id, serial)) = *self.heap.peek()?;
        if now < at {
            return None;
        }
        self.heap.pop();
        Some((id, serial))
    }

    /// How many entries there are.
    pub(super) fn count(&self) -> usize {
        self.heap.len()
    }

    /// Drops the entries of leases that are gone: their moment may be years away.
    pub(super) fn retain(&mut self, is_there: impl Fn(LeaseId, u64) -> bool) {
        self.heap.retain(|Reverse((_, id, serial))| is_there(*id, *serial));
    }

    /// The next moment.
    pub(super) fn next(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }
}
