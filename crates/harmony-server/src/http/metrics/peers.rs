//! The other members, as the transport counts them.

use std::fmt;
use std::sync::Arc;

use harmony_node::TcpTransport;
use harmony_node::metrics::{Counter, Histogram};
use harmony_node::transport::PeerMetrics;
use harmony_types::NodeId;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{buckets, seconds};

/// Counts by peer.
pub(super) struct Peers {
    own: NodeId,
    transport: Arc<TcpTransport>,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Peers")
    }
}

/// A counter of each peer: name, help, label, where it stands.
type Row = (&'static str, &'static str, &'static str, fn(&PeerMetrics) -> &Counter);

const COUNTERS: [Row; 7] = [
    ("etcd_network_peer_sent_bytes", "Bytes sent to a peer", "To", |peer| &peer.bytes_sent),
    ("etcd_network_peer_received_bytes", "Bytes received from a peer", "From", |peer| &peer.bytes_received),
    ("etcd_network_peer_sent_failures", "Messages to a peer that were dropped", "To", |peer| {
        &peer.send_failures
    }),
    ("etcd_network_snapshot_send_success", "Snapshots that a peer took", "To", |peer| &peer.snapshots_sent),
    ("etcd_network_snapshot_send_failures", "Snapshots that a peer did not take", "To", |peer| {
        &peer.snapshots_failed
    }),
    ("etcd_network_snapshot_receive_success", "Snapshots taken from a peer", "From", |peer| {
        &peer.snapshots_received
    }),
    ("etcd_network_snapshot_receive_failures", "Snapshots from a peer that were not taken", "From", |peer| {
        &peer.snapshots_refused
    }),
];

/// Snapshots under way.
type Running = (&'static str, &'static str, &'static str, fn(&PeerMetrics) -> u64);

const RUNNING: [Running; 2] = [
    ("etcd_network_snapshot_send_inflights_total", "Snapshots on their way to a peer", "To", |peer| {
        let ended = peer.snapshots_sent.get() + peer.snapshots_failed.get();
        peer.snapshots_begun.get().saturating_sub(ended)
    }),
    ("etcd_network_snapshot_receive_inflights_total", "Snapshots on their way from a peer", "From", |peer| {
        let ended = peer.snapshots_received.get() + peer.snapshots_refused.get();
        peer.snapshots_arriving.get().saturating_sub(ended)
    }),
];

/// How long something took.
type Times = (&'static str, &'static str, &'static str, fn(&PeerMetrics) -> &Histogram);

const TIMES: [Times; 3] = [
    (
        "etcd_network_peer_round_trip_time_seconds",
        "From a question to a peer's transport to its answer",
        "To",
        |peer| &peer.round_trips,
    ),
    (
        "etcd_network_snapshot_send_total_duration_seconds",
        "How long snapshots took that a peer took",
        "To",
        |peer| &peer.snapshot_send_times,
    ),
    (
        "etcd_network_snapshot_receive_total_duration_seconds",
        "How long snapshots took that were taken from a peer",
        "From",
        |peer| &peer.snapshot_receive_times,
    ),
];

impl Peers {
    pub(super) fn new(own: NodeId, transport: Arc<TcpTransport>) -> Self {
        Self { own, transport }
    }
}

impl Collector for Peers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let peers: Vec<(String, Arc<PeerMetrics>)> = self
            .transport
            .peer_metrics()
            .into_iter()
            .map(|(id, metrics)| (id.to_string(), metrics))
            .collect();
        for (name, help, label, counter) in COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (id, metrics) in &peers {
                let labels = [(label, id.as_str())];
                ConstCounter::new(counter(metrics).get()).encode(family.encode_family(&labels)?)?;
            }
        }
        for (name, help, label, running) in RUNNING {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (id, metrics) in &peers {
                let running = i64::try_from(running(metrics)).unwrap_or(i64::MAX);
                ConstGauge::new(running).encode(family.encode_family(&[(label, id.as_str())])?)?;
            }
        }
        for (name, help, label, times) in TIMES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for (id, metrics) in &peers {
                let times = times(metrics);
                let ((buckets, count), sum) = (buckets(times), seconds(times.sum_us()));
                family
                    .encode_family(&[(label, id.as_str())])?
                    .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
        }
        let own = self.own.to_string();
        let name = "etcd_network_disconnected_peers";
        let mut family =
            encoder.encode_descriptor(name, "Connections to a peer that broke", None, MetricType::Counter)?;
        for (id, metrics) in &peers {
            let labels = [("Local", own.as_str()), ("Remote", id.as_str())];
            ConstCounter::new(metrics.disconnects.get()).encode(family.encode_family(&labels)?)?;
        }
        let name = "etcd_network_known_peers";
        let mut family =
            encoder.encode_descriptor(name, "1 for every other member", None, MetricType::Gauge)?;
        for (id, _) in &peers {
            let labels = [("Local", own.as_str()), ("Remote", id.as_str())];
            ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)?;
        }
        let name = "etcd_network_active_peers";
        let help = "1 while messages can be sent to a peer";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (id, metrics) in &peers {
            let labels = [("Local", own.as_str()), ("Remote", id.as_str())];
            let connected = i64::from(metrics.connected.get() != 0);
            ConstGauge::new(connected).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
