//! A history's operations as the checks of one store see them: what was asked, what was answered, and which revision that
//! fixes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use harmony_types::lease::LeaseRevoke;
use harmony_types::txn::TxnOpKind;
use harmony_types::{KeyRange, Refusal, Revision, Txn};

use super::search::Call;
use crate::history::{History, Operation, OperationOutcome, Reply, Request};

/// An operation and what its client knows of it.
#[derive(Clone, Debug)]
pub(crate) struct StoreOp<'h> {
    /// Its place in [`History::operations`]; for the end of a lease that ran out, that of its grant.
    pub(crate) position: usize,
    pub(crate) request: Cow<'h, Request>,
    pub(crate) expected: Expected<'h>,
    pub(crate) place: Place,
}

/// What was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expected<'h> {
    Reply(&'h Reply),
    Refused(Refusal),
    /// Whatever: it took effect, or may have.
    Anything,
}

/// What the answer's revision says about the operation's place among the writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is the write of this revision.
    Write(i64),
    /// It came behind the write of this revision and before the next one, and wrote no key.
    Behind(i64),
    /// One of both: the answer does not tell whether keys were written.
    Either(i64),
    /// The answer has no revision, or there is none.
    Anywhere,
}

pub(crate) type StoreCall<'h> = Call<StoreOp<'h>>;

/// The operations that say something about the keys, the leases or the compact revision. Reads of one member's own state and
/// renewals are left to other checks.
pub(crate) fn calls(history: &History) -> Vec<StoreCall<'_>> {
    let mut calls = Vec::with_capacity(history.operations.len());
    for (position, operation) in history.operations.iter().enumerate() {
        if let Request::LeaseGrant(grant) = &operation.request
            && operation.may_have_changed_something()
        {
            // It may run out at any time; whether that was too early is another check's question.
            let request = Cow::Owned(Request::LeaseRevoke(LeaseRevoke { id: grant.id }));
            calls.push(uncertain(position, operation, request));
        }
        calls.extend(call(position, operation));
    }
    calls
}

fn call(position: usize, operation: &Operation) -> Option<StoreCall<'_>> {
    let request = Cow::Borrowed(&operation.request);
    match operation.request {
        Request::Range { serializable: true, .. } | Request::LeaseRenew(_) => return None,
        _ => {}
    }
    let (expected, place) = match &operation.outcome {
        OperationOutcome::Answered(answer) => {
            (Expected::Reply(&answer.reply), place(answer.revision, &answer.reply))
        }
        OperationOutcome::Refused(refusal) if says_something(*refusal) => {
            (Expected::Refused(*refusal), Place::Anywhere)
        }
        OperationOutcome::Refused(_) => return None,
        OperationOutcome::Unknown if operation.request.can_change() => {
            return Some(uncertain(position, operation, request));
        }
        OperationOutcome::Unknown => return None,
    };
    let op = StoreOp { position, request, expected, place };
    Some(Call { called: operation.called, returned: operation.returned, is_certain: true, op })
}

fn uncertain<'h>(position: usize, operation: &Operation, request: Cow<'h, Request>) -> StoreCall<'h> {
    let op = StoreOp { position, request, expected: Expected::Anything, place: Place::Anywhere };
    Call { called: operation.called, returned: None, is_certain: false, op }
}

/// Whether a refusal follows from the keys, the leases and the revisions alone.
const fn says_something(refusal: Refusal) -> bool {
    matches!(
        refusal,
        Refusal::KeyNotFound
            | Refusal::LeaseNotFound
            | Refusal::LeaseExists
            | Refusal::Compacted
            | Refusal::FutureRevision
    )
}

fn place(revision: Option<Revision>, reply: &Reply) -> Place {
    let Some(revision) = revision.map(Revision::as_i64) else { return Place::Anywhere };
    match reply.changed_keys() {
        Some(true) => Place::Write(revision),
        Some(false) => Place::Behind(revision),
        None => Place::Either(revision),
    }
}

impl StoreOp<'_> {
    /// Whether it changes something only together with keys, so that it takes a revision.
    pub(crate) fn writes_or_does_nothing(&self) -> bool {
        matches!(*self.request, Request::Put(_) | Request::DeleteRange(_) | Request::Txn(_))
    }

    /// The keys that it reads, writes or compares.
    pub(crate) fn keys(&self) -> Vec<KeyRange> {
        let mut keys = Vec::new();
        match &*self.request {
            Request::Range { range, .. } => keys.push(range.range()),
            Request::Put(put) => keys.push(KeyRange::single(put.key.clone())),
            Request::DeleteRange(delete) => keys.push(delete.range()),
            Request::Txn(txn) => txn_keys(txn, &mut keys),
            _ => {}
        }
        keys
    }
}

fn txn_keys(txn: &Txn, keys: &mut Vec<KeyRange>) {
    keys.extend(txn.compare.iter().map(harmony_types::Compare::range));
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.kind {
            Some(TxnOpKind::Range(range)) => keys.push(range.range()),
            Some(TxnOpKind::Put(put)) => keys.push(KeyRange::single(put.key.clone())),
            Some(TxnOpKind::DeleteRange(delete)) => keys.push(delete.range()),
            Some(TxnOpKind::Txn(inner)) => txn_keys(inner, keys),
            None => {}
        }
    }
}

/// What all answers together say about the revisions that no acknowledged write has: so that an operation of unknown outcome
/// is tried only where it can have been.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// Revisions of acknowledged writes.
    owned: BTreeSet<i64>,
    /// Keys that some answer shows as written at a revision, with the value where it was told.
    shown: BTreeMap<i64, BTreeMap<Bytes, Bytes>>,
    /// Stretches of revisions in which a key was not written: above the first, up to the second.
    quiet: BTreeMap<Bytes, Vec<(i64, i64)>>,
}

impl Evidence {
    pub(crate) fn of(calls: &[StoreCall<'_>]) -> Self {
        let mut evidence = Self::default();
        for call in calls.iter().filter(|call| call.is_certain) {
            if let Place::Write(revision) = call.op.place {
                evidence.owned.insert(revision);
            }
            if let Expected::Reply(reply) = call.op.expected {
                evidence.add(&call.op, reply);
            }
        }
        for stretches in evidence.quiet.values_mut() {
            stretches.sort_unstable();
            stretches.dedup_by(|next, kept| {
                let joins = next.0 <= kept.1;
                if joins {
                    kept.1 = kept.1.max(next.1);
                }
                joins
            });
        }
        evidence
    }

    fn add(&mut self, op: &StoreOp<'_>, reply: &Reply) {
        let as_of = match op.place {
            Place::Write(revision) => revision - 1,
            Place::Behind(revision) => revision,
            Place::Either(_) | Place::Anywhere => 0,
        };
        let as_of = match &*op.request {
            Request::Range { range, .. } if range.revision > 0 => range.revision,
            Request::Txn(txn) if reads_the_past(txn) => 0,
            _ => as_of,
        };
        for kv in reply.shown() {
            self.shown.entry(kv.mod_revision).or_default().insert(kv.key.clone(), kv.value.clone());
            if kv.mod_revision < as_of {
                self.quiet.entry(kv.key.clone()).or_default().push((kv.mod_revision, as_of));
            }
        }
    }

    /// Whether an acknowledged write has this revision.
    pub(crate) fn is_owned(&self, revision: i64) -> bool {
        self.owned.contains(&revision)
    }

    /// The first revision up to `last` that no acknowledged write has.
    pub(crate) fn first_hole(&self, last: i64) -> Option<i64> {
        (2..=last)
            .zip(self.owned.iter().copied().map(Some).chain(std::iter::repeat(None)))
            .find(|(wanted, owned)| Some(*wanted) != *owned)
            .map(|(wanted, _)| wanted)
    }

    /// What was shown as written at a revision. A value that is empty may have been left out.
    pub(crate) fn shown_at(&self, revision: i64) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.shown.get(&revision).into_iter().flatten()
    }

    /// Whether some answer shows that the key was not written at this revision.
    pub(crate) fn is_quiet(&self, key: &[u8], revision: i64) -> bool {
        let Some(stretches) = self.quiet.get(key) else { return false };
        let behind = stretches.partition_point(|(above, _)| *above < revision);
        behind.checked_sub(1).is_some_and(|place| revision <= stretches[place].1)
    }
}

fn reads_the_past(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match &op.kind {
        Some(TxnOpKind::Range(range)) => range.revision > 0,
        Some(TxnOpKind::Txn(inner)) => reads_the_past(inner),
        _ => false,
    })
}
