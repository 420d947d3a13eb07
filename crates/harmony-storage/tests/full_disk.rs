//! A full disk: what was applied stays, reads go on, what frees space is done, and everything goes on by itself when there
//! is room again.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use common::compare::{check_all, check_reads};
use common::life::{Life, Step, config};
use common::{Store, TREE_DIR, WAL_DIR, put};
use harmony_storage::{RebuildStep, StorageConfig, StorageError, UnifiedStorage};
use harmony_types::command::Compact;
use harmony_types::fake::fs::{CallKind, Crash, ENOSPC, Fault, MemoryFileSystem};
use harmony_types::fake::seed::Seed;
use harmony_types::txn::DeleteRange;
use harmony_types::{
    CommandKind, Entry, File, FileSystem, LogIndex, OpenMode, Snapshot, SnapshotData, Storage, WalError,
};

fn reserve_is_held(disk: &MemoryFileSystem) -> bool {
    disk.files().contains(&Path::new(TREE_DIR).join("RESERVE"))
}

/// Leaves the disk so many bytes.
fn leave(disk: &MemoryFileSystem, free: u64) {
    disk.set_capacity(Some(disk.used_bytes() + free));
}

fn is_full<T>(result: &Result<T, StorageError>) -> bool {
    match result {
        Err(StorageError::DiskFull { .. } | StorageError::Wal(WalError::DiskFull { .. })) => true,
        Err(error) => panic!("not told as a full disk: {error:?}"),
        Ok(_) => false,
    }
}

/// What is there is what was applied, now and behind a power loss.
fn check(life: &Life, store: &Store, acknowledged: LogIndex, seed: Seed) {
    let applied = store.storage().applied().index;
    let state = life.state(applied);
    assert_eq!(store.storage().applied_hash(), state.contents.applied_hash);
    check_reads(store, &state.model);
    for crash in [Crash::LoseUnsynced, Crash::Seeded(seed)] {
        // On the disk that is still full.
        let image = store.fs.crash_image(crash);
        let opened = Store::with(image, config()).unwrap_or_else(|error| panic!("{crash:?}: {error}"));
        let applied = opened.storage().applied().index;
        assert!(acknowledged <= applied, "{acknowledged} was durable, {applied} is there");
        check_reads(&opened, &life.state(applied).model);
        // Hashes are read from the tree alone.
        opened.fs.set_capacity(None);
        check_all(&opened, &life.state(applied).model);
    }
}

/// Tries until it succeeds; the disk gets room behind the first refusal. Returns whether it was refused.
fn until_there_is_room(
    disk: &MemoryFileSystem,
    free: u64,
    mut refused: impl FnMut(),
    mut run: impl FnMut() -> Result<(), StorageError>,
) -> bool {
    leave(disk, free);
    if !is_full(&run()) {
        return false;
    }
    refused();
    disk.set_capacity(None);
    assert!(!is_full(&run()), "refused with room");
    true
}

/// Lives with so many bytes free before each step. Returns how many steps were refused at first.
fn live(life: &Life, free: u64, seed: Seed) -> usize {
    let disk = MemoryFileSystem::new();
    let mut store = Store::with(disk.clone(), config()).unwrap();
    let mut acknowledged = LogIndex(0);
    let mut refused = 0;
    for (number, step) in life.steps.iter().enumerate() {
        let seed = Seed(seed.0 ^ (number as u64) << 20);
        if let Step::Apply(count) = step {
            disk.set_capacity(None);
            let first = usize::try_from(store.next.prev().0).unwrap();
            let commands = &life.commands[first..life.commands.len().min(first + count)];
            let entries: Vec<Entry> = commands.iter().map(|command| store.entry(command.clone())).collect();
            store.try_save(&entries).unwrap();
            acknowledged = store.next.prev();
            let check = || check(life, &store, acknowledged, seed);
            let run = || store.storage().apply(&entries).map(drop);
            refused += usize::from(until_there_is_room(&disk, free, check, run));
            continue;
        }
        leave(&disk, free);
        let before = acknowledged;
        if !is_full(&life.step(&mut store, *step, &mut acknowledged)) {
            continue;
        }
        assert!(
            !matches!(step, Step::Reopen { clean: false }),
            "a full disk must not keep a member from starting"
        );
        refused += 1;
        if let Step::Reopen { .. } = step {
            // Closing told that its checkpoint was refused; it is closed all the same.
            store.restart(false).unwrap();
        }
        check(life, &store, before, seed);
        disk.set_capacity(None);
        if !matches!(step, Step::Reopen { .. }) {
            assert!(!is_full(&life.step(&mut store, *step, &mut acknowledged)), "refused with room");
        }
    }
    disk.set_capacity(None);
    check(life, &store, acknowledged, seed);
    assert_eq!(store.storage().checkpoint().unwrap(), LogIndex(life.commands.len() as u64));
    assert!(reserve_is_held(&disk));
    refused
}

/// The new tree is worthless then, and the old one knows nothing of it.
#[test]
fn a_disk_that_is_full_in_the_middle_of_a_snapshot_leaves_what_was_there_and_takes_it_later() {
    let mut source = Store::new();
    source.run_all((0..8).map(|number| put(&format!("k{number}"), &"v".repeat(3_000))));
    let Snapshot { meta, data } = source.storage().create_snapshot().unwrap();
    let mut content = Vec::new();
    data.into_reader().read_to_end(&mut content).unwrap();
    let snapshot =
        || Snapshot { meta: meta.clone(), data: SnapshotData::Bytes(Bytes::copy_from_slice(&content)) };
    let calls = [CallKind::Open, CallKind::Write, CallKind::SetLen, CallKind::Allocate, CallKind::Sync];
    for nth in 1.. {
        let mut store = Store::new();
        store.run(put("old", "1"));
        let before = store.storage().applied_hash();
        let full = Fault::on(calls).on_path("tree.redb.new").nth(nth).errno(ENOSPC).lasting();
        store.fs.inject(full);
        if !is_full(&store.storage().save_snapshot(snapshot())) {
            assert!(10 < nth, "the test lost its subject");
            return;
        }
        assert_eq!(store.storage().applied_hash(), before, "call {nth}");
        assert!(store.storage().get(b"old").unwrap().is_some(), "call {nth}");
        store.storage().checkpoint().unwrap();
        store.fs.clear_faults();
        store.storage().save_snapshot(snapshot()).unwrap();
        store.lose_power(Crash::LoseUnsynced).unwrap();
        assert_eq!(store.storage().applied_hash(), source.storage().applied_hash(), "call {nth}");
    }
}

#[test]
fn a_life_on_a_disk_with_little_room_goes_on_whenever_there_is_more() {
    let seed = Seed::from_env().unwrap_or(Seed(1));
    let _guard = seed.guard();
    let life = Life::new(seed, 60);
    let refused: Vec<usize> = (0..24).map(|step| live(&life, step * 20_000 + step % 3, seed)).collect();
    assert!(5 < refused[0], "{refused:?}: the test lost its subject");
    assert!(refused[23] < refused[0] / 2, "{refused:?}: with room there is little to refuse");
}

const KEYS: usize = 400;

fn key(n: usize) -> String {
    format!("key{n:04}")
}

/// A store with a tree full of history, and a disk without a free byte.
fn filled() -> Store {
    let config = StorageConfig { checkpoint_bytes: 64 << 10, ..config() };
    let mut store = Store::with(MemoryFileSystem::new(), config).unwrap();
    for round in 0..8 {
        store.run_all((0..KEYS).map(|n| put(&key(n), &format!("{round}-{}", "v".repeat(200)))));
        store.storage().checkpoint().unwrap();
        store.storage().release(store.storage().durable_applied()).unwrap();
    }
    // Room in the log for what is to come.
    leave(&store.fs, 0);
    store
}

/// Saves with room, as if the log had a disk of its own, and applies without.
fn apply(store: &mut Store, command: CommandKind) -> Result<(), StorageError> {
    let next = store.next;
    let entry = store.entry(command);
    let free = store.fs.free_bytes(Path::new(TREE_DIR)).unwrap();
    store.fs.set_capacity(None);
    store.save(std::slice::from_ref(&entry));
    leave(&store.fs, free);
    let applied = store.storage().apply(&[entry]);
    if applied.is_err() {
        store.next = next.next();
    }
    applied.map(drop)
}

#[test]
fn a_compaction_on_a_full_disk_uses_the_reserve_and_puts_work_again_behind_it() {
    let mut store = filled();
    let disk = store.fs.clone();
    assert!(reserve_is_held(&disk));
    // Nobody frees anything: memory takes what it can.
    let mut taken = 0;
    let refused = loop {
        let value = "w".repeat(200);
        match apply(&mut store, put(&key(taken % KEYS), &value)) {
            Ok(()) => taken += 1,
            refused => break refused,
        }
    };
    assert!(is_full(&refused) && 10 < taken, "{taken}");
    let message = refused.unwrap_err().to_string();
    assert!(message.starts_with("/data/tree: a commit to the tree may need "), "{message}");
    assert!(is_full(&store.storage().checkpoint()));
    assert!(reserve_is_held(&disk), "kept for what frees space");
    assert_eq!(&store.storage().query(key(0).as_bytes()).unwrap().unwrap()[..], "w".repeat(200).as_bytes());
    // The one that was refused is the next.
    store.restart(false).unwrap();
    let revision = store
        .storage()
        .range(&harmony_types::txn::Range { key: "x".into(), ..Default::default() })
        .unwrap()
        .revision;

    let compact = CommandKind::Compact(Compact { revision: revision.as_i64() });
    apply(&mut store, compact).unwrap();
    store.storage().checkpoint().unwrap();
    assert!(!reserve_is_held(&disk), "given up for a checkpoint that drops history");
    while store.storage().drop_compacted().is_ok_and(|more| more) {}
    store.storage().checkpoint().unwrap();
    let keys = DeleteRange {
        key: Bytes::from(key(0)),
        range_end: Bytes::from(key(KEYS / 20)),
        ..DeleteRange::default()
    };
    apply(&mut store, CommandKind::DeleteRange(keys)).unwrap();
    store.storage().checkpoint().unwrap();
    for round in 0..5 {
        for n in KEYS / 2..KEYS {
            apply(&mut store, put(&key(n), &format!("again {round}"))).unwrap();
        }
        store.storage().checkpoint().unwrap();
        let revision = store.storage().get(key(KEYS - 1).as_bytes()).unwrap().unwrap().mod_revision;
        apply(&mut store, CommandKind::Compact(Compact { revision })).unwrap();
    }
    store.storage().checkpoint().unwrap();
    assert_eq!(&store.storage().query(key(300).as_bytes()).unwrap().unwrap()[..], b"again 4");

    disk.set_capacity(None);
    store.run(put("a", "b"));
    store.storage().checkpoint().unwrap();
    assert!(reserve_is_held(&disk), "made again with the first checkpoint that has room");
}

#[test]
fn a_disk_without_a_free_byte_and_without_a_reserve_opens() {
    let mut store = filled();
    let disk = store.fs.clone();
    store.stop();
    let reserve = Path::new(TREE_DIR).join("RESERVE");
    disk.remove_file(&reserve).unwrap();
    leave(&disk, 0);
    store.restart(false).unwrap();
    assert!(!reserve_is_held(&disk));
    assert_eq!(store.storage().get(key(7).as_bytes()).unwrap().unwrap().version, 8);
    disk.set_capacity(None);
    store.run(put("a", "b"));
    store.storage().checkpoint().unwrap();
    assert!(reserve_is_held(&disk));
}

#[test]
fn a_rebuild_without_room_is_refused_and_leaves_nothing() {
    let store = filled();
    let disk = store.fs.clone();
    let files = disk.files();
    leave(&disk, 100_000);
    assert!(is_full(&store.storage().rebuild()));
    assert_eq!(disk.files(), files);
    // Somebody else takes the space while it runs.
    disk.set_capacity(None);
    let mut rebuild = store.storage().start_rebuild().unwrap();
    let mut steps = 0;
    let ended = loop {
        match rebuild.step(100_000) {
            Ok(RebuildStep::More) => steps += 1,
            ended => break ended,
        }
        if steps == 5 {
            leave(&disk, 100_000);
        }
    };
    assert!(is_full(&ended) && 4 < steps, "{steps}");
    assert_eq!(disk.files(), files, "the half file is gone");
    assert_eq!(store.storage().get(key(7).as_bytes()).unwrap().unwrap().version, 8);
    disk.set_capacity(None);
    store.storage().rebuild().unwrap().unwrap();
    assert_eq!(store.storage().get(key(7).as_bytes()).unwrap().unwrap().version, 8);
}

/// `etcdctl compaction --physical`, and whoever else waits until the history is gone.
#[test]
fn a_compaction_is_waited_for_on_a_full_disk() {
    let mut store = filled();
    let revision = store.storage().revision().as_i64();
    apply(&mut store, CommandKind::Compact(Compact { revision })).unwrap();
    let mut steps = 0;
    while store.storage().drop_compacted().unwrap() {
        steps += 1;
        assert!(steps < 100, "no end");
    }
    assert_eq!(store.storage().get(key(7).as_bytes()).unwrap().unwrap().version, 8);
}

/// A disk on which somebody else takes what the reserve gave free, or whose file system never held it.
#[derive(Clone)]
struct Greedy(MemoryFileSystem);

impl FileSystem for Greedy {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.0.open(path, mode)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let free = self.free_bytes(path)?;
        self.0.remove_file(path)?;
        leave(&self.0, free);
        Ok(())
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.0.list_dir(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.0.free_bytes(path)
    }
}

#[test]
fn a_reserve_that_gives_nothing_free_is_not_relied_on() {
    let mut store = filled();
    let disk = store.fs.clone();
    let revision = store.storage().revision().as_i64();
    apply(&mut store, CommandKind::Compact(Compact { revision })).unwrap();
    let config = store.config.clone();
    store.stop();
    leave(&disk, 0);
    let greedy = Arc::new(Greedy(disk.clone()));
    let storage = UnifiedStorage::open(greedy, Path::new(WAL_DIR), Path::new(TREE_DIR), config).unwrap();
    assert!(reserve_is_held(&disk));
    assert!(is_full(&storage.checkpoint()));
    disk.set_capacity(None);
    storage.checkpoint().unwrap();
    assert!(reserve_is_held(&disk), "made again");
}
