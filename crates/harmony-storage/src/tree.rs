//! The B-tree file, as the rest of the crate sees it: three ordered tables, read through views that never change, written
//! by one atomic commit at a time.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | [`Table::Latest`] | the key's bytes | the key's newest record, see [`record`]; overwritten in place |
//! | [`Table::Log`] | revision (u64) and sub (u32), big endian | the event and the record it replaced; appended |
//! | [`Table::State`] | a name | what else belongs to the state machine, see [`meta`] and [`rows`] |
//!
//! The traits hide which library makes a tree of the file's pages; only [`redb`] and [`backend`] name it. [`pages`] gives each
//! page a checksum.

pub(crate) mod backend;
pub(crate) mod counted;
pub(crate) mod meta;
mod overlay;
pub(crate) mod pages;
pub(crate) mod record;
pub(crate) mod redb;
pub(crate) mod rows;

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use harmony_types::StorageError;

/// The tables of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// Key to newest record.
    Latest,
    /// Revision to event.
    Log,
    /// Name to whatever else.
    State,
}

/// Stops a scan.
pub(crate) const STOP: ControlFlow<()> = ControlFlow::Break(());
/// Goes on with a scan.
pub(crate) const NEXT: ControlFlow<()> = ControlFlow::Continue(());

/// Takes one row; says whether to go on.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StorageError>;

/// Fills in the next row's key and value; says whether there was one.
pub(crate) type NextRow<'a> = &'a mut dyn FnMut(&mut Vec<u8>, &mut Vec<u8>) -> Result<bool, StorageError>;

/// All tables as they were when the view was taken. Blocks nobody, and nobody blocks it.
pub(crate) trait KvView: Send + Sync {
    /// Hands the value of `key` to `read`; false when there is none.
    fn get(
        &self,
        table: Table,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]) -> Result<(), StorageError>,
    ) -> Result<bool, StorageError>;

    /// Visits the rows between the bounds in key order. The bounds must not be turned round.
    fn scan(
        &self,
        table: Table,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        visit: Visit<'_>,
    ) -> Result<(), StorageError>;
}

/// The inside of a commit.
pub(crate) trait KvWriter {
    /// Writes a row, and hands the value that it replaced, if any, to `replaced`; returns how many bytes that had.
    fn replace(
        &mut self,
        table: Table,
        key: &[u8],
        value: &[u8],
        replaced: &mut dyn FnMut(&[u8]) -> Result<(), StorageError>,
    ) -> Result<Option<usize>, StorageError>;

    /// Writes a row; returns how many bytes of value it replaced, if any.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<Option<usize>, StorageError> {
        self.replace(table, key, value, &mut |_| Ok(()))
    }

    /// Removes a row; returns how many bytes of value it had, if it was there.
    fn remove(&mut self, table: Table, key: &[u8]) -> Result<Option<usize>, StorageError>;

    /// Hands the value of `key` to `read`; false when there is none. Sees this commit's writes.
    fn get(
        &mut self,
        table: Table,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]) -> Result<(), StorageError>,
    ) -> Result<bool, StorageError>;

    /// Writes rows behind the table's last one, in order, until `next` has no more.
    fn append(&mut self, table: Table, next: NextRow<'_>) -> Result<(), StorageError>;

    /// Visits the rows below `end` in key order, this commit's writes included.
    fn scan_below(&mut self, table: Table, end: &[u8], visit: Visit<'_>) -> Result<(), StorageError>;

    /// Removes all rows up to and including `last`.
    fn remove_through(&mut self, table: Table, last: &[u8]) -> Result<(), StorageError>;
}

/// How far a commit goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Visible to later views; lost at a crash together with all that followed it.
    Visible,
    /// On disk, with every commit before it.
    Durable,
}

/// A tree file.
pub(crate) trait KvEngine: Send + Sync {
    /// A view of all that was committed.
    fn view(&self) -> Result<Arc<dyn KvView>, StorageError>;

    /// Runs `write` and commits what it wrote, all or nothing: an error of `write` leaves the tree as it was.
    fn commit(
        &self,
        durability: Durability,
        write: &mut dyn FnMut(&mut dyn KvWriter) -> Result<(), StorageError>,
    ) -> Result<(), StorageError>;

    /// Length of the file, bytes.
    fn file_bytes(&self) -> Result<u64, StorageError>;
}
