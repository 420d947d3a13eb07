//! What is counted for each peer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use harmony_types::NodeId;

use crate::metrics::{Counter, Histogram};

/// Upper bounds of the buckets for round trips, microseconds, as etcd's.
const ROUND_TRIP_BUCKETS_US: [u64; 16] = [
    100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 102_400, 204_800, 409_600, 819_200,
    1_638_400, 3_276_800,
];

/// Upper bounds of the buckets for snapshots, microseconds, as etcd's.
const SNAPSHOT_BUCKETS_US: [u64; 10] =
    [100_000, 200_000, 400_000, 800_000, 1_600_000, 3_200_000, 6_400_000, 12_800_000, 25_600_000, 51_200_000];

/// What a transport counts for one peer.
#[derive(Debug)]
pub struct PeerMetrics {
    /// Bytes written to it, snapshots included.
    pub bytes_sent: Counter,
    /// Bytes read from it, snapshots included.
    pub bytes_received: Counter,
    /// Messages that were dropped, as it was away or did not keep up.
    pub send_failures: Counter,
    /// Connections to it that broke.
    pub disconnects: Counter,
    /// 1 while messages can be sent to it.
    pub connected: Counter,
    /// From a question to the peer's transport to its answer, once a second while connected. What waits to be sent is in
    /// front of the question.
    pub round_trips: Histogram,
    /// Snapshots for it that were begun.
    pub snapshots_begun: Counter,
    /// How long those took that it has taken.
    pub snapshot_send_times: Histogram,
    /// Snapshots that it has taken.
    pub snapshots_sent: Counter,
    /// Snapshots that it has not.
    pub snapshots_failed: Counter,
    /// Snapshots from it that were begun.
    pub snapshots_arriving: Counter,
    /// How long those took that were taken from it.
    pub snapshot_receive_times: Histogram,
    /// Snapshots taken from it.
    pub snapshots_received: Counter,
    /// Snapshots from it that did not arrive whole, or were not wanted.
    pub snapshots_refused: Counter,
}

impl Default for PeerMetrics {
    fn default() -> Self {
        Self {
            bytes_sent: Counter::default(),
            bytes_received: Counter::default(),
            send_failures: Counter::default(),
            disconnects: Counter::default(),
            connected: Counter::default(),
            round_trips: Histogram::new(&ROUND_TRIP_BUCKETS_US),
            snapshots_begun: Counter::default(),
            snapshot_send_times: Histogram::new(&SNAPSHOT_BUCKETS_US),
            snapshots_sent: Counter::default(),
            snapshots_failed: Counter::default(),
            snapshots_arriving: Counter::default(),
            snapshot_receive_times: Histogram::new(&SNAPSHOT_BUCKETS_US),
            snapshots_received: Counter::default(),
            snapshots_refused: Counter::default(),
        }
    }
}

/// Every peer's numbers.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    peers: Mutex<BTreeMap<NodeId, Arc<PeerMetrics>>>,
}

impl Traffic {
    /// The numbers of a member; kept while it is one.
    pub(super) fn add(&self, peer: NodeId) -> Arc<PeerMetrics> {
        Arc::clone(self.lock().entry(peer).or_default())
    }

    /// Forgets everybody for whom `stays` is false.
    pub(super) fn retain(&self, stays: impl Fn(NodeId) -> bool) {
        self.lock().retain(|peer, _| stays(*peer));
    }

    /// The numbers of whoever called. One that this member does not know yet is counted for nobody: callers cannot fill
    /// the memory with names.
    pub(super) fn of(&self, peer: NodeId) -> Arc<PeerMetrics> {
        self.lock().get(&peer).cloned().unwrap_or_default()
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<(NodeId, Arc<PeerMetrics>)> {
        self.lock().iter().map(|(peer, metrics)| (*peer, Arc::clone(metrics))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<PeerMetrics>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_counted_and_strangers_are_not() {
        let traffic = Traffic::default();
        let ids = [1, 2].map(|number| NodeId::new(number).unwrap());
        traffic.add(ids[0]).bytes_sent.add(5);
        traffic.of(ids[1]).bytes_sent.add(7);
        assert_eq!(traffic.of(ids[0]).bytes_sent.get(), 5);
        assert_eq!(traffic.all().len(), 1);
        assert_eq!(traffic.of(ids[1]).bytes_sent.get(), 0);
        traffic.retain(|peer| peer == ids[1]);
        assert!(traffic.all().is_empty());
    }
}
