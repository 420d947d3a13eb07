//! The order that revisions say against the order that time says: necessary for every history, checked by sorting.

use super::calls::{Place, StoreCall};

/// Operations that contradict each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) reason: String,
    /// Places in the list of calls.
    pub(crate) calls: Vec<usize>,
}

/// All calls whose place among the writes is known, by that place: a write first, then what came behind it.
pub(crate) fn by_revision(calls: &[StoreCall<'_>]) -> Vec<((i64, bool), usize)> {
    let mut slots: Vec<((i64, bool), usize)> = calls
        .iter()
        .enumerate()
        .filter_map(|(position, call)| match call.op.place {
            Place::Write(revision) => Some(((revision, false), position)),
            Place::Behind(revision) => Some(((revision, true), position)),
            Place::Either(_) | Place::Anywhere => None,
        })
        .collect();
    slots.sort_unstable();
    slots
}

/// Two writes at one revision, or an operation that returned before another one was called and yet stands behind it.
pub(crate) fn check(calls: &[StoreCall<'_>]) -> Option<Conflict> {
    let slots = by_revision(calls);
    for pair in slots.windows(2) {
        let ((revision, is_behind), first) = pair[0];
        if pair[1].0 == (revision, false) && !is_behind {
            let reason = format!("two writes were acknowledged at revision {revision}");
            return Some(Conflict { reason, calls: vec![first, pair[1].1] });
        }
    }
    // The call that came last among those of earlier slots.
    let mut last: Option<usize> = None;
    for slot in slots.chunk_by(|a, b| a.0 == b.0) {
        for &((revision, _), position) in slot {
            let Some(earlier) = last else { break };
            if calls[position].returned.is_some_and(|returned| returned < calls[earlier].called) {
                let reason = format!(
                    "an answer of revision {revision} came before an operation was called that has its place at a lower one"
                );
                return Some(Conflict { reason, calls: vec![position, earlier] });
            }
        }
        let latest = slot.iter().map(|(_, position)| *position).chain(last);
        last = latest.max_by_key(|position| calls[*position].called);
    }
    None
}
