//! Looks ahead to a full disk: what the log has place for, and what it is about to take.
//!
//! A segment's space is reserved when it is made, so what is written into it meets no full disk; only the step to the next one
//! can. While that has no place, the rest of the open segment is kept: first for what frees space, then for Raft's own
//! small records.

use harmony_types::DiskSpace;

use crate::wal::FileWal;

/// Part of a segment that is kept for commands that free space.
const LOW_SHARE: u64 = 4;

/// Part of a segment that is kept for what must always be written.
const OUT_SHARE: u64 = 16;

/// What there is, bytes.
struct Room {
    /// In the open segment.
    open: u64,
    /// Of segments that are planned and do not exist yet.
    planned: u64,
    /// In released segments that are kept.
    spares: u64,
    /// On the disk.
    free: u64,
    /// That the quota allows beside all of these.
    quota: u64,
}

impl Room {
    fn of(wal: &FileWal) -> Self {
        let state = wal.state();
        let (open, planned, held) = (state.encoder.room(), state.planned_bytes(), state.disk_bytes);
        drop(state);
        // A file system that cannot tell shows it at the write.
        let free = wal.fs.free_bytes(&wal.dir).unwrap_or(u64::MAX);
        let quota = wal.config.quota_bytes.map_or(u64::MAX, |quota| quota.saturating_sub(held));
        Self { open, planned, spares: wal.spares.bytes(), free, quota }
    }

    /// Bytes that records may take: those of whole segments, besides the open one.
    fn left(&self, segment_bytes: u64) -> u64 {
        // The open segment itself has no place yet.
        let Some(more) = self.spares.saturating_add(self.free).checked_sub(self.planned) else { return 0 };
        self.open.saturating_add(more.min(self.quota) / segment_bytes * segment_bytes)
    }
}

/// See [`harmony_types::Wal::disk_space`].
pub(crate) fn disk_space(wal: &FileWal, upcoming_bytes: u64) -> DiskSpace {
    let segment_bytes = wal.config.segment_bytes;
    let left = Room::of(wal).left(segment_bytes).saturating_sub(upcoming_bytes);
    if left < segment_bytes / OUT_SHARE {
        DiskSpace::Out
    } else if left < segment_bytes / LOW_SHARE {
        DiskSpace::Low
    } else {
        DiskSpace::Enough
    }
}

/// See [`harmony_types::Wal::unreserved_bytes`]: segments that are planned, and the next one when it is near.
pub(crate) fn unreserved_bytes(wal: &FileWal) -> u64 {
    let segment_bytes = wal.config.segment_bytes;
    let room = Room::of(wal);
    let next = room.spares == 0 && room.open < segment_bytes / LOW_SHARE && segment_bytes <= room.free;
    room.planned.saturating_sub(room.spares) + if next { segment_bytes } else { 0 }
}
