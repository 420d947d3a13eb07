//! The fast way: where revisions give every operation its place, there is one order up to reads that see the same, and it is
//! enough to run it. Time `n log n`, and the answer is final both ways.

use super::calls::{Evidence, Expected, Place, StoreCall};
use super::kv::is_answer;
use super::order::{Conflict, by_revision};
use super::store::Store;
use crate::history::Request;

/// Runs the history by its revisions. `None` when they leave a choice: an operation of unknown outcome may have taken a
/// revision that nobody acknowledged, leases or compactions change what takes no revision, or an answer has none.
///
/// That time agrees with the revisions is the part of `order`.
pub(crate) fn check(calls: &[StoreCall<'_>], evidence: &Evidence) -> Option<Result<(), Conflict>> {
    let is_fixed = |call: &StoreCall<'_>| matches!(call.op.place, Place::Write(_) | Place::Behind(_));
    let is_key_op = |call: &StoreCall<'_>| {
        call.op.writes_or_does_nothing() || matches!(*call.op.request, Request::Range { .. })
    };
    if !calls.iter().all(|call| is_key_op(call) && (is_fixed(call) || !call.is_certain)) {
        return None;
    }
    let slots = by_revision(calls);
    let Some(&((last, _), _)) = slots.last() else { return Some(Ok(())) };
    if let Some(hole) = evidence.first_hole(last) {
        if calls.iter().any(|call| !call.is_certain) {
            return None;
        }
        let behind = slots.iter().find(|((revision, _), _)| hole <= *revision).map(|(_, position)| *position);
        let reason = format!("no operation can have taken revision {hole}");
        return Some(Err(Conflict { reason, calls: behind.into_iter().collect() }));
    }
    let mut store = Store::new();
    for (_, position) in slots {
        if let Err(reason) = run(&mut store, &calls[position]) {
            return Some(Err(Conflict { reason, calls: vec![position] }));
        }
    }
    Some(Ok(()))
}

/// Runs one call at its place.
///
/// # Errors
/// What the store says instead of the answer.
fn run(store: &mut Store, call: &StoreCall<'_>) -> Result<(), String> {
    let before = store.revision();
    let reply = store.run(&call.op.request);
    let has_written = store.revision() != before;
    match (call.op.place, call.op.expected, reply) {
        (_, Expected::Reply(told), Ok(reply)) if !is_answer(told, &reply) => {
            Err(format!("the answer is {told}, but at its revision the store says {reply}"))
        }
        (_, _, Err(refusal)) => {
            Err(format!("it was answered, but at its revision the store refuses: {refusal:?}"))
        }
        (Place::Write(_), ..) if !has_written => {
            Err("it has a revision of its own, but it wrote nothing".to_owned())
        }
        (Place::Write(revision) | Place::Behind(revision), ..) if store.revision() != revision => {
            Err(format!("it has revision {revision}, but no store is at {revision} then"))
        }
        _ => Ok(()),
    }
}
