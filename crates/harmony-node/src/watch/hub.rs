//! The handle on the hub, its threads, and the door for whoever applies.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use harmony_types::limits;
use harmony_types::{Event, History, HistoryObserver, NodeError, Revision, WatchId};

use super::catch_up::Next;
use super::message::{WatchMessage, WatchRefusal, WatchRequest, WatchWake};
use super::ring::bytes_of;
use super::state::State;
use super::stream::WatchStream;
use crate::metrics::Counter;
use crate::queue::{Mailbox, Taken};

/// Revisions matched to watchers under one lock: who polls waits for no more.
const PUBLISH_AT_ONCE: usize = 256;

/// Bounds of a hub. Everything that it holds lies within them, but for some hundred bytes a watcher.
#[derive(Clone, Copy, Debug)]
pub struct WatchOptions {
    /// The newest events in memory; as much again may be on its way into the ring.
    pub ring_bytes: u64,
    /// Events of the ring that may wait for one watcher; past it, it is behind.
    pub queue_bytes: u64,
    /// History read at once for one watcher, bytes of keys and values; four times as much for several.
    pub piece_bytes: u64,
    /// Events of any key that are looked at for one piece, at least 1: how long one read takes.
    pub piece_rows: u64,
    /// What was read and nobody fetched yet.
    pub pieces_bytes: u64,
    /// Watchers.
    pub watchers_max: usize,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            ring_bytes: 32 << 20,
            queue_bytes: limits::REQUEST_BYTES_MAX as u64,
            piece_bytes: 256 << 10,
            piece_rows: 10_000,
            pieces_bytes: 32 << 20,
            watchers_max: 10_000_000,
        }
    }
}

/// What a hub counts.
#[derive(Debug, Default)]
pub struct WatchMetrics {
    /// Streams now.
    pub streams: Counter,
    /// Watchers now.
    pub watchers: Counter,
    /// Watchers now that are behind.
    pub slow_watchers: Counter,
    /// Events that waited for a watcher and were handed out.
    pub events: Counter,
    /// Events in memory now that wait to be handed out. What watchers who are behind have still to read is not among them.
    pub events_waiting: Counter,
    /// Reads of the history.
    pub history_reads: Counter,
    /// Times that revisions were left to the history: too large, or part of a snapshot.
    pub passed_over: Counter,
}

/// All who watch one state machine. A cheap handle: clones speak of the same hub.
#[derive(Clone)]
pub struct WatchHub {
    inner: Arc<Inner>,
}

/// What the handle, the streams and the threads share.
pub(super) struct Inner {
    state: Mutex<State>,
    history: Arc<dyn History>,
    published: Arc<Published>,
    /// Filled when somebody is behind.
    behind: Mailbox<()>,
    metrics: Arc<WatchMetrics>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What applies have left for the hub thread.
struct Published {
    mailbox: Mailbox<Vec<Advance>>,
    waiting_bytes: AtomicU64,
    bytes_max: u64,
    newest: AtomicU64,
    /// Somebody watches.
    wanted: AtomicBool,
}

struct Advance {
    revision: Revision,
    events: Option<Vec<Event>>,
    bytes: u64,
}

impl HistoryObserver for Published {
    fn bytes_max(&self) -> u64 {
        if self.wanted.load(Ordering::Acquire) {
            self.bytes_max.saturating_sub(self.waiting_bytes.load(Ordering::Relaxed))
        } else {
            0
        }
    }

    fn advanced(&self, revision: Revision, events: Option<Vec<Event>>) {
        let bytes = events.iter().flatten().map(bytes_of).sum();
        self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.newest.store(revision.0, Ordering::Release);
        self.mailbox.put(|waiting| match waiting.last_mut() {
            // Of revisions that nobody wants in memory the last one says enough: they do not pile up.
            Some(Advance { revision: last, events: None, .. }) if events.is_none() => *last = revision,
            _ => waiting.push(Advance { revision, events, bytes }),
        });
    }
}

impl WatchHub {
    /// A hub without threads; see [`WatchHub::publish_step`]. Takes the place of any other observer of this history.
    #[must_use]
    pub fn new(history: Arc<dyn History>, options: WatchOptions) -> Self {
        let published = Arc::new(Published {
            mailbox: Mailbox::default(),
            waiting_bytes: AtomicU64::new(0),
            bytes_max: options.ring_bytes,
            newest: AtomicU64::new(Revision::EMPTY.0),
            wanted: AtomicBool::new(false),
        });
        history.observe(Arc::clone(&published) as _);
        let inner = Inner {
            state: Mutex::new(State::new(options)),
            history,
            published,
            behind: Mailbox::default(),
            metrics: Arc::default(),
            threads: Mutex::default(),
        };
        let hub = Self { inner: Arc::new(inner) };
        hub.publish_step();
        hub
    }

    /// A hub with its two threads. [`WatchHub::close`] ends them.
    ///
    /// # Errors
    /// [`NodeError::Stopped`]: the system refuses a thread.
    pub fn start(history: Arc<dyn History>, options: WatchOptions) -> Result<Self, NodeError> {
        let hub = Self::new(history, options);
        let publish = |inner: &Inner| while inner.publish(None) {};
        let read = |inner: &Inner| {
            while !matches!(inner.behind.take(None), Taken::Closed) {
                while inner.read_once() {}
            }
        };
        for (name, work) in [("harmony-watch", publish as fn(&Inner)), ("harmony-history", read)] {
            let inner = Arc::clone(&hub.inner);
            match std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&inner)) {
                Ok(thread) => hub.inner.threads().push(thread),
                Err(error) => {
                    tracing::error!(name, %error, "the system refuses a thread");
                    hub.close();
                    return Err(NodeError::Stopped);
                }
            }
        }
        Ok(hub)
    }

    /// A stream without watchers.
    #[must_use]
    pub fn stream(&self, wake: Arc<dyn WatchWake>) -> WatchStream {
        let number = self.inner.change(|state| state.add_stream(wake));
        self.inner.metrics.streams.add(1);
        WatchStream::new(Arc::clone(&self.inner), number)
    }

    /// Brings what was applied to those who watch; false when there was nothing. The hub thread does this all the time.
    pub fn publish_step(&self) -> bool {
        self.inner.publish(Some(std::time::Duration::ZERO))
    }

    /// Reads one piece for those who are behind; false when there was nothing to do. The history thread does this.
    pub fn history_step(&self) -> bool {
        self.inner.read_once()
    }

    /// Whether [`WatchHub::publish_step`] has something to do.
    #[must_use]
    pub fn publish_due(&self) -> bool {
        self.inner.published.mailbox.is_filled()
    }

    /// Whether somebody fell behind since this was asked last: [`WatchHub::history_step`] is to be done until it says that
    /// there is nothing.
    #[must_use]
    pub fn history_due(&self) -> bool {
        self.inner.behind.try_take().is_some()
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> Arc<WatchMetrics> {
        self.inner.count();
        Arc::clone(&self.inner.metrics)
    }

    /// Memory in events, bytes, about: the ring, and what was read and nobody fetched yet.
    #[must_use]
    pub fn event_bytes(&self) -> u64 {
        let state = self.inner.state();
        state.ring.bytes()
            + state.reads.kept_bytes()
            + self.inner.published.waiting_bytes.load(Ordering::Relaxed)
    }

    /// Ends all streams, each with [`WatchMessage::Closed`], and the threads.
    pub fn close(&self) {
        self.inner.published.wanted.store(false, Ordering::Release);
        self.inner.published.mailbox.close();
        self.inner.behind.close();
        self.inner.change(State::close);
        let threads = std::mem::take(&mut *self.inner.threads());
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for WatchHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WatchHub({:?})", self.inner.metrics)
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn newest(&self) -> Revision {
        Revision(self.published.newest.load(Ordering::Acquire))
    }

    /// Changes the state, then wakes whom that concerns, without the lock.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let changed = change(&mut state);
        let (wakes, waits) = (state.take_wakes(), state.waits_for_read());
        drop(state);
        if waits {
            self.behind.put(|()| ());
        }
        for wake in wakes {
            wake.wake();
        }
        changed
    }

    pub(super) fn create(&self, stream: usize, request: &WatchRequest) -> Result<WatchId, WatchRefusal> {
        self.change(|state| {
            // Under the lock, as where it is taken back. What was applied just before is left to the history.
            self.published.wanted.store(true, Ordering::Release);
            let created = state.create(stream, request, self.newest());
            self.published.wanted.store(state.has_watchers(), Ordering::Release);
            created
        })
    }

    pub(super) fn poll(&self, stream: usize, bytes_max: u64) -> Vec<WatchMessage> {
        self.change(|state| state.poll(stream, bytes_max))
    }

    /// Brings the gauges up to date, and has nothing collected while nobody watches.
    pub(super) fn count(&self) {
        let state = self.state();
        let (watchers, behind) = state.counts();
        self.metrics.streams.set(state.stream_count() as u64);
        self.metrics.watchers.set(watchers as u64);
        self.metrics.slow_watchers.set(behind as u64);
        self.metrics.events.set(state.delivered);
        self.metrics.events_waiting.set(state.waiting() as u64);
        if watchers == 0 {
            self.published.wanted.store(false, Ordering::Release);
        }
    }

    fn publish(&self, timeout: Option<std::time::Duration>) -> bool {
        let advances = match self.published.mailbox.take(timeout) {
            Taken::Content(advances) => advances,
            Taken::TimedOut | Taken::Closed => return false,
        };
        for Advance { revision, events, bytes } in advances {
            match events {
                Some(events) => self.publish_events(events),
                None => {
                    self.metrics.passed_over.add(1);
                    self.change(|state| state.pass_over(revision));
                }
            }
            self.published.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        true
    }

    fn publish_events(&self, events: Vec<Event>) {
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            let mut some: Vec<Event> = events.by_ref().take(PUBLISH_AT_ONCE).collect();
            // Revisions stay whole.
            let last = some.last().map(super::ring::revision_of);
            while let Some(event) = events.next_if(|event| Some(super::ring::revision_of(event)) == last) {
                some.push(event);
            }
            self.change(|state| state.publish(some));
        }
    }

    /// Serves the first in line; false when nobody is.
    fn read_once(&self) -> bool {
        let next = self.change(State::next_read);
        match next {
            Next::Nothing => false,
            Next::Served => true,
            Next::Read(plan) => {
                self.metrics.history_reads.add(1);
                let result = self.history.events(&plan.request);
                self.change(|state| state.take_read(plan, result));
                true
            }
        }
    }
}
