//! Waiting for changes of keys, for handlers that wait on behalf of their client: over the watch hub, without polling.

use std::collections::VecDeque;
use std::sync::Arc;

use harmony_node::WatchStream;
use harmony_node::watch::{CancelReason, WatchMessage, WatchRefusal, WatchRequest, WatchWake};
use harmony_types::{Event, KeyRange, Revision};
use tokio::sync::Notify;

use super::Api;
use super::status::{ApiError, Code};

/// What is asked of the hub at once, bytes.
const POLL_BYTES: u64 = 64 << 10;

/// Wakes whoever waits.
struct Wake(Notify);

impl WatchWake for Wake {
    fn wake(&self) {
        self.0.notify_one();
    }
}

/// A watch of some keys; it ends when it is dropped.
pub(super) struct KeyWatch {
    stream: WatchStream,
    wake: Arc<Wake>,
    events: VecDeque<Arc<Event>>,
    /// Nothing follows: what was to come is compacted.
    is_compacted: bool,
}

impl KeyWatch {
    /// Watches `keys` from the revision behind `seen` on.
    pub(super) fn behind(api: &Api, seen: i64, keys: &[KeyRange]) -> Result<Self, ApiError> {
        let wake = Arc::new(Wake(Notify::new()));
        let stream = api.watches.hub.stream(Arc::clone(&wake) as _);
        let start = u64::try_from(seen).map(|seen| Revision(seen + 1)).ok();
        for keys in keys {
            let request = WatchRequest { keys: keys.clone(), start, ..WatchRequest::default() };
            stream.create(&request).map_err(|refusal| match refusal {
                WatchRefusal::TooMany => ApiError::TOO_MANY_REQUESTS,
                WatchRefusal::Closed => ApiError::STOPPED,
                WatchRefusal::EmptyRange | WatchRefusal::DuplicateId => {
                    ApiError { code: Code::Unknown, message: format!("etcdserver: {refusal}").into() }
                }
            })?;
        }
        Ok(Self { stream, wake, events: VecDeque::new(), is_compacted: false })
    }

    /// The next change; `None` when changes are missing, because they are compacted: look at the keys anew.
    ///
    /// # Errors
    /// The server stops, or cannot read its history.
    pub(super) async fn next(&mut self) -> Result<Option<Arc<Event>>, ApiError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if self.is_compacted {
                return Ok(None);
            }
            let messages = self.stream.poll(POLL_BYTES);
            let is_dry = messages.is_empty();
            for message in messages {
                match message {
                    WatchMessage::Events { events, .. } => self.events.extend(events),
                    WatchMessage::Canceled { reason: CancelReason::Failed(reason), .. } => {
                        return Err(ApiError { code: Code::Unknown, message: reason.into() });
                    }
                    WatchMessage::Canceled { .. } => self.is_compacted = true,
                    WatchMessage::Closed => return Err(ApiError::STOPPED),
                    WatchMessage::Created { .. } | WatchMessage::Progress { .. } => {}
                }
            }
            if is_dry {
                self.wake.0.notified().await;
            }
        }
    }
}
