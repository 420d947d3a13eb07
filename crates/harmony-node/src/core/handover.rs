//! A leader that hands over before it must: it was asked to, it stops, it is being removed, or its disk is full or hangs.
//!
//! While its disk works it answers first what is in its log. Whoever waits at a member whose leader goes that way, here or
//! elsewhere, is passed on to the next one: no call fails, and none ends as unknown.

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
    /// Who is to lead next, and the tick at which the transfer begins whatever is not answered yet.
    planned: Option<(NodeId, u64)>,
}

impl<S: Storage> Core<S> {
    /// Takes in who waits for this member to lead no more.
    pub(super) fn leave(&mut self, waiter: Waiter<()>) {
        let deadline = self.ticks + 2 * self.config.election_ticks();
        self.handover.leaving.push(Leaving { waiter, deadline });
    }

    /// Ends those who waited for another leader, and sees to it that there is one.
    pub(super) fn hand_over(&mut self, actions: &mut Actions<S::Outcome>) {
        self.see_off(actions);
        self.begin_transfer();
    }

    fn see_off(&mut self, actions: &mut Actions<S::Outcome>) {
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
        if wait && let Some(to) = successor {
            self.plan_transfer(to);
        }
    }

    /// Lets `to` lead once every proposal in this leader's log is answered: one that is in the log while leadership goes would
    /// end as unknown. Proposals that come meanwhile wait for the next leader, which follows within milliseconds.
    pub(super) fn plan_transfer(&mut self, to: NodeId) {
        if !self.is_handing_over() {
            self.handover.planned = Some((to, self.ticks + self.config.election_ticks() / 2));
        }
    }

    /// This leader takes no more proposals: another one is to lead.
    pub(super) fn is_handing_over(&self) -> bool {
        self.handover.planned.is_some() || self.raft.view().transferring
    }

    /// Begins the transfer that was planned, when it is time.
    fn begin_transfer(&mut self) {
        let Some((to, at)) = self.handover.planned else { return };
        let leads = self.view.state == RaftState::Leader;
        let answered = self.proposals.pending_count() == 0 && self.is_idle();
        if leads && !answered && self.ticks < at {
            return;
        }
        self.handover.planned = None;
        if leads {
            self.transfer_to(Some(to));
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
