//! A snapshot into a new tree. Memory stays constant: frames are checked and written, some MiB of them at a time, before the
//! next ones are read.

use std::io::Read;

use harmony_types::config::Identity;
use harmony_types::planted::{self, Bug};
use harmony_types::{Applied, LogIndex, Membership, Revision, SnapshotMeta, StorageError, Term};

use super::frames::{Frames, take_row};
use super::{KIND_END, KIND_LATEST, KIND_LOG, KIND_STATE};
use crate::new_tree::NewTree;
use crate::state_hash::StateHash;
use crate::tree::meta::Progress;
use crate::tree::record::{EventRef, VersionRef, check_crc};
use crate::tree::{Table, rows};

/// Rows written between two commits, bytes.
const COMMIT_BYTES: usize = 8 << 20;

/// Fills the empty `new` from `stream` and finishes it.
///
/// # Errors
/// [`StorageError::CrcMismatch`], [`StorageError::CorruptRecord`] (cut short, out of order, not what `meta` says) and
/// [`StorageError::UnsupportedVersion`]: the tree is worthless then.
pub(crate) fn install(
    new: &mut NewTree,
    identity: Identity,
    snapshot: &SnapshotMeta,
    stream: &mut dyn Read,
) -> Result<(), StorageError> {
    let mut frames = Frames::new(stream);
    let head = frames.head()?;
    if head.cluster != identity.cluster.0 {
        return Err(frames.corrupt("the snapshot is of another cluster"));
    }
    if head.index != snapshot.index.0 || head.term != snapshot.term.0 {
        return Err(frames.corrupt("the snapshot is not of the index and term announced"));
    }
    let membership = Membership::try_from(head.membership.unwrap_or_default())
        .map_err(|reason| frames.corrupt(&reason))?;
    if membership.check().is_err() || head.revision < head.compact || head.revision == 0 {
        return Err(frames.corrupt("the head makes no sense"));
    }
    new.progress = Progress {
        applied: Applied { index: LogIndex(head.index), term: Term(head.term) },
        revision: Revision(head.revision),
        compact: Revision(head.compact),
        dropped: Revision(head.compact),
        state_hash: StateHash(head.state_hash),
        boundary_pending: true,
        lost: false,
        ..Progress::EMPTY
    };
    Rows { new, last: None, table: Table::Latest, counts: [0; 3] }.copy(&mut frames)?;
    // The members come from Raft's own record of the snapshot where there is one: both must be the same.
    if !snapshot.membership.voters.is_empty() && snapshot.membership.voters != membership.voters {
        return Err(frames.corrupt("the snapshot's members are not those announced"));
    }
    new.finish(&membership)
}

/// Copies rows into the tree, in the order in which they come, which must be ascending.
struct Rows<'a> {
    new: &'a mut NewTree,
    table: Table,
    last: Option<Vec<u8>>,
    counts: [u64; 3],
}

impl Rows<'_> {
    fn copy(mut self, frames: &mut Frames<impl Read>) -> Result<(), StorageError> {
        let mut group: Vec<(Table, Vec<u8>)> = Vec::new();
        let mut group_bytes = 0;
        loop {
            let (kind, payload) = frames.next()?;
            let table = match kind {
                KIND_LATEST if self.table == Table::Latest => Table::Latest,
                KIND_LOG if self.table != Table::State => Table::Log,
                KIND_STATE => Table::State,
                KIND_END => {
                    self.write(frames, &group)?;
                    let counts: Vec<u8> = self.counts.iter().flat_map(|rows| rows.to_be_bytes()).collect();
                    if payload != counts && !planted::is(Bug::HalfSnapshot) {
                        return Err(frames.corrupt("rows are missing"));
                    }
                    return frames.end();
                }
                _ => return Err(frames.corrupt("a frame out of order")),
            };
            if self.table != table {
                self.write(frames, &group)?;
                group.clear();
                group_bytes = 0;
                self.table = table;
                self.last = None;
            }
            if table == Table::Log && planted::is(Bug::HalfSnapshot) {
                continue;
            }
            group_bytes += payload.len();
            group.push((table, payload));
            if COMMIT_BYTES <= group_bytes {
                self.write(frames, &group)?;
                group.clear();
                group_bytes = 0;
            }
        }
    }

    /// Writes frames of one table.
    fn write(&mut self, frames: &Frames<impl Read>, group: &[(Table, Vec<u8>)]) -> Result<(), StorageError> {
        let Some((table, _)) = group.first() else { return Ok(()) };
        let (Self { new, last, counts, .. }, table) = (self, *table);
        let newest = new.progress.revision;
        let mut payloads = group.iter().map(|(_, payload)| payload.as_slice());
        let mut rest: &[u8] = &[];
        let bytes = group.iter().map(|(_, payload)| payload.len() as u64).sum();
        new.append(table, bytes, &mut |key, row| {
            while rest.is_empty() {
                match payloads.next() {
                    Some(payload) => rest = payload,
                    None => return Ok(false),
                }
            }
            let (row_key, row_value) = take_row(frames, &mut rest)?;
            if last.as_deref().is_some_and(|last| row_key <= last) {
                return Err(frames.corrupt("rows out of order"));
            }
            check(frames, table, row_key, row_value, newest)?;
            counts[slot(table)] += 1;
            for (copy, bytes) in [(last.get_or_insert_default(), row_key), (key, row_key), (row, row_value)] {
                copy.clear();
                copy.extend_from_slice(bytes);
            }
            Ok(true)
        })
    }
}

/// A table's place among the counts at the end.
pub(super) fn slot(table: Table) -> usize {
    match table {
        Table::Latest => 0,
        Table::Log => 1,
        Table::State => 2,
    }
}

/// Whether a row makes sense in a snapshot whose revision is `newest`.
pub(super) fn check(
    frames: &Frames<impl Read>,
    table: Table,
    key: &[u8],
    row: &[u8],
    newest: Revision,
) -> Result<(), StorageError> {
    let written = match table {
        Table::Latest => VersionRef::decode_latest(key, row)?.written,
        Table::Log => EventRef::decode(key, row)?.version.written,
        Table::State => return rows::check(key, check_crc(table, key, row)?),
    };
    if newest < written.revision {
        return Err(frames.corrupt("a row is newer than the snapshot"));
    }
    Ok(())
}
