//! A member that was away for longer than the log is kept catches up by a snapshot, over real processes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use std::fs;

use harmony_testkit::wait::{PATIENCE, until};
use harmony_testkit::{Ledger, ProcessCluster, ProcessConfig, ProcessNode};
use harmony_types::{TestCluster, TestNode};

/// A cluster that keeps next to no log.
fn forgetful() -> ProcessCluster {
    let flags = ["--snapshot-catchup-entries", "5", "--wal-segment-bytes", "4096"];
    let extra_args = flags.map(str::to_owned).to_vec();
    let config = ProcessConfig { extra_args, ..ProcessConfig::new(kit::HARMONY) };
    let mut cluster =
        ProcessCluster::new(config, |endpoint| Ok(Box::new(kit::GrpcClient::new(endpoint)?))).unwrap();
    cluster.start(3).unwrap();
    cluster
}

/// Sequence number of the oldest segment.
fn oldest_segment(node: &ProcessNode) -> String {
    let files = fs::read_dir(node.data_dir().join("member/wal")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".wal")).min().expect("a segment")
}

#[test]
fn a_member_that_was_away_too_long_gets_a_snapshot() {
    let (mut cluster, ledger) = (forgetful(), Ledger::new());
    let leader = cluster.leader().unwrap();
    let away = cluster.other(leader).id();
    cluster.kill_node(away).unwrap();
    let writer = cluster.other(away);
    for number in 0..40 {
        assert!(ledger.write_one(writer.client()).unwrap());
        writer.put(format!("large {number}").as_bytes(), &[b'x'; 1000]).unwrap();
    }
    until("the log's beginning is given up", PATIENCE, || {
        match cluster.running().find(|node| oldest_segment(node).starts_with("0000000000000001-")) {
            None => Ok(()),
            Some(node) => Err(format!("member {} has its first segment", node.id()).into()),
        }
    })
    .unwrap();
    cluster.restart_node(away).unwrap();
    cluster.check_agreement().unwrap();
    let node = cluster.node(away).unwrap();
    assert!(node.log().contains("snapshot installed"), "{}", node.log());
    ledger.check(node.client()).unwrap();

    // What came as a snapshot is kept like everything else, and new entries follow it.
    cluster.kill_node(away).unwrap();
    cluster.restart_node(away).unwrap();
    assert!(ledger.write_one(cluster.node(away).unwrap().client()).unwrap());
    cluster.check_agreement().unwrap();
    ledger.check(cluster.node(away).unwrap().client()).unwrap();
}
