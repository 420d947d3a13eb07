//! One life of a log, with everything that a log does in it: appends, rolls, truncations, snapshots, releases, and
//! released segments used again.

#![allow(dead_code, reason = "each test program uses its part")]

use harmony_types::{Entry, HardState, LogIndex, NodeId, Term, Wal, WalError};

use crate::model::{Model, entry};

/// What happens next; sizes are bytes of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A group of so many entries, with the hard state.
    Group(u64, usize),
    /// One record of an entry.
    Record(usize),
    /// A group that replaces the last so many entries.
    Replace(u64, usize),
    /// Drops the last so many entries.
    Truncate(u64),
    HardState,
    Sync,
    Read,
    /// Gives up all but the last so many entries.
    Release(u64),
    /// A snapshot so many entries before the last, as the log holds it.
    Snapshot(u64),
    /// A snapshot in place of an entry of another term, so many before the last.
    OtherSnapshot(u64),
    /// A snapshot that the log is behind by so many entries.
    SnapshotAhead(u64),
}

/// With segments of the smallest size, five are made; two of them of released ones.
pub(crate) const STORY: [Step; 40] = [
    Step::Group(3, 10),
    Step::Sync,
    Step::Group(2, 600),
    Step::Record(0),
    Step::Sync,
    // A read brings what was appended into the files, without a sync.
    Step::HardState,
    Step::Read,
    Step::Group(1, 900),
    Step::Read,
    Step::Truncate(1),
    Step::Read,
    Step::Group(2, 700),
    Step::Read,
    Step::Record(9),
    Step::Read,
    Step::Sync,
    Step::Replace(2, 800),
    Step::Group(1, 300),
    Step::Sync,
    Step::Group(3, 1200),
    Step::Read,
    Step::Truncate(2),
    Step::Record(40),
    Step::Sync,
    Step::Group(4, 900),
    Step::Sync,
    Step::Release(3),
    Step::Group(2, 20),
    Step::Sync,
    Step::Snapshot(1),
    Step::Group(3, 1100),
    Step::Sync,
    Step::Release(1),
    Step::SnapshotAhead(5),
    Step::Group(2, 1000),
    Step::OtherSnapshot(0),
    Step::Record(2000),
    Step::Sync,
    Step::Release(0),
    Step::Read,
];

impl Step {
    /// Takes the step in the model and the log.
    pub(crate) fn take(self, model: &mut Model, wal: &dyn Wal) -> Result<(), WalError> {
        let (last, term) = (model.now().last(), model.now().last_term().max(Term(1)));
        let group = |first: u64, count: u64, term: Term, bytes: usize| -> Vec<Entry> {
            (first..first + count).map(|index| entry(index, term.0, bytes)).collect()
        };
        let state = |commit: LogIndex, term| HardState { term, vote: NodeId::new(2), commit };
        match self {
            Self::Group(count, bytes) => {
                let entries = group(last.0 + 1, count, term, bytes);
                model.append_many(wal, Some(state(last, term)), &entries)
            }
            Self::Record(bytes) => model.append(wal, &entry(last.0 + 1, term.0, bytes)),
            Self::Replace(count, bytes) => {
                let entries = group(last.0 + 1 - count, count, Term(term.0 + 1), bytes);
                model.append_many(wal, None, &entries)
            }
            Self::Truncate(count) => model.truncate(wal, LogIndex(last.0 + 1 - count)),
            Self::HardState => model.set_hard_state(wal, state(last, Term(term.0 + 3))),
            Self::Sync => model.sync(wal),
            Self::Read => wal.read_all().map(drop),
            Self::Release(kept) => model.release(wal, LogIndex(last.0 - kept)),
            Self::Snapshot(before) => {
                let index = LogIndex(last.0 - before);
                let term = model.now().term(index).unwrap_or_default();
                model.snapshot(wal, index, term)
            }
            Self::OtherSnapshot(before) => model.snapshot(wal, LogIndex(last.0 - before), Term(term.0 + 1)),
            Self::SnapshotAhead(by) => model.snapshot(wal, LogIndex(last.0 + by), Term(term.0 + 1)),
        }
    }
}
