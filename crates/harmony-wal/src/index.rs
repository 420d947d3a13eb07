//! Where each entry stands: 12 bytes of memory an entry, and the terms by runs.

use std::collections::VecDeque;

use harmony_types::{LogBounds, LogIndex, Term, WalError, WalOffset};

use crate::blocks::Blocks;

/// Entries that share one block of memory, 48 KiB.
const BLOCK_ENTRIES: usize = 4096;

/// No entry, boundary or snapshot has this index or a larger one: the place behind the last entry has a number, too.
pub(crate) const INDEX_END: LogIndex = LogIndex(u64::MAX);

/// Where an entry's frame stands and how long its payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) offset: WalOffset,
    pub(crate) payload_bytes: u32,
}

/// A slot as it is kept: in halves, so that no memory goes to alignment.
#[derive(Clone, Copy, Debug)]
struct Place {
    segment: u32,
    byte: u32,
    payload_bytes: u32,
}

const _: () = assert!(size_of::<Place>() == 12);

impl Place {
    fn new(slot: Slot) -> Self {
        let Slot { offset, payload_bytes } = slot;
        Self { segment: offset.segment(), byte: offset.byte(), payload_bytes }
    }

    fn slot(&self) -> Slot {
        Slot { offset: WalOffset::new(self.segment, self.byte), payload_bytes: self.payload_bytes }
    }
}

/// The live entries of the log. Invariants: one place for each index in `boundary+1..=last`, in the order of the log; the
/// runs of terms cover `boundary..=last`, ascending in index and term.
#[derive(Debug)]
pub(crate) struct Index {
    boundary: LogIndex,
    places: Blocks<Place, BLOCK_ENTRIES>,
    /// (first index, term) of each run; the first one starts at the boundary or before.
    terms: VecDeque<(LogIndex, Term)>,
}

impl Index {
    /// An empty log behind `boundary`.
    pub(crate) fn new(boundary: LogIndex, term: Term) -> Self {
        Self { boundary, places: Blocks::new(), terms: VecDeque::from([(boundary, term)]) }
    }

    pub(crate) fn bounds(&self) -> LogBounds {
        LogBounds { boundary: self.boundary, boundary_term: self.terms[0].1, last: self.last() }
    }

    pub(crate) fn last(&self) -> LogIndex {
        LogIndex(self.boundary.0 + self.places.len() as u64)
    }

    pub(crate) fn last_term(&self) -> Term {
        self.terms.back().expect("the boundary has a term").1
    }

    /// Term at `index`; `None` outside of `boundary..=last`.
    pub(crate) fn term(&self, index: LogIndex) -> Option<Term> {
        if index < self.boundary || self.last() < index {
            return None;
        }
        let run = self.terms.partition_point(|(first, _)| *first <= index);
        Some(self.terms[run.max(1) - 1].1)
    }

    /// Where the entry at `index` stands; `None` outside of `boundary+1..=last`.
    pub(crate) fn slot(&self, index: LogIndex) -> Option<Slot> {
        let position = index.0.checked_sub(self.boundary.0 + 1)?;
        self.places.get(usize::try_from(position).ok()?).map(Place::slot)
    }

    /// Last entry whose frame stands before `offset`, or the boundary.
    pub(crate) fn last_before(&self, offset: WalOffset) -> LogIndex {
        let before = |place: &Place| place.slot().offset < offset;
        LogIndex(self.boundary.0 + self.places.partition_point(before) as u64)
    }

    /// Whether an entry may stand at `index` with `term`: no gap, nothing below the boundary, no step back in term.
    pub(crate) fn check_entry(&self, index: LogIndex, term: Term) -> Result<(), WalError> {
        let reason = if index <= self.boundary {
            "an entry at or below the boundary cannot be replaced"
        } else if index == INDEX_END {
            "it is the largest number, and the place behind the last entry needs one"
        } else if self.last().next() < index {
            "an entry there would leave a gap"
        } else if self.term(index.prev()).is_some_and(|before| term < before) {
            "its term is below that of the entry before it"
        } else {
            return Ok(());
        };
        Err(WalError::InvalidIndex { index, bounds: self.bounds(), reason })
    }

    /// Adds the entry behind the last one.
    pub(crate) fn push(&mut self, index: LogIndex, term: Term, slot: Slot) {
        assert_eq!(index, self.last().next(), "an entry out of order");
        if self.last_term() != term {
            self.terms.push_back((index, term));
        }
        self.places.push(Place::new(slot));
    }

    /// Drops the entries from `from` on. At or below the boundary, the boundary steps back to `from - 1` with `term`.
    pub(crate) fn truncate(&mut self, from: LogIndex, term_before: Term) {
        if from <= self.boundary {
            *self = Self::new(from.prev(), term_before);
            return;
        }
        self.places.truncate(usize::try_from(from.0 - self.boundary.0 - 1).unwrap_or(usize::MAX));
        while self.terms.back().is_some_and(|(first, _)| from <= *first) && 1 < self.terms.len() {
            self.terms.pop_back();
        }
    }

    /// Moves the boundary up to `to`, an entry that is held; lower ones change nothing.
    pub(crate) fn advance_boundary(&mut self, to: LogIndex) {
        assert!(to <= self.last(), "boundary {to} behind the last entry {}", self.last());
        if to <= self.boundary {
            return;
        }
        self.places.drop_first(usize::try_from(to.0 - self.boundary.0).expect("at most the number of slots"));
        self.boundary = to;
        while self.terms.get(1).is_some_and(|(first, _)| *first <= to) {
            self.terms.pop_front();
        }
    }

    /// A snapshot at (`index`, `term`) replaced what was before it; see `RecordType::Snapshot`. Below the boundary it
    /// changes nothing: the writer truncates first where the log does not hold it.
    pub(crate) fn snapshot(&mut self, index: LogIndex, term: Term) {
        if index < self.boundary {
            return;
        }
        if self.term(index) == Some(term) {
            self.advance_boundary(index);
        } else {
            *self = Self::new(index, term);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(terms: &[u64]) -> Index {
        let mut index = Index::new(LogIndex(10), Term(1));
        for (slot, term) in terms.iter().enumerate() {
            let offset = WalOffset::new(1, u32::try_from(slot).unwrap() * 64);
            index.push(index.last().next(), Term(*term), Slot { offset, payload_bytes: 1 });
        }
        index
    }

    fn terms(index: &Index) -> Vec<u64> {
        let bounds = index.bounds();
        (bounds.boundary.0..=bounds.last.0).map(|at| index.term(LogIndex(at)).unwrap().0).collect()
    }

    #[test]
    fn terms_are_found_by_runs() {
        let index = filled(&[1, 1, 2, 5, 5]);
        assert_eq!(terms(&index), [1, 1, 1, 2, 5, 5]);
        assert_eq!((index.term(LogIndex(9)), index.term(LogIndex(16))), (None, None));
        assert_eq!((index.slot(LogIndex(10)), index.slot(LogIndex(16))), (None, None));
        assert_eq!(index.slot(LogIndex(12)).unwrap().offset, WalOffset::new(1, 64));
        assert_eq!(index.last_before(WalOffset::new(1, 65)), LogIndex(12));
    }

    #[test]
    fn both_ends_move() {
        let mut index = filled(&[1, 1, 2, 5, 5]);
        index.truncate(LogIndex(14), Term(2));
        assert_eq!(terms(&index), [1, 1, 1, 2]);
        index.advance_boundary(LogIndex(12));
        assert_eq!((index.bounds().boundary, terms(&index)), (LogIndex(12), vec![1, 2]));
        index.advance_boundary(LogIndex(13));
        assert_eq!((index.bounds().boundary_term, terms(&index)), (Term(2), vec![2]));
        index.truncate(LogIndex(8), Term(1));
        assert_eq!((index.bounds().boundary, terms(&index)), (LogIndex(7), vec![1]));
    }

    #[test]
    fn a_snapshot_keeps_what_follows_it_only_if_it_is_held() {
        let mut held = filled(&[1, 1, 2, 5, 5]);
        held.snapshot(LogIndex(13), Term(2));
        assert_eq!((held.bounds().boundary, held.last()), (LogIndex(13), LogIndex(15)));
        held.snapshot(LogIndex(12), Term(9));
        assert_eq!(held.bounds().boundary, LogIndex(13), "below the boundary");
        let mut other = filled(&[1, 1, 2]);
        other.snapshot(LogIndex(12), Term(7));
        assert_eq!(
            (other.bounds().boundary, other.last(), other.last_term()),
            (LogIndex(12), LogIndex(12), Term(7))
        );
    }

    #[test]
    fn entries_out_of_place_are_refused() {
        let index = filled(&[1, 2]);
        index.check_entry(LogIndex(11), Term(1)).unwrap();
        index.check_entry(LogIndex(13), Term(2)).unwrap();
        for (at, term) in [(10, 2), (14, 2), (13, 1), (0, 9)] {
            let error = index.check_entry(LogIndex(at), Term(term)).unwrap_err();
            assert!(matches!(error, WalError::InvalidIndex { .. }), "{error}");
        }
    }
}
