//! Disks of single members that hang, are emptied, or go back in time, on real processes.
//!
//! A disk that hangs is a file system of its own, in a file, that is frozen (`fsfreeze`): every write and sync waits in the kernel.
//! For it the test must be root; otherwise it says so and is skipped.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod disks;
mod kit;

use std::fs;
use std::net::TcpStream;

use disks::{Disk, copy, on_its_own};
use harmony_testkit::wait::{PATIENCE, until};
use harmony_testkit::{Ledger, ProcessCluster};
use harmony_types::{TestCluster, TestNode};

/// Three members whose logs are small files, with these flags as well.
fn started(flags: &[&str]) -> ProcessCluster {
    let flags = [&["--wal-segment-bytes", "1048576"], flags].concat();
    let mut cluster = kit::cluster_with(&flags, &std::sync::Arc::default());
    cluster.start(3).unwrap();
    cluster
}

#[test]
fn a_disk_that_hangs_costs_a_follower_nothing_but_time_and_a_leader_its_leadership() {
    let (mut cluster, ledger) = (started(&[]), Ledger::new());
    let id = cluster.other(cluster.leader().unwrap()).id();
    let Some(disk) = on_its_own(&mut cluster, id, Disk::in_a_file) else { return };
    let leader = cluster.leader().unwrap();
    assert_ne!(leader, id);
    let term = cluster.node(leader).unwrap().term();

    disk.freeze();
    for _ in 0..200 {
        assert!(ledger.write_one(cluster.node(leader).unwrap().client()).unwrap());
    }
    assert_eq!(cluster.node(leader).unwrap().term(), term, "a follower's disk costs no election");
    disk.thaw();
    kit::check(&cluster, &ledger);

    kit::let_lead(&cluster, id);
    let other = cluster.other(id).id();
    disk.freeze();
    kit::another_leads(&cluster, &ledger, other, id);
    for _ in 0..20 {
        kit::write(&cluster, &ledger, other);
    }
    disk.thaw();
    kit::check(&cluster, &ledger);
}

/// The kernel lets go of such a process only when the disk answers, but nobody speaks with it any more.
#[test]
fn a_leader_whose_disk_never_comes_back_goes_and_can_be_started_again() {
    let (mut cluster, ledger) = (started(&["--disk-timeout", "2500"]), Ledger::new());
    let id = cluster.leader().unwrap();
    let Some(disk) = on_its_own(&mut cluster, id, Disk::in_a_file) else { return };
    kit::let_lead(&cluster, id);
    let other = cluster.other(id).id();
    kit::write(&cluster, &ledger, id);
    disk.freeze();
    kit::another_leads(&cluster, &ledger, other, id);
    let hung = cluster.nodes().find(|node| node.id() == id).unwrap();
    until("the hung member closes its port", PATIENCE, || match TcpStream::connect(hung.endpoint()) {
        Ok(_) => Err("it takes connections".into()),
        Err(_) => Ok(()),
    })
    .unwrap();
    kit::write(&cluster, &ledger, other);
    disk.thaw();
    assert_eq!(cluster.wait_until_ended(id).unwrap().code(), Some(1));
    let log = cluster.nodes().find(|node| node.id() == id).unwrap().log();
    assert!(log.contains(": it hangs; nothing was acknowledged meanwhile: see to the disk"), "{log}");
    cluster.restart_node(id).unwrap();
    kit::check(&cluster, &ledger);
}

#[test]
fn a_member_whose_directory_was_emptied_or_is_an_older_copy_is_refused_and_the_others_go_on() {
    for emptied in [true, false] {
        let (mut cluster, ledger) = (started(&[]), Ledger::new());
        let leader = cluster.leader().unwrap();
        kit::write(&cluster, &ledger, leader);
        cluster.check_agreement().unwrap();
        let id = cluster.other(leader).id();
        let dir = cluster.node(id).unwrap().data_dir();
        let older = dir.with_extension("older");
        cluster.kill_node(id).unwrap();
        copy(&dir, &older);
        cluster.restart_node(id).unwrap();
        for _ in 0..50 {
            kit::write(&cluster, &ledger, leader);
        }
        cluster.check_agreement().unwrap();
        cluster.kill_node(id).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        if !emptied {
            copy(&older, &dir);
        }
        cluster.spawn_node(id).unwrap();
        let ended = cluster.wait_until_ended(id).unwrap();
        assert_eq!(ended.code(), Some(1));
        let log = cluster.nodes().find(|node| node.id() == id).unwrap().log();
        // Whoever speaks first: a peer at the greeting, or the leader's own messages.
        let told = [
            "had acknowledged index",
            "the leader knows that this member held it",
            "runs on another data directory",
        ];
        assert!(told.iter().any(|told| log.contains(told)), "emptied: {emptied}\n{log}");
        assert!(log.contains("add it a"), "emptied: {emptied}\n{log}");
        kit::write(&cluster, &ledger, leader);
        kit::check(&cluster, &ledger);
    }
}
