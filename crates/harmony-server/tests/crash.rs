//! `kill -9` under load, on real processes: what was acknowledged is there, with its revision, and all members agree.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use harmony_testkit::wait::{PATIENCE, until};
use harmony_testkit::{Ledger, ProcessCluster, ProcessNode};
use harmony_types::fake::seed::for_each_seed;
use harmony_types::{NodeId, TestCluster};

/// Acknowledged puts before each kill.
const PUTS: usize = 20;

fn endpoints(cluster: &ProcessCluster) -> Vec<String> {
    cluster.nodes().map(ProcessNode::endpoint).collect()
}

fn check(cluster: &ProcessCluster, ledger: &Ledger) {
    cluster.check_agreement().unwrap();
    for node in cluster.running() {
        ledger.check(node.client()).unwrap();
    }
}

#[test]
fn one_node_keeps_every_acknowledged_put_through_50_kills() {
    let (mut cluster, ledger) = (kit::started(1), Ledger::new());
    let id = cluster.node_ids()[0];
    for cycle in 1..=50 {
        let endpoints = endpoints(&cluster);
        kit::under_load(&ledger, &endpoints, PUTS, || cluster.kill_node(id)).unwrap();
        cluster.restart_node(id).unwrap();
        if cycle % 10 == 0 {
            check(&cluster, &ledger);
        }
    }
    assert!(50 * PUTS <= ledger.acknowledged());
}

#[test]
fn three_nodes_keep_every_acknowledged_put_through_20_kills_of_one() {
    for_each_seed([], 1, |_, rng| {
        let (mut cluster, ledger) = (kit::started(3), Ledger::new());
        for cycle in 1..=20 {
            let ids = cluster.node_ids();
            let victim: NodeId = *rng.pick(&ids);
            let endpoints = endpoints(&cluster);
            kit::under_load(&ledger, &endpoints, PUTS, || cluster.kill_node(victim)).unwrap();
            // The others go on without it.
            until("two of three acknowledge a put", PATIENCE, || {
                match ledger.write_one(cluster.other(victim).client())? {
                    true => Ok(()),
                    false => Err("refused".into()),
                }
            })
            .unwrap();
            cluster.restart_node(victim).unwrap();
            if cycle % 10 == 0 {
                check(&cluster, &ledger);
            }
        }
    });
}

#[test]
fn three_nodes_keep_every_acknowledged_put_through_10_kills_of_all() {
    let (mut cluster, ledger) = (kit::started(3), Ledger::new());
    for cycle in 1..=10 {
        let ids = cluster.node_ids();
        let endpoints = endpoints(&cluster);
        kit::under_load(&ledger, &endpoints, PUTS, || ids.iter().try_for_each(|id| cluster.kill_node(*id)))
            .unwrap();
        for id in &ids {
            cluster.spawn_node(*id).unwrap();
        }
        for id in &ids {
            cluster.wait_until_serving(*id).unwrap();
        }
        if cycle % 5 == 0 {
            check(&cluster, &ledger);
        }
    }
}
