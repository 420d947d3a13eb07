//! A member whose state is not the others' is found out, whoever leads, and takes theirs.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/world.rs"]
mod support;

use harmony_node::core::event::Event;
use harmony_types::Role;
use harmony_types::raft::RaftState;
use support::{World, member, state};

/// More beats than any of it takes, an election for each lost leader included.
const BEATS: u64 = 150;

/// `count` voters that compare hashes, with n1 in the lead and a first command applied by all.
fn comparing(count: u64) -> World {
    let mut world = World::comparing(&(1..=count).map(|n| member(n, Role::Voter)).collect::<Vec<_>>());
    world.turn(1, [Event::Campaign]);
    world.settle();
    assert_eq!(state(&world, 1), RaftState::Leader);
    world.put(1, "a=1");
    world.settle();
    world
}

/// These members make something else of the next command.
fn diverge(world: &mut World, odd: &[u64]) {
    for number in odd {
        world.nodes[number].storage.application().apply_differently();
    }
    world.put(1, "b=2");
    world.settle();
    world.trace.take();
}

fn beat(world: &mut World) {
    let numbers: Vec<u64> = world.nodes.keys().copied().collect();
    for number in numbers {
        world.tick(number, 1);
    }
}

fn is_corrupt(world: &World, number: u64) -> bool {
    world.nodes[&number].metrics.corrupt.get() != 0
}

fn repairs(world: &World, number: u64) -> u64 {
    world.nodes[&number].metrics.repairs.get()
}

/// Beats until these members are repaired, and then checks that all members are as one.
fn check_repair(world: &mut World, odd: &[u64], what: &str) {
    let mut beats = 0;
    while odd.iter().any(|number| repairs(world, *number) == 0 || is_corrupt(world, *number)) {
        assert!(beats < BEATS, "{what}: not repaired: {:#?}\n{:#?}", world.status(), world.trace.take());
        beat(world);
        world.settle();
        beats += 1;
    }
    for _ in 0..20 {
        beat(world);
        world.settle();
    }
    for (number, node) in &world.nodes {
        assert_eq!(node.metrics.repairs.get(), u64::from(odd.contains(number)), "{what}: n{number}");
        assert_eq!(node.storage.application().print(), "2: a=1 b=2", "{what}: n{number}");
    }
}

#[test]
fn an_odd_follower_is_found_at_the_next_beat_refuses_its_clients_and_takes_the_leaders_state() {
    let mut world = comparing(3);
    diverge(&mut world, &[3]);
    // It tells its hash, and is told that it is odd.
    beat(&mut world);
    world.deliver();
    beat(&mut world);
    world.deliver();
    assert!(is_corrupt(&world, 3));
    assert_eq!(world.nodes[&1].metrics.corrupt_members.get(), [support::id(3)], "the leader knows");
    world.trace.take();
    world.put(3, "c=3");
    world.read(3);
    let lines = world.trace.take();
    assert_eq!(
        lines.iter().filter(|line| line.contains("refused, the state of member 3")).count(),
        2,
        "{lines:#?}"
    );
    check_repair(&mut world, &[3], "a follower");
    assert_eq!(world.nodes[&1].metrics.corrupt_members.get(), []);
    assert_eq!(state(&world, 1), RaftState::Leader, "nobody else noticed");
}

#[test]
fn an_odd_leader_acknowledges_nothing_more_lets_another_lead_and_takes_its_state() {
    let mut world = comparing(3);
    diverge(&mut world, &[1]);
    let mut beats = 0;
    while !is_corrupt(&world, 1) {
        assert!(beats < 3, "the odd one compares, and so finds itself");
        beat(&mut world);
        world.deliver();
        beats += 1;
    }
    world.trace.take();
    world.put(1, "c=3");
    let lines = world.trace.take();
    assert!(lines.iter().any(|line| line.contains("refused, the state of member 1")), "{lines:#?}");
    check_repair(&mut world, &[1], "a leader");
    assert_ne!(state(&world, 1), RaftState::Leader);
}

/// Everything that is under way at some beat is lost; whatever it was, it is done again.
#[test]
fn an_odd_leader_is_repaired_whatever_is_lost_on_the_way() {
    for lost in 0..20 {
        let mut world = comparing(3);
        diverge(&mut world, &[1]);
        // Half steps: what a beat or a delivery causes waits for the next.
        for step in 0..=lost {
            if step % 4 == 0 {
                beat(&mut world);
            }
            for number in 1..=3 {
                world.sync(number);
                world.apply(number);
            }
            if step == lost {
                world.lose();
            }
            world.deliver();
        }
        check_repair(&mut world, &[1], &format!("step {lost}"));
    }
}

#[test]
fn the_new_leader_may_die_while_its_snapshot_is_under_way() {
    for again in 0..5 {
        let mut world = comparing(3);
        diverge(&mut world, &[1]);
        let mut beats = 0;
        while world.snapshots.is_empty() {
            assert!(beats < BEATS, "nobody sends a snapshot: {:#?}", world.status());
            beat(&mut world);
            let mut any = true;
            while any && world.snapshots.is_empty() {
                any = (1..=3).fold(false, |any, n| any | world.sync(n) | world.apply(n))
                    | world.deliver_messages();
            }
            beats += 1;
        }
        let sender = world.snapshots[0].0.from.get();
        assert_ne!(sender, 1);
        world.snapshots.clear();
        world.crash(sender);
        // One of two is odd now, and nobody can say who; but the one that knows it of itself goes on.
        check_repair(&mut world, &[1], &format!("run {again}"));
        world.start(sender);
        check_repair(&mut world, &[1], &format!("run {again}, all of them"));
    }
}

#[test]
fn two_odd_members_of_five_do_not_hand_over_to_each_other() {
    let mut world = comparing(5);
    diverge(&mut world, &[1, 2]);
    check_repair(&mut world, &[1, 2], "two of five");
    assert!(
        world.nodes.values().all(|node| node.core.status().leader.is_some_and(|leader| 2 < leader.get()))
    );
}

#[test]
fn without_a_majority_nobody_is_accused() {
    let mut world = comparing(2);
    diverge(&mut world, &[2]);
    for _ in 0..30 {
        beat(&mut world);
        world.settle();
    }
    for number in [1, 2] {
        assert!(!is_corrupt(&world, number));
        assert_eq!(repairs(&world, number), 0);
    }
    assert!(world.nodes[&1].metrics.hashes_undecided.get() != 0, "but it is counted");
    assert_eq!(world.nodes[&2].storage.application().print(), "2: a=1 b=wrong", "and nothing is changed");
}

#[test]
fn a_damaged_leader_lets_another_lead_and_the_only_voter_changes_nothing() {
    let mut world = comparing(3);
    diverge(&mut world, &[]);
    world.turn(1, [Event::Damaged { reason: "a page".to_owned() }]);
    assert!(is_corrupt(&world, 1));
    check_repair(&mut world, &[1], "a damaged leader");
    assert_ne!(state(&world, 1), RaftState::Leader);

    let mut alone = comparing(1);
    alone.turn(1, [Event::Damaged { reason: "a page".to_owned() }]);
    assert!(!is_corrupt(&alone, 1));
    assert_eq!(state(&alone, 1), RaftState::Leader);
}
