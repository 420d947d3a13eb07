//! Clusters in this process on disks that are full: the member says so, serves what it has, and goes on by itself when there is
//! room again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harmony_node::{ReplySink, Waiter};
use harmony_testkit::wait::until;
use harmony_testkit::{Client, InProcessCluster, Ledger};
use harmony_types::command::Compact;
use harmony_types::fake::fs::{CallKind, Crash};
use harmony_types::txn::{DeleteRange, Put};
use harmony_types::{Command, CommandKind, FileSystem, NodeError, NodeId, Outcome, TestCluster};

/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn key(number: usize) -> String {
    format!("key {number:06}")
}

fn put(number: usize, bytes: usize) -> CommandKind {
    CommandKind::Put(Put { key: key(number).into(), value: vec![7; bytes].into(), ..Put::default() })
}

fn run(cluster: &InProcessCluster, id: NodeId, kind: CommandKind) -> Result<Outcome, NodeError> {
    let data = Command::from(kind).encode_to_bytes();
    cluster.node(id).unwrap().node().propose_blocking(data, PATIENCE)
}

/// Takes all that is free on a member's disk.
fn fill(cluster: &InProcessCluster, id: NodeId, left: u64) {
    let disk = cluster.disk(id).unwrap();
    disk.set_capacity(Some(disk.used_bytes() + left));
}

/// 0 everything, 1 what frees space, 2 nothing.
fn space(cluster: &InProcessCluster, id: NodeId) -> u64 {
    cluster.node(id).unwrap().node().metrics().disk_space.get()
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    until(what, PATIENCE, || if condition() { Ok(()) } else { Err("not yet".into()) }).unwrap();
}

fn check(cluster: &InProcessCluster, ledger: &Ledger) {
    cluster.check_agreement().unwrap();
    for node in cluster.running() {
        assert_eq!(node.node().failure(), None);
        ledger.check(node).unwrap();
    }
}

#[test]
fn the_others_go_on_while_a_followers_disk_is_full_and_it_catches_up_by_itself() {
    let (mut cluster, ledger) = (InProcessCluster::new(), Ledger::new());
    cluster.start(3).unwrap();
    let leader = cluster.leader().unwrap();
    let follower = cluster.node_ids().into_iter().find(|id| *id != leader).unwrap();
    assert!(ledger.write_one(cluster.node(leader).unwrap()).unwrap());
    fill(&cluster, follower, 0);
    let mut number = 0;
    until("the follower's log is full", PATIENCE, || {
        number += 1;
        run(&cluster, leader, put(number, 50_000))?;
        if space(&cluster, follower) == 2 { Ok(()) } else { Err("not yet".into()) }
    })
    .unwrap();
    for more in 1..50 {
        run(&cluster, leader, put(number + more, 50_000)).unwrap();
    }
    let term = cluster.node(follower).unwrap().node().term();
    let behind = cluster.node(follower).unwrap();
    assert_eq!(behind.node().failure(), None);
    assert!(behind.node().storage().get(b"ledger/00000000").unwrap().is_some(), "local reads go on");
    assert!(behind.node().storage().get(key(number + 49).as_bytes()).unwrap().is_none(), "it had no room");
    // What it is asked to write goes to the leader, which has room.
    assert!(matches!(run(&cluster, leader, put(0, 10)), Ok(Outcome { .. })));
    assert_eq!(cluster.node(follower).unwrap().node().term(), term, "it disturbs nobody");

    cluster.disk(follower).unwrap().set_capacity(None);
    check(&cluster, &ledger);
    assert_eq!(space(&cluster, follower), 0);
    cluster.stop().unwrap();
}

#[test]
fn a_leader_whose_disk_is_full_hands_over_and_no_put_is_lost() {
    let (mut cluster, ledger) = (InProcessCluster::new(), Ledger::new());
    cluster.start(3).unwrap();
    let old = cluster.leader().unwrap();
    fill(&cluster, old, 0);
    let mut number = 0;
    until("another leader", PATIENCE, || {
        number += 1;
        match run(&cluster, old, put(number, 50_000)) {
            // Moved while it was under way, or told to go elsewhere.
            Ok(_) | Err(NodeError::NoSpace | NodeError::LeaderChanged) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(ledger.write_one(cluster.node(old).unwrap()).is_ok());
        if cluster.node(old).unwrap().node().is_leader() { Err("it leads".into()) } else { Ok(()) }
    })
    .unwrap();
    let new = cluster.leader().unwrap();
    assert_ne!(new, old);
    for more in 1..50 {
        wait_for("a put", || run(&cluster, new, put(number + more, 50_000)).is_ok());
    }
    assert!(!cluster.node(old).unwrap().node().is_leader());
    // It cannot be made the leader while it has no room.
    cluster.node(new).unwrap().node().transfer_leader(old);
    wait_for("a put", || run(&cluster, new, put(0, 10)).is_ok());
    assert!(cluster.node(new).unwrap().node().is_leader());
    cluster.disk(old).unwrap().set_capacity(None);
    check(&cluster, &ledger);
    cluster.stop().unwrap();
}

#[test]
fn members_whose_disks_are_all_full_refuse_puts_and_take_what_frees_space() {
    for count in [1, 3] {
        let (mut cluster, ledger) = (InProcessCluster::new(), Ledger::new());
        cluster.set_crash(Crash::LoseUnsynced);
        cluster.start(count).unwrap();
        for id in cluster.node_ids() {
            fill(&cluster, id, 0);
        }
        // The first one is always taken: nobody knows yet how little room there is.
        let mut acknowledged = 0;
        until("a refusal", PATIENCE, || {
            let leader = cluster.leader()?;
            match run(&cluster, leader, put(acknowledged, 10_000)) {
                Ok(_) => {
                    acknowledged += 1;
                    Err("not yet".into())
                }
                // Leadership is offered to others.
                Err(NodeError::LeaderChanged) => Err("it moved".into()),
                Err(NodeError::NoSpace) => Ok(()),
                Err(error) => panic!("{error}"),
            }
        })
        .unwrap();
        assert_ne!(acknowledged, 0);
        for id in cluster.node_ids() {
            wait_for("a linearizable read", || {
                cluster.node(id).unwrap().get(key(0).as_bytes()).is_ok_and(|found| found.is_some())
            });
        }
        let take = |what: &str, kind: CommandKind| {
            until(what, PATIENCE, || Ok(run(&cluster, cluster.leader()?, kind.clone())?)).unwrap()
        };
        let delete = |number: usize| {
            CommandKind::DeleteRange(DeleteRange { key: key(number).into(), ..DeleteRange::default() })
        };
        let revision = take("a delete", delete(1)).revision;
        take("a compaction", CommandKind::Compact(Compact { revision }));
        take("another delete", delete(2));
        // The power goes; all that was acknowledged is there, and the disks are full still.
        for id in cluster.node_ids() {
            cluster.kill_node(id).unwrap();
        }
        for id in cluster.node_ids() {
            cluster.restart_node(id).unwrap();
        }
        for id in cluster.node_ids() {
            for number in 0..acknowledged {
                until("a read", PATIENCE, || {
                    let found = cluster.node(id).unwrap().get(key(number).as_bytes())?;
                    assert_eq!(found.is_some(), number != 1 && number != 2, "put {number}");
                    Ok(())
                })
                .unwrap();
            }
        }
        for id in cluster.node_ids() {
            cluster.disk(id).unwrap().set_capacity(None);
        }
        until("a put", PATIENCE, || Ok(run(&cluster, cluster.leader()?, put(1, 10_000))?)).unwrap();
        check(&cluster, &ledger);
        cluster.stop().unwrap();
    }
}

/// Counts how puts ended.
#[derive(Default)]
struct Ends(Mutex<(usize, Vec<NodeError>)>);

impl ReplySink<Outcome> for Ends {
    fn complete(&self, batch: Vec<(u64, Result<Outcome, NodeError>)>) {
        let mut ends = self.0.lock().unwrap();
        for (_, result) in batch {
            match result {
                Ok(_) => ends.0 += 1,
                Err(error) => ends.1.push(error),
            }
        }
    }
}

/// All but the last take more room than the tree has, and are applied before that is known.
const PUTS: usize = 200;

/// One member with puts that are committed and cannot be applied, as the tree would have no room for them.
fn waiting() -> (InProcessCluster, NodeId, Arc<Ends>) {
    let mut cluster = InProcessCluster::new();
    cluster.start(1).unwrap();
    let id = cluster.node_ids()[0];
    run(&cluster, id, put(0, 10)).unwrap();
    // They come all at once, before anybody could see how much they need.
    let hold = cluster.disk(id).unwrap().hold([CallKind::Sync]);
    let ends = Arc::new(Ends::default());
    let node = cluster.node(id).unwrap().node().clone();
    let propose = |number: usize, bytes| {
        let data = Command::from(put(number, bytes)).encode_to_bytes();
        node.propose(data, Waiter::new(Arc::clone(&ends) as _, number as u64));
    };
    propose(1, 10);
    hold.wait_for(1);
    // Room for them in the log, and not in the tree.
    cluster.disk(id).unwrap().remove_file(Path::new("/data/tree/RESERVE")).unwrap();
    fill(&cluster, id, 5 << 20);
    let last = node.metrics().last_index.get();
    for number in 2..PUTS {
        propose(number, 16_000);
    }
    wait_for("the log has them", || last + PUTS as u64 - 2 <= node.metrics().last_index.get());
    drop(hold);
    wait_for("they are applied", || ends.0.lock().unwrap().0 == PUTS - 1);
    propose(PUTS, 10);
    wait_for("apply waits", || node.metrics().apply_waits.get() == 1);
    (cluster, id, ends)
}

fn all_end_well(cluster: &InProcessCluster, id: NodeId, ends: &Ends) {
    wait_for("all puts end", || ends.0.lock().unwrap().0 == PUTS);
    let node = cluster.node(id).unwrap();
    assert_eq!(node.node().metrics().apply_waits.get(), 0);
    assert!(node.get(key(PUTS).as_bytes()).unwrap().is_some());
    assert_eq!(node.node().failure(), None);
}

#[test]
fn an_apply_that_a_full_disk_refuses_waits_for_room_while_reads_go_on() {
    let (mut cluster, id, ends) = waiting();
    let node = cluster.node(id).unwrap();
    assert!(node.node().storage().get(key(0).as_bytes()).unwrap().is_some(), "a local read");
    wait_for("a look at the disk", || space(&cluster, id) != 0);
    assert!(matches!(run(&cluster, id, put(0, 10)), Err(NodeError::NoSpace | NodeError::Busy)));
    assert!(ends.0.lock().unwrap().0 < PUTS);
    cluster.disk(id).unwrap().set_capacity(None);
    all_end_well(&cluster, id, &ends);
    wait_for("a put", || run(&cluster, id, put(0, 10)).is_ok());
    cluster.stop().unwrap();
}

#[test]
fn a_compaction_behind_a_refused_apply_is_applied_with_it() {
    let (mut cluster, id, ends) = waiting();
    let compact = CommandKind::Compact(Compact { revision: 2 });
    until("a compaction", PATIENCE, || Ok(run(&cluster, id, compact.clone())?)).unwrap();
    all_end_well(&cluster, id, &ends);
    cluster.disk(id).unwrap().set_capacity(None);
    cluster.stop().unwrap();
}

#[test]
fn a_member_stops_and_starts_again_while_its_apply_waits() {
    let (mut cluster, id, ends) = waiting();
    cluster.kill_node(id).unwrap();
    assert!(ends.0.lock().unwrap().1.iter().all(|error| matches!(error, NodeError::Stopped)));
    cluster.restart_node(id).unwrap();
    cluster.leader().unwrap();
    let node = cluster.node(id).unwrap();
    wait_for("a read", || node.get(key(PUTS).as_bytes()).is_ok_and(|found| found.is_some()));
    cluster.disk(id).unwrap().set_capacity(None);
    wait_for("a put", || run(&cluster, id, put(0, 10)).is_ok());
    cluster.stop().unwrap();
}
