//! A snapshot looked at without a store: is it whole, and what does it hold?

use std::io::Read;

use harmony_types::{ClusterId, LogIndex, Revision, StorageError, Term};

use super::frames::{Frames, take_row};
use super::read::{check, slot};
use super::{KIND_END, KIND_LATEST, KIND_LOG, KIND_STATE};
use crate::tree::Table;
use crate::tree::record::VersionRef;

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotSummary {
    /// The cluster that it is of.
    pub cluster: ClusterId,
    /// Last entry that it contains.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// The newest revision.
    pub revision: Revision,
    /// The oldest revision that can be read; 0 when nothing was compacted.
    pub compact_revision: Revision,
    /// Keys at the newest revision.
    pub keys: u64,
    /// Events of the history.
    pub events: u64,
}

/// Reads a snapshot up to its end, which leaves the stream there: a file may have more behind it. Checks every frame, every record
/// and the counts at the end.
///
/// # Errors
/// [`StorageError::CrcMismatch`], [`StorageError::CorruptRecord`], [`StorageError::UnsupportedVersion`]: what is wrong, and where.
pub fn inspect_snapshot(stream: impl Read) -> Result<SnapshotSummary, StorageError> {
    let mut frames = Frames::new(stream);
    let head = frames.head()?;
    let revision = Revision(head.revision);
    let mut counts = [0; 3];
    let mut keys = 0;
    loop {
        let (kind, payload) = frames.next()?;
        let table = match kind {
            KIND_LATEST => Table::Latest,
            KIND_LOG => Table::Log,
            KIND_STATE => Table::State,
            KIND_END => {
                let expected: Vec<u8> = counts.iter().flat_map(|rows: &u64| rows.to_be_bytes()).collect();
                if payload != expected {
                    return Err(frames.corrupt("rows are missing"));
                }
                break;
            }
            _ => return Err(frames.corrupt("a frame of an unknown kind")),
        };
        let mut rest = payload.as_slice();
        while !rest.is_empty() {
            let (key, row) = take_row(&frames, &mut rest)?;
            check(&frames, table, key, row, revision)?;
            counts[slot(table)] += 1;
            keys += u64::from(table == Table::Latest && VersionRef::decode_latest(key, row)?.live);
        }
    }
    Ok(SnapshotSummary {
        cluster: ClusterId(head.cluster),
        index: LogIndex(head.index),
        term: Term(head.term),
        revision,
        compact_revision: Revision(head.compact),
        keys,
        events: counts[slot(Table::Log)],
    })
}
