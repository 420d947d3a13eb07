//! The threads that carry out what the core decides, and what they share.
//!
//! | thread | waits for | does |
//! | --- | --- | --- |
//! | `raft` | mailbox, next tick | turns of the core; hands messages to the transport |
//! | `wal` | numbers to persist | one sync for all that wait |
//! | `apply` | committed entries | state machine; answers clients |
//! | `snapshot` | lagging members | creates snapshots |
//! | `checkpoint` | time, applied bytes | makes the state machine durable; releases the log |
//! | `witness` | what members acknowledged, once a second | writes it down |
//!
//! `stepped.rs` does the same without threads, when its caller says so.
//!
//! Hops of a put between threads, on a leader: network → raft → wal (the peers beside it) → raft → apply → network.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use harmony_types::config::NodeConfig;
use harmony_types::planted::{self, Bug};
use harmony_types::transport::{Held, PeerRefusal, PeerSink};
use harmony_types::{
    Clock, LogIndex, Member, Membership, Message, NodeError, NodeId, PeerMessage, RaftNode as _, Snapshot,
    Storage, StorageError, Transport,
};

use crate::core::Core;
use crate::core::event::{Actions, ApplyJob, Event, Inbox};
use crate::disk_watch::DiskCalls;
use crate::lease::LeasePeers;
use crate::metrics::NodeMetrics;
use crate::queue::{Mailbox, Taken};
use crate::raft::RaftGroup;
use crate::retention::{Limits, Retention};
use crate::witness::Witness;
use crate::{applier, checkpointer, persist, witness};

/// What the threads of one node share.
pub(crate) struct Shared<S: Storage> {
    pub(crate) config: NodeConfig,
    pub(crate) storage: Arc<S>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<NodeMetrics>,
    pub(crate) raft: Arc<RaftGroup<S>>,
    pub(crate) inbox: Mailbox<Inbox<S::Outcome>>,
    /// The highest number to persist.
    pub(crate) persist: Mailbox<Option<u64>>,
    pub(crate) apply: Mailbox<Vec<ApplyJob<S::Outcome>>>,
    pub(crate) snapshots: Mailbox<Vec<Message>>,
    /// Filled when enough was applied to make it durable before time.
    pub(crate) checkpoint: Mailbox<()>,
    /// Filled when there is something to save of what members acknowledged.
    pub(crate) witnessed: Mailbox<()>,
    /// How far the state machine was when the node started.
    pub(crate) applied_at_start: LogIndex,
    /// Then there was no state to begin with.
    pub(crate) lost_at_start: bool,
    /// How much of the log is kept.
    pub(crate) retention: Retention,
    /// What members are known to hold.
    pub(crate) witness: Witness,
    /// Which calls of the log are under way.
    pub(crate) disk_calls: Arc<DiskCalls>,
    /// The lease keeper beside the node, if there is one.
    pub(crate) leases: Mutex<Option<Weak<dyn LeasePeers>>>,
    end: Mutex<End>,
    ended: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct End {
    stopped: bool,
    failure: Option<String>,
}

/// What the threads of one node work with, before there are any.
pub(crate) fn share<S: Storage>(
    config: NodeConfig,
    core: &Core<S>,
    storage: Arc<S>,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    metrics: Arc<NodeMetrics>,
    witness: Witness,
) -> Arc<Shared<S>> {
    transport.set_peers(&peers(config.id, &storage.membership()));
    let applied_at_start = storage.applied().index;
    metrics.applied_index.set(applied_at_start.0);
    let limits = Limits {
        entries: config.log_keep_entries,
        bytes: config.log_keep_bytes,
        held_bytes: config.log_hold_bytes_max,
    };
    Arc::new(Shared {
        raft: Arc::clone(core.raft()),
        config,
        storage,
        transport,
        clock,
        metrics,
        inbox: Mailbox::default(),
        persist: Mailbox::default(),
        apply: Mailbox::default(),
        snapshots: Mailbox::default(),
        checkpoint: Mailbox::default(),
        witnessed: Mailbox::default(),
        applied_at_start,
        lost_at_start: core.takes_no_entries(),
        retention: Retention::new(limits),
        witness,
        disk_calls: Arc::default(),
        leases: Mutex::default(),
        end: Mutex::default(),
        ended: Condvar::new(),
        threads: Mutex::default(),
    })
}

/// Starts the threads.
pub(crate) fn start<S: Storage>(shared: &Arc<Shared<S>>, core: Core<S>) -> Result<(), NodeError> {
    let result = [
        spawn(shared, "harmony-wal", persist::run, |_| {}),
        spawn(shared, "harmony-apply", applier::run, |shared| drop(shared.apply.take(None))),
        spawn(shared, "harmony-snapshot", send_snapshots, |_| {}),
        spawn(shared, "harmony-checkpoint", checkpointer::run, |_| {}),
        spawn(shared, "harmony-witness", witness::run, |_| {}),
        spawn(
            shared,
            "harmony-raft",
            move |shared| run(shared, core),
            |shared| drop(shared.inbox.take(None)),
        ),
    ]
    .into_iter()
    .collect::<Result<(), NodeError>>();
    if let Err(error) = result {
        shared.stop();
        return Err(error);
    }
    Ok(())
}

/// Runs `work` on a thread of its own. Its error, or a panic, is the end of the node; `drain` empties its mailbox then.
fn spawn<S: Storage>(
    shared: &Arc<Shared<S>>,
    name: &str,
    work: impl FnOnce(&Shared<S>) -> Result<(), NodeError> + Send + 'static,
    drain: fn(&Shared<S>),
) -> Result<(), NodeError> {
    let own = Arc::clone(shared);
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        match catch_unwind(AssertUnwindSafe(|| work(&own))) {
            // Stopping is no failure, wherever a thread noticed it.
            Ok(Ok(()) | Err(NodeError::Stopped)) => {}
            Ok(Err(error)) => own.fail(error.to_string()),
            Err(panic) => {
                own.fail(own.raft.failure().unwrap_or_else(|| reason_of(&*panic)));
            }
        }
        // Whoever still waits in a mailbox that nobody reads any more is told so.
        own.close();
        drain(&own);
    });
    match thread {
        Ok(thread) => {
            shared.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
            Ok(())
        }
        Err(error) => {
            tracing::error!(name, %error, "the system refuses a thread");
            Err(NodeError::Stopped)
        }
    }
}

/// What a panic said.
pub(crate) fn reason_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panic").to_owned()
}

/// The raft thread.
fn run<S: Storage>(shared: &Shared<S>, mut core: Core<S>) -> Result<(), NodeError> {
    let beat = Duration::from_millis(shared.config.heartbeat_interval_ms);
    let mut next_beat = shared.clock.now() + beat;
    let mut turn = |inbox| shared.disk_calls.turns.during(|| core.turn(inbox));
    carry_out(shared, turn(Inbox::default())?)?;
    loop {
        let wait = next_beat.saturating_sub(shared.clock.now());
        let mut inbox = match shared.inbox.take(Some(wait)) {
            Taken::Content(inbox) => inbox,
            Taken::TimedOut => Inbox::default(),
            Taken::Closed => return Ok(()),
        };
        // One beat after a stall, however long: a run of them would start an election.
        let now = shared.clock.now();
        if next_beat <= now {
            if next_beat + beat <= now && shared.metrics.leader.get() == shared.config.id.get() {
                shared.metrics.late_beats.add(1);
            }
            inbox.push(Event::Tick);
            next_beat = now + beat;
        }
        carry_out(shared, turn(inbox)?)?;
    }
}

/// Hands what a turn wants done to those who do it.
pub(crate) fn carry_out<S: Storage>(
    shared: &Shared<S>,
    actions: Actions<S::Outcome>,
) -> Result<(), NodeError> {
    let Actions { persist, sends, snapshots, apply, replies, reads, changes, acknowledged, removed } =
        actions;
    // One that is alone has nobody to tell, and writes it with its checkpoints.
    if shared.witness.note(&acknowledged) && 1 < acknowledged.len() {
        shared.witnessed.put(|()| ());
    }
    if let Some(number) = persist {
        shared.persist.put(|highest| *highest = Some(number));
    }
    for (to, messages) in sends {
        shared.metrics.messages_sent.add(messages.len() as u64);
        shared.transport.send(to, messages);
    }
    if !apply.is_empty() {
        shared.apply.put(|jobs| jobs.extend(apply));
    }
    for announcement in &snapshots {
        let index = announcement.snapshot.as_ref().map_or(LogIndex::ZERO, |meta| meta.index);
        shared.retention.asked(announcement.to, index);
    }
    if !snapshots.is_empty() {
        shared.snapshots.put(|waiting| waiting.extend(snapshots));
    }
    shared.metrics.proposals_failed.add(replies.errors());
    // Dropping them wakes each sink once.
    drop((replies, reads, changes));
    if removed { Err(NodeError::Removed { id: shared.config.id }) } else { Ok(()) }
}

/// The snapshot thread: content for members that lag too far behind.
fn send_snapshots<S: Storage>(shared: &Shared<S>) -> Result<(), NodeError> {
    harmony_wal::work_in_background();
    loop {
        let announcements = match shared.snapshots.take(None) {
            Taken::Content(announcements) => announcements,
            Taken::TimedOut => continue,
            Taken::Closed => return Ok(()),
        };
        for announcement in announcements {
            send_snapshot(shared, announcement)?;
        }
    }
}

/// Makes one snapshot and gives it to the transport.
pub(crate) fn send_snapshot<S: Storage>(
    shared: &Shared<S>,
    mut announcement: Message,
) -> Result<(), NodeError> {
    let snapshot = match shared.storage.create_snapshot() {
        Ok(snapshot) => snapshot,
        Err(error) if error.is_disk_full() || shared.is_repairable(&error) => {
            tracing::warn!(to = %announcement.to, %error, "no snapshot can be made");
            // Raft asks for it again.
            shared.retention.sent(announcement.to, false, shared.clock.now());
            let (peer, arrived) = (announcement.to, false);
            shared.inbox.put(|inbox| inbox.push(Event::SnapshotSent { peer, arrived }));
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    // Raft asked at the applied index of then; the state machine has only moved on since.
    tracing::info!(to = %announcement.to, index = %snapshot.meta.index, "sending a snapshot");
    announcement.snapshot = Some(Box::new(snapshot.meta.clone()));
    shared.metrics.snapshots_sent.add(1);
    shared.transport.send_snapshot(announcement, snapshot);
    Ok(())
}

/// Whether somebody else votes.
pub(crate) fn has_others(me: NodeId, membership: &Membership) -> bool {
    membership.voters.iter().any(|id| *id != me)
}

/// Everybody but this node.
pub(crate) fn peers(me: NodeId, membership: &Membership) -> Vec<Member> {
    membership.members.values().filter(|member| member.id != me).cloned().collect()
}

impl<S: Storage> Shared<S> {
    /// Ends the node because this machine failed: nothing is acknowledged from here on.
    pub(crate) fn fail(&self, reason: String) {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        // The first one counts: others follow from it.
        if end.failure.is_none() {
            tracing::error!(node = %self.config.id, reason, "the node has failed");
            end.failure = Some(reason);
        }
        drop(end);
        self.close();
    }

    /// Whether this error is about damage of the state machine that a snapshot of another member's can end.
    pub(crate) fn is_repairable(&self, error: &StorageError) -> bool {
        (error.is_damage() || self.storage.damage().is_some())
            && has_others(self.config.id, &self.storage.membership())
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).failure.clone()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).stopped
    }

    pub(crate) fn wait_stopped(&self) -> Option<String> {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let end = self.ended.wait_while(end, |end| !end.stopped).unwrap_or_else(PoisonError::into_inner);
        end.failure.clone()
    }

    /// Lets every thread run dry.
    fn close(&self) {
        self.raft.stop();
        self.inbox.close();
        self.persist.close();
        self.apply.close();
        self.snapshots.close();
        self.checkpoint.close();
        self.witnessed.close();
        self.end.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        self.ended.notify_all();
    }

    /// Ends as a crash does: everybody who waits in a mailbox is told, and nothing is written.
    pub(crate) fn abandon(&self) {
        self.close();
        drop((self.inbox.try_take(), self.apply.try_take()));
    }

    pub(crate) fn stop(&self) {
        self.close();
        self.transport.stop();
        witness::save(self);
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // Its panic, if any, was recorded as the node's failure. A sink may stop the node from one of its threads.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

/// The way in for peers.
pub(crate) struct Sink<S: Storage> {
    shared: Weak<Shared<S>>,
}

impl<S: Storage> Sink<S> {
    pub(crate) fn new(shared: &Arc<Shared<S>>) -> Self {
        Self { shared: Arc::downgrade(shared) }
    }

    fn keeper(&self) -> Option<Arc<dyn LeasePeers>> {
        let shared = self.shared.upgrade()?;
        let keeper = shared.leases.lock().unwrap_or_else(PoisonError::into_inner).clone();
        keeper?.upgrade()
    }

    fn push(&self, event: Event<S::Outcome>) {
        if let Some(shared) = self.shared.upgrade() {
            shared.inbox.put(|inbox| inbox.push(event));
        }
    }
}

impl<S: Storage> PeerSink for Sink<S> {
    fn receive(&self, from: NodeId, message: PeerMessage) {
        match message {
            PeerMessage::LeaseCall { .. } | PeerMessage::LeaseReply { .. } => {
                if let Some(keeper) = self.keeper() {
                    keeper.receive(from, message);
                }
            }
            message => self.push(Event::Peer { from, message }),
        }
    }

    fn receive_snapshot(&self, announcement: Message, snapshot: Snapshot) -> Result<(), NodeError> {
        let shared = self.shared.upgrade().ok_or(NodeError::Stopped)?;
        let taken = shared.inbox.put(|inbox| {
            let room = !inbox.has_snapshot();
            if room {
                inbox.push(Event::Snapshot { announcement, snapshot });
            }
            room
        });
        match taken {
            Some(true) => Ok(()),
            Some(false) => Err(NodeError::Busy),
            None => Err(NodeError::Stopped),
        }
    }

    fn unreachable(&self, peer: NodeId) {
        if let Some(keeper) = self.keeper() {
            keeper.unreachable(peer);
        }
        self.push(Event::Unreachable { peer });
    }

    fn gone(&self, peer: NodeId) {
        self.push(Event::Gone { peer });
    }

    fn held(&self) -> Held {
        let Some(shared) = self.shared.upgrade() else { return Held::default() };
        let incarnation = shared.witness.incarnations().of(shared.config.id);
        Held { last: shared.storage.bounds().last, incarnation }
    }

    fn admit(&self, peer: NodeId, held: Held) -> Result<(), PeerRefusal> {
        let Some(shared) = self.shared.upgrade() else { return Ok(()) };
        if shared.storage.membership().removed.contains(&peer) && !planted::is(Bug::StayWhenRemoved) {
            return Err(PeerRefusal::Removed);
        }
        let acknowledged = shared.witness.held(peer);
        if held.last < acknowledged {
            return Err(PeerRefusal::Forgot { acknowledged });
        }
        // Waits for the disk, once for each peer that was never met.
        match shared.witness.incarnations().meet(peer, held.incarnation) {
            Ok(true) => Ok(()),
            Ok(false) => Err(PeerRefusal::Replaced),
            Err(error) => {
                tracing::warn!(%peer, %error, "a peer is not spoken with: that it was met cannot be noted");
                Err(PeerRefusal::NotNow)
            }
        }
    }

    fn refused(&self, by: NodeId, refusal: PeerRefusal) {
        let Some(shared) = self.shared.upgrade() else { return };
        let (id, last) = (shared.config.id, shared.storage.bounds().last);
        let error = match refusal {
            PeerRefusal::Removed => NodeError::Removed { id },
            PeerRefusal::Forgot { acknowledged } if last < acknowledged => {
                NodeError::Forgot { id, acknowledged, last }
            }
            // It was true when the greeting left, and is no more.
            PeerRefusal::Forgot { .. } => return,
            PeerRefusal::Replaced => NodeError::Replaced { id },
            PeerRefusal::NotNow => return,
        };
        tracing::error!(%by, %error, "a peer does not speak with this member");
        shared.fail(error.to_string());
    }

    fn snapshot_sent(&self, peer: NodeId, arrived: bool) {
        if let Some(shared) = self.shared.upgrade() {
            shared.retention.sent(peer, arrived, shared.clock.now());
        }
        self.push(Event::SnapshotSent { peer, arrived });
    }
}
