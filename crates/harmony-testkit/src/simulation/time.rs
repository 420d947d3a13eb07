//! Virtual time: what is due next, and the clocks that members read.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use harmony_types::Clock;

/// Where the calendar of a simulation starts: 2023-11-14 22:13:20 UTC.
const UNIX_MS_START: u64 = 1_700_000_000_000;

/// A millisecond, in the simulator's unit.
pub(super) const MS: u64 = 1_000_000;
/// A microsecond.
pub(super) const US: u64 = 1_000;
/// A second.
pub(super) const SECOND: u64 = 1_000 * MS;

/// Events by time, those of one moment in the order in which they were planned.
pub(super) struct Schedule<E> {
    heap: BinaryHeap<Reverse<Due<E>>>,
    planned: u64,
}

struct Due<E> {
    at: u64,
    sequence: u64,
    event: E,
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}

impl<E> Eq for Due<E> {}

impl<E> PartialOrd for Due<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Due<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl<E> Schedule<E> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), planned: 0 }
    }

    pub(super) fn push(&mut self, at: u64, event: E) {
        self.planned += 1;
        self.heap.push(Reverse(Due { at, sequence: self.planned, event }));
    }

    /// The next event and its time.
    pub(super) fn pop(&mut self) -> Option<(u64, E)> {
        self.heap.pop().map(|Reverse(due)| (due.at, due.event))
    }
}

/// The world's time, nanoseconds. Copies show the same.
#[derive(Clone, Default)]
pub(super) struct Now(Arc<AtomicU64>);

impl Now {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, now: u64) {
        self.0.store(now, Ordering::Relaxed);
    }
}

/// A member's clock: it runs a little fast or slow, and its calendar jumps.
pub(super) struct MemberClock {
    pub(super) now: Now,
    pub(super) calendar_shift_ms: Arc<AtomicI64>,
    /// Parts in a million that it runs fast; below 0, slow.
    pub(super) drift_ppm: i64,
}

impl Clock for MemberClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(drifted(self.now.get(), self.drift_ppm))
    }

    fn unix_ms(&self) -> u64 {
        let passed = self.now.get() / MS;
        (UNIX_MS_START + passed).saturating_add_signed(self.calendar_shift_ms.load(Ordering::Relaxed))
    }

    /// Nobody sleeps in a simulation: there is one thread.
    fn sleep(&self, _: Duration) {}
}

/// A stretch of the world's time on a clock that runs fast by so many parts in a million.
pub(super) fn drifted(time: u64, drift_ppm: i64) -> u64 {
    let scaled = i128::from(time) * i128::from(1_000_000 + drift_ppm) / 1_000_000;
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_in_which_they_were_planned() {
        let mut schedule = Schedule::new();
        for (at, event) in [(5, "a"), (1, "b"), (5, "c"), (1, "d")] {
            schedule.push(at, event);
        }
        let order: Vec<_> = std::iter::from_fn(|| schedule.pop()).collect();
        assert_eq!(order, [(1, "b"), (1, "d"), (5, "a"), (5, "c")]);
    }

    #[test]
    fn a_fast_clock_is_ahead() {
        assert_eq!(drifted(1_000_000, 500), 1_000_500);
        assert_eq!(drifted(1_000_000, -500), 999_500);
    }
}
