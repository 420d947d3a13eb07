//! Carries pending bytes to the disk: one write for each segment touched, one sync for the group.

use std::path::PathBuf;
use std::sync::Arc;

use harmony_types::{FileSystem, WalError};

use crate::pending::{Fresh, Pending};
use crate::preallocate::{self, SegmentFile};
use crate::segment::OPENING_BYTES;

/// The open segment. Whoever holds it is the only one that writes.
pub(crate) struct Writer {
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) dir: PathBuf,
    pub(crate) open: SegmentFile,
}

impl Writer {
    /// Writes all of `pending`, and syncs it if asked to. Returns the segments made on the way.
    ///
    /// After an error nobody knows what is on disk: the caller poisons the log.
    pub(crate) fn write(
        &mut self,
        pending: &Pending,
        sync: bool,
    ) -> Result<Vec<(u32, SegmentFile)>, WalError> {
        let mut made = Vec::new();
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
            self.open.file.write_at(bytes, at).map_err(WalError::io("write", &self.open.path))?;
        }
        if sync {
            self.sync()?;
        }
        Ok(made)
    }

    fn sync(&self) -> Result<(), WalError> {
        self.open.file.sync_data().map_err(WalError::io("sync", &self.open.path))
    }

    /// Goes over to the next segment. The order is what recovery relies on: what is in the old segment is durable before
    /// the next has a name, and the next has its name before the old one is sealed.
    fn roll(&mut self, fresh: &Fresh, opening: &[u8]) -> Result<(), WalError> {
        self.sync()?;
        let next = preallocate::create(&*self.fs, &self.dir, &fresh.head, opening, fresh.file_bytes)?;
        let seal_at = u64::from(fresh.seal_at.byte());
        self.open.file.write_at(&fresh.seal, seal_at).map_err(WalError::io("seal", &self.open.path))?;
        self.sync()?;
        self.open = next;
        Ok(())
    }
}
