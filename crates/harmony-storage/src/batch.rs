//! The writes of one apply call, in memory on top of a view: later commands see them, readers do not, and one commit
//! takes them into the tree.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use harmony_types::{KeyRange, Membership, Revision, StorageError};

use crate::tree::meta::{self, Progress};
use crate::tree::record::{EventRef, LOG_KEY_BYTES, Replaced, VersionBuf, WrittenAt};
use crate::tree::{KvWriter, STOP, Table};
use crate::view::{ReadVersion, Reads, View, VisitEvent, VisitVersion};

/// One write, as the log will hold it.
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

/// See the module.
///
/// Invariants: `events` is ordered by where it was written; `newest` holds the last event of each key in it.
pub(crate) struct Batch {
    base: Arc<View>,
    /// As the base's, moved on by every command.
    pub(crate) progress: Progress,
    membership: Option<Membership>,
    newest: BTreeMap<Bytes, VersionBuf>,
    events: Vec<Event>,
    /// Writes of the command under way.
    writes: u32,
}

impl Batch {
    /// Nothing on top of `base`.
    pub(crate) fn new(base: Arc<View>) -> Self {
        let progress = base.progress;
        Self { base, progress, membership: None, newest: BTreeMap::new(), events: Vec::new(), writes: 0 }
    }

    /// The members after the commands so far.
    pub(crate) fn membership(&self) -> &Membership {
        self.membership.as_ref().unwrap_or(&self.base.membership)
    }

    /// Sets the members.
    pub(crate) fn set_membership(&mut self, membership: Membership) {
        self.membership = Some(membership);
    }

    /// The members to keep for the next view.
    pub(crate) fn membership_shared(&mut self) -> Arc<Membership> {
        match self.membership.take() {
            Some(membership) => Arc::new(membership),
            None => Arc::clone(&self.base.membership),
        }
    }

    /// Where the next write of the command under way goes.
    pub(crate) fn next_write(&self) -> WrittenAt {
        WrittenAt { revision: self.progress.revision.next(), sub: self.writes }
    }

    /// Takes one write. `before` is what [`Batch::before`] returned for this key.
    pub(crate) fn write(&mut self, key: Bytes, version: VersionBuf, before: Option<VersionBuf>) {
        assert_eq!(version.written, self.next_write(), "a write out of order");
        self.newest.insert(key.clone(), version.clone());
        self.events.push(Event { key, version, replaced: before });
        self.writes = self.writes.checked_add(1).expect("a command's writes fit in memory, so in 32 bits");
    }

    /// The version that a write of `key` replaces: none when nobody can read it any more, which must not depend on how far
    /// this machine has come with dropping it.
    pub(crate) fn before(&self, key: &[u8]) -> Result<Option<VersionBuf>, StorageError> {
        let mut before = None;
        self.newest(key, &mut |version| {
            if version.live || self.progress.compact <= version.written.revision {
                before = Some(version.to_buf());
            }
            Ok(())
        })?;
        Ok(before)
    }

    /// Ends a command: its writes, if any, become one revision.
    pub(crate) fn end_command(&mut self) -> Revision {
        if self.writes != 0 {
            self.progress.revision = self.progress.revision.next();
            self.writes = 0;
        }
        self.progress.revision
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
            let replaced = writer.put(Table::Latest, key, &row)?;
            progress.latest_bytes += row.len() as u64;
            match replaced {
                Some(bytes) => progress.latest_bytes -= bytes as u64,
                None => progress.latest_bytes += key.len() as u64,
            }
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
        if let Some(membership) = &self.membership {
            meta::write_membership(writer, membership)?;
        }
        Ok(())
    }

    /// How many writes it holds.
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }
}

impl Reads for Batch {
    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn newest(&self, key: &[u8], read: ReadVersion<'_>) -> Result<bool, StorageError> {
        match self.newest.get(key) {
            Some(version) => read(version.borrowed()).map(|()| true),
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
}
