//! Who is in the cluster: members with their addresses, and the voter sets that Raft counts.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::NodeId;

/// What a member takes part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Role {
    /// Counts for quorums and may lead.
    #[default]
    Voter,
    /// Receives the log, counts for nothing (Raft thesis, 4.2.1).
    Learner,
}

/// One member as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its identity.
    pub id: NodeId,
    /// Human name; empty until the member has started once.
    pub name: String,
    /// Where peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until the member has started once.
    pub client_urls: Vec<String>,
    /// Voter or learner.
    pub role: Role,
}

/// The whole membership at one log index.
///
/// Invariants, checked by [`Membership::check`]:
/// - a node is voter or learner, never both;
/// - outgoing voters exist only in a joint configuration (Raft thesis, 4.3);
/// - only learners wait to become voters;
/// - there is at least one voter unless the membership is empty.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Membership {
    /// Names and addresses by id; a voter whose addresses are not known yet may be missing.
    pub members: BTreeMap<NodeId, Member>,
    /// Voters of the incoming (or only) configuration.
    pub voters: BTreeSet<NodeId>,
    /// Learners.
    pub learners: BTreeSet<NodeId>,
    /// Voters of the outgoing configuration while joint, else empty.
    pub voters_outgoing: BTreeSet<NodeId>,
    /// Outgoing voters that become learners when the joint configuration ends.
    pub learners_next: BTreeSet<NodeId>,
    /// Leave the joint configuration as soon as it is committed.
    pub auto_leave: bool,
    /// Ids that were removed; they never come back.
    pub removed: BTreeSet<NodeId>,
    /// Learners that become voters by themselves once they have caught up.
    pub joining: BTreeSet<NodeId>,
}

impl Membership {
    /// A membership whose voters and learners are what `members` say.
    pub fn from_members(members: impl IntoIterator<Item = Member>) -> Self {
        let mut membership = Self::default();
        for member in members {
            match member.role {
                Role::Voter => membership.voters.insert(member.id),
                Role::Learner => membership.learners.insert(member.id),
            };
            membership.members.insert(member.id, member);
        }
        membership
    }

    /// True between the two steps of a joint change.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// True when the node votes in the incoming or the outgoing configuration.
    #[must_use]
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.voters_outgoing.contains(&id)
    }

    /// True when the node takes part at all.
    #[must_use]
    pub fn contains(&self, id: NodeId) -> bool {
        self.is_voter(id) || self.learners.contains(&id)
    }

    /// True when `id` is the only voter, so that its own disk is the quorum.
    #[must_use]
    pub fn is_single_voter(&self, id: NodeId) -> bool {
        !self.is_joint() && self.voters.len() == 1 && self.voters.contains(&id)
    }

    /// Whether `acks` hold a majority of every voter set.
    #[must_use]
    pub fn has_quorum(&self, acks: &BTreeSet<NodeId>) -> bool {
        let majority =
            |set: &BTreeSet<NodeId>| set.is_empty() || set.intersection(acks).count() > set.len() / 2;
        !self.voters.is_empty() && majority(&self.voters) && majority(&self.voters_outgoing)
    }

    /// Checks the invariants in the type's documentation.
    ///
    /// # Errors
    /// Every broken one, in words.
    pub fn check(&self) -> Result<(), String> {
        let mut wrong = Vec::new();
        for id in self.voters.intersection(&self.learners) {
            wrong.push(format!("member {id} is both voter and learner"));
        }
        if self.voters.is_empty() && !(self.learners.is_empty() && self.voters_outgoing.is_empty()) {
            wrong.push("no voter".to_owned());
        }
        for id in &self.learners_next {
            if !self.voters_outgoing.contains(id) {
                wrong.push(format!("member {id} waits to become a learner but is no outgoing voter"));
            }
        }
        for id in &self.joining {
            if !self.learners.contains(id) {
                wrong.push(format!("member {id} waits to become a voter but is no learner"));
            }
        }
        for id in &self.removed {
            if self.contains(*id) {
                wrong.push(format!("member {id} was removed and is still counted"));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn voters(numbers: &[u64]) -> BTreeSet<NodeId> {
        numbers.iter().map(|number| id(*number)).collect()
    }

    #[test]
    fn quorum_is_a_majority_of_both_sets_while_joint() {
        let mut membership = Membership { voters: voters(&[1, 2, 3]), ..Membership::default() };
        assert!(membership.has_quorum(&voters(&[1, 2])));
        assert!(!membership.has_quorum(&voters(&[1])));
        membership.voters_outgoing = voters(&[3, 4, 5]);
        assert!(!membership.has_quorum(&voters(&[1, 2])));
        assert!(membership.has_quorum(&voters(&[1, 3, 4])));
        assert!(!Membership::default().has_quorum(&voters(&[1])));
    }

    #[test]
    fn every_broken_invariant_is_named() {
        let membership = Membership {
            voters: voters(&[1]),
            learners: voters(&[1]),
            learners_next: voters(&[2]),
            removed: voters(&[1]),
            joining: voters(&[3]),
            ..Membership::default()
        };
        let wrong = membership.check().unwrap_err();
        for part in ["both voter and learner", "no outgoing voter", "is no learner", "was removed"] {
            assert!(wrong.contains(part), "{wrong}");
        }
        assert_eq!(Membership::default().check(), Ok(()));
    }
}
