//! What reads look at: the tree at one applied index, or that with writes in memory on top.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use harmony_types::planted::{self, Bug};
use harmony_types::{KeyRange, LogIndex, StorageError};

use crate::settings::Settings;
use crate::tree::meta::Progress;
use crate::tree::record::{EventRef, VersionBuf, VersionRef, WrittenAt, check_crc};
use crate::tree::{KvView, Table, Visit};

/// Takes the newest version of one key; says whether to go on.
pub(crate) type VisitVersion<'a> =
    &'a mut dyn FnMut(&[u8], VersionRef<'_>) -> Result<ControlFlow<()>, StorageError>;

/// Takes one version.
pub(crate) type ReadVersion<'a> = &'a mut dyn FnMut(VersionRef<'_>) -> Result<(), StorageError>;

/// Takes the key of one write, and when it was; says whether to go on.
pub(crate) type VisitWrite<'a> = &'a mut dyn FnMut(&[u8], WrittenAt) -> Result<ControlFlow<()>, StorageError>;

/// Takes one row of `state`, its checksum off.
pub(crate) type ReadRow<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), StorageError>;

/// The tables, as the data model reads them.
pub(crate) trait Reads {
    /// How far the state machine is.
    fn progress(&self) -> &Progress;

    /// Hands the newest version of a key, tombstone or not, to `read`; false when there is none.
    fn newest(&self, key: &[u8], read: ReadVersion<'_>) -> Result<bool, StorageError>;

    /// Visits the newest versions, tombstones included, of the keys in a range, in key order.
    fn scan(&self, range: &KeyRange, visit: VisitVersion<'_>) -> Result<(), StorageError>;

    /// Hands the event written there to `read`; false when there is none.
    fn event(
        &self,
        at: WrittenAt,
        read: &mut dyn FnMut(EventRef<'_>) -> Result<(), StorageError>,
    ) -> Result<bool, StorageError>;

    /// Visits the writes at `first` or later, in order.
    fn writes_from(&self, first: WrittenAt, visit: VisitWrite<'_>) -> Result<(), StorageError>;

    /// Hands a replicated row of `state` to `read`; false when there is none.
    fn state_row(&self, name: &[u8], read: ReadRow<'_>) -> Result<bool, StorageError>;

    /// Visits the replicated rows of `state` with a name in `names`, which is not empty, in order, their checksums off.
    fn state_rows(&self, names: &KeyRange, visit: Visit<'_>) -> Result<(), StorageError>;
}

/// The whole state machine at one applied index. Shared by all readers until the next apply; never changes.
pub(crate) struct View {
    /// The tables.
    pub(crate) tree: Arc<dyn KvView>,
    /// How far it is.
    pub(crate) progress: Progress,
    /// What is held decoded, then.
    pub(crate) settings: Settings,
}

impl View {
    /// Reads a tree's state rows.
    pub(crate) fn open(tree: Arc<dyn KvView>) -> Result<Self, StorageError> {
        let progress = Progress::read(&*tree)?;
        let settings = Settings::read(&*tree)?;
        Ok(Self { tree, progress, settings })
    }

    /// The index that a snapshot of it is of.
    pub(crate) fn snapshot_index(&self) -> LogIndex {
        LogIndex(self.progress.applied.index.0 + u64::from(planted::is(Bug::SnapshotSaysMore)))
    }

    /// The newest version of a key, tombstone or not.
    ///
    /// # Errors
    /// What reading reports.
    pub(crate) fn version(&self, key: &[u8]) -> Result<Option<VersionBuf>, StorageError> {
        let mut found = None;
        self.newest(key, &mut |version| {
            found = Some(version.to_buf());
            Ok(())
        })?;
        Ok(found)
    }

    /// Visits the events written at `first` or later, in order, until `visit` says to stop.
    ///
    /// # Errors
    /// Those of `visit`; what reading reports.
    pub(crate) fn events_from(
        &self,
        first: WrittenAt,
        visit: &mut dyn FnMut(EventRef<'_>) -> Result<ControlFlow<()>, StorageError>,
    ) -> Result<(), StorageError> {
        let bounds = (Bound::Included(&first.log_key()[..]), Bound::Unbounded);
        self.tree.scan(Table::Log, bounds, &mut |key, row| visit(EventRef::decode(key, row)?))
    }
}

impl Reads for View {
    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn newest(&self, key: &[u8], read: ReadVersion<'_>) -> Result<bool, StorageError> {
        self.tree.get(Table::Latest, key, &mut |row| read(VersionRef::decode_latest(key, row)?))
    }

    fn scan(&self, range: &KeyRange, visit: VisitVersion<'_>) -> Result<(), StorageError> {
        if range.is_empty() {
            return Ok(());
        }
        self.tree.scan(Table::Latest, range.bounds(), &mut |key, row| {
            visit(key, VersionRef::decode_latest(key, row)?)
        })
    }

    fn event(
        &self,
        at: WrittenAt,
        read: &mut dyn FnMut(EventRef<'_>) -> Result<(), StorageError>,
    ) -> Result<bool, StorageError> {
        let key = at.log_key();
        self.tree.get(Table::Log, &key, &mut |row| read(EventRef::decode(&key, row)?))
    }

    fn writes_from(&self, first: WrittenAt, visit: VisitWrite<'_>) -> Result<(), StorageError> {
        self.events_from(first, &mut |event| visit(event.key, event.version.written))
    }

    fn state_row(&self, name: &[u8], read: ReadRow<'_>) -> Result<bool, StorageError> {
        self.tree.get(Table::State, name, &mut |row| read(check_crc(Table::State, name, row)?))
    }

    fn state_rows(&self, names: &KeyRange, visit: Visit<'_>) -> Result<(), StorageError> {
        self.tree.scan(Table::State, names.bounds(), &mut |name, row| {
            visit(name, check_crc(Table::State, name, row)?)
        })
    }
}
