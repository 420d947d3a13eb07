//! [`StorageView`]: the whole state at one revision, held for as long as somebody reads.

use harmony_types::history::{Events, EventsRequest};
use harmony_types::txn::Range;
use harmony_types::{Applied, KeyValue, Revision, StorageError};

use crate::checked::Checked;
use crate::events;
use crate::mvcc::chunks::Cursor;
use crate::mvcc::{At, history, range};
use crate::reads::{RangeResult, refused};
use crate::tree::meta::Progress;
use crate::unified::UnifiedStorage;
use crate::view::Reads;
use crate::views::Pin;

/// The state of the store at one applied index. What is read at it is the same at any time: writes, checkpoints and
/// compactions do not change it, and it stops none of them, nor other views.
///
/// While it is held, the tree's file grows by what checkpoints write. When that exceeds
/// [`view_bytes_max`](harmony_types::config::StorageConfig::view_bytes_max), the view is ended: every read of it, also one
/// that is under way, fails with [`StorageError::ViewExpired`]. Then a new view, or a larger limit, is the way on. One that
/// was taken while a checkpoint ran may keep a copy of what is in memory; there is a limit for those, too. Closing the storage
/// ends all views with [`StorageError::Closed`].
pub struct StorageView {
    pin: Pin,
    progress: Progress,
}

impl UnifiedStorage {
    /// Takes a view of what was applied last. Waits for no checkpoint.
    ///
    /// # Errors
    /// [`StorageError::Closed`]; [`StorageError::Tree`] and the like from the disk.
    pub fn view(&self) -> Result<StorageView, StorageError> {
        let since = self.views().written();
        let base = self.fixed_view()?;
        let progress = *base.progress();
        Ok(StorageView { pin: self.views().pin(since, base), progress })
    }
}

impl StorageView {
    /// The newest revision that it has.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.progress.revision
    }

    /// The oldest revision that can be read at it; 0 when nothing was compacted.
    #[must_use]
    pub fn compact_revision(&self) -> Revision {
        self.progress.compact
    }

    /// The last entry that it has.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.progress.applied
    }

    /// Reads until it is ended.
    ///
    /// # Errors
    /// [`StorageError::ViewExpired`], [`StorageError::Closed`], and those of `read`.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&dyn Reads) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let base = self.pin.base()?;
        read(&Checked { reads: &base, check: |_| self.pin.check() })
    }

    fn at(&self, revision: i64) -> Result<At, StorageError> {
        At::requested(revision, &self.progress).map_err(|refusal| refused(refusal, revision, &self.progress))
    }

    /// Reads a range of keys.
    ///
    /// # Errors
    /// [`StorageError::Compacted`], [`StorageError::FutureRevision`]: as of when the view was taken.
    /// [`StorageError::ViewExpired`]; [`StorageError::CrcMismatch`] and the like.
    pub fn range(&self, request: &Range) -> Result<RangeResult, StorageError> {
        let at = self.at(request.revision)?;
        let outcome = self.read(|reads| range::range(reads, request, at))?;
        Ok(RangeResult { revision: self.revision(), outcome })
    }

    /// The newest version of a key.
    ///
    /// # Errors
    /// [`StorageError::ViewExpired`]; [`StorageError::CrcMismatch`] and the like.
    pub fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, StorageError> {
        self.read(|reads| history::get(reads, key))
    }

    /// Reads the history, see [`UnifiedStorage::events`]; it ends with the view's revision.
    ///
    /// # Errors
    /// As those of [`UnifiedStorage::events`]; [`StorageError::ViewExpired`].
    pub fn events(&self, request: &EventsRequest) -> Result<Events, StorageError> {
        events::check_compacted(request, self.progress.compact)?;
        events::of_view(&self.pin.base()?, request)
    }

    /// Reads a range in pieces, which together are the answer of [`StorageView::range`]. A piece is all that is in memory at
    /// a time, and each key is looked at once.
    ///
    /// # Errors
    /// [`StorageError::Compacted`], [`StorageError::FutureRevision`]; [`StorageError::CorruptRecord`] for a request whose
    /// answer is not in ascending order of keys: it must be sorted as a whole.
    pub fn into_chunks(self, request: Range) -> Result<RangeChunks, StorageError> {
        let at = self.at(request.revision)?;
        let cursor = Cursor::new(request, at).ok_or_else(|| StorageError::CorruptRecord {
            place: "range in pieces".to_owned(),
            reason: "it is sorted in another way than by key, ascending: read it whole".to_owned(),
        })?;
        Ok(RangeChunks { view: self, cursor })
    }
}

impl std::fmt::Debug for StorageView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StorageView").field("progress", &self.progress).finish_non_exhaustive()
    }
}

/// A range that is read in pieces. Holds its view.
#[derive(Debug)]
pub struct RangeChunks {
    view: StorageView,
    cursor: Cursor,
}

/// A piece of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeChunk {
    /// The next keys, ascending.
    pub kvs: Vec<KeyValue>,
    /// In the last piece, what is known only then.
    pub end: Option<RangeEnd>,
}

/// What is known of a range when all of it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeEnd {
    /// Keys in the range, whatever limit and filters left out.
    pub count: i64,
    /// Whether the limit left some out.
    pub more: bool,
}

impl RangeChunks {
    /// The view that is read.
    #[must_use]
    pub fn view(&self) -> &StorageView {
        &self.view
    }

    /// The next piece, of at most `bytes_max` bytes of keys and values, but one key at least; `None` behind the last one.
    /// The last piece may come late: it has the count, for which the keys behind the limit are looked at.
    ///
    /// # Errors
    /// [`StorageError::ViewExpired`]: the pieces so far are right, but the rest cannot be had.
    /// [`StorageError::CrcMismatch`] and the like.
    pub fn next_chunk(&mut self, bytes_max: usize) -> Result<Option<RangeChunk>, StorageError> {
        if self.cursor.is_done() {
            return Ok(None);
        }
        let kvs = self.view.read(|reads| self.cursor.next_chunk(reads, bytes_max))?;
        let Cursor { count, more, .. } = self.cursor;
        let end = self.cursor.is_done().then_some(RangeEnd { count, more });
        Ok(Some(RangeChunk { kvs, end }))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use harmony_types::config::StorageConfig;
    use harmony_types::fake::fs::MemoryFileSystem;
    use harmony_types::txn::Put;
    use harmony_types::{Command, CommandKind, Entry, EntryType, KeyRange, Storage as _, Term};

    use super::*;
    use crate::tree::NEXT;

    fn overwrite(storage: &UnifiedStorage) {
        let entries: Vec<Entry> = (1..=100)
            .map(|number| {
                let put =
                    Put { key: format!("k{number}").into(), value: vec![7; 1_000].into(), ..Put::default() };
                let data = Command::from(CommandKind::Put(put)).encode_to_bytes();
                let index = harmony_types::LogIndex(storage.applied().index.0 + number);
                Entry { term: Term(1), index, entry_type: EntryType::Normal, data }
            })
            .collect();
        storage.apply(&entries).unwrap();
        storage.checkpoint().unwrap();
    }

    #[test]
    fn a_read_that_is_under_way_ends_with_its_view() {
        let fs = std::sync::Arc::new(MemoryFileSystem::new());
        let config =
            StorageConfig { tree_cache_bytes: 1 << 20, view_bytes_max: 1 << 20, ..StorageConfig::default() };
        let storage = UnifiedStorage::open(fs, Path::new("/wal"), Path::new("/tree"), config).unwrap();
        overwrite(&storage);
        let view = storage.view().unwrap();
        let mut rows = 0;
        let ended = view.read(|reads| {
            reads.scan(&KeyRange::all(), &mut |_, _| {
                rows += 1;
                if rows == 3 {
                    for _ in 0..10 {
                        overwrite(&storage);
                    }
                }
                Ok(NEXT)
            })
        });
        assert!(matches!(ended, Err(StorageError::ViewExpired { .. })), "{ended:?}");
        assert_eq!(rows, 3, "not one row more");
    }
}
