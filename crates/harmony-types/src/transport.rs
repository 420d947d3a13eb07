//! How messages reach other members.

use bytes::Bytes;

use crate::error::{MembershipError, NodeError};
use crate::id::{LeaseId, NodeId};
use crate::lease::TimeToLive;
use crate::log::{LogIndex, Snapshot};
use crate::membership::Member;
use crate::raft::{ConfChange, Message};

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
    /// A follower asks the leader to change the membership for one of its clients.
    Change {
        /// Number that the answer repeats, unique within the sender's life.
        request: u64,
        /// The changes, made in one step.
        changes: Vec<ConfChange>,
    },
    /// The leader's answer.
    ChangeReply {
        /// The number of the request.
        request: u64,
        /// Place of the change's entry, or why nothing changed.
        result: Result<LogIndex, ChangeError>,
    },
    /// A follower asks the leader's lease keeper for one of its clients. It may be asked again: a lease that is renewed twice
    /// is renewed.
    LeaseCall {
        /// Number that the answer repeats, unique within the sender's life.
        request: u64,
        /// Which lease.
        id: LeaseId,
        /// It is to be renewed, or else only looked at.
        renew: bool,
    },
    /// The keeper's answer.
    LeaseReply {
        /// The number of the request.
        request: u64,
        /// What is left of the lease, all of it once it is renewed; `None` when there is no such lease. Or why nobody knows.
        result: Result<Option<TimeToLive>, ForwardError>,
    },
    /// A leader tells what each member has acknowledged and is committed: whoever comes back with less has lost it.
    Acknowledged {
        /// By member.
        held: Vec<(NodeId, LogIndex)>,
    },
    /// A follower tells the leader the hashes of its state, see [`crate::Storage::state_hash`].
    Hashes {
        /// By applied index.
        hashes: Vec<(LogIndex, u32)>,
        /// Its state is damaged or another one than the majority's, and not replaced yet: it must not lead.
        corrupt: bool,
    },
    /// A leader tells a member that its state differs from that of a majority.
    Diverged {
        /// An applied index at which it does.
        index: LogIndex,
        /// The majority's hash there.
        hash: u32,
    },
}

/// Why a forwarded membership change was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeError {
    /// As for a proposal.
    Forward(ForwardError),
    /// The change is not allowed.
    Refused(MembershipError),
}

/// What a member says of its data when it greets a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Held {
    /// Last index of its log.
    pub last: LogIndex,
    /// Number that its data directory got when it was first used, and keeps; 0 when it has none.
    pub incarnation: u64,
}

/// Why a member does not speak with a peer. One that is told that it was removed, forgot or was replaced stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerRefusal {
    /// The peer was removed from the cluster.
    Removed,
    /// The peer had acknowledged this index and does not hold it any more.
    Forgot {
        /// The index.
        acknowledged: LogIndex,
    },
    /// The peer runs on another data directory than the one with which it was met first.
    Replaced,
    /// Whom this member meets cannot be noted now: its disk refuses. Nothing is wrong with the peer, which tries again.
    NotNow,
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

    /// The machine of this peer refuses connections, or resets those that it took: its process has ended, in all
    /// likelihood. A hint for elections that nothing but their speed depends on.
    fn gone(&self, _peer: NodeId) {}

    /// What this member says of its data when it greets a peer.
    fn held(&self) -> Held {
        Held::default()
    }

    /// Whether this member speaks with a peer that says this of its data.
    ///
    /// # Errors
    /// It must not, and tells the peer why.
    fn admit(&self, _peer: NodeId, _held: Held) -> Result<(), PeerRefusal> {
        Ok(())
    }

    /// A peer refused to speak with this member.
    fn refused(&self, _by: NodeId, _refusal: PeerRefusal) {}
}
