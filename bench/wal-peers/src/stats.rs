//! One measurement.

use std::time::Duration;

use bench_harness::stats::percentile;

/// What one measurement gave.
#[derive(Clone, Debug)]
pub struct Sample {
    pub per_s: f64,
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    /// Of the one sync behind calls without a sync.
    pub last_sync_ms: Option<f64>,
}

impl Sample {
    pub fn new(per_s: f64) -> Self {
        Self { per_s, p50_us: None, p99_us: None, last_sync_ms: None }
    }

    pub fn with_latencies(mut self, mut nanos: Vec<u64>) -> Self {
        nanos.sort_unstable();
        let at = |share: f64| percentile(&nanos, share).map(|nanos| nanos as f64 / 1e3);
        (self.p50_us, self.p99_us) = (at(0.5), at(0.99));
        self
    }

    pub fn with_last_sync(mut self, took: Duration) -> Self {
        self.last_sync_ms = Some(took.as_secs_f64() * 1e3);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_values() {
        let sample = Sample::new(1.0).with_latencies((1..=1000).rev().map(|micros| micros * 1000).collect());
        assert_eq!((sample.p50_us, sample.p99_us), (Some(501.0), Some(991.0)));
    }
}
