//! A Raft follower's log: takes what continues it, replaces what a newer leader has otherwise, refuses what leaves a gap.
//!
//! `cargo run -p harmony-wal --example follower -- /tmp/some-empty-directory`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::path::{Path, PathBuf};

use harmony_wal::{Entry, FileWal, HardState, LogIndex, OsFileSystem, Term, Wal, WalConfig, WalError};

/// Takes `entries`, which stand behind the leader's entry at `before`, and returns the last index that agrees with the
/// leader's log, durably; `None` when the log has no such entry (Raft thesis, 3.5).
fn follow(wal: &FileWal, before: (u64, u64), entries: &[Entry]) -> Result<Option<LogIndex>, WalError> {
    let (index, term) = (LogIndex(before.0), Term(before.1));
    if wal.term(index).ok() != Some(term) {
        return Ok(None);
    }
    // An old message must not cut off what came after it: only an entry of another term replaces.
    let held = entries.iter().take_while(|entry| wal.term(entry.index).ok() == Some(entry.term)).count();
    if let Some(last) = entries[held..].last() {
        let state = HardState { term: last.term, ..wal.hard_state() };
        wal.append_many(Some(&state), &entries[held..])?;
        wal.sync()?;
    }
    Ok(Some(entries.last().map_or(index, |last| last.index)))
}

fn entries(indexes: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    let data = |index| format!("{index} of term {term}").into();
    let entry =
        |index| Entry { term: Term(term), index: LogIndex(index), data: data(index), ..Entry::default() };
    indexes.map(entry).collect()
}

fn main() -> Result<(), WalError> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from);
    run(&dir.unwrap_or_else(|| std::env::temp_dir().join("harmony-wal-follower"))).map(drop)
}

/// Returns the terms of the log in the end.
pub(crate) fn run(dir: &Path) -> Result<Vec<u64>, WalError> {
    let wal = FileWal::open(OsFileSystem::new(), dir, WalConfig::default())?;
    println!("from term 1: {:?}", follow(&wal, (0, 0), &entries(1..=5, 1))?);
    println!("with a gap: {:?}", follow(&wal, (7, 2), &entries(8..=9, 2))?);
    println!("from term 2, which has another entry 4: {:?}", follow(&wal, (3, 1), &entries(4..=4, 2))?);
    println!("an old message once more: {:?}", follow(&wal, (0, 0), &entries(1..=2, 1))?);
    wal.close()?;
    drop(wal);

    let wal = FileWal::open(OsFileSystem::new(), dir, WalConfig::default())?;
    let bounds = wal.bounds();
    let held = wal.entries(bounds.first()..bounds.last.next(), u64::MAX)?;
    println!("{:?}", held.iter().map(|entry| String::from_utf8_lossy(&entry.data)).collect::<Vec<_>>());
    Ok(held.iter().map(|entry| entry.term.0).collect())
}
