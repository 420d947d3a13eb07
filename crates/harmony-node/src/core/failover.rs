//! Elections that need not wait: the machine of the leader says that its process is gone.
//!
//! Ticks are liveness only, so an election may come early without any harm to safety; what must not happen is that it comes
//! often, or in vain. Therefore:
//! - Evidence is a connection to the *leader* that was refused or reset. Whoever has it gives up the lease that makes it
//!   ignore other members' pre-votes, and nothing else: members without evidence still refuse, so a leader that lives, and
//!   is heard by a quorum, stays.
//! - Voters go in the order of their ids, [`STEP_TICKS`] apart, so that they do not split the vote: the first asks at once.
//! - What a member ignored a moment before it had the evidence itself, it looks at again.
//! - A member asks early twice in an election timeout at most; a heartbeat in between calls it off.

use harmony_types::raft::RaftState;
use harmony_types::{Message, MessageType, NodeError, NodeId, RaftNode as _, Storage};

use crate::core::Core;

/// Ticks between two voters' early elections: beats of two members fall anywhere, so one tick could mean no time at all.
const STEP_TICKS: u64 = 2;

/// Ticks for which an ignored request for a pre-vote is kept.
const IGNORED_TICKS: u64 = 2;

/// Requests for a pre-vote that are kept; as many voters seldom ask at once.
const IGNORED_MAX: usize = 8;

/// What a member knows of its leader's death.
#[derive(Debug, Default)]
pub(super) struct Failover {
    /// The leader that is gone, and the tick at which votes are asked for, unless it is heard again before.
    campaign_at: Option<(NodeId, u64)>,
    /// The tick of the last early election here.
    last: Option<u64>,
    /// Requests for a pre-vote that came while the leader seemed to live, with the tick of their arrival.
    ignored: Vec<(u64, Message)>,
}

impl<S: Storage> Core<S> {
    /// The machine of `peer` refuses connections.
    pub(super) fn gone(&mut self, peer: NodeId) -> Result<(), NodeError> {
        let view = self.raft.view();
        if view.state != RaftState::Follower || view.leader != Some(peer) {
            return Ok(());
        }
        let rank = self.raft.succession_rank();
        self.raft.expire_lease((rank + 1) * STEP_TICKS);
        let ignored = std::mem::take(&mut self.failover.ignored);
        let others_ask = !ignored.is_empty();
        for (_, message) in ignored {
            self.step(message)?;
        }
        let rest = self.config.election_ticks() / 2;
        let rested = self.failover.last.is_none_or(|last| last + rest <= self.ticks);
        if self.failover.campaign_at.is_none() && rested && view.promotable {
            let rank = rank + u64::from(others_ask);
            tracing::info!(node = %self.config.id, leader = %peer, rank, "the leader's process is gone");
            self.failover.campaign_at = Some((peer, self.ticks + rank * STEP_TICKS));
            self.campaign_early();
        }
        Ok(())
    }

    /// Asks for votes when it is this member's turn.
    pub(super) fn campaign_early(&mut self) {
        let Some((leader, at)) = self.failover.campaign_at else { return };
        let view = self.raft.view();
        if view.leased
            || view.leader != Some(leader)
            || view.state != RaftState::Follower
            || self.must_not_lead()
        {
            self.failover.campaign_at = None;
        } else if at <= self.ticks && !self.must_drain() {
            self.failover.campaign_at = None;
            self.failover.last = Some(self.ticks);
            self.metrics.early_elections.add(1);
            if let Err(error) = self.raft.campaign() {
                tracing::debug!(%error, "no early election");
            }
        }
    }

    /// Keeps a request for a pre-vote that raft is about to ignore.
    pub(super) fn keep_ignored(&mut self, message: &Message) {
        if message.message_type != MessageType::RequestPreVote || !self.raft.view().leased {
            return;
        }
        let ignored = &mut self.failover.ignored;
        ignored.retain(|(at, kept)| self.ticks <= at + IGNORED_TICKS && kept.from != message.from);
        if ignored.len() < IGNORED_MAX {
            ignored.push((self.ticks, message.clone()));
        }
    }

    /// The leader is known to be gone: what is passed on to it would be lost.
    pub(super) fn leader_is_gone(&self) -> bool {
        self.failover.campaign_at.is_some_and(|(leader, _)| self.view.leader == Some(leader))
    }
}
