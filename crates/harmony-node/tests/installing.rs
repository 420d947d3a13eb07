//! A member that installs a snapshot: what it still says, on the real `raft` crate.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/world.rs"]
mod support;

use harmony_node::core::event::{ApplyJob, Event};
use harmony_types::raft::RaftState;
use harmony_types::{Entry, LogIndex, Message, MessageType, PeerMessage, Storage as _, Term};
use support::{World, id, message, state, voters};

/// Three members, of which the third is installing a snapshot of the first, its leader in term 1.
fn installing() -> World {
    let mut world = voters(3);
    world.turn(1, [Event::Campaign]);
    world.settle();
    world.isolate(3);
    world.put(1, "a=1");
    world.settle();
    let storage = &world.nodes[&1].storage;
    storage.checkpoint().unwrap();
    storage.release(LogIndex(2)).unwrap();
    world.heal();
    for _ in 0..3 {
        world.tick(1, 1);
        for _ in 0..3 {
            world.deliver();
            world.sync(1);
            world.apply(1);
        }
    }
    assert!(world.nodes[&3].apply.iter().any(|job| matches!(job, ApplyJob::Install { .. })));
    world.messages.clear();
    world.trace.take();
    world
}

/// Messages of this kind that the third member has sent.
fn sent(world: &World, kind: MessageType) -> Vec<Message> {
    let raft = |message: &PeerMessage| match message {
        PeerMessage::Raft(message) if message.message_type == kind => Some((**message).clone()),
        _ => None,
    };
    world.messages.iter().filter(|(from, ..)| *from == 3).filter_map(|(.., message)| raft(message)).collect()
}

#[test]
fn a_leader_keeps_its_quorum_and_its_reads_with_a_member_that_installs() {
    let mut world = installing();
    // The other one is away: the member that installs is the quorum.
    world.isolate(2);
    world.verbose = false;
    world.read(1);
    let run = |world: &mut World| {
        for _ in 0..100 {
            world.tick(1, 1);
            for _ in 0..3 {
                world.deliver();
                world.sync(1);
                world.apply(1);
            }
        }
    };
    run(&mut world);
    assert_eq!(state(&world, 1), RaftState::Leader, "ten election timeouts later");
    assert_eq!(world.trace.take(), ["client of n1, read: ()"]);
    // What it has not installed it does not acknowledge.
    world.put(1, "b=2");
    run(&mut world);
    assert!(world.nodes[&1].storage.query(b"b").unwrap().is_none());
    world.apply(3);
    world.settle();
    assert!(world.nodes[&1].storage.query(b"b").unwrap().is_some());
    assert_eq!(world.nodes[&3].storage.application().print(), "2: a=1 b=2");
}

/// Between the installation and the sync behind it, raft's applied index lies before the log's begin: an election would have
/// raft read entries that are gone, which it takes for a bug.
#[test]
fn a_member_asks_for_no_votes_until_the_sync_behind_an_installation_is_done() {
    for asked in [false, true] {
        let mut world = installing();
        world.isolate(3);
        world.apply(3);
        assert_eq!(world.nodes[&3].storage.application().print(), "1: a=1");
        if asked {
            world.hear(message(MessageType::TimeoutNow, 1, 3, 1)).unwrap();
            world.turn(3, [Event::Campaign]);
        } else {
            world.tick(3, 100);
        }
        assert_eq!(state(&world, 3), RaftState::Follower);
        world.sync(3);
        world.messages.clear();
        world.tick(3, 30);
        world.sync(3);
        assert_eq!(state(&world, 3), RaftState::PreCandidate, "as soon as the disk is done");
    }
}

#[test]
fn only_the_leader_of_the_members_own_term_is_answered() {
    let mut world = installing();
    let answered = |world: &mut World, from: u64, term: u64| {
        let context = bytes::Bytes::from_static(b"round");
        world.hear(Message { context, ..message(MessageType::Heartbeat, from, 3, term) }).unwrap();
        let answers = sent(world, MessageType::HeartbeatResponse);
        world.messages.clear();
        answers
    };
    let answers = answered(&mut world, 1, 1);
    assert_eq!(answers.len(), 1);
    let Message { to, from, term, ref context, commit, .. } = answers[0];
    assert_eq!((to, from, term, commit), (id(1), id(3), Term(1), LogIndex::ZERO));
    assert_eq!(context, "round");
    assert_eq!(answered(&mut world, 2, 1), [], "it does not lead");
    assert_eq!(answered(&mut world, 1, 0), [], "an old term");
    assert_eq!(answered(&mut world, 2, 2), [], "a term that the member does not know yet");
    // What it was told by a newer leader it hears when it is done.
    world.apply(3);
    assert_eq!(world.nodes[&3].core.status().term, Term(2));
    assert_eq!(answered(&mut world, 1, 1), [], "and then it knows better");
}

#[test]
fn appends_of_a_leader_that_tries_again_do_not_pile_up() {
    let mut world = installing();
    for value in 1..=5 {
        let entry = Entry {
            index: LogIndex(3),
            term: Term(1),
            data: format!("b={value}").into(),
            ..Entry::default()
        };
        let append = Message {
            index: LogIndex(2),
            log_term: Term(1),
            entries: vec![entry],
            ..message(MessageType::Append, 1, 3, 1)
        };
        world.hear(append).unwrap();
    }
    world.apply(3);
    world.sync(3);
    let acknowledged: Vec<u64> =
        sent(&world, MessageType::AppendResponse).iter().map(|message| message.index.0).collect();
    assert_eq!(acknowledged, [2, 3], "the snapshot, and the newest append");
    let entries = world.nodes[&3].storage.entries(LogIndex(3)..LogIndex(4), u64::MAX).unwrap();
    assert_eq!(entries[0].data, "b=5");
}
