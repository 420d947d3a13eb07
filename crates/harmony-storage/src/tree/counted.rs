//! Writing rows and keeping count of their bytes in [`Progress`].

use harmony_types::StorageError;

use super::meta::{self, Progress};
use super::{KvWriter, NextRow, Table};

/// Writes a key's newest record, and hands the one that it replaced, if any, to `replaced`.
///
/// # Errors
/// Those of `replaced`; what the tree reports.
pub(crate) fn put_latest(
    writer: &mut dyn KvWriter,
    progress: &mut Progress,
    key: &[u8],
    row: &[u8],
    replaced: &mut dyn FnMut(&[u8]) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let replaced = writer.replace(Table::Latest, key, row, replaced)?;
    progress.latest_bytes += row.len() as u64;
    match replaced {
        Some(bytes) => progress.latest_bytes -= bytes as u64,
        None => progress.latest_bytes += key.len() as u64,
    }
    Ok(())
}

/// Writes a replicated row of `state`, which gets its checksum here, or removes it.
///
/// # Errors
/// What the tree reports.
pub(crate) fn set_state(
    writer: &mut dyn KvWriter,
    progress: &mut Progress,
    name: &[u8],
    row: Option<&[u8]>,
) -> Result<(), StorageError> {
    let (added, replaced) = match row {
        Some(row) => meta::put_row(writer, name, row.to_vec())?,
        None => (0, writer.remove(Table::State, name)?),
    };
    let with_name = |bytes: usize| (name.len() + bytes) as u64;
    progress.state_bytes += row.map_or(0, |_| with_name(added));
    progress.state_bytes -= replaced.map_or(0, with_name);
    Ok(())
}

/// Writes rows behind the table's last one, in order, until `next` has no more.
///
/// # Errors
/// Those of `next`; what the tree reports.
pub(crate) fn append(
    writer: &mut dyn KvWriter,
    progress: &mut Progress,
    table: Table,
    next: NextRow<'_>,
) -> Result<(), StorageError> {
    let mut bytes = 0;
    writer.append(table, &mut |key, row| {
        let is_row = next(key, row)?;
        bytes += if is_row { (key.len() + row.len()) as u64 } else { 0 };
        Ok(is_row)
    })?;
    *match table {
        Table::Latest => &mut progress.latest_bytes,
        Table::Log => &mut progress.log_bytes,
        Table::State => &mut progress.state_bytes,
    } += bytes;
    Ok(())
}
