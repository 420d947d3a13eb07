//! Reads of one member's own state: old perhaps, but true, and never older than what that member answered before.

use std::collections::BTreeMap;

use harmony_types::{NodeId, Revision};

use super::Violation;
use super::log::{Log, called_at};
use crate::history::{Answer, History, Moment, Operation, Reply, Request};

const PROPERTY: &str = "serializable";

/// Checks every serializable read: it shows the log's state at its revision, not from before anybody asked for that, and not
/// older than any answer of the same member that had come before the read was called.
///
/// `restarts`: when members were started again. A member may know less of what is committed then than it did before, so that
/// only answers since count.
///
/// # Errors
/// The first read that is wrong.
pub fn check(history: &History, log: &Log, restarts: &[(NodeId, Moment)]) -> Result<(), Violation> {
    let called = called_at(history);
    let wrong = |reason: String, operations: &[&Operation]| {
        let window = operations.iter().map(|operation| format!("> {operation}")).collect();
        Violation::new(PROPERTY, reason).with_window(window)
    };
    for operation in &history.operations {
        let Some((range, answer, told)) = read_of(operation) else { continue };
        let Some(revision) = answer.revision.map(Revision::as_i64) else { continue };
        if revision < 1 || log.last() < revision {
            return Err(wrong(format!("revision {revision} never was"), &[operation]));
        }
        if let (Some(called), Some(returned)) = (called.get(&revision), operation.returned)
            && returned < *called
        {
            return Err(wrong(format!("revision {revision} was asked for later, at {called}"), &[operation]));
        }
        let as_of = if range.revision <= 0 { revision } else { range.revision };
        if revision < as_of {
            return Err(wrong(
                format!("revision {as_of} did not exist for a member at {revision}"),
                &[operation],
            ));
        }
        let right = log.store().range(&harmony_types::txn::Range { revision: as_of, ..range.clone() });
        if right.as_ref() != Ok(told) {
            let right =
                right.map_or_else(|refusal| format!("{refusal:?}"), |right| Reply::Range(right).to_string());
            return Err(wrong(format!("the state at revision {as_of} is {right}"), &[operation]));
        }
    }
    never_older(history, restarts).map_or(Ok(()), |(before, after)| {
        Err(wrong("a member answered with an older state than before".into(), &[before, after]))
    })
}

fn read_of(
    operation: &Operation,
) -> Option<(&harmony_types::txn::Range, &Answer, &harmony_types::txn::RangeOutcome)> {
    match (&operation.request, operation.answer()) {
        (
            Request::Range { range, serializable: true },
            Some(answer @ Answer { reply: Reply::Range(told), .. }),
        ) => Some((range, answer, told)),
        _ => None,
    }
}

/// A serializable read that shows an older revision than an answer of the same member that had come before.
fn never_older<'h>(
    history: &'h History,
    restarts: &[(NodeId, Moment)],
) -> Option<(&'h Operation, &'h Operation)> {
    let mut lives: BTreeMap<(NodeId, usize), Vec<&Operation>> = BTreeMap::new();
    for operation in &history.operations {
        if let (Some(member), Some(_), Some(returned)) =
            (operation.member, operation.revision(), operation.returned)
        {
            let own = || restarts.iter().filter(|(restarted, _)| *restarted == member).map(|(_, at)| *at);
            let before = own().filter(|at| *at < operation.called).count();
            // One that saw a restart belongs to no life for certain.
            if before == own().filter(|at| *at <= returned).count() {
                lives.entry((member, before)).or_default().push(operation);
            }
        }
    }
    for mut operations in lives.into_values() {
        let mut reads: Vec<&Operation> =
            operations.iter().copied().filter(|operation| read_of(operation).is_some()).collect();
        reads.sort_by_key(|operation| operation.called);
        operations.sort_by_key(|operation| operation.returned);
        let mut answers = operations.into_iter().peekable();
        let mut newest: Option<&Operation> = None;
        for read in reads {
            while let Some(answer) = answers.next_if(|answer| answer.returned < Some(read.called)) {
                if newest.is_none_or(|newest| newest.revision() < answer.revision()) {
                    newest = Some(answer);
                }
            }
            if let Some(before) = newest.filter(|before| read.revision() < before.revision()) {
                return Some((before, read));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
