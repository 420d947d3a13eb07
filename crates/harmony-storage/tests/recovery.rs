//! A process that is killed with much in its log that is in no checkpoint, on real files: the next one has all of it.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of the functions that clippy exempts")]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use common::life::commands;
use harmony_storage::{StorageConfig, UnifiedStorage};
use harmony_types::fake::seed::Seed;
use harmony_types::{Entry, EntryType, HardState, LogIndex, Storage, Term};
use harmony_wal::OsFileSystem;

/// Tells the process that it is the other one, and where the store is.
const DIR_VARIABLE: &str = "HARMONY_STORAGE_TEST_DIR";
/// Entries, of which a checkpoint holds some.
const ENTRIES: usize = 600;
const CHECKPOINT_AT: u64 = 100;

fn open(dir: &Path) -> UnifiedStorage {
    let mut config = StorageConfig::default();
    config.wal.segment_bytes = 64 << 10;
    UnifiedStorage::open(OsFileSystem::new(), &dir.join("wal"), &dir.join("tree"), config).unwrap()
}

fn entries() -> Vec<Entry> {
    let commands = commands(&mut Seed(1).rng(), ENTRIES);
    let entry = |(index, command): (u64, harmony_types::Command)| Entry {
        term: Term(1),
        index: LogIndex(index),
        entry_type: EntryType::Normal,
        data: command.encode_to_bytes(),
    };
    (1..).zip(commands).map(entry).collect()
}

fn apply(storage: &UnifiedStorage, entries: &[Entry]) {
    for piece in entries.chunks(7) {
        let commit = piece[piece.len() - 1].index;
        storage.save(Some(&HardState { term: Term(1), vote: None, commit }), piece).unwrap();
        storage.sync().unwrap();
        storage.apply(piece).unwrap();
        if commit.0 / CHECKPOINT_AT != (commit.0 - 7).max(1) / CHECKPOINT_AT && commit.0 < 2 * CHECKPOINT_AT {
            storage.checkpoint().unwrap();
        }
    }
}

/// Run as another process by [`a_killed_process_left_everything_in_the_log`]: applies everything, says so, and waits to be
/// killed.
#[test]
#[ignore = "a process of its own, started by the test beside it"]
fn the_other_process() {
    let Some(dir) = std::env::var_os(DIR_VARIABLE) else { return };
    let storage = open(Path::new(&dir));
    apply(&storage, &entries());
    println!("store: {} {}", storage.applied().index, storage.durable_applied());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

#[test]
fn a_killed_process_left_everything_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "the_other_process", "--nocapture", "--test-threads=1"])
        .env(DIR_VARIABLE, dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let said = said.filter_map(|line| line.split_once("store: ").map(|(_, said)| said.to_owned())).next();
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    assert_eq!(said.unwrap(), format!("{ENTRIES} 105"), "the test lost its subject");

    let storage = open(dir.path());
    assert_eq!((storage.applied().index.0, storage.durable_applied().0), (ENTRIES as u64, 105));
    // The same entries in a store of their own, which was never closed.
    let other = tempfile::tempdir().unwrap();
    let calm = open(other.path());
    apply(&calm, &entries());
    assert_eq!(storage.applied_hash(), calm.applied_hash());
    assert_eq!(storage.hash_kv(0).unwrap(), calm.hash_kv(0).unwrap());
    assert_eq!(storage.hash().unwrap(), calm.hash().unwrap());
}
