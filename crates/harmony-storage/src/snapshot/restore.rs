//! A new cluster out of a snapshot: the same keys, users and leases under other members, at the beginning of another log.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use harmony_types::config::StorageConfig;
use harmony_types::{
    Applied, FileSystem, HardState, LogIndex, Membership, Revision, Snapshot, SnapshotData, SnapshotMeta,
    Storage as _, StorageError, Term,
};

use super::frames::{Frames, take_row};
use super::read::slot;
use super::write::{put_bytes, put_end, put_frame, put_head};
use super::{Head, KIND_END, KIND_LATEST, KIND_LOG, KIND_STATE};
use crate::tree::meta::MembershipRow;
use crate::tree::record::{EventRef, VersionRef};
use crate::tree::{Table, rows};
use crate::unified::UnifiedStorage;

/// Where the log of a restored cluster begins: as if its first entry had brought everything.
const BEGIN: Applied = Applied { index: LogIndex(1), term: Term(1) };

/// What is other than in the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restore {
    /// The members of the new cluster.
    pub membership: Membership,
    /// Added to the revision, so that none that a client of the old cluster may have seen behind the snapshot comes again.
    pub bump_revision: u64,
    /// Gives up all history, so that watches of clients of the old cluster end instead of missing events.
    pub mark_compacted: bool,
}

/// Makes the log and the tree of one member of a new cluster, whose identity is in `config`, in directories that are empty or not
/// there. The same snapshot and the same `restore` make members that agree. Alarms are not restored: the members that raised them are
/// gone. Returns the revision.
///
/// Not atomic: when it fails, both directories are worthless and to be removed.
///
/// # Errors
/// [`StorageError::InvalidIndex`] when the directories hold something; [`StorageError::CrcMismatch`], [`StorageError::CorruptRecord`] and
/// [`StorageError::UnsupportedVersion`] of the stream; else the disk.
pub fn restore_snapshot(
    fs: Arc<dyn FileSystem>,
    wal_dir: &Path,
    tree_dir: &Path,
    config: StorageConfig,
    restore: Restore,
    stream: Box<dyn Read + Send>,
) -> Result<Revision, StorageError> {
    let cluster = config.wal.identity.cluster;
    let storage = UnifiedStorage::open(fs, wal_dir, tree_dir, config)?;
    if storage.applied().index != LogIndex(0) || storage.bounds().last != LogIndex(0) {
        return Err(StorageError::InvalidIndex {
            index: storage.applied().index,
            reason: "a member is there already: restore into an empty directory".to_owned(),
        });
    }
    let mut frames = Frames::new(stream);
    let mut head = frames.head()?;
    let revision =
        head.revision.checked_add(restore.bump_revision).filter(|revision| i64::try_from(*revision).is_ok());
    head.revision =
        revision.ok_or_else(|| frames.corrupt("the revision with what is added to it is too large"))?;
    if restore.mark_compacted {
        head.compact = head.revision;
    }
    head.cluster = cluster.0;
    (head.index, head.term) = (BEGIN.index.0, BEGIN.term.0);
    head.membership = Some(MembershipRow::from(&restore.membership));
    let kept = Revision(if restore.mark_compacted { head.compact } else { 0 });
    let meta = SnapshotMeta { index: BEGIN.index, term: BEGIN.term, membership: restore.membership };
    let rewritten = Rewritten::new(frames, &head, kept);
    storage.save_snapshot(Snapshot { meta, data: SnapshotData::Stream(Box::new(rewritten)) })?;
    // Its members begin in the term of what they have.
    storage.save(Some(&HardState { term: BEGIN.term, commit: BEGIN.index, ..HardState::default() }), &[])?;
    storage.sync()?;
    let revision = storage.revision();
    storage.close()?;
    Ok(revision)
}

/// A stream with another head, and without the rows that the new cluster does not keep.
struct Rewritten {
    frames: Frames<Box<dyn Read + Send>>,
    /// Events before it are left out, and so are tombstones.
    kept: Revision,
    counts: [u64; 3],
    out: Vec<u8>,
    read: usize,
    is_done: bool,
}

impl Rewritten {
    fn new(frames: Frames<Box<dyn Read + Send>>, head: &Head, kept: Revision) -> Self {
        let mut out = Vec::new();
        put_head(&mut out, head);
        Self { frames, kept, counts: [0; 3], out, read: 0, is_done: false }
    }

    fn fill(&mut self) -> Result<(), StorageError> {
        self.out.clear();
        self.read = 0;
        let (kind, payload) = self.frames.next()?;
        let table = match kind {
            KIND_LATEST => Table::Latest,
            KIND_LOG => Table::Log,
            KIND_STATE => Table::State,
            KIND_END => {
                put_end(&mut self.out, self.counts);
                self.is_done = true;
                return Ok(());
            }
            _ => return Err(self.frames.corrupt("a frame of an unknown kind")),
        };
        let mut payload = payload.as_slice();
        let mut left = Vec::with_capacity(payload.len());
        while !payload.is_empty() {
            let (key, row) = take_row(&self.frames, &mut payload)?;
            if self.keeps(table, key, row)? {
                put_bytes(&mut left, key);
                put_bytes(&mut left, row);
                self.counts[slot(table)] += 1;
            }
        }
        if !left.is_empty() {
            put_frame(&mut self.out, kind, &left);
        }
        Ok(())
    }

    fn keeps(&self, table: Table, key: &[u8], row: &[u8]) -> Result<bool, StorageError> {
        Ok(match table {
            Table::Latest => {
                let version = VersionRef::decode_latest(key, row)?;
                version.live || self.kept <= version.written.revision
            }
            Table::Log => self.kept <= EventRef::decode(key, row)?.version.written.revision,
            Table::State => !rows::is_alarm(key),
        })
    }
}

impl Read for Rewritten {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.out.len() && !self.is_done {
            self.fill().map_err(io::Error::other)?;
        }
        let bytes = buffer.len().min(self.out.len() - self.read);
        buffer[..bytes].copy_from_slice(&self.out[self.read..self.read + bytes]);
        self.read += bytes;
        Ok(bytes)
    }
}
