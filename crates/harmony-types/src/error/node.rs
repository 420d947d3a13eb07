//! What can go wrong in a node.

use crate::error::{MembershipError, StorageError};
use crate::id::NodeId;
use crate::log::LogIndex;

/// Errors of a node, as the waiter of a proposal or read sees them.
///
/// [`NodeError::may_have_been_applied`] tells the refusals, after which nothing happened, from the unknown outcomes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// No leader is known; nothing was proposed.
    #[error("no leader")]
    NoLeader,
    /// This node does not lead and could not pass the call on; nothing was proposed.
    #[error("not leader")]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// Leadership moved while the call was under way. A proposal may still commit.
    #[error("leader changed")]
    LeaderChanged,
    /// The time ran out. A proposal may still commit.
    #[error("request timed out")]
    Timeout,
    /// A queue is full; nothing was proposed. Try again later.
    #[error("too many requests")]
    Busy,
    /// The disk of the member that had to take it is full; nothing was proposed. Commands that add no data are taken for longer.
    #[error("no space left on the disk")]
    NoSpace,
    /// This member's state is damaged, or differs from the others': it serves nobody until it has taken theirs. Nothing was
    /// proposed; other members serve.
    #[error(
        "the state of member {id} is damaged or differs from the others', and is being replaced by theirs: ask another member"
    )]
    Corrupt {
        /// This member.
        id: NodeId,
    },
    /// A command over the limit; nothing was proposed.
    #[error("request of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The node is stopping or has failed. A proposal may still commit on the others.
    #[error("node stopped")]
    Stopped,
    /// A membership change that is not allowed now; nothing changed.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// Leadership cannot go to this member.
    #[error("bad leader transferee {to}")]
    BadTransferee {
        /// The member asked for.
        to: NodeId,
    },
    /// No other voter is there to take leadership over.
    #[error("no other voter can take over")]
    NoSuccessor,
    /// This member was removed from its cluster: it stops, and never comes back under this id.
    #[error(
        "member {id} was removed from the cluster: it does not start on this data again; to come back, add it anew and \
         start it with an empty data directory"
    )]
    Removed {
        /// This member.
        id: NodeId,
    },
    /// This member lacks what it had acknowledged: its data directory is empty, or older than it was. It stops, as it might
    /// have forgotten a vote, too.
    #[error(
        "member {id} had acknowledged index {acknowledged}, but its log ends at {last}: its data is gone, or an older \
         copy; remove this member from the cluster, add it anew, and start it with an empty data directory"
    )]
    Forgot {
        /// This member.
        id: NodeId,
        /// What its peers know that it held.
        acknowledged: LogIndex,
        /// What it holds.
        last: LogIndex,
    },
    /// This member runs on another data directory than the one that its peers have met it with: what it had acknowledged, and
    /// whom it had voted for, is gone. It stops.
    #[error(
        "member {id} runs on another data directory than the one that its peers met it with: its data is gone; remove this \
         member from the cluster, add it anew, and start it with an empty data directory"
    )]
    Replaced {
        /// This member.
        id: NodeId,
    },
    /// A message from a peer that makes no sense; it was dropped.
    #[error("invalid message: {reason}")]
    InvalidMessage {
        /// What is wrong.
        reason: String,
    },
    /// Storage failed; the node stops.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl NodeError {
    /// True when a proposal that ended so may have been applied, now or later.
    #[must_use]
    pub const fn may_have_been_applied(&self) -> bool {
        match self {
            Self::LeaderChanged
            | Self::Timeout
            | Self::Stopped
            | Self::Removed { .. }
            | Self::Forgot { .. }
            | Self::Replaced { .. }
            | Self::Storage(_) => true,
            Self::NoLeader
            | Self::NotLeader { .. }
            | Self::Busy
            | Self::NoSpace
            | Self::Corrupt { .. }
            | Self::TooLarge { .. }
            | Self::Membership(_)
            | Self::BadTransferee { .. }
            | Self::NoSuccessor
            | Self::InvalidMessage { .. } => false,
        }
    }
}
