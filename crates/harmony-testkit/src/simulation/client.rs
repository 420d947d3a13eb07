//! Clients: sessions that call one thing after the other, give up, try elsewhere, and remember all they saw.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use harmony_node::ReplySink;
use harmony_types::fake::seed::SeededRng;
use harmony_types::lease::{LeaseGrant, LeaseRevoke};
use harmony_types::txn::{Compare, CompareResult, CompareTarget, DeleteRange, Put, Range, TxnOp, TxnOpKind};
use harmony_types::{
    CommandKind, KeyRange, LeaseId, Membership, NodeError, NodeId, Outcome, OutcomeKind, Refusal, Revision,
    Txn,
};

use super::time::MS;
use crate::history::{Answer, ClientId, Moment, Operation, OperationOutcome, Reply, Request};

/// Keys that clients share: few, so that they meet.
pub(super) const KEYS: u64 = 6;

/// How the calls of one process ended since it was last asked.
#[derive(Default)]
pub(super) struct Replies {
    ended: Mutex<Vec<Ended>>,
}

/// The end of one call.
pub(super) struct Ended {
    pub(super) token: u64,
    pub(super) end: End,
}

pub(super) enum End {
    Proposal(Result<Outcome, NodeError>),
    Read(Result<(), NodeError>),
    Change(Result<Membership, NodeError>),
    Renewal(Result<i64, NodeError>),
}

impl Replies {
    pub(super) fn take(&self) -> Vec<Ended> {
        std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push<T>(&self, batch: Vec<(u64, T)>, end: impl Fn(T) -> End) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.extend(batch.into_iter().map(|(token, result)| Ended { token, end: end(result) }));
    }
}

impl ReplySink<Outcome> for Replies {
    fn complete(&self, batch: Vec<(u64, Result<Outcome, NodeError>)>) {
        self.push(batch, End::Proposal);
    }
}

impl ReplySink<()> for Replies {
    fn complete(&self, batch: Vec<(u64, Result<(), NodeError>)>) {
        self.push(batch, End::Read);
    }
}

impl ReplySink<Membership> for Replies {
    fn complete(&self, batch: Vec<(u64, Result<Membership, NodeError>)>) {
        self.push(batch, End::Change);
    }
}

impl ReplySink<i64> for Replies {
    fn complete(&self, batch: Vec<(u64, Result<i64, NodeError>)>) {
        self.push(batch, End::Renewal);
    }
}

/// One client.
pub(super) struct Session {
    id: ClientId,
    rng: SeededRng,
    /// Whom it speaks with, as a place among the members that there are.
    member: usize,
    calls: u64,
    /// The newest mod revisions that it saw, by key.
    seen: BTreeMap<Bytes, i64>,
    /// Leases that it asked for, the newest ones.
    leases: Vec<LeaseId>,
}

/// A call under way.
pub(super) struct Call {
    /// Which session; `None` for an operator's.
    pub(super) session: Option<usize>,
    pub(super) member: NodeId,
    pub(super) operation: Operation,
}

impl Session {
    pub(super) fn new(number: u32, rng: SeededRng) -> Self {
        Self {
            id: ClientId(number),
            rng,
            member: number as usize,
            calls: 0,
            seen: BTreeMap::new(),
            leases: Vec::new(),
        }
    }

    /// Until its next call, nanoseconds.
    pub(super) fn think(&mut self, longest_ms: u64) -> u64 {
        self.rng.range(MS..longest_ms.max(2) * MS)
    }

    /// Its next call.
    pub(super) fn next(&mut self, now: u64, members: &[NodeId]) -> (NodeId, Operation) {
        if self.rng.chance(1, 8) {
            self.elsewhere();
        }
        let member = members[self.member % members.len()];
        let mut operation = Operation::sent(self.id, Moment(now), self.request());
        operation.member = Some(member);
        (member, operation)
    }

    /// The member that it speaks with did not answer, or refused.
    pub(super) fn elsewhere(&mut self) {
        self.member = self.rng.index(0..1 << 16);
    }

    /// Remembers what an answer showed.
    pub(super) fn saw(&mut self, reply: &Reply) {
        for kv in reply.shown() {
            self.seen.insert(kv.key.clone(), kv.mod_revision);
        }
    }

    fn key(&mut self) -> Bytes {
        format!("k{}", self.rng.below(KEYS)).into()
    }

    fn value(&mut self) -> Bytes {
        self.calls += 1;
        let filler = if self.rng.chance(1, 10) { self.rng.index(0..3_000) } else { 0 };
        format!("c{}-{}{}", self.id.0, self.calls, ".".repeat(filler)).into()
    }

    /// A lease of its own, granted or not, that may be over.
    fn lease(&mut self) -> Option<LeaseId> {
        (!self.leases.is_empty()).then(|| *self.rng.pick(&self.leases))
    }

    /// A grant, or something for a lease that it asked for.
    fn lease_request(&mut self) -> Request {
        let lease = self.lease();
        match (lease, self.rng.below(8)) {
            (Some(id), 0..5) => Request::LeaseRenew(id),
            (Some(id), 5) => Request::LeaseRevoke(LeaseRevoke { id: id.0 }),
            _ => {
                self.calls += 1;
                let id = LeaseId(i64::from(self.id.0) << 32 | self.calls.cast_signed());
                self.leases.push(id);
                if 3 < self.leases.len() {
                    self.leases.remove(0);
                }
                let ttl_s = *self.rng.pick(&[2, 2, 3, 5, 9]);
                Request::LeaseGrant(LeaseGrant { id: id.0, ttl: ttl_s })
            }
        }
    }

    fn request(&mut self) -> Request {
        let key = self.key();
        match self.rng.below(100) {
            0..28 => {
                let prev_kv = self.rng.chance(1, 4);
                let lease = self.lease().filter(|_| self.rng.chance(1, 3)).map_or(0, |lease| lease.0);
                Request::Put(Put { key, value: self.value(), lease, prev_kv, ..Put::default() })
            }
            28..36 => self.lease_request(),
            36..60 => Request::Range { range: Range { key, ..Range::default() }, serializable: false },
            60..68 => Request::Range { range: Range { key, ..Range::default() }, serializable: true },
            68..76 => {
                let KeyRange { key, end: range_end } = KeyRange::prefix(b"k");
                let range = Range { key, range_end, ..Range::default() };
                Request::Range { range, serializable: false }
            }
            76..84 => {
                let prev_kv = self.rng.chance(1, 2);
                Request::DeleteRange(DeleteRange { key, range_end: Bytes::new(), prev_kv })
            }
            _ => Request::Txn(self.txn(key)),
        }
    }

    /// Writes two keys if one of them is as it was seen last, and reads them otherwise.
    fn txn(&mut self, key: Bytes) -> Txn {
        let other = self.key();
        let seen = self.seen.get(&key).copied().unwrap_or_default();
        let compare = Compare {
            key: key.clone(),
            range_end: Bytes::new(),
            result: CompareResult::Equal.into(),
            target: Some(CompareTarget::ModRevision(seen)),
        };
        let op = |kind| TxnOp { kind: Some(kind) };
        let read = |key: &Bytes| op(TxnOpKind::Range(Range { key: key.clone(), ..Range::default() }));
        let mut success = vec![read(&other)];
        success.push(op(TxnOpKind::Put(Put { key: key.clone(), value: self.value(), ..Put::default() })));
        if other != key {
            success.push(op(TxnOpKind::Put(Put {
                key: other.clone(),
                value: self.value(),
                ..Put::default()
            })));
        }
        Txn { compare: vec![compare], success, failure: vec![read(&key), read(&other)] }
    }
}

/// The command behind a request that changes something.
pub(super) fn command(request: &Request) -> Option<CommandKind> {
    Some(match request {
        Request::Put(put) => CommandKind::Put(put.clone()),
        Request::DeleteRange(delete) => CommandKind::DeleteRange(delete.clone()),
        Request::Txn(txn) => CommandKind::Txn(txn.clone()),
        Request::Compact(revision) => {
            CommandKind::Compact(harmony_types::command::Compact { revision: revision.as_i64() })
        }
        Request::LeaseGrant(grant) => CommandKind::LeaseGrant(*grant),
        Request::LeaseRevoke(revoke) => CommandKind::LeaseRevoke(*revoke),
        Request::Range { .. } | Request::LeaseRenew(_) => return None,
    })
}

/// What a client makes of the end of a proposal.
pub(super) fn outcome_of(result: Result<Outcome, NodeError>) -> OperationOutcome {
    let Outcome { revision, kind } = match result {
        Ok(outcome) => outcome,
        Err(error) => return failure(&error),
    };
    let reply = match kind {
        Some(OutcomeKind::Put(outcome)) => Reply::Put(outcome),
        Some(OutcomeKind::DeleteRange(outcome)) => Reply::DeleteRange(outcome),
        Some(OutcomeKind::Txn(outcome)) => Reply::Txn(outcome),
        Some(OutcomeKind::Compact(_)) => Reply::Compact,
        Some(OutcomeKind::LeaseGrant(outcome)) => Reply::LeaseGrant { ttl_s: outcome.ttl },
        Some(OutcomeKind::LeaseRevoke(_)) => Reply::LeaseRevoke,
        Some(OutcomeKind::Refused(refusal)) => {
            return OperationOutcome::Refused(Refusal::try_from(refusal).unwrap_or(Refusal::Unspecified));
        }
        _ => return OperationOutcome::Refused(Refusal::Unspecified),
    };
    let revision = u64::try_from(revision).ok().map(Revision);
    OperationOutcome::Answered(Answer { revision, reply })
}

/// What a client makes of an error.
pub(super) fn failure(error: &NodeError) -> OperationOutcome {
    if error.may_have_been_applied() {
        OperationOutcome::Unknown
    } else {
        OperationOutcome::Refused(Refusal::Unspecified)
    }
}
