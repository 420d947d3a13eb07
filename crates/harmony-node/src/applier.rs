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
use crate::queue::Taken;
use crate::waiter::{ReplyBatch, Waiter};

/// Applies until the node stops, and then what is left.
pub(crate) fn run<S: Storage>(shared: &Shared<S>) -> Result<(), NodeError> {
    let mut applier = Applier {
        shared,
        jobs: VecDeque::new(),
        batch: Batch::default(),
        bytes_since_checkpoint: 0,
        is_lost: false,
    };
    loop {
        match shared.apply.take(None) {
            Taken::Content(jobs) => applier.work(jobs)?,
            Taken::TimedOut => {}
            Taken::Closed => return Ok(()),
        }
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

struct Applier<'a, S: Storage> {
    shared: &'a Shared<S>,
    /// What comes behind the batch.
    jobs: VecDeque<ApplyJob<S::Outcome>>,
    batch: Batch<S::Outcome>,
    bytes_since_checkpoint: u64,
    /// The state is damaged: entries are dropped until a snapshot takes its place.
    is_lost: bool,
}

impl<S: Storage> Applier<'_, S> {
    fn work(&mut self, jobs: Vec<ApplyJob<S::Outcome>>) -> Result<(), NodeError> {
        self.jobs.extend(jobs);
        while let Some(job) = self.jobs.pop_front() {
            match job {
                ApplyJob::Entries { replies, .. } if self.is_lost => end_unknown(self.shared, replies),
                ApplyJob::Entries { entries, replies } => self.collect(entries, replies)?,
                ApplyJob::Membership { waiter, .. } if self.is_lost => {
                    if let Some(waiter) = waiter {
                        waiter.complete(Err(NodeError::LeaderChanged));
                    }
                }
                ApplyJob::Membership { entry, voter_sets, changes, waiter } => {
                    self.apply()?;
                    if let Err(error) = self.apply_membership(&entry, voter_sets, changes, waiter) {
                        self.give_up(error)?;
                    }
                }
                ApplyJob::Install { snapshot } => {
                    self.apply()?;
                    let index = snapshot.meta.index;
                    self.shared.storage.save_snapshot(snapshot)?;
                    self.is_lost = false;
                    tracing::info!(%index, "snapshot installed");
                    self.members_changed();
                    self.shared.metrics.applied_index.set(index.0);
                    self.shared.inbox.put(|inbox| inbox.push(Event::Installed { index }));
                }
            }
        }
        self.apply()
    }

    fn collect(
        &mut self,
        entries: Vec<Entry>,
        replies: Vec<(usize, ReplyTo<S::Outcome>)>,
    ) -> Result<(), NodeError> {
        let mut entries = entries;
        let mut replies = replies;
        // Members compare hashes where batches end.
        let step_end =
            entries.first().map_or(0, |entry| entry.index.0.div_ceil(bounds::HASH_STEP) * bounds::HASH_STEP);
        let head = entries.partition_point(|entry| entry.index.0 <= step_end);
        if head < entries.len() {
            let tail = replies.split_off(replies.partition_point(|(slot, _)| *slot < head));
            self.jobs.push_front(ApplyJob::Entries {
                entries: entries.split_off(head),
                replies: tail.into_iter().map(|(slot, reply)| (slot - head, reply)).collect(),
            });
        }
        let ends_step = entries.last().is_some_and(|entry| entry.index.0 == step_end);
        self.add(entries, replies);
        let full = ends_step
            || bounds::APPLY_BATCH_BYTES_MAX <= self.batch.bytes
            || bounds::APPLY_BATCH_ENTRIES_MAX <= self.batch.entries.len();
        if full { self.apply() } else { Ok(()) }
    }

    fn add(&mut self, entries: Vec<Entry>, replies: Vec<(usize, ReplyTo<S::Outcome>)>) {
        let batch = &mut self.batch;
        let offset = batch.entries.len();
        batch.bytes += entries.iter().map(|entry| entry.data.len() as u64).sum::<u64>();
        batch.entries.extend(entries);
        batch.replies.extend(replies.into_iter().map(|(slot, reply)| (offset + slot, reply)));
    }

    /// Applies what is collected, answers, and only then tells raft: the clients wait, raft does not.
    fn apply(&mut self) -> Result<(), NodeError> {
        if self.batch.entries.is_empty() {
            return Ok(());
        }
        let applied = match apply(&*self.shared.storage, &self.batch.entries) {
            Err(error) if error.is_disk_full() => self.wait_for_room(&error),
            applied => applied.map_err(NodeError::from),
        };
        let outcomes = match applied {
            Ok(outcomes) => outcomes,
            Err(error) => return self.give_up(error),
        };
        let batch = std::mem::take(&mut self.batch);
        let (Some(first), Some(last)) = (batch.entries.first(), batch.entries.last()) else { return Ok(()) };
        let (first, last) = (first.index, last.index);
        assert_eq!(outcomes.len(), batch.entries.len(), "one outcome for each entry");
        self.shared.retention.grown(&batch.entries);
        self.shared.metrics.entries_applied.add(batch.entries.len() as u64);
        self.shared.metrics.apply_batches.add(1);
        answer(self.shared, outcomes, first, batch.replies);
        self.report(last);
        self.bytes_since_checkpoint += batch.bytes;
        if bounds::CHECKPOINT_ASK_BYTES <= self.bytes_since_checkpoint {
            self.bytes_since_checkpoint = 0;
            self.shared.checkpoint.put(|()| ());
        }
        Ok(())
    }

    /// The state machine cannot go on. Damage of its own ends no member of several: what was committed the others have, and a
    /// snapshot of theirs replaces it. Any other failure ends the node.
    fn give_up(&mut self, error: NodeError) -> Result<(), NodeError> {
        match &error {
            NodeError::Storage(failed) if self.shared.is_repairable(failed) => {}
            _ => return Err(error),
        }
        self.is_lost = true;
        end_unknown(self.shared, std::mem::take(&mut self.batch).replies);
        let reason = error.to_string();
        self.shared.inbox.put(|inbox| inbox.push(Event::Damaged { reason }));
        Ok(())
    }

    /// The disk has no room for what the state machine would have to write, and nothing was applied. Tries again until there is
    /// some, together with what comes meanwhile: a compaction may be what makes room.
    fn wait_for_room(&mut self, refused: &StorageError) -> Result<Vec<S::Outcome>, NodeError> {
        let Shared { storage, metrics, .. } = self.shared;
        tracing::warn!(error = %refused, "the state machine waits for room on the disk; reads go on");
        metrics.apply_waits.set(1);
        let applied = loop {
            self.pause()?;
            self.join_waiting();
            match apply(&**storage, &self.batch.entries) {
                Err(error) if error.is_disk_full() => {}
                applied => break applied?,
            }
        };
        metrics.apply_waits.set(0);
        tracing::info!("the disk has room again: the state machine goes on");
        Ok(applied)
    }

    /// Waits before the next try, and takes what comes meanwhile.
    fn pause(&mut self) -> Result<(), NodeError> {
        let Shared { apply, clock, .. } = self.shared;
        let end = clock.now() + Duration::from_millis(bounds::APPLY_RETRY_MS);
        while let Some(wait) = end.checked_sub(clock.now()).filter(|wait| !wait.is_zero()) {
            match apply.take(Some(wait)) {
                Taken::Content(jobs) => self.jobs.extend(jobs),
                Taken::TimedOut => {}
                Taken::Closed => return Err(NodeError::Stopped),
            }
        }
        Ok(())
    }

    /// Adds the entries that wait to the batch, as far as it may grow.
    fn join_waiting(&mut self) {
        while self.batch.bytes < bounds::APPLY_WAITING_BYTES_MAX
            && let Some(ApplyJob::Entries { .. }) = self.jobs.front()
            && let Some(ApplyJob::Entries { entries, replies }) = self.jobs.pop_front()
        {
            self.add(entries, replies);
        }
    }

    fn apply_membership(
        &self,
        entry: &Entry,
        voter_sets: Option<Membership>,
        changes: Vec<ConfChange>,
        waiter: Option<Waiter<Membership>>,
    ) -> Result<(), NodeError> {
        let before = self.shared.storage.membership();
        let possible = voter_sets.is_some();
        let after = match voter_sets {
            Some(voter_sets) => membership_after(&before, changes, voter_sets),
            None => before,
        };
        self.shared.storage.apply_membership(entry, &after)?;
        self.members_changed();
        self.report(entry.index);
        if let Some(waiter) = waiter {
            waiter.complete(if possible { Ok(after) } else { Err(MembershipError::Impossible.into()) });
        }
        Ok(())
    }

    fn members_changed(&self) {
        let membership = self.shared.storage.membership();
        self.shared.transport.set_peers(&peers(self.shared.config.id, &membership));
    }

    fn report(&self, index: LogIndex) {
        self.shared.metrics.applied_index.set(index.0);
        // Between the steps the raft thread looks for itself, once a beat.
        let ends_step = index.0.is_multiple_of(bounds::HASH_STEP);
        let hash = if ends_step { self.shared.storage.state_hash() } else { None };
        self.shared.inbox.put(|inbox| {
            if let Some((index, hash)) = hash {
                inbox.push(Event::Hashed { index, hash });
            }
            inbox.push(Event::Applied { index });
        });
    }
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
