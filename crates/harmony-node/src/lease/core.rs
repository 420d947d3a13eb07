//! The keeper as a plain structure: time, leadership and what came in go in; proposals, questions and answers come out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use harmony_types::lease::{LeaseRevoke, TimeToLive};
use harmony_types::planted::{self, Bug};
use harmony_types::{
    Command, CommandKind, Lease, LeaseChange, LeaseId, NodeError, NodeId, PeerMessage, Term,
};

use super::forward::{Asker, Forwards};
use super::host::Leadership;
use super::keeper::{Inbox, LeaseMetrics, LeaseOptions, ProposalEnd};
use super::reign::{Call, Proposed, Reign, Round, refuse};
use super::tracked::{Phase, Tracked};
use crate::waiter::{ReplyBatch, Waiter};

/// Entries of leases that are gone, beside as many as there are leases, until they are looked for.
const DEADLINES_SPARE: usize = 1_024;

/// What a turn wants done.
pub(super) struct Actions {
    /// Confirm leadership; report under this number.
    pub(super) confirm: Option<u64>,
    pub(super) proposals: Vec<Proposal>,
    /// To other members' keepers.
    pub(super) sends: Vec<(NodeId, Vec<PeerMessage>)>,
    pub(super) renewals: ReplyBatch<i64>,
    pub(super) questions: ReplyBatch<Option<TimeToLive>>,
    /// When the next turn is due.
    pub(super) next: Duration,
}

impl Actions {
    /// Queues one message behind those for the same member.
    pub(super) fn send(&mut self, to: NodeId, message: PeerMessage) {
        match self.sends.iter_mut().find(|(member, _)| *member == to) {
            Some((_, messages)) => messages.push(message),
            None => self.sends.push((to, vec![message])),
        }
    }
}

/// A command that counts in one term only.
pub(super) struct Proposal {
    pub(super) token: u64,
    pub(super) term: Term,
    pub(super) command: Command,
}

/// See the module.
///
/// Invariant: `leases` are those of the state machine, as far as its changes came in; their times count only in a reign
/// that has begun.
pub(super) struct Core {
    pub(super) options: LeaseOptions,
    pub(super) metrics: Arc<LeaseMetrics>,
    pub(super) leases: BTreeMap<LeaseId, Tracked>,
    pub(super) reign: Option<Reign>,
    /// Of leases, rounds and proposals: never used twice.
    pub(super) number: u64,
    forwards: Forwards,
}

impl Core {
    pub(super) fn new(options: LeaseOptions, metrics: Arc<LeaseMetrics>, boot_nonce: u64) -> Self {
        let forwards = Forwards::new(boot_nonce);
        Self { options, metrics, leases: BTreeMap::new(), reign: None, number: 0, forwards }
    }

    /// One turn. `all`: the leases as they are, when they were replaced as a whole; `leadership` was looked at after what is
    /// in `inbox` came in.
    pub(super) fn turn(
        &mut self,
        now: Duration,
        leadership: Leadership,
        all: Option<Vec<Lease>>,
        inbox: Inbox,
    ) -> Actions {
        let mut actions = Actions {
            confirm: None,
            proposals: Vec::new(),
            sends: Vec::new(),
            renewals: ReplyBatch::default(),
            questions: ReplyBatch::default(),
            next: now + self.options.beat,
        };
        self.follow(leadership, now, &mut actions);
        if let Some(all) = all {
            self.replace(all, now, &mut actions);
        }
        for change in inbox.changes {
            self.change(change, now, &mut actions);
        }
        for (token, end) in inbox.proposed {
            self.proposal_ended(token, end, &mut actions);
        }
        let Inbox { renewals, questions, peers_renewals, peers_questions, answers, unreachable, .. } = inbox;
        if let Some(reign) = &mut self.reign {
            let call = |(id, waiter)| Call { asked: now, id, waiter };
            reign.renewals.extend(renewals.into_iter().chain(peers_renewals).map(call));
            let call = |(id, waiter)| Call { asked: now, id, waiter };
            reign.questions.extend(questions.into_iter().chain(peers_questions).map(call));
        } else {
            let renewals = renewals.into_iter().map(|(id, waiter)| (id, Asker::Renewal(waiter)));
            let questions = questions.into_iter().map(|(id, waiter)| (id, Asker::Question(waiter)));
            self.pass_on(renewals.chain(questions), leadership.leader, now, &mut actions);
            let renewals = peers_renewals.into_iter().map(|(_, waiter)| Asker::Renewal(waiter));
            let questions = peers_questions.into_iter().map(|(_, waiter)| Asker::Question(waiter));
            for asker in renewals.chain(questions) {
                asker.end(Err(NodeError::NotLeader { leader: leadership.leader }), &mut actions);
            }
        }
        for (from, request, result) in answers {
            self.forwards.answered(from, request, result, &mut actions);
        }
        self.forwards.lost(|to| unreachable.contains(&to) || Some(to) != leadership.leader, &mut actions);
        self.forwards.expire(now, &mut actions);
        for (number, confirmed) in inbox.confirmed {
            self.round_ended(number, confirmed, now, &mut actions);
        }
        self.look_at_time(now, &mut actions);
        self.open_round(now, &mut actions);
        self.metrics.leases.set(self.leases.len() as u64);
        actions
    }

    /// Has the leader's keeper asked.
    fn pass_on(
        &mut self,
        calls: impl Iterator<Item = (LeaseId, Asker)>,
        leader: Option<NodeId>,
        now: Duration,
        actions: &mut Actions,
    ) {
        let deadline = now + self.options.answer_timeout();
        for (id, asker) in calls {
            match leader {
                Some(to) => self.forwards.ask(to, id, asker, deadline, actions),
                None => asker.end(Err(NodeError::NotLeader { leader }), actions),
            }
        }
    }

    #[cfg(test)]
    pub(super) fn deadline_count(&self) -> usize {
        self.reign.as_ref().map_or(0, |reign| reign.deadlines.count())
    }

    /// Ends all calls.
    pub(super) fn stop(&mut self) {
        self.reign = None;
        self.forwards.clear();
        self.leases.clear();
    }

    /// Notices that this node began to lead, or ceased to.
    fn follow(&mut self, leadership: Leadership, now: Duration, actions: &mut Actions) {
        if self.reign.as_ref().map(|reign| reign.term) == leadership.own_term {
            return;
        }
        if let Some(reign) = self.reign.take() {
            tracing::info!(term = %reign.term, "leases are counted elsewhere");
            reign.give_up(actions);
            for lease in self.leases.values_mut() {
                refuse(std::mem::take(&mut lease.waiting), &mut actions.renewals);
            }
            self.metrics.expired_waiting.set(0);
        }
        self.reign = leadership.own_term.map(|term| Reign::new(term, now));
    }

    fn replace(&mut self, all: Vec<Lease>, now: Duration, actions: &mut Actions) {
        let mut old = std::mem::take(&mut self.leases);
        for lease in all {
            match old.remove(&lease.id) {
                Some(mut known) if known.ttl_s == lease.ttl_s => {
                    known.remaining_ttl_s = lease.remaining_ttl_s;
                    self.leases.insert(lease.id, known);
                }
                _ => self.add(lease, now, false),
            }
        }
        for gone in old.into_values() {
            answer(gone.waiting, 0, &mut actions.renewals);
        }
    }

    /// Takes in a lease, of which all that the log knows of is left now.
    fn add(&mut self, lease: Lease, now: Duration, is_granted: bool) {
        let Lease { id, ttl_s, remaining_ttl_s } = lease;
        self.number += 1;
        let mut tracked = Tracked {
            serial: self.number,
            ttl_s,
            remaining_ttl_s,
            over_at: now,
            grace: Duration::ZERO,
            phase: Phase::Counting,
            is_renewed: is_granted,
            less_told: None,
            waiting: Vec::new(),
        };
        if let Some(reign) = self.reign.as_mut().filter(|reign| reign.has_begun) {
            let grace = if is_granted { Duration::ZERO } else { self.options.election_timeout };
            reign.count(id, &mut tracked, now, grace);
        }
        self.leases.insert(id, tracked);
    }

    fn change(&mut self, change: LeaseChange, now: Duration, actions: &mut Actions) {
        match change {
            LeaseChange::Granted { id, ttl_s } => {
                self.metrics.granted.add(1);
                self.metrics.ttls.record(Duration::from_secs(u64::try_from(ttl_s).unwrap_or(0)));
                self.remove(id, actions);
                self.add(Lease { id, ttl_s, remaining_ttl_s: 0 }, now, true);
            }
            LeaseChange::Revoked { id } => {
                self.metrics.revoked.add(1);
                self.remove(id, actions);
            }
            LeaseChange::Remaining { id, remaining_ttl_s } => {
                if let Some(lease) = self.leases.get_mut(&id) {
                    lease.remaining_ttl_s = remaining_ttl_s.min(lease.ttl_s);
                }
            }
        }
    }

    fn remove(&mut self, id: LeaseId, actions: &mut Actions) {
        if let Some(lease) = self.leases.remove(&id) {
            answer(lease.waiting, 0, &mut actions.renewals);
        }
    }

    fn proposal_ended(&mut self, token: u64, end: ProposalEnd, actions: &mut Actions) {
        // Of an earlier reign: what it did came in as a change.
        let Some(reign) = &mut self.reign else { return };
        match reign.proposed.remove(&token) {
            None => {}
            Some(Proposed::Checkpoint) => reign.is_checkpointing = false,
            Some(Proposed::Revoke(id, serial)) => {
                reign.revoking -= 1;
                let lease = self.leases.get_mut(&id).filter(|lease| lease.serial == serial);
                match (end, lease) {
                    (ProposalEnd::NotProposed, Some(lease)) => {
                        lease.phase = Phase::Over;
                        reign.over.push_back(id);
                    }
                    (ProposalEnd::Refused, Some(_)) => self.remove(id, actions),
                    // Applied: the change says so. Unknown: it stays with the log of this term.
                    _ => {}
                }
            }
            Some(Proposed::Clear(calls)) => self.cleared(token, end, calls, actions),
        }
    }

    fn round_ended(&mut self, number: u64, confirmed: bool, now: Duration, actions: &mut Actions) {
        let Some(reign) = &mut self.reign else { return };
        let Some(round) = reign.round.take_if(|round| round.number == number) else { return };
        if !confirmed || self.options.election_timeout < now.saturating_sub(round.opened) {
            reign.next_round_at = now + self.options.beat;
            reign.renewals.splice(..0, round.renewals);
            reign.questions.splice(..0, round.questions);
            round.over.into_iter().rev().for_each(|id| reign.over.push_front(id));
            return;
        }
        if !reign.has_begun {
            self.begin(now);
        }
        self.revoke(round.over, now, actions);
        self.renew(round.renewals, now, actions);
        for Call { id, waiter, .. } in round.questions {
            let left = self.leases.get(&id).map(|lease| TimeToLive {
                granted_s: lease.ttl_s,
                remaining_s: i64::try_from(lease.over_at.saturating_sub(now).as_secs()).unwrap_or(i64::MAX),
            });
            actions.questions.push(waiter, Ok(left));
        }
    }

    /// Begins to count: of each lease all that the log knows of is left.
    fn begin(&mut self, now: Duration) {
        let Some(reign) = &mut self.reign else { return };
        tracing::info!(term = %reign.term, leases = self.leases.len(), "counting leases");
        reign.has_begun = true;
        reign.checkpoint_interval = self.options.election_timeout;
        reign.checkpoint_at = now + reign.checkpoint_interval;
        for (id, lease) in &mut self.leases {
            lease.is_renewed = false;
            reign.count(*id, lease, now, self.options.election_timeout);
        }
    }

    /// Proposes the revocation of leases that are over, as many as may be; the others wait for the next round.
    fn revoke(&mut self, over: VecDeque<LeaseId>, now: Duration, actions: &mut Actions) {
        let Some(reign) = &mut self.reign else { return };
        let pause = Duration::from_secs(1) / self.options.revokes_per_second.max(1);
        let burst = pause * u32::try_from(self.options.revokes_at_once).unwrap_or(u32::MAX);
        reign.next_revoke_at = reign.next_revoke_at.max(now.saturating_sub(burst));
        let mut left = VecDeque::new();
        for id in over {
            let Some(lease) = self.leases.get_mut(&id).filter(|lease| lease.phase == Phase::Over) else {
                continue;
            };
            if self.options.revokes_at_once <= reign.revoking || now < reign.next_revoke_at {
                left.push_back(id);
                continue;
            }
            reign.next_revoke_at += pause;
            reign.revoking += 1;
            lease.phase = Phase::Revoking;
            self.number += 1;
            reign.proposed.insert(self.number, Proposed::Revoke(id, lease.serial));
            let kind = CommandKind::LeaseRevoke(LeaseRevoke { id: id.0 });
            actions.proposals.push(reign.proposal(self.number, kind));
        }
        left.append(&mut reign.over);
        reign.over = left;
    }

    fn renew(&mut self, calls: Vec<Call<i64>>, now: Duration, actions: &mut Actions) {
        let Some(reign) = &mut self.reign else { return };
        let mut to_clear = Vec::new();
        for Call { id, waiter, .. } in calls {
            let Some(lease) = self.leases.get_mut(&id) else {
                actions.renewals.push(waiter, Ok(0));
                continue;
            };
            if lease.phase == Phase::Counting && lease.end() <= now {
                lease.phase = Phase::Over;
                reign.over.push_back(id);
                self.metrics.expired.add(1);
            }
            if lease.phase != Phase::Counting {
                lease.wait_for_end(waiter, &mut actions.renewals);
                continue;
            }
            // An end is never moved to an earlier time.
            let end = lease.end().max(now + lease.ttl());
            if !planted::is(Bug::IgnoreRenewal) {
                lease.over_at = now + lease.ttl();
                lease.grace = end - lease.over_at;
            }
            lease.is_renewed = true;
            if lease.less_told.is_some() {
                to_clear.push((id, waiter));
            } else {
                self.metrics.renewed.add(1);
                actions.renewals.push(waiter, Ok(lease.ttl_s));
            }
        }
        self.clear(to_clear, actions);
    }

    /// Finds the leases whose time is over, calls that waited too long, and what the log is to be told.
    fn look_at_time(&mut self, now: Duration, actions: &mut Actions) {
        let Some(reign) = &mut self.reign else { return };
        let timeout = self.options.call_timeout;
        for call in reign.renewals.extract_if(.., |call| call.asked + timeout <= now) {
            actions.renewals.push(call.waiter, Err(NodeError::Timeout));
        }
        for call in reign.questions.extract_if(.., |call| call.asked + timeout <= now) {
            actions.questions.push(call.waiter, Err(NodeError::Timeout));
        }
        if !reign.has_begun {
            return;
        }
        if DEADLINES_SPARE + 2 * self.leases.len() < reign.deadlines.count() {
            let leases = &self.leases;
            reign.deadlines.retain(|id, serial| leases.get(&id).is_some_and(|lease| lease.serial == serial));
        }
        while let Some((id, serial)) = reign.deadlines.pop(now) {
            let Some(lease) = self.leases.get_mut(&id).filter(|lease| lease.serial == serial) else {
                continue;
            };
            if lease.phase != Phase::Counting {
                continue;
            }
            if now < lease.end() {
                reign.deadlines.add(lease.end(), id, serial);
                continue;
            }
            lease.phase = Phase::Over;
            reign.over.push_back(id);
            self.metrics.expired.add(1);
        }
        self.checkpoint(now, actions);
    }

    /// Has leadership confirmed when somebody waits for that, and says when the next turn is due.
    fn open_round(&mut self, now: Duration, actions: &mut Actions) {
        let Some(reign) = &mut self.reign else { return };
        let waiting = (reign.over.len() + reign.round.as_ref().map_or(0, |round| round.over.len())) as u64;
        self.metrics.expired_waiting.set(waiting + reign.revoking as u64);
        let may_revoke = reign.revoking < self.options.revokes_at_once && reign.next_revoke_at <= now;
        let asks = !reign.renewals.is_empty() || !reign.questions.is_empty() || !reign.has_begun;
        if reign.round.is_none()
            && reign.next_round_at <= now
            && (asks || (may_revoke && !reign.over.is_empty()))
        {
            self.number += 1;
            reign.round = Some(Round {
                number: self.number,
                opened: now,
                renewals: std::mem::take(&mut reign.renewals),
                questions: std::mem::take(&mut reign.questions),
                over: std::mem::take(&mut reign.over),
            });
            actions.confirm = Some(self.number);
        }
        let mut due = vec![reign.deadlines.next()];
        due.push(reign.has_begun.then_some(reign.checkpoint_at));
        due.push((!reign.over.is_empty() && reign.round.is_none()).then_some(reign.next_revoke_at));
        for due in due.into_iter().flatten().filter(|due| now < *due) {
            actions.next = actions.next.min(due);
        }
    }
}

fn answer(waiters: Vec<Waiter<i64>>, ttl_s: i64, replies: &mut ReplyBatch<i64>) {
    for waiter in waiters {
        replies.push(waiter, Ok(ttl_s));
    }
}
