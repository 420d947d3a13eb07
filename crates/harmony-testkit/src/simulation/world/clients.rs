//! What clients and operators do, and how their calls end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use harmony_node::{ReplySink, Waiter};
use harmony_types::planted::{self, Bug};
use harmony_types::txn::Range;
use harmony_types::{
    Command, ConfChange, ConfChangeType, Membership, NodeError, NodeId, Refusal, Revision, Role, StorageError,
};

use super::{Event, Phase, World};
use crate::history::{Answer, ClientId, Moment, Operation, OperationOutcome, Reply, Request};
use crate::simulation::client::{Call, End, command, failure, outcome_of};
use crate::simulation::member::{Member, member_of_cluster};
use crate::simulation::plan::Fault;
use crate::simulation::probes::Probe;
use crate::simulation::time::{MS, SECOND, US};
use crate::simulation::trace::Digest;

/// When a client gives a call up.
const PATIENCE: u64 = 3 * SECOND;

/// Counts the calls that were refused as too many.
#[derive(Default)]
struct Flood(AtomicU64);

impl ReplySink<()> for Flood {
    fn complete(&self, batch: Vec<(u64, Result<(), NodeError>)>) {
        let busy = batch.iter().filter(|(_, result)| matches!(result, Err(NodeError::Busy))).count();
        self.0.fetch_add(busy as u64, Ordering::Relaxed);
    }
}

impl World {
    /// A client makes its next call.
    pub(super) fn call(&mut self, session: usize) {
        if matches!(self.phase, Phase::Settling { .. } | Phase::Over) {
            return;
        }
        let now = self.now.get();
        let members: Vec<NodeId> =
            self.members.values().filter(|member| member.gone.is_none()).map(|member| member.id).collect();
        if members.is_empty() {
            return self.violation("no member is left".to_owned());
        }
        let (member, operation) = self.sessions[session].next(now, &members);
        self.make(Call { session: Some(session), member, operation });
    }

    /// An operator compacts the history.
    pub(super) fn compact(&mut self) {
        let Some(member) = self.somebody() else { return };
        let Some(process) = &self.members[&member].process else { return };
        let request = Request::Compact(process.storage.revision());
        let mut operation = Operation::sent(ClientId(0), Moment(self.now.get()), request);
        operation.member = Some(member);
        self.make(Call { session: None, member, operation });
    }

    /// More reads than a member takes come at once; nobody waits for their answers.
    pub(super) fn flood(&mut self, member: NodeId) {
        let Some(process) = self.members.get(&member).and_then(|member| member.process.as_ref()) else {
            return;
        };
        let busy = Arc::new(Flood::default());
        for token in 0..=harmony_types::limits::PROPOSALS_WAITING_MAX as u64 {
            process.handle.read_index(Waiter::new(Arc::clone(&busy) as _, token));
        }
        self.probes.add(Probe::Busy, busy.0.load(Ordering::Relaxed));
        self.follow_up(member);
    }

    fn make(&mut self, call: Call) {
        let now = self.now.get();
        let token = self.token();
        self.trace.note(now, &[7, token, call.member.get()], || format!("call {token} {}", call.operation));
        let way = self.pace.range(50 * US..2 * MS);
        self.schedule.push(now + way, Event::Call { token });
        self.schedule.push(now + PATIENCE, Event::GiveUp { token });
        self.calls.insert(token, call);
    }

    /// A member that runs: the leader, if there is one.
    pub(super) fn somebody(&self) -> Option<NodeId> {
        let running = || self.members.values().filter(|member| member.process.is_some());
        let leads = |member: &&Member| member.process.as_ref().is_some_and(|process| process.seen.leads);
        running().find(leads).or_else(|| running().next()).map(|member| member.id)
    }

    /// A call has reached its member.
    pub(super) fn arrive_call(&mut self, token: u64) {
        let Some(call) = self.calls.get(&token) else { return };
        let id = call.member;
        if self.is_cut_off(id) {
            // It is lost; the client gives it up.
            return;
        }
        let Some(Event::Call { .. }) = self.hold(id, Event::Call { token }) else { return };
        let Some(call) = self.calls.get(&token) else { return };
        let Some(process) = self.members.get(&id).and_then(|member| member.process.as_ref()) else {
            // The connection is refused.
            return self.send_answer(token, OperationOutcome::Refused(Refusal::Unspecified));
        };
        let sink = Arc::clone(&self.replies);
        match (&call.operation.request, command(&call.operation.request)) {
            (_, Some(kind)) => {
                let author = Some(self.author_of(call.session, process));
                let data = Command { kind: Some(kind), author }.encode_to_bytes();
                process.handle.propose(data, Waiter::new(sink as _, token));
            }
            (Request::Range { range, serializable }, None)
                if *serializable || planted::is(Bug::ReadLocally) =>
            {
                let outcome = read(&process.storage, range);
                return self.send_answer(token, outcome);
            }
            (Request::LeaseRenew(id), None) => process.keeper.renew(*id, Waiter::new(sink as _, token)),
            _ => process.handle.read_index(Waiter::new(sink as _, token)),
        }
        self.follow_up(id);
    }

    /// Takes in what processes answered.
    pub(super) fn take_replies(&mut self) {
        for ended in self.replies.take() {
            let token = ended.token;
            if let End::Change(result) = ended.end {
                self.changed(token, result);
                continue;
            }
            let Some(call) = self.calls.get(&token) else { continue };
            let outcome = match ended.end {
                End::Proposal(Err(error))
                    if error.may_have_been_applied() && planted::is(Bug::RetryUnknown) =>
                {
                    self.schedule.push(self.now.get() + MS, Event::Call { token });
                    continue;
                }
                End::Proposal(result) => {
                    if matches!(result, Err(NodeError::Busy)) {
                        self.probes.add(Probe::Busy, 1);
                    }
                    outcome_of(result)
                }
                End::Read(Err(error)) => failure(&error),
                End::Read(Ok(())) => {
                    let process = self.members.get(&call.member).and_then(|member| member.process.as_ref());
                    match (process, &call.operation.request) {
                        (Some(process), Request::Range { range, .. }) => read(&process.storage, range),
                        _ => OperationOutcome::Unknown,
                    }
                }
                End::Renewal(Ok(ttl_s)) => {
                    OperationOutcome::Answered(Answer { revision: None, reply: Reply::LeaseRenew { ttl_s } })
                }
                End::Renewal(Err(error)) => failure(&error),
                End::Change(_) => continue,
            };
            self.send_answer(token, outcome);
        }
    }

    fn send_answer(&mut self, token: u64, outcome: OperationOutcome) {
        if self.calls.get(&token).is_some_and(|call| self.is_cut_off(call.member)) {
            return;
        }
        let way = self.pace.range(50 * US..2 * MS);
        self.schedule.push(self.now.get() + way, Event::Answer { token, outcome });
    }

    /// An answer has reached its client.
    pub(super) fn answer(&mut self, token: u64, outcome: OperationOutcome) {
        let now = self.now.get();
        let Some(mut call) = self.calls.remove(&token) else { return };
        call.operation.outcome = outcome;
        if call.operation.outcome != OperationOutcome::Unknown {
            call.operation.returned = Some(Moment(now));
        }
        self.end_call(token, call);
    }

    pub(super) fn give_up(&mut self, token: u64) {
        if let Some(call) = self.calls.remove(&token) {
            self.probe(Probe::TimedOut);
            self.end_call(token, call);
        }
    }

    fn end_call(&mut self, token: u64, call: Call) {
        let now = self.now.get();
        let Call { session, operation, .. } = call;
        let mut digest = Digest::EMPTY;
        digest.bytes(operation.to_string().as_bytes());
        self.trace.note(now, &[8, token, digest.0], || format!("end of call {token} {operation}"));
        if operation.outcome == OperationOutcome::Unknown {
            self.probe(Probe::Unknown);
        }
        match (&operation.request, operation.answer().map(|answer| &answer.reply)) {
            (_, Some(Reply::Compact)) => self.probe(Probe::Compacted),
            (_, Some(Reply::LeaseGrant { .. })) => self.probe(Probe::LeaseGranted),
            (_, Some(Reply::LeaseRenew { ttl_s: 1.. })) => self.probe(Probe::LeaseRenewed),
            _ => {}
        }
        match operation.outcome {
            OperationOutcome::Refused(Refusal::PermissionDenied) => self.probe(Probe::PermissionDenied),
            OperationOutcome::Refused(Refusal::AuthRevisionOld) => self.probe(Probe::AuthRevisionOld),
            _ => {}
        }
        if let Some(number) = session {
            let longest_ms = self.options.think_ms;
            let session = &mut self.sessions[number];
            match operation.answer() {
                Some(answer) => session.saw(&answer.reply),
                None => session.elsewhere(),
            }
            let served = operation.answer().is_some();
            if let Phase::Healing { since, unserved } = &mut self.phase
                && served
                && *since <= operation.called.0
                && !matches!(operation.request, Request::Range { serializable: true, .. })
            {
                *unserved &= !(1 << number);
            }
            let at = now + session.think(longest_ms);
            self.schedule.push(at, Event::Next { session: number });
        }
        self.history.operations.push(operation);
    }

    /// An operator changes the membership.
    pub(super) fn change_membership(&mut self, fault: Fault) {
        let (change_type, id, role) = match fault {
            Fault::Join(id) => (ConfChangeType::Join, id, Role::Learner),
            Fault::Remove(id) => (ConfChangeType::Remove, id, Role::Voter),
            _ => return,
        };
        let Some(asked) = self.somebody() else { return };
        let token = self.token();
        let change = ConfChange { change_type, member: member_of_cluster(id, role) };
        let waiter = Waiter::new(Arc::clone(&self.replies) as _, token);
        if let Some(process) = &self.members[&asked].process {
            process.handle.change_members(vec![change], waiter);
        }
        self.changes.insert(token, fault);
        self.follow_up(asked);
    }

    /// A membership change has ended.
    fn changed(&mut self, token: u64, result: Result<Membership, NodeError>) {
        let now = self.now.get();
        let Some(fault) = self.changes.remove(&token) else { return };
        self.trace.note(now, &[9, token, u64::from(result.is_ok())], || {
            format!("{fault}: {}", result.as_ref().map_or_else(ToString::to_string, |_| "made".to_owned()))
        });
        if let (Fault::Join(id), Ok(membership)) = (fault, result)
            && !self.members.contains_key(&id)
        {
            self.probe(Probe::Joined);
            self.members.insert(id, Member::new(id, membership));
            self.start(id);
        }
    }
}

fn read(storage: &harmony_storage::UnifiedStorage, range: &Range) -> OperationOutcome {
    match storage.range(range) {
        Ok(found) => {
            let revision: Option<Revision> = Some(found.revision);
            OperationOutcome::Answered(Answer { revision, reply: Reply::Range(found.outcome) })
        }
        Err(StorageError::Compacted { .. }) => OperationOutcome::Refused(Refusal::Compacted),
        Err(StorageError::FutureRevision { .. }) => OperationOutcome::Refused(Refusal::FutureRevision),
        Err(_) => OperationOutcome::Refused(Refusal::Unspecified),
    }
}
