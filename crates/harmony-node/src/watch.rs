//! The watch hub: every change of the keys, once in memory, to all who watch them.
//!
//! It lives here, and not in the storage, because it is threads and queues around a state machine, as the rest of this
//! crate; all that it needs of the state machine is [`harmony_types::History`]: changes as they are applied, and history
//! that can be read again. A [`harmony_types::Storage`] without it, or nobody who starts a hub, costs nothing.
//!
//! ```text
//! apply ─▶ mailbox ─▶ hub thread: ring of the newest events ─▶ index: who watches this key ─▶ places in a queue
//!                                                                                              │ wake
//! history ◀── history thread, a piece at a time, for those who are behind ──▶ piece ──────────▶ poll
//! ```
//!
//! A watcher is a position in the history and little else. What waits for it is either places in the ring (live), or one
//! piece read for it (behind). Both may be taken away at any moment, when the ring moves on, when more waits than one
//! watcher may keep, or when all pieces together take too much: the watcher is behind then, and what it missed is read again
//! when its stream asks for more. So nothing is skipped or told twice, a reader that stalls costs no more than its
//! position, and apply waits for nobody. A piece serves all watchers that are behind in the same part of the history.
//!
//! Compaction takes away what a watcher was to read next only when it is behind: then it is canceled, with the compact
//! revision. Progress is told of a revision only when everything up to it was handed out before.
//!
//! Without threads, for a simulator: [`WatchHub::new`], then [`WatchHub::publish_step`] and [`WatchHub::history_step`].

mod catch_up;
mod hub;
mod index;
mod message;
mod ring;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod watcher;

pub use hub::{WatchHub, WatchMetrics, WatchOptions};
pub use message::{CancelReason, WatchMessage, WatchRefusal, WatchRequest, WatchWake};
pub use stream::WatchStream;
