//! A member whose state is damaged, or not the others', stops serving and takes a snapshot of theirs.
//!
//! Its log, its votes and what it acknowledged are untouched: it goes on voting, and its log ends where it ended. Raft's
//! own request for a snapshot does the rest. From the request to the installation it takes no entry, and the snapshot is of
//! its last index or a later one, so that nothing it acknowledged can be missing behind it.
//!
//! A leader lets another member lead first, one that said since that its state is well: raft refuses a leader's request, and
//! two that hand over to each other would go on for ever. Each step is tried again at every beat, so that a lost message or a
//! change of leaders in between costs time and nothing else. The only voter has nobody to ask: nothing is changed then.
//!
//! One whose state was found damaged when it started is lost to a higher degree: it begins without a state, with members that
//! others told it, and parts of its log may stand for entries that only the others can read. It votes and acknowledges as
//! always, but never leads: until the snapshot is there, it could give nobody what it should.

use harmony_types::raft::RaftState;
use harmony_types::{LogIndex, NodeError, NodeId, PeerMessage, RaftNode as _, Snapshot, Storage};

use super::Core;
use super::event::{Actions, Inbox};
use crate::bounds;
use crate::driver::has_others;

/// This member's state is to be replaced.
#[derive(Debug)]
pub(super) struct Corrupt {
    /// Entries are applied to it all the same, so that what waits for them does not wait in vain.
    applies: bool,
    /// There was none from the start: this member must not lead.
    lost_at_start: bool,
}

impl<S: Storage> Core<S> {
    /// This member serves nobody until its state is replaced.
    pub(super) fn is_corrupt(&self) -> bool {
        self.corrupt.is_some()
    }

    /// What is handed to the state machine is dropped.
    pub(crate) fn takes_no_entries(&self) -> bool {
        self.corrupt.as_ref().is_some_and(|corrupt| !corrupt.applies)
    }

    /// This member takes no part in elections but with its vote.
    pub(super) fn must_not_lead(&self) -> bool {
        self.corrupt.as_ref().is_some_and(|corrupt| corrupt.lost_at_start) || self.handler.settles_snapshot()
    }

    /// Looks whether there is a state to begin with.
    pub(super) fn look_at_start(&mut self) {
        if let Some(reason) = self.storage.damage() {
            self.found_damaged(&reason, false);
            if let Some(corrupt) = &mut self.corrupt {
                corrupt.lost_at_start = true;
                self.handler.lose_state();
                self.campaign = false;
            }
        }
    }

    /// Refuses this node's clients.
    pub(super) fn refuse_as_corrupt(&self, inbox: &mut Inbox<S::Outcome>, actions: &mut Actions<S::Outcome>) {
        for waiter in std::mem::take(&mut inbox.reads) {
            actions.reads.push(waiter, Err(NodeError::Corrupt { id: self.config.id }));
        }
        inbox.proposals_bytes = 0;
        for (_, waiter) in std::mem::take(&mut inbox.proposals) {
            actions.replies.push(waiter, Err(NodeError::Corrupt { id: self.config.id }));
        }
    }

    /// Notes the state's hash, and whether it was found damaged.
    pub(super) fn look_at_state(&mut self) {
        if let Some((index, hash)) = self.storage.state_hash()
            && !self.must_not_lead()
        {
            self.hashes.note(index, hash);
        }
        if self.corrupt.is_none()
            && let Some(reason) = self.storage.damage()
        {
            self.found_damaged(&reason, true);
        }
    }

    /// Tells the leader this member's hashes, or, as the leader, compares everybody's. What is no news is told again from
    /// time to time: messages are lost.
    pub(super) fn compare_hashes(&mut self, actions: &mut Actions<S::Outcome>) {
        let again = self.ticks.is_multiple_of(bounds::ACKNOWLEDGED_TICKS);
        let (view, me) = (self.raft.view(), self.config.id);
        if view.state != RaftState::Leader {
            self.hashes.forget_told();
            self.metrics.corrupt_members.set(Vec::new());
            let Some(leader) = view.leader.filter(|leader| *leader != me) else { return };
            let corrupt = self.is_corrupt();
            let (is_news, hashes) = (self.hashes.is_news(leader, view.term, corrupt), self.hashes.newest());
            if (is_news || again) && (corrupt || !hashes.is_empty()) {
                actions.send(leader, PeerMessage::Hashes { hashes, corrupt });
            }
            return;
        }
        let membership = self.storage.membership();
        let found = self.hashes.compare(me, &membership.voters);
        if let Some(index) = found.undecided.filter(|_| again) {
            self.metrics.hashes_undecided.add(1);
            tracing::error!(%index, "members' states differ, and no majority says which is right: compare them by hand");
        }
        for (id, index, hash) in found.odd {
            if id == me {
                self.found_diverged(index);
            } else {
                actions.send(id, PeerMessage::Diverged { index, hash });
            }
        }
        let known: Vec<NodeId> = self.hashes.corrupt().collect();
        if self.metrics.corrupt_members.set(known.clone()) && !known.is_empty() {
            tracing::error!(members = ?known, "these members' states are damaged or differ: they are being replaced");
        }
    }

    /// A leader says that this member is odd. It must be the leader, and the hash another than was noted: a message may be late.
    pub(super) fn told_diverged(&mut self, from: NodeId, index: LogIndex, hash: u32) {
        if self.raft.view().leader == Some(from) && self.hashes.differs(index, hash) {
            self.found_diverged(index);
        }
    }

    fn found_diverged(&mut self, index: LogIndex) {
        if self.corrupt.is_none() {
            tracing::error!(
                node = %self.config.id,
                %index,
                "this member's state differs from the majority's: it stops serving and takes theirs"
            );
            self.set_corrupt(true);
        }
    }

    /// Damage was found in this member's state; `applies` is false once the state machine takes no entries any more.
    pub(super) fn found_damaged(&mut self, reason: &str, applies: bool) {
        if !has_others(self.config.id, &self.storage.membership()) {
            return;
        }
        if self.corrupt.is_none() {
            tracing::error!(
                node = %self.config.id,
                reason,
                "this member's state is damaged: it stops serving and takes that of the others"
            );
        }
        let applies = applies && !self.takes_no_entries();
        self.set_corrupt(applies);
    }

    fn set_corrupt(&mut self, applies: bool) {
        let lost_at_start = self.must_not_lead();
        self.corrupt = Some(Corrupt { applies, lost_at_start });
        self.metrics.corrupt.set(1);
    }

    /// Gets on with the repair: lets somebody else lead, asks for a snapshot.
    pub(super) fn repair(&mut self) {
        if self.corrupt.is_none() {
            return;
        }
        if self.raft.view().state == RaftState::Leader {
            let to = self.raft.successor(|id| self.is_heard(id) && self.hashes.is_well(id));
            self.transfer_to(to);
            return;
        }
        if self.must_not_lead() {
            self.report_loss();
        }
        if self.raft.requested_snapshot().is_none() {
            // Refused while there is no leader, or no entry of its term: the next beat asks again.
            self.raft.request_snapshot();
        }
    }

    /// Says from time to time that nobody leads who could give this member a state. When all are in that place, what they had
    /// is gone: the cluster stands still, and only an operator can say what to do.
    fn report_loss(&self) {
        let every = bounds::LOSS_REPORT_ELECTIONS * self.config.election_ticks();
        if self.raft.view().leader.is_none() && self.ticks.is_multiple_of(every) {
            tracing::error!(
                node = %self.config.id,
                "this member's state is lost, it must not lead, and nobody else leads: if every member says so, what the \
                 cluster committed is lost on all of them, and nothing is answered or skipped: see docs/operations.md"
            );
        }
    }

    /// A snapshot is in place: whatever was wrong with the state before is gone.
    pub(super) fn state_replaced(&mut self) {
        self.hashes.replaced(self.storage.state_hash());
        if self.corrupt.take().is_some() {
            self.metrics.corrupt.set(0);
            self.metrics.repairs.add(1);
            tracing::info!(node = %self.config.id, "the state was replaced: this member serves again");
        }
    }

    /// Whether a snapshot that arrived may be installed: one that was sent for another reason, before this member asked for
    /// one, would take entries with it that it has acknowledged.
    pub(super) fn covers_log(&self, snapshot: &Snapshot) -> bool {
        self.raft.requested_snapshot().is_none_or(|least| least <= snapshot.meta.index)
    }

    /// A corrupt member's state must not spread.
    pub(super) fn keep_snapshots(&self, actions: &mut Actions<S::Outcome>) {
        if self.is_corrupt() {
            for announcement in actions.snapshots.drain(..) {
                self.raft.report_snapshot(announcement.to, false);
            }
        }
    }
}
