//! How far the log may be released: members that are being given a snapshot need every entry behind it.
//!
//! Sending and installing a large snapshot takes longer than writing as many entries as are kept for slow members. Without
//! a hold the next entry is gone when the member asks for it, and the leader sends snapshots for as long as it is written
//! to.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use harmony_types::{LogIndex, NodeId};

/// How long entries are kept for a member whose snapshot has arrived: it still has to install it and ask for them.
const AFTER_ARRIVAL: Duration = Duration::from_secs(60);

/// What members need, by member.
#[derive(Debug, Default)]
pub(crate) struct Retention {
    held: Mutex<BTreeMap<NodeId, Held>>,
}

#[derive(Debug)]
struct Held {
    /// Entries behind this one are needed.
    index: LogIndex,
    /// Time on the node's clock at which they no longer are; `None` while the snapshot is on its way.
    until: Option<Duration>,
}

impl Retention {
    /// Raft asked for a snapshot at `index` for this member.
    pub(crate) fn asked(&self, peer: NodeId, index: LogIndex) {
        self.lock().insert(peer, Held { index, until: None });
    }

    /// That snapshot arrived, or did not.
    pub(crate) fn sent(&self, peer: NodeId, arrived: bool, now: Duration) {
        let mut held = self.lock();
        if !arrived {
            held.remove(&peer);
        } else if let Some(one) = held.get_mut(&peer) {
            one.until = Some(now + AFTER_ARRIVAL);
        }
    }

    /// The last entry that may be released, when `wanted` is the last that nobody else needs.
    pub(crate) fn limit(&self, wanted: LogIndex, now: Duration) -> LogIndex {
        let mut held = self.lock();
        held.retain(|_, one| one.until.is_none_or(|until| now < until));
        held.values().map(|one| one.index).fold(wanted, LogIndex::min)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Held>> {
        // No code of ours panics while it holds the lock.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn id(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    #[test]
    fn entries_behind_a_snapshot_stay_until_its_receiver_had_time_to_ask_for_them() {
        let retention = Retention::default();
        let limit = |now| retention.limit(LogIndex(100), now).0;
        assert_eq!(limit(NOW), 100);
        retention.asked(id(2), LogIndex(40));
        retention.asked(id(3), LogIndex(30));
        assert_eq!(limit(NOW + Duration::from_secs(36_000)), 30, "however long it takes to arrive");
        retention.sent(id(3), false, NOW);
        assert_eq!(limit(NOW), 40, "one that was lost is made again, of a later state");
        retention.sent(id(2), true, NOW);
        assert_eq!(limit(NOW + Duration::from_secs(59)), 40);
        assert_eq!(limit(NOW + Duration::from_secs(60)), 100);
    }

    #[test]
    fn the_latest_snapshot_for_a_member_counts() {
        let retention = Retention::default();
        retention.asked(id(2), LogIndex(10));
        retention.sent(id(2), true, NOW);
        retention.asked(id(2), LogIndex(20));
        assert_eq!(retention.limit(LogIndex(100), NOW + Duration::from_secs(60)), LogIndex(20));
        assert_eq!(retention.limit(LogIndex(5), NOW), LogIndex(5));
    }
}
