//! What a turn of the core allocates: lists for a turn, and nothing for an entry, on a leader and on a follower, from the proposal
//! to the answer.
//!
//! The data of the entries here has its count of owners already, as a command has that came over a network: what the `raft` crate
//! itself adds for one that has not is one allocation, at its first copy.
#![allow(clippy::unwrap_used, reason = "helpers of a test")]

#[path = "../../harmony-wal/tests/counting/mod.rs"]
mod counting;
#[path = "support/world.rs"]
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use counting::count;
use harmony_node::core::event::{ApplyJob, Event, Inbox};
use harmony_node::{ReplySink, Waiter};
use harmony_types::{NodeError, Storage};
use support::{World, id, voters};

/// A list that doubles takes one allocation for twice as many entries; a turn and what it calls fill some.
const LISTS: u64 = 40;

struct Deaf;

impl ReplySink<u64> for Deaf {
    fn complete(&self, batch: Vec<(u64, Result<u64, NodeError>)>) {
        assert!(batch.iter().all(|(_, result)| result.is_ok()), "{batch:?}");
    }
}

/// One turn of a member, whose allocations are added to its own; what it wants done waits in the world.
fn turn(world: &mut World, number: u64, inbox: Inbox<u64>, allocations: &mut BTreeMap<u64, u64>) {
    let node = world.nodes.get_mut(&number).unwrap();
    let (actions, counts) = count(|| node.core.turn(inbox).unwrap());
    *allocations.entry(number).or_default() += counts.allocations;
    node.persist = actions.persist.or(node.persist);
    node.apply.extend(actions.apply);
    for (to, messages) in actions.sends {
        world.messages.extend(messages.into_iter().map(|message| (number, to.get(), message)));
    }
}

/// Commits so many entries through three members, and says what the turns of each allocated.
fn commit(world: &mut World, entries: u64) -> BTreeMap<u64, u64> {
    let mut allocations = BTreeMap::new();
    let sink: Arc<dyn ReplySink<u64>> = Arc::new(Deaf);
    let propose = |token| Event::Propose {
        data: Bytes::from_static(b"k=1"),
        waiter: Waiter::new(Arc::clone(&sink), token),
    };
    turn(world, 1, Inbox::of((0..entries).map(propose)), &mut allocations);
    loop {
        let mut inboxes: BTreeMap<u64, Inbox<u64>> = BTreeMap::new();
        for (number, node) in &mut world.nodes {
            if let Some(number_of_ready) = node.persist.take() {
                node.storage.sync().unwrap();
                inboxes.entry(*number).or_default().push(Event::Persisted { number: number_of_ready });
            }
            for job in std::mem::take(&mut node.apply) {
                let ApplyJob::Entries { entries, replies } = job else { panic!("no membership change") };
                let outcomes = node.storage.apply(&entries).unwrap();
                for (slot, reply) in replies {
                    let harmony_node::core::event::ReplyTo::Local(waiter) = reply else { panic!("no peer") };
                    waiter.complete(Ok(outcomes[slot]));
                }
                let index = entries.last().unwrap().index;
                inboxes.entry(*number).or_default().push(Event::Applied { index });
            }
        }
        for (from, to, message) in std::mem::take(&mut world.messages) {
            inboxes.entry(to).or_default().push(Event::Peer { from: id(from), message });
        }
        if inboxes.is_empty() {
            return allocations;
        }
        for (number, inbox) in inboxes {
            turn(world, number, inbox, &mut allocations);
        }
    }
}

#[test]
fn an_entry_costs_no_allocation_on_its_way_through_the_cores() {
    let mut world = voters(3);
    world.turn(1, [Event::Campaign]);
    world.settle();
    let applied =
        |world: &World| world.nodes.values().map(|one| one.storage.applied().index.0).collect::<Vec<_>>();
    // The log's own lists grow here, and not below.
    for _ in 0..16 {
        commit(&mut world, 1_024);
    }
    let few = commit(&mut world, 512);
    let many = commit(&mut world, 1_024);
    assert_eq!(applied(&world), [1 + 16 * 1_024 + 512 + 1_024; 3]);
    for number in 1..=3 {
        let (few, many) = (few[&number], many[&number]);
        assert!(many <= few + LISTS, "member {number}: {many} allocations for 1024 entries, {few} for 512");
    }
    println!("512 entries: {few:?}; 1024 entries: {many:?}");
}
