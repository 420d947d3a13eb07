//! A member whose state is damaged, or made something else of an entry than the others, serves nobody and takes their state.
//! What happens when it leads, or messages are lost, is in harmony-node's `self_repair.rs`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use harmony_testkit::wait::{PATIENCE, until};
use harmony_testkit::{Client, InProcessCluster, Ledger};
use harmony_types::fake::fs::{CallKind, Crash, ENOSPC, Fault};
use harmony_types::txn::Put;
use harmony_types::{Command, CommandKind, Entry, LogIndex, NodeError, NodeId, Storage, TestCluster};

const TREE: &str = "/data/tree/tree.redb";

const CALL_TIMEOUT: Duration = Duration::from_secs(5);

fn put(key: &str, value: &str) -> Bytes {
    let put =
        Put { key: Bytes::copy_from_slice(key.as_bytes()), value: value.to_owned().into(), ..Put::default() };
    Command::from(CommandKind::Put(put)).encode_to_bytes()
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    until(what, PATIENCE, || if condition() { Ok(()) } else { Err("not yet".into()) }).unwrap();
}

/// Three members that acknowledged something, and one of them killed before the last put.
fn three_with_one_behind() -> (InProcessCluster, Ledger, NodeId, NodeId) {
    let (mut cluster, ledger) = (InProcessCluster::with_crash(Crash::KeepAll), Ledger::new());
    cluster.start(3).unwrap();
    let leader = cluster.leader().unwrap();
    for _ in 0..5 {
        assert!(ledger.write_one(cluster.node(leader).unwrap()).unwrap());
    }
    let odd = cluster.node_ids().into_iter().find(|id| *id != leader).unwrap();
    cluster.kill_node(odd).unwrap();
    let node = cluster.node(leader).unwrap().node();
    node.propose_blocking(put("canary", "right"), CALL_TIMEOUT).unwrap();
    (cluster, ledger, leader, odd)
}

/// The member that does not run has the leader's log, but makes another value of its last entry.
fn apply_differently(cluster: &InProcessCluster, leader: NodeId, odd: NodeId) {
    let from = cluster.node(leader).unwrap().node().storage();
    let storage = cluster.open_storage(odd).unwrap();
    let behind = storage.bounds().last.next();
    let end = from.applied().index.next();
    assert!(behind < end);
    let missing = from.entries(behind..end, u64::MAX).unwrap();
    storage.save(None, &missing).unwrap();
    storage.sync().unwrap();
    let next = storage.applied().index.next();
    let mut entries: Vec<Entry> = storage.entries(next..end, u64::MAX).unwrap();
    entries.last_mut().unwrap().data = put("canary", "wrong");
    storage.apply(&entries).unwrap();
    storage.close().unwrap();
}

/// Where the pages of a member's tree begin.
fn pages(cluster: &InProcessCluster, id: NodeId) -> impl Iterator<Item = u64> + use<> {
    let bytes = cluster.disk(id).unwrap().read_file(TREE).unwrap().len() as u64;
    (0..bytes / 4096).map(|page| page * 4096)
}

fn repairs(cluster: &InProcessCluster, id: NodeId) -> u64 {
    cluster.node(id).unwrap().node().metrics().repairs.get()
}

fn is_corrupt(cluster: &InProcessCluster, id: NodeId) -> bool {
    cluster.node(id).unwrap().node().metrics().corrupt.get() != 0
}

fn check_repaired(cluster: &InProcessCluster, ledger: &Ledger, odd: NodeId) {
    wait_for("the odd member is repaired", || repairs(cluster, odd) == 1 && !is_corrupt(cluster, odd));
    let node = cluster.node(odd).unwrap();
    // By name: `TestNode` has such a call, too.
    assert_eq!(Client::get(node, b"canary").unwrap().unwrap().value, "right");
    assert!(ledger.write_one(node).unwrap(), "it serves again");
    cluster.check_agreement().unwrap();
    for node in cluster.running() {
        assert_eq!(node.node().failure(), None);
        assert_eq!(node.node().metrics().repairs.get(), u64::from(node.node().id() == odd));
        ledger.check(node).unwrap();
    }
}

#[test]
fn a_follower_that_applied_an_entry_differently_serves_nobody_and_takes_the_others_state() {
    let (mut cluster, ledger, leader, odd) = three_with_one_behind();
    apply_differently(&cluster, leader, odd);
    // The snapshot cannot take its place: the member stays as it is until this ends.
    let hold = cluster.disk(odd).unwrap().hold([CallKind::Rename]);
    cluster.restart_node(odd).unwrap();
    let last = cluster.node(odd).unwrap().node().storage().bounds().last;
    wait_for("it is found out", || is_corrupt(&cluster, odd));
    let node = cluster.node(odd).unwrap().node();
    let refused = node.read_index_blocking(CALL_TIMEOUT).unwrap_err();
    assert!(matches!(refused, NodeError::Corrupt { id } if id == odd), "{refused}");
    let refused = node.propose_blocking(put("k", "v"), CALL_TIMEOUT).unwrap_err();
    assert!(matches!(refused, NodeError::Corrupt { .. }) && !refused.may_have_been_applied(), "{refused}");
    // The others do not notice.
    assert!(ledger.write_one(cluster.node(leader).unwrap()).unwrap());
    assert!(last <= node.storage().bounds().last, "it forgets nothing that it acknowledged");
    drop(hold);
    check_repaired(&cluster, &ledger, odd);
    assert!(last <= cluster.node(odd).unwrap().node().storage().bounds().last);
    // And what it took survives a restart.
    cluster.kill_node(odd).unwrap();
    cluster.restart_node(odd).unwrap();
    cluster.check_agreement().unwrap();
    cluster.stop().unwrap();
}

#[test]
fn a_member_whose_disk_has_no_room_for_the_others_state_waits_for_it() {
    let (mut cluster, ledger, leader, odd) = three_with_one_behind();
    apply_differently(&cluster, leader, odd);
    let disk = cluster.disk(odd).unwrap();
    let growing = [CallKind::Open, CallKind::Write, CallKind::SetLen, CallKind::Allocate];
    disk.inject(Fault::on(growing).on_path("tree.redb.new").errno(ENOSPC).lasting());
    cluster.restart_node(odd).unwrap();
    let waits = |expected| cluster.node(odd).unwrap().node().metrics().apply_waits.get() == expected;
    wait_for("it waits for room", || waits(1));
    // The others do not notice.
    assert!(ledger.write_one(cluster.node(leader).unwrap()).unwrap());
    assert_eq!(cluster.node(odd).unwrap().node().failure(), None);
    cluster.disk(odd).unwrap().clear_faults();
    check_repaired(&cluster, &ledger, odd);
    assert!(waits(0));
    cluster.stop().unwrap();
}

/// Damage of a tree that runs: found by the verification, with the member leading or not.
#[test]
fn a_tree_that_is_damaged_under_a_running_member_is_replaced_and_nothing_is_lost() {
    for leads in [false, true] {
        let (mut cluster, ledger) = (InProcessCluster::new(), Ledger::new());
        cluster.start(3).unwrap();
        let leader = cluster.leader().unwrap();
        let ids = cluster.node_ids();
        let hurt = ids.into_iter().find(|id| (*id == leader) == leads).unwrap();
        for _ in 0..20 {
            assert!(ledger.write_one(cluster.node(leader).unwrap()).unwrap());
        }
        let storage = Arc::clone(cluster.node(hurt).unwrap().node().storage());
        wait_for("it applied something", || LogIndex(20) <= storage.applied().index);
        storage.checkpoint().unwrap();
        for page in pages(&cluster, hurt).skip(1) {
            cluster.disk(hurt).unwrap().flip(TREE, page + 1_000, 1).unwrap();
        }
        // Reads from the disk, around all caches.
        wait_for("the verification finds it", || storage.verify_step(u64::MAX).unwrap().damage.is_some());
        wait_for("it is replaced", || repairs(&cluster, hurt) == 1 && !is_corrupt(&cluster, hurt));
        assert_eq!(storage.damage(), None);
        let node = cluster.node(hurt).unwrap();
        wait_for("it serves again", || ledger.write_one(node).unwrap());
        cluster.check_agreement().unwrap();
        cluster.running().for_each(|node| ledger.check(node).unwrap());
        // What took the tree's place is whole, and found at the next start.
        while storage.verify_step(u64::MAX).unwrap().passes == 0 {}
        assert_eq!(storage.verification().damage, None);
        cluster.kill_node(hurt).unwrap();
        cluster.restart_node(hurt).unwrap();
        cluster.check_agreement().unwrap();
        cluster.stop().unwrap();
    }
}

/// A cluster whose leader's clients have put 100 long keys, and a follower that closed its tree and opened it again.
fn with_a_cold_follower() -> (InProcessCluster, NodeId) {
    let mut cluster = InProcessCluster::with_crash(Crash::KeepAll);
    cluster.start(3).unwrap();
    let leader = cluster.leader().unwrap();
    let hurt = cluster.node_ids().into_iter().find(|id| *id != leader).unwrap();
    put_all(&cluster, "first");
    cluster.check_agreement().unwrap();
    cluster.node(hurt).unwrap().node().storage().checkpoint().unwrap();
    (cluster, hurt)
}

fn put_all(cluster: &InProcessCluster, value: &str) {
    let node = cluster.node(cluster.leader().unwrap()).unwrap().node();
    for number in 0..100 {
        let key = format!("key {number:03} {}", "k".repeat(200));
        node.propose_blocking(put(&key, value), CALL_TIMEOUT).unwrap();
    }
}

/// Damage that nobody sees before an entry needs the page: the entry is committed, and this member cannot apply it.
#[test]
fn a_damaged_page_that_an_entry_needs_costs_the_member_a_snapshot_and_the_cluster_nothing() {
    let (mut healed, mut refused) = (0, 0);
    for part in 1..12 {
        let (mut cluster, hurt) = with_a_cold_follower();
        let count = pages(&cluster, hurt).count();
        let page = pages(&cluster, hurt).nth(part * count / 12).unwrap();
        cluster.kill_node(hurt).unwrap();
        cluster.disk(hurt).unwrap().flip(TREE, page + 1_000, 1).unwrap();
        if cluster.restart_node(hurt).is_err() {
            // It is needed to open.
            refused += 1;
            continue;
        }
        put_all(&cluster, "second");
        let applied = |id| cluster.node(id).unwrap().node().storage().applied().index;
        wait_for("it goes on", || applied(hurt) == applied(cluster.leader().unwrap()));
        healed += repairs(&cluster, hurt);
        // Comparing all there is reads all pages: where no entry needed this one, that is what finds it.
        wait_for("agreement", || cluster.check_agreement().is_ok());
        wait_for("no damage", || !is_corrupt(&cluster, hurt));
        assert!(cluster.running().all(|node| node.node().failure().is_none()));
    }
    assert!(healed != 0, "no page was needed; {refused} to open");
}

/// The system refuses one read of the tree: as damage, for redb reads nothing more.
#[test]
fn a_read_that_the_disk_refuses_is_repaired_as_damage_is() {
    let (mut cluster, hurt) = with_a_cold_follower();
    cluster.kill_node(hurt).unwrap();
    cluster.restart_node(hurt).unwrap();
    let disk = cluster.disk(hurt).unwrap();
    disk.inject(Fault::on([CallKind::Read]).on_path("tree.redb"));
    put_all(&cluster, "second");
    assert_eq!(disk.faults_struck(), 1);
    wait_for("it is repaired", || repairs(&cluster, hurt) == 1 && !is_corrupt(&cluster, hurt));
    cluster.check_agreement().unwrap();
    assert!(cluster.running().all(|node| node.node().failure().is_none()));
    cluster.stop().unwrap();
}

#[test]
fn members_that_agree_never_accuse_each_other_under_load() {
    let (mut cluster, ledger) = (InProcessCluster::new(), Ledger::new());
    cluster.start(3).unwrap();
    let enough = LogIndex(1_100);
    until("some steps of hashes", PATIENCE, || {
        for node in cluster.running() {
            ledger.write_one(node)?;
        }
        let applied = cluster.running().map(|node| node.node().storage().applied().index).min();
        if Some(enough) <= applied { Ok(()) } else { Err("not yet".into()) }
    })
    .unwrap();
    for node in cluster.running() {
        let metrics = node.node().metrics();
        assert_eq!((metrics.corrupt.get(), metrics.repairs.get(), metrics.hashes_undecided.get()), (0, 0, 0));
    }
    cluster.check_agreement().unwrap();
    cluster.stop().unwrap();
}
