//! Three nodes in one process, over the network in memory and over TCP.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/cluster.rs"]
mod support;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use harmony_node::{ReplySink, Waiter};
use harmony_types::raft::RaftState;
use harmony_types::{ConfChangeType, Member, MembershipError, NodeError, Role, Storage};
use support::{Cluster, id, wait_for};

fn check_replication(tcp: bool) {
    let cluster = Cluster::started(3, tcp);
    let leader = cluster.leader();
    assert_eq!(cluster.put(leader, "a=1").unwrap(), 0);
    // A follower serves as the leader does: it passes the proposal on, and its reads are linearizable.
    let follower = cluster.another(leader);
    assert_eq!(cluster.put(follower, "b=2").unwrap(), 1);
    for number in 1..=3 {
        assert_eq!(cluster.get(number, "a").unwrap().as_deref(), Some("1"));
        assert_eq!(cluster.get(number, "b").unwrap().as_deref(), Some("2"));
    }
    assert_eq!(cluster.agree(), "2: a=1 b=2");
}

#[test]
fn any_node_serves_over_memory() {
    check_replication(false);
}

#[test]
fn any_node_serves_over_tcp() {
    check_replication(true);
}

fn check_leader_loss(tcp: bool) {
    let mut cluster = Cluster::started(3, tcp);
    let old = cluster.leader();
    cluster.put(old, "a=1").unwrap();
    cluster.kill(old);
    let new = cluster.leader();
    assert_ne!(new, old);
    cluster.put_until_acknowledged(new, "b=2");
    cluster.start(old);
    assert_eq!(cluster.get(old, "b").unwrap().as_deref(), Some("2"));
    assert!(cluster.agree().ends_with("a=1 b=2"));
}

#[test]
fn the_rest_goes_on_without_the_leader_over_memory() {
    check_leader_loss(false);
}

#[test]
fn the_rest_goes_on_without_the_leader_over_tcp() {
    check_leader_loss(true);
}

#[test]
fn a_leader_that_is_cut_off_acknowledges_nothing_and_answers_no_read() {
    let cluster = Cluster::started(3, false);
    let old = cluster.leader();
    cluster.put(old, "a=1").unwrap();
    cluster.network().isolate(id(old));
    let short = Duration::from_millis(500);
    let unknown = cluster.node(old).propose_blocking(Bytes::from_static(b"lost=1"), short).unwrap_err();
    assert!(unknown.may_have_been_applied(), "{unknown}");
    cluster.node(old).read_index_blocking(short).unwrap_err();
    wait_for("the old leader to step down", || cluster.node(old).status().state != RaftState::Leader);

    let others: Vec<u64> = (1..=3).filter(|number| *number != old).collect();
    let new = cluster.leader_among(&others);
    cluster.put_until_acknowledged(new, "b=2");
    // Cut off, it still answers nothing: the value would be old.
    cluster.node(old).read_index_blocking(short).unwrap_err();

    cluster.network().heal_all();
    assert_eq!(cluster.get(old, "b").unwrap().as_deref(), Some("2"));
    let state = cluster.agree();
    assert!(!state.contains("lost"), "{state}");
}

fn check_snapshot(tcp: bool) {
    let mut cluster = Cluster::new(3, tcp);
    cluster.log_keep_entries = 0;
    for number in 1..=3 {
        cluster.start(number);
    }
    let lagging = cluster.another(cluster.leader());
    cluster.kill(lagging);
    let leader = cluster.leader();
    for number in 0..50 {
        cluster.put_until_acknowledged(leader, &format!("k{number}={number}"));
    }
    // What the leader would need to bring the lagging one up with entries is gone.
    for node in cluster.nodes.values() {
        node.storage().checkpoint().unwrap();
        let upto = node.status().applied;
        node.storage().release(upto).unwrap();
    }
    cluster.start(lagging);
    wait_for("a snapshot", || cluster.node(lagging).metrics().snapshots_installed.get() == 1);
    assert_eq!(cluster.get(lagging, "k49").unwrap().as_deref(), Some("49"));
    cluster.put_until_acknowledged(lagging, "after=1");
    cluster.agree();
    // It starts again from the snapshot that it was given.
    cluster.kill(lagging);
    cluster.start(lagging);
    assert_eq!(cluster.get(lagging, "after").unwrap().as_deref(), Some("1"));
    cluster.agree();
}

/// Bytes of data in a node's log.
fn log_bytes(cluster: &Cluster, number: u64) -> u64 {
    let storage = cluster.node(number).storage();
    let bounds = storage.bounds();
    let entries = storage.entries(bounds.first()..bounds.last.next(), u64::MAX).unwrap();
    entries.iter().map(|entry| entry.data.len() as u64).sum()
}

#[test]
fn a_member_catches_up_from_the_log_as_far_as_it_is_kept_and_by_a_snapshot_behind_that() {
    const KIB: u64 = 1 << 10;
    let mut cluster = Cluster::new(3, false);
    cluster.log_keep_bytes = 4 << 20;
    for number in 1..=3 {
        cluster.start(number);
    }
    let put = |cluster: &Cluster, count: u32| {
        let leader = cluster.leader();
        for number in 0..count {
            cluster.put_until_acknowledged(leader, &format!("k{number}={}", "x".repeat(512 << 10)));
        }
    };
    let settled = |cluster: &Cluster| {
        for number in cluster.nodes.keys().map(|id| id.get()) {
            wait_for("a log within its limit", || log_bytes(cluster, number) <= 4_096 * KIB);
            let kept = log_bytes(cluster, number);
            assert!(3_072 * KIB <= kept, "as much as fits is kept, {kept}");
        }
    };
    put(&cluster, 34);
    settled(&cluster);
    // Behind, but not by more than is kept.
    let lagging = cluster.another(cluster.leader());
    cluster.kill(lagging);
    put(&cluster, 4);
    cluster.start(lagging);
    cluster.agree();
    assert_eq!(cluster.node(lagging).metrics().snapshots_installed.get(), 0);
    // Behind by more.
    cluster.kill(lagging);
    put(&cluster, 34);
    settled(&cluster);
    cluster.start(lagging);
    wait_for("a snapshot", || cluster.node(lagging).metrics().snapshots_installed.get() == 1);
    cluster.agree();
    // A smaller limit holds for what an earlier life has left, too.
    let leader = cluster.leader();
    cluster.kill(leader);
    cluster.log_keep_bytes = 1 << 20;
    cluster.start(leader);
    wait_for("the smaller limit", || log_bytes(&cluster, leader) <= 1_024 * KIB);
    assert_ne!(log_bytes(&cluster, leader), 0);
}

#[test]
fn a_member_that_lags_too_far_gets_a_snapshot_over_memory() {
    check_snapshot(false);
}

#[test]
fn a_member_that_lags_too_far_gets_a_snapshot_over_tcp() {
    check_snapshot(true);
}

#[test]
fn leadership_is_handed_over_without_a_refused_proposal() {
    let cluster = Cluster::started(3, false);
    let old = cluster.leader();
    cluster.put(old, "a=1").unwrap();
    wait_for("a successor that is up to date", || cluster.node(old).best_successor().is_some());
    let to = cluster.node(old).best_successor().unwrap();
    cluster.node(old).transfer_leader(to);
    wait_for("the transfer", || cluster.node(to.get()).is_leader());
    assert_eq!(cluster.put(old, "b=2").unwrap(), 1);
}

#[test]
fn a_failed_sync_ends_the_node_and_its_waiters() {
    let cluster = Cluster::started(1, false);
    cluster.put(1, "a=1").unwrap();
    cluster.disks[&id(1)].wal.break_disk();
    let error = cluster.put(1, "b=2").unwrap_err();
    assert!(matches!(error, NodeError::Stopped), "{error}");
    let failure = cluster.node(1).wait_stopped().unwrap();
    assert!(failure.contains("broke the disk"), "{failure}");
    assert!(matches!(cluster.put(1, "c=3"), Err(NodeError::Stopped)));
    assert!(matches!(cluster.get(1, "a"), Err(NodeError::Stopped)));
}

#[test]
fn a_command_over_the_limit_is_refused_on_every_node() {
    let cluster = Cluster::started(3, false);
    let large = format!("k={}", "x".repeat(harmony_types::limits::REQUEST_BYTES_MAX));
    for number in 1..=3 {
        let error = cluster.put(number, &large).unwrap_err();
        assert!(matches!(error, NodeError::TooLarge { .. }), "{error}");
    }
}

#[test]
fn a_member_is_added_promoted_and_removed() {
    let mut cluster = Cluster::started(3, false);
    let member = Member {
        id: id(4),
        name: "n4".to_owned(),
        peer_urls: vec!["http://127.0.0.1:1".to_owned()],
        client_urls: Vec::new(),
        role: Role::Learner,
    };
    let change = |cluster: &Cluster, change_type| cluster.change(change_type, &member);
    cluster.put_until_acknowledged(1, "a=1");
    let learner = change(&cluster, ConfChangeType::AddLearner).unwrap();
    assert!(learner.learners.contains(&id(4)));
    assert_eq!(learner.members[&id(4)].role, Role::Learner);
    assert!(matches!(
        change(&cluster, ConfChangeType::AddLearner),
        Err(NodeError::Membership(MembershipError::Exists))
    ));
    // It starts with nothing: no members either, until the leader's log or snapshot tells it.
    cluster.disks.insert(id(4), support::Disk::default());
    cluster.start(4);
    wait_for("the learner to catch up", || cluster.node(4).storage().application().print() == "1: a=1");
    let voter = change(&cluster, ConfChangeType::Promote).unwrap();
    assert!(voter.voters.contains(&id(4)) && voter.learners.is_empty());
    let gone = change(&cluster, ConfChangeType::Remove).unwrap();
    assert!(gone.removed.contains(&id(4)) && !gone.contains(id(4)));
    let again = change(&cluster, ConfChangeType::AddLearner).unwrap_err();
    assert!(again.to_string().contains("cannot come back"), "{again}");
    cluster.kill(4);
    cluster.put_until_acknowledged(1, "b=2");
    cluster.agree();
}

/// Notes every end of a call, and how many came with each wake.
#[derive(Default)]
struct Ends(Mutex<Vec<(u64, bool)>>);

impl<T> ReplySink<T> for Ends {
    fn complete(&self, batch: Vec<(u64, Result<T, NodeError>)>) {
        let ends = batch.into_iter().map(|(token, result)| (token, result.is_ok()));
        self.0.lock().unwrap().extend(ends);
    }
}

#[test]
fn every_waiter_ends_exactly_once_when_the_node_stops_under_load() {
    let mut cluster = Cluster::started(3, false);
    let leader = cluster.leader();
    let puts = Arc::new(Ends::default());
    let reads = Arc::new(Ends::default());
    let count = 2_000;
    for token in 0..count {
        let node = cluster.node(if token % 2 == 0 { leader } else { cluster.another(leader) });
        node.propose(Bytes::from(format!("k{token}=1")), Waiter::new(Arc::clone(&puts) as _, token));
        node.read_index(Waiter::new(Arc::clone(&reads) as _, token));
    }
    cluster.kill(leader);
    cluster.kill(cluster.another(leader));
    for ends in [puts, reads] {
        let ends = ends.0.lock().unwrap();
        let tokens: BTreeSet<u64> = ends.iter().map(|(token, _)| *token).collect();
        assert_eq!((ends.len(), tokens.len()), (2_000, 2_000));
    }
}

/// Looks for what was put as soon as its put has an outcome.
struct Looks {
    storage: Arc<support::Replica>,
    found: Mutex<Vec<bool>>,
}

impl ReplySink<u64> for Looks {
    fn complete(&self, batch: Vec<(u64, Result<u64, NodeError>)>) {
        for (token, result) in batch {
            result.unwrap();
            let found = self.storage.query(format!("k{token}").as_bytes()).unwrap().is_some();
            self.found.lock().unwrap().push(found);
        }
    }
}

#[test]
fn an_outcome_is_told_once_it_is_visible() {
    let cluster = Cluster::started(1, false);
    let storage = Arc::clone(cluster.node(1).storage());
    let looks = Arc::new(Looks { storage, found: Mutex::default() });
    for token in 0..200 {
        let waiter = Waiter::new(Arc::clone(&looks) as _, token);
        cluster.node(1).propose(Bytes::from(format!("k{token}=1")), waiter);
    }
    wait_for("all outcomes", || looks.found.lock().unwrap().len() == 200);
    assert!(looks.found.lock().unwrap().iter().all(|found| *found));
}

/// A poisoned entry on one member: that member stops and says which, the others go on.
#[test]
fn a_panic_in_apply_stops_that_member_with_the_index_and_nobody_else() {
    let cluster = Cluster::started(3, false);
    let leader = cluster.leader();
    let poisoned = cluster.another(leader);
    let last = cluster.node(leader).status().last;
    wait_for("what the leader began with", || last <= cluster.node(poisoned).storage().applied().index);
    let index = last.next();
    cluster.node(poisoned).storage().application().panic_next();
    assert_eq!(cluster.put(leader, "a=1").unwrap(), 0);
    wait_for("the end of the member", || cluster.node(poisoned).failure().is_some());
    let failure = cluster.node(poisoned).failure().unwrap();
    assert!(failure.starts_with(&format!("applying the entries {index} to ")), "{failure}");
    assert!(failure.ends_with("panicked: a poisoned command"), "{failure}");
    let other =
        cluster.nodes.keys().map(|id| id.get()).find(|one| ![leader, poisoned].contains(one)).unwrap();
    assert_eq!(cluster.get(other, "a").unwrap().as_deref(), Some("1"));
    assert_eq!(cluster.put(leader, "b=2").unwrap(), 1);
    assert!(cluster.node(leader).failure().is_none() && cluster.node(other).failure().is_none());
}
