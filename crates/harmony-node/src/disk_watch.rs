//! Finds a disk that does not come back: a call that is under way whenever one looks.
//!
//! Only the log is watched, as nothing can be acknowledged without it: the turns of the raft thread, which write to it, and the syncs of
//! the WAL thread. A call of either takes milliseconds, seconds on a bad day. What the state machine does may take long for good reasons.
//!
//! Looks are counted and no time is read, so that a process that was stopped, or a machine that slept, sees one look more and no more,
//! however long it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The calls of one thread.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// Odd while one is under way.
    number: AtomicU64,
}

impl Calls {
    /// Makes a call that can be seen. A panic in it ends the node, so it may stay under way.
    pub(crate) fn during<R>(&self, call: impl FnOnce() -> R) -> R {
        self.number.fetch_add(1, Ordering::Relaxed);
        let result = call();
        self.number.fetch_add(1, Ordering::Relaxed);
        result
    }
}

/// The calls of a node.
#[derive(Debug, Default)]
pub(crate) struct DiskCalls {
    /// Turns of the raft thread.
    pub(crate) turns: Calls,
    /// Syncs of the WAL thread.
    pub(crate) syncs: Calls,
}

/// Who looks at a node's log from time to time; made by [`Node::watch_disk`](crate::Node::watch_disk).
#[derive(Debug)]
pub struct DiskWatch {
    calls: Arc<DiskCalls>,
    seen: [Seen; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    number: u64,
    looks: u32,
}

impl DiskWatch {
    pub(crate) fn new(calls: Arc<DiskCalls>) -> Self {
        Self { calls, seen: [Seen::default(); 2] }
    }

    /// Looks, and returns how many looks in a row have met one and the same call, this one included; 0 when there is none. Never
    /// blocks.
    pub fn look(&mut self) -> u32 {
        let calls = [&self.calls.turns, &self.calls.syncs];
        for (seen, calls) in self.seen.iter_mut().zip(calls) {
            let number = calls.number.load(Ordering::Relaxed);
            let before = if number == seen.number { seen.looks } else { 0 };
            *seen = Seen { number, looks: if number % 2 == 1 { before.saturating_add(1) } else { 0 } };
        }
        self.seen.iter().map(|seen| seen.looks).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_at_one_call_are_counted_and_another_call_begins_anew() {
        let calls = Arc::new(DiskCalls::default());
        let mut watch = DiskWatch::new(Arc::clone(&calls));
        assert_eq!(watch.look(), 0);
        calls.syncs.during(|| {
            assert_eq!([watch.look(), watch.look()], [1, 2]);
            calls.turns.during(|| assert_eq!(watch.look(), 3, "the oldest counts"));
        });
        // Another call is under way at each look: the disk is slow, and comes back.
        calls.syncs.during(|| assert_eq!(watch.look(), 1));
        calls.syncs.during(|| assert_eq!(watch.look(), 1));
        assert_eq!(watch.look(), 0);
    }
}
