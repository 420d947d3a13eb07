//! `/metrics`, with etcd's names and labels (ETCD API, section 16), so that its dashboards and alerts work.
//!
//! Nothing is registered and updated twice: the node, storage and the network thread count for themselves, and a scrape
//! collects.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use harmony_node::TcpTransport;
use harmony_node::metrics::Histogram;
use harmony_types::NodeId;
use harmony_types::error::MembershipError;
use harmony_types::raft::RaftState;
use harmony_wal::FileWal;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::api::Api;
use crate::api::status::ApiError;
use crate::net::methods::{CODES, Counters};
use crate::version;
use health::{Health, HealthMetrics};
use peers::Peers;
use process::ProcessStats;
use storage::Storage;

pub(crate) mod health;
mod peers;
mod process;
mod storage;

/// The type of the answer.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that a scrape collects.
pub(crate) struct Metrics {
    registry: Registry,
}

impl Metrics {
    pub(crate) fn new(
        api: Arc<Api>,
        transport: Arc<TcpTransport>,
        counters: Arc<Counters>,
        health: Arc<HealthMetrics>,
        wal: Arc<FileWal>,
    ) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Peers::new(api.member, transport)));
        registry.register_collector(Box::new(Storage::new(Arc::clone(&api), wal)));
        registry.register_collector(Box::new(Server { api }));
        registry.register_collector(Box::new(Grpc { counters }));
        registry.register_collector(Box::new(Health(health)));
        registry.register_collector(Box::new(Process));
        Self { registry }
    }

    /// The whole text.
    ///
    /// # Errors
    /// A metric that the format cannot hold, or storage does not answer. May wait for storage: not for the network thread.
    pub(crate) fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    metric.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

/// The format adds `_total` to the name.
fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
}

fn histogram(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, times: &Histogram) -> fmt::Result {
    let (buckets, count) = buckets(times);
    encoder.encode_descriptor(name, help, None, MetricType::Histogram)?.encode_histogram::<NoLabelSet>(
        seconds(times.sum_us()),
        count,
        &buckets,
        None,
    )
}

/// The node and its storage.
struct Server {
    api: Arc<Api>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server")
    }
}

impl Collector for Server {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let (node, storage) = (self.api.node.metrics(), &self.api.storage);
        let status = self.api.node.status();
        let is_leader = status.state == RaftState::Leader;
        gauge(encoder, "etcd_server_has_leader", "1 when a leader is known", status.leader.is_some().into())?;
        gauge(encoder, "etcd_server_is_leader", "1 when this member leads", is_leader.into())?;
        gauge(
            encoder,
            "etcd_server_is_learner",
            "1 when this member is a learner",
            status.is_learner.into(),
        )?;
        counter(
            encoder,
            "etcd_server_leader_changes_seen",
            "Leader changes seen",
            node.leader_changes.get(),
        )?;
        // A counter in etcd, without the ending that the format asks of counters: as a gauge it keeps its name.
        gauge(
            encoder,
            "etcd_server_learner_promote_successes",
            "Learners made voters by this leader",
            node.promotions.get(),
        )?;
        // etcd has these two as gauges with a counter's name: they start at the log's index.
        gauge(encoder, "etcd_server_proposals_committed_total", "Commit index", status.commit.0)?;
        gauge(encoder, "etcd_server_proposals_applied_total", "Applied index", status.applied.0)?;
        gauge(
            encoder,
            "etcd_server_proposals_pending",
            "Proposals not yet applied",
            node.proposals_pending.get(),
        )?;
        counter(
            encoder,
            "etcd_server_proposals_failed",
            "Proposals without an outcome",
            node.proposals_failed.get(),
        )?;
        let late = node.late_beats.get();
        counter(encoder, "etcd_server_heartbeat_send_failures", "Beats of this leader that came late", late)?;
        let slow = node.slow_applies.get();
        counter(encoder, "etcd_server_slow_apply", "Batches of commands whose apply took over 100 ms", slow)?;
        let reads = &self.api.reads;
        counter(
            encoder,
            "etcd_server_slow_read_indexes",
            "Rounds for linearizable reads that nobody answered in time",
            reads.slow.get(),
        )?;
        counter(
            encoder,
            "etcd_server_read_indexes_failed",
            "Rounds for linearizable reads that were refused",
            reads.failed.get(),
        )?;
        gauge(
            encoder,
            "etcd_server_snapshot_apply_in_progress_total",
            "1 while a leader's snapshot takes the place of the state",
            node.snapshot_installing.get(),
        )?;
        let quota = self.api.limits.quota.map_or(0, |quota| quota.bytes);
        gauge(encoder, "etcd_server_quota_backend_bytes", "Quota, 0 for none", quota)?;
        gauge(
            encoder,
            "etcd_mvcc_db_total_size_in_bytes",
            "Bytes on disk",
            storage.disk_bytes().map_err(|_| fmt::Error)?,
        )?;
        gauge(
            encoder,
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "Bytes of live data",
            storage.live_bytes(),
        )?;
        let revision = storage.revision().as_i64().unsigned_abs();
        gauge(encoder, "etcd_debugging_mvcc_current_revision", "Newest revision", revision)?;
        let compacted = storage.compact_revision().as_i64().unsigned_abs();
        gauge(encoder, "etcd_debugging_mvcc_compact_revision", "Compact revision", compacted)?;
        let verified = storage.verification();
        counter(encoder, "harmony_db_verify_passes", "Times that the whole tree was read", verified.passes)?;
        let damaged = u64::from(verified.damage.is_some());
        let (space, waits) = (node.disk_space.get(), node.apply_waits.get());
        gauge(encoder, "harmony_disk_space", "Disk: 0 enough, 1 low: puts are refused, 2 out", space)?;
        gauge(encoder, "harmony_apply_waits", "1 while the state machine waits for room on the disk", waits)?;
        let corrupt = node.corrupt.get();
        gauge(encoder, "harmony_corrupt", "1 while this state differs from the majority's", corrupt)?;
        counter(
            encoder,
            "harmony_repairs",
            "Times that it was replaced because of that",
            node.repairs.get(),
        )?;
        let undecided = node.hashes_undecided.get();
        counter(encoder, "harmony_hashes_undecided", "Differing states without a majority", undecided)?;
        let refused = node.proposals_no_space.get();
        counter(
            encoder,
            "harmony_proposals_no_space",
            "Proposals refused as the disk is nearly full",
            refused,
        )?;
        gauge(encoder, "harmony_db_damaged", "1 when the last one met damage", damaged)?;
        self.watches(encoder)?;
        self.leases(encoder)?;
        self.disk(encoder)?;
        self.alarms(encoder)?;
        let refused = node.promotions_refused.get();
        self.refused_promotions(encoder, refused)?;
        self.labelled(encoder)
    }
}

impl Server {
    fn watches(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let watches = self.api.watches.hub.metrics();
        gauge(encoder, "etcd_debugging_mvcc_watch_stream_total", "Watch streams", watches.streams.get())?;
        gauge(encoder, "etcd_debugging_mvcc_watcher_total", "Watchers", watches.watchers.get())?;
        gauge(
            encoder,
            "etcd_debugging_mvcc_slow_watcher_total",
            "Watchers that are behind",
            watches.slow_watchers.get(),
        )?;
        gauge(
            encoder,
            "etcd_debugging_mvcc_pending_events_total",
            "Events in memory that wait for their watchers",
            watches.events_waiting.get(),
        )?;
        counter(encoder, "etcd_debugging_mvcc_events", "Events told to watchers", watches.events.get())
    }

    fn leases(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let leases = self.api.leases.keeper.metrics();
        counter(
            encoder,
            "etcd_debugging_lease_granted",
            "Leases that this member saw granted",
            leases.granted.get(),
        )?;
        histogram(encoder, "etcd_debugging_lease_ttl_total", "Seconds that they were granted", &leases.ttls)?;
        counter(
            encoder,
            "etcd_debugging_lease_revoked",
            "Leases that this member saw go, revoked or over",
            leases.revoked.get(),
        )?;
        counter(
            encoder,
            "etcd_debugging_lease_renewed",
            "Leases renewed by this leader",
            leases.renewed.get(),
        )?;
        counter(
            encoder,
            "etcd_debugging_server_lease_expired",
            "Leases whose time was over on this leader",
            leases.expired.get(),
        )
    }

    fn disk(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let node = self.api.node.metrics();
        for (name, help, times) in [
            ("etcd_disk_wal_fsync_duration_seconds", "How long syncs of the log took", &node.syncs),
            (
                "etcd_disk_backend_commit_duration_seconds",
                "How long checkpoints took",
                &node.checkpoint_times,
            ),
        ] {
            histogram(encoder, name, help, times)?;
        }
        Ok(())
    }

    /// By etcd's reason, of which there is one here.
    fn refused_promotions(&self, encoder: &mut DescriptorEncoder<'_>, refused: u64) -> fmt::Result {
        let name = "etcd_server_learner_promote_failures";
        let help = "Learners that this leader did not make voters";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        let reason = ApiError::from(MembershipError::LearnerNotReady).message;
        let labels = [("Reason", &*reason)];
        ConstGauge::new(i64::try_from(refused).unwrap_or(i64::MAX)).encode(family.encode_family(&labels)?)
    }

    /// Those that are raised, by member and type.
    fn alarms(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let name = "etcd_debugging_server_alarms";
        let mut family = encoder.encode_descriptor(name, "1 for a raised alarm", None, MetricType::Gauge)?;
        for (member, alarm) in self.api.alarms_by_member() {
            let labels = [("server_id", member.as_str()), ("alarm_type", alarm)];
            ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn labelled(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family =
            encoder.encode_descriptor("etcd_server_id", "Id of this member", None, MetricType::Gauge)?;
        let id = [("server_id", NodeId::to_string(&self.api.member))];
        ConstGauge::new(1_i64).encode(family.encode_family(&id)?)?;
        let mut family = encoder.encode_descriptor(
            "etcd_server_version",
            "Release of etcd whose API is served",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(1_i64).encode(family.encode_family(&[("server_version", version::API)])?)?;
        let mut family = encoder.encode_descriptor(
            "etcd_cluster_version",
            "Version of the API",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(1_i64).encode(family.encode_family(&[("cluster_version", version::API_MINOR)])?)
    }
}

/// The RPCs.
struct Grpc {
    counters: Arc<Counters>,
}

impl fmt::Debug for Grpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Grpc")
    }
}

impl Collector for Grpc {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, bytes) in [
            (
                "etcd_network_client_grpc_received_bytes",
                "Bytes from clients on the ports for gRPC, heads and JSON included",
                &self.counters.bytes_received,
            ),
            (
                "etcd_network_client_grpc_sent_bytes",
                "Bytes to clients on the ports for gRPC, heads and JSON included",
                &self.counters.bytes_sent,
            ),
        ] {
            counter(&mut encoder, name, help, bytes.load(Ordering::Relaxed))?;
        }
        let mut family =
            encoder.encode_descriptor("grpc_server_started", "RPCs begun", None, MetricType::Counter)?;
        for (method, counters) in self.counters.iter() {
            let labels = [
                ("grpc_type", method.form.as_str()),
                ("grpc_service", method.service.as_str()),
                ("grpc_method", method.name),
            ];
            ConstCounter::new(counters.started.load(Ordering::Relaxed))
                .encode(family.encode_family(&labels)?)?;
        }
        let mut family = encoder.encode_descriptor(
            "grpc_server_handled",
            "RPCs ended, by their code",
            None,
            MetricType::Counter,
        )?;
        for (method, counters) in self.counters.iter() {
            for (code, handled) in CODES.into_iter().zip(&counters.handled) {
                let labels = [
                    ("grpc_type", method.form.as_str()),
                    ("grpc_service", method.service.as_str()),
                    ("grpc_method", method.name),
                    ("grpc_code", code),
                ];
                ConstCounter::new(handled.load(Ordering::Relaxed)).encode(family.encode_family(&labels)?)?;
            }
        }
        self.handling(&mut encoder)?;
        let name = "etcd_server_client_requests";
        let help = "RPCs begun, by the release that their client is for";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (version, requests) in self.counters.clients() {
            for (form, count) in [("unary", requests.unary), ("stream", requests.stream)] {
                let labels = [("type", form), ("client_api_version", version.as_str())];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl Grpc {
    /// Only where it is asked for: hundreds of lines.
    fn handling(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut timed = self.counters.handling().peekable();
        if timed.peek().is_none() {
            return Ok(());
        }
        let name = "grpc_server_handling_seconds";
        let mut family =
            encoder.encode_descriptor(name, "How long unary RPCs took", None, MetricType::Histogram)?;
        for (method, times) in timed {
            let labels = [
                ("grpc_type", method.form.as_str()),
                ("grpc_service", method.service.as_str()),
                ("grpc_method", method.name),
            ];
            let (buckets, count) = buckets(times);
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                seconds(times.sum_us()),
                count,
                &buckets,
                None,
            )?;
        }
        Ok(())
    }
}

/// The process.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        // Only Linux tells; elsewhere the metrics are missing rather than wrong.
        let Some(stats) = ProcessStats::read() else { return Ok(()) };
        gauge(encoder, "process_resident_memory_bytes", "Memory in use", stats.resident_bytes)?;
        gauge(encoder, "process_virtual_memory_bytes", "Address space in use", stats.virtual_bytes)?;
        gauge(encoder, "process_open_fds", "Open file descriptors", stats.open_files)?;
        gauge(encoder, "process_max_fds", "Most open file descriptors", stats.max_files)?;
        // The same by etcd's own names.
        gauge(encoder, "os_fd_used", "Open file descriptors", stats.open_files)?;
        gauge(encoder, "os_fd_limit", "Most open file descriptors", stats.max_files)?;
        let start = encoder.encode_descriptor(
            "process_start_time_seconds",
            "Start of the process, seconds since 1970",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(stats.start_seconds).encode(start)?;
        let cpu = encoder.encode_descriptor(
            "process_cpu_seconds",
            "CPU time used, user and system",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(stats.cpu_seconds).encode(cpu)
    }
}

/// Counts with the upper bounds of their buckets, and the sum of the counts.
fn buckets(histogram: &Histogram) -> (Vec<(f64, u64)>, u64) {
    let bounds = histogram.bounds_us().iter().map(|bound_us| seconds(*bound_us)).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(histogram.buckets()).collect();
    let count = buckets.iter().map(|(_, count)| count).sum();
    (buckets, count)
}

#[expect(clippy::cast_precision_loss, reason = "2^53 microseconds are 285 years")]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}
