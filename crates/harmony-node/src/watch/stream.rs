//! One client's stream of watchers.

use std::fmt;

use harmony_types::{Revision, WatchId};

use super::hub::Inner;
use super::message::{WatchMessage, WatchRefusal, WatchRequest};
use std::sync::Arc;

/// Watchers with one way out. Dropped, it takes them along.
pub struct WatchStream {
    hub: Arc<Inner>,
    number: usize,
}

impl WatchStream {
    pub(super) fn new(hub: Arc<Inner>, number: usize) -> Self {
        Self { hub, number }
    }

    /// Begins to watch. [`WatchMessage::Created`] comes first; a start that is compacted ends in a
    /// [`WatchMessage::Canceled`] after it.
    ///
    /// # Errors
    /// Nothing was created, and no message says so.
    pub fn create(&self, request: &WatchRequest) -> Result<WatchId, WatchRefusal> {
        self.hub.create(self.number, request)
    }

    /// Ends a watcher: [`WatchMessage::Canceled`] is the last about it, and what waited for it is dropped. False when there
    /// is none of this id.
    pub fn cancel(&self, id: WatchId) -> bool {
        let newest = self.hub.newest();
        self.hub.change(|state| state.cancel(self.number, id, newest))
    }

    /// Asks for one [`WatchMessage::Progress`] about all watchers of the stream, at the revision of this moment or a later
    /// one, as soon as each of them was told everything up to there. Asking again before it comes changes nothing.
    pub fn request_progress(&self) {
        let newest = self.hub.newest();
        self.hub.change(|state| state.ask_progress(self.number, newest));
    }

    /// To be called once in each interval of progress: has [`WatchMessage::Progress`] told for each watcher that asked for
    /// it, had no event since the last call, and has caught up.
    pub fn notify_progress(&self) {
        self.hub.change(|state| state.notify_progress(self.number));
    }

    /// What there is to say, about `bytes_max` of it at least when there is so much. Never blocks. When it returns nothing,
    /// the next is announced by [`super::WatchWake::wake`].
    #[must_use]
    pub fn poll(&self, bytes_max: u64) -> Vec<WatchMessage> {
        self.hub.poll(self.number, bytes_max.max(1))
    }

    /// The newest revision that was published.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.hub.newest()
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.hub.change(|state| state.remove_stream(self.number));
        self.hub.count();
    }
}

impl fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WatchStream({})", self.number)
    }
}
