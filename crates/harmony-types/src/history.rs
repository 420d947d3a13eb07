//! What happened to the keys, revision by revision: how it is read, and how those who watch hear of it.

use std::sync::Arc;

use crate::error::StorageError;
use crate::kv::{Event, KeyRange};
use crate::revision::Revision;

/// A place in the history: before the event `sub` of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HistoryPosition {
    /// The revision.
    pub revision: Revision,
    /// Place among the events of that revision, from 0, whatever their keys.
    pub sub: u32,
}

impl From<Revision> for HistoryPosition {
    fn from(revision: Revision) -> Self {
        Self { revision, sub: 0 }
    }
}

/// Which events [`History::events`] is to answer with, and how many at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsRequest {
    /// Where to begin: a revision, or the [`Events::next`] of the answer before.
    pub first: HistoryPosition,
    /// The keys whose events are wanted.
    pub keys: KeyRange,
    /// Whether events come with the version that they replaced.
    pub prev_kv: bool,
    /// Bytes of keys and values, replaced ones included, that an answer has at most. One event alone may have more.
    pub bytes_max: u64,
    /// Events of any key that are looked at for one answer, at least 1: so that an answer comes soon where few keys match.
    pub rows_max: u64,
}

impl Default for EventsRequest {
    /// All events from the first one on, without what they replaced, in answers of a MiB.
    fn default() -> Self {
        Self {
            first: Revision::EMPTY.into(),
            keys: KeyRange::all(),
            prev_kv: false,
            bytes_max: 1 << 20,
            rows_max: 100_000,
        }
    }
}

/// A piece of the history.
///
/// - It ends with a whole revision, unless one revision alone exceeds what was asked for: then it is a part of that
///   revision and of no other one, see [`Events::is_fragment`].
/// - All events before `next` that match are in this answer or in those before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// In order of revision and, within it, of the writes. They share buffers of some 64 KiB: whoever keeps one for long
    /// copies it.
    pub events: Vec<Event>,
    /// Where the next answer is to begin.
    pub next: HistoryPosition,
    /// The newest revision when this was read.
    pub revision: Revision,
}

impl Events {
    /// Whether all that was written when this was read is behind `next`: there is nothing more before the next write.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.revision < self.next.revision
    }

    /// Whether more events of the last revision may follow in the next answer, which begins with them.
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        self.next.sub != 0
    }
}

/// A state machine whose changes can be read again, until they are compacted, and heard as they happen.
pub trait History: Send + Sync + 'static {
    /// Reads the history from a position on. A position in the future is no error: there is nothing yet.
    ///
    /// # Errors
    /// [`StorageError::Compacted`] below the compact revision; at the compact revision itself all events are there.
    /// [`StorageError::CrcMismatch`] and the like: nothing damaged is handed out.
    fn events(&self, request: &EventsRequest) -> Result<Events, StorageError>;

    /// Tells `observer` of every revision from now on, in place of whoever was told before. The first call of
    /// [`HistoryObserver::advanced`], without events, comes before this returns and says where the history stands.
    fn observe(&self, observer: Arc<dyn HistoryObserver>);
}

/// Memory that an event in memory takes besides its keys and values, about.
pub const EVENT_OVERHEAD_BYTES: u64 = 320;

/// Hears of revisions as they are applied.
///
/// Called by whoever applies, in order, after readers can see the change and before anybody is answered: it must not
/// block.
pub trait HistoryObserver: Send + Sync {
    /// Bytes of keys and values that the next call may bring, in as many events as these bytes hold times
    /// [`EVENT_OVERHEAD_BYTES`]; one event alone may have more. 0 when nobody is interested, so that nothing is collected.
    fn bytes_max(&self) -> u64;

    /// The newest revision is `revision` now. `events`: all those of the revisions since the last call, with what they
    /// replaced; `None` when there were more than wanted, or when a snapshot took the place of the state: what happened is
    /// to be read from the history then.
    fn advanced(&self, revision: Revision, events: Option<Vec<Event>>);
}
