//! A watcher: a position in the history, and what waits to be handed out from there on.

use std::collections::VecDeque;
use std::sync::Arc;

use harmony_types::history::HistoryPosition;
use harmony_types::{Event, EventType, Revision, WatchId};

use super::index::Place;
use super::ring::{Ring, bytes_of};

/// Memory of a place in a queue, about.
const PLACE_BYTES: u64 = 16;

/// What a watcher is known by: a slot is used again, a serial number is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Token {
    pub(super) slot: usize,
    pub(super) serial: u64,
}

/// An event in the ring.
#[derive(Clone, Copy, Debug)]
struct RingPlace {
    revision: Revision,
    slot: u32,
}

/// Events read for a watcher that is behind.
#[derive(Debug)]
pub(super) struct Piece {
    /// The read that they came with.
    pub(super) read: u64,
    pub(super) events: Vec<Arc<Event>>,
    /// Where the watcher was before.
    pub(super) first: HistoryPosition,
    /// It ends within a revision.
    pub(super) more: bool,
}

/// See the module.
///
/// Invariants:
/// - all events at or behind the position of the first that waits, and before [`Watcher::reach`], wait; none before it does;
/// - live: reach is the ring's end, or `reach` when that lies further on; what waits is in `queue`;
/// - behind: it is `reach`; nothing waits while it is in line for a read.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) serial: u64,
    pub(super) stream: usize,
    pub(super) id: WatchId,
    pub(super) place: Place,
    pub(super) prev_kv: bool,
    pub(super) no_puts: bool,
    pub(super) no_deletes: bool,
    pub(super) progress_notify: bool,
    /// Its stream is to be told of its progress.
    pub(super) progress_waits: bool,
    /// No progress is told below: the start that was asked for.
    pub(super) progress_from: Revision,
    /// No event was handed out since it was last asked.
    pub(super) is_quiet: bool,
    pub(super) is_live: bool,
    pub(super) reach: HistoryPosition,
    queue: VecDeque<RingPlace>,
    queue_bytes: u64,
    pub(super) piece: Option<Piece>,
    /// It stands in its stream's line of those that have something.
    pub(super) is_ready: bool,
    /// It waits for a read, or one is under way for it.
    pub(super) is_in_line: bool,
    /// It was created for the past: whether that is compacted is the history's to say.
    pub(super) is_fresh: bool,
    /// The last message left its revision open.
    pub(super) is_open: bool,
}

impl Watcher {
    /// Events that wait to be handed out.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len() + self.piece.as_ref().map_or(0, |piece| piece.events.len())
    }

    /// One that has nothing.
    pub(super) fn new(serial: u64, stream: usize, id: WatchId, place: Place, reach: Revision) -> Self {
        Self {
            serial,
            stream,
            id,
            place,
            prev_kv: false,
            no_puts: false,
            no_deletes: false,
            progress_notify: false,
            progress_waits: false,
            progress_from: Revision(0),
            is_quiet: true,
            is_live: true,
            reach: reach.into(),
            queue: VecDeque::new(),
            queue_bytes: 0,
            piece: None,
            is_ready: false,
            is_in_line: false,
            is_fresh: false,
            is_open: false,
        }
    }

    /// Whether the filters let this event through.
    pub(super) fn wants(&self, event: &Event) -> bool {
        match event.event_type() {
            EventType::Put => !self.no_puts,
            EventType::Delete => !self.no_deletes,
        }
    }

    /// Whether anything waits.
    pub(super) fn has_something(&self) -> bool {
        self.piece.is_some() || !self.queue.is_empty()
    }

    /// Queues an event of the ring; false when that would be more than may wait.
    pub(super) fn queue(&mut self, revision: Revision, slot: u32, event: &Event, bytes_max: u64) -> bool {
        let bytes = self.queue_bytes + bytes_of(event) + PLACE_BYTES;
        if bytes_max < bytes {
            return false;
        }
        self.queue_bytes = bytes;
        self.queue.push_back(RingPlace { revision, slot });
        true
    }

    /// Where to read again if what waits is given up; `now` when nothing waits.
    pub(super) fn first_waiting(&self, now: HistoryPosition) -> HistoryPosition {
        match (&self.piece, self.queue.front()) {
            (Some(piece), _) => piece.first,
            (None, Some(place)) => place.revision.into(),
            (None, None) => now,
        }
    }

    /// Gives up what waits; behind from `reach` on.
    pub(super) fn fall_behind(&mut self, reach: HistoryPosition) {
        self.is_live = false;
        self.reach = reach;
        self.queue = VecDeque::new();
        self.queue_bytes = 0;
        self.piece = None;
    }

    /// Takes whole revisions of what is queued, of `bytes_max` or of one revision; `None` when the ring does not hold them
    /// any more.
    pub(super) fn take_queued(&mut self, ring: &Ring, bytes_max: u64) -> Option<Vec<Arc<Event>>> {
        let mut events = Vec::new();
        let (mut bytes, mut last) = (0, None);
        while let Some(&RingPlace { revision, slot }) = self.queue.front() {
            if last != Some(revision) && bytes_max <= bytes {
                break;
            }
            let event = ring.get(revision)?.get(slot as usize)?;
            bytes += bytes_of(event);
            events.push(Arc::clone(event));
            last = Some(revision);
            self.queue.pop_front();
        }
        self.queue_bytes = self.queue_bytes.saturating_sub(bytes + PLACE_BYTES * events.len() as u64);
        if self.queue.is_empty() {
            // A burst must not leave its room behind in every watcher.
            self.queue.shrink_to(8);
        }
        Some(events)
    }
}
