//! Plain HTTP/1.1 on the port that serves gRPC.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::served::Served;

/// The status line and the body.
pub(crate) async fn request(served: &Served, method: &str, path: &str) -> (String, String) {
    with_body(served, method, path, "").await
}

/// As [`request`], with a body.
pub(crate) async fn with_body(served: &Served, method: &str, path: &str, body: &str) -> (String, String) {
    with_headers(served, &format!("{method} {path}"), "", body).await
}

/// As [`with_body`], with header lines of its own.
pub(crate) async fn with_headers(served: &Served, what: &str, headers: &str, body: &str) -> (String, String) {
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let length = body.len();
    let head = format!(
        "{what} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[tokio::test]
async fn health_and_version_have_etcds_shapes() {
    let mut served = Served::start("").await;
    // A linearizable read is answered once there is a leader.
    served.get("a").await;
    let ok = "HTTP/1.1 200 OK";
    for (path, body) in [
        ("/health", "{\"health\":\"true\",\"reason\":\"\"}"),
        ("/health?serializable=true", "{\"health\":\"true\",\"reason\":\"\"}"),
        ("/livez", "ok\n"),
        ("/livez/serializable_read", "ok\n"),
        ("/readyz", "ok\n"),
        (
            "/readyz?verbose",
            "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n",
        ),
        (
            "/readyz?verbose&exclude=linearizable_read",
            "[+]data_corruption ok\n[+]serializable_read ok\n[+]non_learner ok\nok\n",
        ),
        ("/version", "{\"etcdserver\":\"3.6.14\",\"etcdcluster\":\"3.6.0\",\"storage\":\"3.6.0\"}"),
    ] {
        assert_eq!(request(&served, "GET", path).await, (ok.to_owned(), body.to_owned()), "{path}");
    }
    assert_eq!(request(&served, "POST", "/health").await.0, "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(request(&served, "GET", "/readyz/nothing").await.0, "HTTP/1.1 404 Not Found");
    assert_eq!(request(&served, "GET", "/nothing").await.0, "HTTP/1.1 404 Not Found");
    served.stop().await;
}

#[tokio::test]
async fn metrics_have_etcds_names() {
    let mut served = Served::start("").await;
    served.put("a", "1").await;
    served.kv.put(harmony_server::proto::etcdserverpb::PutRequest::default()).await.unwrap_err();
    let (status, text) = request(&served, "GET", "/metrics").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    for line in [
        "etcd_server_has_leader 1",
        "etcd_server_is_leader 1",
        "etcd_server_quota_backend_bytes 2147483648",
        "harmony_db_damaged 0",
        "grpc_server_started_total{grpc_type=\"unary\",grpc_service=\"etcdserverpb.KV\",grpc_method=\"Put\"} 2",
        "grpc_server_handled_total{grpc_type=\"unary\",grpc_service=\"etcdserverpb.KV\",grpc_method=\"Put\",grpc_code=\"OK\"} 1",
        "grpc_server_handled_total{grpc_type=\"unary\",grpc_service=\"etcdserverpb.KV\",grpc_method=\"Put\",grpc_code=\"InvalidArgument\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    for name in [
        "etcd_server_leader_changes_seen_total ",
        "etcd_server_proposals_committed_total ",
        "etcd_server_proposals_applied_total ",
        "etcd_server_proposals_pending ",
        "etcd_server_proposals_failed_total ",
        "etcd_mvcc_db_total_size_in_bytes ",
        "etcd_mvcc_db_total_size_in_use_in_bytes ",
        "harmony_db_verify_passes_total ",
        "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} ",
        "etcd_disk_wal_fsync_duration_seconds_count ",
        "process_resident_memory_bytes ",
        "process_open_fds ",
        "process_max_fds ",
        "process_start_time_seconds ",
        "process_cpu_seconds_total ",
    ] {
        assert!(text.lines().any(|found| found.starts_with(name)), "{name} is not in\n{text}");
    }
    served.stop().await;
}

#[tokio::test]
async fn the_tree_is_verified_in_the_background() {
    let served = Served::start("").await;
    loop {
        let (_, text) = request(&served, "GET", "/metrics").await;
        if text.lines().any(|line| line == "harmony_db_verify_passes_total 1") {
            assert!(text.lines().any(|line| line == "harmony_db_damaged 0"), "{text}");
            break;
        }
    }
    served.stop().await;
}
