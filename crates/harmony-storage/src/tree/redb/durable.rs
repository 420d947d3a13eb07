//! What the last durable commit holds, read from the file and around the cache of the tree that is open on it.
//!
//! A second redb, which only reads, sees the file as if it had been closed after that commit. Damage that it meets stops it
//! alone: the tree that is open goes on.

use std::any::Any;
use std::sync::Arc;

use harmony_types::StorageError;
use redb::{Database, DatabaseError, ReadOnlyDatabase, ReadableDatabase};

use super::{LATEST, LOG, RedbTree, RedbView, STATE, TreeFile, call, contained, failed, header};
use crate::tree::backend::FirstDamage;
use crate::tree::overlay::{Overlay, OverlayBackend};
use crate::tree::{KvEngine, KvView};

/// Memory for pages that are read once, in order.
const CACHE_BYTES: usize = 8 << 20;

/// See the module.
pub(super) struct Durable {
    pub(super) database: ReadOnlyDatabase,
    pub(super) overlay: Arc<Overlay>,
    pub(super) file: TreeFile,
}

impl RedbTree {
    /// Opens what the last durable commit holds; `None` behind a repair, until the next one. It stands still as long as
    /// nobody commits, or as a view that was taken behind that commit is there.
    ///
    /// # Errors
    /// [`StorageError::CrcMismatch`]; the system's.
    pub(super) fn open_durable(&self) -> Result<Option<Durable>, StorageError> {
        // With a place of its own for damage: what is met here is not what stopped the open tree.
        let file = TreeFile { damage: FirstDamage::default(), ..self.file.clone() };
        let found = header::read(&file.pages, &file.path)?;
        let overlay = Overlay::new(Arc::clone(&file.pages), Arc::clone(&file.damage))
            .with_header(header::as_closed(found), header::pages_told(&found));
        let overlay = Arc::new(overlay);
        let opened = contained("open", &file, || {
            Database::builder()
                .set_cache_size(CACHE_BYTES)
                .open_read_only_with_backend(OverlayBackend(Arc::clone(&overlay)))
        })?;
        match opened {
            Err(DatabaseError::RepairAborted) => Ok(None),
            opened => {
                let database = opened.map_err(failed("open", &file))?;
                Ok(Some(Durable { database, overlay, file }))
            }
        }
    }

    /// A view of the last durable commit, which must be the last commit, from the file. Others may commit while it is there.
    ///
    /// # Errors
    /// As [`RedbTree::open_durable`].
    pub(crate) fn durable_view(&self) -> Result<Arc<dyn KvView>, StorageError> {
        // Keeps the commit's pages from being used again.
        let pin = self.view()?;
        let Some(Durable { database, overlay, file }) = self.open_durable()? else {
            return Err(StorageError::CorruptRecord {
                place: self.file.path.display().to_string(),
                reason: "its last commit is not a durable one".to_owned(),
            });
        };
        overlay.count_no_reads();
        let transaction = call("begin a view", &file, || database.begin_read())?;
        let open = |table| call("open a table", &file, || transaction.open_table(table));
        let (latest, log, state) = (open(LATEST)?, open(LOG)?, open(STATE)?);
        let kept: Arc<dyn Any + Send + Sync> = Arc::new((database, pin));
        Ok(Arc::new(RedbView { latest, log, state, _kept: kept, file }))
    }
}
