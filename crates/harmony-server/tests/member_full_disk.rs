//! One member of three whose disk has not a byte left: the others go on, it serves what it has, and comes back by itself when there is
//! room. Its disk is a small tmpfs, see `disks`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod disks;
mod kit;

use std::fs;
use std::sync::Arc;

use disks::{Disk, on_its_own};
use harmony_testkit::wait::{PATIENCE, until};
use harmony_testkit::{Ledger, ProcessCluster, ProcessNode};
use harmony_types::{NodeId, TestCluster, TestNode};
use kit::GrpcClient;

const DISK_BYTES: u64 = 160 << 20;

/// Three members and a disk of the one that leads, or of another.
fn started(leads: bool) -> Option<(ProcessCluster, Disk, NodeId)> {
    let mut cluster = kit::cluster_with(&["--wal-segment-bytes", "1048576"], &Arc::default());
    cluster.start(3).unwrap();
    let leader = cluster.leader().unwrap();
    let id = if leads { leader } else { cluster.other(leader).id() };
    let disk = on_its_own(&mut cluster, id, |dir| Disk::in_memory(dir, DISK_BYTES))?;
    if leads {
        kit::let_lead(&cluster, id);
    }
    Some((cluster, disk, id))
}

/// Waits until a member answers from its own state that it has the first put.
fn serves_what_it_has(node: &ProcessNode) {
    let client = GrpcClient::new(&node.endpoint()).unwrap();
    let found = until("a local read", PATIENCE, || Ok(client.get_serializable(b"ledger/00000000")?)).unwrap();
    assert!(found.is_some());
}

#[test]
fn a_leader_whose_disk_fills_up_under_load_hands_over_and_comes_back_by_itself() {
    let Some((mut cluster, disk, id)) = started(true) else { return };
    let ledger = Ledger::new();
    let endpoints: Vec<String> = cluster.nodes().map(ProcessNode::endpoint).collect();
    let mut ballast = None;
    kit::under_load(&ledger, &endpoints, 50, || {
        ballast = Some(disk.fill(0));
        Ok(())
    })
    .unwrap();
    let other = cluster.other(id).id();
    kit::another_leads(&cluster, &ledger, other, id);
    for _ in 0..50 {
        kit::write(&cluster, &ledger, other);
    }
    serves_what_it_has(cluster.node(id).unwrap());

    fs::remove_file(ballast.unwrap()).unwrap();
    kit::check(&cluster, &ledger);
    kit::write(&cluster, &ledger, id);
    let log = cluster.node(id).unwrap().log();
    assert_eq!(log.matches("harmony serves").count(), 2, "it was started twice, and never by this:\n{log}");
    // What it logged meanwhile has no hole and no torn entry.
    cluster.kill_node(id).unwrap();
    cluster.restart_node(id).unwrap();
    kit::check(&cluster, &ledger);
}

#[test]
fn a_follower_without_a_free_byte_costs_nothing_is_started_again_and_comes_back_by_itself() {
    let Some((mut cluster, disk, id)) = started(false) else { return };
    let ledger = Ledger::new();
    let leader = cluster.leader().unwrap();
    kit::write(&cluster, &ledger, leader);
    cluster.check_agreement().unwrap();
    let ballast = disk.fill(0);
    disk.fill_the_rest();
    let term = cluster.node(leader).unwrap().term();
    for number in 0..50 {
        kit::write(&cluster, &ledger, leader);
        let large = cluster.node(leader).unwrap().put(format!("large {number}").as_bytes(), &[b'x'; 50_000]);
        large.unwrap();
    }
    assert_eq!(cluster.node(leader).unwrap().term(), term, "a follower's disk costs no election");
    serves_what_it_has(cluster.node(id).unwrap());

    for _ in 0..2 {
        cluster.kill_node(id).unwrap();
        cluster.spawn_node(id).unwrap();
        serves_what_it_has(cluster.node(id).unwrap());
        kit::write(&cluster, &ledger, leader);
    }
    assert_eq!(cluster.node(leader).unwrap().term(), term, "nor does its start");
    fs::remove_file(ballast).unwrap();
    kit::check(&cluster, &ledger);
}
