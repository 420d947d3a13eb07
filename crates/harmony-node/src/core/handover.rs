//! A leader that hands over before it must: it stops, it is being removed, or its disk hangs.

use harmony_types::raft::RaftState;
use harmony_types::{NodeError, NodeId, RaftNode as _, Storage};

use crate::core::Core;
use crate::core::event::Actions;
use crate::waiter::Waiter;

/// Somebody who waits for this member to lead no more.
#[derive(Debug)]
struct Leaving {
    waiter: Waiter<()>,
    deadline: u64,
}

/// What makes this leader go.
#[derive(Debug, Default)]
pub(super) struct Handover {
    leaving: Vec<Leaving>,
    /// The oldest ready state that waits for the disk, and the tick since which it was seen to wait.
    stall: Option<(u64, u64)>,
}

impl<S: Storage> Core<S> {
    /// Takes in who waits for this member to lead no more.
    pub(super) fn leave(&mut self, waiter: Waiter<()>) {
        let deadline = self.ticks + 2 * self.config.election_ticks();
        self.handover.leaving.push(Leaving { waiter, deadline });
    }

    /// Ends those who waited for another leader, and sees to it that there is one.
    pub(super) fn hand_over(&mut self, actions: &mut Actions<S::Outcome>) {
        if self.handover.leaving.is_empty() {
            return;
        }
        let led = self.view.state == RaftState::Leader;
        let successor = if led { self.successor() } else { None };
        let now = self.ticks;
        let mut wait = false;
        for Leaving { waiter, deadline } in std::mem::take(&mut self.handover.leaving) {
            if !led {
                actions.reads.push(waiter, Ok(()));
            } else if successor.is_none() {
                actions.reads.push(waiter, Err(NodeError::NoSuccessor));
            } else if deadline <= now {
                actions.reads.push(waiter, Err(NodeError::Timeout));
            } else {
                self.handover.leaving.push(Leaving { waiter, deadline });
                wait = true;
            }
        }
        if wait {
            self.transfer_to(successor);
        }
    }

    /// A leader whose disk takes an election timeout for one sync hands over: what its clients propose is committed by
    /// the others, but cannot be applied here, and nobody hears of it.
    pub(super) fn watch_disk(&mut self) {
        let timeout = self.config.election_ticks();
        let stalled = match (self.handler.oldest_unsynced(), self.handover.stall) {
            (Some(oldest), Some((known, since))) if oldest == known => self.ticks >= since + timeout,
            (oldest, _) => {
                self.handover.stall = oldest.map(|oldest| (oldest, self.ticks));
                false
            }
        };
        if !stalled || self.view.state != RaftState::Leader {
            return;
        }
        if let Some(to) = self.successor() {
            tracing::warn!(node = %self.config.id, %to, "the disk hangs: leadership is handed over");
            self.metrics.disk_stalls.add(1);
            self.transfer_to(Some(to));
        }
        // Another try after as long, should this one come to nothing.
        self.handover.stall = self.handover.stall.map(|(oldest, _)| (oldest, self.ticks));
    }

    /// Starts a transfer unless one is under way.
    pub(super) fn transfer_to(&mut self, to: Option<NodeId>) {
        let Some(to) = to.filter(|_| !self.raft.view().transferring) else { return };
        if let Err(error) = self.raft.transfer_leader(to) {
            tracing::warn!(%to, %error, "leadership stays");
        }
    }

    /// The voter that is heard of, and whose state is well as far as is known, that holds most of the log.
    pub(super) fn successor(&self) -> Option<NodeId> {
        self.raft.successor(|id| self.is_heard(id) && !self.hashes.is_corrupt(id))
    }

    /// Whether a peer said something within the last election timeout.
    pub(super) fn is_heard(&self, id: NodeId) -> bool {
        id == self.config.id
            || self.heard.get(&id).is_some_and(|at| self.ticks < at + self.config.election_ticks())
    }
}
