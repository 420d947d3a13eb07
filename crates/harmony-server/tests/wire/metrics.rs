//! `/metrics`: names, types and labels as etcd has them, so that dashboards and alerts work.

use std::collections::BTreeMap;

use crate::http::request;
use crate::served::{Served, range};
use harmony_server::proto::etcdserverpb as pb;
use pb::request_op::Request;

/// Every metric of etcd that is served, with its type and its labels in the order of their names. A counter has `_total` behind
/// the name here. etcd's counters without that ending are gauges here, or they would get it.
const METRICS: [(&str, &str, &[&str]); 73] = [
    ("etcd_server_has_leader", "gauge", &[]),
    ("etcd_server_is_leader", "gauge", &[]),
    ("etcd_server_is_learner", "gauge", &[]),
    ("etcd_server_id", "gauge", &["server_id"]),
    ("etcd_server_version", "gauge", &["server_version"]),
    ("etcd_cluster_version", "gauge", &["cluster_version"]),
    ("etcd_server_leader_changes_seen_total", "counter", &[]),
    ("etcd_server_learner_promote_successes", "gauge", &[]),
    ("etcd_server_learner_promote_failures", "gauge", &["Reason"]),
    ("etcd_server_proposals_committed_total", "gauge", &[]),
    ("etcd_server_proposals_applied_total", "gauge", &[]),
    ("etcd_server_proposals_pending", "gauge", &[]),
    ("etcd_server_proposals_failed_total", "counter", &[]),
    ("etcd_server_quota_backend_bytes", "gauge", &[]),
    ("etcd_server_health_success", "gauge", &[]),
    ("etcd_server_health_failures", "gauge", &[]),
    ("etcd_server_healthcheck", "gauge", &["name", "type"]),
    ("etcd_server_healthchecks_total", "counter", &["name", "status", "type"]),
    ("etcd_mvcc_db_total_size_in_bytes", "gauge", &[]),
    ("etcd_mvcc_db_total_size_in_use_in_bytes", "gauge", &[]),
    ("etcd_disk_wal_fsync_duration_seconds", "histogram", &[]),
    ("etcd_disk_backend_commit_duration_seconds", "histogram", &[]),
    ("etcd_network_client_grpc_received_bytes_total", "counter", &[]),
    ("etcd_network_client_grpc_sent_bytes_total", "counter", &[]),
    ("etcd_network_peer_round_trip_time_seconds", "histogram", &["To"]),
    ("etcd_network_peer_sent_bytes_total", "counter", &["To"]),
    ("etcd_network_peer_received_bytes_total", "counter", &["From"]),
    ("etcd_network_peer_sent_failures_total", "counter", &["To"]),
    ("etcd_network_known_peers", "gauge", &["Local", "Remote"]),
    ("etcd_network_active_peers", "gauge", &["Local", "Remote"]),
    ("etcd_network_disconnected_peers_total", "counter", &["Local", "Remote"]),
    ("etcd_debugging_mvcc_current_revision", "gauge", &[]),
    ("etcd_debugging_mvcc_compact_revision", "gauge", &[]),
    ("etcd_debugging_mvcc_watch_stream_total", "gauge", &[]),
    ("etcd_debugging_mvcc_watcher_total", "gauge", &[]),
    ("etcd_debugging_mvcc_slow_watcher_total", "gauge", &[]),
    ("etcd_debugging_mvcc_events_total", "counter", &[]),
    ("etcd_debugging_mvcc_pending_events_total", "gauge", &[]),
    ("etcd_server_heartbeat_send_failures_total", "counter", &[]),
    ("etcd_server_slow_apply_total", "counter", &[]),
    ("etcd_server_slow_read_indexes_total", "counter", &[]),
    ("etcd_server_read_indexes_failed_total", "counter", &[]),
    ("etcd_server_snapshot_apply_in_progress_total", "gauge", &[]),
    ("etcd_server_client_requests_total", "counter", &["client_api_version", "type"]),
    ("etcd_mvcc_range_total", "counter", &[]),
    ("etcd_mvcc_put_total", "counter", &[]),
    ("etcd_mvcc_delete_total", "counter", &[]),
    ("etcd_mvcc_txn_total", "counter", &[]),
    ("etcd_disk_wal_write_bytes_total", "gauge", &[]),
    ("etcd_disk_defrag_inflight", "gauge", &[]),
    ("etcd_disk_backend_defrag_duration_seconds", "histogram", &[]),
    ("etcd_disk_backend_snapshot_duration_seconds", "histogram", &[]),
    ("etcd_network_snapshot_send_inflights_total", "gauge", &["To"]),
    ("etcd_network_snapshot_receive_inflights_total", "gauge", &["From"]),
    ("etcd_network_snapshot_send_total_duration_seconds", "histogram", &["To"]),
    ("etcd_network_snapshot_receive_total_duration_seconds", "histogram", &["From"]),
    ("etcd_debugging_lease_granted_total", "counter", &[]),
    ("etcd_debugging_lease_revoked_total", "counter", &[]),
    ("etcd_debugging_lease_ttl_total", "histogram", &[]),
    ("grpc_server_handling_seconds", "histogram", &["grpc_method", "grpc_service", "grpc_type"]),
    ("etcd_debugging_lease_renewed_total", "counter", &[]),
    ("etcd_debugging_server_lease_expired_total", "counter", &[]),
    ("etcd_debugging_server_alarms", "gauge", &["alarm_type", "server_id"]),
    ("grpc_server_started_total", "counter", &["grpc_method", "grpc_service", "grpc_type"]),
    ("grpc_server_handled_total", "counter", &["grpc_code", "grpc_method", "grpc_service", "grpc_type"]),
    ("os_fd_used", "gauge", &[]),
    ("os_fd_limit", "gauge", &[]),
    ("process_resident_memory_bytes", "gauge", &[]),
    ("process_virtual_memory_bytes", "gauge", &[]),
    ("process_open_fds", "gauge", &[]),
    ("process_max_fds", "gauge", &[]),
    ("process_start_time_seconds", "gauge", &[]),
    ("process_cpu_seconds_total", "counter", &[]),
];

/// Types and labels by the name of a metric.
fn parse(text: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let mut found = BTreeMap::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            let ending = if kind == "counter" { "_total" } else { "" };
            family = format!("{name}{ending}");
            let before = found.insert(family.clone(), (kind.to_owned(), Vec::new()));
            assert_eq!(before, None, "{family} is there twice");
        } else if !line.starts_with('#') {
            let labels = line.split_once('{').map_or("", |(_, rest)| rest.rsplit_once('}').unwrap().0);
            let mut names: Vec<String> = labels
                .split("\",")
                .filter_map(|label| Some(label.split_once('=')?.0.to_owned()))
                .filter(|name| name != "le")
                .collect();
            names.sort();
            found.get_mut(&family).unwrap().1 = names;
        }
    }
    found
}

fn value(text: &str, metric: &str) -> f64 {
    let line = text.lines().find(|line| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(' ')));
    let line = line.unwrap_or_else(|| panic!("{metric} is not in\n{text}"));
    line[metric.len() + 1..].parse().unwrap()
}

#[tokio::test]
async fn names_types_and_labels_are_etcds() {
    let options = "quota-backend-bytes = 1000\nmax-learners = 2\nmetrics = 'extensive'\n\
                   listen-peer-urls = 'http://127.0.0.1:0'";
    let mut served = Served::start(options).await;
    served.put("a", "1").await;
    // An alarm, a check, and a member that does not run, or their metrics have nothing to say.
    let large = vec![0_u8; 2000];
    let put = pb::PutRequest { key: "b".into(), value: large.into(), ..Default::default() };
    served.kv.put(put).await.unwrap_err();
    let member = pb::MemberAddRequest { peer_ur_ls: vec!["http://127.0.0.1:9".to_owned()], is_learner: true };
    served.cluster.member_add(member).await.unwrap();
    request(&served, "GET", "/livez").await;
    let text = loop {
        let (_, text) = request(&served, "GET", "/metrics").await;
        // The alarm is raised, and the new member known to the transport, a moment later.
        if text.contains("alarm_type=\"NOSPACE\"") && text.contains("etcd_network_known_peers{") {
            break text;
        }
    };
    let found = parse(&text);
    for (name, kind, labels) in METRICS {
        let labels: Vec<String> = labels.iter().map(ToString::to_string).collect();
        assert_eq!(found.get(name), Some(&(kind.to_owned(), labels)), "{name}");
    }
    let unknown: Vec<&String> = found
        .keys()
        .filter(|name| !name.starts_with("harmony_") && !name.starts_with("etcd_network_snapshot_"))
        .filter(|name| METRICS.iter().all(|(known, ..)| known != name))
        .collect();
    assert_eq!(unknown, Vec::<&String>::new(), "metrics that are not in the list");
    served.stop().await;
}

#[tokio::test]
async fn what_happens_is_counted() {
    let mut served = Served::start("").await;
    let (_, basic) = request(&served, "GET", "/metrics").await;
    assert!(!basic.contains("grpc_server_handling_seconds"), "it is not asked for");
    served.put("a", "1").await;
    let (_, before) = request(&served, "GET", "/metrics").await;
    served.put("a", &"x".repeat(10_000)).await;
    served.get("a").await;
    let delete = pb::DeleteRangeRequest { key: "a".into(), ..Default::default() };
    served.kv.delete_range(delete).await.unwrap();
    let op = |request| pb::RequestOp { request: Some(request) };
    let put = pb::PutRequest { key: "b".into(), ..Default::default() };
    let success = vec![op(Request::RequestPut(put)), op(Request::RequestRange(range("b")))];
    served.kv.txn(pb::TxnRequest { success, ..Default::default() }).await.unwrap();
    let mut versioned = tonic::Request::new(range("b"));
    versioned.metadata_mut().insert("client-api-version", "3.6.0".parse().unwrap());
    served.kv.range(versioned).await.unwrap();
    served.maintenance.defragment(pb::DefragmentRequest {}).await.unwrap();
    let mut backup = served.maintenance.snapshot(pb::SnapshotRequest {}).await.unwrap().into_inner();
    while backup.message().await.unwrap().is_some() {}
    request(&served, "GET", "/health").await;
    request(&served, "GET", "/readyz").await;
    let (_, after) = request(&served, "GET", "/metrics").await;
    let grown = |metric: &str| value(&after, metric) - value(&before, metric);
    assert!(10_000.0 <= grown("etcd_network_client_grpc_received_bytes_total"));
    assert!(10_000.0 <= grown("etcd_network_client_grpc_sent_bytes_total"));
    for (metric, times) in [
        ("etcd_server_health_success", 1.0),
        ("etcd_mvcc_put_total", 2.0),
        ("etcd_mvcc_delete_total", 1.0),
        ("etcd_mvcc_txn_total", 1.0),
        ("etcd_disk_backend_defrag_duration_seconds_count", 1.0),
        ("etcd_disk_backend_snapshot_duration_seconds_count", 1.0),
        ("etcd_disk_defrag_inflight", 0.0),
    ] {
        assert_eq!(grown(metric).to_bits(), f64::to_bits(times), "{metric}: {}", grown(metric));
    }
    // Health reads, too.
    assert!(3.0 <= grown("etcd_mvcc_range_total"));
    assert!(10_000.0 <= grown("etcd_disk_wal_write_bytes_total"));
    let of_version = "etcd_server_client_requests_total{type=\"unary\",client_api_version=\"3.6.0\"}";
    assert_eq!(value(&after, of_version).to_bits(), 1.0_f64.to_bits());
    for check in ["data_corruption", "serializable_read", "linearizable_read", "non_learner"] {
        let labels = format!("type=\"/readyz\",name=\"{check}\"");
        assert_eq!(
            value(&after, &format!("etcd_server_healthcheck{{{labels}}}")).to_bits(),
            1.0_f64.to_bits()
        );
        let good = format!("etcd_server_healthchecks_total{{{labels},status=\"success\"}}");
        assert_eq!(value(&after, &good).to_bits(), 1.0_f64.to_bits());
    }
    served.stop().await;
}
