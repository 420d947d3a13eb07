//! What happened, revision by revision: the measure for watches, for reads of one member's own state, and for whether what
//! was acknowledged is there.

use std::collections::{BTreeMap, BTreeSet};

use harmony_types::Event;

use super::Violation;
use super::calls::{Evidence, Expected, Place, StoreCall, StoreOp, calls};
use super::kv::is_answer;
use super::order::{self, by_revision};
use super::store::Store;
use super::window;
use crate::history::{History, Moment, Request};

/// All events of a store from revision 2 on, whole.
#[derive(Debug)]
pub struct Log {
    /// With what each event replaced.
    revisions: BTreeMap<i64, Vec<Event>>,
    store: Store,
}

impl Log {
    /// The log that a member's history of events tells, read from the first revision on, before any compaction took some away.
    ///
    /// # Errors
    /// The first revision that is missing, or that no store can have written.
    pub fn from_events(events: impl IntoIterator<Item = Event>) -> Result<Self, Violation> {
        let wrong = |revision: i64, reason: String| {
            Violation::new("a log of events", format!("at revision {revision}: {reason}"))
        };
        let mut log = Self { revisions: BTreeMap::new(), store: Store::with_every_lease() };
        let mut by_revision: BTreeMap<i64, Vec<Event>> = BTreeMap::new();
        let mut newest = 0;
        for event in events {
            let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            if revision < newest {
                return Err(wrong(revision, format!("it stands behind revision {newest}")));
            }
            newest = revision;
            by_revision.entry(revision).or_default().push(event);
        }
        for (revision, events) in by_revision {
            let expected = log.store.revision() + 1;
            if revision != expected {
                return Err(wrong(
                    expected,
                    format!("nothing happened, the next event is of revision {revision}"),
                ));
            }
            let mark = log.store.mark();
            log.store.write_events(&events).map_err(|reason| wrong(revision, reason))?;
            log.revisions.insert(revision, log.store.events_since(mark));
        }
        Ok(log)
    }

    /// The log that the acknowledged writes tell, where each revision was acknowledged.
    ///
    /// # Errors
    /// A revision that nobody acknowledged, so that the log has to come from a member; or an answer that contradicts the others.
    pub fn of_history(history: &History) -> Result<Self, Violation> {
        let calls = calls(history);
        let slots = by_revision(&calls);
        let last = slots.last().map_or(1, |((revision, _), _)| *revision);
        if let Some(hole) = Evidence::of(&calls).first_hole(last) {
            return Err(Violation::new(
                "a log of events",
                format!("revision {hole} was acknowledged by nobody"),
            ));
        }
        let mut store = Store::with_every_lease();
        let mut events = Vec::new();
        for (_, position) in slots {
            let mark = store.mark();
            if let Err(refusal) = store.run(&calls[position].op.request) {
                return Err(Violation::new(
                    "a log of events",
                    format!("a write that is refused: {refusal:?}"),
                )
                .with_window(window::lines(history, &calls, &[&calls[position]])));
            }
            events.extend(store.events_since(mark));
        }
        Self::from_events(events)
    }

    /// The newest revision.
    #[must_use]
    pub const fn last(&self) -> i64 {
        self.store.revision()
    }

    /// What happened at a revision, with what each event replaced.
    #[must_use]
    pub fn at(&self, revision: i64) -> &[Event] {
        self.revisions.get(&revision).map_or(&[], Vec::as_slice)
    }

    /// All events from a revision on.
    pub fn from(&self, first: i64) -> impl Iterator<Item = &Event> {
        self.revisions.range(first..).flat_map(|(_, events)| events)
    }

    pub(crate) const fn store(&self) -> &Store {
        &self.store
    }
}

/// When each revision was asked for, as far as that was acknowledged: nobody can see it before.
pub(crate) fn called_at(history: &History) -> BTreeMap<i64, Moment> {
    let of = |call: &StoreCall<'_>| match call.op.place {
        Place::Write(revision) => Some((revision, call.called)),
        _ => None,
    };
    calls(history).iter().filter_map(of).collect()
}

/// The name of the property that [`check`] is about.
const PROPERTY: &str = "as acknowledged";

/// Checks that what was acknowledged is in the log, each write at its revision and with its effects, that every linearizable
/// read saw the log's state at its revision, and that the log has nothing that nobody can have asked for.
///
/// Decides in about `n log n` whatever operations have unknown outcomes, as the log tells what became of them. Answers without a
/// revision and refusals are left to [`super::linearizable`], and so is whether one unknown operation took effect twice.
///
/// # Errors
/// The first operation or revision where they contradict each other.
pub fn check(history: &History, log: &Log) -> Result<(), Violation> {
    agree(history, log).map(|_| ())
}

/// As [`check`]; the calls with what the log tells of those of unknown outcome: whichever wrote a revision is certain, and none that
/// wrote nothing is there. `None`: the log leaves open which one it was in a way that matters (one of them seems to have taken effect
/// twice, or it was the end of a lease or somebody's delete), and only a search tells.
pub(crate) fn agree<'h>(history: &'h History, log: &Log) -> Result<Option<Vec<StoreCall<'h>>>, Violation> {
    let mut calls = calls(history);
    let violation = |reason: String, calls: &[StoreCall<'_>], core: &[&StoreCall<'_>]| {
        Violation::new(PROPERTY, reason).with_window(window::lines(history, calls, core))
    };
    let mut store = Store::with_every_lease();
    let mut slots = by_revision(&calls).into_iter().peekable();
    let mut unowned = Vec::new();
    let mut is_clear = true;
    for revision in 1..=log.last() {
        let events = log.at(revision);
        let mut is_owned = revision == 1;
        while let Some((_, position)) = slots.next_if(|(slot, _)| *slot == (revision, false)) {
            is_owned = true;
            let call = &calls[position];
            compare(&mut store, call, Some(events)).map_err(|reason| violation(reason, &calls, &[call]))?;
        }
        if !is_owned {
            let reason =
                || format!("nobody can have asked for what happened at revision {revision}: {events:?}");
            let cause = cause(&mut store, &calls, revision, events)
                .ok_or_else(|| Violation::new(PROPERTY, reason()))?;
            let (cause, is_alone) = cause;
            is_clear &= is_alone;
            unowned.push(StoreCall { op: StoreOp { place: Place::Write(revision), ..cause.op }, ..cause });
        }
        if revision > 1 {
            store.write_events(events).expect("the log was written to a store before");
        }
        while let Some((_, position)) = slots.next_if(|(slot, _)| *slot == (revision, true)) {
            let call = &calls[position];
            compare(&mut store, call, None).map_err(|reason| violation(reason, &calls, &[call]))?;
        }
    }
    if let Some(((revision, _), position)) = slots.next() {
        let reason = format!("revision {revision} is not in the log, which ends at {}", log.last());
        return Err(violation(reason, &calls, &[&calls[position]]));
    }
    let causes: BTreeSet<(usize, bool)> = unowned.iter().map(cause_of).collect();
    is_clear &= causes.len() == unowned.len();
    calls.extend(unowned);
    let Some(conflict) = order::check(&calls) else {
        // Leases and compactions leave no trace in the log, or may leave none.
        calls.retain(|call| {
            let is_told = causes.contains(&cause_of(call));
            match call.op.place {
                Place::Either(_) => !is_told,
                Place::Anywhere if !call.is_certain => !is_told && !call.op.writes_or_does_nothing(),
                _ => true,
            }
        });
        return Ok(is_clear.then_some(calls));
    };
    let core: Vec<_> = conflict.calls.iter().map(|position| &calls[*position]).collect();
    Err(violation(conflict.reason, &calls, &core))
}

/// Compares an answer with what the store says, and what it wrote with what the log has.
///
/// # Errors
/// The difference.
fn compare(store: &mut Store, call: &StoreCall<'_>, log: Option<&[Event]>) -> Result<(), String> {
    let mark = store.mark();
    let reply = store.run(&call.op.request);
    let events = store.events_since(mark);
    store.undo(mark);
    match (call.op.expected, reply) {
        (Expected::Reply(told), Ok(reply)) if !is_answer(told, &reply) => {
            return Err(format!("the answer is {told}, but with the log's state it would be {reply}"));
        }
        // A lease may be there already, and a revision compacted: neither is in the log.
        (_, Err(_)) if matches!(*call.op.request, Request::Compact(_) | Request::LeaseGrant(_)) => {}
        (_, Err(refusal)) => return Err(format!("with the log's state it would be refused: {refusal:?}")),
        _ => {}
    }
    match log {
        Some(log) if events != log => Err(format!("the log has something else at its revision: {log:?}")),
        _ => Ok(()),
    }
}

/// Which operation it is; the end of a lease has the place of its grant.
fn cause_of(call: &StoreCall<'_>) -> (usize, bool) {
    (call.op.position, matches!(*call.op.request, Request::LeaseRevoke(_)))
}

/// The operation of unknown outcome (or the end of a lease) that was called first among those that do in this state what
/// happened; and whether all of those end leases, or none does.
fn cause<'h>(
    store: &mut Store,
    calls: &[StoreCall<'h>],
    revision: i64,
    happened: &[Event],
) -> Option<(StoreCall<'h>, bool)> {
    let mark = store.mark();
    let mut does_it = |call: &&StoreCall<'h>| {
        let is_done = store.run(&call.op.request).is_ok() && store.events_since(mark) == happened;
        store.undo(mark);
        is_done
    };
    let open = calls.iter().filter(|call| {
        (call.op.place == Place::Anywhere || call.op.place == Place::Either(revision))
            && !matches!(call.op.expected, Expected::Refused(_))
    });
    let all: Vec<&StoreCall<'h>> = open.filter(|call| does_it(call)).collect();
    // One that was answered with this revision, for certain; else whichever may have come first.
    let first = all.iter().min_by_key(|call| (call.op.place == Place::Anywhere, call.called))?;
    let is_alone = all.iter().all(|call| cause_of(call).1 == cause_of(first).1);
    let call = StoreCall { is_certain: true, ..StoreCall::clone(first) };
    Some((call, is_alone))
}

#[cfg(test)]
mod tests;
