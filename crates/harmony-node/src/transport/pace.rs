//! How fast a snapshot may be sent.

use std::time::Duration;

/// What may be sent at once after a pause, as time at the full rate: a link that is shared sees no bursts.
const BURST: Duration = Duration::from_millis(100);

/// Spreads bytes over time.
pub(super) struct Pace {
    bytes_per_second: u64,
    /// Time up to which the rate is used up.
    paid_until: Duration,
}

impl Pace {
    /// No limit for 0.
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, paid_until: Duration::ZERO }
    }

    /// The largest piece that keeps pauses short, at most `limit` bytes.
    pub(super) fn piece_bytes(&self, limit: usize) -> usize {
        const LEAST: usize = 4 << 10;
        match self.bytes_per_second {
            0 => limit,
            rate => limit.min(usize::try_from(rate / 4).unwrap_or(usize::MAX)).max(LEAST.min(limit)),
        }
    }

    /// How long to wait before `bytes` more may go.
    pub(super) fn wait(&mut self, now: Duration, bytes: usize) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let micros = (bytes as u128 * 1_000_000) / u128::from(self.bytes_per_second);
        let takes = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        self.paid_until = self.paid_until.max(now.saturating_sub(BURST)).saturating_add(takes);
        self.paid_until.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time() {
        let mut pace = Pace::new(1_000);
        let start = Duration::from_secs(5);
        let mut now = start;
        for _ in 0..10 {
            now += pace.wait(now, 500);
        }
        assert_eq!(now - start, Duration::from_millis(4_900));
        // A pause gives no more than a short burst.
        assert_eq!(pace.wait(now + Duration::from_secs(60), 5_000), Duration::from_millis(4_900));
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        assert_eq!(Pace::new(0).wait(Duration::ZERO, usize::MAX), Duration::ZERO);
        assert_eq!(Pace::new(0).piece_bytes(100), 100);
    }

    #[test]
    fn a_slow_pace_goes_in_small_pieces() {
        assert_eq!(Pace::new(40_000).piece_bytes(1 << 20), 10_000);
        assert_eq!(Pace::new(1).piece_bytes(1 << 20), 4 << 10);
        assert_eq!(Pace::new(u64::MAX).piece_bytes(1 << 20), 1 << 20);
    }
}
