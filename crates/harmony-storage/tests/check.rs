//! The offline check of a tree: quiet about every good one, whatever a crash left of it, and never about a damaged one.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use std::path::Path;

use common::generate::Generate;
use common::{Store, TREE_DIR, put};
use harmony_storage::{CheckReport, DumpOptions, StorageConfig, StorageError, TreeTable, check, dump, stats};
use harmony_types::command::Compact;
use harmony_types::fake::fs::{CallKind, Crash, Fault, MemoryFileSystem};
use harmony_types::fake::seed::{Seed, SeededRng, for_each_seed};
use harmony_types::lease::LeaseGrant;
use harmony_types::txn::{DeleteRange, Put};
use harmony_types::{Command, CommandKind, FileSystem, LogIndex, OpenMode, Revision, Storage};

const TREE: &str = "/data/tree/tree.redb";
const PAGE: usize = 4096;

fn check_tree(fs: &MemoryFileSystem) -> Result<CheckReport, StorageError> {
    let before = fs.read_file(TREE);
    let found = check(fs, Path::new(TREE_DIR));
    assert_eq!(fs.read_file(TREE), before, "looking changes nothing");
    found
}

/// Leases, deletes, history and compaction; a value larger than a page.
fn commands() -> Vec<CommandKind> {
    let leased = Put { key: "leased".into(), value: "v".into(), lease: 7, ..Put::default() };
    let mut commands = vec![
        CommandKind::LeaseGrant(LeaseGrant { id: 7, ttl: 60 }),
        CommandKind::Put(leased),
        put("large", &"x".repeat(9_000)),
    ];
    for round in 0..3 {
        commands.extend((0..40).map(|number| put(&format!("k{number}"), &format!("value {round}"))));
        commands.push(CommandKind::DeleteRange(DeleteRange { key: "k7".into(), ..DeleteRange::default() }));
    }
    commands.push(CommandKind::Compact(Compact { revision: 60 }));
    commands
}

fn closed() -> Store {
    let mut store = Store::new();
    store.run_all(commands());
    store.storage().close().unwrap();
    store.stop();
    store
}

#[test]
fn a_good_tree_is_counted() {
    let store = closed();
    let report = check_tree(&store.fs).unwrap();
    let found = &report.stats;
    assert_eq!(found.applied.index, LogIndex(127));
    assert_eq!((found.revision, found.compacted), (Revision(126), Revision(60)));
    assert_eq!((found.keys, found.tombstones), (41, 1));
    assert_eq!(found.events, 126 - 59, "events from the compact revision on");
    assert_eq!(found.state_rows, 2, "the lease, and the key attached to it");
    assert_eq!(found.file_bytes, store.fs.read_file(TREE).unwrap().len() as u64);
    assert!(0 < report.used_pages && report.used_pages <= found.pages, "{report:?}");
    assert_eq!(report.torn_pages, 0);
    assert_eq!(stats(&store.fs, Path::new(TREE_DIR)).unwrap(), *found);
}

#[test]
fn a_tree_in_use_and_one_that_is_not_there_are_refused() {
    let mut store = Store::new();
    assert!(matches!(check(&store.fs, Path::new(TREE_DIR)), Err(StorageError::Locked { .. })));
    assert!(matches!(stats(&store.fs, Path::new(TREE_DIR)), Err(StorageError::Locked { .. })));
    store.stop();
    let error = check(&store.fs, Path::new("/nowhere")).unwrap_err();
    assert!(error.to_string().starts_with("open /nowhere/tree.redb: "), "{error}");
}

#[test]
fn whatever_random_commands_make_is_good() {
    for_each_seed(0..12, 10, |_, rng| {
        let config = StorageConfig { checkpoint_bytes: 1 + rng.below(2_000), ..common::config() };
        let mut store = Store::with(MemoryFileSystem::new(), config).unwrap();
        for _ in 0..15 {
            let revision = store.storage().revision().as_i64();
            let auth_revision = store.storage().auth().revision;
            let count = 1 + rng.below(8);
            let commands: Vec<Command> =
                (0..count).map(|_| Generate { rng, revision, auth_revision }.command()).collect();
            store.run_all(commands);
            disturb(&mut store, rng);
            let image = store.fs.crash_image(Crash::Seeded(Seed(rng.below(u64::MAX))));
            check_tree(&image).unwrap();
        }
        store.storage().close().unwrap();
        store.stop();
        check_tree(&store.fs).unwrap();
    });
}

fn disturb(store: &mut Store, rng: &mut SeededRng) {
    match rng.below(8) {
        0 => store.restart(rng.chance(1, 2)).unwrap(),
        1 => store.lose_power(Crash::Seeded(Seed(rng.below(u64::MAX)))).unwrap(),
        2 if store.storage().applied().index.0 != 0 => store.move_by_snapshot(),
        3 => {
            store.storage().drop_compacted().unwrap();
        }
        _ => {}
    }
}

#[test]
fn what_a_crash_leaves_is_good_at_every_call() {
    let mut torn = 0;
    for n in 1.. {
        let fs = MemoryFileSystem::new();
        fs.inject(Fault::on(CallKind::CHANGING).nth(n).lasting());
        let config = StorageConfig { checkpoint_bytes: 3_000, ..common::config() };
        let run = || -> Result<(), StorageError> {
            let mut store = Store::with(fs.clone(), config)?;
            for command in commands().chunks(30) {
                let entries: Vec<_> = command.iter().map(|kind| store.entry(kind.clone())).collect();
                store.try_save(&entries)?;
                store.storage().apply(&entries)?;
                store.storage().checkpoint()?;
            }
            Ok(())
        };
        let is_done = run().is_ok();
        for crash in [Crash::LoseUnsynced, Crash::Seeded(Seed(n))] {
            let image = fs.crash_image(crash);
            if image.exists(Path::new(TREE)).unwrap() {
                torn += check_tree(&image)
                    .unwrap_or_else(|error| panic!("call {n}, {crash:?}: {error}"))
                    .torn_pages;
            }
        }
        if is_done {
            break;
        }
    }
    assert!(0 < torn, "no crash cut a page: the test lost its subject");
}

#[test]
fn every_damaged_page_that_is_used_is_found() {
    let store = closed();
    let file = store.fs.read_file(TREE).unwrap();
    let used = check_tree(&store.fs).unwrap().used_pages;
    let (mut found, mut torn) = (0, 0);
    for offset in (0..file.len()).step_by(PAGE) {
        store.fs.flip(TREE, offset as u64 + 11, 0x20).unwrap();
        match check_tree(&store.fs) {
            Ok(report) => torn += report.torn_pages,
            Err(StorageError::CrcMismatch { place, .. } | StorageError::CorruptRecord { place, .. }) => {
                assert!(place.starts_with(TREE), "{place}");
                found += 1;
            }
            Err(error) => panic!("page at {offset}: {error}"),
        }
        store.fs.overwrite(TREE, 0, &file).unwrap();
    }
    // The head and the page of checksums besides what the tree uses; damage to the rest is nobody's loss, and is seen.
    assert!(used <= found && found <= used + 3, "{found} of {used}");
    assert!(0 < torn);
}

/// The one kind of damage that checksums cannot see on a read: see `docs/guarantees.md`.
#[test]
fn a_page_that_is_old_together_with_its_checksum_is_found() {
    let mut store = Store::new();
    let mut history = Vec::new();
    for round in 0..6 {
        for number in 0..40 {
            store.run(put(&format!("k{number}"), &format!("value {round}")));
        }
        store.storage().checkpoint().unwrap();
        history.push(store.fs.read_file(TREE).unwrap());
    }
    store.stop();
    let last = store.fs.read_file(TREE).unwrap();
    let at = |page: usize| (page + 2) * PAGE;
    let mut found = 0;
    for older in &history[..5] {
        for page in 1..older.len().min(last.len()) / PAGE - 2 {
            let old = &older[at(page)..][..PAGE];
            if old == &last[at(page)..][..PAGE] || old.iter().all(|byte| *byte == 0) {
                continue;
            }
            let sum = PAGE + page * 4;
            store.fs.overwrite(TREE, at(page) as u64, old).unwrap();
            store.fs.overwrite(TREE, sum as u64, &older[sum..sum + 4]).unwrap();
            // Otherwise nothing uses the page any more.
            found += u64::from(check_tree(&store.fs).is_err());
            store.fs.overwrite(TREE, 0, &last).unwrap();
        }
    }
    assert!(3 < found, "{found} found: the test lost its subject");
}

#[test]
fn a_dump_shows_every_row_up_to_the_limits() {
    let mut store = Store::new();
    let leased = Put { key: "b".into(), value: "v".into(), lease: 255, ..Put::default() };
    store.run_all([
        put("a", "first"),
        put("a", "second\n"),
        CommandKind::LeaseGrant(LeaseGrant { id: 255, ttl: 60 }),
        CommandKind::Put(leased),
        CommandKind::DeleteRange(DeleteRange { key: "a".into(), ..DeleteRange::default() }),
        put("a", ""),
    ]);
    store.storage().close().unwrap();
    store.stop();
    let text = |options: &DumpOptions| {
        let mut out = Vec::new();
        dump(&store.fs, Path::new(TREE_DIR), &mut out, options).unwrap();
        String::from_utf8(out).unwrap()
    };
    let rows = [TreeTable::Latest, TreeTable::Log].to_vec();
    assert_eq!(
        text(&DumpOptions { tables: rows.clone(), value_bytes_max: 3, ..DumpOptions::default() }),
        "latest \"a\" revision 6 sub 0 version 1 created 6 (0 bytes) \"\"\n\
         latest \"b\" revision 4 sub 0 version 1 created 4 lease ff (1 bytes) \"v\"\n\
         log revision 2 sub 0 version 1 created 2 (5 bytes) \"fir\"... of \"a\", replaced nothing\n\
         log revision 3 sub 0 version 2 created 2 (7 bytes) \"sec\"... of \"a\", replaced version 1\n\
         log revision 4 sub 0 version 1 created 4 lease ff (1 bytes) \"v\" of \"b\", replaced nothing\n\
         log revision 5 sub 0 delete of \"a\", replaced version 2\n\
         log revision 6 sub 0 version 1 created 6 (0 bytes) \"\" of \"a\", replaced a delete\n"
    );
    assert_eq!(
        text(&DumpOptions { tables: rows, rows_max: 1, value_bytes_max: 0 }),
        "latest \"a\" revision 6 sub 0 version 1 created 6 (0 bytes)\nlatest: more rows follow\n\
         log revision 2 sub 0 version 1 created 2 (5 bytes) of \"a\", replaced nothing\nlog: more rows follow\n"
    );
    let all = text(&DumpOptions::default());
    assert!(all.starts_with("state \"format\" (4 bytes)\nstate \"identity\" (16 bytes)\n"), "{all}");
    assert!(all.contains("\nstate \"lease/\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\xff\" ("), "{all}");
}

#[test]
fn a_file_that_is_no_tree_is_refused() {
    let store = closed();
    store.fs.open(Path::new(TREE), OpenMode::ReadWrite).unwrap().set_len(100).unwrap();
    assert!(check(&store.fs, Path::new(TREE_DIR)).is_err());
    store.fs.overwrite(TREE, 0, b"something else").unwrap();
    assert!(check(&store.fs, Path::new(TREE_DIR)).is_err());
}
