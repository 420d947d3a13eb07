//! What an open log takes of memory: run it twice, the first run writes the entries, the second opens them.
//!
//! `cargo run --release -p harmony-wal --example memory -- /tmp/some-directory 10000000` (Linux; 720 MB of disk)

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::path::Path;

use bytes::Bytes;
use harmony_types::{Entry, LogIndex, Term};
use harmony_wal::{FileWal, OsFileSystem, Wal, WalConfig};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("say which directory, and how many entries")?;
    let entries: u64 = arguments.next().map_or(Ok(10_000), |text| text.parse())?;
    let before = resident_bytes()?;
    let wal = FileWal::open(OsFileSystem::new(), Path::new(&dir), WalConfig::default())?;
    let found = wal.bounds().last.0;
    if 0 < found {
        show("opened", found, before)?;
    }
    if found < entries {
        // Each with data of its own, as entries from a network have.
        let entry = |index| {
            let data = Bytes::from(vec![7; 32]);
            Entry { term: Term(1), index: LogIndex(index), data, ..Entry::default() }
        };
        for first in (found + 1..=entries).step_by(1_000) {
            let group: Vec<Entry> = (first..=entries.min(first + 999)).map(entry).collect();
            wal.append_many(None, &group)?;
        }
        wal.sync()?;
        show("written", entries, before)?;
    }
    Ok(wal.close()?)
}

fn show(what: &str, entries: u64, before: u64) -> Result<(), Box<dyn Error>> {
    let more = resident_bytes()?.saturating_sub(before);
    let tenths = 10 * more / entries;
    println!("{what}: {entries} entries, {} KiB, {}.{} bytes each", more / 1024, tenths / 10, tenths % 10);
    Ok(())
}

/// What the process holds.
fn resident_bytes() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
