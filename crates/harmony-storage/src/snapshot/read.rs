//! A snapshot into a new tree. Memory stays constant: frames are checked and written, some MiB of them at a time, before the
//! next ones are read.

use std::io::Read;

use harmony_types::config::Identity;
use harmony_types::{Applied, LogIndex, Membership, Revision, SnapshotMeta, StorageError, Term};
use prost::Message as _;

use super::{
    FRAME_BYTES_MAX, FRAME_HEAD_BYTES, Head, KIND_END, KIND_HEAD, KIND_LATEST, KIND_LOG, KIND_STATE, MAGIC,
    STREAM_VERSION, frame_crc,
};
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
    let mut frames = Frames { stream, offset: 0 };
    frames.magic()?;
    let (kind, payload) = frames.next()?;
    let head = match kind {
        KIND_HEAD => Head::decode(payload.as_slice()).map_err(|error| frames.corrupt(&error.to_string()))?,
        _ => return Err(frames.corrupt("the head is missing")),
    };
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
        ..Progress::EMPTY
    };
    Rows { new, last: None, table: Table::Latest, counts: [0; 3] }.copy(&mut frames)?;
    // The members come from Raft's own record of the snapshot where there is one: both must be the same.
    if !snapshot.membership.voters.is_empty() && snapshot.membership.voters != membership.voters {
        return Err(frames.corrupt("the snapshot's members are not those announced"));
    }
    new.finish(&membership)
}

/// The frames of a stream.
struct Frames<'a> {
    stream: &'a mut dyn Read,
    offset: u64,
}

impl Frames<'_> {
    fn corrupt(&self, reason: &str) -> StorageError {
        StorageError::CorruptRecord {
            place: format!("snapshot stream, byte {}", self.offset),
            reason: reason.to_owned(),
        }
    }

    fn read(&mut self, bytes: usize) -> Result<Vec<u8>, StorageError> {
        // Grows with what really arrives: a damaged length does not allocate.
        let mut buffer = Vec::new();
        let read = (&mut *self.stream)
            .take(bytes as u64)
            .read_to_end(&mut buffer)
            .map_err(StorageError::io("read", "the snapshot stream"))?;
        if read < bytes {
            return Err(self.corrupt("the stream ends early"));
        }
        self.offset += bytes as u64;
        Ok(buffer)
    }

    fn magic(&mut self) -> Result<(), StorageError> {
        let head = self.read(MAGIC.len() + 4)?;
        let (magic, version) = head.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(self.corrupt("this is no snapshot"));
        }
        let found = u32::from_be_bytes(version.try_into().expect("4 bytes were read"));
        if found != STREAM_VERSION {
            let place = "the snapshot stream".to_owned();
            return Err(StorageError::UnsupportedVersion { place, found, supported: STREAM_VERSION });
        }
        Ok(())
    }

    /// Kind and payload of the next frame, checked.
    fn next(&mut self) -> Result<(u8, Vec<u8>), StorageError> {
        let place = format!("snapshot stream, byte {}", self.offset);
        let head = self.read(FRAME_HEAD_BYTES)?;
        let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("4 bytes of 9"));
        let (bytes, found, kind) = (number(0) as usize, number(4), head[8]);
        if FRAME_BYTES_MAX < bytes {
            return Err(self.corrupt("the frame is too long"));
        }
        let payload = self.read(bytes)?;
        let expected = frame_crc(kind, &payload);
        if expected != found {
            return Err(StorageError::CrcMismatch { place, expected, found });
        }
        Ok((kind, payload))
    }

    fn end(&mut self) -> Result<(), StorageError> {
        let mut one = Vec::new();
        let read = (&mut *self.stream).take(1).read_to_end(&mut one);
        match read.map_err(StorageError::io("read", "the snapshot stream"))? {
            0 => Ok(()),
            _ => Err(self.corrupt("bytes behind the end")),
        }
    }
}

/// Copies rows into the tree, in the order in which they come, which must be ascending.
struct Rows<'a> {
    new: &'a mut NewTree,
    table: Table,
    last: Option<Vec<u8>>,
    counts: [u64; 3],
}

impl Rows<'_> {
    fn copy(mut self, frames: &mut Frames<'_>) -> Result<(), StorageError> {
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
                    if payload != counts {
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
    fn write(&mut self, frames: &Frames<'_>, group: &[(Table, Vec<u8>)]) -> Result<(), StorageError> {
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
            let next = take_bytes(&mut rest).zip(take_bytes(&mut rest));
            let (row_key, row_value) = next.ok_or_else(|| frames.corrupt("a row is cut short"))?;
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
fn slot(table: Table) -> usize {
    match table {
        Table::Latest => 0,
        Table::Log => 1,
        Table::State => 2,
    }
}

/// Whether a row makes sense in a snapshot whose revision is `newest`.
fn check(
    frames: &Frames<'_>,
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

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk::<4>()?;
    let (bytes, behind) = behind.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *rest = behind;
    Some(bytes)
}
