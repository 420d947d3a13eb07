//! Reads that may end early.

use harmony_types::{KeyRange, StorageError};

use crate::tree::Visit;
use crate::tree::meta::Progress;
use crate::tree::record::{EventRef, WrittenAt};
use crate::view::{ReadRow, ReadVersion, Reads, VisitVersion, VisitWrite};

/// Reads with a look at `check` before every row and event, which is told the bytes of the row's value. Its error ends the
/// read.
///
/// Single keys and rows come without: a reader that asks for many of them looks at a row of a scan or at an event before
/// each.
pub(crate) struct Checked<'a, C> {
    pub(crate) reads: &'a dyn Reads,
    pub(crate) check: C,
}

impl<C: Fn(usize) -> Result<(), StorageError>> Reads for Checked<'_, C> {
    fn progress(&self) -> &Progress {
        self.reads.progress()
    }

    fn newest(&self, key: &[u8], read: ReadVersion<'_>) -> Result<bool, StorageError> {
        self.reads.newest(key, read)
    }

    fn scan(&self, range: &KeyRange, visit: VisitVersion<'_>) -> Result<(), StorageError> {
        self.reads.scan(range, &mut |key, version| {
            (self.check)(version.value.len())?;
            visit(key, version)
        })
    }

    fn event(
        &self,
        at: WrittenAt,
        read: &mut dyn FnMut(EventRef<'_>) -> Result<(), StorageError>,
    ) -> Result<bool, StorageError> {
        (self.check)(0)?;
        self.reads.event(at, read)
    }

    fn writes_from(&self, first: WrittenAt, visit: VisitWrite<'_>) -> Result<(), StorageError> {
        self.reads.writes_from(first, &mut |key, written| {
            (self.check)(0)?;
            visit(key, written)
        })
    }

    fn state_row(&self, name: &[u8], read: ReadRow<'_>) -> Result<bool, StorageError> {
        self.reads.state_row(name, read)
    }

    fn state_rows(&self, names: &KeyRange, visit: Visit<'_>) -> Result<(), StorageError> {
        self.reads.state_rows(names, &mut |name, row| {
            (self.check)(row.len())?;
            visit(name, row)
        })
    }
}
