//! What a node does on a disk that is nearly full, before it is full.
//!
//! | space | proposals | a leader's entries | leadership |
//! | --- | --- | --- | --- |
//! | enough | taken | taken | |
//! | low | those that add no data | taken while the state machine keeps up | goes to another member, and is not taken over from one |
//! | out | none | dropped, as a network may | as above |
//!
//! Raft's own records (votes, empty entries, membership changes) are always taken: the log keeps room for them. A member whose
//! entries are dropped stays a follower that hears its leader and answers reads; the leader sends them again with each
//! heartbeat's answer.

use harmony_types::raft::{Progress, RaftState};
use harmony_types::{DiskSpace, Message, MessageType, NodeId, Storage};

/// Bytes proposed or received between two looks at the disk.
const LOOK_BYTES: u64 = 64 << 10;

/// What an entry takes in a log besides its data, about.
const ENTRY_BYTES: u64 = 64;

/// Entries that may wait for the state machine while space is low: it may be waiting for space itself.
const WAITING_MAX: u64 = 512;

/// Election timeouts between two tries to hand leadership over, once every other member was tried: they may have no room either,
/// and proposals wait during each.
const RESTS: u64 = 30;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Space {
    seen: DiskSpace,
    /// Bytes that came since the last look.
    unseen_bytes: u64,
    /// Tries to hand leadership over since space is low.
    tries: usize,
    /// Tick of the next try.
    next_try: u64,
}

impl Space {
    /// What the disk had room for at the last look.
    pub(super) fn seen(&self) -> DiskSpace {
        self.seen
    }

    /// Looks at the disk.
    pub(super) fn look(&mut self, storage: &impl Storage) {
        // They are in the log by the next look.
        let upcoming_bytes = std::mem::take(&mut self.unseen_bytes);
        let before = std::mem::replace(&mut self.seen, storage.disk_space(upcoming_bytes));
        match (before, self.seen) {
            (DiskSpace::Enough, DiskSpace::Enough) => {}
            (DiskSpace::Enough, _) => {
                (self.tries, self.next_try) = (0, 0);
                tracing::warn!(
                    "the disk is nearly full: commands that need space are refused until there is more"
                );
            }
            (_, DiskSpace::Enough) => tracing::info!("the disk has room again: all commands are taken"),
            (DiskSpace::Low, DiskSpace::Out) => tracing::warn!("the disk is full: no command is taken"),
            _ => {}
        }
    }

    /// So many commands with so many bytes are about to come: looks again when they are many.
    pub(super) fn expect(&mut self, storage: &impl Storage, count: usize, bytes: u64) {
        self.unseen_bytes += bytes + ENTRY_BYTES * count as u64;
        if LOOK_BYTES <= self.unseen_bytes {
            self.look(storage);
        }
    }

    /// Whether a command is to be proposed.
    pub(super) fn admits(&self, storage: &impl Storage, command: &bytes::Bytes) -> bool {
        match self.seen {
            DiskSpace::Enough => true,
            DiskSpace::Low => !storage.needs_space(command),
            DiskSpace::Out => false,
        }
    }

    /// Whether a message from a peer is to be dropped. `waiting`: entries that the state machine has not applied yet.
    pub(super) fn drops(&mut self, storage: &impl Storage, message: &Message, waiting: u64) -> bool {
        match message.message_type {
            MessageType::Append if !message.entries.is_empty() => {
                let bytes = message.entries.iter().map(|entry| entry.data.len() as u64).sum();
                self.expect(storage, message.entries.len(), bytes);
                self.seen == DiskSpace::Out || (self.seen == DiskSpace::Low && WAITING_MAX < waiting)
            }
            // It could not take what its clients write.
            MessageType::TimeoutNow => self.seen != DiskSpace::Enough,
            _ => false,
        }
    }

    /// To whom a leader should hand over now: one of these, which are the voters that it hears.
    pub(super) fn successor(
        &mut self,
        tick: u64,
        election_ticks: u64,
        state: RaftState,
        candidates: impl FnOnce() -> Vec<Progress>,
    ) -> Option<NodeId> {
        if self.seen == DiskSpace::Enough || state != RaftState::Leader || tick < self.next_try {
            return None;
        }
        let mut candidates = candidates();
        candidates.sort_by_key(|one| std::cmp::Reverse(one.matched));
        let to = candidates.get(self.tries % candidates.len().max(1))?.id;
        self.tries += 1;
        let rests = if self.tries < candidates.len() { 2 } else { RESTS };
        self.next_try = tick + rests * election_ticks;
        Some(to)
    }
}
