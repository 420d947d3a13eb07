//! The one home of the machine's clocks: everything else asks a [`Clock`].
#![expect(clippy::disallowed_methods, reason = "this is the home that the lint speaks of")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harmony_types::Clock;

/// The machine's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock whose origin is now.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn unix_ms(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_step_back() {
        let clock = SystemClock::new();
        let first = clock.now();
        assert!(first <= clock.now());
        assert!(0 < clock.unix_ms());
    }
}
