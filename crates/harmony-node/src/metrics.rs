//! What a node counts, as plain numbers: whoever serves them brings the format.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use harmony_types::NodeId;

/// Upper bounds of the sync histogram's buckets, microseconds; one more bucket holds the rest.
pub const SYNC_BUCKETS_US: [u64; 14] =
    [50, 100, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 1_000_000, 8_000_000];

/// What is slow for a batch of entries, as for one request in etcd.
pub const SLOW_APPLY: Duration = Duration::from_millis(100);

/// A number that only grows, or is set.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Replaces.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The number now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Members that something is true of.
#[derive(Debug, Default)]
pub struct MemberList(Mutex<Vec<NodeId>>);

impl MemberList {
    /// Replaces the list, in ascending order; says whether it is another one now.
    pub fn set(&self, members: Vec<NodeId>) -> bool {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = *list != members;
        *list = members;
        is_new
    }

    /// The members now.
    #[must_use]
    pub fn get(&self) -> Vec<NodeId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How long something took.
#[derive(Debug)]
pub struct Histogram {
    bounds_us: &'static [u64],
    buckets: Box<[Counter]>,
    sum_us: Counter,
}

/// A histogram of syncs.
impl Default for Histogram {
    fn default() -> Self {
        Self::new(&SYNC_BUCKETS_US)
    }
}

impl Histogram {
    /// Nothing counted yet; upper bounds of the buckets in ascending order, microseconds.
    #[must_use]
    pub fn new(bounds_us: &'static [u64]) -> Self {
        let buckets = (0..=bounds_us.len()).map(|_| Counter::default()).collect();
        Self { bounds_us, buckets, sum_us: Counter::default() }
    }

    /// Upper bounds of the buckets, microseconds.
    #[must_use]
    pub fn bounds_us(&self) -> &'static [u64] {
        self.bounds_us
    }

    /// Counts one.
    pub fn record(&self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = self.bounds_us.partition_point(|bound| *bound < took_us);
        self.buckets[bucket].add(1);
        self.sum_us.add(took_us);
    }

    /// Counts by bucket, not cumulative; the last is for everything above the last bound.
    #[must_use]
    pub fn buckets(&self) -> Vec<u64> {
        self.buckets.iter().map(Counter::get).collect()
    }

    /// Sum of all, microseconds.
    #[must_use]
    pub fn sum_us(&self) -> u64 {
        self.sum_us.get()
    }
}

/// What a node counts.
#[derive(Debug, Default)]
pub struct NodeMetrics {
    /// Proposals that this node's clients made.
    pub proposals: Counter,
    /// Proposals refused or ended unknown.
    pub proposals_failed: Counter,
    /// Proposals refused because the disk is nearly full.
    pub proposals_no_space: Counter,
    /// What the disk has room for: 0 everything, 1 what frees space, 2 nothing.
    pub disk_space: Counter,
    /// 1 while the state machine waits for room on the disk.
    pub apply_waits: Counter,
    /// Proposals appended to this leader's log and not yet applied.
    pub proposals_pending: Counter,
    /// Commit index.
    pub committed_index: Counter,
    /// Applied index.
    pub applied_index: Counter,
    /// Last index on disk as far as this node was told.
    pub last_index: Counter,
    /// Term.
    pub term: Counter,
    /// Leader's id, 0 for none.
    pub leader: Counter,
    /// 1 while this member is a learner.
    pub learner: Counter,
    /// Learners that this leader made voters.
    pub promotions: Counter,
    /// Learners that this leader was asked to make voters, and did not.
    pub promotions_refused: Counter,
    /// How often the leader changed, as seen from here.
    pub leader_changes: Counter,
    /// Elections that this member began because its leader's process was gone.
    pub early_elections: Counter,
    /// Times that this member handed leadership over because its disk hung.
    pub disk_stalls: Counter,
    /// Read index rounds asked for.
    pub read_rounds: Counter,
    /// Read index rounds that were asked for again.
    pub read_retries: Counter,
    /// Linearizable reads that were let through.
    pub reads: Counter,
    /// Messages to peers.
    pub messages_sent: Counter,
    /// Messages from peers.
    pub messages_received: Counter,
    /// Messages from peers that made no sense.
    pub messages_invalid: Counter,
    /// 1 while this member's state is damaged or differs from the majority's, and it serves nobody.
    pub corrupt: Counter,
    /// Times that this member's state was replaced because of that.
    pub repairs: Counter,
    /// Other members of which this leader knows that their state is damaged or differs, and is not replaced yet.
    pub corrupt_members: MemberList,
    /// Comparisons in which this leader found that states differ, and no majority said which is right.
    pub hashes_undecided: Counter,
    /// Snapshots sent.
    pub snapshots_sent: Counter,
    /// Snapshots installed.
    pub snapshots_installed: Counter,
    /// 1 while a snapshot takes the place of the state.
    pub snapshot_installing: Counter,
    /// Batches of entries whose apply took longer than [`SLOW_APPLY`].
    pub slow_applies: Counter,
    /// Beats of a leader that came an interval late or more: so did its heartbeats.
    pub late_beats: Counter,
    /// Checkpoints of the state machine.
    pub checkpoints: Counter,
    /// How long they took.
    pub checkpoint_times: Histogram,
    /// Entries applied.
    pub entries_applied: Counter,
    /// Batches in which they were applied.
    pub apply_batches: Counter,
    /// Syncs of the log.
    pub syncs: Histogram,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_lands_in_the_bucket_that_bounds_it() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_micros(50));
        histogram.record(Duration::from_micros(51));
        histogram.record(Duration::from_secs(60));
        let buckets = histogram.buckets();
        assert_eq!((buckets[0], buckets[1], buckets[SYNC_BUCKETS_US.len()]), (1, 1, 1));
        assert_eq!(histogram.sum_us(), 60_000_101);
    }
}
