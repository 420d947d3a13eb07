//! Processes that speak from a member's address and are not that member any more, or never were.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use harmony_server::proto::etcdserverpb as pb;
use harmony_testkit::Ledger;
use harmony_testkit::wait::{PATIENCE, until};
use harmony_types::{TestCluster, TestNode};
use kit::GrpcClient;

#[test]
fn a_member_of_another_cluster_at_a_members_address_is_heard_by_nobody() {
    let (mut cluster, ledger) = (kit::started(3), Ledger::new());
    let leader = cluster.leader().unwrap();
    let id = cluster.other(leader).id();
    let others: Vec<_> = cluster.node_ids().into_iter().filter(|other| *other != id).collect();
    kit::write(&cluster, &ledger, leader);
    cluster.kill_node(id).unwrap();
    let term = cluster.node(leader).unwrap().term();

    // The others dial it, as its address is theirs to dial, and it dials them.
    cluster.spawn_stranger(id, "another cluster").unwrap();
    let log = |id| cluster.nodes().find(|node| node.id() == id).unwrap().log();
    let refused = |log: &str| log.contains(", this member is of cluster ");
    until("all have refused each other", PATIENCE, || {
        let heard_all = cluster.node_ids().into_iter().all(|id| refused(&log(id)));
        if heard_all { Ok(()) } else { Err("not yet".into()) }
    })
    .unwrap();
    for _ in 0..50 {
        kit::write(&cluster, &ledger, leader);
    }
    let stranger = GrpcClient::new(&cluster.node(id).unwrap().endpoint()).unwrap();
    let status = stranger.maintenance(async |it| it.status(pb::StatusRequest {}).await).unwrap();
    assert_eq!((status.leader, status.header.unwrap().revision), (0, 1), "it has a cluster of its own");
    assert!(stranger.get_serializable(b"ledger/00000000").unwrap().is_none());
    for other in others {
        assert_eq!(cluster.node(other).unwrap().term(), term, "it costs no election");
    }

    cluster.kill_node(id).unwrap();
    cluster.restart_node(id).unwrap();
    kit::check(&cluster, &ledger);
}

#[test]
fn a_member_that_was_removed_while_it_was_down_is_told_and_ends() {
    let (mut cluster, ledger) = (kit::started(3), Ledger::new());
    let leader = cluster.leader().unwrap();
    let id = cluster.other(leader).id();
    kit::write(&cluster, &ledger, leader);
    cluster.kill_node(id).unwrap();
    let client = GrpcClient::new(&cluster.node(leader).unwrap().endpoint()).unwrap();
    let remove = pb::MemberRemoveRequest { id: id.get() };
    client.cluster(async |it| it.member_remove(remove).await).unwrap();
    for _ in 0..2 {
        cluster.spawn_node(id).unwrap();
        assert_eq!(cluster.wait_until_ended(id).unwrap().code(), Some(1));
        kit::write(&cluster, &ledger, leader);
    }
    let log = cluster.nodes().find(|node| node.id() == id).unwrap().log();
    assert!(log.contains("was removed from the cluster: it does not start on this data again"), "{log}");
    kit::check(&cluster, &ledger);
}
