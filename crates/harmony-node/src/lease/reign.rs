//! The time in which this node leads, in one term: what waits, and what is under way.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use harmony_types::lease::TimeToLive;
use harmony_types::{Author, Command, CommandKind, LeaseId, NodeError, Term};

use super::core::{Actions, Proposal};
use super::deadlines::Deadlines;
use super::tracked::{Phase, Tracked, seconds};
use crate::waiter::{ReplyBatch, Waiter};

/// The time in which this node leads, in one term.
pub(super) struct Reign {
    pub(super) term: Term,
    /// Leases are counted: what came before this reign is applied.
    pub(super) has_begun: bool,
    pub(super) deadlines: Deadlines,
    /// To be revoked, in the order in which they were over.
    pub(super) over: VecDeque<LeaseId>,
    pub(super) revoking: usize,
    pub(super) next_revoke_at: Duration,
    pub(super) round: Option<Round>,
    /// No round before: the last one failed.
    pub(super) next_round_at: Duration,
    pub(super) renewals: Vec<Call<i64>>,
    pub(super) questions: Vec<Call<Option<TimeToLive>>>,
    pub(super) proposed: BTreeMap<u64, Proposed>,
    pub(super) checkpoint_at: Duration,
    pub(super) checkpoint_interval: Duration,
    pub(super) to_checkpoint: VecDeque<LeaseId>,
    pub(super) is_checkpointing: bool,
}

/// A call that waits for a round.
pub(super) struct Call<T> {
    pub(super) asked: Duration,
    pub(super) id: LeaseId,
    pub(super) waiter: Waiter<T>,
}

/// Leadership is being confirmed for those who asked before.
pub(super) struct Round {
    pub(super) number: u64,
    pub(super) opened: Duration,
    pub(super) renewals: Vec<Call<i64>>,
    pub(super) questions: Vec<Call<Option<TimeToLive>>>,
    pub(super) over: VecDeque<LeaseId>,
}

/// A command that the keeper proposed and whose end it does not know yet.
pub(super) enum Proposed {
    Revoke(LeaseId, u64),
    Checkpoint,
    /// The log says again that all of these is left; they were renewed.
    Clear(Vec<(LeaseId, Waiter<i64>)>),
}

impl Reign {
    pub(super) fn new(term: Term, now: Duration) -> Self {
        Self {
            term,
            has_begun: false,
            deadlines: Deadlines::default(),
            over: VecDeque::new(),
            revoking: 0,
            next_revoke_at: Duration::ZERO,
            round: None,
            next_round_at: now,
            renewals: Vec::new(),
            questions: Vec::new(),
            proposed: BTreeMap::new(),
            checkpoint_at: now,
            checkpoint_interval: Duration::ZERO,
            to_checkpoint: VecDeque::new(),
            is_checkpointing: false,
        }
    }

    /// Begins to count a lease.
    pub(super) fn count(&mut self, id: LeaseId, lease: &mut Tracked, now: Duration, grace: Duration) {
        lease.over_at = now + seconds(lease.known_s());
        // What the log says is left of a lease, it says of one that was not renewed since: no answer is under way.
        lease.grace = if lease.remaining_ttl_s == 0 { grace } else { Duration::ZERO };
        lease.phase = Phase::Counting;
        lease.less_told = (lease.remaining_ttl_s != 0).then_some(0);
        self.deadlines.add(lease.end(), id, lease.serial);
    }

    pub(super) fn proposal(&self, token: u64, kind: CommandKind) -> Proposal {
        let author = Author { by_member: true, ..Author::default() };
        Proposal { token, term: self.term, command: Command::by(author, kind) }
    }

    /// Ends all calls: another leader answers them.
    pub(super) fn give_up(self, actions: &mut Actions) {
        let (round_renewals, round_questions) =
            self.round.map_or_else(Default::default, |round| (round.renewals, round.questions));
        let renewals = self.renewals.into_iter().chain(round_renewals);
        refuse(renewals.map(|call| call.waiter), &mut actions.renewals);
        let questions = self.questions.into_iter().chain(round_questions);
        refuse(questions.map(|call| call.waiter), &mut actions.questions);
        for proposed in self.proposed.into_values() {
            if let Proposed::Clear(calls) = proposed {
                refuse(calls.into_iter().map(|(_, waiter)| waiter), &mut actions.renewals);
            }
        }
    }
}

/// Has calls asked again: another leader may answer them.
pub(super) fn refuse<T>(waiters: impl IntoIterator<Item = Waiter<T>>, replies: &mut ReplyBatch<T>) {
    for waiter in waiters {
        replies.push(waiter, Err(NodeError::LeaderChanged));
    }
}
