//! The handle on the keeper, its thread, and the doors for those who apply and those who answer.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use harmony_types::lease::{LeaseGrant, TimeToLive};
use harmony_types::transport::ForwardError;
use harmony_types::{
    Clock, LeaseChange, LeaseId, LeaseObserver, Leases, NodeError, NodeId, Outcome, OutcomeKind, PeerMessage,
    Refusal, StorageError,
};

use super::core::{Actions, Core, Proposal};
use super::forward::{Asker, PeerAnswers};
use super::host::{LeaseHost, LeasePeers};
use crate::metrics::Counter;
use crate::node::boot_nonce;
use crate::queue::{Mailbox, Taken};
use crate::waiter::{ReplyBatch, ReplySink, Waiter};

/// Renewals and questions that wait for the keeper's next turn.
pub(super) const CALLS_WAITING_MAX: usize = 65_536;

/// Changes that wait for it; past them it reads all leases again.
const CHANGES_WAITING_MAX: usize = 262_144;

/// How a keeper counts.
#[derive(Clone, Copy, Debug)]
pub struct LeaseOptions {
    /// The cluster's election timeout.
    pub election_timeout: Duration,
    /// Time between two looks at who leads.
    pub beat: Duration,
    /// Revocations proposed in a second, at most.
    pub revokes_per_second: u32,
    /// Revocations under way, at most.
    pub revokes_at_once: usize,
    /// Longest time until what is left of a lease goes through the log again.
    pub checkpoint_interval: Duration,
    /// How long a call may wait.
    pub call_timeout: Duration,
}

impl LeaseOptions {
    /// etcd's numbers for a cluster with this election timeout.
    #[must_use]
    pub fn new(election_timeout: Duration) -> Self {
        Self {
            election_timeout,
            beat: election_timeout / 10,
            revokes_per_second: 1_000,
            revokes_at_once: 64,
            checkpoint_interval: Duration::from_mins(5),
            call_timeout: Duration::from_secs(5) + 2 * election_timeout,
        }
    }

    /// The least TTL that is granted, seconds: one and a half election timeouts, rounded up.
    #[must_use]
    pub fn ttl_s_min(&self) -> i64 {
        i64::try_from((self.election_timeout * 3 / 2).as_nanos().div_ceil(1_000_000_000)).unwrap_or(i64::MAX)
    }

    /// How long another member's answer is waited for: long enough for a round of heartbeats, short enough to ask again.
    pub(super) fn answer_timeout(&self) -> Duration {
        3 * self.election_timeout
    }

    /// The command for a grant that a client asked for: a TTL below the least one is raised, and an id of 0 replaced by
    /// `chance`, made positive.
    #[must_use]
    pub fn grant(&self, id: i64, ttl_s: i64, chance: u64) -> LeaseGrant {
        let picked = (chance >> 1).cast_signed().max(1);
        LeaseGrant { id: if id == 0 { picked } else { id }, ttl: ttl_s.max(self.ttl_s_min()) }
    }
}

/// What a keeper counts.
#[derive(Debug, Default)]
pub struct LeaseMetrics {
    /// Leases now.
    pub leases: Counter,
    /// Leases that this member saw granted.
    pub granted: Counter,
    /// Leases that this member saw go.
    pub revoked: Counter,
    /// Renewals answered with a TTL.
    pub renewed: Counter,
    /// Leases whose time was over.
    pub expired: Counter,
    /// Those of them that wait for their revocation now.
    pub expired_waiting: Counter,
    /// Leases of which the log was told what is left.
    pub checkpointed: Counter,
}

/// Counts the time of leases; see the module [`crate::lease`]. A cheap handle: clones speak of the same keeper.
#[derive(Clone)]
pub struct LeaseKeeper {
    shared: Arc<Shared>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

struct Shared {
    inbox: Arc<Mailbox<Inbox>>,
    leases: Arc<dyn Leases>,
    host: Arc<dyn LeaseHost>,
    clock: Arc<dyn Clock>,
    core: Mutex<Core>,
    /// By member, where the ends of its calls go.
    peers: Mutex<BTreeMap<NodeId, Arc<PeerAnswers>>>,
    metrics: Arc<LeaseMetrics>,
}

/// What waits for the keeper's next turn.
#[derive(Default)]
pub(super) struct Inbox {
    /// Which leases there are is to be read anew; `changes` came after that was known.
    replaced: bool,
    pub(super) changes: Vec<LeaseChange>,
    pub(super) renewals: Vec<(LeaseId, Waiter<i64>)>,
    pub(super) questions: Vec<(LeaseId, Waiter<Option<TimeToLive>>)>,
    /// The same, for other members.
    pub(super) peers_renewals: Vec<(LeaseId, Waiter<i64>)>,
    pub(super) peers_questions: Vec<(LeaseId, Waiter<Option<TimeToLive>>)>,
    /// What other members answered.
    pub(super) answers: Vec<(NodeId, u64, Result<Option<TimeToLive>, ForwardError>)>,
    /// Members that may not have heard what they were asked.
    pub(super) unreachable: Vec<NodeId>,
    /// Rounds that ended; one of an earlier reign may end behind one of this.
    pub(super) confirmed: Vec<(u64, bool)>,
    pub(super) proposed: Vec<(u64, ProposalEnd)>,
}

/// How a proposal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProposalEnd {
    /// Applied.
    Applied,
    /// It changed nothing, and the same again would not either.
    Refused,
    /// It was not proposed: try again.
    NotProposed,
    /// Nobody knows.
    Unknown,
}

/// Where the ends of the keeper's own calls arrive.
struct Sink(Arc<Mailbox<Inbox>>);

impl ReplySink<()> for Sink {
    fn complete(&self, batch: Vec<(u64, Result<(), NodeError>)>) {
        self.0.put(|inbox| {
            inbox.confirmed.extend(batch.into_iter().map(|(round, result)| (round, result.is_ok())));
        });
    }
}

impl ReplySink<Outcome> for Sink {
    fn complete(&self, batch: Vec<(u64, Result<Outcome, NodeError>)>) {
        let end = |result: Result<Outcome, NodeError>| match result {
            Ok(Outcome { kind: Some(OutcomeKind::Refused(refusal)), .. }) => {
                // While an alarm is raised, or rights are being changed, it may only be early.
                let gone = refusal == i32::from(Refusal::LeaseNotFound);
                if gone { ProposalEnd::Refused } else { ProposalEnd::NotProposed }
            }
            Ok(_) => ProposalEnd::Applied,
            Err(error) if error.may_have_been_applied() => ProposalEnd::Unknown,
            Err(_) => ProposalEnd::NotProposed,
        };
        self.0.put(|inbox| {
            inbox.proposed.extend(batch.into_iter().map(|(token, result)| (token, end(result))));
        });
    }
}

impl LeaseObserver for Sink {
    fn changed(&self, changes: Vec<LeaseChange>) {
        self.0.put(|inbox| {
            inbox.changes.extend(changes);
            if CHANGES_WAITING_MAX < inbox.changes.len() {
                inbox.replaced = true;
                inbox.changes = Vec::new();
            }
        });
    }

    fn replaced(&self) {
        self.0.put(|inbox| {
            inbox.replaced = true;
            inbox.changes = Vec::new();
        });
    }
}

impl LeaseKeeper {
    /// A keeper without a thread, for a simulator: see [`LeaseKeeper::step`]. Takes the place of any other observer of these
    /// leases. `boot_nonce` differs from life to life.
    #[must_use]
    pub fn new(
        leases: Arc<dyn Leases>,
        host: Arc<dyn LeaseHost>,
        clock: Arc<dyn Clock>,
        options: LeaseOptions,
        boot_nonce: u64,
    ) -> Self {
        let metrics = Arc::new(LeaseMetrics::default());
        let inbox = Arc::new(Mailbox::default());
        leases.observe_leases(Arc::new(Sink(Arc::clone(&inbox))));
        let core = Mutex::new(Core::new(options, Arc::clone(&metrics), boot_nonce));
        let shared = Arc::new(Shared { inbox, leases, host, clock, core, peers: Mutex::default(), metrics });
        let door: Weak<Shared> = Arc::downgrade(&shared);
        shared.host.attach(door);
        Self { shared, thread: Arc::default() }
    }

    /// A keeper with its thread. [`LeaseKeeper::stop`] ends it.
    ///
    /// # Errors
    /// [`NodeError::Stopped`]: the system refuses a thread.
    pub fn start(
        leases: Arc<dyn Leases>,
        host: Arc<dyn LeaseHost>,
        clock: Arc<dyn Clock>,
        options: LeaseOptions,
    ) -> Result<Self, NodeError> {
        let nonce = boot_nonce(&*clock);
        let keeper = Self::new(leases, host, clock, options, nonce);
        let shared = Arc::clone(&keeper.shared);
        let thread = std::thread::Builder::new().name("harmony-lease".to_owned()).spawn(move || {
            let mut wait = Duration::ZERO;
            loop {
                let inbox = match shared.inbox.take(Some(wait)) {
                    Taken::Content(inbox) => inbox,
                    Taken::TimedOut => Inbox::default(),
                    Taken::Closed => return,
                };
                match shared.turn(inbox) {
                    Ok(next) => wait = next.saturating_sub(shared.clock.now()),
                    // The node meets the same damage, and says so; leases live longer meanwhile.
                    Err(error) => {
                        tracing::error!(%error, "the leases cannot be read");
                        shared.clock.sleep(options.beat);
                    }
                }
            }
        });
        match thread {
            Ok(thread) => *keeper.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread),
            Err(error) => {
                tracing::error!(%error, "the system refuses a thread");
                return Err(NodeError::Stopped);
            }
        }
        Ok(keeper)
    }

    /// Renews a lease: all of its TTL is left from now on. The waiter hears the TTL, seconds, or 0 when there is no such
    /// lease (any more). Never blocks. What the TTL promises counts from before the call. A follower asks the leader.
    ///
    /// Errors: [`NodeError::NotLeader`]: nobody is known to lead; [`NodeError::LeaderChanged`], [`NodeError::Timeout`]: it
    /// may have been renewed; [`NodeError::Busy`]. After the first two, asking again is right.
    pub fn renew(&self, id: LeaseId, waiter: Waiter<i64>) {
        let refused = self.shared.inbox.put(|inbox| {
            if CALLS_WAITING_MAX <= inbox.renewals.len() {
                return Some(waiter);
            }
            inbox.renewals.push((id, waiter));
            None
        });
        if let Some(Some(waiter)) = refused {
            waiter.complete(Err(NodeError::Busy));
        }
    }

    /// What is left of a lease; `None` when there is no such lease. Errors as [`LeaseKeeper::renew`].
    pub fn time_to_live(&self, id: LeaseId, waiter: Waiter<Option<TimeToLive>>) {
        let refused = self.shared.inbox.put(|inbox| {
            if CALLS_WAITING_MAX <= inbox.questions.len() {
                return Some(waiter);
            }
            inbox.questions.push((id, waiter));
            None
        });
        if let Some(Some(waiter)) = refused {
            waiter.complete(Err(NodeError::Busy));
        }
    }

    /// One turn: looks at the time, at who leads, and at what came in. Returns when the next one is due, if nothing comes in
    /// before. The keeper's thread does this.
    ///
    /// # Errors
    /// The leases cannot be read.
    pub fn step(&self) -> Result<Duration, StorageError> {
        self.shared.turn(self.shared.inbox.try_take().unwrap_or_default())
    }

    /// Whether something came in for [`LeaseKeeper::step`].
    #[must_use]
    pub fn step_due(&self) -> bool {
        self.shared.inbox.is_filled()
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> Arc<LeaseMetrics> {
        Arc::clone(&self.shared.metrics)
    }

    #[cfg(test)]
    pub(super) fn deadline_count(&self) -> usize {
        self.shared.core.lock().unwrap_or_else(PoisonError::into_inner).deadline_count()
    }

    /// Ends the keeper: who waits for an answer hears [`NodeError::Stopped`].
    pub fn stop(&self) {
        self.shared.inbox.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
        drop(self.shared.inbox.take(Some(Duration::ZERO)));
        self.shared.core.lock().unwrap_or_else(PoisonError::into_inner).stop();
    }
}

impl fmt::Debug for LeaseKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseKeeper({:?})", self.shared.metrics)
    }
}

impl Shared {
    /// Keeps for a later turn what would be missed: the ends of the keeper's own calls, each of which comes once. Which
    /// leases there are is read then; who asks about them may ask again.
    fn put_back(&self, inbox: Inbox) {
        let Inbox {
            mut renewals,
            mut questions,
            peers_renewals,
            peers_questions,
            answers,
            unreachable,
            confirmed,
            proposed,
            ..
        } = inbox;
        renewals.extend(peers_renewals);
        questions.extend(peers_questions);
        self.inbox.put(|waiting| {
            waiting.replaced = true;
            waiting.changes = Vec::new();
            waiting.answers.splice(..0, answers);
            waiting.unreachable.extend(unreachable);
            waiting.confirmed.splice(..0, confirmed);
            waiting.proposed.splice(..0, proposed);
        });
        let mut refused = ReplyBatch::default();
        renewals.into_iter().for_each(|(_, waiter)| refused.push(waiter, Err(NodeError::Busy)));
        let mut unanswered = ReplyBatch::default();
        questions.into_iter().for_each(|(_, waiter)| unanswered.push(waiter, Err(NodeError::Busy)));
    }

    fn turn(&self, inbox: Inbox) -> Result<Duration, StorageError> {
        // Before the changes that came since: they are applied to it once more, which ends at the same leases.
        let all = match inbox.replaced.then(|| self.leases.leases()).transpose() {
            Ok(all) => all,
            Err(error) => {
                self.put_back(inbox);
                return Err(error);
            }
        };
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        let actions = core.turn(self.clock.now(), self.host.leadership(), all, inbox);
        drop(core);
        let Actions { confirm, proposals, sends, renewals, questions, next } = actions;
        let sink = || Arc::new(Sink(Arc::clone(&self.inbox)));
        if let Some(round) = confirm {
            self.host.confirm(Waiter::new(sink() as _, round));
        }
        let proposed: Arc<dyn ReplySink<Outcome>> = sink();
        for Proposal { token, term, command } in proposals {
            self.host.propose(term, command.encode_to_bytes(), Waiter::new(Arc::clone(&proposed), token));
        }
        for (to, messages) in sends {
            self.host.send(to, messages);
        }
        // Dropping them wakes each sink once.
        drop((renewals, questions));
        Ok(next)
    }
}

impl LeasePeers for Shared {
    fn receive(&self, from: NodeId, message: PeerMessage) {
        match message {
            PeerMessage::LeaseCall { request, id, renew } => {
                let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
                let answers = peers
                    .entry(from)
                    .or_insert_with(|| Arc::new(PeerAnswers { host: Arc::clone(&self.host), peer: from }));
                let answers = Arc::clone(answers);
                drop(peers);
                let asker = if renew {
                    Asker::Renewal(Waiter::new(answers as _, request))
                } else {
                    Asker::Question(Waiter::new(answers as _, request))
                };
                let refused = self.inbox.put(|inbox| {
                    if CALLS_WAITING_MAX <= inbox.peers_renewals.len() + inbox.peers_questions.len() {
                        return Some(asker);
                    }
                    match asker {
                        Asker::Renewal(waiter) => inbox.peers_renewals.push((id, waiter)),
                        Asker::Question(waiter) => inbox.peers_questions.push((id, waiter)),
                    }
                    None
                });
                match refused.flatten() {
                    None => {}
                    Some(Asker::Renewal(waiter)) => waiter.complete(Err(NodeError::Busy)),
                    Some(Asker::Question(waiter)) => waiter.complete(Err(NodeError::Busy)),
                }
            }
            PeerMessage::LeaseReply { request, result } => {
                self.inbox.put(|inbox| {
                    // No more calls than these are under way.
                    if inbox.answers.len() < CALLS_WAITING_MAX {
                        inbox.answers.push((from, request, result));
                    }
                });
            }
            _ => {}
        }
    }

    fn unreachable(&self, peer: NodeId) {
        self.inbox.put(|inbox| {
            if !inbox.unreachable.contains(&peer) {
                inbox.unreachable.push(peer);
            }
        });
    }
}
