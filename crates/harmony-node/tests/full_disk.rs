//! A log that has no place for what raft already has: nobody could see it coming. The member keeps it, and goes on with it when
//! there is room.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/cluster.rs"]
mod support;

use std::time::Duration;

use bytes::Bytes;
use harmony_types::{NodeError, Storage};
use support::{Cluster, id, wait_for};

const SHORT: Duration = Duration::from_millis(300);

#[test]
fn a_node_alone_keeps_what_its_log_refused_and_goes_on_with_it() {
    let cluster = Cluster::started(1, false);
    cluster.put(1, "a=1").unwrap();
    cluster.disks[&id(1)].wal.set_full(true);
    let first = cluster.node(1).propose_blocking(Bytes::from_static(b"b=2"), SHORT).unwrap_err();
    assert!(first.may_have_been_applied(), "{first}");
    // It is in line, so whoever comes next is told at once.
    let next = cluster.put(1, "c=3").unwrap_err();
    assert!(matches!(next, NodeError::NoSpace), "{next}");
    assert_eq!(cluster.node(1).metrics().proposals_no_space.get(), 1);
    assert_eq!(cluster.node(1).storage().query(b"a").unwrap().unwrap(), "1", "a local read");
    assert_eq!(cluster.node(1).failure(), None);
    cluster.disks[&id(1)].wal.set_full(false);
    wait_for("the put that was in line", || cluster.node(1).storage().query(b"b").unwrap().is_some());
    cluster.put(1, "d=4").unwrap();
    assert_eq!(cluster.agree(), "3: a=1 b=2 d=4");
}

#[test]
fn the_others_elect_a_leader_while_the_log_of_theirs_has_no_place() {
    let cluster = Cluster::started(3, false);
    let old = cluster.leader();
    cluster.put(old, "a=1").unwrap();
    cluster.disks[&id(old)].wal.set_full(true);
    let unknown = cluster.node(old).propose_blocking(Bytes::from_static(b"b=2"), SHORT).unwrap_err();
    assert!(unknown.may_have_been_applied(), "{unknown}");
    let others: Vec<u64> = (1..=3).filter(|number| *number != old).collect();
    let new = cluster.leader_among(&others);
    cluster.put_until_acknowledged(new, "c=3");
    assert!(cluster.node(old).storage().query(b"c").unwrap().is_none());
    cluster.disks[&id(old)].wal.set_full(false);
    cluster.put_until_acknowledged(new, "d=4");
    let state = cluster.agree();
    assert!(state.contains("a=1") && state.contains("c=3 d=4"), "{state}");
}

#[test]
fn a_node_whose_log_has_no_place_stops() {
    let mut cluster = Cluster::started(1, false);
    cluster.disks[&id(1)].wal.set_full(true);
    cluster.node(1).propose_blocking(Bytes::from_static(b"b=2"), SHORT).unwrap_err();
    cluster.kill(1);
    cluster.disks[&id(1)].wal.set_full(false);
    cluster.start(1);
    cluster.put_until_acknowledged(1, "a=1");
}
