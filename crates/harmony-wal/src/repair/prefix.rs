//! How far a damaged log is good: read as an open reads it, which then says where it stopped.

use std::path::Path;

use harmony_types::{ClusterId, FileSystem, LogIndex, NodeId, WalError, WalOffset};

use super::Kept;
use crate::frame::Header;
use crate::reader::SegmentReader;
use crate::recovery::{self, Found, Seen};
use crate::replay::Replay;
use crate::segment::{HEAD_BYTES, Head, OPENING_BYTES, SegmentName};

/// The good part of a log.
pub(super) struct Prefix {
    /// At least one; the last one is good up to `end`, the others whole.
    pub(super) segments: Vec<Found>,
    pub(super) replay: Replay,
    /// Byte of the last segment behind the last good frame; before the seal, if there is one.
    pub(super) end: u32,
    /// Checksum of that frame.
    pub(super) chain: u32,
}

impl Prefix {
    pub(super) fn last(&self) -> &Found {
        self.segments.last().expect("a prefix has a segment")
    }

    pub(super) fn kept(&self) -> Kept {
        let needed = |found: &&Found| self.replay.oldest <= found.name.sequence;
        Kept {
            // Those that the log had released go at the next open.
            segments: self.segments.iter().filter(needed).count().max(1),
            records: self.replay.records,
            bounds: self.replay.index.bounds(),
            hard_state: self.replay.state,
            end: WalOffset::new(self.last().name.sequence, self.end),
        }
    }
}

/// What a reading came to.
pub(super) struct Walk {
    /// `None` when already the first segment does not open.
    pub(super) prefix: Option<Prefix>,
    /// What stopped it.
    pub(super) damage: Option<WalError>,
}

/// Whether an error says that the log is damaged, and not that it cannot be read now or by this release.
#[must_use]
pub fn is_damage(error: &WalError) -> bool {
    matches!(
        error,
        WalError::CrcMismatch { .. } | WalError::CorruptRecord { .. } | WalError::MissingSegment { .. }
    )
}

/// Refuses segments of a newer release or of different owners. Returns the owner that the first good head names.
pub(super) fn check_heads(
    fs: &dyn FileSystem,
    dir: &Path,
    names: &[SegmentName],
) -> Result<Option<(ClusterId, Option<NodeId>)>, WalError> {
    let mut owner: Option<Head> = None;
    for name in names {
        let head = match open_segment(fs, dir, *name) {
            Ok(found) => found.head,
            Err(error) if is_damage(&error) => continue,
            Err(error) => return Err(error),
        };
        let first = owner.get_or_insert(head);
        if (first.cluster, first.node) != (head.cluster, head.node) {
            return Err(WalError::Foreign {
                path: name.path(dir),
                found_cluster: ClusterId(head.cluster),
                found_node: head.node,
                cluster: ClusterId(first.cluster),
                node: first.node,
            });
        }
    }
    Ok(owner.map(|head| (ClusterId(head.cluster), NodeId::new(head.node))))
}

/// Slot of the first segment that counts. That is the first one, except when segments are missing between some that the
/// log had released and not yet removed, and those that it needs: then it is the first needed, as at an open.
pub(super) fn start(fs: &dyn FileSystem, dir: &Path, names: &[SegmentName]) -> Result<usize, WalError> {
    let gap = (1..names.len()).rev().find(|slot| names[slot - 1].sequence + 1 != names[*slot].sequence);
    let Some(gap) = gap else { return Ok(0) };
    let released = walk(fs, dir, &names[gap..])?
        .prefix
        .is_some_and(|prefix| names[gap].sequence <= prefix.replay.oldest);
    Ok(if released { gap } else { 0 })
}

/// Reads `names` up to the first damage.
pub(super) fn walk(fs: &dyn FileSystem, dir: &Path, names: &[SegmentName]) -> Result<Walk, WalError> {
    let (mut segments, mut damage) = open_run(fs, dir, names)?;
    let Some(first) = segments.first() else { return Ok(Walk { prefix: None, damage }) };
    let mut replay = Replay::new(&first.head);
    // Slot, byte and checksum of where the good part ends.
    let mut end = None;
    for (slot, found) in segments.iter().enumerate() {
        let before = (replay.oldest, replay.records);
        replay.oldest = replay.oldest.max(found.head.oldest);
        let follower = segments.get(slot + 1).map(|next| next.chain);
        let mut trail = Trail::new(found.chain);
        let mut visit = |seen: Seen<'_>| trail.pass(&seen);
        let error = match recovery::read_segment(fs, found, follower, &mut replay, &mut visit) {
            Ok(read) => {
                end = Some((slot, read.at, trail.chain_at(read.at)));
                continue;
            }
            Err(error) => error,
        };
        let at = match &error {
            WalError::CrcMismatch { offset, .. } | WalError::CorruptRecord { offset, .. } => {
                u32::try_from(*offset).expect("offsets in a segment have 32 bits")
            }
            // Behind the seal, which goes too.
            WalError::MissingSegment { .. } => trail.last_at,
            _ => return Err(error),
        };
        match (&error, &damage) {
            // Why the next segment is not there is known better.
            (WalError::MissingSegment { .. }, Some(_)) => {}
            _ => damage = Some(error),
        }
        if at < OPENING_BYTES {
            // The segment's opening is damaged: it goes as a whole.
            (replay.oldest, replay.records) = before;
        } else {
            end = Some((slot, at, trail.chain_at(at)));
        }
        break;
    }
    if let Some(WalError::MissingSegment { index, .. }) = &mut damage {
        *index = replay.index.last();
    }
    let prefix = end.map(|(slot, end, chain)| {
        segments.truncate(slot + 1);
        // As at an open: what was released does not count though its files are there.
        let last = segments[slot].name.sequence;
        if segments[0].name.sequence < replay.oldest {
            let boundary = replay.index.last_before(WalOffset::new(replay.oldest.min(last), 0));
            replay.index.advance_boundary(boundary);
        }
        Prefix { segments, replay, end, chain }
    });
    Ok(Walk { prefix, damage })
}

/// Opens segments one behind the other, up to a damaged opening or a missing segment.
fn open_run(
    fs: &dyn FileSystem,
    dir: &Path,
    names: &[SegmentName],
) -> Result<(Vec<Found>, Option<WalError>), WalError> {
    let mut segments: Vec<Found> = Vec::with_capacity(names.len());
    for name in names {
        let next = segments.last().map(|last| last.name.sequence + 1);
        if let Some(next) = next.filter(|next| *next != name.sequence) {
            let (sequence, index) = (u64::from(next), LogIndex::ZERO);
            let missing = WalError::MissingSegment { dir: dir.to_owned(), sequence, index };
            return Ok((segments, Some(missing)));
        }
        match open_segment(fs, dir, *name) {
            Ok(found) => segments.push(found),
            Err(error) if is_damage(&error) => return Ok((segments, Some(error))),
            Err(error) => return Err(error),
        }
    }
    Ok((segments, None))
}

/// Opens a segment; a version that is newer only because its number is damaged is damage.
fn open_segment(fs: &dyn FileSystem, dir: &Path, name: SegmentName) -> Result<Found, WalError> {
    let error = match recovery::open_segment(fs, dir, name, None) {
        Err(error @ WalError::UnsupportedVersion { .. }) => error,
        other => return other,
    };
    let path = name.path(dir);
    let mut reader = SegmentReader::new(recovery::open_read(fs, &path)?, path.clone(), name.sequence)?;
    let bytes: [u8; HEAD_BYTES] = reader.window(0, HEAD_BYTES)?.try_into().expect("a window has its size");
    if Head::version_is_damaged(&bytes) {
        let reason = "the version in the segment's head is damaged".to_owned();
        return Err(recovery::corrupt(&path, 0, name.first.prev(), reason));
    }
    Err(error)
}

/// The last two frames that a reading passed.
struct Trail {
    last_at: u32,
    /// Checksums of the last frame and of the one before.
    last: u32,
    before: u32,
}

impl Trail {
    fn new(chain: u32) -> Self {
        Self { last_at: 0, last: chain, before: chain }
    }

    fn pass(&mut self, seen: &Seen<'_>) {
        if let Seen::Frame(at, Header { crc, .. }, _) = seen {
            (self.last_at, self.before, self.last) = (at.byte(), self.last, *crc);
        }
    }

    /// Checksum of the frame that ends at byte `at`: behind the last frame, or before it.
    fn chain_at(&self, at: u32) -> u32 {
        if at == self.last_at { self.before } else { self.last }
    }
}
