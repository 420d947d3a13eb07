//! SIGTERM under load, and a leader that stands still.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use harmony_testkit::wait::{PATIENCE, until};
use harmony_testkit::{Client as _, Ledger, ProcessNode};
use harmony_types::{TestCluster, TestNode};

/// Acknowledged puts before each stop.
const PUTS: usize = 50;

/// Stops the leader of `nodes` under load some times: exit code 0, nothing acknowledged is lost.
fn check_sigterm(nodes: usize) {
    let (mut cluster, ledger) = (kit::started(nodes), Ledger::new());
    for _ in 0..2 {
        let leader = cluster.leader().unwrap();
        let endpoints: Vec<String> = cluster.nodes().map(ProcessNode::endpoint).collect();
        let mut exited = None;
        kit::under_load(&ledger, &endpoints, PUTS, || {
            exited = Some(cluster.terminate_node(leader)?);
            Ok(())
        })
        .unwrap();
        assert_eq!(exited.unwrap().code(), Some(0));
        cluster.restart_node(leader).unwrap();
        cluster.check_agreement().unwrap();
        for node in cluster.running() {
            ledger.check(node.client()).unwrap();
        }
    }
}

#[test]
fn one_node_stopped_under_load_exits_with_0_and_keeps_every_acknowledged_put() {
    check_sigterm(1);
}

#[test]
fn a_leader_stopped_under_load_exits_with_0_and_keeps_every_acknowledged_put() {
    check_sigterm(3);
}

#[test]
fn a_leader_that_stood_still_answers_no_read_from_before() {
    let (cluster, ledger) = (kit::started(3), Ledger::new());
    for round in 0..2 {
        let old = cluster.leader().unwrap();
        cluster.node(old).unwrap().put(b"k", b"before").unwrap();
        cluster.pause_node(old).unwrap();
        let other = cluster.other(old);
        let value = format!("after {round}");
        until("the others go on", PATIENCE, || other.put(b"k", value.as_bytes())).unwrap();
        cluster.resume_node(old).unwrap();
        // Its first answer counts: it may fail, it may not be old.
        let first = until("an answer", PATIENCE, || cluster.node(old).unwrap().get(b"k")).unwrap();
        assert_eq!(first.as_deref(), Some(value.as_bytes()));
        assert!(ledger.write_one(cluster.node(old).unwrap().client()).unwrap());
        cluster.check_agreement().unwrap();
    }
}

/// Requests that lie in its sockets when it goes on are the first that it sees, before it hears of the new leader.
#[test]
fn requests_that_wait_in_a_paused_leader_are_answered_by_the_new_state_or_not_at_all() {
    let (cluster, ledger) = (kit::started(3), Ledger::new());
    for round in 0..2 {
        let old = cluster.leader().unwrap();
        let paused = cluster.node(old).unwrap();
        paused.put(b"k", b"before").unwrap();
        // Connections that are open before it stops: their requests get as far as its sockets.
        let clients: Vec<_> = (0..6).map(|_| kit::GrpcClient::new(&paused.endpoint()).unwrap()).collect();
        for client in &clients {
            client.get(b"k").unwrap();
        }
        cluster.pause_node(old).unwrap();
        let value = format!("after {round}");
        std::thread::scope(|scope| {
            let (readers, writers) = clients.split_at(3);
            let reads: Vec<_> = readers.iter().map(|client| scope.spawn(|| client.get(b"k").ok())).collect();
            for client in writers {
                scope.spawn(|| ledger.write_one(client).unwrap());
            }
            let other = cluster.other(old);
            // The reads were sent before this put, and are answered after it was acknowledged.
            until("the others go on", PATIENCE, || other.put(b"k", value.as_bytes())).unwrap();
            cluster.resume_node(old).unwrap();
            for read in reads {
                if let Some(found) = read.join().unwrap() {
                    assert_eq!(found.unwrap().value, value.as_bytes(), "a read from before");
                }
            }
        });
        cluster.check_agreement().unwrap();
        for node in cluster.running() {
            ledger.check(node.client()).unwrap();
        }
    }
}
