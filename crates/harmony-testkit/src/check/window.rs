//! The smallest part of a history that is wrong.
//!
//! A part stays honest by weakening, never by leaving out what counts: a read is dropped; a write keeps its effect and loses
//! what its answer and its times said. If the weakened history is wrong, so is the whole one, and what is left at full
//! strength contradicts itself.

use super::calls::{Expected, Place, StoreCall};
use crate::history::{History, Moment};

/// Makes `items` weaker, many at once and then fewer, as long as they stay wrong. `weaken` returns `None` for an item to drop.
/// Returns what is left, and for each whether it kept its strength.
pub(crate) fn minimize<T: Clone>(
    items: &[T],
    weaken: impl Fn(&T) -> Option<T>,
    mut is_wrong: impl FnMut(&[T]) -> bool,
    trials_max: usize,
) -> Vec<(T, bool)> {
    let mut kept: Vec<(T, bool)> = items.iter().map(|item| (item.clone(), true)).collect();
    let mut trials = 0;
    let mut chunk = items.len().div_ceil(2);
    while chunk > 0 {
        // From the end: what came last is needed least, but for the very last ones.
        let mut end = kept.len();
        while end > 0 && trials < trials_max {
            let start = end.saturating_sub(chunk);
            if kept[start..end].iter().any(|(_, is_strong)| *is_strong) {
                trials += 1;
                let middle = kept[start..end].iter().filter_map(|(item, is_strong)| {
                    if *is_strong {
                        weaken(item).map(|item| (item, false))
                    } else {
                        Some((item.clone(), false))
                    }
                });
                let trial: Vec<(T, bool)> =
                    kept[..start].iter().cloned().chain(middle).chain(kept[end..].iter().cloned()).collect();
                let bare: Vec<T> = trial.iter().map(|(item, _)| item.clone()).collect();
                if is_wrong(&bare) {
                    kept = trial;
                }
            }
            end = start;
        }
        chunk = if chunk == 1 { 0 } else { chunk.div_ceil(2) };
    }
    kept
}

/// The call without its answer and its times: it took effect, at its revision if that is known.
pub(crate) fn weaken<'h>(call: &StoreCall<'h>) -> Option<StoreCall<'h>> {
    if !call.op.request.can_change() || matches!(call.op.expected, Expected::Refused(_)) {
        return None;
    }
    let mut weaker = call.clone();
    weaker.op.expected = Expected::Anything;
    match call.op.place {
        Place::Write(_) => {
            weaker.called = Moment(0);
            weaker.returned = None;
        }
        // It changed nothing at its place, so all it has is its answer.
        Place::Behind(_) if call.op.writes_or_does_nothing() => return None,
        Place::Behind(_) | Place::Either(_) | Place::Anywhere => {
            weaker.op.place = Place::Anywhere;
            weaker.called = Moment(0);
            weaker.returned = None;
            weaker.is_certain = false;
        }
    }
    Some(weaker)
}

/// All that was known at a moment: what was not called yet is left out, and what had not returned is unknown.
pub(crate) fn known_at<'h>(calls: &[StoreCall<'h>], at: Moment) -> Vec<StoreCall<'h>> {
    let known = calls.iter().filter(|call| call.called <= at).filter_map(|call| {
        if !call.is_certain || call.returned.is_some_and(|returned| returned <= at) {
            return Some(call.clone());
        }
        let mut pending = call.clone();
        pending.op.expected = Expected::Anything;
        pending.op.place = Place::Anywhere;
        pending.returned = None;
        pending.is_certain = false;
        (call.op.request.can_change() && !matches!(call.op.expected, Expected::Refused(_))).then_some(pending)
    });
    known.collect()
}

/// Other operations that are shown beside the contradiction.
const BESIDE_MAX: usize = 12;

/// The lines to print: the operations of the contradiction, and those that wrote to its keys or may have.
pub(crate) fn lines(history: &History, calls: &[StoreCall<'_>], core: &[&StoreCall<'_>]) -> Vec<String> {
    let mut keys: Vec<_> = core.iter().flat_map(|call| call.op.keys()).collect();
    keys.sort_by(|a, b| (&a.key, &a.end).cmp(&(&b.key, &b.end)));
    keys.dedup();
    let is_core = |call: &StoreCall<'_>| core.iter().any(|one| one.op.position == call.op.position);
    let touches = |call: &StoreCall<'_>| {
        let own = call.op.keys();
        own.iter().any(|a| keys.iter().any(|b| a.contains(&b.key) || b.contains(&a.key)))
    };
    let newest = core.iter().filter_map(|call| history.operations[call.op.position].revision()).max();
    let mut beside: Vec<usize> = calls
        .iter()
        .filter(|call| call.op.request.can_change() && !is_core(call) && touches(call))
        .map(|call| call.op.position)
        .filter(|position| {
            let revision = history.operations[*position].revision();
            revision.is_none_or(|revision| newest.is_none_or(|newest| revision <= newest))
        })
        .collect();
    // The newest ones tell most.
    beside.sort_by_key(|position| {
        let operation = &history.operations[*position];
        (operation.revision(), operation.called, *position)
    });
    beside.dedup();
    let left_out = beside.len().saturating_sub(BESIDE_MAX);
    let mut shown: Vec<(usize, bool)> =
        beside.split_off(left_out).into_iter().map(|one| (one, false)).collect();
    shown.extend(core.iter().map(|call| (call.op.position, true)));
    shown.sort_by_key(|(position, is_core)| (history.operations[*position].called, !is_core, *position));
    shown.dedup_by_key(|(position, _)| *position);
    let mut lines: Vec<String> = Vec::with_capacity(shown.len() + 1);
    if left_out > 0 {
        lines.push(format!("  ({left_out} older writes to these keys)"));
    }
    lines.extend(shown.into_iter().map(|(position, is_core)| {
        format!("{} {}", if is_core { ">" } else { " " }, history.operations[position])
    }));
    lines
}
