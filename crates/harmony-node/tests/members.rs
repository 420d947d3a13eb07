//! Members that come, go, and come back with less than they had: real nodes, over memory and over TCP.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/cluster.rs"]
mod support;

use std::path::Path;

use harmony_node::Witness;
use harmony_types::{ConfChangeType, FileSystem as _, NodeError, Storage};
use support::{Cluster, Disk, id, wait_for};

/// What a node says when it stopped by itself.
fn stopped(cluster: &mut Cluster, number: u64) -> String {
    wait_for("the node to stop", || cluster.node(number).failure().is_some());
    let failure = cluster.node(number).wait_stopped().unwrap();
    cluster.kill(number);
    failure
}

/// Waits until a member votes.
fn wait_voter(cluster: &Cluster, number: u64) {
    wait_for("the member to become a voter", || {
        cluster.nodes.values().all(|node| node.storage().membership().voters.contains(&id(number)))
    });
}

fn check_removed_while_away(tcp: bool) {
    let mut cluster = Cluster::started(3, tcp);
    cluster.put_until_acknowledged(1, "a=1");
    cluster.agree();
    cluster.kill(3);
    let three = cluster.members[2].clone();
    let after = cluster.change(ConfChangeType::Remove, &three).unwrap();
    assert!(after.removed.contains(&id(3)));
    // Its own log says that it is a member.
    cluster.start(3);
    let failure = stopped(&mut cluster, 3);
    assert!(failure.contains("member 3 was removed from the cluster"), "{failure}");
    cluster.put_until_acknowledged(1, "b=2");
}

#[test]
fn a_member_that_was_removed_while_it_was_away_is_told_and_stops() {
    check_removed_while_away(false);
}

#[test]
fn a_member_that_was_removed_while_it_was_away_is_told_and_stops_over_tcp() {
    check_removed_while_away(true);
}

/// It may not hear of its own removal: whoever removed it does not send to it any more.
#[test]
fn a_member_that_is_removed_while_it_runs_is_told_and_stops_over_tcp() {
    let mut cluster = Cluster::started(3, true);
    cluster.put_until_acknowledged(1, "a=1");
    let three = cluster.members[2].clone();
    cluster.change(ConfChangeType::Remove, &three).unwrap();
    let failure = stopped(&mut cluster, 3);
    assert!(failure.contains("member 3 was removed from the cluster"), "{failure}");
    // It may have learned of it from its log, or from its peers. The next start says the same in both cases.
    match cluster.try_start(3) {
        Err(error) => {
            assert!(matches!(error, NodeError::Removed { id: removed } if removed == id(3)), "{error}")
        }
        Ok(()) => {
            let failure = stopped(&mut cluster, 3);
            assert!(failure.contains("member 3 was removed from the cluster"), "{failure}");
        }
    }
    cluster.put_until_acknowledged(1, "b=2");
    cluster.agree();
}

#[test]
fn a_leader_that_is_removed_hands_over_first() {
    let mut cluster = Cluster::started(3, false);
    let old = cluster.leader();
    cluster.put(old, "a=1").unwrap();
    let member = cluster.members[usize::try_from(old).unwrap() - 1].clone();
    let after = cluster.change(ConfChangeType::Remove, &member).unwrap();
    assert!(after.removed.contains(&id(old)));
    let failure = stopped(&mut cluster, old);
    assert!(failure.contains("was removed from the cluster"), "{failure}");
    let new = cluster.leader();
    assert_eq!(cluster.put(new, "b=2").unwrap(), 1);
    assert_eq!(cluster.node(new).metrics().early_elections.get(), 0, "it was handed to it");
}

/// What happens to the disk of a member that acknowledged everything.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Emptied,
    Older,
}

/// The leader that knew what the member had is gone, too.
fn check_forgot(loss: Loss, tcp: bool) {
    let mut cluster = Cluster::started(3, tcp);
    cluster.put_until_acknowledged(1, "a=1");
    cluster.agree();
    let older = cluster.disks[&id(3)].copy();
    for number in 0..20 {
        cluster.put_until_acknowledged(1, &format!("k{number}=1"));
    }
    cluster.agree();
    for number in [1, 2] {
        cluster.wait_witness(number, 3);
    }
    cluster.kill(3);
    cluster.disks.insert(
        id(3),
        match loss {
            Loss::Emptied => Disk::default(),
            Loss::Older => older,
        },
    );
    // Nobody is left who led while it held what it lost.
    for number in [1, 2] {
        cluster.node(number).hand_over(support::PATIENCE).unwrap();
    }
    let before = cluster.leader();
    cluster.put_until_acknowledged(before, "b=2");
    cluster.start(3);
    let failure = stopped(&mut cluster, 3);
    assert!(failure.contains("member 3 had acknowledged index"), "{loss:?}: {failure}");
    assert!(failure.contains("add it anew"), "{failure}");

    // It comes back under a new id.
    let three = cluster.members[2].clone();
    cluster.change(ConfChangeType::Remove, &three).unwrap();
    let five = cluster.new_member(5);
    cluster.change(ConfChangeType::Join, &five).unwrap();
    cluster.start(5);
    wait_voter(&cluster, 5);
    let leader = cluster.leader();
    cluster.put_until_acknowledged(leader, "c=3");
    cluster.agree();
}

#[test]
fn an_emptied_member_is_refused_and_comes_back_under_a_new_id() {
    check_forgot(Loss::Emptied, false);
}

#[test]
fn an_emptied_member_is_refused_and_comes_back_under_a_new_id_over_tcp() {
    check_forgot(Loss::Emptied, true);
}

#[test]
fn a_member_on_an_older_copy_of_its_disk_is_refused() {
    check_forgot(Loss::Older, false);
}

#[test]
fn a_member_on_an_older_copy_of_its_disk_is_refused_over_tcp() {
    check_forgot(Loss::Older, true);
}

/// Nobody who runs has seen what the member had; two have it in their files.
#[test]
fn what_a_member_acknowledged_is_known_after_all_were_down() {
    let mut cluster = Cluster::started(3, false);
    cluster.put_until_acknowledged(1, "a=1");
    cluster.agree();
    for number in [1, 2] {
        cluster.wait_witness(number, 3);
    }
    for number in 1..=3 {
        cluster.kill(number);
    }
    cluster.disks.insert(id(3), Disk::default());
    // With the forgotten one first, so that it could vote.
    cluster.start(3);
    cluster.start(1);
    let failure = stopped(&mut cluster, 3);
    assert!(failure.contains("member 3 had acknowledged index"), "{failure}");
    cluster.start(2);
    cluster.leader();
    cluster.agree();
}

/// The only one that it meets knows nothing of what it had acknowledged, and together they are a majority.
fn check_emptied_among_those_who_lag(tcp: bool) {
    let mut cluster = Cluster::started(3, tcp);
    cluster.put_until_acknowledged(1, "a=1");
    // Its entries go to both others: so they have met.
    wait_for("member 3 to lead", || {
        let leader = cluster.leader();
        cluster.node(leader).transfer_leader(id(3));
        leader == 3
    });
    cluster.agree();
    cluster.kill(2);
    let lagging = &cluster.disks[&id(2)].files;
    let peers = Path::new("/node/peers");
    if lagging.exists(peers).unwrap() {
        lagging.remove_file(peers).unwrap();
    }
    let leader = cluster.leader_among(&[1, 3]);
    cluster.put_until_acknowledged(leader, "b=2");
    cluster.kill(1);
    cluster.kill(3);
    cluster.disks.insert(id(3), Disk::default());
    cluster.start(2);
    cluster.start(3);
    let failure = stopped(&mut cluster, 3);
    assert!(failure.contains("on another data directory") && failure.contains("add it anew"), "{failure}");
    assert_eq!(cluster.node(2).leader(), None);
    cluster.start(1);
    cluster.leader();
    // They agree before it is applied, too.
    wait_for("the put", || cluster.agree().contains("b=2"));
    // Others may restart on what they have.
    cluster.kill(2);
    cluster.start(2);
    cluster.agree();
}

#[test]
fn an_emptied_member_is_refused_by_one_that_never_heard_what_it_acknowledged() {
    check_emptied_among_those_who_lag(false);
}

#[test]
fn an_emptied_member_is_refused_by_one_that_never_heard_what_it_acknowledged_over_tcp() {
    check_emptied_among_those_who_lag(true);
}

/// Nobody stops, and no checkpoint is due for long: the end of the process costs a second of it at most.
#[test]
fn what_members_acknowledged_is_on_disk_once_it_is_told() {
    let mut cluster = Cluster::new(3, false);
    cluster.checkpoint_interval_ms = 3_600_000;
    for number in 1..=3 {
        cluster.start(number);
    }
    cluster.put_until_acknowledged(1, "a=1");
    cluster.agree();
    let commit = cluster.node(1).status().commit;
    for number in 1..=3 {
        wait_for("the file to be written", || {
            let files = cluster.disks[&id(number)].copy().files;
            commit <= Witness::open(files as _, "/node").unwrap().highest()
        });
    }
}

/// A quorum that cannot be lost by an address that is wrong.
#[test]
fn a_member_that_joins_and_never_starts_costs_nothing_and_can_be_removed() {
    for count in [1, 3] {
        let mut cluster = Cluster::started(count, false);
        let ghost = cluster.new_member(9);
        let after = cluster.change(ConfChangeType::Join, &ghost).unwrap();
        assert!(after.learners.contains(&id(9)) && after.joining.contains(&id(9)));
        for number in 1..=count {
            cluster.put_until_acknowledged(number, &format!("k{number}=1"));
        }
        if count == 3 {
            let other = cluster.another(cluster.leader());
            cluster.kill(other);
            let leader = cluster.leader();
            cluster.put_until_acknowledged(leader, "b=2");
        }
        let after = cluster.change(ConfChangeType::Remove, &ghost).unwrap();
        assert!(after.removed.contains(&id(9)) && after.learners.is_empty());
    }
}

/// With an election timeout of 20 s, nobody who waits for it would lead in time.
#[test]
fn members_join_one_by_one_and_the_end_of_their_leader_is_noticed_at_once_over_tcp() {
    let mut cluster = Cluster::new(1, true);
    cluster.election_timeout_ms = 20_000;
    cluster.start(1);
    cluster.put_until_acknowledged(1, "a=1");
    for number in [2, 3] {
        let member = cluster.new_member(number);
        cluster.change(ConfChangeType::Join, &member).unwrap();
        cluster.start(number);
        wait_voter(&cluster, number);
    }
    let clock = harmony_node::SystemClock::new();
    cluster.kill(1);
    let leader = cluster.leader();
    cluster.put_until_acknowledged(leader, "b=2");
    let took = harmony_types::Clock::now(&clock);
    assert!(took.as_millis() < 20_000, "{took:?}");
    let early: u64 = cluster.nodes.values().map(|node| node.metrics().early_elections.get()).sum();
    assert!(0 < early);
    cluster.agree();
}
