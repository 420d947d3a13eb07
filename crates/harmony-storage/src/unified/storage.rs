//! [`UnifiedStorage`] as a [`Storage`].

use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use harmony_types::planted::{self, Bug};
use harmony_types::wal::LogBounds;
use harmony_types::{
    Applied, DiskSpace, Entry, EntryType, HardState, LogIndex, Membership, Outcome, Recovered, Snapshot,
    SnapshotData, SnapshotMeta, Storage, StorageError, Term,
};

use super::{UnifiedStorage, record_boundary, start_over};
use crate::apply::{self, Asked, Decoded};
use crate::batch::Base;
use crate::mvcc::compact;
use crate::new_tree::NewTree;
use crate::prefetch::Prefetched;
use crate::reads::AppliedHash;
use crate::room;
use crate::snapshot::{read, write::SnapshotStream};
use crate::tree::Durability;

impl UnifiedStorage {
    /// As [`Storage::apply`], while nobody else has the storage yet: all of it, whatever memory it takes, so that a full disk
    /// does not keep a member from starting.
    ///
    /// `commands` are those of the entries, decoded.
    pub(crate) fn replay(
        &self,
        entries: &[Entry],
        commands: Vec<Option<Asked>>,
        prefetched: Prefetched,
    ) -> Result<(), StorageError> {
        let pairs = entries.iter().zip(commands);
        let decoded: Vec<_> = pairs.map(|(entry, command)| Decoded { entry, command }).collect();
        if !self.leaves_room() {
            self.bound_memory(entries, || true)?;
        }
        self.apply_decoded(&decoded, prefetched).map(drop)
    }

    fn apply_decoded(
        &self,
        entries: &[Decoded<'_>],
        prefetched: Prefetched,
    ) -> Result<Vec<Outcome>, StorageError> {
        let (outcomes, told) = self.memory.change(|batch| {
            batch.take_prefetched(prefetched);
            let before = batch.progress.revision;
            // Collecting results would not know how many there will be.
            let mut outcomes = Vec::with_capacity(entries.len());
            for entry in entries {
                outcomes.push(apply::entry(batch, entry)?);
            }
            let told = self.observers.collect(batch, before, entries, &outcomes)?;
            Ok((outcomes, told))
        })?;
        self.observers.tell(told);
        Ok(outcomes)
    }
}

impl Storage for UnifiedStorage {
    type Outcome = Outcome;

    fn bootstrap(&self, membership: &Membership) -> Result<(), StorageError> {
        self.check_open()?;
        membership.check().map_err(|reason| StorageError::CorruptRecord {
            place: "the first members".to_owned(),
            reason,
        })?;
        let _applying = self.applying();
        if *self.published().settings.membership != Membership::default() {
            return Ok(());
        }
        self.memory.change(|batch| {
            batch.set_membership(membership.clone());
            Ok(())
        })?;
        self.fold(&self.writer(), Durability::Durable, 0).map(drop)
    }

    fn save(&self, hard_state: Option<&HardState>, entries: &[Entry]) -> Result<(), StorageError> {
        self.check_open()?;
        self.wal.append_many(hard_state, entries)?;
        Ok(())
    }

    /// The order that makes a crash leave the old state or the new one: the new tree is complete on disk; its name
    /// replaces the old one's; the log learns where it starts. Between the last two, opening finishes the work.
    fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), StorageError> {
        self.check_open()?;
        let mut rebuilds = self.rebuilds.lock();
        let _applying = self.applying();
        let applied = self.applied();
        // One of the same index replaces a state that is not what it should be.
        if snapshot.meta.index < applied.index {
            return Err(StorageError::InvalidIndex {
                index: snapshot.meta.index,
                reason: format!("the snapshot is older than what is applied, {}", applied.index),
            });
        }
        // It would be one of the state that is given up here.
        self.rebuilds.give_up(&mut rebuilds);
        let mut stream = snapshot.data.into_reader();
        let mut build = || {
            let mut new = NewTree::create(&self.fs, &self.tree_dir, &self.config)?;
            read::install(&mut new, self.config.wal.identity, &snapshot.meta, &mut *stream)?;
            Ok(new)
        };
        // The old tree knows nothing of it yet, so a disk that is full in the middle is as one that was full before.
        let mut new = build().map_err(|error| room::full_in_the_middle(&*self.fs, &self.tree_dir, error))?;
        let writing = self.writer();
        if planted::is(Bug::BoundaryBeforeTree) {
            record_boundary(&*self.wal, Applied { index: snapshot.meta.index, term: snapshot.meta.term })?;
        }
        let view = self.swap_in(&writing, &mut new)?;
        self.memory.reset(view);
        // Readers see it from here on, whatever becomes of the log.
        self.observers.replaced(self.progress().revision);
        record_boundary(&*self.wal, Applied { index: snapshot.meta.index, term: snapshot.meta.term })?;
        // Not before: until the log begins behind the snapshot, it cannot be released up to there.
        self.durable_applied.store(snapshot.meta.index.0, Ordering::Release);
        Ok(())
    }

    fn read_all(&self) -> Result<Recovered, StorageError> {
        self.check_open()?;
        let view = self.published();
        let bounds = self.wal.bounds();
        let first = view.progress.applied.index.next().max(bounds.first());
        let end = bounds.last.next();
        let entries = if first < end { self.wal.entries(first..end, u64::MAX)? } else { Vec::new() };
        Ok(Recovered {
            membership: Membership::clone(&view.settings.membership),
            hard_state: self.wal.hard_state(),
            entries,
        })
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.check_open()?;
        Ok(self.wal.sync()?)
    }

    fn disk_space(&self, upcoming_bytes: u64) -> DiskSpace {
        // Until a checkpoint was refused nobody knows how little it does with.
        let is_short = self.apply_refused.load(Ordering::Acquire)
            || (self.room.is_short() && !self.room.has(self.need()));
        let tree = if is_short { DiskSpace::Low } else { DiskSpace::Enough };
        tree.max(self.wal.disk_space(upcoming_bytes))
    }

    fn needs_space(&self, command: &Bytes) -> bool {
        !room::frees_space(command)
    }

    fn bounds(&self) -> LogBounds {
        self.wal.bounds()
    }

    fn term(&self, index: LogIndex) -> Result<Term, StorageError> {
        Ok(self.wal.term(index)?)
    }

    fn entries(&self, range: Range<LogIndex>, bytes_max: u64) -> Result<Vec<Entry>, StorageError> {
        Ok(self.wal.entries(range, bytes_max)?)
    }

    fn hard_state(&self) -> HardState {
        self.wal.hard_state()
    }

    fn release(&self, upto: LogIndex) -> Result<(), StorageError> {
        self.check_open()?;
        let released_max =
            if planted::is(Bug::ReleaseTooEarly) { self.applied().index } else { self.durable_applied() };
        let upto = upto.min(released_max);
        if upto <= self.wal.bounds().boundary {
            return Ok(());
        }
        Ok(self.wal.release(upto)?)
    }

    fn apply(&self, entries: &[Entry]) -> Result<Vec<Outcome>, StorageError> {
        self.check_state()?;
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let decoded = decode(entries)?;
        let _applying = self.applying();
        let bounded = self.bound_memory(entries, || {
            let bytes_max = self.config.checkpoint_bytes.saturating_mul(room::FREEING_FACTOR);
            self.memory.bytes() < bytes_max && room::free_space(entries)
        });
        self.apply_refused.store(matches!(bounded, Err(StorageError::DiskFull { .. })), Ordering::Release);
        bounded?;
        let prefetched = Prefetched::read(&self.memory, decoded.iter().filter_map(Decoded::kind));
        let outcomes = self.apply_decoded(&decoded, prefetched)?;
        self.ops.ran(&outcomes);
        Ok(outcomes)
    }

    fn apply_membership(&self, entry: &Entry, membership: &Membership) -> Result<(), StorageError> {
        self.check_state()?;
        if entry.entry_type == EntryType::Normal {
            return Err(StorageError::InvalidIndex {
                index: entry.index,
                reason: "the entry is no membership change".to_owned(),
            });
        }
        let _applying = self.applying();
        self.memory.change(|batch| apply::membership_change(batch, entry, membership))
    }

    fn applied(&self) -> Applied {
        self.published().progress.applied
    }

    fn state_hash(&self) -> Option<(LogIndex, u32)> {
        if self.is_lost() {
            return None;
        }
        let AppliedHash { index, hash } = self.applied_hash();
        Some((index, hash))
    }

    fn damage(&self) -> Option<String> {
        if self.is_lost() {
            return Some(start_over::NO_STATE.to_owned());
        }
        let tree = self.tree.load();
        tree.damage().or_else(|| self.verifier.damage_of(&tree))
    }

    fn durable_applied(&self) -> LogIndex {
        LogIndex(self.durable_applied.load(Ordering::Acquire))
    }

    fn membership(&self) -> Membership {
        Membership::clone(&self.published().settings.membership)
    }

    fn query(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.get(key)?.map(|kv| kv.value))
    }

    fn create_snapshot(&self) -> Result<Snapshot, StorageError> {
        self.check_state()?;
        let since = self.views.written();
        let view = self.tree_view()?;
        let meta = SnapshotMeta {
            index: view.snapshot_index(),
            term: view.progress.applied.term,
            membership: Membership::clone(&view.settings.membership),
        };
        let pin = self.views.pin(since, Base::Tree(view));
        let stream = SnapshotStream::new(pin, self.config.wal.identity.cluster);
        Ok(Snapshot { meta, data: SnapshotData::Stream(Box::new(stream)) })
    }

    fn checkpoint(&self) -> Result<LogIndex, StorageError> {
        self.check_open()?;
        let applied = self.applied().index;
        let writing = self.writer();
        let progress = self.progress();
        let is_due = compact::is_due(&progress, self.rebuilds.kept());
        if progress.applied.index == self.durable_applied() && !is_due {
            self.room.hold_reserve();
            return Ok(progress.applied.index);
        }
        let mut view = self.fold_part(&writing, compact::CHECKPOINT_ROWS)?;
        drop(writing);
        while view.progress.applied.index < applied {
            // An apply that waits for place has its turn first.
            view = self.fold_part(&self.writer(), compact::CHECKPOINT_ROWS)?;
        }
        Ok(view.progress.applied.index)
    }

    fn close(&self) -> Result<(), StorageError> {
        let mut rebuilds = self.rebuilds.lock();
        self.rebuilds.give_up(&mut rebuilds);
        let saved = match self.checkpoint() {
            Err(StorageError::Closed) => return Ok(()),
            saved => saved,
        };
        self.closed.store(true, Ordering::Release);
        self.views.close();
        let closed = self.wal.close();
        saved?;
        closed?;
        self.saved.store(true, Ordering::Release);
        Ok(())
    }
}

fn decode(entries: &[Entry]) -> Result<Vec<Decoded<'_>>, StorageError> {
    // Collecting results would not know how many there will be.
    let mut decoded = Vec::with_capacity(entries.len());
    for entry in entries {
        decoded.push(Decoded { entry, command: apply::decode(entry)? });
    }
    Ok(decoded)
}
