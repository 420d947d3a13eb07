//! Where pages are in the file, and the file's first page.
//!
//! | physical page | content |
//! | --- | --- |
//! | 0 | the head, see [`encode_head`]: written once, before the file has its name |
//! | 1 | checksums of the first group: pages 0 to 1023 |
//! | 2 to 1025 | pages 0 to 1023 |
//! | 1026 | checksums of the second group |
//! | 1027 to 2050 | pages 1024 to 2047, and so on |
//!
//! The head, numbers little endian, the rest of the page zeros:
//!
//! | offset | size | meaning |
//! | --- | --- | --- |
//! | 0 | 8 | magic `HARMTRE\n` |
//! | 8 | 4 | format version of the whole file, 3 |
//! | 12 | 4 | bytes of a page, 4096 |
//! | 16 | 4 | pages of a group, 1024 |
//! | 20 | 4 | CRC-32 of bytes 0..20 |

use std::path::Path;

use harmony_types::StorageError;

/// Version of the tree's format that this release writes, and the only one it reads.
pub(crate) const FORMAT_VERSION: u32 = 3;

/// Bytes of a page.
pub(crate) const PAGE_BYTES: usize = 4096;
/// Pages whose checksums stand together in one page.
pub(super) const GROUP_SLOTS: usize = 1024;
const GROUP_PAGES: u64 = GROUP_SLOTS as u64;
/// Bytes of a checksum.
pub(super) const SUM_BYTES: usize = 4;

const _: () = assert!(GROUP_SLOTS * SUM_BYTES == PAGE_BYTES);

const MAGIC: [u8; 8] = *b"HARMTRE\n";
const HEAD_BYTES: usize = 24;
/// How a file of format 1 or 2 began: without a head of ours.
const MAGIC_WITHOUT_HEAD: &[u8] = b"redb";

/// Bytes of a page, for arithmetic with offsets.
const PAGE: u64 = PAGE_BYTES as u64;
/// A group with its checksums, in pages.
const STRIDE: u64 = GROUP_PAGES + 1;

/// The group of a page, and the page's place in it.
pub(super) fn place(page: u64) -> (usize, usize) {
    let group = usize::try_from(page / GROUP_PAGES).expect("a file's groups fit into memory many times over");
    let slot = usize::try_from(page % GROUP_PAGES).expect("at most 1023");
    (group, slot)
}

/// Offset of a page in the file.
pub(super) fn page_offset(page: u64) -> u64 {
    (page / GROUP_PAGES * STRIDE + page % GROUP_PAGES + 2) * PAGE
}

/// Offset of a group's checksums in the file.
pub(super) fn sums_offset(group: usize) -> u64 {
    (group as u64 * STRIDE + 1) * PAGE
}

/// Length of a file with so many pages.
pub(super) fn file_bytes(pages: u64) -> u64 {
    (1 + pages.div_ceil(GROUP_PAGES) + pages) * PAGE
}

/// Pages in a file of this length; `None` when no file is that long.
pub(super) fn pages_in(file_bytes_found: u64) -> Option<u64> {
    let behind_head = (file_bytes_found / PAGE).checked_sub(1)?;
    let rest = (behind_head % STRIDE).saturating_sub(1);
    let pages = behind_head / STRIDE * GROUP_PAGES + rest;
    (file_bytes(pages) == file_bytes_found).then_some(pages)
}

/// The file's first page.
pub(super) fn encode_head() -> [u8; PAGE_BYTES] {
    let mut head = [0; PAGE_BYTES];
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    head[12..16].copy_from_slice(&4096u32.to_le_bytes());
    head[16..20].copy_from_slice(&1024u32.to_le_bytes());
    let crc = crc32fast::hash(&head[..20]);
    head[20..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
    head
}

/// Refuses a file that is none of ours. `head` is its first page, or less when it is shorter.
///
/// # Errors
/// [`StorageError::UnsupportedVersion`] for a newer format; else [`StorageError::CrcMismatch`] and
/// [`StorageError::CorruptRecord`].
pub(super) fn check_head(head: &[u8], path: &Path) -> Result<(), StorageError> {
    let place = || path.display().to_string();
    let corrupt = |reason: &str| StorageError::CorruptRecord { place: place(), reason: reason.to_owned() };
    if head.starts_with(MAGIC_WITHOUT_HEAD) {
        return Err(corrupt(
            "a tree of format 2 or older, which has no page checksums and which this release does not read: start the member \
             on an empty directory, or with the release that wrote it",
        ));
    }
    if !head.starts_with(&MAGIC) || head.len() < PAGE_BYTES {
        return Err(corrupt("this is no tree: magic number mismatch"));
    }
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (expected, found) = (crc32fast::hash(&head[..20]), number(20));
    if expected != found {
        return Err(StorageError::CrcMismatch {
            place: format!("{}: page 0 of the file", place()),
            expected,
            found,
        });
    }
    if FORMAT_VERSION < number(8) {
        return Err(StorageError::UnsupportedVersion {
            place: place(),
            found: number(8),
            supported: FORMAT_VERSION,
        });
    }
    if head[..HEAD_BYTES] != encode_head()[..HEAD_BYTES] {
        return Err(corrupt("a head that no release has written"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_do_not_overlap_and_leave_no_gap() {
        let mut offsets = vec![0];
        for page in 0..GROUP_PAGES * 2 + 3 {
            if page % GROUP_PAGES == 0 {
                offsets.push(sums_offset(place(page).0));
            }
            offsets.push(page_offset(page));
            assert_eq!(page_offset(page) + PAGE, file_bytes(page + 1), "page {page} ends the file");
        }
        assert!(offsets.iter().copied().eq((0..offsets.len() as u64).map(|at| at * PAGE)));
    }

    #[test]
    fn a_length_tells_the_number_of_pages_or_is_wrong() {
        for pages in [0, 1, 2, 1023, 1024, 1025, 2048, 2049] {
            assert_eq!(pages_in(file_bytes(pages)), Some(pages));
            assert_eq!(pages_in(file_bytes(pages) + 1), None);
            assert_eq!(pages_in(file_bytes(pages) - 1), None);
        }
        assert_eq!(pages_in(0), None);
        assert_eq!(pages_in(file_bytes(1024) + PAGE), None, "checksums without pages");
    }

    #[test]
    fn a_head_is_read_back_and_any_other_is_refused() {
        let head = encode_head();
        let path = Path::new("/d/tree.redb");
        check_head(&head, path).unwrap();
        for byte in 0..HEAD_BYTES {
            for bit in 0..8 {
                let mut damaged = head;
                damaged[byte] ^= 1 << bit;
                assert!(check_head(&damaged, path).is_err(), "byte {byte} bit {bit}");
            }
        }
        for bytes in [0, 7, 8, 24, 4095] {
            assert!(check_head(&head[..bytes], path).is_err(), "cut at {bytes}");
        }
    }

    #[test]
    fn a_newer_head_and_one_without_are_told_apart() {
        let path = Path::new("/d/tree.redb");
        let mut newer = encode_head();
        newer[8] = 4;
        let crc = crc32fast::hash(&newer[..20]);
        newer[20..24].copy_from_slice(&crc.to_le_bytes());
        let error = check_head(&newer, path).unwrap_err();
        assert!(matches!(error, StorageError::UnsupportedVersion { found: 4, supported: 3, .. }), "{error}");
        let error = check_head(b"redb\x1a\x0a\xa9\x0d\x0a", path).unwrap_err().to_string();
        assert!(error.starts_with("/d/tree.redb: a tree of format 2 or older, "), "{error}");
    }
}
