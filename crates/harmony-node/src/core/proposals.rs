//! Proposals on their way: parked until a leader is known, pending in this leader's log, or passed on to the leader.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use harmony_types::planted::{self, Bug};
use harmony_types::transport::{ForwardError, Forwarded};
use harmony_types::{Entry, LogIndex, NodeError, NodeId, PeerMessage, Term, limits};

use crate::bounds;
use crate::core::event::{Actions, ReplyTo};
use crate::waiter::Waiter;

/// A proposal that nobody has taken yet.
#[derive(Debug)]
pub(super) struct Parked<T> {
    pub(super) data: Bytes,
    pub(super) reply: ReplyTo<T>,
    /// Tick at which it is given up.
    pub(super) deadline: u64,
}

/// A proposal in this leader's log.
#[derive(Debug)]
struct Pending<T> {
    index: LogIndex,
    term: Term,
    reply: ReplyTo<T>,
}

/// A proposal at the leader.
#[derive(Debug)]
struct Forward<T> {
    to: NodeId,
    data: Bytes,
    waiter: Waiter<T>,
    deadline: u64,
    /// That member leads no more, as seen from here: it may still say what became of the proposal.
    doubted: bool,
}

/// A proposal that was applied at the leader, but not here yet.
#[derive(Debug)]
struct Early<T> {
    waiter: Waiter<T>,
    outcome: T,
    deadline: u64,
}

/// All proposals that wait here. Each is in one of the four places, and leaves it with its one answer.
#[derive(Debug)]
pub(crate) struct Proposals<T> {
    parked: VecDeque<Parked<T>>,
    pending: VecDeque<Pending<T>>,
    forwards: BTreeMap<u64, Forward<T>>,
    /// By the index that must be applied first.
    early: BTreeMap<LogIndex, Early<T>>,
    /// Data in `parked` and `forwards`.
    bytes: usize,
    last_request: u64,
}

impl<T: prost::Message + Default> Proposals<T> {
    /// None yet. `boot_nonce` keeps an answer to an earlier life of this node from ending a proposal of this one: two
    /// lives count from different places, and none counts far enough to reach another's.
    pub(super) fn new(boot_nonce: u64) -> Self {
        Self {
            parked: VecDeque::new(),
            pending: VecDeque::new(),
            forwards: BTreeMap::new(),
            early: BTreeMap::new(),
            bytes: 0,
            last_request: first_request(boot_nonce),
        }
    }

    /// Whether so much more may wait for a leader, or for its answer.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.parked.len() + self.forwards.len() + self.early.len() < limits::PROPOSALS_WAITING_MAX
            && self.bytes.saturating_add(bytes) <= bounds::PROPOSALS_BYTES_MAX
    }

    pub(super) fn park(&mut self, parked: Parked<T>) {
        self.bytes += parked.data.len();
        self.parked.push_back(parked);
    }

    pub(super) fn parked_count(&self) -> usize {
        self.parked.len()
    }

    pub(super) fn pending_count(&self) -> usize {
        self.pending.len()
    }

    /// Takes the next parked proposals, up to `bytes_max` of data but at least one.
    pub(super) fn take_parked(&mut self, bytes_max: usize) -> Vec<Parked<T>> {
        let mut bytes = 0usize;
        let mut count = 0;
        for parked in &self.parked {
            bytes = bytes.saturating_add(parked.data.len());
            if 0 < count && bytes_max < bytes {
                break;
            }
            count += 1;
        }
        let taken: Vec<Parked<T>> = self.parked.drain(..count).collect();
        self.bytes -= taken.iter().map(|parked| parked.data.len()).sum::<usize>();
        taken
    }

    /// Notes that this reply waits for the entry at `index` of `term`.
    pub(super) fn pend(&mut self, index: LogIndex, term: Term, reply: ReplyTo<T>) {
        if let Some(last) = self.pending.back() {
            assert!(last.index < index, "proposals pend in log order: {} then {index}", last.index);
        }
        self.pending.push_back(Pending { index, term, reply });
    }

    /// The reply that waits for exactly this entry. Whoever waited for another entry at this place or before lost it.
    pub(crate) fn committed(&mut self, entry: &Entry, actions: &mut Actions<T>) -> Option<ReplyTo<T>> {
        while self.pending.front()?.index <= entry.index {
            let pending = self.pending.pop_front()?;
            if pending.index == entry.index && (pending.term == entry.term || planted::is(Bug::DropTermCheck))
            {
                return Some(pending.reply);
            }
            end(actions, pending.reply, NodeError::LeaderChanged);
        }
        None
    }

    /// Ends, as unknown, what waits in the log for a term that is over.
    pub(super) fn leadership_lost(&mut self, actions: &mut Actions<T>) {
        if planted::is(Bug::DropTermCheck) {
            return;
        }
        for pending in self.pending.drain(..) {
            end(actions, pending.reply, NodeError::LeaderChanged);
        }
    }

    /// Passes a proposal on to the leader.
    pub(super) fn forward(
        &mut self,
        to: NodeId,
        data: Bytes,
        waiter: Waiter<T>,
        deadline: u64,
        actions: &mut Actions<T>,
    ) {
        self.last_request += 1;
        let request = self.last_request;
        actions.send(to, PeerMessage::Propose { request, data: data.clone() });
        self.bytes += data.len();
        self.forwards.insert(request, Forward { to, data, waiter, deadline, doubted: false });
    }

    /// The leader's answer to a proposal that was passed on.
    pub(super) fn answered(
        &mut self,
        from: NodeId,
        request: u64,
        result: Result<Forwarded, ForwardError>,
        actions: &mut Actions<T>,
    ) {
        // An answer that comes too late, or from somebody who was not asked, is nobody's.
        if self.forwards.get(&request).is_none_or(|forward| forward.to != from) {
            return;
        }
        let Some(Forward { data, waiter, deadline, .. }) = self.forwards.remove(&request) else { return };
        self.bytes -= data.len();
        let error = match result {
            Ok(Forwarded { index, outcome }) => {
                match T::decode(outcome) {
                    Ok(outcome) => drop(self.early.insert(index, Early { waiter, outcome, deadline })),
                    // The leader applied it, so this is not "nothing happened" even when we cannot read it.
                    Err(_) => actions.replies.push(waiter, Err(NodeError::LeaderChanged)),
                }
                return;
            }
            // It was not proposed, so it may be proposed again: to whoever leads by now.
            Err(ForwardError::NotLeader) => {
                self.bytes += data.len();
                self.parked.push_front(Parked { data, reply: ReplyTo::Local(waiter), deadline });
                return;
            }
            Err(ForwardError::Busy) => NodeError::Busy,
            Err(ForwardError::NoSpace) => NodeError::NoSpace,
            Err(ForwardError::TooLarge) => {
                NodeError::TooLarge { bytes: data.len() as u64, limit: data.len() as u64 }
            }
            Err(ForwardError::Unknown) => NodeError::LeaderChanged,
        };
        actions.replies.push(waiter, Err(error));
    }

    /// Answers what is applied here by now.
    pub(super) fn release(&mut self, applied: LogIndex, actions: &mut Actions<T>) {
        while let Some(first) = self.early.first_entry()
            && (*first.key() <= applied || planted::is(Bug::AnswerBeforeApplied))
        {
            let Early { waiter, outcome, .. } = first.remove();
            actions.replies.push(waiter, Ok(outcome));
        }
    }

    /// Gives back to their own nodes what peers passed on: this leader goes, and they will know the next one.
    pub(super) fn return_to_peers(&mut self, actions: &mut Actions<T>) {
        let is_passed_on = |parked: &Parked<T>| matches!(parked.reply, ReplyTo::Peer { .. });
        let (returned, kept) = std::mem::take(&mut self.parked).into_iter().partition(is_passed_on);
        self.parked = kept;
        let returned: VecDeque<Parked<T>> = returned;
        for Parked { data, reply, .. } in returned {
            self.bytes -= data.len();
            end(actions, reply, NodeError::NotLeader { leader: None });
        }
    }

    /// Lets what is at a member that does not lead any more wait until `deadline` for what that member says of it: a
    /// leader that handed over did not propose it, or answers it. Past that it ends as unknown.
    pub(super) fn forwards_doubted(&mut self, doubted: impl Fn(NodeId) -> bool, deadline: u64) {
        for forward in self.forwards.values_mut().filter(|forward| doubted(forward.to)) {
            forward.doubted = true;
            forward.deadline = forward.deadline.min(deadline);
        }
    }

    /// Ends, as unknown, what is at a member that does not answer.
    pub(super) fn forwards_lost(&mut self, lost: impl Fn(NodeId) -> bool, actions: &mut Actions<T>) {
        let requests: Vec<u64> = self
            .forwards
            .iter()
            .filter(|(_, forward)| lost(forward.to))
            .map(|(request, _)| *request)
            .collect();
        for request in requests {
            if let Some(forward) = self.forwards.remove(&request) {
                self.bytes -= forward.data.len();
                actions.replies.push(forward.waiter, Err(NodeError::LeaderChanged));
            }
        }
    }

    /// Gives up what waited too long. What is parked is in the order of its deadlines, near enough.
    pub(super) fn expire(&mut self, now: u64, actions: &mut Actions<T>) {
        while let Some(parked) = self.parked.pop_front_if(|parked| parked.deadline <= now) {
            self.bytes -= parked.data.len();
            end(actions, parked.reply, NodeError::NoLeader);
        }
        for (_, forward) in self.forwards.extract_if(.., |_, forward| forward.deadline <= now) {
            self.bytes -= forward.data.len();
            let error = if forward.doubted { NodeError::LeaderChanged } else { NodeError::Timeout };
            actions.replies.push(forward.waiter, Err(error));
        }
        // The outcome stands, however long this member takes to see it.
        for (_, early) in self.early.extract_if(.., |_, early| early.deadline <= now) {
            actions.replies.push(early.waiter, Ok(early.outcome));
        }
    }
}

/// Where a life of a node begins to count its requests. Half of all numbers lie ahead: counting does not overflow.
pub(crate) fn first_request(boot_nonce: u64) -> u64 {
    spread(boot_nonce) >> 1
}

/// Spreads numbers that lie close together over all 64 bits, each to another (the finaliser of `SplitMix64`).
fn spread(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Ends a proposal with an error.
pub(super) fn end<T>(actions: &mut Actions<T>, reply: ReplyTo<T>, error: NodeError) {
    match reply {
        ReplyTo::Local(waiter) => actions.replies.push(waiter, Err(error)),
        ReplyTo::Member(waiter) => actions.changes.push(waiter, Err(error)),
        ReplyTo::Peer { node, request } => {
            let result = Err(match error {
                NodeError::NotLeader { .. } | NodeError::NoLeader => ForwardError::NotLeader,
                NodeError::Busy => ForwardError::Busy,
                NodeError::NoSpace => ForwardError::NoSpace,
                NodeError::TooLarge { .. } => ForwardError::TooLarge,
                _ => ForwardError::Unknown,
            });
            actions.send(node, PeerMessage::ProposeReply { request, result });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns end what a leader waited for as soon as it leads no more, so this place is the second line.
    #[test]
    fn only_the_entry_that_was_proposed_answers_its_waiter() {
        let node = NodeId::new(2).expect("not zero");
        let pending = |places: &[(u64, u64)]| {
            let mut proposals = Proposals::<u64>::new(1);
            for (request, (index, term)) in (1..).zip(places) {
                proposals.pend(LogIndex(*index), Term(*term), ReplyTo::Peer { node, request });
            }
            proposals
        };
        let commit = |proposals: &mut Proposals<u64>, index, term| {
            let entry = Entry { index: LogIndex(index), term: Term(term), ..Entry::default() };
            let mut actions = Actions::default();
            let answered = match proposals.committed(&entry, &mut actions) {
                Some(ReplyTo::Peer { request, .. }) => Some(request),
                other => other.map(|other| panic!("{other:?}")),
            };
            let ended: Vec<PeerMessage> =
                actions.sends.into_iter().flat_map(|(_, messages)| messages).collect();
            (answered, ended)
        };
        let unknown = |request| PeerMessage::ProposeReply { request, result: Err(ForwardError::Unknown) };

        let mut proposals = pending(&[(5, 2), (6, 2)]);
        assert_eq!(commit(&mut proposals, 4, 2), (None, vec![]));
        assert_eq!(commit(&mut proposals, 5, 2), (Some(1), vec![]));
        assert_eq!(commit(&mut proposals, 6, 2), (Some(2), vec![]));

        // Another leader's entry took its place.
        let mut proposals = pending(&[(5, 2), (6, 2)]);
        assert_eq!(commit(&mut proposals, 5, 3), (None, vec![unknown(1)]));
        // Its place was skipped, by an entry of the same term.
        assert_eq!(commit(&mut proposals, 7, 2), (None, vec![unknown(2)]));
        assert_eq!(proposals.pending_count(), 0);
    }
}
