//! Carries pending bytes to the disk: one write for each segment touched, and one sync for the group; both in one where
//! whole blocks can be written past the page cache (`tail_block.rs`).
//!
//! A sync is cheapest when it writes over blocks that were written before: the file system then has nothing to note
//! about the file. The space of a new segment is reserved but was never written. So a synced group that runs into such
//! space writes zeros ahead of itself, and its sync settles them too: only one sync in many pays for the file system's
//! notes, and in a segment that was filled ahead (`fill.rs`) none does. Free space reads as zeros before and after, so
//! this changes nothing that recovery sees.

use std::path::PathBuf;
use std::sync::Arc;

use harmony_types::{FileSystem, OpenMode, WalError, WalOffset};

use crate::pending::{Fresh, Pending};
use crate::preallocate::{self, SegmentFile};
use crate::segment::OPENING_BYTES;
use crate::spare::Spares;
use crate::tail_block::TailBlock;

/// A group runs into space that is not settled once in so many groups of its size.
const GROUPS_AHEAD: u64 = 32;
const AHEAD_BYTES_MIN: u64 = 64 << 10;
const AHEAD_BYTES_MAX: u64 = 1 << 20;
/// Zeros ahead of larger groups would cost more than the notes that they save.
const GROUP_BYTES_MAX: u64 = 256 << 10;
const PAGE_BYTES: u64 = 4096;
/// The next segment is worth filling when this part of the open one is used: a small log takes no more than it needs.
const SEGMENT_SHARE: u64 = 4;

/// After so many bytes without a sync the system is told to carry them to the disk, beside what is appended meanwhile: the
/// step to the next segment waits for all of it.
const HINT_BYTES: u64 = 1 << 20;

/// The filler is told of the log's progress in steps of so many bytes.
const FILL_STEP_BYTES: u64 = 256 << 10;

/// Takes no memory: nobody writes to it, so all its pages are the system's one page of zeros.
static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];
const ZEROS_BYTES: usize = (1 << 20) + 4096;
const _: () = assert!(AHEAD_BYTES_MAX + PAGE_BYTES == ZEROS_BYTES as u64);

/// The open segment. Whoever holds it is the only one that writes.
pub(crate) struct Writer {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    spares: Arc<Spares>,
    open: SegmentFile,
    /// Up to this byte of the open segment, blocks were written and synced.
    pub(crate) settled: u64,
    /// The block in which the open segment's records end; `None` where blocks are no gain.
    tail: Option<TailBlock>,
    /// Something was written to the open segment that no sync covers.
    unsynced: bool,
    /// Up to this byte, the system was told to carry it to the disk.
    hinted: u64,
}

impl Writer {
    /// Goes on at byte `end` of the segment `open`, all of which is synced.
    pub(crate) fn new(
        fs: Arc<dyn FileSystem>,
        dir: PathBuf,
        spares: Arc<Spares>,
        open: SegmentFile,
        end: u32,
    ) -> Result<Self, WalError> {
        let tail = match open.file.block_bytes() {
            Some(block_bytes) => {
                let mut used = vec![0; end as usize % block_bytes];
                let at = u64::from(end) - used.len() as u64;
                let read = open.file.read_at(&mut used, at).map_err(WalError::io("read", &*open.path))?;
                if read < used.len() {
                    // It would be written over with zeros.
                    return Err(WalError::io("read", &*open.path)(std::io::ErrorKind::UnexpectedEof.into()));
                }
                Some(tail_block(block_bytes, &used))
            }
            None => None,
        };
        Ok(Self { fs, dir, spares, open, settled: 0, tail, unsynced: false, hinted: u64::from(end) })
    }

    /// Writes all of `pending`, which ends at `end`, and syncs it if asked to. Returns the segments made on the way.
    ///
    /// After an error nobody knows what is on disk: the caller poisons the log.
    pub(crate) fn write(
        &mut self,
        pending: &Pending,
        end: WalOffset,
        sync: bool,
    ) -> Result<Vec<(u32, SegmentFile)>, WalError> {
        let mut made = Vec::new();
        let group = pending.bytes.len() as u64;
        let upto = u64::from(end.byte());
        let ends = pending.pieces.iter().skip(1).map(|piece| piece.start).chain([pending.bytes.len()]);
        for (piece, end) in pending.pieces.iter().zip(ends) {
            let mut bytes = &pending.bytes[piece.start..end];
            let mut at = u64::from(piece.at.byte());
            if let Some(fresh) = &piece.fresh {
                let (opening, records) = bytes.split_at(OPENING_BYTES as usize);
                self.roll(fresh, opening)?;
                made.push((piece.at.segment(), self.for_readers()?));
                (bytes, at) = (records, u64::from(OPENING_BYTES));
            }
            let is_last = end == pending.bytes.len();
            self.put(bytes, at, sync && is_last)?;
        }
        if !sync && self.hinted + HINT_BYTES <= upto {
            self.open.file.begin_writeback(self.hinted, upto - self.hinted);
            self.hinted = upto;
        }
        let wanted = fill_wanted(upto, self.open.bytes, sync && group <= GROUP_BYTES_MAX);
        if wanted != 0 {
            self.spares.want(wanted);
        }
        if sync && self.unsynced {
            self.settle(upto, group)?;
            self.sync()?;
        }
        Ok(made)
    }

    /// The open segment through a handle of its own: what writing takes of the system goes when the next one is opened.
    fn for_readers(&self) -> Result<SegmentFile, WalError> {
        let file = self.fs.open(&self.open.path, OpenMode::Read);
        let file = file.map_err(WalError::io("open", &*self.open.path))?;
        Ok(SegmentFile { file, ..self.open.clone() })
    }

    /// Writes `bytes`, with which the log goes on at byte `at` of the open segment; durably, if that can be had in one go
    /// and `sync` asks for it.
    fn put(&mut self, bytes: &[u8], at: u64, sync: bool) -> Result<(), WalError> {
        let Some(tail) = &mut self.tail else {
            return self.put_cached(bytes, at);
        };
        // What is not synced yet needs a sync of the whole file; what is not settled, zeros behind it.
        let end = at + bytes.len() as u64;
        let in_blocks =
            sync && !self.unsynced && end <= self.settled && bytes.len() as u64 <= GROUP_BYTES_MAX;
        if in_blocks {
            let blocks = tail.blocks(bytes, at);
            if blocks.at + blocks.bytes.len() as u64 <= self.open.bytes {
                let written = self.open.file.write_blocks(blocks.bytes, blocks.at, true);
                written.map_err(WalError::io("write and sync", &*self.open.path))?;
                tail.push(bytes);
                return Ok(());
            }
        }
        tail.push(bytes);
        self.put_cached(bytes, at)
    }

    fn put_cached(&mut self, bytes: &[u8], at: u64) -> Result<(), WalError> {
        self.unsynced = true;
        self.open.file.write_at(bytes, at).map_err(WalError::io("write", &*self.open.path))
    }

    fn sync(&mut self) -> Result<(), WalError> {
        self.open.file.sync_data().map_err(WalError::io("sync", &*self.open.path))?;
        self.unsynced = false;
        Ok(())
    }

    /// Writes zeros behind `end`, where a group of `group` bytes ends, when it ran into space that is not settled. The
    /// sync that follows settles it.
    fn settle(&mut self, end: u64, group: u64) -> Result<(), WalError> {
        if end <= self.settled {
            return Ok(());
        }
        let ahead = zeros_ahead(end, group, self.open.bytes);
        self.settled = end + ahead;
        if ahead == 0 {
            return Ok(());
        }
        let zeros = &ZEROS[..usize::try_from(ahead).expect("bounded by a constant")];
        self.open.file.write_at(zeros, end).map_err(WalError::io("write", &*self.open.path))
    }

    /// Goes over to the next segment. The order is what recovery relies on: what is in the old segment is durable before
    /// the next has a name, and the next has its name before the old one is sealed.
    fn roll(&mut self, fresh: &Fresh, opening: &[u8]) -> Result<(), WalError> {
        self.sync()?;
        let (fs, dir, head) = (&*self.fs, &*self.dir, &fresh.head);
        let (next, settled) = match self.spares.take(fresh.file_bytes) {
            Some(spare) => (preallocate::finish(fs, dir, head, opening, spare.segment)?, spare.filled),
            None => (preallocate::create(fs, dir, head, opening, fresh.file_bytes)?, 0),
        };
        let seal_at = u64::from(fresh.seal_at.byte());
        self.open.file.write_at(&fresh.seal, seal_at).map_err(WalError::io("seal", &*self.open.path))?;
        self.sync()?;
        self.open = next;
        self.settled = settled;
        self.hinted = u64::from(OPENING_BYTES);
        let held = self.tail.take();
        // A segment's opening is smaller than any block.
        self.tail = self.open.file.block_bytes().map(|block_bytes| match held {
            Some(mut tail) if tail.block_bytes() == block_bytes => {
                tail.restart(opening);
                tail
            }
            _ => tail_block(block_bytes, opening),
        });
        Ok(())
    }
}

fn tail_block(block_bytes: usize, used: &[u8]) -> TailBlock {
    let group_bytes_max = usize::try_from(GROUP_BYTES_MAX).expect("a constant of some KiB");
    TailBlock::new(block_bytes, group_bytes_max, used)
}

/// How far the next segment should be filled when the open one, of `file_bytes`, is used up to `end`: nothing while it is
/// nearly empty, then, for a log of groups that settled space helps, so far that both are full at the same time. Any other
/// log gains nothing from a filler that hurries: a byte, so that it begins.
fn fill_wanted(end: u64, file_bytes: u64, hurries: bool) -> u64 {
    let used = end.saturating_sub(file_bytes / SEGMENT_SHARE);
    match used {
        0 => 0,
        _ if hurries => (used / (SEGMENT_SHARE - 1) * SEGMENT_SHARE).max(1).next_multiple_of(FILL_STEP_BYTES),
        _ => 1,
    }
}

/// How many zeros to write behind a group of `group` bytes that ends at byte `end` of a file of `file_bytes`.
fn zeros_ahead(end: u64, group: u64, file_bytes: u64) -> u64 {
    if group == 0 || GROUP_BYTES_MAX < group {
        return 0;
    }
    let ahead = (group * GROUPS_AHEAD).clamp(AHEAD_BYTES_MIN, AHEAD_BYTES_MAX);
    (end + ahead).next_multiple_of(PAGE_BYTES).min(file_bytes) - end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_ahead_are_bounded_whole_pages_and_stay_in_the_segment() {
        assert_eq!(zeros_ahead(200, 40, 64 << 20), (64 << 10) + 4096 - 200);
        assert_eq!(zeros_ahead(4096, 20_000, 64 << 20), 157 * 4096);
        assert_eq!(zeros_ahead(8192, 200_000, 64 << 20), 1 << 20);
        assert_eq!(zeros_ahead(8192, 300_000, 64 << 20), 0, "a large group pays for itself");
        assert_eq!(zeros_ahead(200, 0, 64 << 20), 0, "nothing was written");
        assert_eq!(zeros_ahead(4000, 100, 4096), 96);
        let largest = zeros_ahead(8193, GROUP_BYTES_MAX, 64 << 20);
        assert!(largest <= ZEROS.len() as u64, "{largest}");
    }
}
