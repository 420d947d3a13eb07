//! The order rule: what happens to a ready state, and when its messages may leave.
//!
//! [`ReadyHandler::process_ready`] is the one place. The rules behind it:
//! - The storage serves entries before raft is told so, and is synced before anybody hears of them.
//! - A leader's messages leave beside its own disk write, unless a term or vote of this node is not on disk yet: whoever
//!   forgets its vote may give it twice.
//! - Everybody else's messages leave once their ready state, and all before it, is on disk and raft was told so.
//! - Every ready state is reported persisted, in order; one that needs no sync follows the one before.

use std::collections::VecDeque;
use std::sync::Arc;

use harmony_types::planted::{self, Bug};
use harmony_types::{LogIndex, Message, NodeError, RaftNode as _, Ready, Snapshot, Storage};

use crate::core::Proposals;
use crate::core::event::{Actions, ApplyJob};
use crate::raft::{RaftGroup, is_conf_change};

/// A ready state that is not on disk yet.
#[derive(Debug)]
struct Unpersisted {
    number: u64,
    must_sync: bool,
    held: Vec<Message>,
    /// Raft may hear that this snapshot is applied, once it heard that it is persisted.
    applied: Option<LogIndex>,
}

/// Carries out ready states in order.
pub(crate) struct ReadyHandler<S: Storage> {
    storage: Arc<S>,
    unpersisted: VecDeque<Unpersisted>,
    /// The newest ready state that changed term or vote and is not on disk yet.
    vote_unpersisted: Option<u64>,
    term_and_vote: (harmony_types::Term, Option<harmony_types::NodeId>),
    /// Last index handed to the state machine.
    handed_out: LogIndex,
    /// The rest of a ready state whose snapshot is being installed.
    installing: Option<(Ready, LogIndex)>,
    /// A ready state that the log had no place for, with the snapshot that it follows, if any. Nothing of it was carried out.
    refused: Option<(Ready, Option<LogIndex>)>,
    /// It was said in the log.
    is_waiting: bool,
    /// There is no state that entries could be applied to, not even the membership, until a snapshot is installed.
    state_is_lost: bool,
}

impl<S: Storage> ReadyHandler<S> {
    pub(crate) fn new(storage: Arc<S>, raft: &RaftGroup<S>) -> Self {
        let start = raft.start_state();
        let handed_out = storage.applied().index;
        Self {
            storage,
            unpersisted: VecDeque::new(),
            vote_unpersisted: None,
            term_and_vote: (start.term, start.vote),
            handed_out,
            installing: None,
            refused: None,
            is_waiting: false,
            state_is_lost: false,
        }
    }

    /// Membership changes are handed out as entries that are not applied are: what they would change is not known.
    pub(crate) fn lose_state(&mut self) {
        self.state_is_lost = true;
    }

    /// Everything that raft handed over is on disk.
    pub(crate) fn is_drained(&self) -> bool {
        self.unpersisted.is_empty()
    }

    /// A snapshot is in place, and raft does not count it as applied before the sync behind it: until then its applied index
    /// lies before the log's begin, and an election would have it read what is gone.
    pub(crate) fn settles_snapshot(&self) -> bool {
        self.refused.as_ref().is_some_and(|(_, installed)| installed.is_some())
            || self.unpersisted.iter().any(|one| one.applied.is_some())
    }

    /// A snapshot is being installed: raft must hear nothing until it is.
    pub(crate) fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// The disk was full: raft must hear nothing until [`ReadyHandler::save_again`] succeeds.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// Tries to carry out the ready state that the log refused.
    pub(crate) fn save_again(
        &mut self,
        raft: &RaftGroup<S>,
        proposals: &mut Proposals<S::Outcome>,
        actions: &mut Actions<S::Outcome>,
    ) -> Result<(), NodeError> {
        let Some((ready, installed)) = self.refused.take() else { return Ok(()) };
        self.save_and_send(raft, ready, installed, proposals, actions)?;
        if self.refused.is_none() {
            self.is_waiting = false;
            tracing::info!("the disk has room again: the log goes on");
        }
        Ok(())
    }

    /// The newest term that was given to the log.
    pub(crate) fn saved_term(&self) -> harmony_types::Term {
        self.term_and_vote.0
    }

    /// The oldest ready state that waits for a sync.
    pub(crate) fn oldest_unsynced(&self) -> Option<u64> {
        self.unpersisted.iter().find(|one| one.must_sync).map(|one| one.number)
    }

    /// Last index handed to the state machine.
    pub(crate) fn handed_out(&self) -> LogIndex {
        self.handed_out
    }

    /// Carries out one ready state: 1 snapshot, 2 hard state and entries to the log, 3 messages, 4 committed entries.
    ///
    /// A snapshot stops it after step 1; [`ReadyHandler::installed`] goes on. `incoming` is that snapshot's content.
    pub(crate) fn process_ready(
        &mut self,
        raft: &RaftGroup<S>,
        mut ready: Ready,
        incoming: &mut Option<Snapshot>,
        proposals: &mut Proposals<S::Outcome>,
        actions: &mut Actions<S::Outcome>,
    ) -> Result<(), NodeError> {
        // 1. Nothing else is under way, so that the log's end and the state machine move together.
        if let Some(wanted) = ready.snapshot.take() {
            assert!(self.unpersisted.is_empty(), "a snapshot is taken while the log is being written");
            let snapshot = incoming.take().expect("raft was told of a snapshot only with its content");
            let found = (snapshot.meta.index, snapshot.meta.term);
            assert_eq!(
                found,
                (wanted.meta.index, wanted.meta.term),
                "raft wants another snapshot than arrived"
            );
            self.handed_out = snapshot.meta.index;
            self.installing = Some((ready, snapshot.meta.index));
            actions.apply.push(ApplyJob::Install { snapshot });
            return Ok(());
        }
        self.save_and_send(raft, ready, None, proposals, actions)
    }

    /// The snapshot is in place and on disk: goes on with the rest of its ready state.
    pub(crate) fn installed(
        &mut self,
        raft: &RaftGroup<S>,
        index: LogIndex,
        proposals: &mut Proposals<S::Outcome>,
        actions: &mut Actions<S::Outcome>,
    ) -> Result<(), NodeError> {
        let (ready, wanted) = self.installing.take().expect("only a snapshot that was asked for is reported");
        assert_eq!(index, wanted, "another snapshot was installed than asked for");
        self.state_is_lost = false;
        self.save_and_send(raft, ready, Some(index), proposals, actions)
    }

    /// Everything up to `number` is on disk: tells raft, then lets the held messages go.
    pub(crate) fn persisted(&mut self, raft: &RaftGroup<S>, number: u64, actions: &mut Actions<S::Outcome>) {
        let mut done = None;
        let mut held = Vec::new();
        let mut applied = None;
        while let Some(first) =
            self.unpersisted.pop_front_if(|first| first.number <= number || !first.must_sync)
        {
            done = Some(first.number);
            held.extend(first.held);
            applied = applied.max(first.applied);
        }
        let Some(done) = done else { return };
        self.vote_unpersisted = self.vote_unpersisted.filter(|unpersisted| done < *unpersisted);
        // Raft first: an answer to a message that left earlier could come back before raft knows of its own disk.
        raft.persisted(done);
        if let Some(index) = applied {
            raft.applied(index);
        }
        actions.send_raft(held);
    }

    fn save_and_send(
        &mut self,
        raft: &RaftGroup<S>,
        ready: Ready,
        installed: Option<LogIndex>,
        proposals: &mut Proposals<S::Outcome>,
        actions: &mut Actions<S::Outcome>,
    ) -> Result<(), NodeError> {
        let number = ready.number;
        // 2. Readable at once; the sync is under way while the rest happens.
        if ready.hard_state.is_some() || !ready.entries.is_empty() {
            match self.storage.save(ready.hard_state.as_ref(), &ready.entries) {
                Err(error) if error.is_disk_full() => {
                    if !std::mem::replace(&mut self.is_waiting, true) {
                        tracing::warn!(%error, "the log waits for room: this member only serves local reads");
                    }
                    self.refused = Some((ready, installed));
                    return Ok(());
                }
                saved => saved?,
            }
        }
        if let Some(state) = ready.hard_state {
            let term_and_vote = (state.term, state.vote);
            if self.term_and_vote != term_and_vote {
                self.term_and_vote = term_and_vote;
                self.vote_unpersisted = Some(number);
            }
        }
        raft.advance();

        // 3.
        let mut held = ready.persisted_messages;
        if planted::is(Bug::SendBeforeSync) {
            actions.send_raft(std::mem::take(&mut held));
        }
        if self.vote_unpersisted.is_some() {
            held.extend(ready.messages);
        } else {
            actions.send_raft(ready.messages);
        }

        // 4. Raft learns of a membership change here, ahead of the state machine but in the log's order, so that its
        // own messages below already go by it.
        let wait = self.hand_out(raft, ready.committed_entries, proposals, actions);

        if ready.must_sync {
            actions.persist = Some(number);
        }
        self.unpersisted.push_back(Unpersisted {
            number,
            must_sync: ready.must_sync,
            held,
            applied: installed,
        });
        // What needs no sync is done when nothing before it waits.
        self.persisted(raft, 0, actions);
        wait
    }

    /// Splits committed entries into jobs for the state machine: commands in one piece, membership changes alone.
    fn hand_out(
        &mut self,
        raft: &RaftGroup<S>,
        committed: Vec<harmony_types::Entry>,
        proposals: &mut Proposals<S::Outcome>,
        actions: &mut Actions<S::Outcome>,
    ) -> Result<(), NodeError> {
        let Some(last) = committed.last() else { return Ok(()) };
        let (first, last) = (committed[0].index, last.index);
        assert_eq!(first, self.handed_out.next(), "committed entries are handed out without a gap");
        self.handed_out = last;
        for entry in committed {
            let reply = proposals.committed(&entry, actions);
            if is_conf_change(entry.entry_type) && !self.state_is_lost {
                let (voter_sets, changes) = raft.apply_conf_change(&entry)?;
                actions.apply_membership(entry, voter_sets, changes, reply);
            } else {
                actions.apply_entry(entry, reply);
            }
        }
        Ok(())
    }
}
