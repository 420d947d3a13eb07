//! Which membership changes a leader takes: etcd's strict reconfiguration checks, and what would contradict itself.

use std::collections::{BTreeMap, BTreeSet};

use harmony_types::raft::RaftState;
use harmony_types::{
    ConfChange, ConfChangeType, LogIndex, Member, Membership, MembershipError, NodeId, RaftNode as _, Role,
    Storage,
};

use crate::core::Core;

/// What a leader knows of its members.
pub(super) struct Standing<'a> {
    pub(super) membership: &'a Membership,
    pub(super) me: NodeId,
    /// Highest index known to be on each one's disk.
    pub(super) matched: BTreeMap<NodeId, LogIndex>,
    /// Said something within the last election timeout.
    pub(super) heard: BTreeSet<NodeId>,
    pub(super) strict: bool,
    pub(super) learners_max: usize,
}

/// Checks changes that are to be made in one step.
///
/// # Errors
/// The first reason against them.
pub(super) fn check(standing: &Standing<'_>, changes: &[ConfChange]) -> Result<(), MembershipError> {
    let before = standing.membership;
    if before.is_joint() {
        return Err(MembershipError::Pending);
    }
    let mut voters = before.voters.clone();
    let mut learners = before.learners.clone();
    let mut seen = BTreeSet::new();
    for change in changes {
        let id = change.member.id;
        if !seen.insert(id) {
            return Err(MembershipError::Impossible);
        }
        standing.check_one(change)?;
        voters.remove(&id);
        learners.remove(&id);
        match change.role_after() {
            Some(Role::Voter) => voters.insert(id),
            Some(Role::Learner) => learners.insert(id),
            None => true,
        };
    }
    if changes.is_empty() {
        return Err(MembershipError::Impossible);
    }
    if voters.is_empty() {
        return Err(MembershipError::LastVoter);
    }
    if before.learners.len() < learners.len() && standing.learners_max < learners.len() {
        return Err(MembershipError::TooManyLearners);
    }
    if !standing.strict || voters == before.voters {
        return Ok(());
    }
    match changes {
        [ConfChange { change_type: ConfChangeType::AddVoter, .. }] => standing.check_addition(),
        [ConfChange { change_type: ConfChangeType::Remove, member }] => {
            standing.check_removal(member.id, &voters)
        }
        _ => standing.check_voters(&voters),
    }
}

impl Standing<'_> {
    fn check_one(&self, ConfChange { change_type, member }: &ConfChange) -> Result<(), MembershipError> {
        let members = self.membership;
        let is_learner = members.learners.contains(&member.id);
        match change_type {
            ConfChangeType::AddVoter | ConfChangeType::AddLearner | ConfChangeType::Join => {
                if members.removed.contains(&member.id) {
                    return Err(MembershipError::WasRemoved);
                }
                if members.contains(member.id) {
                    return Err(MembershipError::Exists);
                }
                self.check_urls(member)
            }
            _ if !members.contains(member.id) => Err(MembershipError::NotFound),
            ConfChangeType::Promote if !is_learner => Err(MembershipError::NotLearner),
            ConfChangeType::Promote if !self.is_ready(member.id) => Err(MembershipError::LearnerNotReady),
            ConfChangeType::Promote | ConfChangeType::Remove => Ok(()),
            ConfChangeType::Update if is_learner != (member.role == Role::Learner) => {
                Err(MembershipError::Impossible)
            }
            ConfChangeType::Update => self.check_urls(member),
        }
    }

    /// Two members at one address would be taken for each other.
    fn check_urls(&self, member: &Member) -> Result<(), MembershipError> {
        let others = self.membership.members.values().filter(|other| other.id != member.id);
        let taken: BTreeSet<&String> = others.flat_map(|other| &other.peer_urls).collect();
        if member.peer_urls.iter().any(|url| taken.contains(url)) {
            Err(MembershipError::UrlExists)
        } else {
            Ok(())
        }
    }

    /// A learner that holds 90 % of what the leader has on its disk, as in etcd.
    pub(super) fn is_ready(&self, learner: NodeId) -> bool {
        let of = |id| self.matched.get(&id).copied().unwrap_or_default().0;
        of(self.me) - of(self.me) / 10 <= of(learner)
    }

    /// A new voter counts at once, also when it never starts. All others must be there, then.
    fn check_addition(&self) -> Result<(), MembershipError> {
        let voters = &self.membership.voters;
        let (started, after) = (self.started(voters), voters.len() + 1);
        // The only member cannot have more than itself: whoever adds a voter to it, and not a member that joins as a
        // learner, wants it so.
        if started < quorum(after) && (started, after) != (1, 2) {
            return Err(MembershipError::NotEnoughStarted);
        }
        if self.heard(voters) < voters.len() { Err(MembershipError::Unhealthy) } else { Ok(()) }
    }

    fn check_removal(&self, id: NodeId, after: &BTreeSet<NodeId>) -> Result<(), MembershipError> {
        if self.started(after) < quorum(after.len()) {
            return Err(MembershipError::NotEnoughStarted);
        }
        // One that is away takes nothing with it.
        if self.heard.contains(&id) && self.heard(after) < quorum(after.len()) {
            return Err(MembershipError::Unhealthy);
        }
        Ok(())
    }

    /// The voters that are there behind the change are a quorum of them. New ones are not there yet.
    fn check_voters(&self, after: &BTreeSet<NodeId>) -> Result<(), MembershipError> {
        if self.started(after) < quorum(after.len()) {
            Err(MembershipError::NotEnoughStarted)
        } else if self.heard(after) < quorum(after.len()) {
            Err(MembershipError::Unhealthy)
        } else {
            Ok(())
        }
    }

    /// Members that have run once: they told their name, or hold something.
    fn started(&self, voters: &BTreeSet<NodeId>) -> usize {
        let has_started = |id: &&NodeId| {
            **id == self.me
                || self.membership.members.get(id).is_some_and(|member| !member.name.is_empty())
                || self.matched.get(id).is_some_and(|index| LogIndex::ZERO < *index)
        };
        voters.iter().filter(has_started).count()
    }

    fn heard(&self, voters: &BTreeSet<NodeId>) -> usize {
        voters.intersection(&self.heard).count()
    }
}

fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

impl<S: Storage> Core<S> {
    /// Checks changes against what this leader knows.
    ///
    /// # Errors
    /// The first reason against them.
    pub(super) fn check_changes(&self, changes: &[ConfChange]) -> Result<(), MembershipError> {
        check(&self.standing(&self.storage.membership()), changes)
    }

    fn standing<'a>(&self, membership: &'a Membership) -> Standing<'a> {
        let progress = self.raft.status().progress;
        Standing {
            membership,
            me: self.config.id,
            heard: progress.iter().map(|one| one.id).filter(|id| self.is_heard(*id)).collect(),
            matched: progress.into_iter().map(|one| (one.id, one.matched)).collect(),
            strict: self.config.strict_reconfig,
            learners_max: self.config.learners_max,
        }
    }

    /// What a leader changes by itself: learners that were told to join become voters, and a joint configuration ends
    /// that raft, which ends it once, left standing when leadership moved.
    pub(super) fn tend_members(&mut self) {
        if self.view.state != RaftState::Leader || !self.view.committed_in_term || self.view.transferring {
            return;
        }
        if self.raft.is_stuck_joint() {
            if let Err(error) = self.raft.leave_joint() {
                tracing::debug!(%error, "the joint configuration stays for now");
            }
            return;
        }
        if !self.raft.has_learners() {
            return;
        }
        let membership = self.storage.membership();
        let standing = self.standing(&membership);
        for id in &membership.joining {
            let Some(member) = membership.members.get(id).filter(|_| standing.heard.contains(id)) else {
                continue;
            };
            let change = ConfChange { change_type: ConfChangeType::Promote, member: member.clone() };
            if check(&standing, std::slice::from_ref(&change)).is_err() {
                continue;
            }
            match self.raft.propose_conf_change(&[change]) {
                Ok((index, _)) => {
                    self.metrics.promotions.add(1);
                    tracing::info!(member = %id, %index, "a member that joins has caught up: promoted")
                }
                Err(error) => tracing::debug!(member = %id, %error, "not promoted yet"),
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests;
