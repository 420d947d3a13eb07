//! What the `raft` crate panics on, or silently gets wrong, and what the core does about it; on the real crate.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/world.rs"]
mod support;

use bytes::Bytes;
use harmony_types::raft::RaftState;
use harmony_types::{
    Entry, HardState, LogIndex, Message, MessageType, NodeError, PeerMessage, Role, Storage, Term,
};
use support::{World, id, member, message, state, voters};

/// Raft asserts that a new leader's log is on its disk; the only voter wins at once, inside a tick.
#[test]
fn the_only_voter_does_not_campaign_while_its_log_is_being_written() {
    let mut world = World::new(&[member(1, Role::Voter), member(2, Role::Learner)]);
    world.settle();
    assert_eq!(state(&world, 1), RaftState::Leader);
    world.put(1, "a=1");
    // A learner of a higher term makes the leader step down, with an entry that is not on its disk.
    world.hear(message(MessageType::AppendResponse, 2, 1, 9)).unwrap();
    assert_eq!(state(&world, 1), RaftState::Follower);
    world.tick(1, 100);
    assert_eq!(state(&world, 1), RaftState::Follower);
    world.hear(message(MessageType::TimeoutNow, 2, 1, 9)).unwrap();
    world.settle();
    world.tick(1, 40);
    world.settle();
    assert_eq!(state(&world, 1), RaftState::Leader);
    let told = world.trace.take();
    assert!(told.iter().any(|line| line.contains("put a=1: unknown, leader changed")), "{told:?}");
}

/// One entry a message is raft's default.
#[test]
fn all_waiting_proposals_travel_in_one_message() {
    let mut world = voters(3);
    world.turn(1, [harmony_node::core::event::Event::Campaign]);
    world.settle();
    let sink = std::sync::Arc::new(Nobody);
    let events = (0..100).map(|token| harmony_node::core::event::Event::Propose {
        data: Bytes::from(format!("k{token}=1")),
        waiter: harmony_node::Waiter::new(std::sync::Arc::clone(&sink) as _, token),
    });
    world.turn(1, events.collect::<Vec<_>>());
    let entries: Vec<usize> = world
        .messages
        .iter()
        .map(|(_, _, message)| match message {
            PeerMessage::Raft(message) => message.entries.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(entries, [100, 100]);
}

struct Nobody;

impl harmony_node::ReplySink<u64> for Nobody {
    fn complete(&self, _: Vec<(u64, Result<u64, NodeError>)>) {}
}

#[test]
fn entries_that_leave_a_gap_or_step_back_in_term_are_dropped() {
    let mut world = voters(3);
    let entry = |index, term| Entry { index: LogIndex(index), term: Term(term), ..Entry::default() };
    for entries in [
        vec![entry(2, 1)],
        vec![entry(1, 1), entry(3, 1)],
        vec![entry(1, 2), entry(2, 1)],
        vec![entry(1, 6)],
        vec![entry(u64::MAX, 1)],
    ] {
        let append = Message { entries, ..message(MessageType::Append, 2, 1, 5) };
        world.hear(append).unwrap();
        assert_eq!(world.nodes[&1].core.status().last, LogIndex(0));
        assert_eq!(world.nodes[&1].core.status().term, Term(0), "nothing of it counts");
    }
    world.hear(Message { entries: vec![entry(1, 5)], ..message(MessageType::Append, 2, 1, 5) }).unwrap();
    assert_eq!(world.nodes[&1].core.status().last, LogIndex(1));
}

#[test]
fn messages_for_others_and_from_itself_are_dropped() {
    let mut world = voters(3);
    for (from, to) in [(1, 1), (2, 1)] {
        let mut vote = message(MessageType::RequestVote, from, to, 3);
        if from == 2 {
            // It arrives at n1 and is meant for n3.
            vote.to = id(3);
        }
        let node = world.nodes.get_mut(&1).unwrap();
        let message = PeerMessage::Raft(Box::new(vote));
        let event = harmony_node::core::event::Event::Peer { from: id(from), message };
        node.core.turn(harmony_node::core::event::Inbox::of([event])).unwrap();
        assert_eq!(node.core.status().term, Term(0));
    }
    for kind in [MessageType::ReadIndex, MessageType::Snapshot] {
        world.hear(message(kind, 2, 1, 3)).unwrap();
    }
}

/// A leader never tells a follower to commit what the follower did not say it holds.
#[test]
fn a_member_that_lost_what_it_acknowledged_stops_with_the_reason() {
    let mut world = voters(3);
    let heartbeat = Message { commit: LogIndex(7), ..message(MessageType::Heartbeat, 2, 1, 1) };
    let error = world.hear(heartbeat).unwrap_err().to_string();
    assert!(error.contains("acknowledged entries were lost"), "{error}");
}

/// The commit index is written without a sync of its own; the state machine may be durable ahead of it.
#[test]
fn a_commit_index_that_lags_behind_the_applied_one_is_brought_up_at_the_start() {
    let mut world = voters(3);
    world.turn(1, [harmony_node::core::event::Event::Campaign]);
    world.settle();
    world.put(1, "a=1");
    world.settle();
    let storage = &world.nodes[&1].storage;
    assert_eq!(storage.checkpoint().unwrap(), LogIndex(2));
    let lagging = HardState { commit: LogIndex(0), ..storage.hard_state() };
    storage.save(Some(&lagging), &[]).unwrap();
    storage.sync().unwrap();
    world.crash(1);
    world.start(1);
    let status = world.nodes[&1].core.status();
    assert_eq!((status.commit, status.applied), (LogIndex(2), LogIndex(2)));
}

#[test]
fn a_log_that_ends_before_what_was_committed_is_refused() {
    let world = voters(1);
    let storage = std::sync::Arc::clone(&world.nodes[&1].storage);
    let beyond = HardState { commit: LogIndex(50), ..storage.hard_state() };
    storage.save(Some(&beyond), &[]).unwrap();
    let config = harmony_types::config::NodeConfig::new(id(1), harmony_types::ClusterId(1));
    let Err(error) = harmony_node::core::Core::new(config, storage, 1, std::sync::Arc::default()) else {
        panic!("it starts");
    };
    assert!(error.to_string().contains("acknowledged entries were lost"), "{error}");
}

/// What a member asked for before it crashed is answered to its next life, too.
#[test]
fn an_answer_to_an_earlier_life_ends_no_proposal_of_this_one() {
    let mut world = voters(3);
    world.turn(1, [harmony_node::core::event::Event::Campaign]);
    world.settle();
    world.put(2, "a=1");
    world.deliver();
    world.crash(2);
    world.start(2);
    world.tick(1, 1);
    world.deliver();
    world.trace.take();
    world.put(2, "b=2");
    // It is lost: nobody ever proposes it.
    world.messages.retain(|(_, _, message)| !matches!(message, PeerMessage::Propose { .. }));
    world.settle();
    let told = world.trace.take();
    assert!(told.iter().any(|line| line.contains("n1 applies 2@1 a=1")), "{told:?}");
    assert!(!told.iter().any(|line| line.contains("put b=2")), "{told:?}");
}

/// A member was added before the crash, so that nobody is the only voter any more once the log is replayed.
#[test]
fn a_member_that_is_not_alone_any_more_waits_for_its_election_timeout() {
    let mut world = voters(1);
    world.settle();
    let change_type = harmony_types::ConfChangeType::AddVoter;
    world.change(1, vec![harmony_types::ConfChange { change_type, member: member(2, Role::Voter) }]);
    world.sync(1);
    // Committed, and on disk as such, but not applied.
    world.nodes[&1].storage.sync().unwrap();
    world.crash(1);
    world.start(1);
    for _ in 0..10 {
        world.sync(1);
        world.apply(1);
        world.turn(1, []);
    }
    assert!(world.nodes[&1].storage.membership().voters.contains(&id(2)));
    assert!(world.messages.is_empty(), "{:?}", world.messages);
    world.tick(1, 20);
    assert!(!world.messages.is_empty(), "it asks for votes in time");
}

/// Installing may take minutes; raft stands still then, but not the clients' time.
#[test]
fn clients_are_refused_in_time_while_a_snapshot_is_installed() {
    let mut world = voters(3);
    world.turn(1, [harmony_node::core::event::Event::Campaign]);
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
    let installs = |world: &World| {
        let jobs = &world.nodes[&3].apply;
        jobs.iter().any(|job| matches!(job, harmony_node::core::event::ApplyJob::Install { .. }))
    };
    assert!(installs(&world));
    world.put(3, "b=2");
    world.read(3);
    world.trace.take();
    world.tick(3, 100);
    let told = world.trace.take();
    for end in ["put b=2: refused, no leader", "read: unknown, request timed out"] {
        assert!(told.iter().any(|line| line.ends_with(end)), "{told:?}");
    }
    world.settle();
    assert_eq!(world.nodes[&3].storage.application().print(), "1: a=1");
}

/// Its message would be stepped later, when nobody has the content any more.
#[test]
fn a_snapshot_that_comes_while_the_only_voter_writes_its_log_is_dropped_whole() {
    let mut world = World::new(&[member(1, Role::Voter), member(2, Role::Learner)]);
    world.settle();
    world.put(1, "a=1");
    world.hear(message(MessageType::AppendResponse, 2, 1, 9)).unwrap();
    let meta = harmony_types::SnapshotMeta {
        index: LogIndex(50),
        term: Term(9),
        membership: world.nodes[&1].storage.membership(),
    };
    let announcement =
        Message { snapshot: Some(Box::new(meta.clone())), ..message(MessageType::Snapshot, 2, 1, 9) };
    let snapshot = harmony_types::Snapshot { meta, ..harmony_types::Snapshot::default() };
    world.turn(1, [harmony_node::core::event::Event::Snapshot { announcement, snapshot }]);
    world.settle();
    assert_eq!(world.nodes[&1].core.status().last, LogIndex(2));
}

/// A member that stepped down a moment ago refuses; asking it again at once would go on at the network's speed.
#[test]
fn a_refused_proposal_is_not_passed_on_again_before_the_next_beat() {
    let mut world = voters(3);
    world.turn(1, [harmony_node::core::event::Event::Campaign]);
    world.settle();
    world.crash(1);
    world.start(1);
    world.put(2, "a=1");
    let mut asked = 0;
    for _ in 0..20 {
        asked +=
            world.messages.iter().filter(|(_, _, one)| matches!(one, PeerMessage::Propose { .. })).count();
        world.deliver();
    }
    assert_eq!(asked, 1);
    world.tick(2, 1);
    assert_eq!(world.messages.len(), 1, "it is passed on again after a beat");
}

/// Its client may read here next, without asking anybody: what it wrote must be there.
#[test]
fn what_was_passed_on_is_answered_once_it_is_applied_here() {
    let mut world = voters(3);
    world.turn(1, [harmony_node::core::event::Event::Campaign]);
    world.settle();
    world.put(2, "a=1");
    world.deliver();
    world.trace.take();
    for _ in 0..10 {
        // Everything happens but what this member's state machine does.
        for number in 1..=3 {
            world.sync(number);
        }
        world.apply(1);
        world.deliver();
    }
    let told = world.trace.take();
    assert!(told.iter().any(|line| line.contains("n1 applies 2@1 a=1")), "{told:?}");
    assert!(!told.iter().any(|line| line.contains("client of n2")), "{told:?}");
    world.apply(2);
    assert_eq!(world.trace.take(), ["n2 applies 2@1 a=1", "client of n2, put a=1: 0"]);
    // Where it takes too long, the outcome is told all the same.
    world.put(2, "b=2");
    for _ in 0..10 {
        world.deliver();
        for number in 1..=3 {
            world.sync(number);
        }
        world.apply(1);
    }
    world.trace.take();
    world.tick(2, 100);
    assert!(world.trace.take().contains(&"client of n2, put b=2: 1".to_owned()));
}

/// Raft takes the term of an index outside of its log for 0, adds 1 to what it is told, and panics on what follows.
#[test]
fn indexes_that_cannot_be_are_dropped() {
    let mut world = voters(3);
    let beyond = |commit| Message {
        index: LogIndex(50),
        commit: LogIndex(commit),
        ..message(MessageType::Append, 2, 1, 5)
    };
    for commit in [0, 50] {
        world.hear(beyond(commit)).unwrap();
        assert_eq!(world.nodes[&1].core.status().term, Term(0), "nothing of it counts");
    }
    let too_large = [u64::MAX, 1 << 62];
    for number in too_large {
        world.hear(message(MessageType::RequestVote, 2, 1, number)).unwrap();
        assert_eq!(world.nodes[&1].core.status().term, Term(0), "nothing of it counts");
    }

    world.turn(1, [harmony_node::core::event::Event::Campaign]);
    world.settle();
    let term = world.nodes[&1].core.status().term.0;
    for number in [2, 50].into_iter().chain(too_large) {
        world
            .hear(Message { index: LogIndex(number), ..message(MessageType::AppendResponse, 2, 1, term) })
            .unwrap();
        let hint = Message {
            reject: true,
            reject_hint: LogIndex(number),
            log_term: Term(1),
            index: LogIndex(1),
            ..message(MessageType::AppendResponse, 2, 1, term)
        };
        world.hear(hint).unwrap();
        world.tick(1, 1);
        world.settle();
    }
    world.put(1, "a=1");
    world.settle();
    assert_eq!(world.nodes[&2].storage.application().print(), "1: a=1");
    assert_eq!(state(&world, 1), RaftState::Leader);
}

/// A slow leader, or none, must not let commands pile up in memory, few and large as they may be.
#[test]
fn commands_that_wait_are_bounded_by_their_bytes() {
    let waits_and_is_refused = |world: &mut World| {
        for number in 0..200 {
            world.put(2, &format!("k{number}={}", "x".repeat(1 << 20)));
        }
        let told = world.trace.take();
        let busy = told.iter().filter(|line| line.ends_with("refused, too many requests")).count();
        assert_eq!(busy, 200 - 127, "128 MiB wait");
    };
    // Nobody leads.
    let mut world = voters(3);
    waits_and_is_refused(&mut world);
    world.tick(2, 100);
    world.trace.take();
    waits_and_is_refused(&mut world);
    // The leader does not answer.
    let mut world = voters(3);
    world.turn(1, [harmony_node::core::event::Event::Campaign]);
    world.settle();
    world.trace.take();
    world.verbose = false;
    waits_and_is_refused(&mut world);
    world.turn(2, [harmony_node::core::event::Event::Unreachable { peer: id(1) }]);
    world.trace.take();
    waits_and_is_refused(&mut world);
    world.tick(2, 100);
    world.trace.take();
    waits_and_is_refused(&mut world);
    // The leader answers.
    world.messages.clear();
    world.tick(2, 100);
    world.put(2, "a=1");
    world.settle();
    world.trace.take();
    world.messages.clear();
    waits_and_is_refused(&mut world);
}

/// What a dead leader's connection still held comes first, or its last heartbeat would call the election off.
#[test]
fn evidence_is_looked_at_behind_what_came_with_it() {
    let mut world = voters(3);
    world.turn(1, [harmony_node::core::event::Event::Campaign]);
    world.settle();
    let heartbeat = PeerMessage::Raft(Box::new(message(MessageType::Heartbeat, 1, 2, 1)));
    let gone = harmony_node::core::event::Event::Gone { peer: id(1) };
    world.turn(2, [gone, harmony_node::core::event::Event::Peer { from: id(1), message: heartbeat }]);
    assert_eq!(state(&world, 2), RaftState::PreCandidate);
}
