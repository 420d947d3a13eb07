//! The text form of a history: one line an operation, one line a watch and one for each thing it was told.
//!
//! ```text
//! op c1 n2 100..250 put "k" "v" lease=7 -> @5 put []
//! op c2 n? 120..200 range "k" -> @4 range ["k" "u" c=2 m=4 v=2] count=1
//! op c3 n1 130..160 txn if [mod = 4 "k"] then [put "k" "w"; delete "a" "b"] else [range "k"] -> unknown
//! op c4 n1 130.. put "k" "w" ignore_value -> refused KeyNotFound
//! watch c5 n3 90 "a" "z" start=2 prev_kv
//!   at 150 @5 events [put "k" "v" c=2 m=5 v=3 was "k" "u" c=2 m=4 v=2]
//!   at 170 @6 progress
//! ```
//!
//! Bytes stand in quotes, escaped as in Rust's byte strings. Numbers and flags that are zero or off are left out. `c`, `m`, `v`
//! and `l` of a key are its create revision, its mod revision, its version and its lease; times are [`Moment`]s. A line that
//! begins with `#` is a comment.
//!
//! [`Moment`]: super::Moment

use std::fmt::{self, Display, Formatter};

use harmony_types::txn::{
    CompareResult, CompareTarget, DeleteRange, OpOutcome, OpOutcomeKind, Put, Range, RangeOutcome, TxnOpKind,
    TxnOutcome,
};
use harmony_types::{Compare, Event, EventType, KeyRange, KeyValue, NodeId, Txn, TxnOp};

pub use super::words::{ParseError, parse};
use super::{History, Operation, OperationOutcome, Reply, Request, Watch, WatchMessage, WatchResponse};

impl Display for History {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for operation in &self.operations {
            writeln!(f, "{operation}")?;
        }
        for watch in &self.watches {
            writeln!(f, "{watch}")?;
        }
        Ok(())
    }
}

impl Display for Operation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "op c{} ", self.client.0)?;
        member(f, self.member)?;
        write!(f, " {}..", self.called)?;
        if let Some(returned) = self.returned {
            write!(f, "{returned}")?;
        }
        write!(f, " {} -> {}", self.request, self.outcome)
    }
}

impl Display for Request {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { range, serializable } => {
                range_request(f, range)?;
                flag(f, "serializable", *serializable)
            }
            Self::Put(put) => put_request(f, put),
            Self::DeleteRange(delete) => delete_request(f, delete),
            Self::Txn(txn) => txn_request(f, txn),
            Self::Compact(revision) => write!(f, "compact {revision}"),
            Self::LeaseGrant(grant) => write!(f, "grant {} ttl={}", grant.id, grant.ttl),
            Self::LeaseRevoke(revoke) => write!(f, "revoke {}", revoke.id),
            Self::LeaseRenew(id) => write!(f, "renew {}", id.0),
        }
    }
}

impl Display for OperationOutcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(answer) => {
                match answer.revision {
                    Some(revision) => write!(f, "@{revision} ")?,
                    None => f.write_str("@? ")?,
                }
                answer.reply.fmt(f)
            }
            Self::Refused(refusal) => write!(f, "refused {refusal:?}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl Display for Reply {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(outcome) => range_reply(f, outcome),
            Self::Put(outcome) => put_reply(f, outcome.prev_kv.as_ref()),
            Self::DeleteRange(outcome) => delete_reply(f, outcome.deleted, &outcome.prev_kvs),
            Self::Txn(outcome) => txn_reply(f, outcome),
            Self::Compact => f.write_str("compact"),
            Self::LeaseGrant { ttl_s } => write!(f, "grant ttl={ttl_s}"),
            Self::LeaseRevoke => f.write_str("revoke"),
            Self::LeaseRenew { ttl_s } => write!(f, "renew ttl={ttl_s}"),
        }
    }
}

impl Display for Watch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "watch c{} ", self.client.0)?;
        member(f, self.member)?;
        write!(f, " {} ", self.called)?;
        let request = &self.request;
        keys(f, &request.keys)?;
        if let Some(start) = request.start {
            write!(f, " start={start}")?;
        }
        flag(f, "no_put", request.no_put)?;
        flag(f, "no_delete", request.no_delete)?;
        flag(f, "prev_kv", request.prev_kv)?;
        flag(f, "fragment", request.fragment)?;
        if let Some(resumes) = self.resumes {
            write!(f, " resumes={resumes}")?;
        }
        for response in &self.responses {
            write!(f, "\n  {response}")?;
        }
        Ok(())
    }
}

impl Display for WatchResponse {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "at {} @{} ", self.at, self.revision)?;
        match &self.message {
            WatchMessage::Created => f.write_str("created"),
            WatchMessage::Events { events, fragment } => {
                f.write_str("events ")?;
                list(f, events, event)?;
                flag(f, "fragment", *fragment)
            }
            WatchMessage::Progress => f.write_str("progress"),
            WatchMessage::Canceled { compact_revision, reason } => {
                write!(f, "canceled {}", Quoted(reason.as_bytes()))?;
                compact_revision.map_or(Ok(()), |revision| write!(f, " compacted={revision}"))
            }
        }
    }
}

/// Bytes between quotes.
struct Quoted<'a>(&'a [u8]);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

fn member(f: &mut Formatter<'_>, member: Option<NodeId>) -> fmt::Result {
    match member {
        Some(id) => write!(f, "n{id}"),
        None => f.write_str("n?"),
    }
}

fn flag(f: &mut Formatter<'_>, name: &str, on: bool) -> fmt::Result {
    if on { write!(f, " {name}") } else { Ok(()) }
}

fn number(f: &mut Formatter<'_>, name: &str, value: i64) -> fmt::Result {
    if value == 0 { Ok(()) } else { write!(f, " {name}={value}") }
}

fn list<T>(
    f: &mut Formatter<'_>,
    items: &[T],
    item: fn(&mut Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    f.write_str("[")?;
    for (position, one) in items.iter().enumerate() {
        if position > 0 {
            f.write_str("; ")?;
        }
        item(f, one)?;
    }
    f.write_str("]")
}

fn keys(f: &mut Formatter<'_>, keys: &KeyRange) -> fmt::Result {
    Quoted(&keys.key).fmt(f)?;
    if keys.end.is_empty() { Ok(()) } else { write!(f, " {}", Quoted(&keys.end)) }
}

fn range_request(f: &mut Formatter<'_>, range: &Range) -> fmt::Result {
    f.write_str("range ")?;
    keys(f, &range.range())?;
    for (name, value) in [
        ("limit", range.limit),
        ("revision", range.revision),
        ("sort_order", range.sort_order.into()),
        ("sort_target", range.sort_target.into()),
        ("min_mod", range.min_mod_revision),
        ("max_mod", range.max_mod_revision),
        ("min_create", range.min_create_revision),
        ("max_create", range.max_create_revision),
    ] {
        number(f, name, value)?;
    }
    flag(f, "keys_only", range.keys_only)?;
    flag(f, "count_only", range.count_only)
}

fn put_request(f: &mut Formatter<'_>, put: &Put) -> fmt::Result {
    write!(f, "put {} {}", Quoted(&put.key), Quoted(&put.value))?;
    number(f, "lease", put.lease)?;
    flag(f, "prev_kv", put.prev_kv)?;
    flag(f, "ignore_value", put.ignore_value)?;
    flag(f, "ignore_lease", put.ignore_lease)
}

fn delete_request(f: &mut Formatter<'_>, delete: &DeleteRange) -> fmt::Result {
    f.write_str("delete ")?;
    keys(f, &delete.range())?;
    flag(f, "prev_kv", delete.prev_kv)
}

fn txn_request(f: &mut Formatter<'_>, txn: &Txn) -> fmt::Result {
    f.write_str("txn if ")?;
    list(f, &txn.compare, compare)?;
    f.write_str(" then ")?;
    list(f, &txn.success, op)?;
    f.write_str(" else ")?;
    list(f, &txn.failure, op)
}

fn op(f: &mut Formatter<'_>, op: &TxnOp) -> fmt::Result {
    match &op.kind {
        Some(TxnOpKind::Range(range)) => range_request(f, range),
        Some(TxnOpKind::Put(put)) => put_request(f, put),
        Some(TxnOpKind::DeleteRange(delete)) => delete_request(f, delete),
        Some(TxnOpKind::Txn(txn)) => txn_request(f, txn),
        None => f.write_str("nothing"),
    }
}

fn compare(f: &mut Formatter<'_>, compare: &Compare) -> fmt::Result {
    let sign = match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => "=",
        Ok(CompareResult::Greater) => ">",
        Ok(CompareResult::Less) => "<",
        Ok(CompareResult::NotEqual) | Err(_) => "!=",
    };
    match &compare.target {
        Some(CompareTarget::Version(number)) => write!(f, "version {sign} {number} ")?,
        Some(CompareTarget::CreateRevision(number)) => write!(f, "create {sign} {number} ")?,
        Some(CompareTarget::ModRevision(number)) => write!(f, "mod {sign} {number} ")?,
        Some(CompareTarget::Lease(number)) => write!(f, "lease {sign} {number} ")?,
        Some(CompareTarget::Value(value)) => write!(f, "value {sign} {} ", Quoted(value))?,
        None => write!(f, "nothing {sign} 0 ")?,
    }
    keys(f, &compare.range())
}

fn key_value(f: &mut Formatter<'_>, kv: &KeyValue) -> fmt::Result {
    write!(f, "{} {}", Quoted(&kv.key), Quoted(&kv.value))?;
    number(f, "c", kv.create_revision)?;
    number(f, "m", kv.mod_revision)?;
    number(f, "v", kv.version)?;
    number(f, "l", kv.lease)
}

fn range_reply(f: &mut Formatter<'_>, outcome: &RangeOutcome) -> fmt::Result {
    f.write_str("range ")?;
    list(f, &outcome.kvs, key_value)?;
    number(f, "count", outcome.count)?;
    flag(f, "more", outcome.more)
}

fn put_reply(f: &mut Formatter<'_>, prev_kv: Option<&KeyValue>) -> fmt::Result {
    f.write_str("put ")?;
    list(f, prev_kv.map_or(&[], std::slice::from_ref), key_value)
}

fn delete_reply(f: &mut Formatter<'_>, deleted: i64, prev_kvs: &[KeyValue]) -> fmt::Result {
    f.write_str("delete ")?;
    list(f, prev_kvs, key_value)?;
    number(f, "deleted", deleted)
}

fn txn_reply(f: &mut Formatter<'_>, outcome: &TxnOutcome) -> fmt::Result {
    f.write_str(if outcome.succeeded { "txn then " } else { "txn else " })?;
    list(f, &outcome.responses, op_reply)
}

fn op_reply(f: &mut Formatter<'_>, outcome: &OpOutcome) -> fmt::Result {
    match &outcome.kind {
        Some(OpOutcomeKind::Range(outcome)) => range_reply(f, outcome),
        Some(OpOutcomeKind::Put(outcome)) => put_reply(f, outcome.prev_kv.as_ref()),
        Some(OpOutcomeKind::DeleteRange(outcome)) => delete_reply(f, outcome.deleted, &outcome.prev_kvs),
        Some(OpOutcomeKind::Txn(outcome)) => txn_reply(f, outcome),
        None => f.write_str("nothing"),
    }
}

fn event(f: &mut Formatter<'_>, event: &Event) -> fmt::Result {
    let is_delete = EventType::try_from(event.event_type) == Ok(EventType::Delete);
    f.write_str(if is_delete { "delete " } else { "put " })?;
    key_value(f, event.kv.as_ref().unwrap_or(&KeyValue::default()))?;
    match &event.prev_kv {
        Some(kv) => {
            f.write_str(" was ")?;
            key_value(f, kv)
        }
        None => Ok(()),
    }
}
