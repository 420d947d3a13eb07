//! SIGTERM under load, and a leader that stands still.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use harmony_testkit::wait::{PATIENCE, until};
use harmony_testkit::{Client as _, Ledger, ProcessCluster, ProcessNode, TestError};
use harmony_types::{NodeId, TestCluster, TestNode};

use kit::retrying::Retrying;

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
    }
    // They agree, so one of them speaks for all.
    ledger.check(cluster.running().next().unwrap().client()).unwrap();
}

#[test]
fn one_node_stopped_under_load_exits_with_0_and_keeps_every_acknowledged_put() {
    check_sigterm(1);
}

#[test]
fn a_leader_stopped_under_load_exits_with_0_and_keeps_every_acknowledged_put() {
    check_sigterm(3);
}

/// Stops a member while clients write and read that try another member where nothing can have happened: no call fails, and none
/// is left unknown.
fn stop_unnoticed(cluster: &mut ProcessCluster, ledger: &Ledger, id: NodeId) {
    let endpoints: Vec<String> = cluster.nodes().map(ProcessNode::endpoint).collect();
    let clients: Vec<Retrying> = (0..5).map(|at| Retrying::new(&endpoints, at).unwrap()).collect();
    let (writers, readers) = clients.split_at(3);
    let done = AtomicBool::new(false);
    ledger.resume();
    let more = |count: usize| {
        let goal = ledger.acknowledged() + count;
        until("the load is acknowledged", PATIENCE, || {
            if goal <= ledger.acknowledged() { Ok(()) } else { Err("too few".into()) }
        })
    };
    let stopped = thread::scope(|scope| {
        for client in writers {
            scope.spawn(|| ledger.write_until_error(client).unwrap());
        }
        for client in readers {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if client.get(b"ledger/00000000").is_err() {
                        break;
                    }
                }
            });
        }
        let stopped = more(PUTS).and_then(|()| {
            let exited = cluster.terminate_node(id)?;
            more(PUTS)?;
            Ok::<_, TestError>(exited)
        });
        ledger.stop();
        done.store(true, Ordering::Relaxed);
        stopped
    });
    let errors: Vec<String> = clients.iter().flat_map(|client| client.errors().clone()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    assert_eq!(stopped.unwrap().code(), Some(0));
    assert_eq!(ledger.unknown(), 0);
}

#[test]
fn clients_that_retry_what_was_never_sent_do_not_notice_that_members_are_stopped() {
    let (mut cluster, ledger) = (kit::started(3), Ledger::new());
    for round in 0..4 {
        let leader = cluster.leader().unwrap();
        let id = if round == 2 { cluster.other(leader).id() } else { leader };
        stop_unnoticed(&mut cluster, &ledger, id);
        cluster.restart_node(id).unwrap();
        cluster.check_agreement().unwrap();
    }
    // They agree, so one of them speaks for all.
    ledger.check(cluster.running().next().unwrap().client()).unwrap();
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
