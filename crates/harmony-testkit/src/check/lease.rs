//! A lease never ends early: not before its TTL has passed since a grant or a renewal that was acknowledged.
//!
//! The cluster counts from some moment after it was asked, so a lease that was renewed with a TTL of `t` by a request sent at
//! `s` is there until `s + t` at least, whatever clocks, elections and stalls do. Whoever sees a sign of its end before that,
//! and nobody revoked it, saw it end early, even if the renewal was sent later than that: it found the lease. A late end is
//! allowed.

use std::collections::BTreeMap;

use harmony_types::txn::TxnOpKind;
use harmony_types::{EventType, Refusal, Txn};

use super::Violation;
use super::log::{Log, called_at};
use crate::history::{History, Moment, Operation, OperationOutcome, Reply, Request};

const PROPERTY: &str = "a lease that lives its time";

/// How far the clocks may be apart in their speed, in parts of a thousand: a member whose clock is fast ends leases early by
/// that much, and is allowed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ClockError {
    /// Parts of a thousand.
    pub per_mille: u64,
}

/// Checks all leases that were granted once (an id that is granted again after its end makes the signs ambiguous).
///
/// Signs of an end: the keys' deletion in the log, by no delete or transaction that may have done it; a put or a revoke that
/// was refused because the lease is missing; a renewal that was told so.
///
/// # Errors
/// The first sign that came too early, with the grant or renewal that forbids it.
pub fn check(history: &History, log: &Log, error: ClockError) -> Result<(), Violation> {
    let mut leases: BTreeMap<i64, Lease<'_>> = BTreeMap::new();
    for operation in &history.operations {
        note(operation, &mut leases);
    }
    let seen = first_seen(history, log);
    for sign in refusals(history).into_iter().chain(deletions(history, log, &seen)) {
        let Some(lease) = leases.get(&sign.lease).filter(|lease| lease.grants == 1) else { continue };
        if lease.revoked.is_some_and(|called| called <= sign.at) {
            continue;
        }
        for (operation, ttl_s) in &lease.granted {
            let lived = ttl_ns(*ttl_s).saturating_mul(1_000 - error.per_mille.min(1_000)) / 1_000;
            let until = Moment(operation.called.0.saturating_add(lived));
            if sign.at < until {
                let reason =
                    format!("lease {} is there until {until}, but had ended at {}", sign.lease, sign.at);
                let window = vec![format!("> {operation}"), format!("> {}", sign.text)];
                return Err(Violation::new(PROPERTY, reason).with_window(window));
            }
        }
    }
    Ok(())
}

/// A TTL in the history's unit.
fn ttl_ns(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000_000)
}

#[derive(Default)]
struct Lease<'h> {
    /// Grants that took effect or may have.
    grants: u32,
    /// Grants and renewals that were acknowledged, with the TTL that they told.
    granted: Vec<(&'h Operation, i64)>,
    /// When a client first asked for its end.
    revoked: Option<Moment>,
}

fn note<'h>(operation: &'h Operation, leases: &mut BTreeMap<i64, Lease<'h>>) {
    let told = match operation.answer().map(|answer| &answer.reply) {
        Some(Reply::LeaseGrant { ttl_s } | Reply::LeaseRenew { ttl_s }) if *ttl_s > 0 => Some(*ttl_s),
        _ => None,
    };
    let lease = match &operation.request {
        Request::LeaseGrant(grant) => {
            let lease = leases.entry(grant.id).or_default();
            lease.grants += u32::from(operation.may_have_changed_something());
            lease
        }
        Request::LeaseRenew(id) => leases.entry(id.0).or_default(),
        Request::LeaseRevoke(revoke) => {
            let lease = leases.entry(revoke.id).or_default();
            if operation.may_have_changed_something() {
                lease.revoked =
                    Some(lease.revoked.map_or(operation.called, |before| before.min(operation.called)));
            }
            lease
        }
        _ => return,
    };
    lease.granted.extend(told.map(|ttl_s| (operation, ttl_s)));
}

/// That a lease had ended.
struct Sign {
    lease: i64,
    /// It had ended by then.
    at: Moment,
    text: String,
}

/// Answers that say that a lease is missing, asked when it had been granted.
fn refusals(history: &History) -> Vec<Sign> {
    let granted: BTreeMap<i64, Moment> = history
        .operations
        .iter()
        .filter_map(|operation| match (&operation.request, operation.answer(), operation.returned) {
            (Request::LeaseGrant(grant), Some(_), Some(returned)) => Some((grant.id, returned)),
            _ => None,
        })
        .collect();
    let sign = |operation: &Operation| {
        let is_missing = match &operation.outcome {
            OperationOutcome::Refused(refusal) => *refusal == Refusal::LeaseNotFound,
            OperationOutcome::Answered(answer) => {
                matches!(answer.reply, Reply::LeaseRenew { ttl_s } if ttl_s <= 0)
            }
            OperationOutcome::Unknown => false,
        };
        let lease = match &operation.request {
            Request::Put(put) => put.lease,
            Request::LeaseRevoke(revoke) => revoke.id,
            Request::LeaseRenew(id) => id.0,
            _ => return None,
        };
        let at = operation.returned?;
        let is_known = granted.get(&lease).is_some_and(|granted| *granted < operation.called);
        (is_missing && is_known).then(|| Sign { lease, at, text: operation.to_string() })
    };
    history.operations.iter().filter_map(sign).collect()
}

/// When each revision was first seen by anybody, or a later one.
fn first_seen(history: &History, log: &Log) -> BTreeMap<i64, Moment> {
    let answers = history.operations.iter().filter_map(|one| Some((one.revision()?.as_i64(), one.returned?)));
    let responses = history.watches.iter().flat_map(|watch| &watch.responses);
    let told = responses.map(|response| (response.revision.as_i64(), response.at));
    let mut at: BTreeMap<i64, Moment> = BTreeMap::new();
    for (revision, moment) in answers.chain(told) {
        at.entry(revision).and_modify(|first| *first = moment.min(*first)).or_insert(moment);
    }
    let mut seen = BTreeMap::new();
    let mut first: Option<Moment> = None;
    for revision in (1..=log.last()).rev() {
        first = at.get(&revision).copied().into_iter().chain(first).min();
        if let Some(first) = first {
            seen.insert(revision, first);
        }
    }
    seen
}

/// Revisions in which keys of a lease went, and which no client's request explains.
fn deletions(history: &History, log: &Log, seen: &BTreeMap<i64, Moment>) -> Vec<Sign> {
    let acknowledged = called_at(history);
    let mut signs = Vec::new();
    for (revision, at) in seen {
        if acknowledged.contains_key(revision) {
            continue;
        }
        for event in log.at(*revision) {
            let (Some(kv), Some(before)) = (&event.kv, &event.prev_kv) else { continue };
            let is_delete = EventType::try_from(event.event_type) == Ok(EventType::Delete);
            let may_be_asked = history
                .operations
                .iter()
                .any(|operation| operation.is_unknown() && may_delete(&operation.request, &kv.key));
            if is_delete && before.lease != 0 && !may_be_asked {
                let text = format!("revision {revision}, seen at {at}, deletes {:?}", kv.key);
                signs.push(Sign { lease: before.lease, at: *at, text });
            }
        }
    }
    signs
}

fn may_delete(request: &Request, key: &[u8]) -> bool {
    match request {
        Request::DeleteRange(delete) => delete.range().contains(key),
        Request::Txn(txn) => txn_may_delete(txn, key),
        _ => false,
    }
}

fn txn_may_delete(txn: &Txn, key: &[u8]) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match &op.kind {
        Some(TxnOpKind::DeleteRange(delete)) => delete.range().contains(key),
        Some(TxnOpKind::Txn(inner)) => txn_may_delete(inner, key),
        _ => false,
    })
}

#[cfg(test)]
mod tests;
