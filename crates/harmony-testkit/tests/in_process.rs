//! Clusters in this process, on disks that lose, keep, tear and reorder what was not synced when a member is killed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread;

use harmony_testkit::wait::{PATIENCE, until};
use harmony_testkit::{Client, InProcessCluster, InProcessNode, Ledger};
use harmony_types::fake::fs::{CallKind, Crash, Fault};
use harmony_types::fake::seed::{Seed, SeededRng, for_each_seed};
use harmony_types::{NodeId, Rng as _, TestCluster};

/// Writes through every member until `count` more puts are acknowledged.
fn load(cluster: &InProcessCluster, ledger: &Ledger, count: usize) {
    let enough = ledger.acknowledged() + count;
    until("the load is acknowledged", PATIENCE, || {
        for node in cluster.running() {
            ledger.write_one(node)?;
        }
        if enough <= ledger.acknowledged() { Ok(()) } else { Err("not yet".into()) }
    })
    .unwrap();
}

/// Kills `victims` while every member takes writes.
fn kill_under_load(cluster: &mut InProcessCluster, ledger: &Ledger, victims: &[NodeId]) {
    ledger.resume();
    let nodes: Vec<_> = cluster.running().map(|node| node.node().clone()).collect();
    thread::scope(|scope| {
        for node in nodes {
            scope.spawn(move || ledger.write_until_error(&InProcessNode::on(node)).unwrap());
        }
        let enough = ledger.acknowledged() + 10;
        until("some writes", PATIENCE, || {
            if enough <= ledger.acknowledged() { Ok(()) } else { Err("not yet".into()) }
        })
        .unwrap();
        for victim in victims {
            cluster.kill_node(*victim).unwrap();
        }
        ledger.stop();
    });
}

fn check(cluster: &InProcessCluster, ledger: &Ledger) {
    cluster.check_agreement().unwrap();
    for node in cluster.running() {
        ledger.check(node).unwrap();
    }
    ledger.check_history().unwrap();
}

fn crash(rng: &mut SeededRng) -> Crash {
    match rng.below(4) {
        0 => Crash::LoseUnsynced,
        1 => Crash::KeepAll,
        _ => Crash::Seeded(Seed(rng.next_u64())),
    }
}

#[test]
fn one_member_keeps_every_acknowledged_put_through_power_losses() {
    for_each_seed([1, 2], 1, |_, rng| {
        let (mut cluster, ledger) = (InProcessCluster::new(), Ledger::new());
        cluster.start(1).unwrap();
        let id = cluster.node_ids()[0];
        for _ in 0..10 {
            cluster.set_crash(crash(rng));
            kill_under_load(&mut cluster, &ledger, &[id]);
            cluster.restart_node(id).unwrap();
            cluster.leader().unwrap();
            check(&cluster, &ledger);
        }
        cluster.stop().unwrap();
    });
}

#[test]
fn three_members_keep_every_acknowledged_put_through_power_losses() {
    for_each_seed([1], 1, |_, rng| {
        let (mut cluster, ledger) = (InProcessCluster::new(), Ledger::new());
        cluster.start(3).unwrap();
        for _ in 0..10 {
            cluster.set_crash(crash(rng));
            let mut victims = cluster.node_ids();
            rng.shuffle(&mut victims);
            victims.truncate(rng.index(1..4));
            kill_under_load(&mut cluster, &ledger, &victims);
            if victims.len() == 1 {
                load(&cluster, &ledger, 3);
            }
            for victim in victims {
                cluster.restart_node(victim).unwrap();
            }
            cluster.leader().unwrap();
            load(&cluster, &ledger, 1);
            check(&cluster, &ledger);
        }
        cluster.stop().unwrap();
    });
}

#[test]
fn a_leader_cut_off_acknowledges_nothing_and_the_others_go_on() {
    let (mut cluster, ledger) = (InProcessCluster::new(), Ledger::new());
    cluster.start(3).unwrap();
    for _ in 0..3 {
        let old = cluster.leader().unwrap();
        load(&cluster, &ledger, 3);
        cluster.partition_node(old);
        let cut_off = cluster.node(old).unwrap();
        assert!(!ledger.write_one(cut_off).unwrap(), "a leader without a quorum acknowledged a put");
        assert!(cut_off.get(b"k").is_err(), "a leader without a quorum answered a linearizable read");
        let other = cluster.running().find(|node| node.node().id() != old).unwrap();
        until("the other side writes", PATIENCE, || match ledger.write_one(other)? {
            true => Ok(()),
            false => Err("refused".into()),
        })
        .unwrap();
        cluster.unpartition_node(old);
        check(&cluster, &ledger);
    }
    cluster.stop().unwrap();
}

/// What the failed sync covered is in doubt: the leader ends rather than sync it again, and learns the truth from the others.
#[test]
fn a_leader_whose_sync_fails_once_ends_and_no_put_is_lost() {
    let (mut cluster, ledger) = (InProcessCluster::new(), Ledger::new());
    cluster.start(3).unwrap();
    for _ in 0..3 {
        load(&cluster, &ledger, 3);
        let old = cluster.leader().unwrap();
        cluster.disk(old).unwrap().inject(Fault::on([CallKind::Sync]).nth(1));
        let node = cluster.node(old).unwrap();
        until("the leader ends", PATIENCE, || {
            ledger.write_one(node)?;
            node.node().failure().map(drop).ok_or_else(|| "it goes on".into())
        })
        .unwrap();
        let other = cluster.running().find(|node| node.node().id() != old).unwrap();
        until("the others go on", PATIENCE, || match ledger.write_one(other)? {
            true => Ok(()),
            false => Err("refused".into()),
        })
        .unwrap();
        cluster.kill_node(old).unwrap();
        cluster.restart_node(old).unwrap();
        load(&cluster, &ledger, 1);
        check(&cluster, &ledger);
    }
    cluster.stop().unwrap();
}
