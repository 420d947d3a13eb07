//! Every page of a small tree damaged in turn, every kind of read asked first, on a tree that is opened then and on one that
//! is open already: each answer is the right one or an error, and nothing panics. The one kind of damage that reads cannot
//! see, a page that is old together with its checksum, never gives a wrong answer that `check` does not find.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use std::io::Read as _;
use std::path::Path;

use common::life::commands;
use common::{Store, TREE_DIR};
use harmony_storage::{EventsRequest, StorageError, check};
use harmony_types::fake::fs::{Crash, MemoryFileSystem};
use harmony_types::fake::seed::Seed;
use harmony_types::txn::{Put, Range};
use harmony_types::{Author, Command, CommandKind, LeaseId, Storage};

const TREE: &str = "/data/tree/tree.redb";
const PAGE: usize = 4096;
/// Where the tree's own first page is; two pages of ours stand before it.
const FIRST: usize = 2 * PAGE;
/// The checksum of page number `n` stands here, plus 4 `n`.
const SUMS: usize = PAGE;

/// A read, answered as text.
type Ask = fn(&Store) -> Result<String, StorageError>;

fn range(store: &Store, request: &Range) -> Result<String, StorageError> {
    match store.storage().range(request) {
        Ok(found) => Ok(format!("{found:?}")),
        Err(error @ (StorageError::Compacted { .. } | StorageError::FutureRevision { .. })) => {
            Ok(error.to_string())
        }
        Err(error) => Err(error),
    }
}

fn all() -> Range {
    Range { key: "\0".into(), range_end: "\0".into(), ..Range::default() }
}

/// Everything that can be asked for.
const ASKS: [(&str, Ask); 10] = [
    ("get", |store| {
        let keys = ["a", "ab", "abc", "b", "ba", "c", "d", "\u{7f}", "k00", "k17", "k39"];
        let found: Result<Vec<_>, _> = keys.iter().map(|key| store.storage().get(key.as_bytes())).collect();
        Ok(format!("{:?}", found?))
    }),
    ("range", |store| range(store, &all())),
    ("old revisions", |store| {
        let newest = store.storage().revision().as_i64();
        (1..=newest).map(|revision| range(store, &Range { revision, ..all() })).collect()
    }),
    ("old keys", |store| {
        let newest = store.storage().revision().as_i64();
        let one = |revision| range(store, &Range { key: "k17".into(), revision, ..Range::default() });
        (1..=newest).rev().map(one).collect()
    }),
    ("history", |store| {
        let first = store.storage().compact_revision().into();
        let mut request =
            EventsRequest { first, prev_kv: true, bytes_max: 4_000, ..EventsRequest::default() };
        let mut told = Vec::new();
        loop {
            let found = store.storage().events(&request)?;
            let is_complete = found.is_complete();
            told.extend(found.events);
            if is_complete {
                return Ok(format!("{told:?}"));
            }
            request.first = found.next;
        }
    }),
    ("snapshot", |store| {
        let mut stream = Vec::new();
        match store.storage().create_snapshot()?.data.into_reader().read_to_end(&mut stream) {
            Ok(_) => Ok(format!("{stream:?}")),
            Err(error) => Err(*error.into_inner().unwrap().downcast::<StorageError>().unwrap()),
        }
    }),
    ("hash", |store| Ok(format!("{:?}", store.storage().hash()?))),
    ("hash_kv", |store| Ok(format!("{:?}", store.storage().hash_kv(0)?))),
    ("leases", |store| {
        let found: Result<Vec<_>, _> =
            (1..=5).map(|id| store.storage().lease_with_keys(LeaseId(id))).collect();
        Ok(format!("{:?} {:?}", store.storage().leases()?, found?))
    }),
    ("settings", |store| {
        let storage = store.storage();
        let hash = storage.applied_hash();
        Ok(format!("{:?} {:?} {:?} {hash:?}", storage.auth(), storage.alarms(), storage.membership()))
    }),
];

/// Puts of some of the keys that take most of the tree: several leaves in each table.
fn rewritten(round: usize) -> impl Iterator<Item = Command> {
    (0..40).step_by(1 + round % 3).map(move |number| {
        let value = format!("round {round} ").repeat(3 + number % 7);
        let put = Put { key: format!("k{number:02}").into(), value: value.into(), ..Put::default() };
        let author = Some(Author { by_member: true, ..Author::default() });
        Command { author, kind: Some(CommandKind::Put(put)) }
    })
}

/// A tree that was written by several checkpoints, the last of them closed well, and the file after each.
struct Damaged {
    store: Store,
    file: Vec<u8>,
    older: Vec<Vec<u8>>,
    expected: Vec<String>,
    counts: Counts,
}

/// How the damage showed.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    refused: u64,
    harmless: u64,
    wrong: u64,
}

/// When the disk changes the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Closed,
    Open,
}

impl Damaged {
    fn new() -> Self {
        let mut config = common::config();
        config.wal.segment_bytes = 64 << 10;
        let mut store = Store::with(MemoryFileSystem::new(), config).unwrap();
        let mut older = Vec::new();
        let commands = commands(&mut Seed(7).rng(), 60);
        for (round, some) in commands.chunks(15).enumerate() {
            store.run_all(rewritten(round));
            store.run_all(some.to_vec());
            store.storage().checkpoint().unwrap();
            older.push(store.fs.read_file(TREE).unwrap());
        }
        store.storage().close().unwrap();
        store.stop();
        let file = store.fs.read_file(TREE).unwrap();
        store.restart(false).unwrap();
        let expected = ASKS.map(|(_, ask)| ask(&store).unwrap()).to_vec();
        store.stop();
        Self { store, file, older, expected, counts: Counts::default() }
    }

    fn pages(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.file.len()).step_by(PAGE)
    }

    fn page<'a>(&self, file: &'a [u8], offset: usize) -> &'a [u8] {
        &file[offset..offset + PAGE]
    }

    /// Damages the file, then asks everything, beginning with question number `first`. Says whether an answer was wrong.
    fn ask(&mut self, when: When, first: usize, what: &str, damage: &dyn Fn(&MemoryFileSystem)) -> bool {
        self.store.fs.resize(TREE, self.file.len() as u64).unwrap();
        self.store.fs.overwrite(TREE, 0, &self.file).unwrap();
        if when == When::Closed {
            damage(&self.store.fs);
        }
        let opened = self.store.restart(false);
        if when == When::Open {
            opened.as_ref().unwrap();
            damage(&self.store.fs);
        }
        let (mut refused, mut wrong) = (0, 0);
        match opened {
            Ok(()) => {
                for slot in (0..ASKS.len()).map(|slot| (first + slot) % ASKS.len()) {
                    match ASKS[slot].1(&self.store) {
                        Ok(answer) if answer == self.expected[slot] => {}
                        Ok(_) => wrong += 1,
                        Err(error) => {
                            check_error(&error, what);
                            refused += 1;
                        }
                    }
                }
            }
            Err(error) => {
                check_error(&error, what);
                refused += 1;
            }
        }
        self.store.stop();
        let Counts { refused: all_refused, harmless, wrong: all_wrong } = &mut self.counts;
        *(match (refused, wrong) {
            (_, 1..) => all_wrong,
            (1.., _) => all_refused,
            _ => harmless,
        }) += 1;
        wrong != 0
    }

    /// Writes to every part of the damaged tree, on a disk of its own: it goes well, or stops with an error.
    fn write(&mut self, what: &str, damage: &dyn Fn(&MemoryFileSystem)) {
        self.store.fs.overwrite(TREE, 0, &self.file).unwrap();
        let disk = self.store.fs.crash_image(Crash::KeepAll);
        damage(&disk);
        let write = || -> Result<(), StorageError> {
            let mut store = Store::with(disk, self.store.config.clone())?;
            for command in rewritten(9).chain(commands(&mut Seed(8).rng(), 30)) {
                let entry = [store.entry(command)];
                store.try_save(&entry)?;
                store.storage().apply(&entry)?;
            }
            store.storage().checkpoint()?;
            while store.storage().drop_compacted()? {}
            store.storage().close()
        };
        if let Err(error) = write() {
            check_error(&error, what);
        }
    }

    /// As [`Damaged::ask`], with each question asked first once; and writes.
    fn ask_all(&mut self, what: &str, damage: &dyn Fn(&MemoryFileSystem)) {
        for (first, (asked, _)) in ASKS.iter().enumerate() {
            for when in [When::Closed, When::Open] {
                let what = format!("{what}, {when:?}, {asked} first");
                let is_wrong = self.ask(when, first, &what, damage);
                assert!(!is_wrong, "{what}: a wrong answer");
            }
        }
        self.write(what, damage);
    }

    /// Pages whose content somebody needs.
    fn used_pages(&mut self) -> Vec<usize> {
        let garbage = [0x5a; PAGE];
        let all: Vec<usize> = self.pages().collect();
        let mut is_used = |offset: &usize| {
            let before = self.counts.harmless;
            let offset = *offset as u64;
            self.ask(When::Closed, 0, "garbage", &|fs| fs.overwrite(TREE, offset, &garbage).unwrap());
            before == self.counts.harmless
        };
        let used: Vec<usize> = all.iter().copied().filter(|offset| is_used(offset)).collect();
        // A tree with less would not have branches.
        assert!(12 <= used.len() && used.len() < all.len(), "{} of {} pages are used", used.len(), all.len());
        self.counts = Counts::default();
        used
    }
}

/// Damage is told as such, with its place.
fn check_error(error: &StorageError, what: &str) {
    match error {
        StorageError::CrcMismatch { place, .. } | StorageError::CorruptRecord { place, .. } => {
            assert!(place.contains(TREE) || place.starts_with("table "), "{what}: {error}");
        }
        // redb's own refusal.
        StorageError::Tree { path, .. } if path == Path::new(TREE) => {}
        StorageError::UnsupportedVersion { .. } => {}
        error => panic!("{what}: {error}"),
    }
}

#[test]
fn flipped_bytes_and_zeros_are_never_handed_out() {
    let mut damaged = Damaged::new();
    for offset in damaged.used_pages() {
        for (at, mask) in [(0, 0x01), (1, 0x80), (13, 0xff), (700, 0x10), (2_050, 0x04), (4_095, 0x20)] {
            let at = (offset + at) as u64;
            damaged.ask_all(&format!("byte {at}"), &|fs| fs.flip(TREE, at, mask).unwrap());
        }
        let zeros = [0; PAGE];
        damaged.ask_all(&format!("zeros at {offset}"), &|fs| {
            fs.overwrite(TREE, offset as u64, &zeros).unwrap();
        });
    }
    assert!(damaged.counts.harmless < damaged.counts.refused, "{:?}", damaged.counts);
}

#[test]
fn pages_that_changed_places_are_never_handed_out() {
    let mut damaged = Damaged::new();
    let file = damaged.file.clone();
    let used = damaged.used_pages();
    for (nth, one) in used.iter().copied().enumerate() {
        for away in [1, 4] {
            let other = used[(nth + away) % used.len()];
            let pages = [one, other].map(|offset| damaged.page(&file, offset).to_vec());
            damaged.ask_all(&format!("pages at {one} and {other} exchanged"), &|fs| {
                fs.overwrite(TREE, one as u64, &pages[1]).unwrap();
                fs.overwrite(TREE, other as u64, &pages[0]).unwrap();
            });
        }
    }
    assert!(damaged.counts.harmless < damaged.counts.refused, "{:?}", damaged.counts);
}

#[test]
fn a_page_or_a_checksum_of_an_older_checkpoint_is_never_handed_out() {
    let mut damaged = Damaged::new();
    let (file, older) = (damaged.file.clone(), damaged.older.clone());
    for offset in damaged.used_pages() {
        for (round, old) in older.iter().enumerate().filter(|(_, old)| offset < old.len()) {
            let page = damaged.page(old, offset);
            if page == damaged.page(&file, offset) {
                continue;
            }
            damaged.ask_all(&format!("the page at {offset} of checkpoint {round}"), &|fs| {
                fs.overwrite(TREE, offset as u64, page).unwrap();
            });
        }
    }
    assert!(damaged.counts.harmless < damaged.counts.refused, "{:?}", damaged.counts);
}

/// What `docs/guarantees.md` names as open: reads cannot see it, `check` can.
#[test]
fn a_page_that_is_old_with_its_checksum_never_panics_and_is_found_by_check() {
    let mut damaged = Damaged::new();
    let (file, older) = (damaged.file.clone(), damaged.older.clone());
    let mut wrong_and_found = 0;
    for offset in damaged.pages().skip(FIRST / PAGE) {
        let sum = SUMS + (offset - FIRST) / PAGE * 4;
        for (round, old) in older.iter().enumerate().filter(|(_, old)| offset < old.len()) {
            let page = damaged.page(old, offset);
            if page == damaged.page(&file, offset) || page.iter().all(|byte| *byte == 0) {
                continue;
            }
            let stale = |fs: &MemoryFileSystem| {
                fs.overwrite(TREE, offset as u64, page).unwrap();
                fs.overwrite(TREE, sum as u64, &old[sum..sum + 4]).unwrap();
            };
            let what = format!("the page at {offset} of checkpoint {round} with its checksum");
            damaged.write(&what, &stale);
            for first in 0..ASKS.len() {
                if damaged.ask(When::Closed, first, &what, &stale) {
                    damaged.store.fs.overwrite(TREE, 0, &file).unwrap();
                    stale(&damaged.store.fs);
                    let found = check(&damaged.store.fs, Path::new(TREE_DIR));
                    assert!(found.is_err(), "{what}: a wrong answer, and a good check");
                    wrong_and_found += 1;
                }
            }
        }
    }
    assert!(0 < wrong_and_found, "{:?}: the test lost its subject", damaged.counts);
}
