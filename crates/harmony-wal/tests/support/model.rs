//! What a log must hold, as the meaning of its records says it: a second, simple implementation to compare with.

#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of the functions that clippy exempts")]

use bytes::Bytes;
use harmony_types::{
    Entry, EntryType, HardState, LogBounds, LogIndex, NodeId, RecordType, Term, Wal, WalError, WalRecord,
};

/// What a log holds, as its readers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) bounds: LogBounds,
    pub(crate) entries: Vec<Entry>,
    pub(crate) hard_state: HardState,
}

impl Held {
    pub(crate) fn of(wal: &dyn Wal) -> Self {
        let bounds = wal.bounds();
        let entries = wal.entries(bounds.first()..bounds.last.next(), u64::MAX).unwrap();
        Self { bounds, entries, hard_state: wal.hard_state() }
    }
}

/// The log after some records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// The entry before `entries`.
    base: (LogIndex, Term),
    /// Everything up to it was replaced by a snapshot.
    floor: LogIndex,
    entries: Vec<Entry>,
    pub(crate) hard_state: HardState,
}

impl State {
    pub(crate) fn behind(index: LogIndex, term: Term) -> Self {
        Self { base: (index, term), floor: index, entries: Vec::new(), hard_state: HardState::default() }
    }

    pub(crate) fn last(&self) -> LogIndex {
        LogIndex(self.base.0.0 + self.entries.len() as u64)
    }

    pub(crate) fn last_term(&self) -> Term {
        self.term(self.last()).unwrap()
    }

    pub(crate) fn floor(&self) -> LogIndex {
        self.floor
    }

    pub(crate) fn term(&self, index: LogIndex) -> Option<Term> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        self.entries_from(index).first().map(|entry| entry.term)
    }

    /// The entries from `index` on; none when `index` is out of what is known.
    pub(crate) fn entries_from(&self, index: LogIndex) -> &[Entry] {
        let skipped = index.0.checked_sub(self.base.0.0 + 1).and_then(|count| usize::try_from(count).ok());
        skipped.and_then(|count| self.entries.get(count..)).unwrap_or_default()
    }

    pub(crate) fn truncate(&mut self, from: LogIndex, term_before: Term) {
        if from <= self.base.0 {
            let hard_state = self.hard_state;
            *self = Self { hard_state, ..Self::behind(from.prev(), term_before) };
        }
        self.entries.truncate(usize::try_from(from.0 - self.base.0.0 - 1).unwrap());
    }

    pub(crate) fn entry(&mut self, entry: Entry) {
        assert!(
            self.base.0 < entry.index && entry.index <= self.last().next(),
            "{} in {self:?}",
            entry.index
        );
        self.entries.truncate(usize::try_from(entry.index.0 - self.base.0.0 - 1).unwrap());
        self.entries.push(entry);
    }

    pub(crate) fn snapshot(&mut self, index: LogIndex, term: Term) {
        if self.term(index) == Some(term) {
            self.floor = self.floor.max(index);
        } else if self.floor <= index {
            let hard_state = self.hard_state;
            *self = Self { hard_state, ..Self::behind(index, term) };
        }
    }

    /// What the records of a log make, in their order; the first opens the first segment.
    pub(crate) fn replayed(records: &[WalRecord]) -> Self {
        assert_eq!(records[0].record_type, RecordType::Crc, "a segment opens with its checksum");
        let mut state = Self::behind(records[0].index, records[0].term);
        for WalRecord { record_type, index, term, data, .. } in records {
            match record_type {
                RecordType::Entry => state.entry(Entry {
                    term: *term,
                    index: *index,
                    entry_type: EntryType::from_u8(data[0]).unwrap(),
                    data: data.slice(1..),
                }),
                RecordType::State => {
                    let vote = NodeId::new(u64::from_le_bytes(data[..].try_into().unwrap()));
                    state.hard_state = HardState { term: *term, vote, commit: *index };
                }
                RecordType::Snapshot => state.snapshot(*index, *term),
                RecordType::Truncate => state.truncate(*index, *term),
                RecordType::Crc => assert!(state.base.0 <= *index && *index == state.last()),
            }
        }
        state
    }

    /// Whether a log may look like this: the same entries and hard state, and a boundary where one may be.
    pub(crate) fn fits(&self, held: &Held, released: LogIndex) -> bool {
        let LogBounds { boundary, boundary_term, last } = held.bounds;
        self.floor <= boundary
            && boundary <= self.floor.max(released)
            && self.term(boundary) == Some(boundary_term)
            && self.last() == last
            && self.entries_from(boundary.next()) == held.entries
            && self.hard_state == held.hard_state
    }
}

/// What a log may hold after a crash: its content after each record since the last sync, the synced one first.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    states: Vec<State>,
    /// What was given up lies at or below it.
    released: LogIndex,
}

impl Default for Model {
    fn default() -> Self {
        Self { states: vec![State::behind(LogIndex::ZERO, Term(0))], released: LogIndex::ZERO }
    }
}

/// The operations: each changes the model first and then the log, which may fail on the way.
impl Model {
    pub(crate) fn now(&self) -> &State {
        self.states.last().unwrap()
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.states.len() == 1
    }

    /// Entries up to here may be gone.
    pub(crate) fn boundary_max(&self) -> LogIndex {
        self.now().floor.max(self.released)
    }

    /// Last entry that is in the log whatever was not synced.
    pub(crate) fn synced_last(&self) -> LogIndex {
        let now = self.now();
        let common = |state: &State| {
            let first = state.base.0.max(now.base.0).next();
            let pairs = state.entries_from(first).iter().zip(now.entries_from(first));
            LogIndex(first.0 + pairs.take_while(|(a, b)| a == b).count() as u64 - 1)
        };
        self.states.iter().map(common).min().unwrap()
    }

    fn push(&mut self, change: impl FnOnce(&mut State)) {
        let mut state = self.now().clone();
        change(&mut state);
        self.states.push(state);
    }

    pub(crate) fn append_many(
        &mut self,
        wal: &dyn Wal,
        hard_state: Option<HardState>,
        entries: &[Entry],
    ) -> Result<(), WalError> {
        if let Some(first) = entries.first()
            && first.index <= self.now().last()
        {
            self.push(|state| state.truncate(first.index, Term(0)));
        }
        for entry in entries {
            self.push(|state| state.entry(entry.clone()));
        }
        if let Some(hard_state) = hard_state {
            self.push(|state| state.hard_state = hard_state);
        }
        wal.append_many(hard_state.as_ref(), entries).map(drop)
    }

    /// Appends the record of one entry.
    pub(crate) fn append(&mut self, wal: &dyn Wal, entry: &Entry) -> Result<(), WalError> {
        if entry.index <= self.now().last() {
            self.push(|state| state.truncate(entry.index, Term(0)));
        }
        self.push(|state| state.entry(entry.clone()));
        let data = [&[entry.entry_type as u8], &entry.data[..]].concat();
        append(wal, RecordType::Entry, entry.index, entry.term, data)
    }

    pub(crate) fn set_hard_state(&mut self, wal: &dyn Wal, hard_state: HardState) -> Result<(), WalError> {
        self.push(|state| state.hard_state = hard_state);
        let vote = NodeId::or_zero(hard_state.vote).to_le_bytes().to_vec();
        append(wal, RecordType::State, hard_state.commit, hard_state.term, vote)
    }

    pub(crate) fn truncate(&mut self, wal: &dyn Wal, from: LogIndex) -> Result<(), WalError> {
        self.push(|state| state.truncate(from, Term(0)));
        wal.truncate(from)
    }

    /// A snapshot at `index`, be it held by the log, with this term or another, or not.
    pub(crate) fn snapshot(&mut self, wal: &dyn Wal, index: LogIndex, term: Term) -> Result<(), WalError> {
        if self.now().term(index).is_some_and(|held| held != term) {
            self.push(|state| state.truncate(index, Term(0)));
        }
        self.push(|state| state.snapshot(index, term));
        append(wal, RecordType::Snapshot, index, term, Vec::new())
    }

    pub(crate) fn sync(&mut self, wal: &dyn Wal) -> Result<(), WalError> {
        wal.sync()?;
        self.synced();
        Ok(())
    }

    /// The log has said that everything is durable.
    pub(crate) fn synced(&mut self) {
        self.states.drain(..self.states.len() - 1);
    }

    pub(crate) fn release(&mut self, wal: &dyn Wal, upto: LogIndex) -> Result<(), WalError> {
        self.released = self.released.max(upto);
        wal.release(upto)
    }
}

/// The comparisons.
impl Model {
    /// The log was opened after a crash or a failure, and goes on from what it holds: the content after one of the
    /// records since the last sync, that one included.
    pub(crate) fn recovered(&mut self, wal: &dyn Wal, what: &str) {
        let held = Held::of(wal);
        let slot = self.states.iter().rposition(|state| state.fits(&held, self.released));
        let slot = slot.unwrap_or_else(|| {
            panic!(
                "{what}: {:?}, {:?} is none of the {} contents since the last sync, which had {} entries and now {}",
                held.bounds,
                held.hard_state,
                self.states.len(),
                self.states[0].last(),
                self.now().last(),
            )
        });
        self.states = vec![self.states.swap_remove(slot)];
        // Nothing of what it still has goes by itself.
        self.released = held.bounds.boundary;
        self.is_now(wal, what);
    }

    /// The log holds what it should, whichever way it is read.
    pub(crate) fn is_now(&self, wal: &dyn Wal, what: &str) {
        let held = Held::of(wal);
        let now = self.now();
        assert!(now.fits(&held, self.released), "{what}: {:?}, expected up to {}", held.bounds, now.last());
        let mut records = Vec::new();
        let mut last_offset = None;
        wal.scan(&mut |offset, record| {
            assert!(last_offset < Some(offset), "{what}: {offset} out of order");
            last_offset = Some(offset);
            records.push((offset, record));
            true
        })
        .unwrap();
        let plain: Vec<WalRecord> = records.iter().map(|(_, record)| record.clone()).collect();
        let replayed = State::replayed(&plain);
        let first = held.bounds.first();
        assert_eq!(replayed.entries_from(first), held.entries, "{what}: the records tell another story");
        assert_eq!((replayed.last(), replayed.hard_state), (held.bounds.last, held.hard_state), "{what}");
        let (offset, record) = &records[records.len() / 2];
        assert_eq!(wal.read(*offset).unwrap(), *record, "{what}: at {offset}");
        for index in [held.bounds.boundary, held.bounds.last] {
            assert_eq!(wal.term(index).ok(), now.term(index), "{what}: term at {index}");
        }
        if let [_, inner @ .., _] = &held.entries[..]
            && let [from, .., upto] = inner
        {
            let found = wal.entries(from.index..upto.index.next(), u64::MAX).unwrap();
            assert_eq!(found, inner, "{what}");
            // At least one, and then what fits: without room, only entries without data.
            let mut bytes = 0;
            let fits = |entry: &&Entry| {
                bytes += entry.data.len();
                bytes == 0 || entry.index == from.index
            };
            let expected: Vec<Entry> = inner.iter().take_while(fits).cloned().collect();
            let found = wal.entries(from.index..upto.index.next(), 0).unwrap();
            assert_eq!(found, expected, "{what}");
        }
    }
}

fn append(
    wal: &dyn Wal,
    record_type: RecordType,
    index: LogIndex,
    term: Term,
    data: Vec<u8>,
) -> Result<(), WalError> {
    wal.append(WalRecord { record_type, index, term, data: Bytes::from(data), crc: 0 }).map(drop)
}

/// An entry whose data tells where it belongs.
pub(crate) fn entry(index: u64, term: u64, bytes: usize) -> Entry {
    let text = format!("{index}@{term} ");
    let data: Vec<u8> = text.bytes().cycle().take(bytes).collect();
    Entry { term: Term(term), index: LogIndex(index), entry_type: EntryType::Normal, data: Bytes::from(data) }
}
