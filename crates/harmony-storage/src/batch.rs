//! Writes in memory, on top of what stands in the tree: later commands and readers see them, and one commit takes them
//! into the tree in key order.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use harmony_types::{Alarms, Applied, AuthState, Entry, KeyRange, Membership, Revision, StorageError};

use crate::prefetch::Prefetched;
use crate::settings::Settings;
use crate::tree::meta::{self, Progress};
use crate::tree::record::{EventRef, LOG_KEY_BYTES, Replaced, VersionBuf, VersionRef, WrittenAt};
use crate::tree::{KvWriter, NEXT, STOP, Table, Visit, counted};
use crate::view::{ReadRow, ReadVersion, Reads, View, VisitEvent, VisitVersion};

/// What an event takes in memory besides its bytes: an estimate, to bound it by.
const EVENT_OVERHEAD_BYTES: usize = 256;

/// The same for a row of `state`.
const ROW_OVERHEAD_BYTES: usize = 96;

/// What a batch lies on: the tree, or a batch that is on its way into the tree. Never changes, so it is a view, too.
#[derive(Clone)]
pub(crate) enum Base {
    /// The tree.
    Tree(Arc<View>),
    /// A batch that takes no more writes.
    Frozen(Arc<Batch>),
}

impl Base {
    fn reads(&self) -> &dyn Reads {
        match self {
            Self::Tree(view) => &**view,
            Self::Frozen(batch) => &**batch,
        }
    }

    fn settings(&self) -> &Settings {
        match self {
            Self::Tree(view) => &view.settings,
            Self::Frozen(batch) => &batch.settings,
        }
    }

    /// The newest version of a key that was written in memory.
    fn written(&self, key: &[u8]) -> Option<&VersionBuf> {
        match self {
            Self::Tree(_) => None,
            Self::Frozen(batch) => batch.written(key),
        }
    }

    /// What lies below all that is in memory.
    fn tree(&self) -> &Arc<View> {
        match self {
            Self::Tree(view) => view,
            Self::Frozen(batch) => batch.tree(),
        }
    }
}

impl Reads for Base {
    fn progress(&self) -> &Progress {
        self.reads().progress()
    }

    fn newest(&self, key: &[u8], read: ReadVersion<'_>) -> Result<bool, StorageError> {
        self.reads().newest(key, read)
    }

    fn scan(&self, range: &KeyRange, visit: VisitVersion<'_>) -> Result<(), StorageError> {
        self.reads().scan(range, visit)
    }

    fn event(
        &self,
        at: WrittenAt,
        read: &mut dyn FnMut(EventRef<'_>) -> Result<(), StorageError>,
    ) -> Result<bool, StorageError> {
        self.reads().event(at, read)
    }

    fn events_from(&self, first: WrittenAt, visit: VisitEvent<'_>) -> Result<(), StorageError> {
        self.reads().events_from(first, visit)
    }

    fn state_row(&self, name: &[u8], read: ReadRow<'_>) -> Result<bool, StorageError> {
        self.reads().state_row(name, read)
    }

    fn state_rows(&self, names: &KeyRange, visit: Visit<'_>) -> Result<(), StorageError> {
        self.reads().state_rows(names, visit)
    }
}

/// One write, as the log will hold it.
#[derive(Clone)]
struct Event {
    key: Bytes,
    version: VersionBuf,
    replaced: Option<VersionBuf>,
}

impl Event {
    fn borrowed(&self) -> EventRef<'_> {
        let replaced = match &self.replaced {
            Some(version) => Replaced::Here(version.borrowed()),
            None => Replaced::None,
        };
        EventRef { key: &self.key, version: self.version.borrowed(), replaced }
    }
}

/// An event in memory: its bytes can be shared.
pub(crate) struct OwnEvent<'a> {
    /// The key.
    pub(crate) key: &'a Bytes,
    /// What the write made of it.
    pub(crate) version: &'a VersionBuf,
    /// What it was before, if anybody can still read that.
    pub(crate) replaced: Option<&'a VersionBuf>,
}

/// See the module.
///
/// Invariants: `events` is ordered by where it was written; `newest` holds the last event of each key in it.
pub(crate) struct Batch {
    base: Base,
    /// As the base's, moved on by every command.
    pub(crate) progress: Progress,
    settings: Settings,
    newest: BTreeMap<Bytes, VersionBuf>,
    events: Vec<Event>,
    /// Replicated rows of `state` that changed; `None`: removed.
    rows: BTreeMap<Bytes, Option<Bytes>>,
    /// Memory that all of it and what hangs on it take, about.
    bytes: u64,
    /// Bytes of the largest row written, and more.
    largest_row: usize,
    /// Writes of the command under way.
    writes: u32,
    /// What `newest` held before each event since the last [`Batch::keep`].
    undo: Vec<Option<VersionBuf>>,
    /// What `rows` held before each change since then.
    undo_rows: Vec<(Bytes, Option<Option<Bytes>>)>,
    /// What the tree holds of the keys that the apply under way looks for.
    prefetched: Option<Prefetched>,
}

/// A state of a batch to go back to.
pub(crate) struct Mark {
    progress: Progress,
    settings: Settings,
    events: usize,
    bytes: u64,
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
            largest_row: 0,
            writes: 0,
            undo: Vec::new(),
            undo_rows: Vec::new(),
            prefetched: None,
        }
    }

    /// What it lies on.
    pub(crate) fn base(&self) -> &Base {
        &self.base
    }

    /// The newest version of a key, if it was written here or in a batch below.
    pub(crate) fn written(&self, key: &[u8]) -> Option<&VersionBuf> {
        self.newest.get(key).or_else(|| self.base.written(key))
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
            largest_row: self.largest_row,
            writes: 0,
            undo: Vec::new(),
            undo_rows: Vec::new(),
            prefetched: None,
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
        for (event, before) in self.events.drain(mark.events..).zip(self.undo.drain(..)).rev() {
            match before {
                Some(version) => self.newest.insert(event.key, version),
                None => self.newest.remove(&event.key),
            };
        }
        for (name, before) in self.undo_rows.drain(..).rev() {
            match before {
                Some(row) => self.rows.insert(name, row),
                None => self.rows.remove(&name),
            };
        }
        self.prefetched = None;
        let Mark { progress, settings, bytes, .. } = mark;
        (self.progress, self.settings, self.bytes, self.writes) = (progress, settings, bytes, 0);
    }

    /// The settings after the commands so far.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Sets the members, as an entry has it.
    pub(crate) fn change_membership(&mut self, membership: Membership) {
        self.progress.state_hash.members(&membership);
        self.set_membership(membership);
    }

    /// Sets the members that were there before the first entry: those who joined later never saw it.
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
    pub(crate) fn write(&mut self, key: Bytes, version: VersionBuf, before: Option<VersionBuf>) {
        assert_eq!(version.written, self.next_write(), "a write out of order");
        self.progress.state_hash.write(&key, &version);
        let replaced_bytes = before.as_ref().map_or(0, |before| before.value.len());
        self.took(EVENT_OVERHEAD_BYTES + key.len() + version.value.len() + replaced_bytes);
        self.undo.push(self.newest.insert(key.clone(), version.clone()));
        self.events.push(Event { key, version, replaced: before });
        self.writes = self.writes.checked_add(1).expect("a command's writes fit in memory, so in 32 bits");
    }

    /// Sets a replicated row of `state`, or removes it.
    pub(crate) fn set_row(&mut self, name: Bytes, row: Option<Bytes>) {
        self.progress.state_hash.row(&name, row.as_deref());
        self.took(ROW_OVERHEAD_BYTES + name.len() + row.as_ref().map_or(0, Bytes::len));
        let before = self.rows.insert(name.clone(), row);
        self.undo_rows.push((name, before));
    }

    fn took(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.largest_row = self.largest_row.max(bytes);
    }

    /// The version that a write of `key` replaces: none when nobody can read it any more, which must not depend on how far
    /// this machine has come with dropping it.
    pub(crate) fn before(&self, key: &[u8]) -> Result<Option<VersionBuf>, StorageError> {
        let readable =
            |version: &VersionRef<'_>| version.live || self.progress.compact <= version.written.revision;
        if let Some(version) = self.known(key) {
            // The value is shared, not copied.
            let version = version.filter(|version| readable(&version.borrowed()));
            return Ok(version.cloned());
        }
        let mut before = None;
        self.base.newest(key, &mut |version| {
            before = readable(&version).then(|| version.to_buf());
            Ok(())
        })?;
        Ok(before)
    }

    /// The newest version of a key, `Some(None)` when it has none; `None` when the base must be asked.
    fn known(&self, key: &[u8]) -> Option<Option<&VersionBuf>> {
        let prefetched = || self.prefetched.as_ref()?.get(key);
        self.written(key).map(Some).or_else(prefetched)
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

    /// Writes all but the progress row, whose counts it brings up to date.
    pub(crate) fn commit(
        &self,
        writer: &mut dyn KvWriter,
        progress: &mut Progress,
    ) -> Result<(), StorageError> {
        let mut row = Vec::new();
        for (key, version) in &self.newest {
            version.encode_latest(key, &mut row);
            counted::put_latest(writer, progress, key, &row)?;
        }
        if !self.events.is_empty() {
            let mut events = self.events.iter();
            writer.append(Table::Log, &mut |key, row| {
                let Some(event) = events.next() else { return Ok(false) };
                key.clear();
                key.extend_from_slice(&event.version.written.log_key());
                event.borrowed().encode(row);
                progress.log_bytes += (LOG_KEY_BYTES + row.len()) as u64;
                Ok(true)
            })?;
        }
        for (name, row) in &self.rows {
            counted::set_state(writer, progress, name, row.as_deref())?;
        }
        if !Arc::ptr_eq(&self.settings.membership, &self.base.settings().membership) {
            meta::write_membership(writer, &self.settings.membership)?;
        }
        Ok(())
    }

    /// The events of this batch alone that were written at `first` or later, in order.
    pub(crate) fn own_events(&self, first: WrittenAt) -> impl Iterator<Item = OwnEvent<'_>> {
        let own = self.events.partition_point(|event| event.version.written < first);
        self.events[own..].iter().map(|event| OwnEvent {
            key: &event.key,
            version: &event.version,
            replaced: event.replaced.as_ref(),
        })
    }

    /// How many writes it holds.
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// Memory that it takes, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
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
        match self.known(key) {
            Some(Some(version)) => read(version.borrowed()).map(|()| true),
            Some(None) => Ok(false),
            None => self.base.newest(key, read),
        }
    }

    fn scan(&self, range: &KeyRange, visit: VisitVersion<'_>) -> Result<(), StorageError> {
        if range.is_empty() {
            return Ok(());
        }
        let mut own = self.newest.range::<[u8], _>(range.bounds()).peekable();
        let mut stopped = false;
        self.base.scan(range, &mut |key, version| {
            while let Some((own_key, own_version)) = own.next_if(|(own_key, _)| &own_key[..] < key) {
                if visit(own_key, own_version.borrowed())?.is_break() {
                    stopped = true;
                    return Ok(STOP);
                }
            }
            let flow = match own.next_if(|(own_key, _)| &own_key[..] == key) {
                Some((_, own_version)) => visit(key, own_version.borrowed())?,
                None => visit(key, version)?,
            };
            stopped = flow.is_break();
            Ok(flow)
        })?;
        if stopped {
            return Ok(());
        }
        for (key, version) in own {
            if let ControlFlow::Break(()) = visit(key, version.borrowed())? {
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
        match self.events.binary_search_by_key(&at, |event| event.version.written) {
            Ok(slot) => read(self.events[slot].borrowed()).map(|()| true),
            Err(_) => self.base.event(at, read),
        }
    }

    fn events_from(&self, first: WrittenAt, visit: VisitEvent<'_>) -> Result<(), StorageError> {
        let mut stopped = false;
        self.base.events_from(first, &mut |event| {
            let flow = visit(event)?;
            stopped = flow.is_break();
            Ok(flow)
        })?;
        let own = self.events.partition_point(|event| event.version.written < first);
        for event in self.events[own..].iter().take_while(|_| !stopped) {
            if visit(event.borrowed())?.is_break() {
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
