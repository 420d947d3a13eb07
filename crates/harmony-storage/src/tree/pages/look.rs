//! Looking at every page of the file once, used or not, beside whoever reads and writes it.

use std::io;

use super::layout::{self, GROUP_SLOTS, PAGE_BYTES};
use super::sums::UNWRITTEN;
use super::{PageDamage, PagedFile, check_page, read_exact};

/// Pages read in one piece.
const PIECE_PAGES: u64 = 64;

/// What a page is, by its checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PageState {
    /// Never written.
    Unwritten,
    /// As it was written.
    Good,
    /// Not as it was written, or cut by a crash and not used since.
    Bad(PageDamage),
}

impl PagedFile {
    /// Looks at some pages from `first` on, and returns the page behind the last one seen: the same at the end of the file.
    ///
    /// # Errors
    /// What the system reports.
    pub(crate) fn look(&self, first: u64, visit: &mut dyn FnMut(u64, PageState)) -> io::Result<u64> {
        let count = self.len() / PAGE_BYTES as u64;
        if count <= first {
            return Ok(first);
        }
        if first == 0 {
            let header = self.read_header().map(drop);
            visit(0, state(header, false)?);
            return Ok(1);
        }
        let (group, number, slot) = self.group(first)?;
        let left = (GROUP_SLOTS - slot) as u64;
        let pages = PIECE_PAGES.min(left).min(count - first);
        let mut bytes = vec![0; usize::try_from(pages).expect("a piece is small") * PAGE_BYTES];
        match read_exact(&*self.file, &mut bytes, layout::page_offset(first)) {
            // The file was cut meanwhile.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(first),
            read => read?,
        }
        for ((page, slot), bytes) in (first..).zip(slot..).zip(bytes.chunks_exact_mut(PAGE_BYTES)) {
            let mut sum = group.get(&*self.file, number, slot)?;
            let mut checked = check_page(page, bytes, sum);
            if checked.is_err() {
                // It may be being written just now.
                let _writing = group.writing();
                sum = group.get(&*self.file, number, slot)?;
                checked = read_exact(&*self.file, bytes, layout::page_offset(page))
                    .and_then(|()| check_page(page, bytes, sum));
            }
            visit(page, state(checked, sum == UNWRITTEN)?);
        }
        Ok(first + pages)
    }
}

/// The state that a checked read tells of.
fn state(checked: io::Result<()>, is_unwritten: bool) -> io::Result<PageState> {
    match checked {
        Ok(()) if is_unwritten => Ok(PageState::Unwritten),
        Ok(()) => Ok(PageState::Good),
        Err(error) => match PageDamage::of(&error) {
            Some(damage) => Ok(PageState::Bad(damage.clone())),
            // Cut off between the two reads: nobody's page.
            None if error.kind() == io::ErrorKind::UnexpectedEof => Ok(PageState::Unwritten),
            None => Err(error),
        },
    }
}
