//! How often this member was asked for its health, and what it said.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::gauge;

/// One check of one path.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    success: u64,
    error: u64,
    /// What it said last.
    is_well: bool,
}

/// What was asked; the handlers count.
#[derive(Debug, Default)]
pub(crate) struct HealthMetrics {
    success: AtomicU64,
    failures: AtomicU64,
    /// By path and check, of which there are few.
    checks: Mutex<BTreeMap<(&'static str, &'static str), Counts>>,
}

impl HealthMetrics {
    /// Counts an answer of `/health`.
    pub(crate) fn asked(&self, is_well: bool) {
        let counter = if is_well { &self.success } else { &self.failures };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a check of `/livez` or `/readyz`.
    pub(crate) fn checked(&self, kind: &'static str, name: &'static str, is_well: bool) {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = checks.entry((kind, name)).or_default();
        counts.is_well = is_well;
        let counter = if is_well { &mut counts.success } else { &mut counts.error };
        *counter += 1;
    }
}

/// Collects them.
#[derive(Debug)]
pub(super) struct Health(pub(super) Arc<HealthMetrics>);

impl Collector for Health {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        // Counters in etcd, without the ending that the format asks of counters: as gauges they keep their names.
        let (success, failures) = (&self.0.success, &self.0.failures);
        let well = success.load(Ordering::Relaxed);
        gauge(encoder, "etcd_server_health_success", "Answers of /health that were good", well)?;
        let ill = failures.load(Ordering::Relaxed);
        gauge(encoder, "etcd_server_health_failures", "Answers of /health that were bad", ill)?;
        let checks = self.0.checks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let name = "etcd_server_healthcheck";
        let mut family =
            encoder.encode_descriptor(name, "1 when a check was good", None, MetricType::Gauge)?;
        for ((kind, name), counts) in &checks {
            let labels = [("type", *kind), ("name", *name)];
            ConstGauge::new(i64::from(counts.is_well)).encode(family.encode_family(&labels)?)?;
        }
        let name = "etcd_server_healthchecks";
        let mut family = encoder.encode_descriptor(name, "Checks by result", None, MetricType::Counter)?;
        for ((kind, name), counts) in &checks {
            for (status, count) in [("success", counts.success), ("error", counts.error)] {
                let labels = [("type", *kind), ("name", *name), ("status", status)];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
