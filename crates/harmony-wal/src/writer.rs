//! Carries pending bytes to the disk: one write for each segment touched, one sync for the group.
//!
//! A sync is cheapest when it writes over blocks that were written before: the file system then has nothing to note
//! about the file. The space of a new segment is reserved but was never written. So a synced group that runs into such
//! space writes zeros ahead of itself, and its sync settles them too: only one sync in many pays for the file system's
//! notes, and in a segment that was filled ahead (`fill.rs`) none does. Free space reads as zeros before and after, so
//! this changes nothing that recovery sees.

use std::path::PathBuf;
use std::sync::Arc;

use harmony_types::{FileSystem, WalError, WalOffset};

use crate::pending::{Fresh, Pending};
use crate::preallocate::{self, SegmentFile};
use crate::segment::OPENING_BYTES;
use crate::spare::Spares;

/// A group runs into space that is not settled once in so many groups of its size.
const GROUPS_AHEAD: u64 = 32;
const AHEAD_BYTES_MIN: u64 = 64 << 10;
const AHEAD_BYTES_MAX: u64 = 1 << 20;
/// Zeros ahead of larger groups would cost more than the notes that they save.
const GROUP_BYTES_MAX: u64 = 256 << 10;
const PAGE_BYTES: u64 = 4096;
/// The next segment is worth filling when this part of the open one is used: a small log takes no more than it needs.
const SEGMENT_SHARE: u64 = 4;

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
}

impl Writer {
    /// Goes on in the segment `open`.
    pub(crate) fn new(fs: Arc<dyn FileSystem>, dir: PathBuf, spares: Arc<Spares>, open: SegmentFile) -> Self {
        Self { fs, dir, spares, open, settled: 0 }
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
        let ends = pending.pieces.iter().skip(1).map(|piece| piece.start).chain([pending.bytes.len()]);
        for (piece, end) in pending.pieces.iter().zip(ends) {
            let mut bytes = &pending.bytes[piece.start..end];
            let mut at = u64::from(piece.at.byte());
            if let Some(fresh) = &piece.fresh {
                let (opening, records) = bytes.split_at(OPENING_BYTES as usize);
                self.roll(fresh, opening)?;
                made.push((piece.at.segment(), self.open.clone()));
                (bytes, at) = (records, u64::from(OPENING_BYTES));
            }
            self.open.file.write_at(bytes, at).map_err(WalError::io("write", &*self.open.path))?;
        }
        let wanted = fill_wanted(u64::from(end.byte()), self.open.bytes, sync && group <= GROUP_BYTES_MAX);
        if wanted != 0 {
            self.spares.want(wanted);
        }
        if sync {
            self.settle(u64::from(end.byte()), group)?;
            self.sync()?;
        }
        Ok(made)
    }

    fn sync(&self) -> Result<(), WalError> {
        self.open.file.sync_data().map_err(WalError::io("sync", &*self.open.path))
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
            Some(spare) => (preallocate::open_with(fs, dir, head, opening, spare.segment)?, spare.filled),
            None => (preallocate::create(fs, dir, head, opening, fresh.file_bytes)?, 0),
        };
        let seal_at = u64::from(fresh.seal_at.byte());
        self.open.file.write_at(&fresh.seal, seal_at).map_err(WalError::io("seal", &*self.open.path))?;
        self.sync()?;
        self.open = next;
        self.settled = settled;
        Ok(())
    }
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
