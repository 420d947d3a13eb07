//! Clients that watch: one watch at a time, at some member, continued elsewhere when it breaks.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use harmony_node::WatchStream;
use harmony_node::watch::{self, CancelReason, WatchOptions, WatchWake};
use harmony_types::fake::seed::SeededRng;
use harmony_types::{Event, KeyRange, NodeId, Revision};

use super::client::KEYS;
use super::time::MS;
use crate::check::watch::told_up_to;
use crate::history::{ClientId, History, Moment, Watch, WatchMessage, WatchRequest, WatchResponse};

/// Small, so that watchers fall behind, are read history for in pieces, and meet compactions.
pub(super) const HUB: WatchOptions = WatchOptions {
    ring_bytes: 8 << 10,
    queue_bytes: 3 << 10,
    piece_bytes: 2 << 10,
    piece_rows: 20,
    pieces_bytes: 8 << 10,
    watchers_max: 64,
};

/// One client that watches.
pub(super) struct Watcher {
    id: ClientId,
    rng: SeededRng,
    /// Whom it asks, as a place among the members that there are.
    member: usize,
    /// Connections so far: what belongs to an earlier one is void.
    pub(super) connection: u64,
    /// Its newest watch, as a place in the history.
    pub(super) watch: Option<usize>,
    /// Its stream at a member, once the request is there.
    pub(super) stream: Option<Stream>,
    /// It ended: the next one begins from here.
    compacted: Option<Revision>,
    /// The watch has ended for good, or was given up.
    pub(super) has_ended: bool,
    /// Events of a revision that is not whole yet.
    part: Vec<Event>,
}

/// A stream at a member.
pub(super) struct Stream {
    pub(super) member: NodeId,
    pub(super) inner: WatchStream,
    /// Its only watcher.
    pub(super) id: harmony_types::WatchId,
    /// When the newest message arrives: a connection keeps the order.
    pub(super) busy_until: u64,
}

/// Connections of watchers with something to read: watcher and connection.
#[derive(Default)]
pub(super) struct Woken(Mutex<Vec<(usize, u64)>>);

impl Woken {
    pub(super) fn take(&self) -> Vec<(usize, u64)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How a hub says that a stream has something to read.
pub(super) struct Wake {
    pub(super) woken: Arc<Woken>,
    pub(super) watcher: usize,
    pub(super) connection: u64,
}

impl WatchWake for Wake {
    fn wake(&self) {
        self.woken.0.lock().unwrap_or_else(PoisonError::into_inner).push((self.watcher, self.connection));
    }
}

impl Watcher {
    pub(super) fn new(number: u32, rng: SeededRng) -> Self {
        Self {
            id: ClientId(number),
            rng,
            member: number as usize,
            connection: 0,
            watch: None,
            stream: None,
            compacted: None,
            has_ended: true,
            part: Vec::new(),
        }
    }

    /// Until its next deed, nanoseconds.
    pub(super) fn think(&mut self) -> u64 {
        self.rng.range(20 * MS..4_000 * MS)
    }

    /// A number below `below`.
    pub(super) fn draw(&mut self, below: u64) -> u64 {
        self.rng.below(below)
    }

    /// Its next watch: it goes on where the last one was, or begins somewhere.
    pub(super) fn next(
        &mut self,
        now: u64,
        newest: Revision,
        members: &[NodeId],
        history: &mut History,
    ) -> (usize, NodeId) {
        self.connection += 1;
        self.part.clear();
        self.has_ended = false;
        if self.rng.chance(1, 2) {
            self.member = self.rng.index(0..1 << 16);
        }
        let member = members[self.member % members.len()];
        let before = self.watch.map(|place| &history.watches[place]);
        let mut request = match before {
            Some(before) if self.rng.chance(4, 5) => before.request.clone(),
            _ => self.request(newest),
        };
        let mut resumes = None;
        if let Some(before) = before.filter(|before| before.request.keys == request.keys) {
            match (self.compacted.take(), told_up_to(before)) {
                (Some(compacted), _) => request.start = Some(compacted),
                (None, Some(told)) => {
                    request.start = Some(told.next());
                    resumes = self.watch;
                }
                // Nobody answered: it is the first try still.
                (None, None) => resumes = before.resumes,
            }
        }
        self.compacted = None;
        let watch = Watch {
            client: self.id,
            member: Some(member),
            called: Moment(now),
            request,
            resumes,
            responses: Vec::new(),
        };
        history.watches.push(watch);
        let place = history.watches.len() - 1;
        self.watch = Some(place);
        (place, member)
    }

    fn request(&mut self, newest: Revision) -> WatchRequest {
        let keys = match self.rng.below(3) {
            0 => KeyRange::single(Bytes::from(format!("k{}", self.rng.below(KEYS)))),
            1 => KeyRange::prefix(b"k"),
            _ => KeyRange::all(),
        };
        let start = match self.rng.below(5) {
            0 | 1 => None,
            // It may be compacted, or lie in the future.
            2 => Some(Revision(1 + self.rng.below(newest.0 + 8))),
            _ => Some(Revision(1 + newest.0.saturating_sub(self.rng.below(40)))),
        };
        WatchRequest {
            keys,
            start,
            no_put: self.rng.chance(1, 8),
            no_delete: self.rng.chance(1, 8),
            prev_kv: self.rng.chance(1, 2),
            fragment: self.rng.chance(1, 2),
        }
    }

    /// A message has come over the connection: what the client makes of it. False: the watch has ended.
    pub(super) fn hear(&mut self, now: u64, message: watch::WatchMessage, watch: &mut Watch) -> bool {
        let mut told = |revision, message| {
            watch.responses.push(WatchResponse { at: Moment(now), revision, message });
        };
        match message {
            watch::WatchMessage::Created { revision, .. } => told(revision, WatchMessage::Created),
            watch::WatchMessage::Progress { revision, .. } => told(revision, WatchMessage::Progress),
            watch::WatchMessage::Events { events, prev_kv, revision, more, .. } => {
                let whole = events.iter().map(|event| Event {
                    prev_kv: event.prev_kv.clone().filter(|_| prev_kv),
                    ..Event::clone(event)
                });
                self.part.extend(whole);
                let fragment = more && watch.request.fragment;
                // Who did not ask for fragments is told whole revisions by the layer above the hub.
                if (fragment || !more) && !self.part.is_empty() {
                    let events = std::mem::take(&mut self.part);
                    watch.responses.push(WatchResponse {
                        at: Moment(now),
                        revision,
                        message: WatchMessage::Events { events, fragment },
                    });
                }
            }
            watch::WatchMessage::Canceled { reason, revision, .. } => {
                let compact_revision = match reason {
                    CancelReason::Compacted(revision) => Some(revision),
                    _ => None,
                };
                let reason = format!("{reason:?}");
                told(revision, WatchMessage::Canceled { compact_revision, reason });
                self.compacted = compact_revision;
                return false;
            }
            watch::WatchMessage::Closed => return false,
        }
        true
    }

    /// What is asked of the hub.
    pub(super) fn asked(request: &WatchRequest) -> watch::WatchRequest {
        watch::WatchRequest {
            keys: request.keys.clone(),
            start: request.start,
            id: None,
            prev_kv: request.prev_kv,
            no_puts: request.no_put,
            no_deletes: request.no_delete,
            progress_notify: true,
        }
    }
}
