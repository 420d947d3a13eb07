//! What we read of redb's own header: format 3 of its files, little endian.
//!
//! | offset | size | meaning |
//! | --- | --- | --- |
//! | 9 | 1 | flags; bit 1: not closed |
//! | 16 | 4 | pages of a region's head |
//! | 20 | 4 | pages of a full region, without its head |
//! | 24 | 4 | full regions |
//! | 28 | 4 | pages of the last region, when it is not full |

use std::path::Path;

use harmony_types::StorageError;

use crate::tree::pages::{HEADER_BYTES, PageDamage, PagedFile};

pub(super) type Header = [u8; HEADER_BYTES];

const FLAGS: usize = 9;
const NOT_CLOSED: u8 = 2;

/// Reads a file's header.
///
/// # Errors
/// [`StorageError::CrcMismatch`]; [`StorageError::Io`].
pub(super) fn read(pages: &PagedFile, path: &Path) -> Result<Header, StorageError> {
    let mut header = [0; HEADER_BYTES];
    pages.read(0, &mut header).map_err(|error| match PageDamage::of(&error) {
        Some(damage) => damage.to_error(path),
        None => StorageError::io("read", path)(error),
    })?;
    Ok(header)
}

/// Pages that a file has at least, the one with the header included.
pub(super) fn pages_told(header: &Header) -> u64 {
    let number = |at: usize| {
        u64::from(u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]))
    };
    let [region_head, region, full, last] = [16, 20, 24, 28].map(number);
    let last = if last == 0 { 0 } else { region_head + last };
    1 + full * (region_head + region) + last
}

/// The same header of a file that was closed: what the last durable commit holds can be read without repair.
pub(super) fn as_closed(mut header: Header) -> Header {
    header[FLAGS] &= !NOT_CLOSED;
    header
}
