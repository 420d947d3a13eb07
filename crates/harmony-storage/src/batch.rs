//! Writes in memory, on top of what stands in the tree: later commands and readers see them, and one commit takes them
//! into the tree in key order.

mod base;
mod event;
mod fold;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use harmony_types::planted::{self, Bug};
use harmony_types::{Alarms, Applied, AuthState, Entry, KeyRange, Membership, Revision, StorageError};

use crate::prefetch::Prefetched;
use crate::settings::Settings;
use crate::tree::meta::Progress;
use crate::tree::record::{EventRef, Replaced, VersionBuf, VersionRef, WrittenAt};
use crate::tree::{NEXT, STOP, Visit};
use crate::view::{ReadRow, ReadVersion, Reads, View, VisitVersion, VisitWrite};

pub(crate) use base::Base;
use event::Key;
pub(crate) use event::{Event, Stub};

/// What the rows of an event take in the tree besides its bytes: an estimate, to bound it by.
const EVENT_ROWS_OVERHEAD_BYTES: usize = 256;

/// What a row of `state` takes besides its bytes, in memory or in the tree: an estimate as well.
const ROW_OVERHEAD_BYTES: usize = 96;

/// An event in its place.
#[derive(Clone)]
struct Slot {
    event: Event,
    /// The last event of the same key before it in the batch.
    earlier: Option<u32>,
}

/// Where the version is that an event replaced.
#[derive(Clone, Copy)]
pub(crate) enum Before<'a> {
    /// Nobody can still read one.
    None,
    /// This event in memory made it.
    Written(&'a Event),
    /// It is the newest one of the key in the tree below; if a tombstone, perhaps not any more.
    InTree(Stub),
}

/// An event in memory: its bytes can be shared.
pub(crate) struct OwnEvent<'a> {
    /// The event.
    pub(crate) event: &'a Event,
    /// Where the version before is.
    pub(crate) before: Before<'a>,
}

/// See the module.
///
/// Invariants: `events` is ordered by where it was written; `newest` tells the last event of each key in it; what the first
/// event of a key replaced is the newest version of the key in the base.
pub(crate) struct Batch {
    base: Base,
    /// As the base's, moved on by every command.
    pub(crate) progress: Progress,
    settings: Settings,
    newest: BTreeMap<Key, u32>,
    events: Vec<Slot>,
    /// Replicated rows of `state` that changed; `None`: removed.
    rows: BTreeMap<Bytes, Option<Bytes>>,
    /// Memory that all of it takes, about. The versions that it replaced count for half: of two batches one is folded, and
    /// holds them meanwhile.
    bytes: u64,
    /// Bytes that its rows take in the tree, about.
    row_bytes: u64,
    /// Bytes of the largest row written, and more.
    largest_row: usize,
    /// Writes of the command under way.
    writes: u32,
    /// What `newest` held before each event since the last [`Batch::keep`].
    undo: Vec<Option<u32>>,
    /// What `rows` held before each change since then.
    undo_rows: Vec<(Bytes, Option<Option<Bytes>>)>,
    /// What the tree holds of the keys that the apply under way looks for.
    prefetched: Option<Prefetched>,
    /// Where events are put together.
    scratch: Vec<u8>,
}

/// A state of a batch to go back to.
pub(crate) struct Mark {
    progress: Progress,
    settings: Settings,
    events: usize,
    bytes: u64,
    row_bytes: u64,
}

impl Batch {
    /// Nothing on top of `base`.
    pub(crate) fn new(base: Base) -> Self {
        Self {
            progress: *base.progress(),
            settings: base.settings().clone(),
            base,
            newest: BTreeMap::new(),
            events: Vec::new(),
            rows: BTreeMap::new(),
            bytes: 0,
            row_bytes: 0,
            largest_row: 0,
            writes: 0,
            undo: Vec::new(),
            undo_rows: Vec::new(),
            prefetched: None,
            scratch: Vec::new(),
        }
    }

    /// What it lies on.
    pub(crate) fn base(&self) -> &Base {
        &self.base
    }

    /// The last write of a key, here or in a batch below.
    pub(crate) fn written(&self, key: &[u8]) -> Option<&Event> {
        self.newest.get(key).map(|newest| self.event_at(*newest)).or_else(|| self.base.written(key))
    }

    fn event_at(&self, number: u32) -> &Event {
        &self.events[number as usize].event
    }

    /// What lies below all that is in memory.
    pub(crate) fn tree(&self) -> &Arc<View> {
        self.base.tree()
    }

    /// Takes what was read for the next commands, until [`Batch::keep`] or [`Batch::roll_back`].
    pub(crate) fn take_prefetched(&mut self, prefetched: Prefetched) {
        // A checkpoint may have moved writes into another tree since.
        self.prefetched = Some(prefetched).filter(|prefetched| prefetched.is_of(self.tree()));
    }

    /// Whether it says the same as its base.
    pub(crate) fn is_clean(&self) -> bool {
        self.events.is_empty()
            && self.rows.is_empty()
            && self.settings.is_same(self.base.settings())
            && self.progress == *self.base.progress()
    }

    /// Ends this batch, and begins a new one on top of it.
    pub(crate) fn freeze(&mut self) -> Arc<Self> {
        assert!(self.undo.is_empty() && self.undo_rows.is_empty(), "a batch is frozen between two applies");
        // The place of the value is needed only for a moment.
        let base = self.base.clone();
        let frozen = Arc::new(std::mem::replace(self, Self::new(base)));
        *self = Self::new(Base::Frozen(Arc::clone(&frozen)));
        frozen
    }

    /// The same batch once more; keys and values are shared.
    pub(crate) fn copy(&self) -> Self {
        Self {
            base: self.base.clone(),
            progress: self.progress,
            settings: self.settings.clone(),
            newest: self.newest.clone(),
            events: self.events.clone(),
            rows: self.rows.clone(),
            bytes: self.bytes,
            row_bytes: self.row_bytes,
            largest_row: self.largest_row,
            writes: 0,
            undo: Vec::new(),
            undo_rows: Vec::new(),
            prefetched: None,
            scratch: Vec::new(),
        }
    }

    /// Puts the tree, which holds all that the base held, in the base's place. Returns the base, for the caller to drop
    /// where nobody waits.
    pub(crate) fn rebase(&mut self, tree: Arc<View>) -> Base {
        self.progress.take_counts(&tree.progress);
        self.progress.boundary_pending = false;
        std::mem::replace(&mut self.base, Base::Tree(tree))
    }

    /// The present state, for [`Batch::roll_back`].
    pub(crate) fn mark(&mut self) -> Mark {
        self.keep();
        Mark {
            progress: self.progress,
            settings: self.settings.clone(),
            events: self.events.len(),
            bytes: self.bytes,
            row_bytes: self.row_bytes,
        }
    }

    /// Gives up the way back to the last mark.
    pub(crate) fn keep(&mut self) {
        self.undo.clear();
        self.undo_rows.clear();
        self.prefetched = None;
    }

    /// Goes back to the last mark.
    pub(crate) fn roll_back(&mut self, mark: Mark) {
        assert_eq!(mark.events + self.undo.len(), self.events.len(), "the way back is that of the last mark");
        for (Slot { event, .. }, before) in self.events.drain(mark.events..).zip(self.undo.drain(..)).rev() {
            match before {
                Some(earlier) => self.newest.insert(Key(event), earlier),
                None => self.newest.remove(event.key()),
            };
        }
        for (name, before) in self.undo_rows.drain(..).rev() {
            match before {
                Some(row) => self.rows.insert(name, row),
                None => self.rows.remove(&name),
            };
        }
        self.prefetched = None;
        let Mark { progress, settings, bytes, row_bytes, .. } = mark;
        (self.progress, self.settings, self.writes) = (progress, settings, 0);
        (self.bytes, self.row_bytes) = (bytes, row_bytes);
    }

    /// The settings after the commands so far.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Sets the members. What an entry says of them is the caller's to hash.
    pub(crate) fn set_membership(&mut self, membership: Membership) {
        self.settings.membership = Arc::new(membership);
    }

    /// Sets the alarms; their rows are the caller's.
    pub(crate) fn set_alarms(&mut self, alarms: Alarms) {
        self.settings.alarms = Arc::new(alarms);
    }

    /// Sets users and roles; their rows are the caller's.
    pub(crate) fn set_auth(&mut self, auth: AuthState) {
        self.settings.auth = Arc::new(auth);
    }

    /// Where the next write of the command under way goes.
    pub(crate) fn next_write(&self) -> WrittenAt {
        WrittenAt { revision: self.progress.revision.next(), sub: self.writes }
    }

    /// Takes one write. `before` is what [`Batch::before`] returned for this key.
    pub(crate) fn write(&mut self, key: &[u8], version: &VersionBuf, before: Option<&VersionBuf>) {
        assert_eq!(version.written, self.next_write(), "a write out of order");
        if !(self.events.is_empty() && planted::is(Bug::HashMissesWrite)) {
            self.progress.state_hash.write(key, version);
        }
        let replaced_bytes = before.map_or(0, |before| before.value.len());
        let event = Event::new(key, version, before, &mut self.scratch);
        self.took(
            event::OVERHEAD_BYTES + event.len() + replaced_bytes / 2,
            EVENT_ROWS_OVERHEAD_BYTES + key.len() + version.value.len() + replaced_bytes,
        );
        let number = u32::try_from(self.events.len()).expect("4 G events fit in no memory");
        let earlier = self.newest.insert(Key(event.clone()), number);
        self.undo.push(earlier);
        self.events.push(Slot { event, earlier });
        self.writes = self.writes.checked_add(1).expect("a command's writes fit in memory, so in 32 bits");
    }

    /// Sets a replicated row of `state`, or removes it.
    pub(crate) fn set_row(&mut self, name: Bytes, row: Option<Bytes>) {
        self.progress.state_hash.row(&name, row.as_deref());
        let bytes = ROW_OVERHEAD_BYTES + name.len() + row.as_ref().map_or(0, Bytes::len);
        self.took(bytes, bytes);
        let before = self.rows.insert(name.clone(), row);
        self.undo_rows.push((name, before));
    }

    fn took(&mut self, bytes: usize, row_bytes: usize) {
        self.bytes += bytes as u64;
        self.row_bytes += row_bytes as u64;
        self.largest_row = self.largest_row.max(row_bytes);
    }

    /// The version that a write of `key` replaces: none when nobody can read it any more, which must not depend on how far
    /// this machine has come with dropping it.
    pub(crate) fn before(&self, key: &[u8]) -> Result<Option<VersionBuf>, StorageError> {
        let readable =
            |version: &VersionRef<'_>| version.live || self.progress.compact <= version.written.revision;
        if let Some(event) = self.written(key) {
            // The value is shared, not copied.
            return Ok(readable(&event.version()).then(|| event.to_buf()));
        }
        if let Some(version) = self.prefetched(key) {
            return Ok(version.filter(|version| readable(&version.borrowed())).cloned());
        }
        let mut before = None;
        self.base.newest(key, &mut |version| {
            before = readable(&version).then(|| version.to_buf());
            Ok(())
        })?;
        Ok(before)
    }

    /// The newest version of a key that was not written in memory, `Some(None)` when it has none; `None` when the tree must be
    /// asked.
    fn prefetched(&self, key: &[u8]) -> Option<Option<&VersionBuf>> {
        self.prefetched.as_ref()?.get(key)
    }

    /// Ends a command: its writes, if any, become one revision.
    pub(crate) fn end_command(&mut self) -> Revision {
        if self.writes != 0 {
            self.progress.revision = self.progress.revision.next();
            self.writes = 0;
        }
        self.progress.revision
    }

    /// Ends an entry, which may have ended with a refusal.
    pub(crate) fn end_entry(&mut self, entry: &Entry, refusal: Option<i32>) {
        let Progress { revision, compact, .. } = self.progress;
        self.progress.state_hash.end(entry, revision, compact, refusal);
        self.progress.applied = Applied { index: entry.index, term: entry.term };
    }

    /// Where the version is that an event of this batch replaced.
    fn before_slot(&self, slot: &Slot) -> Before<'_> {
        let Some(stub) = slot.event.replaced() else { return Before::None };
        let written = || self.base.written(slot.event.key());
        let event = slot.earlier.map(|earlier| self.event_at(earlier)).or_else(written);
        event.map_or(Before::InTree(stub), Before::Written)
    }

    /// Hands an event of this batch to `read`, with what it replaced.
    fn read_slot(
        &self,
        slot: &Slot,
        read: &mut dyn FnMut(EventRef<'_>) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let Slot { event, .. } = slot;
        match self.before_slot(slot) {
            Before::None => read(event.with(Replaced::None)),
            Before::Written(earlier) => read(event.with(Replaced::Here(earlier.version()))),
            Before::InTree(stub) => stub.version_in(self.tree(), event.key(), &mut |version| {
                read(event.with(Replaced::Here(version)))
            }),
        }
    }

    /// The events of this batch alone that were written at `first` or later, in order.
    pub(crate) fn own_events(&self, first: WrittenAt) -> impl Iterator<Item = OwnEvent<'_>> {
        self.own_slots(first).map(|slot| OwnEvent { event: &slot.event, before: self.before_slot(slot) })
    }

    fn own_slots(&self, first: WrittenAt) -> impl Iterator<Item = &Slot> {
        let own = self.events.partition_point(|slot| slot.event.version().written < first);
        self.events[own..].iter()
    }

    /// How many writes it holds.
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// Memory that it takes, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that its rows take in the tree, about.
    pub(crate) fn row_bytes(&self) -> u64 {
        self.row_bytes
    }

    /// How many rows its commit overwrites or inserts, those that it appends left out.
    pub(crate) fn keys(&self) -> u64 {
        (self.newest.len() + self.rows.len()) as u64
    }

    /// No row that its commit writes has more bytes.
    pub(crate) fn largest_row(&self) -> usize {
        self.largest_row
    }
}

impl Reads for Batch {
    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn newest(&self, key: &[u8], read: ReadVersion<'_>) -> Result<bool, StorageError> {
        if let Some(event) = self.written(key) {
            return read(event.version()).map(|()| true);
        }
        match self.prefetched(key) {
            Some(Some(version)) => read(version.borrowed()).map(|()| true),
            Some(None) => Ok(false),
            None => self.tree().newest(key, read),
        }
    }

    fn scan(&self, range: &KeyRange, visit: VisitVersion<'_>) -> Result<(), StorageError> {
        if range.is_empty() {
            return Ok(());
        }
        let newest = self.newest.range::<[u8], _>(range.bounds()).map(|(_, newest)| self.event_at(*newest));
        let mut own = newest.peekable();
        let mut stopped = false;
        self.base.scan(range, &mut |key, version| {
            while let Some(event) = own.next_if(|event| event.key() < key) {
                if visit(event.key(), event.version())?.is_break() {
                    stopped = true;
                    return Ok(STOP);
                }
            }
            let flow = match own.next_if(|event| event.key() == key) {
                Some(event) => visit(key, event.version())?,
                None => visit(key, version)?,
            };
            stopped = flow.is_break();
            Ok(flow)
        })?;
        if stopped {
            return Ok(());
        }
        for event in own {
            if let ControlFlow::Break(()) = visit(event.key(), event.version())? {
                break;
            }
        }
        Ok(())
    }

    fn event(
        &self,
        at: WrittenAt,
        read: &mut dyn FnMut(EventRef<'_>) -> Result<(), StorageError>,
    ) -> Result<bool, StorageError> {
        match self.events.binary_search_by_key(&at, |slot| slot.event.version().written) {
            Ok(found) => self.read_slot(&self.events[found], read).map(|()| true),
            Err(_) => self.base.event(at, read),
        }
    }

    fn writes_from(&self, first: WrittenAt, visit: VisitWrite<'_>) -> Result<(), StorageError> {
        let mut stopped = false;
        self.base.writes_from(first, &mut |key, written| {
            let flow = visit(key, written)?;
            stopped = flow.is_break();
            Ok(flow)
        })?;
        for Slot { event, .. } in self.own_slots(first).take_while(|_| !stopped) {
            if visit(event.key(), event.version().written)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn state_row(&self, name: &[u8], read: ReadRow<'_>) -> Result<bool, StorageError> {
        match self.rows.get(name) {
            Some(Some(row)) => read(row).map(|()| true),
            Some(None) => Ok(false),
            None => self.base.state_row(name, read),
        }
    }

    fn state_rows(&self, names: &KeyRange, visit: Visit<'_>) -> Result<(), StorageError> {
        let mut own = self.rows.range::<[u8], _>(names.bounds()).peekable();
        let mut stopped = false;
        let show = |name: &[u8], row: &Option<Bytes>, visit: Visit<'_>| match row {
            Some(row) => visit(name, row),
            None => Ok(NEXT),
        };
        self.base.state_rows(names, &mut |name, row| {
            while let Some((own_name, own_row)) = own.next_if(|(own_name, _)| &own_name[..] < name) {
                if show(own_name, own_row, visit)?.is_break() {
                    stopped = true;
                    return Ok(STOP);
                }
            }
            let flow = match own.next_if(|(own_name, _)| &own_name[..] == name) {
                Some((_, own_row)) => show(name, own_row, visit)?,
                None => visit(name, row)?,
            };
            stopped = flow.is_break();
            Ok(flow)
        })?;
        while !stopped && let Some((name, row)) = own.next() {
            stopped = show(name, row, visit)?.is_break();
        }
        Ok(())
    }
}
