//! The raft thread on a clock that a test moves.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/cluster.rs"]
mod support;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use harmony_node::Node;
use harmony_types::config::NodeConfig;
use harmony_types::fake::clock::VirtualClock;
use harmony_types::{
    ClusterId, Member, Membership, Message, NodeId, PeerMessage, Role, Snapshot, Storage as _, Transport,
};
use support::{Disk, PATIENCE, Replica, id};

/// Keeps what a node sends.
struct Kept(Mutex<Sender<PeerMessage>>);

impl Transport for Kept {
    fn send(&self, _: NodeId, messages: Vec<PeerMessage>) {
        let sender = self.0.lock().unwrap();
        messages.into_iter().for_each(|message| sender.send(message).unwrap());
    }

    fn send_snapshot(&self, _: Message, _: Snapshot) {}

    fn set_peers(&self, _: &[Member]) {}

    fn stop(&self) {}
}

/// Waits until the raft thread has made a turn; returns whether it asked for votes in it or before.
fn turn(node: &Node<Replica>, sent: &Receiver<PeerMessage>) -> bool {
    // Nobody leads, so whoever passes a proposal on is told so, in the turn that hears of it.
    let message = PeerMessage::Propose { request: 1, data: Bytes::from_static(b"a=1") };
    node.peer_sink().receive(id(2), message);
    let mut asked = false;
    loop {
        match sent.recv_timeout(PATIENCE).unwrap() {
            PeerMessage::ProposeReply { .. } => return asked,
            PeerMessage::Raft(_) => asked = true,
            other => panic!("{other:?}"),
        }
    }
}

/// A process that was stopped, or a machine that slept, has not waited for its leader in vain.
#[test]
fn a_stall_is_one_beat_however_long_it_was() {
    let members = (1..=3).map(|number| Member {
        id: id(number),
        name: format!("n{number}"),
        peer_urls: vec![format!("http://n{number}:2380")],
        client_urls: Vec::new(),
        role: Role::Voter,
    });
    let storage = Disk::default().open();
    storage.bootstrap(&Membership::from_members(members)).unwrap();
    let clock = VirtualClock::new();
    let (sender, sent) = channel();
    let config = NodeConfig::new(id(1), ClusterId(7));
    let beat = Duration::from_millis(config.heartbeat_interval_ms);
    let node = Node::start(
        config,
        Arc::new(storage),
        Arc::new(Kept(Mutex::new(sender))),
        Arc::new(clock.clone()) as _,
    )
    .unwrap();
    turn(&node, &sent);

    clock.advance(1_000 * beat);
    // The stall is over; no more time goes by, however many turns are made.
    for _ in 0..100 {
        assert!(!turn(&node, &sent), "it asks for votes after a stall");
    }
    // The same time beat by beat is another matter.
    let asked = (0..100).any(|_| {
        clock.advance(beat);
        turn(&node, &sent)
    });
    assert!(asked, "it asks for votes when nobody leads");
    node.stop();
}
