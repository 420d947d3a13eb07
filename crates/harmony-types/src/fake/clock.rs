//! A clock that moves only when it is told to.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Clock;

/// 2023-11-14 22:13:20 UTC, where the calendar of a virtual clock starts.
const UNIX_MS_START: u64 = 1_700_000_000_000;

/// Time in a test's hands; clones show the same time.
///
/// A thread that sleeps blocks until [`VirtualClock::advance`] has moved past its deadline. Sleepers wake one after
/// the other in the order of their deadlines, those of one deadline in the order in which they went to sleep.
#[derive(Clone, Default)]
pub struct VirtualClock {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    now: Duration,
    unix_shift_ms: i64,
    /// Sleepers by deadline and order of arrival.
    sleepers: BTreeSet<(Duration, u64)>,
    arrivals: u64,
    stopped: bool,
}

impl fmt::Debug for VirtualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state();
        f.debug_struct("VirtualClock")
            .field("now", &state.now)
            .field("sleepers", &state.sleepers.len())
            .finish()
    }
}

impl VirtualClock {
    /// A clock at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves time on. It stops at each sleeper's deadline on the way and waits until that sleeper has woken; what the
    /// sleeper does then runs beside the rest of the advance.
    pub fn advance(&self, by: Duration) {
        let mut state = self.shared.state();
        let target = state.now + by;
        while let Some(&first) = state.sleepers.first()
            && first.0 <= target
        {
            state.now = state.now.max(first.0);
            self.shared.changed.notify_all();
            while state.sleepers.contains(&first) {
                state = self.shared.wait(state);
            }
        }
        state.now = state.now.max(target);
    }

    /// The next deadline of a sleeper.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.shared.state().sleepers.first().map(|&(deadline, _)| deadline)
    }

    /// Blocks until `count` threads sleep.
    pub fn wait_for_sleepers(&self, count: usize) {
        let mut state = self.shared.state();
        while state.sleepers.len() < count {
            state = self.shared.wait(state);
        }
    }

    /// Makes the calendar jump, as an operator or a bad time server does. [`Clock::now`] is not touched.
    pub fn jump_unix_ms(&self, by: i64) {
        self.shared.state().unix_shift_ms += by;
    }

    /// Ends all sleeps, present and future, at once: for the end of a test, so that its threads can be joined.
    pub fn stop(&self) {
        let mut state = self.shared.state();
        state.stopped = true;
        self.shared.changed.notify_all();
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Duration {
        self.shared.state().now
    }

    fn unix_ms(&self) -> u64 {
        let state = self.shared.state();
        let passed = u64::try_from(state.now.as_millis()).unwrap_or(u64::MAX);
        UNIX_MS_START.saturating_add(passed).saturating_add_signed(state.unix_shift_ms)
    }

    fn sleep(&self, duration: Duration) {
        let mut state = self.shared.state();
        let deadline = state.now + duration;
        state.arrivals += 1;
        let place = (deadline, state.arrivals);
        state.sleepers.insert(place);
        self.shared.changed.notify_all();
        // Only the first in line may leave, so that wake-ups have one order.
        while !state.stopped && (state.now < deadline || state.sleepers.first() != Some(&place)) {
            state = self.shared.wait(state);
        }
        state.sleepers.remove(&place);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn time_stands_still_until_it_is_advanced() {
        let clock = VirtualClock::new();
        let other = clock.clone();
        assert_eq!(clock.now(), Duration::ZERO);
        other.advance(3 * SECOND);
        assert_eq!(clock.now(), 3 * SECOND);
        assert_eq!(clock.unix_ms(), UNIX_MS_START + 3_000);
    }

    #[test]
    fn the_calendar_jumps_and_time_does_not() {
        let clock = VirtualClock::new();
        clock.jump_unix_ms(-86_400_000);
        assert_eq!(clock.unix_ms(), UNIX_MS_START - 86_400_000);
        assert_eq!(clock.now(), Duration::ZERO);
    }

    #[test]
    fn sleepers_wake_in_the_order_of_their_deadlines() {
        let clock = VirtualClock::new();
        let woken = Arc::new(Mutex::new(Vec::new()));
        thread::scope(|scope| {
            for (slept, seconds) in [5u32, 1, 3].into_iter().enumerate() {
                let (clock, woken) = (clock.clone(), Arc::clone(&woken));
                scope.spawn({
                    let clock = clock.clone();
                    move || {
                        clock.sleep(seconds * SECOND);
                        woken.lock().unwrap().push((seconds, clock.now()));
                        clock.sleep(100 * SECOND);
                    }
                });
                clock.wait_for_sleepers(slept + 1);
            }
            assert_eq!(clock.next_deadline(), Some(SECOND));
            for seconds in 1..=5 {
                clock.advance(SECOND);
                // Each one that woke sleeps again, so three sleepers mean that all have spoken.
                clock.wait_for_sleepers(3);
                let expected: Vec<u32> =
                    [1, 3, 5].into_iter().filter(|deadline| *deadline <= seconds).collect();
                assert_eq!(
                    woken.lock().unwrap().iter().map(|(slept, _)| *slept).collect::<Vec<_>>(),
                    expected
                );
            }
            assert!(woken.lock().unwrap().iter().all(|(slept, now)| *slept * SECOND == *now));
            clock.stop();
        });
    }

    #[test]
    fn a_long_advance_passes_all_deadlines() {
        let clock = VirtualClock::new();
        thread::scope(|scope| {
            for seconds in [2u32, 2, 7] {
                let clock = clock.clone();
                scope.spawn(move || clock.sleep(seconds * SECOND));
            }
            clock.wait_for_sleepers(3);
            clock.advance(60 * SECOND);
            assert_eq!(clock.next_deadline(), None);
        });
        assert_eq!(clock.now(), 60 * SECOND);
    }

    #[test]
    fn a_stopped_clock_lets_nobody_sleep() {
        let clock = VirtualClock::new();
        thread::scope(|scope| {
            scope.spawn(|| clock.sleep(SECOND));
            clock.wait_for_sleepers(1);
            clock.stop();
        });
        clock.sleep(SECOND);
        assert_eq!(clock.now(), Duration::ZERO);
    }
}
