//! The newest events, once for all who watch: whole revisions without a gap, bounded in bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use harmony_types::history::EVENT_OVERHEAD_BYTES;
use harmony_types::{Event, KeyValue, Revision};

/// Memory that an event takes, about.
pub(super) fn bytes_of(event: &Event) -> u64 {
    let of = |kv: &Option<KeyValue>| kv.as_ref().map_or(0, |kv| (kv.key.len() + kv.value.len()) as u64);
    EVENT_OVERHEAD_BYTES + of(&event.kv) + of(&event.prev_kv)
}

/// The revision of an event.
pub(super) fn revision_of(event: &Event) -> Revision {
    Revision(event.kv.as_ref().map_or(0, |kv| u64::try_from(kv.mod_revision).unwrap_or(0)))
}

/// See the module.
///
/// Invariant: it holds every revision of `first..next`, each with at least one event.
#[derive(Debug)]
pub(super) struct Ring {
    first: Revision,
    revisions: VecDeque<Box<[Arc<Event>]>>,
    bytes: u64,
    bytes_max: u64,
}

impl Ring {
    /// Empty, to begin at `next`.
    pub(super) fn new(next: Revision, bytes_max: u64) -> Self {
        Self { first: next, revisions: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// The first revision that it holds.
    pub(super) fn first(&self) -> Revision {
        self.first
    }

    /// The first revision that it does not hold yet.
    pub(super) fn next(&self) -> Revision {
        Revision(self.first.0 + self.revisions.len() as u64)
    }

    /// Memory that it takes, about.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The events of a revision that it holds.
    pub(super) fn get(&self, revision: Revision) -> Option<&[Arc<Event>]> {
        let slot = usize::try_from(revision.0.checked_sub(self.first.0)?).ok()?;
        self.revisions.get(slot).map(|events| &**events)
    }

    /// Takes the next revision, and drops the oldest ones for which there is no more room.
    pub(super) fn push(&mut self, events: Vec<Arc<Event>>) {
        self.bytes += events.iter().map(|event| bytes_of(event)).sum::<u64>();
        self.revisions.push_back(events.into_boxed_slice());
        while self.bytes_max < self.bytes
            && let Some(oldest) = self.revisions.pop_front()
        {
            self.first = self.first.next();
            self.bytes -= oldest.iter().map(|event| bytes_of(event)).sum::<u64>();
        }
    }

    /// Drops everything and goes on at `next`.
    pub(super) fn restart(&mut self, next: Revision) {
        *self = Self::new(next, self.bytes_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(revision: u64, bytes: usize) -> Arc<Event> {
        let kv = KeyValue {
            key: "k".into(),
            mod_revision: revision.cast_signed(),
            value: vec![0; bytes].into(),
            ..KeyValue::default()
        };
        Arc::new(Event { event_type: 0, kv: Some(kv), prev_kv: None })
    }

    #[test]
    fn it_keeps_the_newest_revisions_within_its_bytes() {
        let each = bytes_of(&event(0, 100));
        let mut ring = Ring::new(Revision(5), 3 * each);
        for revision in 5..10 {
            ring.push(vec![event(revision, 100)]);
        }
        assert_eq!((ring.first(), ring.next(), ring.bytes()), (Revision(7), Revision(10), 3 * each));
        assert!(ring.get(Revision(6)).is_none() && ring.get(Revision(10)).is_none());
        assert_eq!(ring.get(Revision(9)).map(|events| revision_of(&events[0])), Some(Revision(9)));
    }

    #[test]
    fn a_revision_larger_than_all_of_it_is_passed_over() {
        let mut ring = Ring::new(Revision(2), 1_000);
        ring.push(vec![event(2, 10)]);
        ring.push(vec![event(3, 5_000)]);
        assert_eq!((ring.first(), ring.next(), ring.bytes()), (Revision(4), Revision(4), 0));
        ring.restart(Revision(9));
        assert_eq!((ring.first(), ring.next()), (Revision(9), Revision(9)));
    }
}
