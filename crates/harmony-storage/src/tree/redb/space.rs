//! What the file has free, and what of it takes space on the disk.

use std::sync::Arc;

use harmony_types::StorageError;
use redb::Database;

use super::{RedbTree, TreeFile, contained, failed, header};
use crate::tree::backend::FirstDamage;
use crate::tree::overlay::{Overlay, OverlayBackend};
use crate::tree::pages::PAGE_BYTES;

/// Memory for pages that are read once, in order.
const CACHE_BYTES: usize = 8 << 20;

/// Pages of a tree's file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Space {
    /// Free since the last durable commit, or longer.
    pub(crate) free_pages: u64,
    /// Never written: they take no space of the disk yet.
    pub(crate) unwritten_pages: u64,
}

impl RedbTree {
    /// Pages of the file.
    pub(crate) fn file_pages(&self) -> u64 {
        self.file.pages.len() / PAGE_BYTES as u64
    }

    /// Counts the pages that were free after the last durable commit: reads the whole tree, in a second redb, so that damage
    /// stops nothing else. Nobody may commit meanwhile. Where that cannot be told, there are none.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn space(&self) -> Result<Space, StorageError> {
        let unwritten = self.file.pages.unwritten_pages();
        let unwritten_pages = unwritten.map_err(StorageError::io("read", &*self.file.path))?;
        let free_pages = self.free_pages().unwrap_or_else(|error| {
            tracing::warn!(%error, "the tree's free pages cannot be counted");
            0
        });
        Ok(Space { free_pages, unwritten_pages })
    }

    fn free_pages(&self) -> Result<u64, StorageError> {
        let file = TreeFile { damage: FirstDamage::default(), ..self.file.clone() };
        let found = header::read(&file.pages, &file.path)?;
        let pages = header::pages_told(&found);
        let overlay = Arc::new(
            Overlay::new(Arc::clone(&file.pages), Arc::clone(&file.damage))
                .with_header(header::as_closed(found), pages),
        );
        overlay.count_no_reads();
        let allocated = contained("count pages", &file, || -> Result<u64, StorageError> {
            let database = Database::builder()
                .set_cache_size(CACHE_BYTES)
                .create_with_backend(OverlayBackend(overlay))
                .map_err(failed("open", &file))?;
            let transaction = database.begin_write().map_err(failed("begin a commit", &file))?;
            let stats = transaction.stats().map_err(failed("count pages", &file))?;
            transaction.abort().map_err(failed("end a commit", &file))?;
            Ok(stats.allocated_pages())
        })??;
        // The header's page is never allocated.
        Ok(pages.saturating_sub(allocated + 1))
    }

    /// Takes the place of all pages of the file on the disk; false when it has too little.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn take_place(&self) -> Result<bool, StorageError> {
        self.file.pages.take_place().map_err(StorageError::io("reserve space in", &*self.file.path))
    }
}
