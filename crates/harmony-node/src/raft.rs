//! The `raft` crate behind the contract's [`RaftNode`]. Only this module and those below it name its types.
//!
//! [`RaftGroup`] adds to the trait what the core must see to keep the rules of order: see [`View`].
#![allow(
    clippy::field_reassign_with_default,
    reason = "raft's generated types carry caches beside their fields"
)]

mod convert;
mod logger;
mod members;
mod pinned;
mod storage;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::raft::{Config, RawNode, SnapshotStatus, StateRole};
use bytes::Bytes;
use harmony_types::config::NodeConfig;
use harmony_types::limits;
use harmony_types::raft::{Progress, RaftState};
use harmony_types::{
    ConfChange, Entry, EntryType, HardState, LogIndex, Membership, MembershipError, Message, MessageType,
    NodeError, NodeId, RaftNode, Ready, Status, Storage, Term,
};
use raft_proto::eraftpb;

pub(crate) use self::members::{decode_changes, encode_changes};
use self::pinned::Pinned;
use self::storage::LogStore;
pub(crate) use self::storage::is_conf_change;
use crate::bounds;

/// What the core looks at between two calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) state: RaftState,
    pub(crate) leader: Option<NodeId>,
    pub(crate) term: Term,
    pub(crate) commit: LogIndex,
    pub(crate) last: LogIndex,
    /// The leader has committed an entry of its own term: before, it does not know what is committed.
    pub(crate) committed_in_term: bool,
    /// Leadership is being handed over: no proposal is taken.
    pub(crate) transferring: bool,
    /// This node is the only voter.
    pub(crate) single_voter: bool,
    /// A received snapshot waits for the next ready state.
    pub(crate) snapshot_pending: bool,
    /// This node may become leader.
    pub(crate) promotable: bool,
    /// This node does not vote, and is a member.
    pub(crate) is_learner: bool,
    /// It follows a leader that it heard within the last election timeout, and ignores requests for votes.
    pub(crate) leased: bool,
}

/// One member's Raft state machine.
pub(crate) struct RaftGroup<S: Storage> {
    id: NodeId,
    inner: Mutex<Inner<S>>,
    failure: Arc<Mutex<Option<String>>>,
}

struct Inner<S: Storage> {
    raw: RawNode<LogStore<S>>,
    /// The ready state taken last, until `advance`.
    taken: Option<::raft::Ready>,
    stopped: bool,
    /// In place of chance; see [`pinned`].
    pinned: Option<Pinned>,
}

impl<S: Storage> RaftGroup<S> {
    /// Starts from what `storage` holds.
    ///
    /// # Errors
    /// The configuration has mistakes, or the storage's parts do not fit together.
    pub(crate) fn open(config: &NodeConfig, storage: Arc<S>) -> Result<Self, NodeError> {
        let failure = Arc::new(Mutex::new(None));
        let applied = storage.applied().index;
        let store = LogStore::open(storage, Arc::clone(&failure))?;
        let raw = RawNode::new(&raft_config(config, applied), store, &logger::logger(config.id.to_string()))
            .map_err(|error| NodeError::InvalidMessage { reason: format!("raft configuration: {error}") })?;
        let inner = Inner { raw, taken: None, stopped: false, pinned: None };
        Ok(Self { id: config.id, inner: Mutex::new(inner), failure })
    }

    /// Takes election timeouts from `seed` from here on, not from the thread's generator.
    pub(crate) fn pin_election_timeouts(&self, seed: u64) {
        self.lock().pinned = Some(Pinned::new(seed));
    }

    /// The hard state that it started from: the disk's, with the commit index brought up to the applied index.
    pub(crate) fn start_state(&self) -> HardState {
        self.lock().raw.store().start()
    }

    pub(crate) fn view(&self) -> View {
        let inner = self.lock();
        let raft = &inner.raw.raft;
        View {
            state: state_from_raft(raft.state),
            leader: NodeId::new(raft.leader_id),
            term: Term(raft.term),
            commit: LogIndex(raft.raft_log.committed),
            last: LogIndex(raft.raft_log.last_index()),
            committed_in_term: raft.state == StateRole::Leader && raft.commit_to_current_term(),
            transferring: raft.lead_transferee.is_some(),
            single_voter: raft.prs().is_singleton() && raft.prs().conf().voters().contains(self.id.get()),
            snapshot_pending: inner.raw.snap().is_some_and(|snapshot| !snapshot.is_empty()),
            promotable: raft.promotable(),
            is_learner: raft.prs().conf().learners().contains(&raft.id),
            leased: raft.leader_id != ::raft::INVALID_ID && raft.election_elapsed < raft.election_timeout(),
        }
    }

    /// Lets this follower vote for somebody else, as if it had not heard of its leader for an election timeout. Raft itself
    /// asks for votes `ticks` later, and not at a time of chance, unless the leader is heard.
    pub(crate) fn expire_lease(&self, ticks: u64) {
        let inner = &mut *self.lock();
        let raft = &mut inner.raw.raft;
        let timeout = raft.election_timeout();
        if raft.state == StateRole::Follower {
            raft.election_elapsed = raft.election_elapsed.max(timeout);
            let ticks = usize::try_from(ticks).unwrap_or(usize::MAX);
            raft.set_randomized_election_timeout(timeout + ticks.min(timeout - 1));
            if let Some(pinned) = &mut inner.pinned {
                pinned.expire(&inner.raw.raft);
            }
        }
    }

    /// A beat for a follower that must not ask for votes. It gives its own as others do: a leader that is not heard any more
    /// does not keep it from that.
    pub(crate) fn tick_without_election(&self) {
        let mut inner = self.lock();
        if inner.stopped {
            return;
        }
        let raft = &mut inner.raw.raft;
        let timeout = raft.election_timeout();
        raft.set_randomized_election_timeout(2 * timeout - 1);
        // One beat more is not the last.
        raft.election_elapsed = raft.election_elapsed.min((2 * timeout).saturating_sub(3));
        inner.raw.tick();
    }

    /// How many voters come before this one, by id, when the leader is out.
    pub(crate) fn succession_rank(&self) -> u64 {
        let inner = self.lock();
        let raft = &inner.raw.raft;
        let before = |id: &u64| *id < self.id.get() && *id != raft.leader_id;
        raft.prs().conf().voters().ids().iter().filter(before).count() as u64
    }

    /// The other voter that holds most of the log, among those that `is_there` says are there; the lowest id of several.
    pub(crate) fn successor(&self, is_there: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let inner = self.lock();
        let prs = inner.raw.raft.prs();
        let mut best: Option<(u64, NodeId)> = None;
        for (id, progress) in prs.iter() {
            let candidate = NodeId::new(*id).filter(|id| *id != self.id && is_there(*id));
            let Some(id) = candidate.filter(|id| prs.conf().voters().contains(id.get())) else { continue };
            let better = best.is_none_or(|(matched, known)| {
                matched < progress.matched || (matched == progress.matched && id < known)
            });
            if better {
                best = Some((progress.matched, id));
            }
        }
        best.map(|(_, id)| id)
    }

    /// This node takes part, in the configuration that raft goes by.
    pub(crate) fn is_member(&self) -> bool {
        self.lock().raw.raft.prs().get(self.id.get()).is_some()
    }

    /// Asks the leader for a snapshot of this member's last index or a later one. Until it arrives no entry is taken. Nothing
    /// happens without a leader, or before an entry of its term is here.
    pub(crate) fn request_snapshot(&self) {
        let mut inner = self.lock();
        if !inner.stopped
            && let Err(error) = inner.raw.request_snapshot()
        {
            tracing::debug!(node = %self.id, %error, "no snapshot was asked for");
        }
    }

    /// The least index of the snapshot that was asked for and has not come yet.
    pub(crate) fn requested_snapshot(&self) -> Option<LogIndex> {
        let least = self.lock().raw.raft.pending_request_snapshot;
        (least != ::raft::INVALID_INDEX).then_some(LogIndex(least))
    }

    /// There are members that do not vote.
    pub(crate) fn has_learners(&self) -> bool {
        !self.lock().raw.raft.prs().conf().learners().is_empty()
    }

    /// A joint configuration that was to end by itself, and nothing under way that ends it: the leader that would have
    /// ended it led no more when it was applied.
    pub(crate) fn is_stuck_joint(&self) -> bool {
        let inner = self.lock();
        let raft = &inner.raw.raft;
        let state = raft.prs().conf().to_conf_state();
        state.auto_leave && !state.voters_outgoing.is_empty() && !raft.has_pending_conf()
    }

    /// Proposes the end of a joint configuration.
    ///
    /// # Errors
    /// As [`RaftNode::propose`].
    pub(crate) fn leave_joint(&self) -> Result<(LogIndex, Term), NodeError> {
        let mut entry = eraftpb::Entry::default();
        entry.entry_type = eraftpb::EntryType::EntryConfChangeV2;
        self.propose_entries(vec![entry])
    }

    /// Why raft could not read its log, when it could not.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes in a committed membership change: the voter sets after it, and what was changed. No voter sets when the
    /// change is impossible now: every member finds the same, and nothing changes.
    ///
    /// # Errors
    /// [`NodeError::InvalidMessage`]: the entry makes no sense; this release must not skip it.
    pub(crate) fn apply_conf_change(
        &self,
        entry: &Entry,
    ) -> Result<(Option<Membership>, Vec<ConfChange>), NodeError> {
        if entry.entry_type != EntryType::ConfChangeV2 {
            let reason = format!("entry {} has an unknown form of membership change", entry.index);
            return Err(NodeError::InvalidMessage { reason });
        }
        let (raft, changes) = members::decode_changes(entry.data.clone()).map_err(|reason| {
            NodeError::InvalidMessage { reason: format!("membership change {}: {reason}", entry.index) }
        })?;
        let result = self.lock().raw.apply_conf_change(&raft);
        match result {
            Ok(state) => {
                self.step_aside();
                Ok((Some(convert::conf_state_from_raft(&state)), changes))
            }
            Err(error) => {
                tracing::warn!(index = %entry.index, %error, "membership change is impossible and was skipped");
                Ok((None, changes))
            }
        }
    }

    /// A leader that is no voter any more lets another one lead: raft would let it go on without counting itself. Its own
    /// core hands over before it proposes such a change; this is for one that an earlier leader proposed.
    fn step_aside(&self) {
        let view = self.view();
        if view.state != RaftState::Leader || view.promotable {
            return;
        }
        if let Some(to) = self.successor(|_| true) {
            tracing::info!(node = %self.id, %to, "this leader is no voter any more: it hands over");
            self.lock().raw.transfer_leader(to.get());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<S>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Proposes entries, in one step.
    fn propose_entries(&self, entries: Vec<eraftpb::Entry>) -> Result<(LogIndex, Term), NodeError> {
        let mut inner = self.lock();
        if inner.stopped {
            return Err(NodeError::Stopped);
        }
        let raft = &mut inner.raw.raft;
        // Raft itself would pass a follower's proposal on and forget it; we pass them on where we can hear the answer.
        if raft.state != StateRole::Leader {
            return Err(NodeError::NotLeader { leader: NodeId::new(raft.leader_id) });
        }
        let place = (LogIndex(raft.raft_log.last_index() + 1), Term(raft.term));
        let mut message = eraftpb::Message::default();
        message.set_msg_type(eraftpb::MessageType::MsgPropose);
        message.from = self.id.get();
        message.set_entries(entries.into());
        match raft.step(message) {
            Ok(()) => Ok(place),
            Err(_) if raft.prs().get(self.id.get()).is_none() => Err(NodeError::NotLeader { leader: None }),
            Err(_) => Err(NodeError::Busy),
        }
    }
}

impl<S: Storage> RaftNode for RaftGroup<S> {
    fn propose(&self, data: Vec<Bytes>) -> Result<(LogIndex, Term), NodeError> {
        assert!(!data.is_empty(), "raft panics on a proposal of nothing");
        let entries = data.into_iter().map(|data| {
            let mut entry = eraftpb::Entry::default();
            entry.data = data;
            entry
        });
        self.propose_entries(entries.collect())
    }

    fn propose_conf_change(&self, changes: &[ConfChange]) -> Result<(LogIndex, Term), NodeError> {
        // No change at all would mean "leave the joint configuration".
        if changes.is_empty() {
            return Err(MembershipError::Impossible.into());
        }
        let pending = {
            let inner = self.lock();
            let raft = &inner.raw.raft;
            let joint = !raft.prs().conf().to_conf_state().voters_outgoing.is_empty();
            // Raft would put an empty entry in its place, and say nothing. Two changes of different terms could overlap
            // without a common quorum.
            let early = raft.state == StateRole::Leader && !raft.commit_to_current_term();
            raft.has_pending_conf() || joint || early
        };
        if pending {
            return Err(MembershipError::Pending.into());
        }
        let mut entry = eraftpb::Entry::default();
        entry.entry_type = eraftpb::EntryType::EntryConfChangeV2;
        entry.data = members::encode_changes(changes);
        self.propose_entries(vec![entry])
    }

    fn step(&self, message: Message) -> Result<(), NodeError> {
        let mut inner = self.lock();
        if inner.stopped {
            return Err(NodeError::Stopped);
        }
        let raft = &inner.raw.raft;
        check_message(self.id, raft.term, raft.raft_log.last_index(), &message)?;
        match inner.raw.step(convert::message_to_raft(message)) {
            // An answer from a member that was removed meanwhile, or a read index that cannot be served now.
            Ok(()) | Err(::raft::Error::StepPeerNotFound | ::raft::Error::ProposalDropped) => Ok(()),
            Err(error) => Err(NodeError::InvalidMessage { reason: error.to_string() }),
        }
    }

    fn tick(&self) {
        let inner = &mut *self.lock();
        if !inner.stopped {
            if let Some(pinned) = &inner.pinned {
                pinned.set(&mut inner.raw.raft);
            }
            inner.raw.tick();
        }
    }

    fn campaign(&self) -> Result<(), NodeError> {
        let mut inner = self.lock();
        if inner.stopped {
            return Err(NodeError::Stopped);
        }
        if !inner.raw.raft.promotable() {
            return Err(NodeError::InvalidMessage { reason: "this member may not lead".to_owned() });
        }
        inner.raw.campaign().map_err(|error| NodeError::InvalidMessage { reason: error.to_string() })
    }

    fn read_index(&self, context: Bytes) {
        let mut inner = self.lock();
        if !inner.stopped {
            inner.raw.read_index(context.into());
        }
    }

    fn transfer_leader(&self, to: NodeId) -> Result<(), NodeError> {
        let mut inner = self.lock();
        if inner.stopped {
            return Err(NodeError::Stopped);
        }
        if !inner.raw.raft.prs().conf().voters().contains(to.get()) {
            return Err(NodeError::BadTransferee { to });
        }
        inner.raw.transfer_leader(to.get());
        Ok(())
    }

    fn status(&self) -> Status {
        let inner = self.lock();
        let raft = &inner.raw.raft;
        let mut progress: Vec<Progress> = Vec::new();
        if raft.state == StateRole::Leader {
            for (id, one) in raft.prs().iter() {
                if let Some(id) = NodeId::new(*id) {
                    let recent_active = one.recent_active || id == self.id;
                    progress.push(Progress { id, matched: LogIndex(one.matched), recent_active });
                }
            }
            progress.sort_unstable_by_key(|one| one.id);
        }
        Status {
            id: self.id,
            state: state_from_raft(raft.state),
            leader: NodeId::new(raft.leader_id),
            term: Term(raft.term),
            commit: LogIndex(raft.raft_log.committed),
            applied: LogIndex(raft.raft_log.applied),
            last: LogIndex(raft.raft_log.last_index()),
            progress,
            is_learner: raft.prs().conf().learners().contains(&self.id.get()),
        }
    }

    fn lead(&self) -> Option<NodeId> {
        NodeId::new(self.lock().raw.raft.leader_id)
    }

    fn ready(&self) -> Option<Ready> {
        let mut inner = self.lock();
        if inner.stopped || !inner.raw.has_ready() {
            return None;
        }
        assert!(inner.taken.is_none(), "a ready state was taken before the last one was advanced");
        let mut raft = inner.raw.ready();
        let mut ready = Ready {
            number: raft.number(),
            hard_state: raft.hs().map(convert::hard_state_from_raft),
            // Raft keeps its own copy until `advance`; the payloads are shared.
            entries: raft.take_entries().into_iter().map(convert::entry_from_raft).collect(),
            snapshot: None,
            committed_entries: raft
                .take_committed_entries()
                .into_iter()
                .map(convert::entry_from_raft)
                .collect(),
            messages: messages_from_raft(raft.take_messages()),
            persisted_messages: messages_from_raft(raft.take_persisted_messages()),
            read_states: raft.take_read_states().into_iter().map(convert::read_state_from_raft).collect(),
            must_sync: raft.must_sync(),
        };
        if !raft.snapshot().is_empty() {
            let meta = convert::snapshot_meta_from_raft(raft.snapshot());
            ready.snapshot = Some(harmony_types::Snapshot { meta, ..Default::default() });
        }
        inner.taken = Some(raft);
        Some(ready)
    }

    fn advance(&self) {
        let mut inner = self.lock();
        if let Some(taken) = inner.taken.take() {
            inner.raw.advance_append_async(taken);
        }
    }

    fn persisted(&self, number: u64) {
        let mut inner = self.lock();
        if !inner.stopped {
            inner.raw.on_persist_ready(number);
        }
    }

    fn applied(&self, index: LogIndex) {
        let mut inner = self.lock();
        // A snapshot's installation may have gone past a report that was still under way.
        if !inner.stopped && inner.raw.raft.raft_log.applied < index.0 {
            inner.raw.advance_apply_to(index.0);
        }
    }

    fn report_unreachable(&self, peer: NodeId) {
        let mut inner = self.lock();
        if !inner.stopped {
            inner.raw.report_unreachable(peer.get());
        }
    }

    fn report_snapshot(&self, peer: NodeId, arrived: bool) {
        let mut inner = self.lock();
        if !inner.stopped {
            let status = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
            inner.raw.report_snapshot(peer.get(), status);
        }
    }

    fn stop(&self) {
        self.lock().stopped = true;
    }
}

fn raft_config(config: &NodeConfig, applied: LogIndex) -> Config {
    let election_tick = usize::try_from(config.election_ticks()).unwrap_or(usize::MAX / 4);
    Config {
        id: config.id.get(),
        election_tick,
        heartbeat_tick: 1,
        applied: applied.0,
        max_size_per_msg: limits::APPEND_BYTES_MAX,
        max_inflight_msgs: limits::INFLIGHT_MESSAGES_MAX,
        check_quorum: true,
        pre_vote: true,
        batch_append: true,
        max_uncommitted_size: config.uncommitted_bytes_max.max(limits::APPEND_BYTES_MAX),
        max_committed_size_per_ready: bounds::APPLY_BATCH_BYTES_MAX,
        ..Config::default()
    }
}

/// Refuses messages that would make raft panic or believe nonsense. A transport has checked numbers and lengths.
fn check_message(me: NodeId, term: u64, last: u64, message: &Message) -> Result<(), NodeError> {
    let invalid = |reason: String| Err(NodeError::InvalidMessage { reason });
    if message.to != me {
        return invalid(format!("a message to {} arrived at {me}", message.to));
    }
    // A transfer is passed on in the name of the member that is to lead.
    if message.from == me && message.message_type != MessageType::TransferLeader {
        return invalid("a message from this node itself".to_owned());
    }
    if bounds::NUMBER_MAX <= largest_number(message) {
        return invalid("a term or an index that no cluster reaches".to_owned());
    }
    match message.message_type {
        // Raft would take the term of an index outside of its log for 0, too, and find that they match.
        MessageType::Append if message.log_term == Term(0) && message.index != LogIndex::ZERO => {
            return invalid(format!("an append behind {} of no term", message.index));
        }
        // A follower says what it has of this node's log.
        MessageType::AppendResponse if Term(term) == message.term && last < message.index.0 => {
            return invalid(format!("an answer for {}, but the log ends at {last}", message.index));
        }
        MessageType::Append => {
            let mut previous = (message.index, message.log_term);
            for entry in &message.entries {
                if previous.0.0.checked_add(1) != Some(entry.index.0) || entry.term < previous.1 {
                    return invalid(format!("entry {} does not follow {}", entry.index, previous.0));
                }
                previous = (entry.index, entry.term);
            }
            if message.term < previous.1 {
                return invalid(format!("entry {} is of a term above the sender's", previous.0));
            }
        }
        // A leader tells a follower to commit only what the follower said it has.
        MessageType::Heartbeat if Term(term) <= message.term && last < message.commit.0 => {
            return Err(NodeError::Storage(harmony_types::StorageError::InvalidIndex {
                index: message.commit,
                reason: format!(
                    "the leader knows that this member held it, but its log ends at {last}: acknowledged entries \
                     were lost here; remove this member and add it again under a new id"
                ),
            }));
        }
        MessageType::ReadIndex | MessageType::ReadIndexResponse if message.entries.len() != 1 => {
            return invalid(format!("a read index with {} contexts", message.entries.len()));
        }
        MessageType::Snapshot => match &message.snapshot {
            None => return invalid("a snapshot message without a snapshot".to_owned()),
            Some(meta) => {
                if meta.index == LogIndex::ZERO || meta.membership.voters.is_empty() {
                    return invalid("a snapshot of nothing".to_owned());
                }
                if let Err(reason) = meta.membership.check() {
                    return invalid(reason);
                }
            }
        },
        _ => {}
    }
    Ok(())
}

/// The largest term or index in a message.
fn largest_number(message: &Message) -> u64 {
    let entries = message.entries.iter().map(|entry| entry.term.0.max(entry.index.0));
    let snapshot = message.snapshot.iter().map(|meta| meta.term.0.max(meta.index.0));
    [
        message.term.0,
        message.log_term.0,
        message.commit_term.0,
        message.index.0,
        message.commit.0,
        message.request_snapshot.0,
        message.reject_hint.0,
    ]
    .into_iter()
    .chain(entries)
    .chain(snapshot)
    .fold(0, u64::max)
}

fn messages_from_raft(messages: Vec<eraftpb::Message>) -> Vec<Message> {
    messages.into_iter().filter_map(convert::message_from_raft).collect()
}

fn state_from_raft(state: StateRole) -> RaftState {
    match state {
        StateRole::Follower => RaftState::Follower,
        StateRole::Candidate => RaftState::Candidate,
        StateRole::Leader => RaftState::Leader,
        StateRole::PreCandidate => RaftState::PreCandidate,
    }
}
