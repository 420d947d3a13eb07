//! The handle on a running node.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use harmony_types::config::NodeConfig;
use harmony_types::raft::RaftState;
use harmony_types::transport::PeerSink;
use harmony_types::{
    Clock, ConfChange, LogIndex, Membership, NodeError, NodeId, PeerMessage, RaftNode as _, Status, Storage,
    Term, Transport,
};

use crate::bounds;
use crate::core::Core;
use crate::core::event::Event;
use crate::disk_watch::DiskWatch;
use crate::driver::{self, Shared, Sink};
use crate::lease::{Leadership, LeasePeers};
use crate::metrics::NodeMetrics;
use crate::waiter::{ReplySink, Waiter};
use crate::witness::Witness;

/// A running member of a cluster. A cheap handle: clones speak of the same node.
///
/// Call [`Node::stop`] when done: dropping handles leaves the node running.
pub struct Node<S: Storage> {
    shared: Arc<Shared<S>>,
}

impl<S: Storage> Clone for Node<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<S: Storage> fmt::Debug for Node<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.shared.config.id)
    }
}

impl<S: Storage> Node<S> {
    /// Starts a member from what its storage holds. A new cluster's storage was given its members by
    /// [`Storage::bootstrap`] before.
    ///
    /// The transport must be given [`Node::peer_sink`] to hear from peers. A node that is its cluster's only voter leads
    /// at once, without waiting for an election timeout.
    ///
    /// # Errors
    /// [`NodeError::InvalidMessage`] names every mistake in the configuration; [`NodeError::Storage`] says which parts
    /// of the storage do not fit together; a thread that the system refuses is [`NodeError::Stopped`].
    pub fn start(
        config: NodeConfig,
        storage: Arc<S>,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, NodeError> {
        Self::start_with(config, storage, transport, clock, Witness::in_memory())
    }

    /// [`Node::start`] for a node that remembers, beyond its life, what its peers were known to hold: see [`Witness`].
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn start_with(
        config: NodeConfig,
        storage: Arc<S>,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
        witness: Witness,
    ) -> Result<Self, NodeError> {
        let metrics = Arc::new(NodeMetrics::default());
        let boot_nonce = boot_nonce(&*clock);
        let core = Core::new(config.clone(), Arc::clone(&storage), boot_nonce, Arc::clone(&metrics))?;
        witness.incarnations().begin(config.id, boot_nonce)?;
        let shared = driver::share(config, &core, storage, transport, clock, metrics, witness);
        driver::start(&shared, core)?;
        Ok(Self { shared })
    }

    pub(crate) fn of(shared: Arc<Shared<S>>) -> Self {
        Self { shared }
    }

    /// Proposes a command. Never blocks; the waiter ends exactly once, with the outcome that applying the command had
    /// here, or with an error of which [`NodeError::may_have_been_applied`] says what it means.
    ///
    /// A follower passes it on to the leader. While no leader is known it waits, up to 5 s and two election timeouts.
    pub fn propose(&self, data: Bytes, waiter: Waiter<S::Outcome>) {
        let refused = self.shared.inbox.put(|inbox| {
            if !inbox.has_room_for(data.len()) {
                return Some(waiter);
            }
            inbox.push(Event::Propose { data, waiter });
            None
        });
        if let Some(Some(waiter)) = refused {
            self.shared.metrics.proposals_failed.add(1);
            waiter.complete(Err(NodeError::Busy));
        }
    }

    /// As [`Node::propose`], for what this node decided as the leader of `term`: refused when it does not lead in that term
    /// any more, and never passed on. When it was proposed, the entry is of that term: a later leader has it before its
    /// first own entry, or never.
    pub fn propose_in_term(&self, term: Term, data: Bytes, waiter: Waiter<S::Outcome>) {
        self.shared.inbox.put(|inbox| inbox.push(Event::ProposeInTerm { term, data, waiter }));
    }

    /// Who leads, and whether it is this node, in which term: as raft sees it at this moment.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        let view = self.shared.raft.view();
        let own_term = (view.state == RaftState::Leader).then_some(view.term);
        Leadership { leader: view.leader, own_term }
    }

    /// Ends the waiter once a read of this node's storage is linearizable: it sees everything that was acknowledged
    /// anywhere before this call. Never blocks, works on followers, and all who wait share one round to a quorum.
    pub fn read_index(&self, waiter: Waiter<()>) {
        let refused = self.shared.inbox.put(|inbox| {
            if bounds::READS_WAITING_MAX <= inbox.reads_waiting() {
                return Some(waiter);
            }
            inbox.push(Event::Read { waiter });
            None
        });
        if let Some(Some(waiter)) = refused {
            waiter.complete(Err(NodeError::Busy));
        }
    }

    /// Changes the membership, by one member or by several in one step; the waiter hears the membership after it. Several
    /// are made as a joint configuration (Raft thesis, 4.3), which needs a majority of the old voters and of the new ones,
    /// and ends by itself.
    ///
    /// A follower passes it on to the leader. A leader that is to be removed hands over first. Refusals are
    /// [`NodeError::Membership`]; [`NodeError::NoSuccessor`] when nobody could take over.
    pub fn change_members(&self, changes: Vec<ConfChange>, waiter: Waiter<Membership>) {
        self.shared.inbox.put(|inbox| inbox.push(Event::ConfChange { changes, waiter }));
    }

    /// [`Node::propose`] for a caller that has a thread to wait with.
    ///
    /// # Errors
    /// As the waiter's; [`NodeError::Timeout`] after `timeout`.
    pub fn propose_blocking(&self, data: Bytes, timeout: Duration) -> Result<S::Outcome, NodeError> {
        Blocking::wait(timeout, |waiter| self.propose(data, waiter))
    }

    /// [`Node::read_index`] for a caller that has a thread to wait with.
    ///
    /// # Errors
    /// As the waiter's; [`NodeError::Timeout`] after `timeout`.
    pub fn read_index_blocking(&self, timeout: Duration) -> Result<(), NodeError> {
        Blocking::wait(timeout, |waiter| self.read_index(waiter))
    }

    /// [`Node::change_members`] for a caller that has a thread to wait with.
    ///
    /// # Errors
    /// As the waiter's; [`NodeError::Timeout`] after `timeout`.
    pub fn change_members_blocking(
        &self,
        changes: Vec<ConfChange>,
        timeout: Duration,
    ) -> Result<Membership, NodeError> {
        Blocking::wait(timeout, |waiter| self.change_members(changes, waiter))
    }

    /// Lets another member lead, if this one does, and waits until it has taken over: before [`Node::stop`], so that
    /// nobody waits for an election.
    ///
    /// # Errors
    /// [`NodeError::NoSuccessor`] when no other voter is heard of; [`NodeError::Timeout`] when it did not come to it within
    /// two election timeouts, or `timeout`.
    pub fn hand_over(&self, timeout: Duration) -> Result<(), NodeError> {
        Blocking::wait(timeout, |waiter| {
            self.shared.inbox.put(|inbox| inbox.push(Event::Leave { waiter }));
        })
    }

    /// Has what other members say to this member's lease keeper taken to it.
    pub(crate) fn attach_leases(&self, door: Weak<dyn LeasePeers>) {
        *self.shared.leases.lock().unwrap_or_else(PoisonError::into_inner) = Some(door);
    }

    /// Sends to another member's lease keeper.
    pub(crate) fn send(&self, to: NodeId, messages: Vec<PeerMessage>) {
        self.shared.metrics.messages_sent.add(messages.len() as u64);
        self.shared.transport.send(to, messages);
    }

    /// The node's view of itself and the cluster.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut status = self.shared.raft.status();
        status.applied = self.shared.storage.applied().index;
        status
    }

    /// Who leads, if known. Cheap.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        NodeId::new(self.shared.metrics.leader.get())
    }

    /// Whether this node believes that it leads. Cheap.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.leader() == Some(self.shared.config.id)
    }

    /// The newest term that this node has seen. Cheap.
    #[must_use]
    pub fn term(&self) -> Term {
        Term(self.shared.metrics.term.get())
    }

    /// Whether this member is a learner: it holds what the others hold, and does not vote. Cheap.
    #[must_use]
    pub fn is_learner(&self) -> bool {
        self.shared.metrics.learner.get() == 1
    }

    /// Which member it is.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.shared.config.id
    }

    /// Its options.
    #[must_use]
    pub fn config(&self) -> &NodeConfig {
        &self.shared.config
    }

    /// Asks the leader to hand leadership to `to`. Watch [`Node::leader`] for the result: the transfer is given up after
    /// an election timeout.
    pub fn transfer_leader(&self, to: NodeId) {
        self.shared.inbox.put(|inbox| inbox.push(Event::Transfer { to }));
    }

    /// The voter to whom this leader would best hand over: the one that holds most of the log. `None` when it does not
    /// lead or is alone.
    #[must_use]
    pub fn best_successor(&self) -> Option<NodeId> {
        let status = self.shared.raft.status();
        let membership = self.shared.storage.membership();
        let candidates = status.progress.iter().filter(|one| {
            status.state == RaftState::Leader
                && one.id != self.shared.config.id
                && one.recent_active
                && membership.voters.contains(&one.id)
        });
        candidates.max_by_key(|one| one.matched).map(|one| one.id)
    }

    /// The highest committed index that a member is known to hold: whoever comes back with less is refused.
    #[must_use]
    pub fn acknowledged(&self, member: NodeId) -> LogIndex {
        self.shared.witness.held(member)
    }

    /// What the node keeps.
    #[must_use]
    pub fn storage(&self) -> &Arc<S> {
        &self.shared.storage
    }

    /// Where a transport hands over what arrives for this node. It keeps no node alive.
    #[must_use]
    pub fn peer_sink(&self) -> Arc<dyn PeerSink> {
        Arc::new(Sink::new(&self.shared))
    }

    /// What the node counts.
    #[must_use]
    pub fn metrics(&self) -> Arc<NodeMetrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// Watches for a disk that hangs: a node on one acknowledges nothing, and does not stop by itself.
    #[must_use]
    pub fn watch_disk(&self) -> DiskWatch {
        DiskWatch::new(Arc::clone(&self.shared.disk_calls))
    }

    /// Why the node stopped by itself, if it did: its disk or its state machine failed, or it was removed.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.shared.failure()
    }

    /// Waits until the node has stopped and says why, when it stopped by itself.
    #[must_use]
    pub fn wait_stopped(&self) -> Option<String> {
        self.shared.wait_stopped()
    }

    /// Ends the node: every waiter ends, what is committed and handed to the state machine is applied, all threads and
    /// the transport stop. The storage stays open; its owner closes it.
    pub fn stop(&self) {
        self.shared.stop();
    }
}

/// Differs from life to life as long as no two begin in the same nanosecond of the same wall clock second.
pub(crate) fn boot_nonce(clock: &dyn Clock) -> u64 {
    let nanos = u64::from(clock.now().subsec_nanos());
    clock.unix_ms().wrapping_mul(1_000_000_007) ^ nanos ^ (u64::from(std::process::id()) << 32)
}

/// A waiter that a thread waits on.
struct Blocking<T> {
    result: Mutex<Option<Result<T, NodeError>>>,
    done: Condvar,
}

impl<T: Send + 'static> Blocking<T> {
    fn wait(timeout: Duration, call: impl FnOnce(Waiter<T>)) -> Result<T, NodeError> {
        let blocking = Arc::new(Self { result: Mutex::new(None), done: Condvar::new() });
        call(Waiter::new(Arc::clone(&blocking) as _, 0));
        let result = blocking.result.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut result, _) = blocking
            .done
            .wait_timeout_while(result, timeout, |result| result.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        result.take().unwrap_or(Err(NodeError::Timeout))
    }
}

impl<T: Send> ReplySink<T> for Blocking<T> {
    fn complete(&self, batch: Vec<(u64, Result<T, NodeError>)>) {
        let mut result = self.result.lock().unwrap_or_else(PoisonError::into_inner);
        *result = batch.into_iter().next().map(|(_, result)| result);
        self.done.notify_one();
    }
}
