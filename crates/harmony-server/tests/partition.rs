//! Members that hear some others, or nobody, or what is not true, on real processes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use std::time::Duration;

use harmony_testkit::wait::{PATIENCE, pause, until};
use harmony_testkit::{Ledger, ProcessCluster, ProcessNode};
use harmony_types::fake::seed::for_each_seed;
use harmony_types::{NodeId, TestCluster, TestNode};

/// More than two election timeouts, jitter included: whoever wants an election has begun one.
const ELECTIONS: Duration = Duration::from_millis(2_500);

fn check(cluster: &ProcessCluster, ledger: &Ledger) {
    cluster.check_agreement().unwrap();
    for node in cluster.running() {
        ledger.check(node.client()).unwrap();
    }
    ledger.check_history().unwrap();
}

/// Waits until `id` follows somebody other than `old`.
fn wait_for_another(cluster: &ProcessCluster, id: NodeId, old: NodeId) {
    until("another leader", PATIENCE, || {
        match cluster.node(id).ok_or("it runs")?.client().status()?.leader {
            Some(leader) if leader != old => Ok(()),
            leader => Err(format!("the leader is {leader:?}").into()),
        }
    })
    .unwrap();
}

#[test]
fn a_leader_cut_off_acknowledges_nothing_and_answers_no_linearizable_read() {
    let (mut cluster, ledger) = (kit::started(3), Ledger::new());
    for round in 0..3 {
        let old = cluster.leader().unwrap();
        assert!(ledger.write_one(cluster.node(old).unwrap().client()).unwrap());
        let key = format!("cut/{round}");
        cluster.node(old).unwrap().put(key.as_bytes(), b"before").unwrap();
        cluster.partition_node(old);

        // Asked at once, while it still believes that it leads: neither acknowledged nor answered.
        let cut_off = cluster.node(old).unwrap();
        let lost = format!("lost/{round}");
        let (put, get) = std::thread::scope(|scope| {
            let put = scope
                .spawn(|| cut_off.put(lost.as_bytes(), b"never acknowledged").map_err(|e| e.to_string()));
            let get = scope.spawn(|| cut_off.get(key.as_bytes()).map_err(|e| e.to_string()));
            (put.join().unwrap(), get.join().unwrap())
        });
        assert!(put.is_err(), "a leader without a quorum acknowledged a put: {put:?}");
        assert!(get.is_err(), "a leader without a quorum answered a linearizable read: {get:?}");

        // The other side goes on, and what it writes the cut-off member must not know.
        let other = cluster.other(old);
        until("the other side writes", PATIENCE, || other.put(key.as_bytes(), b"after")).unwrap();
        assert_eq!(other.get(key.as_bytes()).unwrap().as_deref(), Some(&b"after"[..]));
        let client = kit::GrpcClient::new(&cluster.node(old).unwrap().endpoint()).unwrap();
        let stale = client.get_serializable(key.as_bytes()).unwrap().unwrap();
        assert_eq!(&stale.value[..], b"before", "a serializable read answers from the member's own state");

        cluster.unpartition_node(old);
        cluster.wait_until_serving(old).unwrap();
        cluster.check_agreement().unwrap();
        assert_eq!(cluster.node(old).unwrap().get(key.as_bytes()).unwrap().as_deref(), Some(&b"after"[..]));
        for node in cluster.running() {
            ledger.check(node.client()).unwrap();
        }
    }
}

#[test]
fn a_bridge_keeps_its_leader_whether_its_ends_are_refused_or_hear_nothing() {
    for silent in [false, true] {
        let (cluster, ledger) = (kit::started(3), Ledger::new());
        let leader = cluster.leader().unwrap();
        let far = cluster.other(leader).id();
        let bridge = cluster.node_ids().into_iter().find(|id| ![leader, far].contains(id)).unwrap();
        let term = cluster.node(leader).unwrap().term();
        let links = cluster.links();
        for (from, to) in [(leader, far), (far, leader)] {
            if silent { links.hold(from, to) } else { links.cut(from, to) }
        }
        let put = || {
            for id in [leader, bridge] {
                for _ in 0..20 {
                    assert!(ledger.write_one(cluster.node(id).unwrap().client()).unwrap());
                }
            }
        };
        put();
        pause(ELECTIONS);
        put();
        for id in [leader, bridge] {
            let status = cluster.node(id).unwrap().client().status().unwrap();
            assert_eq!((status.leader, status.term), (Some(leader), term), "silent: {silent}");
        }
        for (from, to) in [(leader, far), (far, leader)] {
            if silent { links.release(from, to) } else { links.heal(from, to) }
        }
        check(&cluster, &ledger);
        assert_eq!(cluster.node(far).unwrap().term(), term, "coming back needs no election");
    }
}

#[test]
fn a_leader_that_hears_nobody_but_is_heard_is_succeeded_and_acknowledges_nothing() {
    let (cluster, ledger) = (kit::started(3), Ledger::new());
    let old = cluster.leader().unwrap();
    assert!(ledger.write_one(cluster.node(old).unwrap().client()).unwrap());
    let others: Vec<NodeId> = cluster.node_ids().into_iter().filter(|id| *id != old).collect();
    for other in &others {
        cluster.links().hold(*other, old);
    }
    std::thread::scope(|scope| {
        let deaf = cluster.node(old).unwrap();
        // What it sends arrives and may be committed by its successor, but it cannot know.
        scope
            .spawn(|| assert!(!ledger.write_one(deaf.client()).unwrap(), "a deaf leader acknowledged a put"));
        scope.spawn(|| assert!(deaf.get(b"k").is_err(), "a deaf leader answered a linearizable read"));
        for other in &others {
            wait_for_another(&cluster, *other, old);
        }
        assert!(ledger.write_one(cluster.node(others[0]).unwrap().client()).unwrap());
    });
    for other in &others {
        cluster.links().release(*other, old);
    }
    check(&cluster, &ledger);
}

#[test]
fn a_minority_of_five_with_the_leader_that_hears_nothing_acknowledges_nothing_and_the_majority_goes_on() {
    let (cluster, ledger) = (kit::started(5), Ledger::new());
    let old = cluster.leader().unwrap();
    assert!(ledger.write_one(cluster.node(old).unwrap().client()).unwrap());
    let minority = [old, cluster.other(old).id()];
    let majority: Vec<NodeId> = cluster.node_ids().into_iter().filter(|id| !minority.contains(id)).collect();
    let links: Vec<_> =
        minority.iter().flat_map(|a| majority.iter().flat_map(|b| [(*a, *b), (*b, *a)])).collect();
    for (from, to) in &links {
        cluster.links().hold(*from, *to);
    }
    std::thread::scope(|scope| {
        for id in minority {
            let node = cluster.node(id).unwrap();
            scope.spawn(|| {
                assert!(!ledger.write_one(node.client()).unwrap(), "two of five acknowledged a put")
            });
            scope.spawn(|| assert!(node.get(b"k").is_err(), "two of five answered a linearizable read"));
        }
        for id in &majority {
            wait_for_another(&cluster, *id, old);
        }
        for _ in 0..20 {
            assert!(ledger.write_one(cluster.node(majority[0]).unwrap().client()).unwrap());
        }
    });
    // All that stood on the way arrives now, late.
    for (from, to) in &links {
        cluster.links().release(*from, *to);
    }
    check(&cluster, &ledger);
}

#[test]
fn bits_that_flip_between_members_under_load_change_nothing() {
    for_each_seed([], 1, |_, rng| {
        let (cluster, ledger) = (kit::started(3), Ledger::new());
        let ids = cluster.node_ids();
        let endpoints: Vec<String> = cluster.nodes().map(ProcessNode::endpoint).collect();
        let closed = || -> usize {
            let logs = cluster.nodes().map(ProcessNode::log);
            logs.map(|log| {
                log.matches("peer connection closed").count() + log.matches("connection lost").count()
            })
            .sum()
        };
        let before = closed();
        for _ in 0..6 {
            let (from, to) = loop {
                let (from, to) = (*rng.pick(&ids), *rng.pick(&ids));
                if from != to {
                    break (from, to);
                }
            };
            kit::under_load(&ledger, &endpoints, 10, || {
                cluster.links().flip_next(from, to);
                until("bytes pass", PATIENCE, || match cluster.links().is_flipping(from, to) {
                    false => Ok(()),
                    true => Err("nothing passed".into()),
                })
            })
            .unwrap();
        }
        check(&cluster, &ledger);
        assert!(before < closed(), "nobody noticed");
    });
}
