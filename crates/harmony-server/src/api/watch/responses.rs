//! What the hub says, as responses: put together what must not be split, split what may be.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use harmony_node::watch::{CancelReason, WatchMessage};
use harmony_types::{Event, Revision, WatchId};
use prost::Message as _;

use super::super::Api;
use super::super::status::ApiError;
use crate::proto::etcdserverpb as pb;

/// The id in a response about all watchers, or about one that never was.
const NO_ID: i64 = -1;

/// Most bytes that one event adds to a response besides itself: its field's number and its length.
const EVENT_FRAME_BYTES: usize = 6;

/// Responses in order, ready to be sent.
pub(super) struct Responses {
    waiting: VecDeque<Result<pb::WatchResponse, ApiError>>,
    watchers: BTreeMap<WatchId, Parts>,
    /// Why a watcher was canceled that did not ask for it, until that is said.
    revoked: BTreeMap<WatchId, String>,
    fragment_bytes: usize,
}

/// How one watcher's events are cut.
#[derive(Default)]
struct Parts {
    may_split: bool,
    /// The beginning of a revision that the hub could not tell at once.
    begun: Vec<Event>,
}

impl Responses {
    /// None yet; who lets them be split gets them in parts of at most so many bytes.
    pub(super) fn new(fragment_bytes: usize) -> Self {
        Self { waiting: VecDeque::new(), watchers: BTreeMap::new(), revoked: BTreeMap::new(), fragment_bytes }
    }

    pub(super) fn has_some(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn count(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn next(&mut self) -> Option<Result<pb::WatchResponse, ApiError>> {
        self.waiting.pop_front()
    }

    /// There is a new watcher, whose responses may be split or not.
    pub(super) fn created(&mut self, id: WatchId, may_split: bool) {
        self.watchers.insert(id, Parts { may_split, begun: Vec::new() });
    }

    /// A watcher was not created.
    pub(super) fn refuse(&mut self, header: pb::ResponseHeader, reason: String) {
        self.say(pb::WatchResponse {
            header: Some(header),
            watch_id: NO_ID,
            created: true,
            canceled: true,
            cancel_reason: reason,
            ..pb::WatchResponse::default()
        });
    }

    /// Nothing is told to this watcher any more but that it is canceled, and why.
    pub(super) fn revoke(&mut self, id: WatchId, reason: String) {
        self.revoked.insert(id, reason);
    }

    /// Ends the stream.
    pub(super) fn end(&mut self, error: ApiError) {
        self.waiting.push_back(Err(error));
    }

    fn say(&mut self, response: pb::WatchResponse) {
        self.waiting.push_back(Ok(response));
    }

    /// Takes what the hub said.
    pub(super) fn add(&mut self, api: &Api, message: WatchMessage) {
        let about = |id: i64, revision: Revision| pb::WatchResponse {
            header: Some(api.header(revision.as_i64())),
            watch_id: id,
            ..pb::WatchResponse::default()
        };
        match message {
            WatchMessage::Created { id, revision } => {
                self.say(pb::WatchResponse { created: true, ..about(id.0, revision) });
            }
            WatchMessage::Events { id, .. } | WatchMessage::Progress { id: Some(id), .. }
                if self.revoked.contains_key(&id) => {}
            WatchMessage::Events { id, events, prev_kv, revision, more } => {
                let events = events.iter().map(|event| told(event, prev_kv)).collect();
                self.events(about(id.0, revision), id, events, more);
            }
            WatchMessage::Progress { id, revision } => {
                self.say(about(id.map_or(NO_ID, |id| id.0), revision));
            }
            WatchMessage::Canceled { id, reason, revision } => {
                self.watchers.remove(&id);
                let (compact_revision, reason) = match (self.revoked.remove(&id), reason) {
                    (Some(why), _) => (0, why),
                    (None, CancelReason::Asked) => (0, String::new()),
                    (None, CancelReason::Compacted(compacted)) => (compacted.as_i64(), String::new()),
                    (None, CancelReason::Failed(why)) => (0, format!("etcdserver: {why}")),
                };
                self.say(pb::WatchResponse {
                    canceled: true,
                    compact_revision,
                    cancel_reason: reason,
                    ..about(id.0, revision)
                });
            }
            WatchMessage::Closed => self.end(ApiError::STOPPED),
        }
    }

    fn events(&mut self, head: pb::WatchResponse, id: WatchId, events: Vec<Event>, more: bool) {
        let parts = self.watchers.entry(id).or_default();
        if !parts.may_split {
            parts.begun.extend(events);
            if !more {
                let events = std::mem::take(&mut parts.begun);
                self.say(pb::WatchResponse { events, ..head });
            }
            return;
        }
        let mut parts = split(events, self.fragment_bytes.saturating_sub(head.encoded_len())).peekable();
        while let Some(events) = parts.next() {
            let fragment = more || parts.peek().is_some();
            self.say(pb::WatchResponse { events, fragment, ..head.clone() });
        }
    }
}

/// An event as its watcher wants it.
fn told(event: &Arc<Event>, prev_kv: bool) -> Event {
    let Event { event_type, kv, prev_kv: previous } = &**event;
    Event { event_type: *event_type, kv: kv.clone(), prev_kv: if prev_kv { previous.clone() } else { None } }
}

/// Parts of at most so many bytes, or of one event; one at least.
fn split(events: Vec<Event>, bytes_max: usize) -> impl Iterator<Item = Vec<Event>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for event in events {
        let size = event.encoded_len() + EVENT_FRAME_BYTES;
        if bytes != 0 && bytes_max < bytes + size {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(part) = parts.last_mut() {
            part.push(event);
        }
    }
    parts.into_iter()
}

#[cfg(test)]
mod tests {
    use harmony_types::KeyValue;

    use super::*;

    fn event(bytes: usize) -> Event {
        let kv = KeyValue { value: vec![b'v'; bytes].into(), ..KeyValue::default() };
        Event { kv: Some(kv), ..Event::default() }
    }

    fn lengths(values: &[usize], bytes_max: usize) -> Vec<usize> {
        split(values.iter().map(|bytes| event(*bytes)).collect(), bytes_max).map(|part| part.len()).collect()
    }

    #[test]
    fn parts_are_as_large_as_they_may_be() {
        assert_eq!(lengths(&[], 10), [0]);
        assert_eq!(lengths(&[100, 100, 100], 1000), [3]);
        assert_eq!(lengths(&[100, 100, 100], 250), [2, 1]);
        assert_eq!(lengths(&[100, 1000, 100], 250), [1, 1, 1], "an event is never split");
    }

    #[test]
    fn previous_values_are_told_only_on_demand() {
        let event =
            Arc::new(Event { prev_kv: Some(KeyValue::default()), kv: event(1).kv, ..Event::default() });
        assert_eq!(told(&event, true), *event);
        assert_eq!(told(&event, false), Event { prev_kv: None, ..(*event).clone() });
    }
}
