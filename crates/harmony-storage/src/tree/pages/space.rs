//! Where the file takes space on the disk. It is extended without taking any, so a page that was never written may not fit.

use std::io;
use std::sync::atomic::Ordering;

use super::layout::{self, GROUP_SLOTS};
use super::sums::UNWRITTEN;
use super::{PAGE, PagedFile};
use crate::reserve;

impl PagedFile {
    /// Pages that may need space of the disk when they are written, those for their checksums included.
    ///
    /// # Errors
    /// What the system reports.
    pub(crate) fn unwritten_pages(&self) -> io::Result<u64> {
        let mut unwritten = 0;
        let (first, end) = (self.in_place.load(Ordering::Acquire).max(1), self.len() / PAGE);
        let mut page = first;
        while page < end {
            let (group, number, slot) = self.group(page)?;
            let slots = (GROUP_SLOTS - slot).min(usize::try_from(end - page).unwrap_or(GROUP_SLOTS));
            let mut in_group = 0;
            for slot in slot..slot + slots {
                in_group += u64::from(group.get(&*self.file, number, slot)? == UNWRITTEN);
            }
            // The one with the checksums may be new, too.
            unwritten += in_group + u64::from(in_group != 0);
            page += slots as u64;
        }
        Ok(unwritten)
    }

    /// Takes the place of all pages on the disk; false when it has too little.
    ///
    /// # Errors
    /// What the system reports.
    pub(crate) fn take_place(&self) -> io::Result<bool> {
        let pages = self.len() / PAGE;
        match self.file.allocate(layout::file_bytes(pages)) {
            Ok(()) => self.in_place.store(pages, Ordering::Release),
            Err(error) if reserve::is_full(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }
}
