//! A node without threads: nothing moves but by its steps.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/memory_wal.rs"]
mod memory_wal;
#[path = "support/store.rs"]
mod store;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use harmony_node::stepped::{Chance, Due, SteppedNode};
use harmony_node::{ApplicationStorage, MemoryNetwork, ReplySink, Waiter, Witness};
use harmony_types::config::NodeConfig;
use harmony_types::fake::clock::VirtualClock;
use harmony_types::fake::fs::MemoryFileSystem;
use harmony_types::raft::RaftState;
use harmony_types::{ClusterId, Member, Membership, NodeError, NodeId, Role, Storage as _};
use memory_wal::MemoryWal;
use store::Store;

type Node = SteppedNode<ApplicationStorage<Store, MemoryWal>>;

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

/// Member 1 of this many.
fn node(members: u64, election_seed: u64) -> Node {
    let members = (1..=members).map(|number| Member {
        id: id(number),
        name: String::new(),
        peer_urls: Vec::new(),
        client_urls: Vec::new(),
        role: Role::Voter,
    });
    let files = Arc::new(MemoryFileSystem::with_dir("/"));
    let storage =
        ApplicationStorage::open(Store::default(), MemoryWal::crashable(), files as _, "/node").unwrap();
    storage.bootstrap(&Membership::from_members(members)).unwrap();
    let transport = MemoryNetwork::new().transport(id(1));
    let chance = Chance { boot_nonce: 7, election_seed };
    let config = NodeConfig::new(id(1), ClusterId(1));
    let clock = Arc::new(VirtualClock::new());
    SteppedNode::start(config, Arc::new(storage), transport, clock, Witness::in_memory(), chance).unwrap()
}

#[derive(Default)]
struct Ends(Mutex<Vec<(u64, Result<u64, String>)>>);

impl ReplySink<u64> for Ends {
    fn complete(&self, batch: Vec<(u64, Result<u64, NodeError>)>) {
        let batch = batch.into_iter().map(|(token, end)| (token, end.map_err(|error| error.to_string())));
        self.0.lock().unwrap().extend(batch);
    }
}

/// Does what is due until nothing is.
fn settle(node: &mut Node) {
    while node.due() != Due::default() {
        if let Some(number) = node.begin_sync() {
            node.finish_sync(number, Duration::ZERO).unwrap();
        }
        node.apply().unwrap();
        node.turn(false).unwrap();
    }
}

#[test]
fn a_put_takes_its_steps_and_no_other_way() {
    let mut node = node(1, 1);
    settle(&mut node);
    assert_eq!(node.status().state, RaftState::Leader, "the only voter needs no tick");
    let ends = Arc::new(Ends::default());
    node.handle().propose(Bytes::from_static(b"a=1"), Waiter::new(Arc::clone(&ends) as _, 5));
    assert_eq!(node.due(), Due { turn: true, ..Due::default() });
    node.turn(false).unwrap();
    assert_eq!(node.due(), Due { sync: true, ..Due::default() });
    let number = node.begin_sync().unwrap();
    assert_eq!(node.begin_sync(), None, "it is taken up once");
    assert_eq!(node.due(), Due::default(), "nothing is committed before the disk has it");
    node.finish_sync(number, Duration::ZERO).unwrap();
    node.turn(false).unwrap();
    assert_eq!(node.due(), Due { apply: true, ..Due::default() });
    assert!(ends.0.lock().unwrap().is_empty());
    node.apply().unwrap();
    assert_eq!(*ends.0.lock().unwrap(), [(5, Ok(0))]);
}

#[test]
fn whoever_waits_is_told_when_the_node_is_dropped() {
    let mut node = node(1, 1);
    settle(&mut node);
    let ends = Arc::new(Ends::default());
    let handle = node.handle();
    handle.propose(Bytes::from_static(b"a=1"), Waiter::new(Arc::clone(&ends) as _, 1));
    node.turn(false).unwrap();
    handle.propose(Bytes::from_static(b"a=2"), Waiter::new(Arc::clone(&ends) as _, 2));
    drop(node);
    let mut ended = std::mem::take(&mut *ends.0.lock().unwrap());
    ended.sort();
    let stopped = Err(NodeError::Stopped.to_string());
    assert_eq!(ended, [(1, stopped.clone()), (2, stopped)]);
}

/// Ticks until a member that hears nobody asks for votes.
fn ticks_to_election(election_seed: u64) -> u64 {
    let mut node = node(3, election_seed);
    for tick in 1..100 {
        node.turn(true).unwrap();
        if node.status().state == RaftState::PreCandidate {
            return tick;
        }
    }
    panic!("no election in 100 ticks");
}

#[test]
fn election_timeouts_come_from_the_seed() {
    let all: Vec<u64> = (0..20).map(ticks_to_election).collect();
    assert_eq!(all, (0..20).map(ticks_to_election).collect::<Vec<_>>());
    assert!(all.iter().all(|ticks| (10..20).contains(ticks)), "{all:?}");
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert!(5 <= distinct.len(), "{all:?}");
}
