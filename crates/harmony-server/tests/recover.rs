//! A majority that is lost for good, on real processes: what is left answers what it has and acknowledges nothing, and becomes a new
//! cluster only when it is told so in words.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;
mod process;
mod program;

use std::fs;
use std::path::Path;

use harmony_server::proto::etcdserverpb as pb;
use harmony_testkit::{Client, Ledger, ProcessCluster};
use harmony_types::{NodeId, TestCluster};
use kit::GrpcClient;
use process::Running;
use program::{HARMONY, Said, run};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn recover(from: &Path, to: &Path, more: &[&str]) -> Said {
    let args =
        ["db", "unsafe-recover", text(from), "--data-dir", text(to), "--initial-cluster-token", "again"];
    run(HARMONY, args.iter().chain(more), "")
}

/// Three members of which two are lost while the third leads: it has a put that was not committed any more.
fn lost(ledger: &Ledger) -> (ProcessCluster, NodeId) {
    let mut cluster = kit::started(3);
    let leader = cluster.leader().unwrap();
    for _ in 0..20 {
        kit::write(&cluster, ledger, leader);
    }
    cluster.check_agreement().unwrap();
    for id in cluster.node_ids() {
        if id != leader {
            cluster.kill_node(id).unwrap();
        }
    }
    (cluster, leader)
}

#[test]
fn what_is_left_of_a_lost_majority_becomes_a_new_cluster_in_plain_words_only() {
    let ledger = Ledger::new();
    let (mut cluster, left) = lost(&ledger);
    let node = cluster.node(left).unwrap();
    let (from, client) = (node.data_dir(), GrpcClient::new(&node.endpoint()).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(!ledger.write_one(node.client()).unwrap(), "one of three acknowledged a put"));
        scope.spawn(|| assert!(node.client().get(b"ledger/00000000").is_err(), "one of three answered"));
        assert!(client.get_serializable(b"ledger/00000000").unwrap().is_some());
    });
    let put_behind = client.get_serializable(b"ledger/00000020").unwrap();
    assert!(put_behind.is_none(), "what is not committed is not visible");
    let status = client.maintenance(async |it| it.status(pb::StatusRequest {}).await).unwrap();
    let old_cluster = status.header.unwrap().cluster_id;

    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("new");
    let sure = ["--i-accept-data-loss"];
    let in_use = recover(&from, &to, &sure);
    in_use.fails(1, &format!("error: data directory {} is in use", text(&from)));
    cluster.kill_node(left).unwrap();
    let planned = recover(&from, &to, &[]);
    assert_eq!(planned.code, Some(1), "{planned:?}");
    assert!(
        planned.err.starts_with("error: nothing was made; when the other members are gone for good"),
        "{planned:?}"
    );
    assert!(planned.out.contains("loses       what the other members committed"), "{planned:?}");
    assert!(!to.exists());
    recover(dir.path(), &to, &sure).fails(1, &format!("error: {} holds no member", text(dir.path())));

    let done = recover(&from, &to, &sure);
    let report = fs::read_to_string(to.join("unsafe-recover.txt")).unwrap();
    assert!(done.succeeds().starts_with(&report), "{done:?}");
    assert!(report.starts_with(&planned.out) && report.contains("alone, at revision "), "{report}");
    recover(&from, &to, &sure).fails(1, &format!("error: {} is not empty", text(&to)));

    let server = Running::start(dir.path(), &["--data-dir", text(&to), "--initial-cluster-token", "again"]);
    let new = GrpcClient::new(&server.address).unwrap();
    ledger.check(&new).unwrap();
    assert!(ledger.write_one(&new).unwrap());
    let list = new.cluster(async |it| it.member_list(pb::MemberListRequest::default()).await).unwrap();
    assert_eq!(list.members.len(), 1);
    assert_ne!(list.header.unwrap().cluster_id, old_cluster);
    assert!(new.get(b"ledger/00000020").unwrap().is_some(), "what stood behind the commit index is kept");
    drop(server);
    // Killed and started again, it is all there.
    let server = Running::start(dir.path(), &["--data-dir", text(&to), "--initial-cluster-token", "again"]);
    ledger.check(&GrpcClient::new(&server.address).unwrap()).unwrap();
    drop(server);
    let same = recover(&to, &dir.path().join("same"), &sure);
    same.fails(1, "error: the new cluster would have the id ");
}

#[test]
fn a_directory_that_was_recovered_from_can_go_on_when_the_others_come_back() {
    let ledger = Ledger::new();
    let (mut cluster, left) = lost(&ledger);
    let from = cluster.node(left).unwrap().data_dir();
    cluster.kill_node(left).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let bump = ["--i-accept-data-loss", "--bump-revision", "1000", "--mark-compacted"];
    let done = recover(&from, &dir.path().join("new"), &bump);
    assert!(done.succeeds().contains("alone, at revision 1021,"), "{done:?}");
    for id in cluster.node_ids() {
        cluster.spawn_node(id).unwrap();
    }
    for id in cluster.node_ids() {
        cluster.wait_until_serving(id).unwrap();
    }
    kit::write(&cluster, &ledger, left);
    kit::check(&cluster, &ledger);
}
