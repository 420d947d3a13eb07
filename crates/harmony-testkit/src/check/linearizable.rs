//! Linearizability of a whole store: keys, transactions, leases and compactions as one object.
//!
//! As the store is one object, this is strict serializability of transactions over many keys, too: there is one order of all
//! of them that explains every answer and keeps what had returned before what was called later.
//!
//! 1. `order`: revisions against time. Sorting.
//! 2. `replay`: where revisions fix every place, one run decides.
//! 3. [`search`]: where operations of unknown outcome leave a choice.

use super::calls::{Evidence, Expected, StoreCall, calls};
use super::kv::Kv;
use super::log::{self, Log};
use super::order::{self, Conflict};
use super::search::{Found, Limits, search};
use super::store::Store;
use super::{Verdict, Violation, replay, window};
use crate::history::{History, Moment};

/// The property's name in a report.
const PROPERTY: &str = "linearizable";

/// Runs of the search that making a wrong history smaller may take.
const TRIALS_MAX: usize = 400;

/// Steps that a search of a part may take at least.
const PART_STEPS: u64 = 200_000;

/// Checks that the answers of a history have one order that an etcd store, empty at first, would give, and that agrees with
/// time.
///
/// Operations of unknown outcome may have taken effect at any time after their call, or never. A granted lease may have ended
/// at any time after the grant was sent. Reads of a member's own state and renewals of leases are not looked at here. Changes
/// that no client asked for, automatic compactions say, are to be in the history as operations of unknown outcome.
#[must_use]
pub fn check(history: &History, limits: Limits) -> Verdict {
    decide(history, &calls(history), limits)
}

/// As [`check`], with a log that tells what became of operations of unknown outcome: what [`super::log::check`] says and this together
/// cost about as much as sorting, unless the history is wrong.
#[must_use]
pub fn check_with_log(history: &History, log: &Log, limits: Limits) -> Verdict {
    match log::agree(history, log) {
        Err(violation) => Verdict::Violated(violation),
        Ok(Some(calls)) => match decide(history, &calls, limits) {
            // Told again without the log where that shows it, too: what is printed follows from the answers alone then.
            Verdict::Violated(violation) => match check(history, limits) {
                Verdict::Violated(plain) => Verdict::Violated(plain),
                _ => Verdict::Violated(violation),
            },
            verdict => verdict,
        },
        Ok(None) => check(history, limits),
    }
}

fn decide<'h>(history: &'h History, calls: &[StoreCall<'h>], limits: Limits) -> Verdict {
    if let Some(operation) = history
        .operations
        .iter()
        .find(|operation| operation.returned.is_some_and(|returned| returned < operation.called))
    {
        let violation = Violation::new(PROPERTY, "an operation returned before it was called");
        return Verdict::Violated(violation.with_window(vec![operation.to_string()]));
    }
    if let Some(conflict) = order::check(calls) {
        return violated(history, calls, &conflict);
    }
    let evidence = Evidence::of(calls);
    match replay::check(calls, &evidence) {
        Some(Ok(())) => return Verdict::Holds,
        Some(Err(conflict)) => return violated(history, calls, &conflict),
        None => {}
    }
    match search(&mut Kv::new(evidence), calls, limits) {
        Found::Order(_) => Verdict::Holds,
        Found::Undecided { steps, states } => Verdict::Undecided(format!(
            "{} operations, {} of them of unknown outcome: {steps} steps and {states} states were not enough",
            calls.len(),
            calls.iter().filter(|call| !call.is_certain).count()
        )),
        Found::Nothing { steps, .. } => explain(history, calls, steps, limits),
    }
}

fn violated(history: &History, calls: &[StoreCall<'_>], conflict: &Conflict) -> Verdict {
    let core: Vec<&StoreCall<'_>> = conflict.calls.iter().map(|position| &calls[*position]).collect();
    let lines = window::lines(history, calls, &core);
    Verdict::Violated(Violation::new(PROPERTY, &conflict.reason).with_window(lines))
}

/// Makes a history that has no order as small as it stays without one, at the cost of some more searches.
fn explain(history: &History, calls: &[StoreCall<'_>], steps: u64, limits: Limits) -> Verdict {
    // A part is easier to judge than the whole; what is not gives up.
    let each = Limits { steps_max: steps.saturating_mul(2).max(PART_STEPS).min(limits.steps_max), ..limits };
    let mut left = limits.steps_max;
    let mut is_wrong = |calls: &[StoreCall<'_>]| {
        let limits = Limits { steps_max: each.steps_max.min(left), ..each };
        let (found, steps) = match search(&mut Kv::new(Evidence::of(calls)), calls, limits) {
            Found::Nothing { steps, .. } => (true, steps),
            Found::Undecided { steps, .. } => (false, steps),
            // About: it went straight on.
            Found::Order(order) => (false, 4 * order.len() as u64),
        };
        left = left.saturating_sub(steps);
        found
    };
    // The moment from which on it is wrong, then the operations that make it so.
    let mut returns: Vec<Moment> = calls.iter().filter_map(|call| call.returned).collect();
    returns.sort_unstable();
    returns.dedup();
    let first = returns.partition_point(|at| !is_wrong(&window::known_at(calls, *at)));
    let known = returns.get(first).map_or_else(|| calls.to_vec(), |at| window::known_at(calls, *at));
    let small = window::minimize(&known, window::weaken, &mut is_wrong, TRIALS_MAX);
    let bare: Vec<StoreCall<'_>> = small.iter().map(|(call, _)| call.clone()).collect();
    let (reason, stuck) = match search(&mut Kv::new(Evidence::of(&bare)), &bare, limits) {
        Found::Nothing { longest, stuck, .. } => (reason(&bare, &longest, &bare[stuck]), Some(&bare[stuck])),
        _ => ("no order of these operations explains their answers".to_owned(), None),
    };
    let strong = small.iter().filter(|(call, is_strong)| *is_strong && call.is_certain).map(|(call, _)| call);
    let core: Vec<&StoreCall<'_>> = strong.chain(stuck).collect();
    Verdict::Violated(Violation::new(PROPERTY, reason).with_window(window::lines(history, calls, &core)))
}

/// What the store says, behind the longest order that was found, to the operation that fits nowhere.
fn reason(calls: &[StoreCall<'_>], longest: &[usize], stuck: &StoreCall<'_>) -> String {
    let mut store = Store::new();
    for position in longest {
        // Each of them was answered right in this order.
        let _ = store.run(&calls[*position].op.request);
    }
    let told = match stuck.op.expected {
        Expected::Reply(told) => format!("the answer {told}"),
        Expected::Refused(refusal) => format!("the refusal {refusal:?}"),
        Expected::Anything => "its revision".to_owned(),
    };
    let revision = store.revision();
    let says = match store.run(&stuck.op.request) {
        Ok(reply) => format!("would say {reply}"),
        Err(refusal) => format!("would refuse: {refusal:?}"),
    };
    format!(
        "no order gives {} {told}; the nearest one stands at revision {revision} then and {says}",
        stuck.op.request
    )
}

#[cfg(test)]
mod tests;
