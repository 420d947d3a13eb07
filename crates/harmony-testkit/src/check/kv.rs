//! etcd's store as a [`Model`] for the search. The revision in an answer says where its operation stands among the writes, so
//! that the search has a choice only where an operation of unknown outcome may have taken a revision that nobody acknowledged,
//! and among changes that take none (leases, compactions).

use std::cmp::Ordering;

use super::calls::{Evidence, Expected, Place, StoreOp};
use super::search::{Model, Step};
use super::store::{Mark, Store};
use crate::history::Reply;

/// A store, and what is known of its history.
pub(crate) struct Kv<'h> {
    store: Store,
    evidence: Evidence,
    /// Where the store stood before each step that changed it.
    marks: Vec<Mark>,
    history: std::marker::PhantomData<&'h ()>,
}

impl Kv<'_> {
    /// An empty store.
    pub(crate) const fn new(evidence: Evidence) -> Self {
        Self { store: Store::new(), evidence, marks: Vec::new(), history: std::marker::PhantomData }
    }

    /// Whether a write may take the next revision, as far as answers tell.
    fn may_have_written(&self, since: Mark) -> bool {
        let revision = self.store.revision();
        !self.evidence.is_owned(revision)
            && self.store.written(since).all(|key| !self.evidence.is_quiet(key, revision))
            && self.evidence.shown_at(revision).all(|(key, value)| {
                let kv = self.store.get(key, revision).filter(|kv| kv.mod_revision == revision);
                kv.is_some_and(|kv| value.is_empty() || kv.value == value)
            })
    }
}

impl<'h> Model for Kv<'h> {
    type Op = StoreOp<'h>;

    fn step(&mut self, op: &StoreOp<'h>) -> Step {
        let before = self.store.revision();
        match op.place {
            Place::Write(revision) if before + 1 != revision => return later_or_never(before + 1, revision),
            Place::Behind(revision) if before != revision => return later_or_never(before, revision),
            Place::Either(revision) if before + 1 != revision && before != revision => {
                return later_or_never(before, revision);
            }
            Place::Anywhere
                if matches!(op.expected, Expected::Anything)
                    && op.writes_or_does_nothing()
                    && self.evidence.is_owned(before + 1) =>
            {
                return Step::NotNow;
            }
            _ => {}
        }
        let mark = self.store.mark();
        let reply = self.store.run(&op.request);
        let has_written = self.store.revision() != before;
        let is_right = match (op.expected, &reply) {
            (Expected::Reply(told), Ok(reply)) => is_answer(told, reply),
            (Expected::Refused(told), Err(refusal)) => told == *refusal,
            (Expected::Anything, Ok(_)) => true,
            _ => false,
        };
        let is_in_place = match op.place {
            Place::Write(_) => has_written,
            Place::Behind(_) => !has_written,
            Place::Either(revision) => {
                self.store.revision() == revision && (!has_written || self.may_have_written(mark))
            }
            Place::Anywhere => !has_written || self.may_have_written(mark),
        };
        if !is_right || !is_in_place {
            self.store.undo(mark);
            return Step::NotNow;
        }
        if !self.store.has_changed(mark) {
            // Its answer says that it wrote nothing, so it writes nothing wherever it is answered so.
            return Step::Unchanged;
        }
        self.marks.push(mark);
        Step::Changed
    }

    fn undo(&mut self) {
        let mark = self.marks.pop().expect("every undo follows a change");
        self.store.undo(mark);
    }

    fn fingerprint(&self) -> u128 {
        self.store.fingerprint()
    }
}

/// For an operation whose place the store has not reached, or has passed.
fn later_or_never(now: i64, place: i64) -> Step {
    if now.cmp(&place) == Ordering::Less { Step::NotNow } else { Step::Never }
}

/// Whether an answer is the one that the store gives. A cluster may grant more than was asked for.
pub(crate) fn is_answer(told: &Reply, right: &Reply) -> bool {
    match (told, right) {
        (Reply::LeaseGrant { .. }, Reply::LeaseGrant { .. }) => true,
        _ => told == right,
    }
}
