//! Three members that speak TLS with each other, and what `/metrics` says of them.

use std::net::TcpListener;

use harmony_server::serve::Server;

use crate::certificates::Authority;
use crate::http::request;
use crate::served::{Served, config};

#[tokio::test]
async fn members_with_certificates_form_a_cluster() {
    let files = tempfile::tempdir().unwrap();
    let authority = Authority::new(files.path(), "ca");
    let ports: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let urls: Vec<String> =
        ports.iter().map(|port| format!("https://{}", port.local_addr().unwrap())).collect();
    drop(ports);
    let cluster = format!("a={},b={},c={}", urls[0], urls[1], urls[2]);
    let mut members = Vec::new();
    for (name, url) in ["a", "b", "c"].iter().zip(&urls) {
        authority.issue(name);
        let path = |file: &str| files.path().join(file).display().to_string();
        let toml = format!(
            "name = '{name}'\ninitial-cluster = '{cluster}'\ninitial-advertise-peer-urls = '{url}'\n\
             peer-cert-file = '{}'\npeer-key-file = '{}'\npeer-trusted-ca-file = '{}'\npeer-client-cert-auth = true\n\
             peer-cert-allowed-cn = 'a,b,c'",
            path(&format!("{name}.crt")),
            path(&format!("{name}.key")),
            path("ca.ca"),
        );
        members.push(Served::start(&toml).await);
    }
    members[0].put("key", "value").await;
    let found = members[2].get("key").await;
    assert_eq!(found.kvs[0].value, "value");
    for member in &members {
        let (_, text) = request(member, "GET", "/metrics").await;
        let with = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
        for (start, count) in [
            ("etcd_network_peer_round_trip_time_seconds_count{To=\"", 2),
            ("etcd_network_peer_round_trip_time_seconds_bucket{le=\"0.0001\",To=\"", 2),
            ("etcd_network_peer_sent_bytes_total{To=\"", 2),
            ("etcd_network_peer_received_bytes_total{From=\"", 2),
            ("etcd_network_peer_sent_failures_total{To=\"", 2),
            ("etcd_network_snapshot_send_success_total{To=\"", 2),
            ("etcd_network_active_peers{Local=\"", 2),
            ("etcd_network_disconnected_peers_total{Local=\"", 2),
        ] {
            assert_eq!(with(start), count, "{start} in\n{text}");
        }
    }
    let stops = members.into_iter().map(Served::stop);
    for stop in stops {
        stop.await;
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named_with_its_flag() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "ca");
    authority.issue("a");
    authority.issue("b");
    let path = |file: &str| dir.path().join(file).display().to_string();
    for (key, ca, parts) in [
        ("b.key", "ca.ca", ["--peer-key-file", "b.key", "not the key of the first certificate"]),
        ("a.key", "none", ["--peer-trusted-ca-file", "none", "check the path"]),
        ("a.key", "a.key", ["--peer-trusted-ca-file", "a.key", "BEGIN CERTIFICATE"]),
    ] {
        let toml = format!(
            "listen-peer-urls = 'https://127.0.0.1:0'\npeer-cert-file = '{}'\npeer-key-file = '{}'\n\
             peer-trusted-ca-file = '{}'",
            path("a.crt"),
            path(key),
            path(ca)
        );
        let config = config(dir.path(), &toml);
        let refused = tokio::task::spawn_blocking(move || Server::start(&config).map(drop)).await.unwrap();
        let text = refused.unwrap_err().to_string();
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }
}
