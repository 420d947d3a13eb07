//! Gives up a prefix of the log, whole segments at a time: they become spares, or go.

use harmony_types::{LogIndex, WalError, WalOffset};

use crate::preallocate::SegmentFile;
use crate::wal::FileWal;

/// Frees the segments that hold nothing but entries up to `upto`.
///
/// The log first notes, durably, which segments it still needs: an open that misses one of those refuses, and one that
/// finds others removes them. The open segment always stays, and so does the newest hard state, which every segment
/// repeats in its opening.
pub(crate) fn release(wal: &FileWal, upto: LogIndex) -> Result<(), WalError> {
    let Some(oldest) = oldest_needed(wal, upto)? else { return Ok(()) };
    wal.push_release(oldest)?;
    let (released, room) = forget(wal, oldest);
    let recycled = wal.spares.recycle(released, room);
    if let Err(error) = &recycled {
        wal.poison(error);
    }
    recycled
}

/// The first segment to keep; `None` when nothing can go.
fn oldest_needed(wal: &FileWal, upto: LogIndex) -> Result<Option<u32>, WalError> {
    let state = wal.state();
    state.check_writable()?;
    let bounds = state.index.bounds();
    if bounds.boundary < upto && state.last_durable() < upto {
        let reason = "only entries that are durable can be released";
        return Err(WalError::InvalidIndex { index: upto, bounds, reason });
    }
    // What is written bounds it from above: segments that are only planned do not exist yet.
    let open = state.written.segment();
    let next = state.index.slot(upto.max(bounds.boundary).next());
    let oldest = next.map_or(open, |slot| slot.offset.segment().min(open));
    Ok(state.segments.keys().next().is_some_and(|first| *first < oldest).then_some(oldest))
}

/// Takes the segments before `oldest` out of the state. Returns them and how many bytes of spares the quota allows.
fn forget(wal: &FileWal, oldest: u32) -> (Vec<SegmentFile>, u64) {
    let mut state = wal.state();
    let kept = state.segments.split_off(&oldest);
    let gone = std::mem::replace(&mut state.segments, kept);
    state.disk_bytes -= gone.values().map(|segment| segment.bytes).sum::<u64>();
    let boundary = state.index.last_before(WalOffset::new(oldest, 0));
    state.index.advance_boundary(boundary);
    state.cache.release(boundary);
    let room = wal.config.quota_bytes.map_or(u64::MAX, |quota| quota.saturating_sub(state.disk_bytes));
    (gone.into_values().collect(), room)
}
