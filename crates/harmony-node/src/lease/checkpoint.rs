//! What is left of leases, told to the log: so that the next leader does not begin anew.

use std::time::Duration;

use harmony_types::lease::{LeaseCheckpoint, LeaseRemaining};
use harmony_types::{CommandKind, LeaseId, NodeError};

use super::core::{Actions, Core};
use super::keeper::ProposalEnd;
use super::reign::Proposed;
use super::tracked::Phase;
use crate::waiter::Waiter;

/// Leases in one command about what is left of them.
const CHECKPOINT_LEASES_MAX: usize = 1_000;

impl Core {
    /// Finds the leases of which the log is to be told when it is time, and proposes what is left of the next of them; one
    /// command at a time.
    pub(super) fn checkpoint(&mut self, now: Duration, actions: &mut Actions) {
        let Some(reign) = &mut self.reign else { return };
        if reign.checkpoint_at <= now && reign.to_checkpoint.is_empty() {
            let longest = self.options.checkpoint_interval;
            let wanted = self.leases.iter().filter(|(_, lease)| !lease.is_renewed || longest < lease.ttl());
            reign.to_checkpoint.extend(wanted.map(|(id, _)| *id));
            reign.checkpoint_at = now + reign.checkpoint_interval;
            reign.checkpoint_interval = (2 * reign.checkpoint_interval).min(longest);
        }
        if reign.is_checkpointing {
            return;
        }
        let (token, mut leases) = (self.number + 1, Vec::new());
        while leases.len() < CHECKPOINT_LEASES_MAX
            && let Some(id) = reign.to_checkpoint.pop_front()
        {
            let Some(lease) = self.leases.get_mut(&id).filter(|lease| lease.phase == Phase::Counting) else {
                continue;
            };
            // Rounded up, without the grace: the next leader gives one of its own.
            let left = lease.over_at.saturating_sub(now).as_nanos().div_ceil(1_000_000_000);
            let left_s = i64::try_from(left).unwrap_or(i64::MAX).max(1);
            if left_s < lease.known_s() {
                lease.less_told = Some(token);
                leases.push(LeaseRemaining { id: id.0, remaining_ttl: left_s });
            }
        }
        if leases.is_empty() {
            return;
        }
        self.number = token;
        self.metrics.checkpointed.add(leases.len() as u64);
        reign.is_checkpointing = true;
        reign.proposed.insert(token, Proposed::Checkpoint);
        let kind = CommandKind::LeaseCheckpoint(LeaseCheckpoint { leases });
        actions.proposals.push(reign.proposal(token, kind));
    }

    /// Proposes that all of these leases is left again, for renewals that are answered then.
    pub(super) fn clear(&mut self, to_clear: Vec<(LeaseId, Waiter<i64>)>, actions: &mut Actions) {
        let Some(reign) = &mut self.reign else { return };
        let mut to_clear = to_clear.into_iter().peekable();
        while to_clear.peek().is_some() {
            let calls: Vec<_> = to_clear.by_ref().take(CHECKPOINT_LEASES_MAX).collect();
            let all = |(id, _): &(LeaseId, _)| LeaseRemaining { id: id.0, remaining_ttl: 0 };
            let leases = calls.iter().map(all).collect();
            self.number += 1;
            reign.proposed.insert(self.number, Proposed::Clear(calls));
            let kind = CommandKind::LeaseCheckpoint(LeaseCheckpoint { leases });
            actions.proposals.push(reign.proposal(self.number, kind));
        }
    }

    /// Answers them.
    pub(super) fn cleared(
        &mut self,
        token: u64,
        end: ProposalEnd,
        calls: Vec<(LeaseId, Waiter<i64>)>,
        actions: &mut Actions,
    ) {
        for (id, waiter) in calls {
            match end {
                ProposalEnd::NotProposed => actions.renewals.push(waiter, Err(NodeError::Busy)),
                ProposalEnd::Unknown => actions.renewals.push(waiter, Err(NodeError::LeaderChanged)),
                ProposalEnd::Applied | ProposalEnd::Refused => {
                    let Some(lease) = self.leases.get_mut(&id) else {
                        actions.renewals.push(waiter, Ok(0));
                        continue;
                    };
                    lease.less_told = lease.less_told.filter(|told| token < *told);
                    if lease.phase == Phase::Counting {
                        self.metrics.renewed.add(1);
                        actions.renewals.push(waiter, Ok(lease.ttl_s));
                    } else {
                        lease.wait_for_end(waiter, &mut actions.renewals);
                    }
                }
            }
        }
    }
}
