//! Membership changes on their way: parked until a leader is known, or passed on to it, like proposals.
//!
//! A leader that is to remove itself hands over first, so that nobody waits for an election; the change then goes to the
//! next leader.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use harmony_types::planted::{self, Bug};
use harmony_types::raft::RaftState;
use harmony_types::transport::{ChangeError, ForwardError};
use harmony_types::{
    ConfChange, ConfChangeType, LogIndex, Membership, MembershipError, NodeError, NodeId, PeerMessage,
    RaftNode as _, Storage,
};

use crate::bounds;
use crate::core::Core;
use crate::core::event::{Actions, ReplyTo};
use crate::waiter::{ReplySink, Waiter};

/// Who asked for a change.
#[derive(Debug)]
pub(super) enum Asker {
    Local(Waiter<Membership>),
    Peer { node: NodeId, request: u64 },
}

#[derive(Debug)]
struct Parked {
    changes: Vec<ConfChange>,
    asker: Asker,
    deadline: u64,
}

#[derive(Debug)]
struct Forward {
    to: NodeId,
    changes: Vec<ConfChange>,
    waiter: Waiter<Membership>,
    deadline: u64,
}

/// A change that is made, but not applied here yet.
#[derive(Debug)]
struct Early {
    index: LogIndex,
    waiter: Waiter<Membership>,
    deadline: u64,
}

/// The changes that wait here. Each is in one place, and leaves it with its one answer.
#[derive(Debug)]
pub(super) struct Changes {
    parked: VecDeque<Parked>,
    forwards: BTreeMap<u64, Forward>,
    early: Vec<Early>,
    /// Changes in this leader's log that peers asked for, by token, and how they ended.
    asked: BTreeMap<u64, (NodeId, u64)>,
    answers: Arc<Answers>,
    last_request: u64,
}

/// Hears how changes end that peers asked for: on the apply thread, while the core answers.
#[derive(Debug, Default)]
struct Answers(Mutex<Vec<Ended>>);

type Ended = (u64, Result<Membership, NodeError>);

impl ReplySink<Membership> for Answers {
    fn complete(&self, batch: Vec<Ended>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(batch);
    }
}

impl Changes {
    pub(super) fn new(first_request: u64) -> Self {
        Self {
            parked: VecDeque::new(),
            forwards: BTreeMap::new(),
            early: Vec::new(),
            asked: BTreeMap::new(),
            answers: Arc::default(),
            last_request: first_request,
        }
    }

    fn waiting(&self) -> usize {
        self.parked.len() + self.forwards.len() + self.early.len() + self.asked.len()
    }
}

impl<S: Storage> Core<S> {
    /// A change arrived: refused at once, or parked until the end of this turn or the next leader.
    pub(super) fn change_asked(
        &mut self,
        changes: Vec<ConfChange>,
        asker: Asker,
        actions: &mut Actions<S::Outcome>,
    ) {
        let leads = self.raft.view().state == RaftState::Leader;
        if bounds::CHANGES_WAITING_MAX <= self.changes.waiting() {
            refuse(asker, NodeError::Busy, actions);
        } else if !leads && matches!(asker, Asker::Peer { .. }) {
            refuse(asker, NodeError::NotLeader { leader: None }, actions);
        } else {
            let deadline = self.ticks + self.request_ticks;
            self.changes.parked.push_back(Parked { changes, asker, deadline });
        }
    }

    /// Brings parked changes to the leader: this node's log, or another member.
    pub(super) fn submit_changes(&mut self, actions: &mut Actions<S::Outcome>) {
        for _ in 0..self.changes.parked.len() {
            let Some(parked) = self.changes.parked.pop_front() else { return };
            if self.view.state == RaftState::Leader {
                self.change_here(parked, actions);
                continue;
            }
            let leader = self.view.leader.filter(|leader| {
                *leader != self.config.id
                    && !self.leader_is_gone()
                    && self.refused != Some((*leader, self.view.term, self.ticks))
            });
            let Parked { changes, asker, deadline } = parked;
            match (leader, asker) {
                (Some(to), Asker::Local(waiter)) => {
                    self.changes.last_request += 1;
                    let request = self.changes.last_request;
                    actions.send(to, PeerMessage::Change { request, changes: changes.clone() });
                    self.changes.forwards.insert(request, Forward { to, changes, waiter, deadline });
                }
                (None, asker @ Asker::Local(_)) => {
                    self.changes.parked.push_back(Parked { changes, asker, deadline });
                }
                (_, asker) => refuse(asker, NodeError::NotLeader { leader: None }, actions),
            }
        }
    }

    /// A leader's own log.
    fn change_here(&mut self, parked: Parked, actions: &mut Actions<S::Outcome>) {
        let view = self.raft.view();
        // Neither takes long, and both end by themselves.
        if self.is_handing_over() || !view.committed_in_term {
            self.changes.parked.push_back(parked);
            return;
        }
        let promotions =
            parked.changes.iter().filter(|change| change.change_type == ConfChangeType::Promote).count()
                as u64;
        if let Err(error) = self.check_changes(&parked.changes) {
            self.metrics.promotions_refused.add(promotions);
            refuse(parked.asker, error.into(), actions);
            return;
        }
        if parked.changes.iter().any(|change| removes(change, self.config.id)) {
            match self.successor() {
                Some(to) => {
                    tracing::info!(node = %self.config.id, %to, "this leader is to be removed: it hands over first");
                    self.changes.parked.push_back(parked);
                    self.plan_transfer(to);
                }
                None => refuse(parked.asker, NodeError::NoSuccessor, actions),
            }
            return;
        }
        match self.raft.propose_conf_change(&parked.changes) {
            Ok((index, term)) => {
                self.metrics.promotions.add(promotions);
                let waiter = match parked.asker {
                    Asker::Local(waiter) => waiter,
                    Asker::Peer { node, request } => {
                        self.changes.last_request += 1;
                        let token = self.changes.last_request;
                        self.changes.asked.insert(token, (node, request));
                        Waiter::new(Arc::clone(&self.changes.answers) as _, token)
                    }
                };
                self.proposals.pend(index, term, ReplyTo::Member(waiter));
            }
            Err(error) => refuse(parked.asker, error, actions),
        }
    }

    /// Tells peers how the changes ended that they asked for.
    pub(super) fn answer_changes(&mut self, actions: &mut Actions<S::Outcome>) {
        if self.changes.asked.is_empty() {
            return;
        }
        let ended =
            std::mem::take(&mut *self.changes.answers.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (token, result) in ended {
            let Some((node, request)) = self.changes.asked.remove(&token) else { continue };
            // Applied here, so at this index or before it.
            let result = result.map(|_| self.storage.applied().index).map_err(|error| change_error(&error));
            actions.send(node, PeerMessage::ChangeReply { request, result });
        }
    }

    /// The leader's answer to a change that was passed on.
    pub(super) fn change_answered(
        &mut self,
        from: NodeId,
        request: u64,
        result: Result<LogIndex, ChangeError>,
        actions: &mut Actions<S::Outcome>,
    ) {
        if self.changes.forwards.get(&request).is_none_or(|forward| forward.to != from) {
            return;
        }
        let Some(Forward { changes, waiter, deadline, .. }) = self.changes.forwards.remove(&request) else {
            return;
        };
        let error = match result {
            Ok(index) => {
                self.changes.early.push(Early { index, waiter, deadline });
                return;
            }
            Err(ChangeError::Forward(ForwardError::NotLeader)) => {
                self.refused = Some((from, self.raft.view().term, self.ticks));
                let asker = Asker::Local(waiter);
                self.changes.parked.push_back(Parked { changes, asker, deadline });
                return;
            }
            Err(ChangeError::Refused(error)) => error.into(),
            Err(ChangeError::Forward(ForwardError::Busy)) => NodeError::Busy,
            Err(ChangeError::Forward(_)) => NodeError::LeaderChanged,
        };
        actions.changes.push(waiter, Err(error));
    }

    /// Ends, as unknown, what is at a member that does not answer or does not lead any more.
    pub(super) fn changes_lost(&mut self, lost: impl Fn(NodeId) -> bool, actions: &mut Actions<S::Outcome>) {
        for (_, forward) in self.changes.forwards.extract_if(.., |_, forward| lost(forward.to)) {
            actions.changes.push(forward.waiter, Err(NodeError::LeaderChanged));
        }
    }

    /// Notices that this member is none any more. Whoever asked for that hears that it is done: the leader's answer would
    /// come too late.
    pub(super) fn notice_removal(&mut self, actions: &mut Actions<S::Outcome>) {
        if self.raft.is_member() || planted::is(Bug::StayWhenRemoved) {
            return;
        }
        let membership = self.storage.membership();
        let me = self.config.id;
        if !membership.removed.contains(&me) {
            return;
        }
        actions.removed = true;
        let removes_me = |changes: &[ConfChange]| changes.iter().any(|change| removes(change, me));
        let forwards = &mut self.changes.forwards;
        for (_, forward) in forwards.extract_if(.., |_, forward| removes_me(&forward.changes)) {
            actions.changes.push(forward.waiter, Ok(membership.clone()));
        }
    }

    /// Answers what is applied here by now.
    pub(super) fn release_changes(&mut self, actions: &mut Actions<S::Outcome>) {
        for early in self.changes.early.extract_if(.., |early| early.index <= self.applied) {
            actions.changes.push(early.waiter, Ok(self.storage.membership()));
        }
    }

    /// Gives up what waited too long.
    pub(super) fn expire_changes(&mut self, actions: &mut Actions<S::Outcome>) {
        let now = self.ticks;
        for (_, forward) in self.changes.forwards.extract_if(.., |_, forward| forward.deadline <= now) {
            actions.changes.push(forward.waiter, Err(NodeError::Timeout));
        }
        for early in self.changes.early.extract_if(.., |early| early.deadline <= now) {
            // The change is made, however long this member takes to see it.
            actions.changes.push(early.waiter, Err(NodeError::Timeout));
        }
        let (late, parked) =
            std::mem::take(&mut self.changes.parked).into_iter().partition(|parked| parked.deadline <= now);
        self.changes.parked = parked;
        let late: VecDeque<Parked> = late;
        for parked in late {
            refuse(parked.asker, NodeError::NoLeader, actions);
        }
    }
}

fn removes(change: &ConfChange, id: NodeId) -> bool {
    change.change_type == ConfChangeType::Remove && change.member.id == id
}

fn refuse<T>(asker: Asker, error: NodeError, actions: &mut Actions<T>) {
    match asker {
        Asker::Local(waiter) => actions.changes.push(waiter, Err(error)),
        Asker::Peer { node, request } => {
            let result = Err(change_error(&error));
            actions.send(node, PeerMessage::ChangeReply { request, result });
        }
    }
}

fn change_error(error: &NodeError) -> ChangeError {
    match error {
        NodeError::Membership(error) => ChangeError::Refused(*error),
        NodeError::NotLeader { .. } | NodeError::NoLeader => ChangeError::Forward(ForwardError::NotLeader),
        NodeError::Busy => ChangeError::Forward(ForwardError::Busy),
        NodeError::NoSuccessor => ChangeError::Refused(MembershipError::Unhealthy),
        _ => ChangeError::Forward(ForwardError::Unknown),
    }
}
