//! What a benchmark prints.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::clients::{Plan, Tally};
use super::process::Usage;
use crate::client::table::size;

/// The figures of a run. Times are in seconds where nothing else is said.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    benchmark: &'static str,
    endpoints: Vec<String>,
    clients: usize,
    connections: usize,
    key_size: usize,
    value_size: usize,
    keys: u64,
    seed: u64,
    interrupted: bool,
    /// Answered without an error.
    operations: u64,
    seconds: f64,
    operations_per_second: f64,
    latency_ms: Latency,
    /// Answered, but the key was not there.
    missing: u64,
    failed: u64,
    errors: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    servers: Vec<Usage>,
    /// Of all server processes together.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_seconds_per_10k: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Latency {
    mean: f64,
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Report {
    /// Sums up a run.
    pub(super) fn new(
        benchmark: &'static str,
        plan: &Plan,
        key_size: usize,
        value_size: usize,
        tally: &Tally,
        servers: Vec<Usage>,
    ) -> Self {
        let operations = tally.latency.len();
        let seconds = tally.elapsed.as_secs_f64();
        let cpu: f64 = servers.iter().map(|server| server.cpu_seconds).sum();
        Self {
            benchmark,
            endpoints: plan.endpoints.iter().map(ToString::to_string).collect(),
            clients: plan.clients,
            connections: plan.connections,
            key_size,
            value_size,
            keys: plan.keys,
            seed: plan.seed,
            interrupted: tally.interrupted,
            operations,
            seconds,
            operations_per_second: ratio(operations, seconds),
            latency_ms: Latency::of(&tally.latency),
            missing: tally.missing,
            failed: tally.failed(),
            errors: tally.errors.clone(),
            server_cpu_seconds_per_10k: (!servers.is_empty() && operations > 0)
                .then(|| cpu * 10_000.0 / count(operations)),
            servers,
        }
    }

    /// Whether there were requests and none was answered.
    pub(super) fn all_failed(&self) -> bool {
        self.operations == 0 && self.failed > 0
    }

    /// Writes the figures for people.
    ///
    /// # Errors
    /// As the writer.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { benchmark, clients, connections, key_size, value_size, keys, .. } = self;
        writeln!(
            out,
            "{benchmark}: {clients} clients, {connections} connections, {keys} keys of {key_size} B, values of \
             {value_size} B{}",
            if self.interrupted { " (interrupted)" } else { "" }
        )?;
        writeln!(out, "  operations  {} in {:.3} s", self.operations, self.seconds)?;
        writeln!(out, "  rate        {:.0} ops/s", self.operations_per_second)?;
        let Latency { mean, p50, p99, p999, max } = &self.latency_ms;
        writeln!(
            out,
            "  latency     mean {mean:.3} ms, p50 {p50:.3} ms, p99 {p99:.3} ms, p999 {p999:.3} ms, max {max:.3} ms"
        )?;
        if self.missing > 0 {
            writeln!(out, "  missing     {}", self.missing)?;
        }
        writeln!(out, "  errors      {}", self.failed)?;
        for (error, times) in &self.errors {
            writeln!(out, "              {times} x {error}")?;
        }
        for server in &self.servers {
            writeln!(
                out,
                "  server      process {}: {:.2} s CPU, {} RSS, {} RSS at most",
                server.pid,
                server.cpu_seconds,
                size(server.rss_bytes),
                size(server.rss_bytes_peak)
            )?;
        }
        match self.server_cpu_seconds_per_10k {
            Some(cost) => writeln!(out, "  server CPU  {cost:.3} s per 10,000 operations"),
            None => Ok(()),
        }
    }
}

impl Latency {
    fn of(nanoseconds: &Histogram<u64>) -> Self {
        let quantile = |quantile| milliseconds(nanoseconds.value_at_quantile(quantile));
        Self {
            mean: nanoseconds.mean() / 1e6,
            p50: quantile(0.5),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: milliseconds(nanoseconds.max()),
        }
    }
}

fn milliseconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64() * 1e3
}

/// A count as a float, for ratios: exact below 2^53.
#[allow(clippy::cast_precision_loss)]
fn count(count: u64) -> f64 {
    count as f64
}

fn ratio(operations: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count(operations) / seconds } else { 0.0 }
}
