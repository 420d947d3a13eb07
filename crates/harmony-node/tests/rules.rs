//! Rules of the core that the other tests do not touch; docs/testing.md has the table of all.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/world.rs"]
mod support;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use harmony_node::core::event::Event;
use harmony_node::{ReplySink, Waiter};
use harmony_types::{LogIndex, Message, MessageType, NodeError, PeerMessage, Storage};
use support::{message, voters};

/// Notes how calls end.
#[derive(Default)]
struct Ends(Mutex<Vec<String>>);

impl<T> ReplySink<T> for Ends {
    fn complete(&self, batch: Vec<(u64, Result<T, NodeError>)>) {
        let ends =
            batch.into_iter().map(|(_, end)| end.map_or_else(|error| error.to_string(), |_| "done".into()));
        self.0.lock().unwrap().extend(ends);
    }
}

#[test]
fn all_waiting_reads_share_one_round() {
    let mut world = voters(3);
    world.turn(1, [Event::Campaign]);
    world.settle();
    let ends = Arc::new(Ends::default());
    let reads = (0..100).map(|token| Event::Read { waiter: Waiter::new(Arc::clone(&ends) as _, token) });
    world.turn(1, reads.collect::<Vec<_>>());
    assert_eq!(world.messages.len(), 2, "one heartbeat to each follower: {:?}", world.messages);
    world.settle();
    assert_eq!(*ends.0.lock().unwrap(), vec!["done"; 100]);
}

/// Whoever answers for a snapshot holds it: on disk, and in its state machine.
#[test]
fn a_snapshot_is_acknowledged_only_once_it_is_installed() {
    let mut world = voters(3);
    world.turn(1, [Event::Campaign]);
    world.settle();
    world.isolate(3);
    world.put(1, "a=1");
    world.settle();
    world.heal();
    world.messages.clear();
    let snapshot = world.nodes[&1].storage.create_snapshot().unwrap();
    let announcement = Message {
        snapshot: Some(Box::new(snapshot.meta.clone())),
        ..message(MessageType::Snapshot, 1, 3, 1)
    };
    world.turn(3, [Event::Snapshot { announcement, snapshot }]);
    world.tick(3, 3);
    assert!(world.messages.is_empty(), "{:?}", world.messages);
    world.apply(3);
    world.sync(3);
    let acknowledged: Vec<LogIndex> = world
        .messages
        .iter()
        .filter_map(|(_, _, message)| match message {
            PeerMessage::Raft(message) if message.message_type == MessageType::AppendResponse => {
                Some(message.index)
            }
            _ => None,
        })
        .collect();
    assert_eq!(acknowledged, [LogIndex(2)]);
}

/// The state machine is a bound like the disk: what it cannot follow is refused at once, and may be tried again.
#[test]
fn proposals_are_refused_while_the_state_machine_lags() {
    let mut world = voters(1);
    world.settle();
    let ends = Arc::new(Ends::default());
    let propose = |token: u64| Event::Propose {
        data: Bytes::from(format!("k{token}=1")),
        waiter: Waiter::new(Arc::clone(&ends) as _, token),
    };
    world.turn(1, (0..harmony_types::limits::APPLY_LAG_MAX + 1).map(propose).collect::<Vec<_>>());
    world.sync(1);
    world.turn(1, [propose(0)]);
    assert_eq!(*ends.0.lock().unwrap(), ["too many requests"]);
    world.apply(1);
    world.turn(1, [propose(0)]);
    world.settle();
    let ends = ends.0.lock().unwrap();
    assert_eq!(ends.iter().filter(|end| *end == "done").count(), ends.len() - 1);
}

/// Followers that are away must not make the leader keep everything that its clients send.
#[test]
fn what_is_not_committed_is_bounded_by_its_bytes() {
    let mut world = voters(3);
    world.turn(1, [Event::Campaign]);
    world.settle();
    world.isolate(1);
    world.verbose = false;
    let ends = Arc::new(Ends::default());
    for token in 0..100 {
        let data = Bytes::from(format!("k{token}={}", "x".repeat(1 << 20)));
        world.turn(1, [Event::Propose { data, waiter: Waiter::new(Arc::clone(&ends) as _, token) }]);
        world.messages.clear();
    }
    let ends = ends.0.lock().unwrap();
    assert!(ends.iter().all(|end| end == "too many requests"));
    assert!((30..=40).contains(&ends.len()), "64 MiB wait, {} were refused", ends.len());
}

/// The leader goes by a committed change at once: a member that it does not know yet would not be sent anything.
#[test]
fn a_new_member_is_sent_the_log_in_the_turn_that_commits_it() {
    let mut world = voters(3);
    world.turn(1, [Event::Campaign]);
    world.settle();
    let member = support::member(4, harmony_types::Role::Learner);
    let change_type = harmony_types::ConfChangeType::AddLearner;
    world.change(1, vec![harmony_types::ConfChange { change_type, member }]);
    world.sync(1);
    world.deliver();
    world.sync(2);
    world.messages.retain(|(_, to, _)| *to == 1);
    world.deliver();
    assert!(world.nodes[&1].apply.len() == 1, "committed, and not applied");
    assert!(world.messages.iter().any(|(_, to, _)| *to == 4), "{:?}", world.messages);
}
