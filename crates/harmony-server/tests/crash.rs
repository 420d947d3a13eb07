//! `kill -9` under load, on real processes: what was acknowledged is there, with its revision, and all members agree.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use harmony_testkit::wait::{PATIENCE, until};
use harmony_testkit::{Client as _, Ledger, ProcessCluster, ProcessNode};
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
    ledger.check_history().unwrap();
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

#[test]
fn five_nodes_keep_every_acknowledged_put_through_5_kills_of_the_leader_and_another() {
    for_each_seed([], 1, |_, rng| {
        let (mut cluster, ledger) = (kit::started(5), Ledger::new());
        for _ in 1..=5 {
            let leader = cluster.leader().unwrap();
            let others: Vec<NodeId> = cluster.node_ids().into_iter().filter(|id| *id != leader).collect();
            let victims = [leader, *rng.pick(&others)];
            let endpoints = endpoints(&cluster);
            kit::under_load(&ledger, &endpoints, PUTS, || {
                victims.iter().try_for_each(|id| cluster.kill_node(*id))
            })
            .unwrap();
            until("three of five acknowledge a put", PATIENCE, || {
                match ledger.write_one(cluster.other(leader).client())? {
                    true => Ok(()),
                    false => Err("refused".into()),
                }
            })
            .unwrap();
            for victim in victims {
                cluster.restart_node(victim).unwrap();
            }
        }
        check(&cluster, &ledger);
    });
}

#[test]
fn two_of_five_acknowledge_nothing_and_answer_only_what_they_have() {
    let (mut cluster, ledger) = (kit::started(5), Ledger::new());
    for _ in 0..10 {
        assert!(ledger.write_one(cluster.running().next().unwrap().client()).unwrap());
    }
    cluster.check_agreement().unwrap();
    let leader = cluster.leader().unwrap();
    let lost: Vec<NodeId> = cluster.node_ids().into_iter().filter(|id| *id != leader).take(3).collect();
    for id in &lost {
        cluster.kill_node(*id).unwrap();
    }
    std::thread::scope(|scope| {
        for node in cluster.running() {
            scope.spawn(|| {
                assert!(!ledger.write_one(node.client()).unwrap(), "two of five acknowledged a put");
            });
            scope.spawn(|| {
                let client = kit::GrpcClient::new(&node.endpoint()).unwrap();
                assert!(client.get(b"ledger/00000000").is_err(), "two of five answered a linearizable read");
                assert!(client.get_serializable(b"ledger/00000000").unwrap().is_some());
            });
        }
    });
    for id in &lost {
        cluster.spawn_node(*id).unwrap();
    }
    for id in cluster.node_ids() {
        cluster.wait_until_serving(id).unwrap();
    }
    assert!(ledger.write_one(cluster.other(leader).client()).unwrap());
    check(&cluster, &ledger);
}
