//! The order in which disk, state machine and peers are heard, and in which messages leave: on the real `raft` crate.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/world.rs"]
mod support;

use harmony_node::core::event::Event;
use harmony_types::raft::RaftState;
use harmony_types::{Entry, LogIndex, Message, MessageType, PeerMessage, Storage, Term};
use support::{World, id, message, state, voters};

/// Raft asserts that a new leader's log is on its disk: what both came with is heard in the right order.
#[test]
fn raft_hears_of_its_own_disk_before_it_hears_of_its_peers() {
    let mut world = voters(3);
    // An entry that is not on disk when its leader hands over.
    let entry = Entry { index: LogIndex(1), term: Term(1), ..Entry::default() };
    world.hear(Message { entries: vec![entry], ..message(MessageType::Append, 2, 1, 1) }).unwrap();
    world.hear(message(MessageType::TimeoutNow, 2, 1, 1)).unwrap();
    assert_eq!(state(&world, 1), RaftState::Candidate);
    assert!(world.messages.is_empty(), "it asks for votes once its own is on disk");
    let vote = PeerMessage::Raft(Box::new(message(MessageType::RequestVoteResponse, 3, 1, 2)));
    let node = world.nodes.get_mut(&1).unwrap();
    node.storage.sync().unwrap();
    let number = node.persist.take().unwrap();
    world.turn(1, [Event::Peer { from: id(3), message: vote }, Event::Persisted { number }]);
    assert_eq!(state(&world, 1), RaftState::Leader);
}

/// What was synced is what may be acknowledged, not what was written behind it meanwhile.
#[test]
fn a_sync_lets_go_only_the_messages_of_what_it_covers() {
    let mut world = voters(3);
    world.turn(1, [Event::Campaign]);
    world.settle();
    world.put(1, "a=1");
    world.deliver();
    let first = world.nodes[&2].persist.unwrap();
    world.put(1, "b=2");
    world.deliver();
    let second = world.nodes[&2].persist.unwrap();
    assert!(first < second);
    let acknowledged = |world: &mut World| -> Vec<u64> {
        std::mem::take(&mut world.messages)
            .into_iter()
            .map(|(from, _, message)| match message {
                PeerMessage::Raft(message) if from == 2 && !message.reject => message.index.0,
                other => panic!("{other:?}"),
            })
            .collect()
    };
    assert_eq!(acknowledged(&mut world), [0; 0]);
    world.turn(2, [Event::Persisted { number: first }]);
    assert_eq!(acknowledged(&mut world), [2]);
    world.turn(2, [Event::Persisted { number: second }]);
    assert_eq!(acknowledged(&mut world), [3]);
}

/// Nothing may be under way in the log or the state machine that a snapshot replaces.
#[test]
fn a_snapshot_waits_for_the_log_and_for_the_state_machine() {
    for written in [false, true] {
        let mut world = voters(3);
        world.turn(1, [Event::Campaign]);
        world.settle();
        world.put(1, "a=1");
        world.deliver();
        if written {
            // n3 hears that a=1 is committed, and is handed it.
            world.sync(3);
            for _ in 0..2 {
                world.deliver();
                world.sync(1);
            }
            world.tick(1, 1);
            world.deliver();
            assert_eq!(world.nodes[&3].core.status().commit, LogIndex(2));
            assert_eq!(world.nodes[&3].apply.len(), 1);
        }
        world.messages.retain(|(from, to, _)| (*from, *to) != (1, 3));
        world.cut(1, 3);
        world.put(1, "b=2");
        for _ in 0..6 {
            world.sync(1);
            world.sync(2);
            world.deliver();
            world.apply(1);
        }
        let snapshot = world.nodes[&1].storage.create_snapshot().unwrap();
        assert_eq!(snapshot.meta.index, LogIndex(3));
        let announcement = Message {
            snapshot: Some(Box::new(snapshot.meta.clone())),
            ..message(MessageType::Snapshot, 1, 3, 1)
        };
        world.turn(3, [Event::Snapshot { announcement, snapshot }]);
        let before = |world: &World| (world.nodes[&3].persist.is_some(), world.nodes[&3].apply.len());
        assert_eq!(before(&world), (!written, usize::from(written)), "only what was under way");
        world.turn(3, []);
        assert_eq!(before(&world), (!written, usize::from(written)), "other events change nothing");
        world.trace.take();
        let told: &[&str] = if written {
            world.apply(3);
            &["n3 applies 2@1 a=1"]
        } else {
            world.verbose = false;
            world.sync(3);
            &[]
        };
        assert_eq!(world.trace.take(), told);
        world.apply(3);
        assert_eq!(world.trace.take()[0], "n3 installs snapshot 3");
        world.heal();
        world.settle();
        assert_eq!(world.nodes[&3].storage.application().print(), "2: a=1 b=2");
    }
}

/// It brings nothing to write, but its answer acknowledges what the first one brought.
#[test]
fn an_append_heard_twice_is_acknowledged_only_after_the_sync_of_the_first() {
    let mut world = voters(3);
    let entry = Entry { index: LogIndex(1), term: Term(1), ..Entry::default() };
    let append = Message { entries: vec![entry], ..message(MessageType::Append, 2, 1, 1) };
    world.hear(append.clone()).unwrap();
    let number = world.nodes[&1].persist.unwrap();
    world.hear(append).unwrap();
    assert_eq!(world.nodes[&1].persist, Some(number), "nothing new is to be synced");
    assert!(world.messages.is_empty(), "{:?}", world.messages);
    world.sync(1);
    assert_eq!(world.messages.len(), 2, "both are answered");
}
