//! The raft thread on a clock that a test moves.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/cluster.rs"]
mod support;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use harmony_node::{ApplicationStorage, Node};
use harmony_types::config::{NodeConfig, WalConfig};
use harmony_types::fake::clock::VirtualClock;
use harmony_types::fake::fs::{CallKind, MemoryFileSystem};
use harmony_types::{
    ClusterId, LogIndex, Member, Membership, Message, MessageType, NodeId, PeerMessage, Role, Snapshot,
    Storage, Term, Transport,
};
use harmony_wal::FileWal;
use support::store::Store;
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

fn three_voters() -> Membership {
    Membership::from_members((1..=3).map(|number| Member {
        id: id(number),
        name: format!("n{number}"),
        peer_urls: vec![format!("http://n{number}:2380")],
        client_urls: Vec::new(),
        role: Role::Voter,
    }))
}

/// A process that was stopped, or a machine that slept, has not waited for its leader in vain.
#[test]
fn a_stall_is_one_beat_however_long_it_was() {
    let storage = Disk::default().open();
    storage.bootstrap(&three_voters()).unwrap();
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

/// n2, as far as n1 can tell.
struct Follower<'a, S: Storage> {
    node: &'a Node<S>,
    sent: &'a Receiver<PeerMessage>,
    clock: &'a VirtualClock,
    beat: Duration,
}

impl<S: Storage> Follower<'_, S> {
    /// The next message of this type to n2, beats of time going by while there is none.
    fn next(&self, wanted: MessageType) -> Message {
        loop {
            match self.sent.recv_timeout(Duration::from_millis(1)) {
                Ok(PeerMessage::Raft(message)) if message.to == id(2) && message.message_type == wanted => {
                    return *message;
                }
                Ok(_) => {}
                Err(_) => self.clock.advance(self.beat),
            }
        }
    }

    /// n2 says yes to a message.
    fn agree(&self, to: &Message, message_type: MessageType, index: LogIndex) {
        let answer = Message {
            message_type,
            to: id(1),
            from: id(2),
            term: to.term,
            log_term: Term(0),
            index,
            entries: Vec::new(),
            commit: LogIndex(0),
            commit_term: Term(0),
            snapshot: None,
            request_snapshot: LogIndex(0),
            reject: false,
            reject_hint: LogIndex(0),
            context: Bytes::new(),
            priority: 0,
        };
        self.node.peer_sink().receive(id(2), PeerMessage::Raft(Box::new(answer)));
    }

    /// n2 has everything that an append brings.
    fn append(&self) -> LogIndex {
        let append = self.next(MessageType::Append);
        let last = LogIndex(append.index.0 + append.entries.len() as u64);
        self.agree(&append, MessageType::AppendResponse, last);
        last
    }
}

/// A disk that takes for ever costs no heartbeat, and after an election timeout the leadership, whose new holder has what
/// the disk does not. What came meanwhile is synced at once when the disk goes on.
#[test]
fn heartbeats_go_on_beside_a_sync_that_hangs_and_leadership_is_handed_over() {
    let files = Arc::new(MemoryFileSystem::with_dir("/node"));
    let wal = FileWal::open(Arc::clone(&files) as _, "/node/wal".as_ref(), WalConfig::default()).unwrap();
    let storage = ApplicationStorage::open(Store::default(), wal, Arc::clone(&files) as _, "/node").unwrap();
    storage.bootstrap(&three_voters()).unwrap();
    let clock = VirtualClock::new();
    let (sender, sent) = channel();
    let config = NodeConfig::new(id(1), ClusterId(7));
    let beat = Duration::from_millis(config.heartbeat_interval_ms);
    let transport = Arc::new(Kept(Mutex::new(sender)));
    let node = Node::start(config, Arc::new(storage), transport, Arc::new(clock.clone()) as _).unwrap();
    let n2 = Follower { node: &node, sent: &sent, clock: &clock, beat };
    let pre_vote = n2.next(MessageType::RequestPreVote);
    n2.agree(&pre_vote, MessageType::RequestPreVoteResponse, LogIndex(0));
    let vote = n2.next(MessageType::RequestVote);
    n2.agree(&vote, MessageType::RequestVoteResponse, LogIndex(0));
    let mut last = n2.append();

    let disk = files.hold([CallKind::Sync]);
    let propose = |command: &'static str| {
        let waiter = harmony_node::Waiter::new(Arc::new(Nobody) as _, 0);
        node.propose(Bytes::from_static(command.as_bytes()), waiter);
    };
    propose("a=1");
    last = last.max(n2.append());
    disk.wait_for(1);
    let before = node.metrics().syncs.buckets().iter().sum::<u64>();
    for command in ["b=2", "c=3", "d=4"] {
        propose(command);
        last = last.max(n2.append());
    }
    assert!(LogIndex(5) <= last, "all of it was sent: {last}");
    for _ in 0..5 {
        clock.advance(beat);
        let heartbeat = n2.next(MessageType::Heartbeat);
        n2.agree(&heartbeat, MessageType::HeartbeatResponse, LogIndex(0));
    }
    assert_eq!(node.metrics().disk_stalls.get(), 0, "no election timeout has gone by");
    let mut beats = 0;
    while node.metrics().disk_stalls.get() == 0 {
        clock.advance(beat);
        let heartbeat = n2.next(MessageType::Heartbeat);
        n2.agree(&heartbeat, MessageType::HeartbeatResponse, LogIndex(0));
        beats += 1;
        assert!(beats < 100, "the leader stays");
    }
    n2.next(MessageType::TimeoutNow);
    assert!(node.failure().is_none());
    let mut watch = node.watch_disk();
    assert_eq!([watch.look(), watch.look(), watch.look()], [1, 2, 3], "one sync is under way all the time");
    drop(disk);
    support::wait_for("the disk to catch up", || {
        let syncs = node.metrics().syncs.buckets().iter().sum::<u64>();
        before + 2 <= syncs
    });
    support::wait_for("no call of the log", || watch.look() == 0);
    let syncs = node.metrics().syncs.buckets().iter().sum::<u64>();
    assert_eq!(syncs, before + 2, "one for what hung, one for all that came meanwhile");
    clock.stop();
    node.stop();
}

struct Nobody;

impl harmony_node::ReplySink<u64> for Nobody {
    fn complete(&self, _: Vec<(u64, Result<u64, harmony_types::NodeError>)>) {}
}
