//! Histories for the checkers' tests: a sequential store, with the times around each operation drawn by chance.

use bytes::Bytes;
use harmony_types::fake::seed::SeededRng;
use harmony_types::lease::{LeaseGrant, LeaseRevoke};
use harmony_types::txn::{Compare, CompareTarget, DeleteRange, Put, Range, Txn, TxnOp, TxnOpKind};
use harmony_types::{Event, LeaseId, Revision};

use super::store::Store;
use crate::history::{
    ClientId, History, Moment, Operation, OperationOutcome, Reply, Request, delete, put, read,
};

/// What kind of history is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) operations: usize,
    pub(crate) clients: usize,
    pub(crate) keys: u64,
    /// One in so many answers is lost; 0: none.
    pub(crate) lost_one_in: u64,
    /// Leases, compactions and reads of the past, too.
    pub(crate) everything: bool,
    /// Whether answers have their revision.
    pub(crate) revisions: bool,
}

/// A history, and what truly happened.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) history: History,
    /// All events, in order.
    pub(crate) events: Vec<Event>,
}

/// Draws a linearizable history.
pub(crate) fn sample(rng: &mut SeededRng, shape: Shape) -> Sample {
    let mut world = World {
        store: Store::new(),
        events: Vec::new(),
        free: vec![0; shape.clients],
        pending: Vec::new(),
        next_client: u32::try_from(shape.clients).unwrap(),
    };
    let mut history = History::default();
    for number in 0..shape.operations {
        let now = 1_000 * (u64::try_from(number).unwrap() + 1);
        world.catch_up(rng, shape);
        history.operations.push(world.operation(rng, shape, now));
    }
    let mut operations = history.operations;
    rng.shuffle(&mut operations);
    Sample { history: History { operations, watches: Vec::new() }, events: world.events }
}

struct World {
    store: Store,
    events: Vec<Event>,
    /// From when on each client may call again.
    free: Vec<u64>,
    /// Lost requests that may still take effect.
    pending: Vec<Request>,
    next_client: u32,
}

impl World {
    fn run(&mut self, request: &Request) -> Result<Reply, harmony_types::Refusal> {
        let mark = self.store.mark();
        let reply = self.store.run(request);
        self.events.extend(self.store.events_since(mark));
        reply
    }

    /// What nobody is told of: lost requests, leases that run out.
    fn catch_up(&mut self, rng: &mut SeededRng, shape: Shape) {
        if !self.pending.is_empty() && rng.chance(1, 3) {
            let request = self.pending.swap_remove(rng.index(0..self.pending.len()));
            // What is refused has no effect, and nobody to tell.
            let _ = self.run(&request);
        }
        if shape.everything && rng.chance(1, 12) {
            let id = i64::try_from(rng.below(3)).unwrap() + 1;
            let _ = self.run(&Request::LeaseRevoke(LeaseRevoke { id }));
        }
    }

    fn operation(&mut self, rng: &mut SeededRng, shape: Shape, now: u64) -> Operation {
        let request = request(rng, shape, self.store.revision());
        let free: Vec<usize> = (0..shape.clients).filter(|client| self.free[*client] < now).collect();
        // Everybody waits: the one that is free first had its answer sooner than drawn.
        let client = if free.is_empty() { 0 } else { *rng.pick(&free) };
        let called = rng.range(self.free[client].min(now - 1)..now).max(now.saturating_sub(4_000));
        let is_lost = shape.lost_one_in != 0 && rng.chance(1, shape.lost_one_in);
        if free.is_empty() || is_lost {
            // A client of its own.
            let id = ClientId(self.next_client);
            self.next_client += 1;
            let sent = Operation::sent(id, Moment(called), request.clone());
            if request.can_change() {
                self.pending.push(request);
            }
            return sent;
        }
        let returned = now + rng.below(3_000);
        self.free[client] = returned;
        let sent = Operation::sent(ClientId(u32::try_from(client).unwrap()), Moment(called), request.clone());
        match self.run(&request) {
            Ok(reply) => {
                let revision = Revision(u64::try_from(self.store.revision()).unwrap());
                let mut operation = sent.answered(Moment(returned), revision, reply);
                if let OperationOutcome::Answered(answer) = &mut operation.outcome
                    && !shape.revisions
                {
                    answer.revision = None;
                }
                operation
            }
            Err(refusal) => sent.refused(Moment(returned), refusal),
        }
    }
}

fn key(rng: &mut SeededRng, shape: Shape) -> Bytes {
    format!("k{}", rng.below(shape.keys)).into()
}

fn value(rng: &mut SeededRng) -> Bytes {
    format!("v{}", rng.below(100_000)).into()
}

/// One request that suits a store at `revision`.
pub(crate) fn request(rng: &mut SeededRng, shape: Shape, revision: i64) -> Request {
    if shape.everything && rng.chance(1, 5) {
        let id = i64::try_from(rng.below(3)).unwrap() + 1;
        let near = u64::try_from(revision).unwrap() + 2;
        return match rng.below(8) {
            0 | 1 => Request::LeaseGrant(LeaseGrant { id, ttl: 10 }),
            2 => Request::LeaseRevoke(LeaseRevoke { id }),
            3 => Request::LeaseRenew(LeaseId(id)),
            4 => Request::Compact(Revision(rng.below(near))),
            5 => Request::Range {
                range: Range { revision: i64::try_from(rng.below(near)).unwrap(), ..range(rng, shape) },
                serializable: false,
            },
            _ => Request::Put(Put { lease: id, ignore_lease: false, ..some_put(rng, shape) }),
        };
    }
    match rng.below(10) {
        0..=3 => put(key(rng, shape), value(rng)),
        4..=6 => read(key(rng, shape), Bytes::new()),
        7 => Request::Range { range: range(rng, shape), serializable: false },
        8 if rng.chance(1, 2) => delete(key(rng, shape)),
        8 => Request::DeleteRange(some_delete(rng, shape)),
        _ => Request::Txn(txn(rng, shape, revision)),
    }
}

fn range(rng: &mut SeededRng, shape: Shape) -> Range {
    Range {
        key: key(rng, shape),
        range_end: if rng.chance(1, 2) { "l".into() } else { key(rng, shape) },
        limit: i64::try_from(rng.below(4)).unwrap(),
        sort_order: i32::try_from(rng.below(3)).unwrap(),
        sort_target: i32::try_from(rng.below(5)).unwrap(),
        keys_only: rng.chance(1, 8),
        count_only: rng.chance(1, 8),
        ..Range::default()
    }
}

fn some_put(rng: &mut SeededRng, shape: Shape) -> Put {
    let ignore_value = rng.chance(1, 6);
    let value = if ignore_value { Bytes::new() } else { value(rng) };
    let ignore_lease = rng.chance(1, 6);
    Put { key: key(rng, shape), value, prev_kv: rng.chance(1, 2), ignore_value, ignore_lease, lease: 0 }
}

fn some_delete(rng: &mut SeededRng, shape: Shape) -> DeleteRange {
    DeleteRange { key: key(rng, shape), range_end: key(rng, shape), prev_kv: rng.chance(1, 2) }
}

fn txn(rng: &mut SeededRng, shape: Shape, revision: i64) -> Txn {
    let near = i64::try_from(rng.below(u64::try_from(revision).unwrap() + 2)).unwrap();
    let target = match rng.below(4) {
        0 => CompareTarget::Version(i64::try_from(rng.below(3)).unwrap()),
        1 => CompareTarget::CreateRevision(near),
        2 => CompareTarget::ModRevision(near),
        _ => CompareTarget::Value(value(rng)),
    };
    let compare = Compare {
        key: key(rng, shape),
        range_end: Bytes::new(),
        result: i32::try_from(rng.below(4)).unwrap(),
        target: Some(target),
    };
    let branch = |rng: &mut SeededRng| {
        let count = rng.index(0..4);
        let mut put_keys = Vec::new();
        let mut ops = Vec::new();
        for _ in 0..count {
            let kind = match rng.below(4) {
                0 => TxnOpKind::Range(range(rng, shape)),
                1 => {
                    let inner = TxnOpKind::Range(range(rng, shape));
                    let success = vec![TxnOp { kind: Some(inner) }];
                    TxnOpKind::Txn(Txn { compare: vec![], success, failure: vec![] })
                }
                _ => {
                    let put = some_put(rng, shape);
                    if put_keys.contains(&put.key) {
                        continue;
                    }
                    put_keys.push(put.key.clone());
                    TxnOpKind::Put(put)
                }
            };
            ops.push(TxnOp { kind: Some(kind) });
        }
        if put_keys.is_empty() && rng.chance(1, 3) {
            ops.push(TxnOp { kind: Some(TxnOpKind::DeleteRange(some_delete(rng, shape))) });
        }
        ops
    };
    let (success, failure) = (branch(rng), branch(rng));
    Txn { compare: vec![compare], success, failure }
}

/// Changes one answer or one time, so that the history may be wrong.
pub(crate) fn spoil(rng: &mut SeededRng, history: &mut History) {
    let count = history.operations.len();
    let (one, other) = (rng.index(0..count), rng.index(0..count));
    let swapped = history.operations[other].outcome.clone();
    let operation = &mut history.operations[one];
    let OperationOutcome::Answered(answer) = &mut operation.outcome else {
        // A refusal where there was none told of.
        if operation.returned.is_some() {
            operation.outcome = OperationOutcome::Unknown;
        }
        return;
    };
    match rng.below(6) {
        0 => answer.revision = answer.revision.map(|revision| Revision(revision.0 + 1)),
        1 => answer.revision = answer.revision.map(|revision| Revision(revision.0.saturating_sub(1))),
        2 => {
            // The answer came at once.
            operation.returned = Some(operation.called);
        }
        3 => {
            operation.called = Moment(operation.returned.map_or(0, |returned| returned.0));
        }
        4 => match &mut answer.reply {
            Reply::Range(outcome) => match outcome.kvs.first_mut() {
                Some(kv) if rng.chance(1, 2) => kv.value = value(rng),
                Some(kv) if rng.chance(1, 2) => kv.mod_revision -= 1,
                Some(kv) => kv.version += 1,
                None => outcome.count += 1,
            },
            Reply::Txn(outcome) => outcome.succeeded = !outcome.succeeded,
            Reply::DeleteRange(outcome) => outcome.deleted += 1,
            _ => {}
        },
        _ => {
            if let OperationOutcome::Answered(swapped) = swapped
                && std::mem::discriminant(&swapped.reply) == std::mem::discriminant(&answer.reply)
            {
                *answer = swapped;
            }
        }
    }
}
