//! What the hub knows: a plain structure, changed under one lock by whoever publishes, reads history, or polls.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use harmony_types::history::HistoryPosition;
use harmony_types::{Event, Revision, WatchId};
use slab::Slab;

use super::catch_up::Reads;
use super::hub::WatchOptions;
use super::index::Index;
use super::message::{CancelReason, WatchMessage, WatchRefusal, WatchRequest, WatchWake};
use super::ring::{Ring, revision_of};
use super::watcher::{Piece, Token, Watcher};

/// What may wait in one stream beside one place for each watcher: answers to a client that does not read them.
const MESSAGES_WAITING_MAX: usize = 100_000;

/// See the module.
pub(super) struct State {
    pub(super) options: WatchOptions,
    pub(super) ring: Ring,
    pub(super) index: Index<Token>,
    pub(super) watchers: Slab<Watcher>,
    streams: Slab<Stream>,
    serial: u64,
    pub(super) reads: Reads,
    /// Streams that asked for progress and are not there yet.
    progress: BTreeSet<usize>,
    /// To be called once the lock is free.
    wakes: Vec<Arc<dyn WatchWake>>,
    closed: bool,
    pub(super) delivered: u64,
}

/// Watchers with one way out.
struct Stream {
    wake: Arc<dyn WatchWake>,
    watchers: BTreeMap<WatchId, Token>,
    next_id: i64,
    ready: VecDeque<Ready>,
    /// Nothing was left when it was polled last: it is to be woken.
    sleeps: bool,
    /// It was not told yet that the hub is closed.
    hears_of_end: bool,
    /// How many of its watchers are behind.
    behind: usize,
    /// Progress up to here was asked for.
    progress: Option<Revision>,
}

/// Something that a stream has to say.
enum Ready {
    Message(WatchMessage),
    Watcher(Token),
    /// Of one watcher, if it is still true then.
    Progress(Token),
    /// Of all, if it is still true then.
    StreamProgress,
}

impl State {
    pub(super) fn new(options: WatchOptions) -> Self {
        Self {
            ring: Ring::new(Revision::EMPTY, options.ring_bytes),
            options,
            index: Index::default(),
            watchers: Slab::new(),
            streams: Slab::new(),
            serial: 0,
            reads: Reads::default(),
            progress: BTreeSet::new(),
            wakes: Vec::new(),
            closed: false,
            delivered: 0,
        }
    }

    /// Whom to wake, once the lock is free.
    pub(super) fn take_wakes(&mut self) -> Vec<Arc<dyn WatchWake>> {
        std::mem::take(&mut self.wakes)
    }

    pub(super) fn add_stream(&mut self, wake: Arc<dyn WatchWake>) -> usize {
        self.streams.insert(Stream {
            wake,
            watchers: BTreeMap::new(),
            next_id: 0,
            ready: VecDeque::new(),
            sleeps: false,
            hears_of_end: true,
            behind: 0,
            progress: None,
        })
    }

    pub(super) fn remove_stream(&mut self, stream: usize) {
        for token in std::mem::take(&mut self.streams[stream].watchers).into_values() {
            self.remove(token);
        }
        self.progress.remove(&stream);
        self.streams.remove(stream);
    }

    /// How many watchers there are, how many of them are behind.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.watchers.len(), self.streams.iter().map(|(_, stream)| stream.behind).sum())
    }

    /// Events in memory that wait for their watchers' streams to fetch them.
    pub(super) fn waiting(&self) -> usize {
        self.watchers.iter().map(|(_, watcher)| watcher.waiting()).sum()
    }

    pub(super) fn has_watchers(&self) -> bool {
        !self.closed && !self.watchers.is_empty()
    }

    pub(super) fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// Whether somebody is in line for a read.
    pub(super) fn waits_for_read(&self) -> bool {
        self.reads.has_line()
    }

    /// Adds a watcher; `newest` is the revision of the last change that was published.
    pub(super) fn create(
        &mut self,
        stream: usize,
        request: &WatchRequest,
        newest: Revision,
    ) -> Result<WatchId, WatchRefusal> {
        if self.closed {
            return Err(WatchRefusal::Closed);
        }
        if request.keys.is_empty() {
            return Err(WatchRefusal::EmptyRange);
        }
        let waiting_max = MESSAGES_WAITING_MAX + self.streams[stream].watchers.len();
        if self.options.watchers_max <= self.watchers.len() || waiting_max <= self.streams[stream].ready.len()
        {
            return Err(WatchRefusal::TooMany);
        }
        let id = self.streams[stream].id_for(request.id)?;
        let start = request.start.unwrap_or_else(|| newest.next());
        self.serial += 1;
        let entry = self.watchers.vacant_entry();
        let token = Token { slot: entry.key(), serial: self.serial };
        let place = self.index.add(&request.keys, token);
        let mut watcher = Watcher::new(self.serial, stream, id, place, start);
        watcher.prev_kv = request.prev_kv;
        watcher.no_puts = request.no_puts;
        watcher.no_deletes = request.no_deletes;
        watcher.progress_notify = request.progress_notify;
        watcher.progress_from = request.start.unwrap_or(Revision(0));
        entry.insert(watcher);
        self.streams[stream].watchers.insert(id, token);
        self.say(stream, WatchMessage::Created { id, revision: newest });
        if start < self.ring.next() {
            self.watchers[token.slot].is_fresh = true;
            self.fall_behind(token, start.into());
        }
        Ok(id)
    }

    /// Removes a watcher at its stream's wish; false when there is none of this id.
    pub(super) fn cancel(&mut self, stream: usize, id: WatchId, newest: Revision) -> bool {
        let token = self.streams[stream].watchers.get(&id).copied();
        let known = token.is_some();
        if let Some(token) = token {
            self.end(token, CancelReason::Asked, newest);
        }
        known
    }

    /// Removes a watcher and says so.
    pub(super) fn end(&mut self, token: Token, reason: CancelReason, revision: Revision) {
        let Some(Watcher { stream, id, .. }) = self.get(token) else { return };
        let (stream, id) = (*stream, *id);
        self.streams[stream].watchers.remove(&id);
        self.remove(token);
        self.say(stream, WatchMessage::Canceled { id, reason, revision });
        self.look_for_progress();
    }

    fn remove(&mut self, token: Token) {
        let watcher = self.watchers.remove(token.slot);
        if !watcher.is_live {
            self.streams[watcher.stream].behind -= 1;
        }
        if let Some(piece) = &watcher.piece {
            self.reads.released(piece.read);
        }
        if let Some(moved) = self.index.remove(watcher.place) {
            self.watchers[moved.slot].place = watcher.place;
        }
    }

    pub(super) fn get(&mut self, token: Token) -> Option<&mut Watcher> {
        self.watchers.get_mut(token.slot).filter(|watcher| watcher.serial == token.serial)
    }

    /// Takes the events of revisions that follow, in order.
    pub(super) fn publish(&mut self, events: Vec<Event>) {
        let mut events = events.into_iter().peekable();
        while let Some(first) = events.next() {
            let revision = revision_of(&first);
            assert_eq!(revision, self.ring.next(), "revisions are published without a gap");
            let mut together = vec![Arc::new(first)];
            while let Some(event) = events.next_if(|event| revision_of(event) == revision) {
                together.push(Arc::new(event));
            }
            for (slot, event) in (0..).zip(&together) {
                self.offer(revision, slot, event);
            }
            self.ring.push(together);
        }
        self.look_for_progress();
    }

    /// Queues an event for the live watchers of its key.
    fn offer(&mut self, revision: Revision, slot: u32, event: &Event) {
        let Some(kv) = &event.kv else { return };
        let Self { index, watchers, streams, wakes, options, reads, .. } = self;
        index.find(&kv.key, &mut |token| {
            let watcher = &mut watchers[token.slot];
            if !watcher.is_live || revision < watcher.reach.revision || !watcher.wants(event) {
                return;
            }
            let stream = &mut streams[watcher.stream];
            if watcher.queue(revision, slot, event, options.queue_bytes) {
                stream.make_ready(watcher, token, wakes);
                return;
            }
            let first = watcher.first_waiting(revision.into());
            watcher.fall_behind(first);
            stream.behind += 1;
            if !watcher.is_ready {
                reads.line_up(watcher, token);
            }
        });
    }

    /// The newest revision is this one, and how it came to be is for the history to say: every live watcher to whom that
    /// may matter is behind.
    pub(super) fn pass_over(&mut self, revision: Revision) {
        let (ring_next, next) = (self.ring.next(), revision.next());
        self.ring.restart(next);
        let tokens: Vec<Token> =
            self.watchers.iter().map(|(slot, w)| Token { slot, serial: w.serial }).collect();
        for token in tokens {
            let watcher = &mut self.watchers[token.slot];
            if !watcher.is_live {
                continue;
            }
            // A member that was repaired may have gone back: what was told stays told.
            watcher.reach = watcher.reach.max(ring_next.into());
            let first = watcher.first_waiting(watcher.reach);
            if first < next.into() {
                self.fall_behind(token, first);
            }
        }
        self.look_for_progress();
    }

    /// Gives up what waits for a live watcher; from `reach` on, the history has it.
    pub(super) fn fall_behind(&mut self, token: Token, reach: HistoryPosition) {
        let watcher = &mut self.watchers[token.slot];
        let was_live = watcher.is_live;
        watcher.fall_behind(reach);
        self.streams[watcher.stream].behind += usize::from(was_live);
        if !watcher.is_ready {
            self.reads.line_up(watcher, token);
        }
    }

    /// A watcher that was behind has caught up with the ring.
    pub(super) fn catch_up(&mut self, token: Token) {
        let watcher = &mut self.watchers[token.slot];
        assert!(!watcher.is_live && !watcher.has_something(), "only who is behind, and has all, catches up");
        watcher.is_live = true;
        self.streams[watcher.stream].behind -= 1;
    }

    /// Gives a watcher what was read for it.
    pub(super) fn give(&mut self, token: Token, piece: Piece) {
        let Self { watchers, streams, wakes, .. } = self;
        let watcher = &mut watchers[token.slot];
        watcher.piece = Some(piece);
        streams[watcher.stream].make_ready(watcher, token, wakes);
    }

    fn say(&mut self, stream: usize, message: WatchMessage) {
        let stream = &mut self.streams[stream];
        stream.ready.push_back(Ready::Message(message));
        stream.wake(&mut self.wakes);
    }

    /// Answers a wish for progress when it can be true now, or as soon as it can.
    pub(super) fn ask_progress(&mut self, stream: usize, newest: Revision) {
        let wish = &mut self.streams[stream].progress;
        if wish.is_none() {
            self.progress.insert(stream);
        }
        *wish = (*wish).max(Some(newest));
        self.look_for_progress();
    }

    /// Has progress told for each watcher that asked for it and had no event since the last call.
    pub(super) fn notify_progress(&mut self, stream: usize) {
        let Self { watchers, streams, wakes, .. } = self;
        let stream = &mut streams[stream];
        for token in stream.watchers.values() {
            let watcher = &mut watchers[token.slot];
            let is_due = watcher.progress_notify && std::mem::replace(&mut watcher.is_quiet, true);
            if is_due && !std::mem::replace(&mut watcher.progress_waits, true) {
                stream.ready.push_back(Ready::Progress(*token));
            }
        }
        if !stream.ready.is_empty() {
            stream.wake(wakes);
        }
    }

    pub(super) fn look_for_progress(&mut self) {
        let (streams, ring, wakes) = (&mut self.streams, &self.ring, &mut self.wakes);
        self.progress.retain(|number| {
            let stream = &mut streams[*number];
            let is_there = stream.behind == 0 && stream.progress.is_none_or(|wish| wish < ring.next());
            if is_there {
                stream.ready.push_back(Ready::StreamProgress);
                stream.wake(wakes);
            }
            !is_there
        });
    }

    /// Up to where all is handed out to this watcher; `None` when it is behind, something waits, or its start is to come.
    fn told(&self, token: Token) -> Option<Revision> {
        let watcher = self.watchers.get(token.slot).filter(|watcher| watcher.serial == token.serial)?;
        let next = self.ring.next();
        let told = Revision(next.0 - 1);
        let is_true = watcher.is_live && !watcher.has_something() && watcher.reach.revision <= next;
        (is_true && watcher.progress_from <= told).then_some(told)
    }

    /// What a stream has to say, about `bytes_max` of it. When nothing is left, the next is announced by a wake.
    pub(super) fn poll(&mut self, number: usize, bytes_max: u64) -> Vec<WatchMessage> {
        if self.closed {
            let closed = std::mem::take(&mut self.streams[number].hears_of_end);
            return closed.then_some(WatchMessage::Closed).into_iter().collect();
        }
        let mut messages = Vec::new();
        let mut bytes = 0;
        while bytes < bytes_max
            && let Some(ready) = self.streams[number].ready.pop_front()
        {
            match ready {
                Ready::Message(message) => messages.push(message),
                Ready::Watcher(token) => {
                    if let Some(message) = self.hand_out(token, bytes_max - bytes) {
                        bytes += size(&message);
                        messages.push(message);
                    }
                }
                Ready::Progress(token) => {
                    if let Some(watcher) = self.get(token) {
                        watcher.progress_waits = false;
                    }
                    if let Some(revision) = self.told(token) {
                        let id = Some(self.watchers[token.slot].id);
                        messages.push(WatchMessage::Progress { id, revision });
                    }
                }
                // Behind all else, so that what is said of a watcher's end comes first, too.
                Ready::StreamProgress if !self.streams[number].ready.is_empty() => {
                    self.streams[number].ready.push_back(Ready::StreamProgress);
                }
                Ready::StreamProgress => messages.extend(self.stream_progress(number)),
            }
        }
        let stream = &mut self.streams[number];
        stream.sleeps = stream.ready.is_empty();
        messages
    }

    fn stream_progress(&mut self, number: usize) -> Option<WatchMessage> {
        let Stream { watchers, progress, .. } = &self.streams[number];
        let revision = Revision(self.ring.next().0 - 1);
        if *progress <= Some(revision) && watchers.values().all(|token| self.told(*token).is_some()) {
            self.streams[number].progress = None;
            return Some(WatchMessage::Progress { id: None, revision });
        }
        self.progress.insert(number);
        None
    }

    /// Takes what waits for a watcher.
    fn hand_out(&mut self, token: Token, bytes_max: u64) -> Option<WatchMessage> {
        let newest = Revision(self.ring.next().0 - 1);
        let Self { ring, watchers, streams, reads, .. } = self;
        let watcher = watchers.get_mut(token.slot).filter(|watcher| watcher.serial == token.serial)?;
        watcher.is_ready = false;
        let mut more = false;
        let events = if let Some(piece) = watcher.piece.take() {
            reads.released(piece.read);
            more = piece.more;
            Some(piece.events)
        } else if watcher.is_live {
            let first = watcher.first_waiting(watcher.reach);
            let taken = watcher.take_queued(ring, bytes_max);
            if taken.is_none() {
                // The ring has moved on; nothing was handed out of what it dropped.
                watcher.fall_behind(first);
                streams[watcher.stream].behind += 1;
            }
            taken.filter(|events| !events.is_empty())
        } else {
            None
        };
        if watcher.has_something() {
            watcher.is_ready = true;
            streams[watcher.stream].ready.push_back(Ready::Watcher(token));
        } else if !watcher.is_live {
            reads.line_up(watcher, token);
        }
        let events = events?;
        watcher.is_open = more;
        watcher.is_quiet &= events.is_empty();
        self.delivered += events.len() as u64;
        let revision = events.last().map_or(newest, |last| newest.max(revision_of(last)));
        Some(WatchMessage::Events { id: watcher.id, events, prev_kv: watcher.prev_kv, revision, more })
    }

    /// Ends all streams. What the hub's threads still bring concerns nobody.
    pub(super) fn close(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.reads.close();
        for (_, stream) in &mut self.streams {
            stream.ready = VecDeque::new();
            stream.wake(&mut self.wakes);
        }
    }
}

impl Stream {
    fn id_for(&mut self, asked: Option<WatchId>) -> Result<WatchId, WatchRefusal> {
        if let Some(id) = asked {
            return if self.watchers.contains_key(&id) { Err(WatchRefusal::DuplicateId) } else { Ok(id) };
        }
        while self.watchers.contains_key(&WatchId(self.next_id)) {
            self.next_id += 1;
        }
        let id = WatchId(self.next_id);
        self.next_id += 1;
        Ok(id)
    }

    fn make_ready(&mut self, watcher: &mut Watcher, token: Token, wakes: &mut Vec<Arc<dyn WatchWake>>) {
        if !std::mem::replace(&mut watcher.is_ready, true) {
            self.ready.push_back(Ready::Watcher(token));
            self.wake(wakes);
        }
    }

    fn wake(&mut self, wakes: &mut Vec<Arc<dyn WatchWake>>) {
        if std::mem::take(&mut self.sleeps) {
            wakes.push(Arc::clone(&self.wake));
        }
    }
}

/// Bytes that count for a message.
fn size(message: &WatchMessage) -> u64 {
    match message {
        WatchMessage::Events { events, .. } => events.iter().map(|event| super::ring::bytes_of(event)).sum(),
        _ => 0,
    }
}
