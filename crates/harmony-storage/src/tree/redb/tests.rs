//! A damaged tree file: whatever the disk shows, the answer is the right one or an error.

use harmony_types::fake::fs::{CallKind, Crash, ENOSPC, Fault, MemoryFileSystem};

use super::*;
use crate::tree::pages::header_offset;

const PATH: &str = "/tree.redb";
const TABLES: [Table; 3] = [Table::Latest, Table::Log, Table::State];

type Row = (Table, Vec<u8>, Vec<u8>);

fn open(fs: &MemoryFileSystem, mode: OpenMode) -> Result<RedbTree, StorageError> {
    RedbTree::open(fs, Path::new(PATH), mode, 1 << 20)
}

/// Every read of a page is a read of the file.
fn open_uncached(fs: &MemoryFileSystem) -> Result<RedbTree, StorageError> {
    RedbTree::open(fs, Path::new(PATH), OpenMode::ReadWrite, 0)
}

/// Commits rows whose values tell `generation`; some are larger than a page, and those of `latest` replace older ones.
fn fill(tree: &RedbTree, generation: u8) {
    tree.commit(Durability::Durable, &mut |writer| {
        for number in 0..30u8 {
            let bytes = if number == 7 { 5_000 } else { 90 + usize::from(number) };
            let key = [b'k', number];
            writer.put(Table::Latest, &key, &vec![generation; bytes])?;
            writer.put(Table::Log, &[generation, number], &[number; 140])?;
        }
        writer.put(Table::State, b"generation", &[generation])?;
        if 2 < generation {
            writer.remove_through(Table::Log, &[generation - 2, 29])?;
        }
        Ok(())
    })
    .unwrap();
}

fn rows(tree: &RedbTree) -> Result<Vec<Row>, StorageError> {
    let view = tree.view()?;
    let mut rows = Vec::new();
    for table in TABLES {
        view.scan(table, (Bound::Unbounded, Bound::Unbounded), &mut |key, value| {
            rows.push((table, key.to_vec(), value.to_vec()));
            Ok(super::super::NEXT)
        })?;
    }
    for (table, key, value) in rows.iter().step_by(13) {
        let found = view.get(*table, key, &mut |found| {
            assert_eq!(found, value, "a get and a scan of one view");
            Ok(())
        })?;
        assert!(found, "a get and a scan of one view");
    }
    Ok(rows)
}

/// The file after each of four generations, left by a killed process or closed; the last one is the one to damage.
fn history(closed: bool) -> Vec<Vec<u8>> {
    let fs = MemoryFileSystem::new();
    let tree = open(&fs, OpenMode::CreateNew).unwrap();
    let mut history = Vec::new();
    for generation in 1..=4 {
        fill(&tree, generation);
        history.push(fs.read_file(PATH).unwrap());
    }
    if !closed {
        tree.abandon();
    }
    drop(tree);
    history.push(fs.read_file(PATH).unwrap());
    history
}

/// When the disk changes the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Closed,
    Open,
}

/// A file to damage again and again.
struct Damaged {
    fs: MemoryFileSystem,
    file: Vec<u8>,
    expected: Vec<Row>,
    found: u64,
    harmless: u64,
}

impl Damaged {
    fn new(file: &[u8]) -> Self {
        let fs = MemoryFileSystem::new();
        fs.open(Path::new(PATH), OpenMode::CreateNew).unwrap();
        fs.overwrite(PATH, 0, file).unwrap();
        let expected = rows(&open(&fs, OpenMode::ReadWrite).unwrap()).unwrap();
        assert_eq!(expected.len(), 91, "30 in latest, 2 times 30 in log, 1 in state");
        Self { fs, file: file.to_vec(), expected, found: 0, harmless: 0 }
    }

    /// Reads and writes with the file damaged by `damage`; says whether that was found.
    fn check(&mut self, what: &str, when: When, damage: impl FnOnce(&MemoryFileSystem)) -> bool {
        self.fs.resize(PATH, self.file.len() as u64).unwrap();
        self.fs.overwrite(PATH, 0, &self.file).unwrap();
        let is_found = match self.read_and_write(when, damage) {
            Ok(()) => false,
            Err(StorageError::CrcMismatch { place, .. }) => {
                place.starts_with(PATH) || panic!("{what}: {place}")
            }
            Err(StorageError::CorruptRecord { .. } | StorageError::UnsupportedVersion { .. }) => true,
            // redb's own refusal of a length.
            Err(StorageError::Tree { action: "open", .. }) => true,
            Err(error) => panic!("{what}, {when:?}: {error}"),
        };
        if is_found {
            self.found += 1
        } else {
            self.harmless += 1
        }
        is_found
    }

    fn read_and_write(&self, when: When, damage: impl FnOnce(&MemoryFileSystem)) -> Result<(), StorageError> {
        let tree = if when == When::Closed {
            damage(&self.fs);
            open_uncached(&self.fs)?
        } else {
            let tree = open_uncached(&self.fs).unwrap();
            damage(&self.fs);
            tree
        };
        assert!(rows(&tree)? == self.expected, "wrong data");
        tree.commit(Durability::Durable, &mut |writer| {
            for (table, key, value) in &self.expected {
                if *table == Table::Latest {
                    writer.put(*table, key, value)?;
                }
            }
            Ok(())
        })?;
        assert!(rows(&tree)? == self.expected, "wrong data after a write");
        tree.abandon();
        drop(tree);
        assert!(rows(&open(&self.fs, OpenMode::ReadWrite)?)? == self.expected, "wrong data after a restart");
        Ok(())
    }

    /// Pages that somebody reads; damage to the others is harmless.
    fn pages_read(&mut self) -> Vec<u64> {
        let all: Vec<u64> = self.pages().collect();
        let garbage = [0xa5; PAGE_BYTES];
        let mut is_found = |offset: &u64| {
            [When::Closed, When::Open]
                .into_iter()
                .any(|when| self.check("garbage", when, |fs| fs.overwrite(PATH, *offset, &garbage).unwrap()))
        };
        let read: Vec<u64> = all.iter().copied().filter(|offset| is_found(offset)).collect();
        // Free pages are a part of a small file; a tree with three tables takes more than a few.
        assert!(12 <= read.len() && read.len() < all.len(), "{} of {} pages are read", read.len(), all.len());
        read
    }

    /// Pages of the file.
    fn pages(&self) -> impl Iterator<Item = u64> + use<> {
        (0..self.file.len() as u64).step_by(PAGE_BYTES)
    }

    fn page<'a>(&self, file: &'a [u8], offset: u64) -> &'a [u8] {
        &file[usize::try_from(offset).unwrap()..][..PAGE_BYTES]
    }
}

fn files() -> [Vec<u8>; 2] {
    [false, true].map(|closed| history(closed).pop().unwrap())
}

#[test]
fn every_damaged_byte_is_found_or_harmless() {
    for file in files() {
        let mut damaged = Damaged::new(&file);
        for page in damaged.pages_read() {
            // The page's head byte by byte, then some of the rest: the tests of the pages flip them all.
            for nth in 0..24 {
                let offset = page + if nth < 12 { nth } else { (nth - 11) * 331 };
                let mask = [0x01, 0x80, 0x10, 0xff][usize::try_from(nth % 4).unwrap()];
                let when = if nth % 3 == 0 { When::Closed } else { When::Open };
                damaged.check(&format!("byte {offset} mask {mask}"), when, |fs| {
                    fs.flip(PATH, offset, mask).unwrap()
                });
            }
        }
        assert!(damaged.harmless < damaged.found, "{} found, {} harmless", damaged.found, damaged.harmless);
    }
}

#[test]
fn every_damaged_bit_of_head_and_header_is_found() {
    for file in files() {
        let mut damaged = Damaged::new(&file);
        let header = header_offset();
        for offset in (0..24).chain(header..header + 512) {
            let mask = 1 << (offset % 8);
            let what = format!("byte {offset} mask {mask}");
            let is_found = damaged.check(&what, When::Closed, |fs| fs.flip(PATH, offset, mask).unwrap());
            assert!(is_found, "{what}");
        }
    }
}

#[test]
fn every_page_of_zeros_or_of_another_place_is_found() {
    for file in files() {
        let mut damaged = Damaged::new(&file);
        let pages = damaged.pages_read();
        for (nth, to) in pages.iter().enumerate() {
            let zeros = vec![0; PAGE_BYTES];
            for when in [When::Closed, When::Open] {
                damaged.check(&format!("zeros at {to}"), when, |fs| fs.overwrite(PATH, *to, &zeros).unwrap());
                // Neighbours, and some from further away.
                for away in [1, 2, 5] {
                    let from = pages[(nth + away) % pages.len()];
                    let bytes = damaged.page(&file, from);
                    let what = format!("the page of {from} at {to}");
                    damaged.check(&what, when, |fs| fs.overwrite(PATH, *to, bytes).unwrap());
                }
            }
        }
        assert!(damaged.harmless < damaged.found, "{} found, {} harmless", damaged.found, damaged.harmless);
    }
}

#[test]
fn every_lost_write_of_a_page_is_found() {
    for closed in [false, true] {
        let mut history = history(closed);
        let last = history.pop().unwrap();
        let mut damaged = Damaged::new(&last);
        let pages = damaged.pages_read();
        (damaged.found, damaged.harmless) = (0, 0);
        // The last one before the end may be the file itself.
        for (generation, older) in history[..3].iter().enumerate() {
            for offset in pages.iter().copied().filter(|offset| *offset < older.len() as u64) {
                let bytes = damaged.page(older, offset);
                if bytes == damaged.page(&last, offset) {
                    continue;
                }
                let what = format!("generation {generation} at {offset}");
                damaged.check(&what, When::Closed, |fs| fs.overwrite(PATH, offset, bytes).unwrap());
                // What redb has in memory of its header it does not read again.
                if offset != header_offset() {
                    damaged.check(&what, When::Open, |fs| fs.overwrite(PATH, offset, bytes).unwrap());
                }
            }
        }
        assert!(20 < damaged.found, "{} found, {} harmless", damaged.found, damaged.harmless);
    }
}

#[test]
fn a_file_of_another_length_is_refused_or_harmless() {
    for file in files() {
        let mut damaged = Damaged::new(&file);
        let bytes = file.len() as u64;
        for other in damaged.pages().chain([1, 100, bytes - 1, bytes + 1, bytes + 4096, bytes + (1 << 20)]) {
            damaged.check(&format!("{other} bytes"), When::Closed, |fs| fs.resize(PATH, other).unwrap());
        }
        assert!(damaged.harmless < damaged.found, "{} found, {} harmless", damaged.found, damaged.harmless);
    }
}

#[test]
fn a_tree_that_met_damage_refuses_what_follows_and_writes_nothing() {
    let [_, file] = files();
    let mut damaged = Damaged::new(&file);
    let mut refused = 0;
    for offset in damaged.pages_read() {
        let Damaged { fs, .. } = Damaged::new(&file);
        fs.overwrite(PATH, 0, &file).unwrap();
        let tree = open_uncached(&fs).unwrap();
        fs.flip(PATH, offset + 9, 1).unwrap();
        let Err(first) = rows(&tree) else { continue };
        let commit = tree.commit(Durability::Durable, &mut |writer| {
            writer.put(Table::State, b"generation", &[9]).map(drop)
        });
        assert_eq!(commit.unwrap_err().to_string(), first.to_string());
        let before = fs.read_file(PATH);
        drop(tree);
        assert_eq!(fs.read_file(PATH), before, "dropping it writes nothing");
        refused += 1;
    }
    assert!(5 < refused, "{refused} pages only: the test lost its subject");
}

/// Which commits the module of the pages rests on.
#[test]
fn every_durable_header_is_of_a_commit_in_two_phases() {
    const GOD_BYTE: u64 = 9;
    const TWO_PHASE: u8 = 4;
    let fs = MemoryFileSystem::new();
    let mut headers = 0;
    let mut look = |fs: &MemoryFileSystem| {
        let image = fs.crash_image(Crash::KeepAll).read_file(PATH).unwrap();
        let byte = image[usize::try_from(header_offset() + GOD_BYTE).unwrap()];
        assert_ne!(byte & TWO_PHASE, 0, "{byte:#04x}");
        headers += 1;
    };
    let tree = open(&fs, OpenMode::CreateNew).unwrap();
    fs.sync_everything();
    for generation in 1..=4 {
        fill(&tree, generation);
        look(&fs);
    }
    tree.commit(Durability::Visible, &mut |writer| writer.put(Table::State, b"x", b"y").map(drop)).unwrap();
    drop(tree);
    look(&fs);
    drop(open(&fs, OpenMode::ReadWrite).unwrap());
    look(&fs);
    // A file that was not closed well, with nothing that could be loaded: redb repairs it, and commits.
    let tree = open(&fs, OpenMode::ReadWrite).unwrap();
    look(&fs);
    tree.abandon();
    drop(tree);
    drop(open(&fs, OpenMode::ReadWrite).unwrap());
    look(&fs);
    assert_eq!(headers, 8);
}

/// A quota of the file system is a full disk, too.
#[test]
fn pages_that_the_file_system_has_no_place_for_are_told_apart_from_a_failure() {
    const EFBIG: i32 = 27;
    const EDQUOT: i32 = 122;
    const EIO: i32 = 5;
    for (errno, expected) in [(ENOSPC, Some(false)), (EDQUOT, Some(false)), (EFBIG, Some(false)), (EIO, None)]
    {
        let fs = MemoryFileSystem::new();
        let tree = RedbTree::open(&fs, Path::new("/t"), OpenMode::CreateNew, 1 << 20).unwrap();
        fs.inject(Fault::on([CallKind::Allocate]).errno(errno));
        assert_eq!(tree.take_place().ok(), expected, "error {errno}");
    }
}
