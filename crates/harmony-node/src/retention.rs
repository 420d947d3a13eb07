//! How much of the log is kept, and for whom.
//!
//! Whoever is behind by less than the kept part catches up from the log; whoever is behind by more gets a snapshot. Kept is
//! what fits into two limits, of entries and of bytes, behind the applied index. A member that is being given a snapshot
//! needs every entry behind it: sending and installing a large one takes longer than writing as many entries as are kept,
//! and without a hold the next entry is gone when the member asks for it, and the leader sends snapshots for as long as it
//! is written to. The hold has a limit of its own, in bytes, so that a snapshot that never ends does not fill the disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use harmony_types::{Entry, LogIndex, NodeId};

/// How long entries are kept for a member whose snapshot has arrived and that is not heard of: it still has to install it
/// and ask for them.
const AFTER_ARRIVAL: Duration = Duration::from_secs(60);

/// What an entry takes in the log beside its data, bytes.
const ENTRY_OVERHEAD_BYTES: u64 = 40;

/// How much may be kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Entries, for anybody.
    pub(crate) entries: u64,
    /// Bytes, for anybody.
    pub(crate) bytes: u64,
    /// Bytes, for members that are being given a snapshot.
    pub(crate) held_bytes: u64,
}

/// What members need, by member, and how large the log is.
#[derive(Debug)]
pub(crate) struct Retention {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: BTreeMap<NodeId, Held>,
    pieces: Pieces,
}

#[derive(Debug)]
struct Held {
    /// Entries behind this one are needed.
    index: LogIndex,
    /// The member has them up to there: the snapshot is installed.
    installed: bool,
    /// Time on the node's clock at which they no longer are; `None` while the snapshot is on its way.
    until: Option<Duration>,
}

/// A part of the log, the newest entries at the back.
#[derive(Debug, Default)]
pub(crate) struct Pieces(VecDeque<Piece>);

/// A stretch of entries.
#[derive(Clone, Copy, Debug)]
struct Piece {
    last: LogIndex,
    bytes: u64,
}

impl Retention {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, state: Mutex::default() }
    }

    /// Raft asked for a snapshot at `index` for this member.
    pub(crate) fn asked(&self, peer: NodeId, index: LogIndex) {
        self.lock().held.insert(peer, Held { index, installed: false, until: None });
    }

    /// A member is alive and has the log up to `matched`.
    pub(crate) fn heard(&self, peer: NodeId, matched: LogIndex, now: Duration) {
        if let Some(one) = self.lock().held.get_mut(&peer)
            && one.until.is_some()
        {
            one.until = Some(now + AFTER_ARRIVAL);
            one.installed |= one.index <= matched;
            one.index = one.index.max(matched);
        }
    }

    /// That snapshot arrived, or did not.
    pub(crate) fn sent(&self, peer: NodeId, arrived: bool, now: Duration) {
        let held = &mut self.lock().held;
        if !arrived {
            held.remove(&peer);
        } else if let Some(one) = held.get_mut(&peer) {
            one.until = Some(now + AFTER_ARRIVAL);
        }
    }

    /// Notes the size of entries that follow those noted before.
    pub(crate) fn grown(&self, entries: &[Entry]) {
        self.lock().pieces.add(self.piece_bytes(), entries);
    }

    /// Notes the size of entries that come before all that were noted.
    pub(crate) fn found(&self, earlier: Pieces) {
        let mut state = self.lock();
        let later = std::mem::replace(&mut state.pieces, earlier);
        state.pieces.0.extend(later.0);
    }

    /// Fine enough to keep most of the limit, coarse enough to stay small.
    pub(crate) fn piece_bytes(&self) -> u64 {
        (self.limits.bytes / 64).max(1)
    }

    /// The last entry that may be released: behind `applied` as much is kept as the limits say, and nothing is given up that
    /// is not durable in the state machine.
    pub(crate) fn limit(&self, applied: LogIndex, durable: LogIndex, now: Duration) -> LogIndex {
        let Limits { entries, bytes, held_bytes } = self.limits;
        let mut state = self.lock();
        state.held.retain(|_, one| one.until.is_none_or(|until| now < until));
        let kept = state
            .pieces
            .behind(bytes)
            .max(LogIndex(applied.0.saturating_sub(entries)))
            .min(durable.min(applied));
        // Whoever has caught up as far as the log is kept for anybody needs no more than anybody.
        state.held.retain(|_, one| !one.installed || one.index < kept);
        let held = state.held.values().map(|one| one.index).fold(kept, LogIndex::min);
        let limit = held.max(state.pieces.behind(held_bytes.max(bytes))).min(kept);
        // The last one in front of the limit stays: it marks the limit when nothing more has come.
        while state.pieces.0.get(1).is_some_and(|piece| piece.last <= limit) {
            state.pieces.0.pop_front();
        }
        limit
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of ours panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pieces {
    /// Adds entries that follow.
    pub(crate) fn add(&mut self, piece_bytes: u64, entries: &[Entry]) {
        for entry in entries {
            let bytes = entry.data.len() as u64 + ENTRY_OVERHEAD_BYTES;
            match self.0.back_mut() {
                Some(piece) if piece.bytes + bytes <= piece_bytes => {
                    piece.last = entry.index;
                    piece.bytes += bytes;
                }
                _ => self.0.push_back(Piece { last: entry.index, bytes }),
            }
        }
    }

    /// The last entry in front of the newest that fit into so many bytes.
    fn behind(&self, bytes_max: u64) -> LogIndex {
        let mut bytes = 0;
        for piece in self.0.iter().rev() {
            bytes += piece.bytes;
            if bytes_max < bytes {
                return piece.last;
            }
        }
        LogIndex::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn id(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn retention(entries: u64, bytes: u64, held_bytes: u64) -> Retention {
        Retention::new(Limits { entries, bytes, held_bytes })
    }

    /// What may be released when everything applied is durable.
    fn upto(retention: &Retention, applied: u64, now: Duration) -> LogIndex {
        retention.limit(LogIndex(applied), LogIndex(applied), now)
    }

    /// Entries that take `bytes` each.
    fn grow(retention: &Retention, indexes: std::ops::RangeInclusive<u64>, bytes: u64) {
        let data = bytes::Bytes::from(vec![0; usize::try_from(bytes - ENTRY_OVERHEAD_BYTES).unwrap()]);
        let entries: Vec<Entry> = indexes
            .map(|index| Entry { index: LogIndex(index), data: data.clone(), ..Entry::default() })
            .collect();
        retention.grown(&entries);
    }

    #[test]
    fn as_much_is_kept_as_fits_into_both_limits() {
        let by_entries = retention(30, 1 << 20, 1 << 20);
        grow(&by_entries, 1..=100, 100);
        assert_eq!(upto(&by_entries, 100, NOW), LogIndex(70));
        let by_bytes = retention(1_000, 4_000, 4_000);
        grow(&by_bytes, 1..=100, 100);
        assert_eq!(upto(&by_bytes, 100, NOW), LogIndex(60), "40 entries of 100 bytes");
        // Large ones count for more.
        grow(&by_bytes, 101..=103, 1_000);
        assert_eq!(upto(&by_bytes, 103, NOW), LogIndex(90));
        assert_eq!(upto(&by_bytes, 103, NOW), LogIndex(90), "asking changes nothing");
        grow(&by_bytes, 104..=104, 1_000_000);
        assert_eq!(upto(&by_bytes, 104, NOW), LogIndex(104), "not one fits");
        let none = retention(0, 0, 0);
        grow(&none, 1..=10, 100);
        assert_eq!(upto(&none, 10, NOW), LogIndex(10));
    }

    #[test]
    fn entries_of_earlier_lives_count_too() {
        let retention = retention(1_000, 4_000, 4_000);
        grow(&retention, 51..=60, 100);
        let before = Retention::new(retention.limits);
        grow(&before, 1..=50, 100);
        retention.found(before.state.into_inner().unwrap().pieces);
        assert_eq!(upto(&retention, 60, NOW), LogIndex(20));
    }

    #[test]
    fn nothing_is_given_up_before_it_was_applied() {
        let retention = retention(0, 0, 0);
        grow(&retention, 1..=10, 100);
        assert_eq!(retention.limit(LogIndex(10), LogIndex(3), NOW), LogIndex(3), "it is not durable");
        assert_eq!(upto(&retention, 4, NOW), LogIndex(4));
    }

    #[test]
    fn many_small_entries_take_little_to_remember() {
        let retention = retention(u64::MAX, 64 << 20, 0);
        grow(&retention, 1..=1_000_000, 100);
        let pieces = retention.lock().pieces.0.len();
        assert!(pieces <= 100, "{pieces}");
        let kept = 1_000_000 - upto(&retention, 1_000_000, NOW).0;
        let wanted = (64 << 20) / 100;
        assert!(kept <= wanted && wanted - kept <= wanted / 32, "{kept} of {wanted}");
    }

    #[test]
    fn entries_behind_a_snapshot_stay_until_its_receiver_had_time_to_ask_for_them() {
        let retention = retention(0, 1 << 20, 1 << 20);
        let limit = |now| upto(&retention, 100, now).0;
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
        let retention = retention(0, 1 << 20, 1 << 20);
        retention.asked(id(2), LogIndex(10));
        retention.sent(id(2), true, NOW);
        retention.asked(id(2), LogIndex(20));
        assert_eq!(upto(&retention, 100, NOW + Duration::from_secs(60)), LogIndex(20));
        assert_eq!(upto(&retention, 5, NOW), LogIndex(5));
    }

    #[test]
    fn entries_stay_while_the_receiver_is_heard_of_until_it_has_caught_up() {
        let retention = retention(10, 1 << 20, 1 << 20);
        let limit = |applied, now| upto(&retention, applied, now).0;
        let hour = Duration::from_secs(3_600);
        retention.asked(id(2), LogIndex(40));
        retention.heard(id(2), LogIndex(7), NOW);
        assert_eq!(limit(45, NOW), 35);
        retention.sent(id(2), true, NOW);
        assert_eq!(limit(45, NOW), 35, "still within what is kept for all");
        // It installs for two hours, and says so.
        for minutes in 0..120 {
            retention.heard(id(2), LogIndex(7), NOW + Duration::from_secs(60 * minutes) / 2);
        }
        let now = NOW + hour;
        assert_eq!(limit(1_000, now), 40);
        retention.heard(id(2), LogIndex(40), now);
        assert_eq!(limit(1_000, now), 40);
        retention.heard(id(2), LogIndex(500), now);
        assert_eq!(limit(1_000, now), 500, "it catches up");
        retention.heard(id(2), LogIndex(995), now);
        assert_eq!(limit(1_000, now), 990);
        assert_eq!(limit(2_000, now), 1_990, "and then is one of all");
    }

    #[test]
    fn a_snapshot_that_never_ends_does_not_keep_the_log_for_ever() {
        let retention = retention(10, 1_000, 5_000);
        retention.asked(id(2), LogIndex(1));
        grow(&retention, 1..=40, 100);
        assert_eq!(upto(&retention, 40, NOW), LogIndex(1));
        grow(&retention, 41..=200, 100);
        assert_eq!(upto(&retention, 200, NOW), LogIndex(150), "50 entries of 100 bytes");
    }
}
