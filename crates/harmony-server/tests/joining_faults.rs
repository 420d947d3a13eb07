//! Members whose joining meets something in the way: kills between its steps, TLS, directories of others, nobody who listens.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificates;
mod joiner;
mod kit;
mod process;
mod program;

use std::fs;
use std::path::Path;
use std::time::Duration;

use certificates::Authority;
use harmony_testkit::wait::{PATIENCE, pause, until};
use harmony_testkit::{Client, Ledger, ProcessNode};
use harmony_types::config::{Identity, WalConfig};
use harmony_types::{NodeId, TestCluster};
use harmony_wal::{FileWal, OsFileSystem};
use joiner::{does_not_start, flags, members, members_at, start};
use kit::GrpcClient;
use kit::members::{add, client, free_url, list, remove, votes, wait_for};
use process::Running;
use rustix::process::Signal;
use tonic::Code;

/// Each time it is killed a little later, so that every step is cut short once.
const LATER: Duration = Duration::from_millis(12);

#[test]
fn a_member_that_is_killed_again_and_again_while_it_joins_joins_all_the_same() {
    let (mut cluster, ledger) = (kit::started(3), Ledger::new());
    let through = client(&cluster);
    for number in 0..50 {
        through.put(format!("large {number}").as_bytes(), &[b'x'; 10_000]).unwrap();
        assert!(ledger.write_one(&through).unwrap());
    }
    let reserved = cluster.reserve("n4").unwrap();
    let added = add(&through, &[reserved.url()], false).unwrap().member.unwrap();
    let id = NodeId::new(added.id).unwrap();
    cluster.adopt(reserved, id).unwrap();
    let mut kills = 0;
    while !votes(&list(&through), "n4") {
        cluster.spawn_node(id).unwrap();
        pause(kills * LATER);
        cluster.kill_node(id).unwrap();
        kills += 1;
        assert!(ledger.write_one(&through).unwrap());
    }
    assert!(2 < kills, "the first kills are too early to join before");
    cluster.restart_node(id).unwrap();
    assert_eq!(list(&through).len(), 4);
    cluster.check_agreement().unwrap();
    for node in cluster.running() {
        ledger.check(node.client()).unwrap();
    }
}

/// Makes a directory in which the log was begun, and nothing else: where a joining member may be killed.
fn begin(dir: &Path, identity: Identity) {
    let wal = dir.join("harmony.data/member/wal");
    fs::create_dir_all(&wal).unwrap();
    drop(FileWal::open(OsFileSystem::new(), &wal, WalConfig { identity, ..WalConfig::default() }).unwrap());
}

#[test]
fn a_directory_that_was_only_begun_joins_as_the_member_it_was_begun_for_and_no_other() {
    let cluster = kit::started(1);
    let through = client(&cluster);
    through.put(b"k", b"v").unwrap();
    let cluster_id = through.status().map(|_| cluster_id(&through)).unwrap();
    let url = free_url();
    let said = members(&cluster, &["add", "n2", &format!("--peer-urls={url}")]);
    let id = |members: Vec<harmony_server::proto::etcdserverpb::Member>| {
        members.into_iter().find(|member| member.peer_ur_ls == [url.clone()]).unwrap().id
    };
    let first = id(list(&through));
    let identity = |cluster, member| Identity { cluster, node: NodeId::new(member) };
    let own = tempfile::tempdir().unwrap();
    begin(own.path(), identity(cluster_id, first));

    // Of another cluster, or for a member that was removed since.
    let other = tempfile::tempdir().unwrap();
    begin(other.path(), identity(harmony_types::ClusterId(7), first));
    let parts = ["belongs to cluster 7, but the members that --initial-cluster names belong to cluster"];
    does_not_start(other.path(), &flags(&said), &parts);
    remove(&through, first).unwrap();
    let said = members(&cluster, &["add", "n2", &format!("--peer-urls={url}")]);
    does_not_start(own.path(), &flags(&said), &["was begun for member", "holds no data yet, so remove it"]);

    let again = tempfile::tempdir().unwrap();
    begin(again.path(), identity(cluster_id, id(list(&through))));
    let two = start(again.path(), &flags(&said));
    wait_for(&through, "n2 to vote", |members| votes(members, "n2"));
    let of_two = GrpcClient::new(&two.address).unwrap();
    let seen = until("a read at n2", PATIENCE, || of_two.get(b"k")).unwrap().unwrap();
    assert_eq!(seen.value, b"v".as_slice());
}

fn cluster_id(client: &GrpcClient) -> harmony_types::ClusterId {
    let request = harmony_server::proto::etcdserverpb::StatusRequest {};
    let status = client.maintenance(async |it| it.status(request).await).unwrap();
    harmony_types::ClusterId(status.header.unwrap().cluster_id)
}

#[test]
fn a_directory_of_another_cluster_does_not_join() {
    let dir = tempfile::tempdir().unwrap();
    let url = free_url();
    let old = ["--name", "n4", "--listen-peer-urls", &url, "--initial-advertise-peer-urls", &url];
    let alone = Running::start(dir.path(), &old);
    let of_alone = GrpcClient::new(&alone.address).unwrap();
    until("a put", PATIENCE, || of_alone.put(b"k", b"of the other cluster")).unwrap();
    assert_eq!(alone.signal(Signal::TERM).0, Some(0));

    // The same machine, address and name in a new cluster: what was left from the old one is in the way.
    let cluster = kit::started(1);
    let said = members(&cluster, &["add", "n4", &format!("--peer-urls={url}")]);
    let parts = ["belongs to cluster", "the members that --initial-cluster names belong to cluster"];
    does_not_start(dir.path(), &flags(&said), &parts);
    assert_eq!(list(&client(&cluster)).iter().filter(|member| member.name.is_empty()).count(), 1);

    // The refusal changed nothing. Who finds nobody to ask goes on.
    let named = format!("n4={url},n5={}", free_url());
    let flags = ["--initial-cluster-state", "existing", "--initial-cluster", &named];
    let alone = Running::start(dir.path(), &[&old[..], &flags].concat());
    let of_alone = GrpcClient::new(&alone.address).unwrap();
    let seen = until("a read", PATIENCE, || of_alone.get(b"k")).unwrap().unwrap();
    assert_eq!(seen.value, b"of the other cluster".as_slice());
}

#[test]
fn nobody_is_added_to_a_member_that_does_not_listen_for_peers_until_it_does() {
    let (dir, joins) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let alone = Running::start(dir.path(), &[]);
    let (own, url) = (free_url(), free_url());
    let of_alone = GrpcClient::new(&alone.address).unwrap();
    let status = add(&of_alone, &[&url], false).unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    for part in ["this member does not listen for peers", "--listen-peer-urls", "`harmony members update`"] {
        assert!(status.message().contains(part), "{part:?} is not in {status:?}");
    }
    assert_eq!(list(&of_alone).len(), 1);
    drop(alone);

    // What it says is what helps.
    let alone = Running::start(dir.path(), &["--listen-peer-urls", &own]);
    let of_alone = GrpcClient::new(&alone.address).unwrap();
    until("a put", PATIENCE, || of_alone.put(b"k", b"v")).unwrap();
    let id = format!("{:x}", list(&of_alone)[0].id);
    members_at(&alone.address, &["update", &id, &format!("--peer-urls={own}")]).succeeds();
    let said = members_at(&alone.address, &["add", "n2", &format!("--peer-urls={url}")]);
    let _two = start(joins.path(), &flags(&said));
    wait_for(&of_alone, "n2 to vote", |members| votes(members, "n2"));
}

#[test]
fn a_member_joins_over_mutual_tls_and_one_with_a_strangers_certificate_does_not() {
    let files = tempfile::tempdir().unwrap();
    let strangers = tempfile::tempdir().unwrap();
    let authority = Authority::new(files.path(), "ca");
    let tls = |dir: &Path, name: &str| {
        let path = |file: &str| dir.join(file).display().to_string();
        let (cert, key) = (path(&format!("{name}.crt")), path(&format!("{name}.key")));
        let flags = ["--peer-cert-file", &cert, "--peer-key-file", &key, "--peer-trusted-ca-file"];
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        [flags, vec![path("ca.ca"), "--peer-client-cert-auth".to_owned()]].concat()
    };
    let url = free_url().replace("http", "https");
    let first = ["--name", "n1", "--listen-peer-urls", &url, "--initial-advertise-peer-urls", &url];
    let first: Vec<String> = first.iter().map(ToString::to_string).collect();
    authority.issue("n1");
    authority.issue("n2");
    Authority::new(strangers.path(), "ca").issue("n2");
    let (one_dir, two_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one = start(one_dir.path(), &[first, tls(files.path(), "n1")].concat());
    let through = GrpcClient::new(&one.address).unwrap();
    until("a put", PATIENCE, || through.put(b"k", b"v")).unwrap();

    let url = free_url().replace("http", "https");
    let said = members_at(&one.address, &["add", "n2", &format!("--peer-urls={url}")]);
    let strange = [flags(&said), tls(strangers.path(), "n2")].concat();
    let nobody = ["no member of the running cluster says who belongs to it"];
    does_not_start(tempfile::tempdir().unwrap().path(), &strange, &nobody);
    assert!(!votes(&list(&through), "n2"));

    let two = start(two_dir.path(), &[flags(&said), tls(files.path(), "n2")].concat());
    wait_for(&through, "n2 to vote", |members| votes(members, "n2"));
    let of_two = GrpcClient::new(&two.address).unwrap();
    assert_eq!(of_two.get(b"k").unwrap().unwrap().value, b"v".as_slice());
    of_two.put(b"k", b"through two").unwrap();
    assert_eq!(through.get(b"k").unwrap().unwrap().value, b"through two".as_slice());
}

/// Sequence number of the oldest segment of a member's log.
fn oldest_segment(node: &ProcessNode) -> String {
    let files = fs::read_dir(node.data_dir().join("member/wal")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".wal")).min().expect("a segment")
}

#[test]
fn a_member_joins_through_a_snapshot_where_the_log_begins_later() {
    let flags = ["--snapshot-catchup-entries", "5", "--wal-segment-bytes", "4096"];
    let (mut cluster, ledger) = (kit::cluster_with(&flags, &std::sync::Arc::default()), Ledger::new());
    cluster.start(3).unwrap();
    let through = client(&cluster);
    for number in 0..40 {
        assert!(ledger.write_one(&through).unwrap());
        through.put(format!("large {number}").as_bytes(), &[b'x'; 1000]).unwrap();
    }
    until("the log's beginning is given up", PATIENCE, || {
        match cluster.running().find(|node| oldest_segment(node).starts_with("0000000000000001-")) {
            None => Ok(()),
            Some(node) => Err(format!("member {} has its first segment", node.id()).into()),
        }
    })
    .unwrap();
    let reserved = cluster.reserve("n4").unwrap();
    let added = add(&through, &[reserved.url()], false).unwrap().member.unwrap();
    let id = NodeId::new(added.id).unwrap();
    cluster.adopt(reserved, id).unwrap();
    cluster.restart_node(id).unwrap();
    wait_for(&through, "n4 to vote", |members| votes(members, "n4"));
    let log = cluster.node(id).unwrap().log();
    assert!(log.contains("snapshot installed"), "{log}");

    // It counts: one more may be away than before.
    let away = cluster.other(id).id();
    cluster.kill_node(away).unwrap();
    until("a put through the new member", PATIENCE, || {
        match ledger.write_one(cluster.node(id).ok_or("it runs")?.client())? {
            true => Ok(()),
            false => Err("refused".into()),
        }
    })
    .unwrap();
    cluster.restart_node(away).unwrap();
    cluster.check_agreement().unwrap();
    for node in cluster.running() {
        ledger.check(node.client()).unwrap();
    }
}
