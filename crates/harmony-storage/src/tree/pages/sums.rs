//! The checksums of a group of pages, in memory from the first time that one of them is needed.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use harmony_types::File;

use super::layout::{self, GROUP_SLOTS, PAGE_BYTES, SUM_BYTES};
use super::read_exact;

/// A page that was never written, and reads as zeros.
pub(super) const UNWRITTEN: u32 = 0;
/// Stands for a checksum that is 0 by chance.
const ZERO: u32 = 0xffff_ffff;

/// The checksum of a page: CRC-32 over the page's number, so that a page in another one's place is found, and its bytes.
pub(super) fn sum(page: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&page.to_le_bytes());
    hasher.update(bytes);
    written(hasher.finalize())
}

fn written(crc: u32) -> u32 {
    if crc == UNWRITTEN { ZERO } else { crc }
}

type Sums = [AtomicU32; GROUP_SLOTS];

/// See the module.
pub(super) struct Group {
    sums: OnceLock<Box<Sums>>,
    dirty: AtomicBool,
    /// Held while pages of the group and their checksums change: who holds it sees both as they belong together.
    writing: Mutex<()>,
}

impl Group {
    /// A group of pages none of which was ever written.
    pub(super) fn new() -> Self {
        Self { sums: OnceLock::from(Box::new(zeros())), ..Self::on_disk() }
    }

    /// A group whose checksums are in the file.
    pub(super) fn on_disk() -> Self {
        Self { sums: OnceLock::new(), dirty: AtomicBool::new(false), writing: Mutex::new(()) }
    }

    pub(super) fn writing(&self) -> MutexGuard<'_, ()> {
        // Nothing is left half done by a panic under it: the checksum of a page is one number.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self, file: &dyn File, group: usize) -> io::Result<&Sums> {
        if let Some(sums) = self.sums.get() {
            return Ok(sums);
        }
        let mut page = [0; PAGE_BYTES];
        read_exact(file, &mut page, layout::sums_offset(group))?;
        let sums = Box::new(zeros());
        for (sum, bytes) in sums.iter().zip(page.as_chunks::<SUM_BYTES>().0) {
            sum.store(u32::from_le_bytes(*bytes), Ordering::Relaxed);
        }
        // Who came first may have changed one already: its sums count.
        Ok(self.sums.get_or_init(|| sums))
    }

    /// The checksum of the page at `slot`.
    pub(super) fn get(&self, file: &dyn File, group: usize, slot: usize) -> io::Result<u32> {
        Ok(self.load(file, group)?[slot].load(Ordering::Acquire))
    }

    /// Sets the checksums from `slot` on. On disk after [`Group::write_back`].
    pub(super) fn set(
        &self,
        file: &dyn File,
        group: usize,
        slot: usize,
        new: impl Iterator<Item = u32>,
    ) -> io::Result<()> {
        let sums = self.load(file, group)?;
        for (sum, new) in sums[slot..].iter().zip(new) {
            sum.store(new, Ordering::Release);
        }
        // Behind the sums: whoever takes the mark sees them.
        self.dirty.store(true, Ordering::Release);
        Ok(())
    }

    /// Writes the checksums into the file if they changed.
    pub(super) fn write_back(&self, file: &dyn File, group: usize) -> io::Result<()> {
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let mut page = [0; PAGE_BYTES];
        for (bytes, sum) in page.as_chunks_mut::<SUM_BYTES>().0.iter_mut().zip(self.load(file, group)?) {
            *bytes = sum.load(Ordering::Acquire).to_le_bytes();
        }
        file.write_at(&page, layout::sums_offset(group))
    }
}

fn zeros() -> Sums {
    [const { AtomicU32::new(UNWRITTEN) }; GROUP_SLOTS]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_have_another_checksum_on_each_page() {
        let bytes = [7; PAGE_BYTES];
        let mut sums: Vec<u32> = (0..5_000).map(|page| sum(page, &bytes)).collect();
        sums.sort_unstable();
        sums.dedup();
        assert_eq!(sums.len(), 5_000);
    }

    #[test]
    fn a_checksum_is_never_that_of_an_unwritten_page() {
        assert_ne!(written(UNWRITTEN), UNWRITTEN);
        assert_eq!(written(7), 7);
    }
}
