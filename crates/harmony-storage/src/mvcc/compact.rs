//! Compaction: the compact revision takes effect at once; the history before it goes in bounded steps, inside commits
//! that are made anyway.
//!
//! A version replaced at revision r is read only below r, so with reads below C refused no log row below C is needed
//! again: the prefix is dropped without a look at anything else. Only a dropped delete has a second place, its tombstone in
//! `latest`. Rows at C itself stay: a watch may start there.

use bytes::Bytes;
use harmony_types::{Refusal, Revision, StorageError};

use super::OpError;
use crate::tree::meta::Progress;
use crate::tree::record::{EventRef, VersionRef, WrittenAt};
use crate::tree::{KvWriter, NEXT, STOP, Table};

/// Log rows that a commit drops besides its own work.
pub(crate) const STEP_ROWS: usize = 512;

/// Log rows that a checkpoint drops: it writes to disk anyway, and nobody waits for it.
pub(crate) const CHECKPOINT_ROWS: usize = 20_000;

/// Sets the compact revision.
///
/// # Errors
/// [`Refusal::Compacted`] up to the present one, [`Refusal::FutureRevision`] past the newest.
pub(crate) fn compact(progress: &mut Progress, revision: i64) -> Result<(), OpError> {
    let revision = Revision(u64::try_from(revision).unwrap_or(0));
    if revision <= progress.compact {
        return Err(OpError::Refused(Refusal::Compacted));
    }
    if progress.revision < revision {
        return Err(OpError::Refused(Refusal::FutureRevision));
    }
    progress.compact = revision;
    Ok(())
}

/// No event is kept because of a rebuild.
pub(crate) const KEEP_NONE: Revision = Revision(u64::MAX);

/// Whether history is due to go, besides the events from `kept` on.
pub(crate) fn is_due(progress: &Progress, kept: Revision) -> bool {
    progress.dropped < progress.compact.min(kept)
}

/// Drops up to `rows_max` rows of the history that is due to go, none from `kept` on.
///
/// # Errors
/// What the tree reports.
pub(crate) fn step(
    writer: &mut dyn KvWriter,
    progress: &mut Progress,
    kept: Revision,
    rows_max: usize,
) -> Result<(), StorageError> {
    if !is_due(progress, kept) {
        return Ok(());
    }
    let first_left = progress.compact.min(kept);
    let end = WrittenAt { revision: first_left, sub: 0 }.log_key();
    let mut rows = 0;
    let mut last = None;
    let mut tombstones: Vec<(Bytes, WrittenAt)> = Vec::new();
    let mut done = true;
    let mut bytes = 0;
    writer.scan_below(Table::Log, &end, &mut |log_key, row| {
        if rows == rows_max {
            done = false;
            return Ok(STOP);
        }
        rows += 1;
        bytes += (log_key.len() + row.len()) as u64;
        let event = EventRef::decode(log_key, row)?;
        if !event.version.live {
            tombstones.push((Bytes::copy_from_slice(event.key), event.version.written));
        }
        last = Some(event.version.written.log_key());
        Ok(NEXT)
    })?;
    if let Some(last) = last {
        writer.remove_through(Table::Log, &last)?;
    }
    progress.log_bytes -= bytes;
    for (key, written) in tombstones {
        drop_tombstone(writer, progress, &key, written)?;
    }
    if done {
        progress.dropped = first_left;
    }
    Ok(())
}

/// Removes the tombstone of a delete, unless the key was written again since.
fn drop_tombstone(
    writer: &mut dyn KvWriter,
    progress: &mut Progress,
    key: &[u8],
    written: WrittenAt,
) -> Result<(), StorageError> {
    let mut is_newest = false;
    writer.get(Table::Latest, key, &mut |row| {
        is_newest = VersionRef::decode_latest(key, row)?.written == written;
        Ok(())
    })?;
    if is_newest && let Some(bytes) = writer.remove(Table::Latest, key)? {
        progress.latest_bytes -= (key.len() + bytes) as u64;
    }
    Ok(())
}
