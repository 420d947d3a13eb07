//! What goes into a watch stream and what comes out of it.

use std::fmt;
use std::sync::Arc;

use harmony_types::{Event, KeyRange, Revision, WatchId};

/// A watcher to be.
#[derive(Clone, Debug, Default)]
pub struct WatchRequest {
    /// The keys to watch.
    pub keys: KeyRange,
    /// The first revision wanted, past or future; `None`: from the next one on.
    pub start: Option<Revision>,
    /// Its id on the stream; `None`: the stream picks one, from 0 on.
    pub id: Option<WatchId>,
    /// Whether events are wanted with what they replaced.
    pub prev_kv: bool,
    /// Leave puts out.
    pub no_puts: bool,
    /// Leave deletes out.
    pub no_deletes: bool,
    /// Whether [`super::WatchStream::notify_progress`] is meant for it.
    pub progress_notify: bool,
}

/// Why there is no watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchRefusal {
    /// The range holds no key.
    #[error("the range to watch holds no key")]
    EmptyRange,
    /// The stream has a watcher of this id.
    #[error("the stream has a watcher of this id")]
    DuplicateId,
    /// There are as many watchers as there may be.
    #[error("there are as many watchers as this member serves")]
    TooMany,
    /// The hub was closed.
    #[error("watching has ended on this member")]
    Closed,
}

/// What a stream has to say, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchMessage {
    /// A watcher is there. Comes before anything else about it.
    Created {
        /// Its id.
        id: WatchId,
        /// The newest revision then.
        revision: Revision,
    },
    /// Changes, in order, of whole revisions, or of a part of a single one.
    Events {
        /// Whose.
        id: WatchId,
        /// In order of revision and, within it, of the writes. Empty only where it ends a revision that was begun.
        events: Vec<Arc<Event>>,
        /// Whether the watcher asked for [`Event::prev_kv`], which is there all the same.
        prev_kv: bool,
        /// The newest revision known then: not below that of any event here.
        revision: Revision,
        /// The revision goes on in this watcher's next message: one that is too large to be held whole. Who must not split
        /// it puts the messages together.
        more: bool,
    },
    /// All events up to a revision were handed out before: of one watcher, or of all watchers of the stream.
    Progress {
        /// Which; `None`: all of them.
        id: Option<WatchId>,
        /// Up to where.
        revision: Revision,
    },
    /// A watcher is gone; nothing follows about it.
    Canceled {
        /// Which.
        id: WatchId,
        /// Why.
        reason: CancelReason,
        /// The newest revision then.
        revision: Revision,
    },
    /// The hub was closed: the last message.
    Closed,
}

/// Why a watcher is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CancelReason {
    /// [`super::WatchStream::cancel`].
    Asked,
    /// What it was to read next is compacted: this is the compact revision, itself readable.
    Compacted(Revision),
    /// This member cannot read its history.
    Failed(String),
}

/// Is told that a stream has something to say. Called from the hub's threads and from those that use streams: it must not
/// block, and not call back into the hub.
pub trait WatchWake: Send + Sync {
    /// [`super::WatchStream::poll`] has something, after it had nothing more. Once between two polls.
    fn wake(&self);
}

impl fmt::Debug for dyn WatchWake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WatchWake")
    }
}
