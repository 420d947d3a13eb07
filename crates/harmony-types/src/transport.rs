//! How messages reach other members.

use bytes::Bytes;

use crate::error::NodeError;
use crate::id::NodeId;
use crate::log::{LogIndex, Snapshot};
use crate::membership::Member;
use crate::raft::Message;

/// What one member may send another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMessage {
    /// Raft's own traffic.
    Raft(Box<Message>),
    /// A follower asks the leader to propose for one of its clients.
    Propose {
        /// Number that the answer repeats, unique within the sender's life.
        request: u64,
        /// The encoded command.
        data: Bytes,
    },
    /// The leader's answer.
    ProposeReply {
        /// The number of the request.
        request: u64,
        /// The outcome, or why there is none.
        result: Result<Forwarded, ForwardError>,
    },
}

/// What became of a forwarded proposal that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Place of its entry: whoever asked answers its client once it has applied this far, too, or the client's next read
    /// there would not see what it wrote.
    pub index: LogIndex,
    /// The encoded outcome.
    pub outcome: Bytes,
}

/// Why a forwarded proposal has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ForwardError {
    /// The receiver does not lead; nothing was proposed.
    NotLeader = 1,
    /// The receiver's queues are full; nothing was proposed.
    Busy = 2,
    /// The command is over the limit; nothing was proposed.
    TooLarge = 3,
    /// Leadership moved, or the receiver stops: the outcome is unknown.
    Unknown = 4,
    /// The receiver's disk is full; nothing was proposed.
    NoSpace = 5,
}

/// Sends to peers. Never blocks: a full queue drops the message and reports the peer as unreachable, as Raft allows.
///
/// Messages may be lost or reordered, and Raft's may be repeated; a `Propose` is delivered at most once, or its command
/// would be applied twice. The receiving side hands over only what came from a member of the same
/// cluster that proved its id and speaks the same protocol version.
pub trait Transport: Send + Sync + 'static {
    /// Queues messages for one peer.
    fn send(&self, to: NodeId, messages: Vec<PeerMessage>);

    /// Streams a snapshot to one peer, behind a message of type `Snapshot`; the receiver steps that message once the
    /// content has arrived whole. The outcome is reported to the sink as `snapshot_sent`.
    fn send_snapshot(&self, announcement: Message, snapshot: Snapshot);

    /// Replaces the set of peers and their addresses.
    fn set_peers(&self, peers: &[Member]);

    /// Closes all connections and ends all threads.
    fn stop(&self);
}

/// Where a transport hands over what arrives. Calls never block: a full mailbox drops.
pub trait PeerSink: Send + Sync + 'static {
    /// A message from a peer.
    fn receive(&self, from: NodeId, message: PeerMessage);

    /// A whole snapshot from a peer, with the message that announced it.
    ///
    /// # Errors
    /// [`NodeError::Busy`] when one is being installed already.
    fn receive_snapshot(&self, announcement: Message, snapshot: Snapshot) -> Result<(), NodeError>;

    /// Messages to this peer are being lost.
    fn unreachable(&self, peer: NodeId);

    /// A snapshot to this peer arrived, or did not.
    fn snapshot_sent(&self, peer: NodeId, arrived: bool);
}
