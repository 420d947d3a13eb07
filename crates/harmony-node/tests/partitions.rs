//! Partitions of every shape, beat by beat: one leader, and no storm of elections.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/world.rs"]
mod support;

use harmony_node::core::event::Event;
use harmony_types::raft::RaftState;
use support::{World, id, state, voters};

/// A cluster that n1 leads.
fn led(count: u64) -> World {
    let mut world = voters(count);
    world.verbose = false;
    world.turn(1, [Event::Campaign]);
    world.settle();
    assert_eq!(state(&world, 1), RaftState::Leader);
    world
}

/// Everybody's time goes on, and everything arrives that can.
fn beats(world: &mut World, count: u64) {
    let numbers: Vec<u64> = world.nodes.keys().copied().collect();
    for _ in 0..count {
        for number in &numbers {
            world.tick(*number, 1);
        }
        world.settle();
    }
}

fn terms(world: &World) -> Vec<u64> {
    world.nodes.values().map(|node| node.core.status().term.0).collect()
}

fn leaders(world: &World) -> Vec<u64> {
    world.nodes.keys().copied().filter(|number| state(world, *number) == RaftState::Leader).collect()
}

/// Puts through a member, and returns whether it was acknowledged within an election timeout.
fn puts(world: &mut World, number: u64) -> bool {
    world.trace.take();
    world.put(number, "a=1");
    beats(world, 10);
    // An acknowledgement is the number of puts before it.
    let acknowledged = |line: &String| {
        line.strip_prefix(&format!("client of n{number}, put a=1: "))
            .is_some_and(|end| end.parse::<u64>().is_ok())
    };
    world.trace.take().iter().any(acknowledged)
}

/// Neither end of the chain hears the other; whoever leads stays, and nobody's term rises.
#[test]
fn a_bridge_keeps_its_leader() {
    for (count, cuts) in
        [(3, vec![(1, 3)]), (5, vec![(1, 4), (1, 5), (2, 5)]), (5, vec![(1, 2), (1, 3), (2, 3)])]
    {
        let mut world = led(count);
        for (one, other) in &cuts {
            world.cut(*one, *other);
            world.cut(*other, *one);
        }
        beats(&mut world, 300);
        assert_eq!(leaders(&world), [1], "{cuts:?}");
        assert!(terms(&world).iter().all(|term| *term == 1), "{cuts:?}");
        assert!(puts(&mut world, 1), "{cuts:?}");
    }
}

/// A leader that hears nobody but sends: it steps down, another one leads, and its own elections disturb nobody.
#[test]
fn a_leader_that_is_deaf_steps_down_for_good() {
    let mut world = led(3);
    world.cut(2, 1);
    world.cut(3, 1);
    beats(&mut world, 60);
    assert_ne!(state(&world, 1), RaftState::Leader);
    let (leader, term) = (leaders(&world), terms(&world));
    assert_eq!(leader.len(), 1, "{leader:?}");
    beats(&mut world, 300);
    assert_eq!(
        (leaders(&world), terms(&world)[1..].to_vec()),
        (leader.clone(), term[1..].to_vec()),
        "no storm"
    );
    assert!(puts(&mut world, leader[0]));
    world.heal();
    beats(&mut world, 30);
    assert_eq!(leaders(&world), leader, "the one that comes back follows");
    assert_eq!(terms(&world), vec![term[1]; 3]);
}

/// A follower that hears nobody but sends: its requests are ignored by those who hear their leader.
#[test]
fn a_follower_that_is_deaf_disturbs_nobody() {
    let mut world = led(3);
    world.cut(1, 3);
    world.cut(2, 3);
    beats(&mut world, 300);
    assert_eq!((leaders(&world), terms(&world)), (vec![1], vec![1; 3]));
    world.heal();
    beats(&mut world, 30);
    assert_eq!((leaders(&world), terms(&world)), (vec![1], vec![1; 3]));
}

/// A leader that is mute is succeeded, hears of it, and follows.
#[test]
fn a_leader_that_is_mute_is_succeeded_once() {
    let mut world = led(3);
    world.cut(1, 2);
    world.cut(1, 3);
    beats(&mut world, 60);
    let (leader, term) = (leaders(&world), terms(&world));
    assert_eq!(leader.len(), 1, "{leader:?}");
    assert_ne!(leader, [1]);
    beats(&mut world, 300);
    assert_eq!((leaders(&world), terms(&world)), (leader, term), "no storm");
}

/// The leader lives and is heard, but a member cannot connect to it: that is told again and again, and changes nothing.
#[test]
fn a_leader_whose_machine_refuses_a_member_stays() {
    for (count, refused) in [(3, vec![2]), (5, vec![2, 3])] {
        let mut world = led(count);
        for _ in 0..200 {
            for number in &refused {
                world.turn(*number, [Event::Gone { peer: id(1) }]);
            }
            beats(&mut world, 1);
        }
        assert_eq!(leaders(&world), [1]);
        assert!(terms(&world).iter().all(|term| *term == 1));
        assert!(puts(&mut world, 1));
    }
}

/// A leader that sends, but that nobody can connect to any more, is succeeded, and stays so.
#[test]
fn a_leader_whose_machine_refuses_everybody_is_succeeded_once() {
    let mut world = led(3);
    world.cut(2, 1);
    world.cut(3, 1);
    let doubts = |world: &mut World, count| {
        for _ in 0..count {
            for number in [2, 3] {
                world.turn(number, [Event::Gone { peer: id(1) }]);
            }
            beats(world, 1);
        }
    };
    doubts(&mut world, 100);
    let (leader, term) = (leaders(&world), terms(&world)[1..].to_vec());
    assert_eq!(leader.len(), 1);
    assert_ne!(leader, [1]);
    doubts(&mut world, 200);
    assert_eq!((leaders(&world), terms(&world)[1..].to_vec()), (leader, term), "no storm");
}

/// A member that was away for long comes back as it went: pre-votes raise no term.
#[test]
fn a_member_that_was_cut_off_comes_back_without_an_election() {
    let mut world = led(3);
    world.isolate(3);
    beats(&mut world, 300);
    world.heal();
    beats(&mut world, 30);
    assert_eq!((leaders(&world), terms(&world)), (vec![1], vec![1; 3]));
}
