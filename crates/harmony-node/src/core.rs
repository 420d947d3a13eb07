//! The node as a plain function: events in, actions out. No thread, no clock, no socket.
//!
//! The production driver and a simulator run the same core: both call [`Core::turn`] with what happened, carry out the
//! [`Actions`] and report back with further events. The only thing that a turn does itself is [`Storage::save`], which
//! works in memory: raft must be able to read what it was told is in the log.

mod changes;
pub mod event;
mod failover;
mod handover;
mod hashes;
mod installing;
pub mod members;
mod proposals;
mod reads;
mod reconfig;
mod repair;
mod space;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use harmony_types::config::NodeConfig;
use harmony_types::limits;
use harmony_types::raft::{Progress, RaftState};
use harmony_types::transport::ForwardError;
use harmony_types::{
    LogIndex, Message, MessageType, NodeError, NodeId, PeerMessage, RaftNode as _, Snapshot, Status, Storage,
    Term,
};

use self::changes::{Asker, Changes};
use self::event::{Actions, Inbox, ReplyTo, Report};
use self::failover::Failover;
use self::handover::Handover;
use self::hashes::Hashes;
pub(crate) use self::proposals::Proposals;
pub(crate) use self::proposals::first_request;
use self::proposals::{Parked, end};
use self::reads::Reads;
use self::repair::Corrupt;
use self::space::Space;
use crate::bounds;
use crate::metrics::NodeMetrics;
use crate::raft::{RaftGroup, View};
use crate::ready_handler::ReadyHandler;
use crate::waiter::Waiter;

/// One member: raft, what waits on it, and the order between them.
pub struct Core<S: Storage> {
    config: NodeConfig,
    storage: Arc<S>,
    raft: Arc<RaftGroup<S>>,
    handler: ReadyHandler<S>,
    proposals: Proposals<S::Outcome>,
    changes: Changes,
    reads: Reads,
    space: Space,
    failover: Failover,
    handover: Handover,
    hashes: Hashes,
    /// This member's state is to be replaced.
    corrupt: Option<Corrupt>,
    /// The tick at which a peer was heard last.
    heard: BTreeMap<NodeId, u64>,
    view: View,
    applied: LogIndex,
    /// Content of the snapshot that raft was told of and has not asked for yet.
    incoming: Option<Snapshot>,
    /// What came while a snapshot was being installed.
    backlog: Inbox<S::Outcome>,
    /// Messages that must not be stepped before the disk has caught up.
    deferred: Vec<Message>,
    /// The only voter needs nobody's vote: it need not wait for an election timeout when it starts.
    campaign: bool,
    /// Who said last that it does not lead, in which term as seen from here, at which tick.
    refused: Option<(NodeId, Term, u64)>,
    ticks: u64,
    request_ticks: u64,
    metrics: Arc<NodeMetrics>,
}

impl<S: Storage> Core<S> {
    /// A member that starts from what its storage holds. `boot_nonce` must differ from life to life.
    ///
    /// # Errors
    /// [`NodeError::Storage`] when the storage's parts do not fit together; [`NodeError::InvalidMessage`] when the
    /// configuration has mistakes; [`NodeError::Removed`] when the storage knows that this member was removed.
    pub fn new(
        config: NodeConfig,
        storage: Arc<S>,
        boot_nonce: u64,
        metrics: Arc<NodeMetrics>,
    ) -> Result<Self, NodeError> {
        config.validate().map_err(|error| NodeError::InvalidMessage { reason: error.to_string() })?;
        if storage.membership().removed.contains(&config.id) {
            return Err(NodeError::Removed { id: config.id });
        }
        let raft = Arc::new(RaftGroup::open(&config, Arc::clone(&storage))?);
        let handler = ReadyHandler::new(Arc::clone(&storage), &raft);
        let heartbeat_ms = config.heartbeat_interval_ms;
        let reads = Reads::new(config.id, boot_nonce, bounds::READ_RETRY_MS / heartbeat_ms);
        let view = raft.view();
        let request_ms = bounds::REQUEST_TIMEOUT_MS + 2 * config.election_timeout_ms;
        let mut hashes = Hashes::default();
        hashes.replaced(storage.state_hash());
        let mut core = Self {
            reads,
            handler,
            space: Space::default(),
            view,
            campaign: view.single_voter,
            applied: storage.applied().index,
            incoming: None,
            backlog: Inbox::default(),
            deferred: Vec::new(),
            proposals: Proposals::new(boot_nonce),
            changes: Changes::new(first_request(boot_nonce)),
            failover: Failover::default(),
            handover: Handover::default(),
            hashes,
            corrupt: None,
            heard: BTreeMap::new(),
            refused: None,
            ticks: 0,
            request_ticks: request_ms.div_ceil(heartbeat_ms),
            config,
            storage,
            raft,
            metrics,
        };
        core.look_at_start();
        Ok(core)
    }

    /// Takes election timeouts from `seed` from here on: the same events then have the same consequences. For simulations;
    /// members with one seed would ask for votes at the same time.
    pub fn pin_election_timeouts(&self, seed: u64) {
        self.raft.pin_election_timeouts(seed);
    }

    /// The node's view of itself and the cluster.
    #[must_use]
    pub fn status(&self) -> Status {
        self.raft.status()
    }

    /// A shared look at raft's state for other threads.
    pub(crate) fn raft(&self) -> &Arc<RaftGroup<S>> {
        &self.raft
    }

    /// Why raft could not read its log, when it could not: the reason behind its panic.
    #[must_use]
    pub fn log_failure(&self) -> Option<String> {
        self.raft.failure()
    }

    /// Takes in what happened and says what is to be done.
    ///
    /// # Errors
    /// This machine failed, or lost what it had acknowledged: the node must stop and nothing of the turn be carried out.
    pub fn turn(&mut self, inbox: Inbox<S::Outcome>) -> Result<Actions<S::Outcome>, NodeError> {
        let mut actions = Actions::default();
        let mut inbox = inbox;
        if self.handler.is_refused() && !self.save_again(&mut inbox, &mut actions)? {
            return Ok(actions);
        }
        if self.handler.is_installing() {
            let Some(index) = inbox.installed.take() else {
                // Raft hears nothing now, but clients wait in line as always: bounded, and refused past the bound.
                self.line_up(&mut inbox, &mut actions);
                // Their time goes on, too.
                if std::mem::take(&mut inbox.tick) {
                    self.beat(&mut actions);
                }
                self.stay_in_touch(&mut inbox, &mut actions);
                self.backlog.absorb(inbox);
                return Ok(actions);
            };
            self.handler.installed(&self.raft, index, &mut self.proposals, &mut actions)?;
            self.applied = self.applied.max(index);
            self.metrics.snapshots_installed.add(1);
            let mut backlog = std::mem::take(&mut self.backlog);
            backlog.absorb(inbox);
            // They are of the state that is gone.
            (backlog.hashes, backlog.damaged) = (Vec::new(), None);
            self.state_replaced();
            if self.handler.is_refused() {
                self.backlog = backlog;
                return Ok(actions);
            }
            inbox = backlog;
        }
        self.take_in(inbox, &mut actions)?;
        self.work(&mut actions)?;
        self.proposals.release(self.applied, &mut actions);
        self.notice_removal(&mut actions);
        self.release_changes(&mut actions);
        self.answer_changes(&mut actions);
        // Those that wait go on once the state is replaced, or their time is over.
        if !self.is_corrupt() {
            let released = self.reads.release(self.applied, &mut actions);
            self.metrics.reads.add(released);
        }
        self.keep_snapshots(&mut actions);
        self.publish();
        Ok(actions)
    }

    /// Tries again to save what the full disk refused, once a beat; false when it is refused still. Raft hears nothing before: of
    /// what peers say, the parts that may be lost are.
    fn save_again(
        &mut self,
        inbox: &mut Inbox<S::Outcome>,
        actions: &mut Actions<S::Outcome>,
    ) -> Result<bool, NodeError> {
        if inbox.tick {
            self.space.look(&*self.storage);
            self.handler.save_again(&self.raft, &mut self.proposals, actions)?;
        }
        if !self.handler.is_refused() {
            let mut backlog = std::mem::take(&mut self.backlog);
            backlog.absorb(std::mem::take(inbox));
            *inbox = backlog;
            return Ok(true);
        }
        self.line_up(inbox, actions);
        if std::mem::take(&mut inbox.tick) {
            self.beat(actions);
        }
        inbox.peers.retain(|(_, message)| !matches!(message, PeerMessage::Raft(_)));
        self.backlog.absorb(std::mem::take(inbox));
        self.publish();
        Ok(false)
    }

    /// Steps everything in, in the order that lets raft make the most of it.
    fn take_in(
        &mut self,
        mut inbox: Inbox<S::Outcome>,
        actions: &mut Actions<S::Outcome>,
    ) -> Result<(), NodeError> {
        if let Some(number) = inbox.persisted {
            self.handler.persisted(&self.raft, number, actions);
        }
        if let Some(index) = inbox.applied {
            self.applied = self.applied.max(index);
            self.raft.applied(index);
        }
        for (index, hash) in std::mem::take(&mut inbox.hashes) {
            self.hashes.note(index, hash);
        }
        if let Some(reason) = inbox.damaged.take() {
            self.found_damaged(&reason, false);
        }
        let mut gone = Vec::new();
        for report in std::mem::take(&mut inbox.reports) {
            match report {
                Report::SnapshotSent(peer, arrived) => self.raft.report_snapshot(peer, arrived),
                Report::Unreachable(peer) => {
                    self.raft.report_unreachable(peer);
                    self.proposals.forwards_lost(|to| to == peer, actions);
                    self.changes_lost(|to| to == peer, actions);
                }
                Report::Gone(peer) => gone.push(peer),
            }
        }
        for message in std::mem::take(&mut self.deferred) {
            self.step(message)?;
        }
        for (from, message) in std::mem::take(&mut inbox.peers) {
            self.metrics.messages_received.add(1);
            self.heard.insert(from, self.ticks);
            match message {
                PeerMessage::Raft(message) => {
                    self.keep_ignored(&message);
                    self.step(*message)?;
                }
                PeerMessage::Propose { request, data } => self.proposed_by_peer(from, request, data, actions),
                PeerMessage::ProposeReply { request, result } => {
                    if result == Err(ForwardError::NotLeader) {
                        self.refused = Some((from, self.raft.view().term, self.ticks));
                    }
                    self.proposals.answered(from, request, result, actions);
                }
                PeerMessage::Change { request, changes } => {
                    self.change_asked(changes, Asker::Peer { node: from, request }, actions);
                }
                PeerMessage::ChangeReply { request, result } => {
                    self.change_answered(from, request, result, actions);
                }
                PeerMessage::Acknowledged { held } => self.acknowledged(held, actions)?,
                PeerMessage::Hashes { hashes, corrupt } => self.hashes.told(from, hashes, corrupt),
                PeerMessage::Diverged { index, hash } => self.told_diverged(from, index, hash),
                // The keeper's: whoever has one takes them before they come here.
                PeerMessage::LeaseCall { .. } | PeerMessage::LeaseReply { .. } => {}
            }
        }
        // Behind what they sent before: a last heartbeat would call the election off.
        for peer in gone {
            self.gone(peer)?;
        }
        // One at a time, and none whose announcement would have to wait: it would come without its content. The leader
        // sends another.
        if let Some((announcement, snapshot)) = inbox.snapshot.take()
            && self.incoming.is_none()
            && !self.must_drain()
            && self.covers_log(&snapshot)
        {
            self.incoming = Some(snapshot);
            self.step(announcement)?;
        }
        // What was lost with the old leadership ends before anything new waits at its places in the log.
        self.look(actions);
        self.line_up(&mut inbox, actions);
        for (term, data, waiter) in std::mem::take(&mut inbox.in_term) {
            self.propose_in_term(term, data, waiter, actions);
        }
        for (changes, waiter) in inbox.changes {
            self.change_asked(changes, Asker::Local(waiter), actions);
        }
        for waiter in inbox.leaving {
            self.leave(waiter);
        }
        match inbox.transfer {
            Some(to) if self.raft.view().state == RaftState::Leader => self.plan_transfer(to),
            // The leader hears of it from raft.
            to => self.transfer_to(to),
        }
        if inbox.campaign
            && !self.must_drain()
            && !self.must_not_lead()
            && let Err(error) = self.raft.campaign()
        {
            tracing::warn!(%error, "no election");
        }
        if inbox.tick {
            self.tick(actions);
        }
        Ok(())
    }

    /// Puts this node's clients where they wait for a leader.
    fn line_up(&mut self, inbox: &mut Inbox<S::Outcome>, actions: &mut Actions<S::Outcome>) {
        if self.is_corrupt() {
            self.refuse_as_corrupt(inbox, actions);
            return;
        }
        let deadline = self.ticks + self.request_ticks;
        for waiter in std::mem::take(&mut inbox.reads) {
            self.reads.add(waiter, deadline, actions);
        }
        let proposals = std::mem::take(&mut inbox.proposals);
        self.space.expect(&*self.storage, proposals.len(), inbox.proposals_bytes as u64);
        inbox.proposals_bytes = 0;
        self.metrics.proposals.add(proposals.len() as u64);
        for (data, waiter) in proposals {
            self.proposed(Parked { data, reply: ReplyTo::Local(waiter), deadline }, actions);
        }
    }

    /// Lets raft work until it has nothing to say.
    fn work(&mut self, actions: &mut Actions<S::Outcome>) -> Result<(), NodeError> {
        if self.campaign && !self.must_drain() && !self.must_not_lead() {
            // The log behind the applied index may have brought other voters: then one asks them, in its time.
            self.campaign = self.raft.view().single_voter
                && self.raft.campaign().is_ok()
                && self.raft.view().state != RaftState::Leader;
        }
        loop {
            self.look(actions);
            self.submit_changes(actions);
            self.hand_over(actions);
            self.submit_proposals(actions);
            self.submit_reads();
            if self.view.snapshot_pending && !(self.handler.is_drained() && self.is_idle()) {
                return Ok(());
            }
            let Some(ready) = self.raft.ready() else { break };
            for state in &ready.read_states {
                self.reads.confirmed(state);
            }
            let (incoming, proposals) = (&mut self.incoming, &mut self.proposals);
            self.handler.process_ready(&self.raft, ready, incoming, proposals, actions)?;
            if self.handler.is_installing() || self.handler.is_refused() {
                return Ok(());
            }
        }
        // Raft did not want it: it had the entries, or heard of a newer leader.
        self.incoming = None;
        Ok(())
    }

    /// Everything handed to the state machine is applied, or never will be.
    fn is_idle(&self) -> bool {
        self.takes_no_entries() || self.handler.handed_out() <= self.applied
    }

    /// The only voter wins an election by itself, inside a tick or a step; raft panics when the log before it is not on
    /// disk then.
    fn must_drain(&self) -> bool {
        if self.handler.is_drained() {
            return false;
        }
        let view = self.raft.view();
        view.single_voter && view.state != RaftState::Leader
    }

    fn step(&mut self, message: Message) -> Result<(), NodeError> {
        if self.must_drain() {
            if self.deferred.len() < bounds::PEER_MESSAGES_WAITING_MAX {
                self.deferred.push(message);
            }
            return Ok(());
        }
        let waiting = self.handler.handed_out().0.saturating_sub(self.applied.0);
        if self.space.drops(&*self.storage, &message, waiting) {
            return Ok(());
        }
        let (from, kind) = (message.from, message.message_type);
        if kind == MessageType::TimeoutNow && self.must_not_lead() {
            return Ok(());
        }
        match self.raft.step(message) {
            Ok(()) => Ok(()),
            Err(NodeError::InvalidMessage { reason }) => {
                self.metrics.messages_invalid.add(1);
                tracing::warn!(%from, ?kind, reason, "message dropped");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn tick(&mut self, actions: &mut Actions<S::Outcome>) {
        self.space.look(&*self.storage);
        if self.must_not_lead() {
            self.raft.tick_without_election();
        } else if !self.must_drain() {
            self.raft.tick();
        }
        self.beat(actions);
        self.leave_full_disk();
        self.campaign_early();
        self.watch_disk();
        self.tend_members();
        self.tell_acknowledged(actions);
        self.look_at_state();
        self.compare_hashes(actions);
        self.repair();
    }

    /// A leader whose disk is nearly full leaves the lead to a member with more room, if there is one.
    fn leave_full_disk(&mut self) {
        let status = || self.raft.status().progress;
        let candidates = || {
            let membership = self.storage.membership();
            let hears = |one: &Progress| {
                one.id != self.config.id && one.recent_active && membership.voters.contains(&one.id)
            };
            status().into_iter().filter(hears).collect()
        };
        let election_ticks = self.config.election_ticks();
        let to = self.space.successor(self.ticks, election_ticks, self.view.state, candidates);
        let Some(to) = to else { return };
        tracing::info!(%to, "the disk is nearly full: leadership is handed over");
        self.plan_transfer(to);
    }

    /// A leader tells all from time to time what each of them has acknowledged.
    fn tell_acknowledged(&self, actions: &mut Actions<S::Outcome>) {
        if self.raft.view().state != RaftState::Leader
            || !self.ticks.is_multiple_of(bounds::ACKNOWLEDGED_TICKS)
        {
            return;
        }
        let status = self.raft.status();
        let committed = |index: LogIndex| index.min(status.commit);
        let held: Vec<(NodeId, LogIndex)> =
            status.progress.iter().map(|one| (one.id, committed(one.matched))).collect();
        for one in status.progress.iter().filter(|one| one.id != self.config.id) {
            actions.send(one.id, PeerMessage::Acknowledged { held: held.clone() });
        }
        actions.acknowledged.extend(held);
    }

    /// A leader told what members have acknowledged: this one, too, and then it must hold it.
    fn acknowledged(
        &self,
        held: Vec<(NodeId, LogIndex)>,
        actions: &mut Actions<S::Outcome>,
    ) -> Result<(), NodeError> {
        let last = self.storage.bounds().last;
        let own = held.iter().find(|(id, index)| *id == self.config.id && last < *index);
        if let Some((id, acknowledged)) = own {
            return Err(NodeError::Forgot { id: *id, acknowledged: *acknowledged, last });
        }
        actions.acknowledged.extend(held);
        Ok(())
    }

    /// Ends what waited too long.
    fn beat(&mut self, actions: &mut Actions<S::Outcome>) {
        self.ticks += 1;
        self.proposals.expire(self.ticks, actions);
        self.expire_changes(actions);
        self.metrics.read_retries.add(self.reads.tick(self.ticks, actions));
    }

    /// Notices a new leader, term or part, and ends or restarts what waited on the old one.
    fn look(&mut self, actions: &mut Actions<S::Outcome>) {
        let before = std::mem::replace(&mut self.view, self.raft.view());
        let view = self.view;
        if (before.leader, before.term, before.state) == (view.leader, view.term, view.state) {
            return;
        }
        if before.state == RaftState::Leader && (view.state != RaftState::Leader || before.term != view.term)
        {
            self.proposals.leadership_lost(actions);
        }
        if (before.leader, before.term) != (view.leader, view.term) {
            let lost = |to| Some(to) != view.leader || before.term != view.term;
            let deadline = self.ticks + self.config.election_ticks() / 2;
            self.proposals.forwards_doubted(lost, deadline);
            self.changes_lost(lost, actions);
            self.metrics.read_retries.add(self.reads.restart());
        }
        if before.leader != view.leader {
            self.metrics.leader_changes.add(1);
            match view.leader {
                Some(leader) => tracing::info!(node = %self.config.id, %leader, term = %view.term, "leader"),
                None => tracing::info!(node = %self.config.id, term = %view.term, "no leader"),
            }
        }
    }

    /// A proposal arrived: refused at once, or parked until the end of this turn or the next leader.
    fn proposed(&mut self, parked: Parked<S::Outcome>, actions: &mut Actions<S::Outcome>) {
        let (bytes, limit) = (parked.data.len(), self.config.command_bytes_max);
        if limit < bytes {
            let error = NodeError::TooLarge { bytes: bytes as u64, limit: limit as u64 };
            end(actions, parked.reply, error);
        } else if !self.proposals.has_room_for(bytes) || self.lags() {
            end(actions, parked.reply, NodeError::Busy);
        } else if self.handler.is_refused() {
            self.refuse_for_space(parked, actions);
        } else {
            self.proposals.park(parked);
        }
    }

    fn proposed_by_peer(
        &mut self,
        node: NodeId,
        request: u64,
        data: Bytes,
        actions: &mut Actions<S::Outcome>,
    ) {
        let reply = ReplyTo::Peer { node, request };
        // A corrupt leader's outcomes may be wrong: another one is about to lead.
        let takes = !self.is_handing_over() && !self.is_corrupt();
        if self.raft.view().state == RaftState::Leader && takes {
            let deadline = self.ticks + self.request_ticks;
            self.proposed(Parked { data, reply, deadline }, actions);
        } else {
            end(actions, reply, NodeError::NotLeader { leader: None });
        }
    }

    fn refuse_for_space(&self, parked: Parked<S::Outcome>, actions: &mut Actions<S::Outcome>) {
        self.metrics.proposals_no_space.add(1);
        end(actions, parked.reply, NodeError::NoSpace);
    }

    /// The state machine is too far behind what is committed to take more.
    fn lags(&self) -> bool {
        limits::APPLY_LAG_MAX < self.handler.handed_out().0.saturating_sub(self.applied.0)
    }

    /// Brings parked proposals to the leader: this node's log, or another member.
    fn submit_proposals(&mut self, actions: &mut Actions<S::Outcome>) {
        while self.proposals.parked_count() != 0 {
            if self.view.state == RaftState::Leader {
                if self.is_handing_over() {
                    self.proposals.return_to_peers(actions);
                    return;
                }
                if self.is_corrupt() {
                    return;
                }
                let parked = self.proposals.take_parked(bounds::PROPOSE_BYTES_MAX);
                self.propose(parked, actions);
                continue;
            }
            let Some(leader) = self.view.leader.filter(|leader| *leader != self.config.id) else { return };
            // It would say the same again until it, or this node, hears of the next leader.
            if self.refused == Some((leader, self.view.term, self.ticks)) || self.leader_is_gone() {
                return;
            }
            for Parked { data, reply, deadline } in self.proposals.take_parked(usize::MAX) {
                match reply {
                    ReplyTo::Local(waiter) => self.proposals.forward(leader, data, waiter, deadline, actions),
                    // Passed on once already: its own node knows better who leads.
                    reply => end(actions, reply, NodeError::NotLeader { leader: Some(leader) }),
                }
            }
        }
    }

    fn propose(&mut self, parked: Vec<Parked<S::Outcome>>, actions: &mut Actions<S::Outcome>) {
        let mut admitted = parked;
        for refused in admitted.extract_if(.., |parked| !self.space.admits(&*self.storage, &parked.data)) {
            self.refuse_for_space(refused, actions);
        }
        if admitted.is_empty() {
            return;
        }
        let (data, replies): (Vec<Bytes>, Vec<_>) =
            admitted.into_iter().map(|parked| (parked.data, parked.reply)).unzip();
        match self.raft.propose(data) {
            Ok((LogIndex(first), term)) => {
                for (index, reply) in (first..).zip(replies) {
                    self.proposals.pend(LogIndex(index), term, reply);
                }
            }
            Err(error) => {
                for reply in replies {
                    let error = match &error {
                        NodeError::NotLeader { leader } => NodeError::NotLeader { leader: *leader },
                        NodeError::Stopped => NodeError::Stopped,
                        _ => NodeError::Busy,
                    };
                    end(actions, reply, error);
                }
            }
        }
    }

    /// Proposes at once or not at all: never to another leader, or in another term.
    fn propose_in_term(
        &mut self,
        term: Term,
        data: Bytes,
        waiter: Waiter<S::Outcome>,
        actions: &mut Actions<S::Outcome>,
    ) {
        let view = self.raft.view();
        let reply = ReplyTo::Local(waiter);
        if view.state != RaftState::Leader || view.term != term {
            end(actions, reply, NodeError::NotLeader { leader: view.leader });
        } else if self.is_handing_over() || self.lags() || self.is_corrupt() {
            end(actions, reply, NodeError::Busy);
        } else {
            self.propose(vec![Parked { data, reply, deadline: 0 }], actions);
        }
    }

    /// Asks once for all reads that wait, when somebody can answer: a leader only after it committed in its own term.
    fn submit_reads(&mut self) {
        let leads = self.view.state == RaftState::Leader;
        if self.view.leader.is_none() || (leads && !self.view.committed_in_term) {
            return;
        }
        while let Some(context) = self.reads.open_round(self.ticks) {
            self.metrics.read_rounds.add(1);
            self.raft.read_index(context);
        }
    }

    fn publish(&self) {
        let metrics = &self.metrics;
        metrics.term.set(self.view.term.0);
        metrics.leader.set(NodeId::or_zero(self.view.leader));
        metrics.learner.set(u64::from(self.view.is_learner));
        metrics.committed_index.set(self.view.commit.0);
        metrics.last_index.set(self.view.last.0);
        metrics.disk_space.set(self.space.seen() as u64);
        metrics.proposals_pending.set(self.proposals.pending_count() as u64);
    }
}
