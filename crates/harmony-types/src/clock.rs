//! How time and chance enter, so that a test can own both.

use std::time::Duration;

/// A monotonic clock. No decision about safety reads wall time.
pub trait Clock: Send + Sync {
    /// Time since an arbitrary fixed origin; never steps back.
    fn now(&self) -> Duration;

    /// Milliseconds since 1970, for log lines and names of files only: it may jump.
    fn unix_ms(&self) -> u64;

    /// Waits.
    fn sleep(&self, duration: Duration);
}

/// A source of numbers: seeded in tests, from the system in production.
pub trait Rng: Send {
    /// The next 64 random bits.
    fn next_u64(&mut self) -> u64;
}
