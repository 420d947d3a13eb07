//! Backups with the program: saved from a cluster that serves, looked at, and made into new clusters that serve again.

mod kit;
#[allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
mod process;
mod program;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use harmony_server::proto::etcdserverpb as pb;
use harmony_testkit::{Client as _, Ledger};
use kit::GrpcClient;
use pb::watch_client::WatchClient;
use process::Running;
use program::{HARMONY, Said, run};
use serde_json::Value;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;

fn harmony(args: &[&str]) -> Said {
    run(HARMONY, args, "")
}

fn at(endpoint: &str, args: &[&str]) -> Said {
    harmony(&[&["--endpoints", endpoint], args].concat())
}

/// A backup of 40 keys, written twice, and the last revision.
fn backup(dir: &Path) -> (PathBuf, u64) {
    let cluster = kit::started(3);
    let endpoints: Vec<String> = cluster.nodes().map(|node| node.endpoint()).collect();
    for round in ["old", "new"] {
        for number in 0..40 {
            at(&endpoints[number % 3], &["put", &format!("key{number}"), &format!("{round} {number}")])
                .prints("OK\n");
        }
    }
    // What this member has applied is what is saved.
    at(&endpoints[1], &["get", "key0"]).succeeds();
    let file = dir.join("backup");
    let text = file.to_str().expect("UTF-8").to_owned();
    let said = at(&endpoints[1], &["snapshot", "save", &text]);
    assert!(said.succeeds().starts_with("saved ") && said.out.contains(&text), "{said:?}");
    at(&endpoints.join(","), &["snapshot", "save", &text]).fails(2, "error: a snapshot is of one member");
    (file, 81)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn a_backup_of_three_becomes_one_and_three() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, revision) = backup(dir.path());
    let status: Value =
        serde_json::from_str(harmony(&["snapshot", "status", text(&file), "--json"]).succeeds())
            .expect("JSON");
    assert_eq!((status["revision"].as_u64(), status["totalKey"].as_u64()), (Some(revision), Some(40)));
    assert_eq!(status["totalSize"].as_u64(), fs::metadata(&file).ok().map(|file| file.len()));
    assert!(harmony(&["snapshot", "status", text(&file)]).succeeds().contains("REVISION"));

    // Alone, at a revision that nobody has seen.
    let alone = dir.path().join("alone");
    let bump = ["--bump-revision", "1000", "--mark-compacted"];
    let said =
        harmony(&[&["snapshot", "restore", text(&file), "--data-dir", text(&alone)], &bump[..]].concat());
    said.prints(&format!("restored member default of 1 at revision 1081 in {}\n", text(&alone)));
    let server = Running::start(dir.path(), &["--data-dir", text(&alone)]);
    at(&server.address, &["get", "key7"]).prints("key7\nnew 7\n");
    let old = at(&server.address, &["get", "key7", "--rev", "50"]);
    old.fails(1, "error: etcdserver: mvcc: required revision has been compacted");
    at(&server.address, &["put", "key7", "newer"]).prints("OK\n");
    drop(server);

    // Three again, of which one is killed and comes back.
    let ports: Vec<TcpListener> =
        (0..3).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    let urls: Vec<String> =
        ports.iter().map(|port| format!("http://{}", port.local_addr().expect("bound"))).collect();
    drop(ports);
    let members: Vec<String> = urls.iter().enumerate().map(|(n, url)| format!("m{n}={url}")).collect();
    let members = members.join(",");
    let flags = |n: usize| {
        let data = dir.path().join(format!("m{n}"));
        let name = format!("m{n}");
        [
            "--name",
            &name,
            "--data-dir",
            text(&data),
            "--initial-cluster",
            &members,
            "--initial-cluster-token",
            "again",
            "--initial-advertise-peer-urls",
            &urls[n],
        ]
        .map(str::to_owned)
        .to_vec()
    };
    let start =
        |n: usize| Running::start(dir.path(), &flags(n).iter().map(String::as_str).collect::<Vec<_>>());
    for n in 0..3 {
        let flags = flags(n);
        let args = ["snapshot", "restore", text(&file)].map(str::to_owned);
        run(HARMONY, args.into_iter().chain(flags), "").succeeds();
    }
    let mut servers: Vec<Running> = (0..3).map(start).collect();
    at(&servers[2].address, &["get", "key7"]).prints("key7\nnew 7\n");
    at(&servers[2].address, &["get", "key7", "--rev", "20"]).prints("key7\nold 7\n");
    at(&servers[0].address, &["put", "key7", "newest"]).prints("OK\n");
    servers[1].child.kill().expect("it runs");
    servers[1].child.wait().expect("it was killed");
    servers[1] = start(1);
    at(&servers[1].address, &["get", "key7"]).prints("key7\nnewest\n");
}

#[test]
fn what_is_no_whole_backup_is_refused_and_nothing_is_left() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, _) = backup(dir.path());
    let whole = fs::read(&file).expect("the backup");
    let data = dir.path().join("data");
    let restore = |more: &[&str]| {
        harmony(&[&["snapshot", "restore", text(&file), "--data-dir", text(&data)], more].concat())
    };
    let mut damaged = whole.clone();
    damaged[700] ^= 1;
    fs::write(&file, &damaged).expect("room");
    restore(&[]).fails(1, &format!("error: {} is damaged: its SHA-256 is ", text(&file)));
    let said = restore(&["--skip-hash-check"]);
    assert!(said.code == Some(1) && said.err.contains("snapshot stream, byte "), "{said:?}");
    fs::write(&file, &whole[..whole.len() - 100]).expect("room");
    restore(&[]).fails(1, &format!("error: {} is ", text(&file)));
    harmony(&["snapshot", "status", text(&file)]).fails(1, &format!("error: {} is ", text(&file)));
    fs::write(&file, &whole).expect("room");
    let left: Vec<_> = fs::read_dir(dir.path())
        .expect("a directory")
        .map(|file| file.expect("a file").file_name())
        .collect();
    assert_eq!(left, ["backup"], "nothing is left of the attempts");

    restore(&["--bump-revision", "5"]).fails(2, "error: the following required arguments");
    restore(&[]).succeeds();
    restore(&[]).fails(1, &format!("error: {} is not empty", text(&data)));
    // Without a hash: a copy of the stream as a member keeps it.
    fs::write(&file, &whole[..whole.len() - 32]).expect("room");
    fs::remove_dir_all(&data).expect("a directory");
    restore(&["--skip-hash-check"]).succeeds();
}

/// All rows at a revision, field by field.
fn rows(client: &GrpcClient, revision: i64) -> Vec<harmony_types::KeyValue> {
    let zero = Bytes::from_static(b"\0");
    let request =
        pb::RangeRequest { key: zero.clone(), range_end: zero, revision, ..pb::RangeRequest::default() };
    client.kv(async |kv| kv.range(request).await).expect("all rows").kvs
}

/// The revision at which a watch from `start` is told to begin instead, if its history is gone.
fn compacted(client: &GrpcClient, start: i64) -> Option<i64> {
    let create = pb::WatchCreateRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        start_revision: start,
        ..pb::WatchCreateRequest::default()
    };
    let request_union = Some(pb::watch_request::RequestUnion::CreateRequest(create));
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    sender.try_send(pb::WatchRequest { request_union }).expect("room");
    client.run(async |channel| {
        let requests = ReceiverStream::new(receiver);
        let mut answers = WatchClient::new(channel).watch(requests).await.expect("a stream").into_inner();
        loop {
            let answer = answers.message().await.expect("an answer").expect("it goes on");
            if answer.canceled {
                return Some(answer.compact_revision);
            }
            if !answer.events.is_empty() {
                return None;
            }
        }
    })
}

#[test]
fn a_backup_taken_under_load_is_the_state_at_its_revision_and_old_watchers_hear_of_compaction() {
    let dir = tempfile::tempdir().expect("a directory");
    let (cluster, ledger) = (kit::started(3), Ledger::new());
    let endpoints: Vec<String> = cluster.nodes().map(|node| node.endpoint()).collect();
    let file = dir.path().join("backup");
    kit::under_load(&ledger, &endpoints, 200, || {
        at(&endpoints[0], &["snapshot", "save", text(&file)]).succeeds();
        Ok(())
    })
    .expect("load");
    let status = harmony(&["snapshot", "status", text(&file), "--json"]);
    let status: Value = serde_json::from_str(status.succeeds()).expect("JSON");
    let revision = status["revision"].as_i64().expect("a revision");
    let old = GrpcClient::new(&endpoints[1]).expect("a client");
    let then = rows(&old, revision);
    assert_eq!(status["totalKey"].as_u64(), Some(then.len() as u64));
    assert!(then.len() < rows(&old, 0).len(), "it was taken amid the load");
    cluster.check_agreement().expect("agreement");
    for node in cluster.running() {
        ledger.check(node.client()).expect("nothing is lost");
    }
    drop(cluster);

    let data = dir.path().join("data");
    let bump = ["--bump-revision", "1000000", "--mark-compacted"];
    harmony(&[&["snapshot", "restore", text(&file), "--data-dir", text(&data)], &bump[..]].concat())
        .succeeds();
    let server = Running::start(dir.path(), &["--data-dir", text(&data)]);
    let new = GrpcClient::new(&server.address).expect("a client");
    assert_eq!(rows(&new, 0), then);
    // Whoever watched the old cluster, at whatever revision it was: never silence, never another event under a known number.
    let now = new.put(b"k", b"v").expect("a put").as_i64();
    assert_eq!(now, revision + 1_000_001);
    for start in [1, revision, revision + 1, revision + 5_000, now - 2] {
        assert_eq!(compacted(&new, start), Some(now - 1), "from {start}");
    }
    for start in [now - 1, now] {
        assert_eq!(compacted(&new, start), None, "from {start}: nothing is missing there");
    }
}
