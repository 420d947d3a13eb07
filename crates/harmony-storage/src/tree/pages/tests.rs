use std::collections::BTreeMap;

use harmony_types::fake::fs::{Crash, MemoryFileSystem};
use harmony_types::fake::seed::Seed;
use harmony_types::{FileSystem, OpenMode};

use super::*;

const PATH: &str = "/tree";
/// One more than a group, and its follower's first ones.
const PAGES: u64 = 1030;

fn file(fs: &MemoryFileSystem, mode: OpenMode) -> Arc<dyn File> {
    fs.open(Path::new(PATH), mode).unwrap()
}

/// A new file of [`PAGES`] pages, none of them written.
fn new_file(fs: &MemoryFileSystem) -> PagedFile {
    let pages = PagedFile::create(file(fs, OpenMode::CreateNew)).unwrap();
    pages.set_len(PAGES * PAGE).unwrap();
    pages.write(0, b"header").unwrap();
    pages
}

fn reopened(fs: &MemoryFileSystem) -> PagedFile {
    PagedFile::open(file(fs, OpenMode::ReadWrite), Path::new(PATH)).unwrap()
}

fn page(pages: &PagedFile, number: u64) -> io::Result<Vec<u8>> {
    let mut out = vec![0xee; PAGE_BYTES];
    pages.read(number * PAGE, &mut out).map(|()| out)
}

/// Bytes that are nowhere else.
fn content(page: u64, version: u64) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(version % 251).unwrap(); PAGE_BYTES];
    bytes[..8].copy_from_slice(&page.to_le_bytes());
    bytes[8..16].copy_from_slice(&version.to_le_bytes());
    bytes
}

fn write(pages: &PagedFile, page: u64, version: u64) {
    pages.write(page * PAGE, &content(page, version)).unwrap();
}

fn damaged_page(result: io::Result<Vec<u8>>) -> u64 {
    PageDamage::of(&result.unwrap_err()).expect("the error is damage").page
}

#[test]
fn what_was_written_is_read_and_the_rest_is_zeros() {
    let fs = MemoryFileSystem::new();
    let pages = new_file(&fs);
    for number in [1, 5, 1022, 1023, 1024, 1029] {
        write(&pages, number, 1);
    }
    pages.sync().unwrap();
    for pages in [pages, reopened(&fs)] {
        let mut header = [0xee; 10];
        pages.read(0, &mut header).unwrap();
        assert_eq!(&header, b"header\0\0\0\0");
        assert_eq!(pages.len(), PAGES * PAGE);
        for number in 1..PAGES {
            let is_written = [1, 5, 1022, 1023, 1024, 1029].contains(&number);
            let expected = if is_written { content(number, 1) } else { vec![0; PAGE_BYTES] };
            assert_eq!(page(&pages, number).unwrap(), expected, "page {number}");
        }
    }
}

#[test]
fn reads_and_writes_may_begin_and_end_anywhere() {
    let fs = MemoryFileSystem::new();
    let pages = new_file(&fs);
    let mut model = vec![0u8; usize::try_from(PAGES * PAGE).unwrap()];
    let mut rng = Seed(1).rng();
    for version in 0..200u8 {
        // Around the border between two groups.
        let offset = 1020 * PAGE + rng.below(6 * PAGE);
        let bytes = usize::try_from(1 + rng.below(3 * PAGE)).unwrap();
        pages.write(offset, &vec![version; bytes]).unwrap();
        let at = usize::try_from(offset).unwrap();
        model[at..at + bytes].fill(version);
        let offset = 1020 * PAGE + rng.below(6 * PAGE);
        let mut out = vec![0; usize::try_from(1 + rng.below(3 * PAGE)).unwrap()];
        pages.read(offset, &mut out).unwrap();
        let at = usize::try_from(offset).unwrap();
        assert!(out == model[at..at + out.len()], "seed 1, version {version}");
    }
}

#[test]
fn what_the_tree_never_asks_for_is_refused() {
    let fs = MemoryFileSystem::new();
    let pages = new_file(&fs);
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(pages.write(0, &[1; SECTOR_BYTES])), io::ErrorKind::Unsupported);
    assert_eq!(kind(pages.write(1, &[1])), io::ErrorKind::Unsupported);
    assert_eq!(kind(pages.read(0, &mut [0; PAGE_BYTES])), io::ErrorKind::Unsupported);
    assert_eq!(kind(pages.set_len(PAGE + 1)), io::ErrorKind::Unsupported);
    assert_eq!(kind(pages.write(PAGES * PAGE, &[1])), io::ErrorKind::UnexpectedEof);
    assert_eq!(kind(pages.read(PAGES * PAGE - 1, &mut [0; 2])), io::ErrorKind::UnexpectedEof);
    assert_eq!(kind(pages.read(u64::MAX, &mut [0; 2])), io::ErrorKind::UnexpectedEof);
}

#[test]
fn every_flipped_bit_of_a_page_its_checksum_and_the_header_is_found() {
    let fs = MemoryFileSystem::new();
    let pages = new_file(&fs);
    write(&pages, 7, 1);
    pages.sync().unwrap();
    let (place, sum_place) = (layout::page_offset(7), layout::sums_offset(0) + 7 * 4);
    for offset in (place..place + PAGE).chain(sum_place..sum_place + 4) {
        fs.flip(PATH, offset, 1 << (offset % 8)).unwrap();
        assert_eq!(damaged_page(page(&reopened(&fs), 7)), 7, "byte {offset}");
        fs.flip(PATH, offset, 1 << (offset % 8)).unwrap();
    }
    for offset in 0..SECTOR_BYTES as u64 {
        fs.flip(PATH, layout::page_offset(0) + offset, 1 << (offset % 8)).unwrap();
        assert_eq!(
            damaged_page(pages.read(0, &mut [0; 6]).map(|()| Vec::new())),
            0,
            "byte {offset} of the header"
        );
        let error = PagedFile::open(file(&fs, OpenMode::ReadWrite), Path::new(PATH)).err().unwrap();
        assert!(error.to_string().starts_with("/tree: page 0 at byte 8192: checksum "), "{error}");
        fs.flip(PATH, layout::page_offset(0) + offset, 1 << (offset % 8)).unwrap();
    }
    assert_eq!(page(&reopened(&fs), 7).unwrap(), content(7, 1));
}

#[test]
fn a_page_in_the_wrong_place_is_found_even_with_its_checksum() {
    let fs = MemoryFileSystem::new();
    let pages = new_file(&fs);
    write(&pages, 7, 1);
    write(&pages, 8, 1);
    pages.sync().unwrap();
    let image = fs.read_file(PATH).unwrap();
    let bytes = |offset: u64, bytes: usize| image[usize::try_from(offset).unwrap()..][..bytes].to_vec();
    fs.overwrite(PATH, layout::page_offset(8), &bytes(layout::page_offset(7), PAGE_BYTES)).unwrap();
    assert_eq!(damaged_page(page(&reopened(&fs), 8)), 8);
    let sum = bytes(layout::sums_offset(0) + 7 * 4, 4);
    fs.overwrite(PATH, layout::sums_offset(0) + 8 * 4, &sum).unwrap();
    assert_eq!(damaged_page(page(&reopened(&fs), 8)), 8);
}

#[test]
fn a_lost_write_and_one_into_an_unwritten_page_are_found() {
    let fs = MemoryFileSystem::new();
    let pages = new_file(&fs);
    write(&pages, 7, 1);
    pages.sync().unwrap();
    write(&pages, 7, 2);
    pages.sync().unwrap();
    fs.overwrite(PATH, layout::page_offset(7), &content(7, 1)).unwrap();
    fs.overwrite(PATH, layout::page_offset(9), &[1]).unwrap();
    assert_eq!(damaged_page(page(&pages, 7)), 7);
    assert_eq!(damaged_page(page(&pages, 9)), 9);
    assert_eq!(page(&pages, 8).unwrap(), [0; PAGE_BYTES]);
}

#[test]
fn a_header_from_before_the_last_sync_is_refused() {
    let fs = MemoryFileSystem::new();
    let pages = new_file(&fs);
    let mut headers = Vec::new();
    for version in 0..5 {
        pages.write(0, &content(0, version)[..320]).unwrap();
        pages.sync().unwrap();
        let image = fs.read_file(PATH).unwrap();
        headers.push(image[usize::try_from(layout::page_offset(0)).unwrap()..][..SECTOR_BYTES].to_vec());
    }
    for (version, header) in headers.iter().enumerate() {
        fs.overwrite(PATH, layout::page_offset(0), header).unwrap();
        let opened = PagedFile::open(file(&fs, OpenMode::ReadWrite), Path::new(PATH));
        // The last one is the right one; the one before may be what a crash left.
        assert_eq!(opened.is_ok(), 3 <= version, "version {version}");
    }
}

#[test]
fn pages_that_come_back_after_a_cut_are_unwritten() {
    let fs = MemoryFileSystem::new();
    let pages = new_file(&fs);
    for number in [3, 5, 1025, 1028] {
        write(&pages, number, 1);
    }
    pages.sync().unwrap();
    for len in [1026, 4] {
        pages.set_len(len * PAGE).unwrap();
        assert_eq!(pages.file_bytes().unwrap(), layout::file_bytes(len));
        pages.set_len(PAGES * PAGE).unwrap();
        pages.sync().unwrap();
        for pages in [&pages, &reopened(&fs)] {
            assert_eq!(page(pages, 3).unwrap(), content(3, 1));
            for gone in (len..PAGES).filter(|number| [5, 1025, 1028].contains(number)) {
                assert_eq!(page(pages, gone).unwrap(), [0; PAGE_BYTES], "page {gone} after {len}");
            }
        }
    }
}

#[test]
fn a_length_that_no_file_of_ours_has_is_refused() {
    let fs = MemoryFileSystem::new();
    new_file(&fs).sync().unwrap();
    for bytes in [layout::file_bytes(PAGES) - 1, layout::file_bytes(1024) + PAGE, PAGE, PAGE - 1, 0] {
        fs.resize(PATH, bytes).unwrap();
        assert!(PagedFile::open(file(&fs, OpenMode::ReadWrite), Path::new(PATH)).is_err(), "{bytes} bytes");
        fs.resize(PATH, layout::file_bytes(PAGES)).unwrap();
    }
}

#[test]
fn nothing_is_written_after_a_failed_sync() {
    use harmony_types::fake::fs::{CallKind, Fault};
    let fs = MemoryFileSystem::new();
    let pages = new_file(&fs);
    write(&pages, 7, 1);
    fs.inject(Fault::on([CallKind::Sync]).nth(1));
    pages.sync().unwrap_err();
    let writes = fs.calls(CallKind::Write);
    assert!(pages.sync().is_err() && pages.write(PAGE, &[1]).is_err() && pages.set_len(PAGE).is_err());
    assert_eq!(fs.calls(CallKind::Write), writes);
}

/// A copy-on-write store in small: pages of the last sync are left alone until a later sync, all others may change. After
/// any power loss they are as they were, and the header is of one of the two times.
#[test]
fn a_crash_between_syncs_leaves_synced_pages_as_they_were() {
    for seed in 0..300 {
        let mut rng = Seed(seed).rng();
        let fs = MemoryFileSystem::new();
        let pages = new_file(&fs);
        fs.sync_everything();
        let mut durable: BTreeMap<u64, u64> = BTreeMap::new();
        let mut version = 0;
        pages.write(0, &content(0, version)[..320]).unwrap();
        for _ in 0..rng.below(4) + 1 {
            pages.sync().unwrap();
            let mut next = durable.clone();
            let header = version;
            for _ in 0..rng.below(12) {
                version += 1;
                // Neighbours in one sector of checksums, and both groups.
                let number =
                    [1 + rng.below(20), 1015 + rng.below(15)][usize::try_from(rng.below(2)).unwrap()];
                if !durable.contains_key(&number) {
                    write(&pages, number, version);
                    next.insert(number, version);
                }
            }
            pages.write(0, &content(0, version)[..320]).unwrap();
            let image = fs.crash_image(Crash::Seeded(Seed(seed)));
            let after = reopened(&image);
            for (number, version) in &durable {
                assert_eq!(page(&after, *number).unwrap(), content(*number, *version), "seed {seed}");
            }
            let mut found = [0; 320];
            after.read(0, &mut found).unwrap();
            assert!(
                [header, version].iter().any(|version| content(0, *version).starts_with(&found)),
                "seed {seed}: a header of no time"
            );
            // A part of what was durable is given up with the next sync.
            pages.sync().unwrap();
            next.retain(|_, _| rng.below(3) != 0);
            durable = next;
        }
    }
}
