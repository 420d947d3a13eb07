//! Compaction: the compact revision takes effect at once; the history before it goes in bounded steps, inside commits
//! that are made anyway.
//!
//! A version replaced at revision r is read only below r, so with reads below C refused no log row below C is needed
//! again: the prefix is dropped without a look at anything else. Only a dropped delete has a second place, its tombstone in
//! `latest`. Rows at C itself stay: a watch may start there.
//!
//! # Pace
//!
//! A step ends at a number of rows or of bytes, so the commit that it is part of takes so much longer and no more, whatever
//! waits to be dropped. Both are at least twice what the commit adds, so that the history shrinks however fast writes come:
//! of what n commits added, no more than n/2 steps can end at the number of rows and n/2 at the number of bytes, so it
//! is gone n commits after its compaction.
//!
//! What was dropped is part of the commit, in `progress`: after a crash the next step goes on where the last commit was.
//! The revision stands there, too. It is not taken from the rows, which may all be gone.

use bytes::Bytes;
use harmony_types::planted::{self, Bug};
use harmony_types::{Refusal, Revision, StorageError};

use super::OpError;
use crate::batch::Batch;
use crate::tree::meta::Progress;
use crate::tree::record::{EventRef, VersionRef, WrittenAt};
use crate::tree::{KvWriter, NEXT, STOP, Table};

/// Log rows that a commit drops besides its own work.
pub(crate) const STEP_ROWS: usize = 512;

/// Log rows that a checkpoint drops: it writes to disk anyway, and nobody waits for it. Measured: 25 ms.
pub(crate) const CHECKPOINT_ROWS: usize = 20_000;

/// Bytes of log rows that any commit drops: they are read to be dropped.
const STEP_BYTES: u64 = 16 << 20;

/// How far a step goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Rows that it drops at most.
    pub(crate) rows_max: usize,
    /// Bytes of rows behind which it ends.
    pub(crate) bytes_max: u64,
    /// Deletes among them at most: each has a tombstone somewhere else in the tree.
    pub(crate) deletes_max: usize,
}

impl Pace {
    /// That of a commit that does nothing else.
    pub(crate) const ALONE: Self =
        Self { rows_max: CHECKPOINT_ROWS, bytes_max: STEP_BYTES, deletes_max: CHECKPOINT_ROWS };

    /// That of a commit that drops `rows`, or more if it adds `batch`.
    pub(crate) fn beside(batch: &Batch, rows: usize) -> Self {
        let rows_max = rows.max(2 * batch.len());
        Self { rows_max, bytes_max: STEP_BYTES.max(2 * batch.row_bytes()), deletes_max: rows_max }
    }
}

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

/// Drops some of the history that is due to go, no event from `kept` on.
///
/// # Errors
/// What the tree reports.
pub(crate) fn step(
    writer: &mut dyn KvWriter,
    progress: &mut Progress,
    kept: Revision,
    pace: Pace,
) -> Result<(), StorageError> {
    if !is_due(progress, kept) {
        return Ok(());
    }
    let first_left = progress.compact.min(kept);
    let one_more = u64::from(planted::is(Bug::CompactOneMore));
    let end = WrittenAt { revision: Revision(first_left.0 + one_more), sub: 0 }.log_key();
    let mut rows = 0;
    let mut last = None;
    let mut tombstones: Vec<(Bytes, WrittenAt)> = Vec::new();
    let mut done = true;
    let mut bytes = 0;
    writer.scan_below(Table::Log, &end, &mut |log_key, row| {
        if rows == pace.rows_max || pace.bytes_max <= bytes || tombstones.len() == pace.deletes_max {
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
        is_newest =
            VersionRef::decode_latest(key, row)?.written == written || planted::is(Bug::DropRecreated);
        Ok(())
    })?;
    if is_newest && let Some(bytes) = writer.remove(Table::Latest, key)? {
        progress.latest_bytes -= (key.len() + bytes) as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use harmony_types::OpenMode;
    use harmony_types::fake::fs::MemoryFileSystem;

    use super::*;
    use crate::tree::record::{Replaced, VersionBuf};
    use crate::tree::redb::RedbTree;
    use crate::tree::{Durability, KvEngine as _};

    /// Rows that 40 deletes leave, each with a value of so many bytes in what it replaced.
    fn tree(value_bytes: usize) -> (RedbTree, Progress) {
        let tree =
            RedbTree::open(&MemoryFileSystem::new(), Path::new("/t"), OpenMode::CreateNew, 1 << 20).unwrap();
        let mut progress = Progress { revision: Revision(41), compact: Revision(41), ..Progress::EMPTY };
        tree.commit(Durability::Visible, &mut |writer| {
            let mut row = Vec::new();
            for revision in 1..=40 {
                let key = revision.to_string();
                let written = WrittenAt { revision: Revision(revision), sub: 0 };
                let tombstone = VersionBuf::tombstone(written);
                tombstone.encode_latest(key.as_bytes(), &mut row);
                writer.put(Table::Latest, key.as_bytes(), &row)?;
                progress.latest_bytes += (key.len() + row.len()) as u64;
                let value = vec![7; value_bytes];
                let before = VersionRef { live: true, value: &value, ..tombstone.borrowed() };
                let replaced = Replaced::Here(before);
                EventRef { key: key.as_bytes(), version: tombstone.borrowed(), replaced }.encode(&mut row);
                writer.put(Table::Log, &written.log_key(), &row)?;
                progress.log_bytes += (written.log_key().len() + row.len()) as u64;
            }
            Ok(())
        })
        .unwrap();
        (tree, progress)
    }

    /// Rows of both tables after each step, until all are gone.
    fn steps(value_bytes: usize, pace: Pace) -> Vec<(usize, usize)> {
        let (tree, mut progress) = tree(value_bytes);
        let mut left = Vec::new();
        while progress.dropped != progress.compact {
            tree.commit(Durability::Visible, &mut |writer| step(writer, &mut progress, KEEP_NONE, pace))
                .unwrap();
            let view = tree.view().unwrap();
            let count = |table| {
                let mut rows = 0;
                view.scan(table, crate::canonical::EVERYTHING, &mut |_, _| {
                    rows += 1;
                    Ok(NEXT)
                })
                .unwrap();
                rows
            };
            left.push((count(Table::Latest), count(Table::Log)));
        }
        assert_eq!((progress.latest_bytes, progress.log_bytes), (0, 0), "what is gone is not counted");
        left
    }

    #[test]
    fn a_step_ends_at_its_number_of_rows() {
        let pace = Pace { rows_max: 15, bytes_max: u64::MAX, deletes_max: usize::MAX };
        assert_eq!(steps(10, pace), [(25, 25), (10, 10), (0, 0)]);
    }

    #[test]
    fn a_step_ends_at_its_number_of_deletes() {
        let pace = Pace { rows_max: usize::MAX, bytes_max: u64::MAX, deletes_max: 15 };
        assert_eq!(steps(10, pace), [(25, 25), (10, 10), (0, 0)]);
    }

    #[test]
    fn a_step_ends_at_its_number_of_bytes() {
        // Each row is a little larger than its value.
        let pace = Pace { rows_max: usize::MAX, bytes_max: 16_000, deletes_max: usize::MAX };
        assert_eq!(steps(1_000, pace), [(24, 24), (8, 8), (0, 0)]);
        // However large a row is: one goes.
        assert_eq!(steps(1_000, Pace { bytes_max: 1, ..pace }).len(), 40);
    }
}
