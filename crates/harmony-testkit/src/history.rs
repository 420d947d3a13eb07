//! What clients saw: plain data, whoever made it. Simulated clusters and real processes record the same histories, and the
//! checkers of [`crate::check`] know nothing else.
//!
//! A [`History`] has operations (one request each, with what became of it) and watches (what each was told). Times are
//! [`Moment`]s of one clock for the whole history; only their order counts, except for leases.
//!
//! Its text form, one line an operation, is for reading and for keeping: `{history}` writes it, [`text::parse`] reads it.

pub mod observation;
pub mod recorder;
pub mod text;
mod words;

use std::fmt;

use bytes::Bytes;
use harmony_types::lease::{LeaseGrant, LeaseRevoke};
use harmony_types::txn::{
    DeleteRange, DeleteRangeOutcome, OpOutcome, OpOutcomeKind, Put, PutOutcome, Range, RangeOutcome,
    TxnOutcome,
};
use harmony_types::{Event, KeyRange, KeyValue, LeaseId, NodeId, Refusal, Revision, Txn};

/// A point of time of the history's clock, in nanoseconds from wherever that clock began. The clock is one for all clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub u64);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A client: it calls one operation after the other, so its operations do not overlap, except those of unknown outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClientId(pub u32);

/// All that the clients of one store saw.
///
/// The store was empty, at revision 1, before the first operation, unless a checker is told otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct History {
    /// In any order.
    pub operations: Vec<Operation>,
    /// In any order.
    pub watches: Vec<Watch>,
}

/// One request of a client, and what it learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked.
    pub client: ClientId,
    /// The member that was asked, if that is known.
    pub member: Option<NodeId>,
    /// Just before the request was sent.
    pub called: Moment,
    /// Just after the answer came, not before `called`. `None`: it never came, so the outcome is unknown.
    pub returned: Option<Moment>,
    /// What was asked.
    pub request: Request,
    /// What became of it.
    pub outcome: OperationOutcome,
}

/// What a client can ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Read keys, at the newest or at an older revision.
    Range {
        /// What to read.
        range: Range,
        /// From the asked member's own state, which may be old.
        serializable: bool,
    },
    /// Write a key.
    Put(Put),
    /// Delete keys.
    DeleteRange(DeleteRange),
    /// Run a transaction. One that only reads is linearizable, too.
    Txn(Txn),
    /// Give up the history before a revision.
    Compact(Revision),
    /// Grant a lease. Its id is never 0 here: a client that lets the cluster pick one records the one it got.
    LeaseGrant(LeaseGrant),
    /// End a lease and delete its keys.
    LeaseRevoke(LeaseRevoke),
    /// Renew a lease.
    LeaseRenew(LeaseId),
}

/// What became of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationOutcome {
    /// It was answered.
    Answered(Answer),
    /// It was refused, and changed nothing. [`Refusal::Unspecified`]: for a reason that says nothing of the keys, leases and
    /// revisions (too many requests, no leader, a malformed request).
    Refused(Refusal),
    /// No answer, or one that leaves open whether it took effect: now, later or never.
    Unknown,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The revision in its header; `None` where the client was not told.
    pub revision: Option<Revision>,
    /// The rest.
    pub reply: Reply,
}

/// The body of an answer, of the same kind as the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`Request::Range`].
    Range(RangeOutcome),
    /// To [`Request::Put`].
    Put(PutOutcome),
    /// To [`Request::DeleteRange`].
    DeleteRange(DeleteRangeOutcome),
    /// To [`Request::Txn`].
    Txn(TxnOutcome),
    /// To [`Request::Compact`].
    Compact,
    /// To [`Request::LeaseGrant`].
    LeaseGrant {
        /// Seconds granted.
        ttl_s: i64,
    },
    /// To [`Request::LeaseRevoke`].
    LeaseRevoke,
    /// To [`Request::LeaseRenew`].
    LeaseRenew {
        /// Seconds that the lease has from now on; 0 or less: there is no such lease.
        ttl_s: i64,
    },
}

/// One watch on one member, from its creation to its end.
///
/// A client that goes on elsewhere after an end records a new watch and says which one it resumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Who watches.
    pub client: ClientId,
    /// The member that was asked, if that is known.
    pub member: Option<NodeId>,
    /// Just before the request was sent.
    pub called: Moment,
    /// What was asked.
    pub request: WatchRequest,
    /// The place in [`History::watches`] of the watch that this one continues: it starts behind all that was told there.
    pub resumes: Option<usize>,
    /// As they came.
    pub responses: Vec<WatchResponse>,
}

/// What a watch asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    /// The keys.
    pub keys: KeyRange,
    /// From which revision on; `None`: behind the newest one when the watch is created, whose number the answer tells.
    pub start: Option<Revision>,
    /// Leave puts out.
    pub no_put: bool,
    /// Leave deletes out.
    pub no_delete: bool,
    /// Tell what each event replaced.
    pub prev_kv: bool,
    /// A large revision may come in several responses.
    pub fragment: bool,
}

impl Default for WatchRequest {
    fn default() -> Self {
        Self {
            keys: KeyRange::all(),
            start: None,
            no_put: false,
            no_delete: false,
            prev_kv: false,
            fragment: false,
        }
    }
}

/// One message of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchResponse {
    /// When it came.
    pub at: Moment,
    /// The revision in its header.
    pub revision: Revision,
    /// What it said.
    pub message: WatchMessage,
}

/// What a watch is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchMessage {
    /// The watch exists.
    Created,
    /// Something happened.
    Events {
        /// In order.
        events: Vec<Event>,
        /// More of the same revision follows.
        fragment: bool,
    },
    /// All up to the header's revision was told.
    Progress,
    /// The watch has ended.
    Canceled {
        /// It began below this compact revision.
        compact_revision: Option<Revision>,
        /// In words.
        reason: String,
    },
}

impl Operation {
    /// A request that `client` sends at `called`; nothing is known of it yet.
    #[must_use]
    pub const fn sent(client: ClientId, called: Moment, request: Request) -> Self {
        Self { client, member: None, called, returned: None, request, outcome: OperationOutcome::Unknown }
    }

    /// The same, answered at `returned`.
    #[must_use]
    pub fn answered(self, returned: Moment, revision: Revision, reply: Reply) -> Self {
        let answer = Answer { revision: Some(revision), reply };
        Self { returned: Some(returned), outcome: OperationOutcome::Answered(answer), ..self }
    }

    /// The same, refused at `returned`.
    #[must_use]
    pub fn refused(self, returned: Moment, refusal: Refusal) -> Self {
        Self { returned: Some(returned), outcome: OperationOutcome::Refused(refusal), ..self }
    }

    /// The answer, if there is one.
    #[must_use]
    pub const fn answer(&self) -> Option<&Answer> {
        match &self.outcome {
            OperationOutcome::Answered(answer) => Some(answer),
            _ => None,
        }
    }

    /// The revision in the answer's header, if it is known.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        self.answer().and_then(|answer| answer.revision)
    }

    /// Whether it is open if it took effect.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.outcome == OperationOutcome::Unknown
    }

    /// Whether it took effect or may have: it asks for a change and was not refused.
    #[must_use]
    pub fn may_have_changed_something(&self) -> bool {
        self.request.can_change() && !matches!(self.outcome, OperationOutcome::Refused(_))
    }
}

impl Request {
    /// Whether it asks for a change of keys, leases or the compact revision. A renewal changes none of them.
    #[must_use]
    pub fn can_change(&self) -> bool {
        match self {
            Self::Range { .. } | Self::LeaseRenew(_) => false,
            Self::Txn(txn) => !txn.is_read_only(),
            _ => true,
        }
    }
}

impl Reply {
    /// All keys that the answer shows, as they were at some revision.
    #[must_use]
    pub fn shown(&self) -> Vec<&KeyValue> {
        let mut shown = Vec::new();
        match self {
            Self::Range(outcome) => shown.extend(&outcome.kvs),
            Self::Put(outcome) => shown.extend(&outcome.prev_kv),
            Self::DeleteRange(outcome) => shown.extend(&outcome.prev_kvs),
            Self::Txn(outcome) => show_txn(outcome, &mut shown),
            _ => {}
        }
        shown
    }

    /// Whether the answer says that a key was written or deleted, so that its revision is the one of this change. `None`: it
    /// does not tell (the end of a lease, which may have had no key).
    #[must_use]
    pub fn changed_keys(&self) -> Option<bool> {
        match self {
            Self::Put(_) => Some(true),
            Self::DeleteRange(outcome) => Some(outcome.deleted > 0),
            Self::Txn(outcome) => Some(outcome.responses.iter().any(op_changed_keys)),
            Self::LeaseRevoke => None,
            _ => Some(false),
        }
    }
}

fn show_txn<'a>(outcome: &'a TxnOutcome, shown: &mut Vec<&'a KeyValue>) {
    for response in &outcome.responses {
        match &response.kind {
            Some(OpOutcomeKind::Range(outcome)) => shown.extend(&outcome.kvs),
            Some(OpOutcomeKind::Put(outcome)) => shown.extend(&outcome.prev_kv),
            Some(OpOutcomeKind::DeleteRange(outcome)) => shown.extend(&outcome.prev_kvs),
            Some(OpOutcomeKind::Txn(outcome)) => show_txn(outcome, shown),
            None => {}
        }
    }
}

fn op_changed_keys(outcome: &OpOutcome) -> bool {
    match &outcome.kind {
        Some(OpOutcomeKind::Put(_)) => true,
        Some(OpOutcomeKind::DeleteRange(outcome)) => outcome.deleted > 0,
        Some(OpOutcomeKind::Txn(outcome)) => outcome.responses.iter().any(op_changed_keys),
        _ => false,
    }
}

/// A read of one key, or of a range with its end, at the newest revision.
#[must_use]
pub fn read(key: impl Into<Bytes>, range_end: impl Into<Bytes>) -> Request {
    let range = Range { key: key.into(), range_end: range_end.into(), ..Range::default() };
    Request::Range { range, serializable: false }
}

/// A write of one key.
#[must_use]
pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Request {
    Request::Put(Put { key: key.into(), value: value.into(), ..Put::default() })
}

/// A delete of one key.
#[must_use]
pub fn delete(key: impl Into<Bytes>) -> Request {
    Request::DeleteRange(DeleteRange { key: key.into(), ..DeleteRange::default() })
}

#[cfg(test)]
mod tests;
