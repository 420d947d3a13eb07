//! Raft as the layers see it: messages, ready states, status. The node converts them from and to the `raft` crate.

use bytes::Bytes;

use crate::error::NodeError;
use crate::id::NodeId;
use crate::log::{Entry, HardState, LogIndex, Snapshot, SnapshotMeta, Term};
use crate::membership::{Member, Role};

/// The kinds of message that peers exchange. Kinds that a node only tells itself (ticks, proposals) are not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum MessageType {
    /// Entries, or an empty probe.
    Append = 1,
    /// Answer to it.
    AppendResponse = 2,
    /// Request for a vote.
    RequestVote = 3,
    /// Answer to it.
    RequestVoteResponse = 4,
    /// Announces a snapshot; its content travels on a stream of its own.
    Snapshot = 5,
    /// The leader lives, and what is committed.
    Heartbeat = 6,
    /// Answer to it.
    HeartbeatResponse = 7,
    /// Leadership may be taken over at once (Raft thesis, 3.10).
    TimeoutNow = 8,
    /// A follower asks for a read index.
    ReadIndex = 9,
    /// Answer to it.
    ReadIndexResponse = 10,
    /// Would you vote for me? (Raft thesis, 9.6)
    RequestPreVote = 11,
    /// Answer to it.
    RequestPreVoteResponse = 12,
    /// A follower passes a leadership transfer on to the leader.
    TransferLeader = 13,
}

impl MessageType {
    /// The type with this number on the wire, or `None`.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Append,
            2 => Self::AppendResponse,
            3 => Self::RequestVote,
            4 => Self::RequestVoteResponse,
            5 => Self::Snapshot,
            6 => Self::Heartbeat,
            7 => Self::HeartbeatResponse,
            8 => Self::TimeoutNow,
            9 => Self::ReadIndex,
            10 => Self::ReadIndexResponse,
            11 => Self::RequestPreVote,
            12 => Self::RequestPreVoteResponse,
            13 => Self::TransferLeader,
            _ => return None,
        })
    }
}

/// One Raft message between two members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub message_type: MessageType,
    /// Receiver.
    pub to: NodeId,
    /// Sender.
    pub from: NodeId,
    /// Sender's term.
    pub term: Term,
    /// Term of the entry at `index`.
    pub log_term: Term,
    /// Entry before the ones sent, or the index answered for.
    pub index: LogIndex,
    /// Entries to append; for a read index the context as one entry.
    pub entries: Vec<Entry>,
    /// Sender's commit index.
    pub commit: LogIndex,
    /// Term of the entry at `commit`.
    pub commit_term: Term,
    /// The snapshot announced.
    pub snapshot: Option<Box<SnapshotMeta>>,
    /// Index from which the receiver asks for a snapshot; 0: it does not.
    pub request_snapshot: LogIndex,
    /// The answer is no.
    pub reject: bool,
    /// Where the receiver's log may match.
    pub reject_hint: LogIndex,
    /// Context of a read index or a transfer.
    pub context: Bytes,
    /// Election priority of the sender.
    pub priority: i64,
}

/// What a member is just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum RaftState {
    /// Follows a leader or waits for one.
    #[default]
    Follower,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
    /// Asks whether it would get votes.
    PreCandidate,
}

/// How far one follower is, as the leader knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which one.
    pub id: NodeId,
    /// Highest index known to be on its disk.
    pub matched: LogIndex,
    /// Heard of within the last election timeout.
    pub recent_active: bool,
}

/// A node's view of itself and the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Itself.
    pub id: NodeId,
    /// Its part.
    pub state: RaftState,
    /// Who leads, if known.
    pub leader: Option<NodeId>,
    /// Newest term seen.
    pub term: Term,
    /// Commit index.
    pub commit: LogIndex,
    /// Applied index.
    pub applied: LogIndex,
    /// Last index of the log.
    pub last: LogIndex,
    /// The followers, when it leads; else empty. Ordered by id.
    pub progress: Vec<Progress>,
    /// The member is a learner.
    pub is_learner: bool,
}

/// A read index that a quorum confirmed: reads that waited under `context` may run once `index` is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadState {
    /// The context given to [`RaftNode::read_index`].
    pub context: Bytes,
    /// The commit index at that time.
    pub index: LogIndex,
}

/// What a Raft node wants done, in this order: 1 install the snapshot, 2 hard state and entries to the log, 3 send
/// messages, 4 apply committed entries.
#[derive(Debug, Default)]
pub struct Ready {
    /// Ordered number; every ready state is reported persisted by it.
    pub number: u64,
    /// New hard state, if it changed.
    pub hard_state: Option<HardState>,
    /// Entries to append, replacing any conflicting suffix.
    pub entries: Vec<Entry>,
    /// Snapshot to install before the entries.
    pub snapshot: Option<Snapshot>,
    /// Entries to apply, already durable here and on a quorum.
    pub committed_entries: Vec<Entry>,
    /// Messages that may leave at once, in parallel with the disk: a leader's, unless term or vote changed.
    pub messages: Vec<Message>,
    /// Messages that may leave only once this ready state is durable.
    pub persisted_messages: Vec<Message>,
    /// Confirmed read indexes.
    pub read_states: Vec<ReadState>,
    /// The log must be synced before anybody hears of this ready state.
    pub must_sync: bool,
}

/// What a membership change does with its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ConfChangeType {
    /// Add as voter, which counts at once, also when it never starts.
    AddVoter = 0,
    /// Remove.
    Remove = 1,
    /// Add as learner, or demote a voter.
    AddLearner = 2,
    /// Change addresses; the voter sets stay.
    Update = 3,
    /// Make a learner a voter.
    Promote = 4,
    /// Add as learner that becomes a voter by itself once it has caught up.
    Join = 5,
}

impl ConfChangeType {
    /// The type with this number in an entry, or `None`.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::AddVoter,
            1 => Self::Remove,
            2 => Self::AddLearner,
            3 => Self::Update,
            4 => Self::Promote,
            5 => Self::Join,
            _ => return None,
        })
    }
}

/// A change of the membership by one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfChange {
    /// What to do.
    pub change_type: ConfChangeType,
    /// With whom.
    pub member: Member,
}

impl ConfChange {
    /// The role the member has after it; `None` when it is gone.
    #[must_use]
    pub fn role_after(&self) -> Option<Role> {
        match self.change_type {
            ConfChangeType::AddVoter | ConfChangeType::Promote => Some(Role::Voter),
            ConfChangeType::AddLearner | ConfChangeType::Join => Some(Role::Learner),
            ConfChangeType::Update => Some(self.member.role),
            ConfChangeType::Remove => None,
        }
    }
}

/// One member's Raft state machine. It does no I/O: [`RaftNode::ready`] says what to do, the caller does it and reports.
///
/// Order between the calls: after `ready` the next is `advance` of it; `persisted` and `applied` later, in order.
pub trait RaftNode: Send + Sync {
    /// Proposes entries, one for each data, and returns the place of the first: they are committed when entries with this
    /// index and term are.
    ///
    /// # Errors
    /// [`NodeError::NotLeader`]; [`NodeError::Busy`] when too much is uncommitted or leadership is being handed over.
    fn propose(&self, data: Vec<Bytes>) -> Result<(LogIndex, Term), NodeError>;

    /// Proposes a membership change: of one member in a single step, of several as a joint configuration that ends by
    /// itself (Raft thesis, 4.3).
    ///
    /// # Errors
    /// As [`RaftNode::propose`]; [`NodeError::Membership`] when one is pending, or the change makes no sense.
    fn propose_conf_change(&self, changes: &[ConfChange]) -> Result<(LogIndex, Term), NodeError>;

    /// Takes in a message from a peer.
    ///
    /// # Errors
    /// [`NodeError::InvalidMessage`].
    fn step(&self, message: Message) -> Result<(), NodeError>;

    /// One beat of logical time.
    fn tick(&self);

    /// Asks for an election now.
    ///
    /// # Errors
    /// [`NodeError::InvalidMessage`] when this node may not lead.
    fn campaign(&self) -> Result<(), NodeError>;

    /// Asks for a read index under a context that was never used before.
    fn read_index(&self, context: Bytes);

    /// Hands leadership over.
    ///
    /// # Errors
    /// [`NodeError::BadTransferee`].
    fn transfer_leader(&self, to: NodeId) -> Result<(), NodeError>;

    /// Its view of itself.
    fn status(&self) -> Status;

    /// Who leads, if known.
    fn lead(&self) -> Option<NodeId>;

    /// What is to be done, if anything.
    fn ready(&self) -> Option<Ready>;

    /// The entries and hard state of the ready state taken last are in the log, readable but perhaps not durable.
    fn advance(&self);

    /// Every ready state up to `number` is durable.
    fn persisted(&self, number: u64);

    /// Everything up to `index` is applied.
    fn applied(&self, index: LogIndex);

    /// A message to `peer` was lost: be careful with it until it answers.
    fn report_unreachable(&self, peer: NodeId);

    /// A snapshot to `peer` arrived or did not.
    fn report_snapshot(&self, peer: NodeId, arrived: bool);

    /// Refuses every later call.
    fn stop(&self);
}
