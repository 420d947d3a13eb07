//! What can go wrong in a node.

use crate::error::StorageError;
use crate::id::NodeId;

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
    /// A membership change that is not allowed now; nothing was proposed.
    #[error("membership change refused: {reason}")]
    Membership {
        /// Why.
        reason: String,
    },
    /// Leadership cannot go to this member.
    #[error("bad leader transferee {to}")]
    BadTransferee {
        /// The member asked for.
        to: NodeId,
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
            Self::LeaderChanged | Self::Timeout | Self::Stopped | Self::Storage(_) => true,
            Self::NoLeader
            | Self::NotLeader { .. }
            | Self::Busy
            | Self::NoSpace
            | Self::TooLarge { .. }
            | Self::Membership { .. }
            | Self::BadTransferee { .. }
            | Self::InvalidMessage { .. } => false,
        }
    }
}
