//! A tree's file as redb's storage with all writes kept in memory: opening, checking and reading a tree changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{BackendError, StorageBackend};

use super::backend::{self, FirstDamage};
use super::pages::{HEADER_BYTES, PAGE_BYTES, PagedFile};

const PAGE: u64 = PAGE_BYTES as u64;

/// A file that is not written to, and what was written instead.
pub(super) struct Overlay {
    pages: Arc<PagedFile>,
    damage: FirstDamage,
    state: Mutex<State>,
}

struct State {
    len: u64,
    /// Pages that were written; the first one as long as its header.
    written: BTreeMap<u64, Vec<u8>>,
    /// Pages of the file that were read since this was last taken; `None`: nobody asks.
    read: Option<BTreeSet<u64>>,
}

impl Overlay {
    pub(super) fn new(pages: Arc<PagedFile>, damage: FirstDamage) -> Self {
        let state = State { len: pages.len(), written: BTreeMap::new(), read: Some(BTreeSet::new()) };
        Self { pages, damage, state: Mutex::new(state) }
    }

    /// Shows another header than the file's, and as many pages as that tells of.
    pub(super) fn with_header(self, header: [u8; HEADER_BYTES], pages: u64) -> Self {
        let mut state = self.state();
        state.len = pages * PAGE;
        state.written.insert(0, header.to_vec());
        drop(state);
        self
    }

    /// How many pages of the file were read.
    pub(super) fn count_read(&self) -> u64 {
        self.state().read.as_ref().map_or(0, |read| read.len() as u64)
    }

    /// Forgets which pages are read, from now on: of a large file that would take memory.
    pub(super) fn count_no_reads(&self) {
        self.state().read = None;
    }

    /// The pages of the file that were read since the last call.
    pub(super) fn take_read(&self) -> BTreeSet<u64> {
        self.state().read.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The parts of a range that lie in one page each: page, place in it, bytes.
fn parts(offset: u64, bytes: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = usize::try_from(at % PAGE).expect("less than a page");
        let part = (bytes - done).min(PAGE_BYTES - within);
        done += part;
        (part != 0).then_some((at / PAGE, within, part))
    })
}

/// What redb gets, as a handle on the overlay.
pub(super) struct OverlayBackend(pub(super) Arc<Overlay>);

impl fmt::Debug for OverlayBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OverlayBackend")
    }
}

impl StorageBackend for OverlayBackend {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.state().len)
    }

    fn read(&self, offset: u64, mut out: &mut [u8]) -> Result<(), io::Error> {
        let Overlay { pages, damage, .. } = &*self.0;
        if self.0.state().len < offset.saturating_add(out.len() as u64) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (page, within, bytes) in parts(offset, out.len()) {
            let (now, later) = out.split_at_mut(bytes);
            out = later;
            let mut state = self.0.state();
            if let Some(written) = state.written.get(&page) {
                let written = written.get(within..within + bytes).ok_or(io::ErrorKind::UnexpectedEof)?;
                now.copy_from_slice(written);
            } else if page * PAGE < pages.len() {
                if let Some(read) = &mut state.read {
                    read.insert(page);
                }
                // Several threads may read at a time.
                drop(state);
                backend::read(pages, damage, page * PAGE + within as u64, now)?;
            } else {
                now.fill(0);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut state = self.0.state();
        state.len = len;
        state.written.retain(|page, _| page * PAGE < len);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Ok(())
    }

    fn write(&self, offset: u64, mut data: &[u8]) -> Result<(), io::Error> {
        let mut state = self.0.state();
        for (page, within, bytes) in parts(offset, data.len()) {
            let (now, later) = data.split_at(bytes);
            data = later;
            let page_bytes = if page == 0 { HEADER_BYTES } else { PAGE_BYTES };
            // redb writes its header from the start, and pages whole.
            if within != 0 || (page != 0 && bytes != PAGE_BYTES) || page_bytes < bytes {
                return Err(io::ErrorKind::Unsupported.into());
            }
            let mut whole = vec![0; page_bytes];
            whole[..bytes].copy_from_slice(now);
            state.written.insert(page, whole);
        }
        Ok(())
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        if matches!(start, Bound::Unbounded | Bound::Included(0)) && end == Bound::Unbounded {
            Ok(true)
        } else {
            Err(BackendError::Unsupported)
        }
    }

    fn unlock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}
