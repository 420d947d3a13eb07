//! The apply thread: committed entries into the state machine, outcomes to those who wait.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use harmony_types::transport::{ForwardError, Forwarded};
use harmony_types::{
    ConfChange, Entry, LogIndex, Membership, MembershipError, NodeError, NodeId, PeerMessage, Storage,
    StorageError,
};
use prost::Message as _;

use crate::bounds;
use crate::core::event::{ApplyJob, Event, ReplyTo};
use crate::core::members::membership_after;
use crate::driver::{Shared, peers, reason_of};
use crate::metrics;
use crate::queue::Taken;
use crate::waiter::{ReplyBatch, Waiter};

/// Applies until the node stops, and then what is left.
pub(crate) fn run<S: Storage>(shared: &Shared<S>) -> Result<(), NodeError> {
    let mut applier = Applier::of(shared);
    let mut retry_at = None;
    loop {
        let wait = retry_at.map(|at: Duration| at.saturating_sub(shared.clock.now()));
        let jobs = match shared.apply.take(wait) {
            Taken::Content(jobs) => jobs,
            Taken::TimedOut => Vec::new(),
            Taken::Closed => return Ok(()),
        };
        if retry_at.is_some_and(|at| shared.clock.now() < at) {
            applier.line_up(jobs);
            continue;
        }
        applier.work(shared, jobs)?;
        let pause = Duration::from_millis(bounds::APPLY_RETRY_MS);
        retry_at = applier.waits().then(|| shared.clock.now() + pause);
    }
}

/// Entries of several jobs, to be applied at once.
struct Batch<T> {
    entries: Vec<Entry>,
    replies: Vec<(usize, ReplyTo<T>)>,
    bytes: u64,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), replies: Vec::new(), bytes: 0 }
    }
}

/// The state machine's work, in order.
pub(crate) struct Applier<T> {
    /// What comes behind the batch.
    jobs: VecDeque<ApplyJob<T>>,
    batch: Batch<T>,
    bytes_since_checkpoint: u64,
    /// The disk had no room for the batch, or the snapshot that comes next, and nothing of it was applied.
    waits: bool,
    /// The state is damaged: entries are dropped until a snapshot takes its place.
    is_lost: bool,
}

impl<T: prost::Message + Default + Clone + 'static> Applier<T> {
    /// Before anything is applied.
    pub(crate) fn of<S: Storage<Outcome = T>>(shared: &Shared<S>) -> Self {
        Self {
            jobs: VecDeque::new(),
            batch: Batch::default(),
            bytes_since_checkpoint: 0,
            waits: false,
            is_lost: shared.lost_at_start,
        }
    }

    /// The disk had no room for what comes next: [`Applier::work`] tries again.
    pub(crate) fn waits(&self) -> bool {
        self.waits
    }

    /// Takes in what comes behind the rest.
    pub(crate) fn line_up(&mut self, jobs: Vec<ApplyJob<T>>) {
        self.jobs.extend(jobs);
    }

    /// Works until nothing is left, or the disk has no room. What waited for room is tried together with what came meanwhile: a
    /// compaction may be what makes room.
    pub(crate) fn work<S: Storage<Outcome = T>>(
        &mut self,
        shared: &Shared<S>,
        jobs: Vec<ApplyJob<T>>,
    ) -> Result<(), NodeError> {
        self.line_up(jobs);
        loop {
            self.collect();
            if !self.batch.entries.is_empty() && !self.apply(shared)? {
                return Ok(());
            }
            match self.jobs.pop_front() {
                None => return Ok(()),
                Some(ApplyJob::Entries { replies, .. }) if self.is_lost => end_unknown(shared, replies),
                Some(ApplyJob::Membership { waiter, .. }) if self.is_lost => {
                    if let Some(waiter) = waiter {
                        waiter.complete(Err(NodeError::LeaderChanged));
                    }
                }
                Some(entries @ ApplyJob::Entries { .. }) => self.jobs.push_front(entries),
                Some(ApplyJob::Membership { entry, voter_sets, changes, waiter }) => {
                    if let Err(error) = apply_membership(shared, &entry, voter_sets, changes, waiter) {
                        self.give_up(shared, error)?;
                    }
                }
                Some(ApplyJob::Install { snapshot }) => {
                    let index = snapshot.meta.index;
                    // Raft goes on with the snapshot or not at all: it is kept until there is room for it.
                    let kept = snapshot.again();
                    shared.metrics.snapshot_installing.set(1);
                    let saved = shared.storage.save_snapshot(snapshot);
                    shared.metrics.snapshot_installing.set(0);
                    match (saved, kept) {
                        (Err(error), Some(snapshot)) if error.is_disk_full() => {
                            self.jobs.push_front(ApplyJob::Install { snapshot });
                            self.wait_for_room(shared, &error);
                            return Ok(());
                        }
                        (saved, _) => saved?,
                    }
                    self.go_on(shared);
                    self.is_lost = false;
                    tracing::info!(%index, "snapshot installed");
                    members_changed(shared);
                    shared.metrics.applied_index.set(index.0);
                    shared.inbox.put(|inbox| inbox.push(Event::Installed { index }));
                }
            }
        }
    }

    /// Adds the entries that come next to the batch, as far as it may grow.
    fn collect(&mut self) {
        while self.may_grow()
            && let Some(ApplyJob::Entries { .. }) = self.jobs.front()
            && let Some(ApplyJob::Entries { mut entries, mut replies }) = self.jobs.pop_front()
        {
            let Some(first) = entries.first() else { continue };
            // Members compare hashes where batches end.
            let step_end = first.index.0.next_multiple_of(bounds::HASH_STEP);
            let head = entries.partition_point(|entry| entry.index.0 <= step_end);
            if head < entries.len() {
                let tail = replies.split_off(replies.partition_point(|(slot, _)| *slot < head));
                self.jobs.push_front(ApplyJob::Entries {
                    entries: entries.split_off(head),
                    replies: tail.into_iter().map(|(slot, reply)| (slot - head, reply)).collect(),
                });
            }
            let batch = &mut self.batch;
            let offset = batch.entries.len();
            batch.bytes += entries.iter().map(|entry| entry.data.len() as u64).sum::<u64>();
            batch.entries.extend(entries);
            batch.replies.extend(replies.into_iter().map(|(slot, reply)| (offset + slot, reply)));
        }
    }

    fn may_grow(&self) -> bool {
        if self.is_lost {
            return false;
        }
        if self.waits {
            return self.batch.bytes < bounds::APPLY_WAITING_BYTES_MAX;
        }
        let ends_step =
            self.batch.entries.last().is_some_and(|entry| entry.index.0.is_multiple_of(bounds::HASH_STEP));
        !ends_step
            && self.batch.bytes < bounds::APPLY_BATCH_BYTES_MAX
            && self.batch.entries.len() < bounds::APPLY_BATCH_ENTRIES_MAX
    }

    /// Applies what is collected, answers, and only then tells raft: the clients wait, raft does not. False when the disk has no
    /// room for what the state machine would have to write, and nothing was applied.
    fn apply<S: Storage<Outcome = T>>(&mut self, shared: &Shared<S>) -> Result<bool, NodeError> {
        let began = shared.clock.now();
        let applied = apply(&*shared.storage, &self.batch.entries);
        if metrics::SLOW_APPLY < shared.clock.now().saturating_sub(began) {
            shared.metrics.slow_applies.add(1);
        }
        if let Err(error) = &applied
            && error.is_disk_full()
        {
            self.wait_for_room(shared, error);
            return Ok(false);
        }
        self.go_on(shared);
        let outcomes = match applied {
            Ok(outcomes) => outcomes,
            Err(error) => return self.give_up(shared, error.into()).map(|()| true),
        };
        let batch = std::mem::take(&mut self.batch);
        let (Some(first), Some(last)) = (batch.entries.first(), batch.entries.last()) else {
            return Ok(true);
        };
        let (first, last) = (first.index, last.index);
        assert_eq!(outcomes.len(), batch.entries.len(), "one outcome for each entry");
        shared.retention.grown(&batch.entries);
        shared.metrics.entries_applied.add(batch.entries.len() as u64);
        shared.metrics.apply_batches.add(1);
        answer(shared, outcomes, first, batch.replies);
        report(shared, last);
        self.bytes_since_checkpoint += batch.bytes;
        if bounds::CHECKPOINT_ASK_BYTES <= self.bytes_since_checkpoint {
            self.bytes_since_checkpoint = 0;
            shared.checkpoint.put(|()| ());
        }
        Ok(true)
    }

    fn wait_for_room<S: Storage<Outcome = T>>(&mut self, shared: &Shared<S>, error: &StorageError) {
        if !std::mem::replace(&mut self.waits, true) {
            tracing::warn!(%error, "the state machine waits for room on the disk; reads go on");
            shared.metrics.apply_waits.set(1);
        }
    }

    fn go_on<S: Storage<Outcome = T>>(&mut self, shared: &Shared<S>) {
        if std::mem::take(&mut self.waits) {
            shared.metrics.apply_waits.set(0);
            tracing::info!("the disk has room again: the state machine goes on");
        }
    }

    /// The state machine cannot go on. Damage of its own ends no member of several: what was committed the others have, and a
    /// snapshot of theirs replaces it. Any other failure ends the node.
    fn give_up<S: Storage<Outcome = T>>(
        &mut self,
        shared: &Shared<S>,
        error: NodeError,
    ) -> Result<(), NodeError> {
        match &error {
            NodeError::Storage(failed) if shared.is_repairable(failed) => {}
            _ => return Err(error),
        }
        self.is_lost = true;
        end_unknown(shared, std::mem::take(&mut self.batch).replies);
        let reason = error.to_string();
        shared.inbox.put(|inbox| inbox.push(Event::Damaged { reason }));
        Ok(())
    }
}

fn apply_membership<S: Storage>(
    shared: &Shared<S>,
    entry: &Entry,
    voter_sets: Option<Membership>,
    changes: Vec<ConfChange>,
    waiter: Option<Waiter<Membership>>,
) -> Result<(), NodeError> {
    let before = shared.storage.membership();
    let possible = voter_sets.is_some();
    let after = match voter_sets {
        Some(voter_sets) => membership_after(&before, changes, voter_sets),
        None => before,
    };
    shared.storage.apply_membership(entry, &after)?;
    members_changed(shared);
    report(shared, entry.index);
    if let Some(waiter) = waiter {
        waiter.complete(if possible { Ok(after) } else { Err(MembershipError::Impossible.into()) });
    }
    Ok(())
}

fn members_changed<S: Storage>(shared: &Shared<S>) {
    let membership = shared.storage.membership();
    shared.transport.set_peers(&peers(shared.config.id, &membership));
}

fn report<S: Storage>(shared: &Shared<S>, index: LogIndex) {
    shared.metrics.applied_index.set(index.0);
    // Between the steps the raft thread looks for itself, once a beat.
    let ends_step = index.0.is_multiple_of(bounds::HASH_STEP);
    let hash = if ends_step { shared.storage.state_hash() } else { None };
    shared.inbox.put(|inbox| {
        if let Some((index, hash)) = hash {
            inbox.push(Event::Hashed { index, hash });
        }
        inbox.push(Event::Applied { index });
    });
}

/// Hands outcomes to those who wait: one call for each sink, one message batch for each peer.
fn answer<S: Storage>(
    shared: &Shared<S>,
    outcomes: Vec<S::Outcome>,
    first: LogIndex,
    replies: Vec<(usize, ReplyTo<S::Outcome>)>,
) {
    let mut local = ReplyBatch::default();
    let mut remote: Vec<(NodeId, Vec<PeerMessage>)> = Vec::new();
    // What a state that is not the others' made of an entry is not what became of it.
    let is_corrupt = shared.metrics.corrupt.get() != 0;
    let mut replies = replies.into_iter().peekable();
    for (slot, outcome) in outcomes.into_iter().enumerate() {
        let Some((_, reply)) = replies.next_if(|(wanted, _)| *wanted == slot) else { continue };
        match reply {
            ReplyTo::Local(waiter) if is_corrupt => local.push(waiter, Err(NodeError::LeaderChanged)),
            ReplyTo::Local(waiter) => local.push(waiter, Ok(outcome)),
            ReplyTo::Peer { node, request } => {
                let index = LogIndex(first.0 + slot as u64);
                let outcome = outcome.encode_to_vec().into();
                let result =
                    if is_corrupt { Err(ForwardError::Unknown) } else { Ok(Forwarded { index, outcome }) };
                let message = PeerMessage::ProposeReply { request, result };
                match remote.iter_mut().find(|(peer, _)| *peer == node) {
                    Some((_, messages)) => messages.push(message),
                    None => remote.push((node, vec![message])),
                }
            }
            ReplyTo::Member(_) => unreachable!("a membership change is applied alone"),
        }
    }
    local.flush();
    for (node, messages) in remote {
        shared.transport.send(node, messages);
    }
}

/// Applies entries, and makes an error of a panic: it says which entries it was about.
fn apply<S: Storage>(storage: &S, entries: &[Entry]) -> Result<Vec<S::Outcome>, StorageError> {
    catch_unwind(AssertUnwindSafe(|| storage.apply(entries))).unwrap_or_else(|panic| {
        let index = |entry: Option<&Entry>| entry.map_or(LogIndex::ZERO, |entry| entry.index);
        let (first, last) = (index(entries.first()), index(entries.last()));
        Err(StorageError::ApplyPanicked { first, last, reason: reason_of(&*panic) })
    })
}

/// Nobody hears from here what became of these entries: they are committed.
fn end_unknown<S: Storage>(shared: &Shared<S>, replies: Vec<(usize, ReplyTo<S::Outcome>)>) {
    for (_, reply) in replies {
        match reply {
            ReplyTo::Local(waiter) => waiter.complete(Err(NodeError::LeaderChanged)),
            ReplyTo::Peer { node, request } => {
                let message = PeerMessage::ProposeReply { request, result: Err(ForwardError::Unknown) };
                shared.transport.send(node, vec![message]);
            }
            ReplyTo::Member(waiter) => waiter.complete(Err(NodeError::LeaderChanged)),
        }
    }
}
