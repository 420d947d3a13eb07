//! One measurement, and what several come to.

use std::time::Duration;

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
        let at = |share: f64| {
            let rank = (nanos.len() as f64 * share) as usize;
            nanos.get(rank).map(|nanos| *nanos as f64 / 1e3)
        };
        (self.p50_us, self.p99_us) = (at(0.5), at(0.99));
        self
    }

    pub fn with_last_sync(mut self, took: Duration) -> Self {
        self.last_sync_ms = Some(took.as_secs_f64() * 1e3);
        self
    }
}

/// Middle, smallest and largest of one figure over the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// `None` when there are no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[half - 1], values[half])
        } else {
            values[half]
        };
        Some(Self { median, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_middles() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
    }

    #[test]
    fn percentiles_are_of_the_sorted_values() {
        let sample = Sample::new(1.0).with_latencies((1..=1000).rev().map(|micros| micros * 1000).collect());
        assert_eq!((sample.p50_us, sample.p99_us), (Some(501.0), Some(991.0)));
    }
}
