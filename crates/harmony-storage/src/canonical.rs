//! The rows that every member has at the same applied index, however far each has come with dropping what compaction gave
//! up: what a snapshot carries and what the state hash covers.

use std::ops::{Bound, ControlFlow};

use harmony_types::{Revision, StorageError};

use crate::tree::record::{EventRef, VersionRef, WrittenAt, check_crc};
use crate::tree::{NEXT, Table, Visit, rows};
use crate::view::View;

/// The bounds of a whole table.
pub(crate) const EVERYTHING: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Unbounded);

/// The tables with rows of that kind, in the order in which a snapshot carries them.
pub(crate) const TABLES: [Table; 3] = [Table::Latest, Table::Log, Table::State];

/// Visits the rows of a table behind the key `after`, each checked: without tombstones and events below the compact
/// revision, and of `state` the replicated ones.
///
/// # Errors
/// What reading reports.
pub(crate) fn rows(
    view: &View,
    table: Table,
    after: Option<&[u8]>,
    visit: Visit<'_>,
) -> Result<(), StorageError> {
    let compact = view.progress.compact;
    let first_event = WrittenAt { revision: compact, sub: 0 }.log_key();
    let from = match (after, table) {
        (Some(after), _) => Bound::Excluded(after),
        (None, Table::Log) => Bound::Included(&first_event[..]),
        (None, _) => Bound::Unbounded,
    };
    view.tree.scan(table, (from, Bound::Unbounded), &mut |key, row| {
        let common = match table {
            Table::Latest => {
                let version = VersionRef::decode_latest(key, row)?;
                version.live || compact <= version.written.revision
            }
            Table::Log => EventRef::decode(key, row).map(|_| true)?,
            Table::State => {
                check_crc(table, key, row)?;
                rows::is_replicated(key)
            }
        };
        if common { visit(key, row) } else { Ok(NEXT) }
    })
}

/// Visits the events from a revision on, in order.
///
/// # Errors
/// What reading reports.
pub(crate) fn log_from(
    view: &View,
    first: Revision,
    visit: &mut dyn FnMut(EventRef<'_>) -> Result<ControlFlow<()>, StorageError>,
) -> Result<(), StorageError> {
    let from = WrittenAt { revision: first, sub: 0 }.log_key();
    view.tree.scan(Table::Log, (Bound::Included(&from), Bound::Unbounded), &mut |key, row| {
        visit(EventRef::decode(key, row)?)
    })
}
