//! Opening what a killed process left.

use std::path::Path;
use std::time::{Duration, Instant};

use harmony_storage::StorageConfig;
use harmony_types::Storage;
use harmony_wal::{FileWal, OsFileSystem};

use crate::child::{self, Task};
use crate::node::{self, Node};
use crate::report::Figures;
use crate::row::{APPLY, OPEN_FULL_MS, OPEN_MS, RSS_MIB};
use crate::{Plan, Result};

/// Each with a tail of one memory full of puts, then of two: what there is when the process dies while a checkpoint takes
/// the first one in.
pub fn open(plan: &Plan, dir: &Path) -> Result<Figures> {
    let mut figures = Figures::new();
    for (memories, name, of_log, of_entries) in [
        (1, OPEN_MS, "of these, ms for the log", "entries in this tail"),
        (2, OPEN_FULL_MS, "of these two, ms for the log", "entries in these two tails"),
    ] {
        let task = Task { memories, ..task(plan, dir) };
        let told = task.spawn()?;
        let (all, log) = open_killed(&task)?;
        figures.extend([(name, all), (of_log, log), (of_entries, told.entries as f64)]);
        std::fs::remove_dir_all(dir)?;
        std::fs::create_dir_all(dir)?;
    }
    Ok(figures)
}

/// A store of all keys, and one memory of tail.
fn task(plan: &Plan, dir: &Path) -> Task {
    let StorageConfig { checkpoint_bytes, tree_cache_bytes, .. } = plan.config;
    let (dir, keys) = (dir.to_owned(), plan.keys);
    Task { dir, keys, time: Duration::ZERO, small: false, checkpoint_bytes, tree_cache_bytes, memories: 1 }
}

/// Milliseconds until the store is open, and of these until the log is.
fn open_killed(task: &Task) -> Result<(f64, f64)> {
    let config = task.config();
    let start = Instant::now();
    let node = Node::open(&task.dir, config.clone())?;
    let all = start.elapsed();
    let applied = node.storage.applied();
    if applied.index != node.storage.bounds().last {
        return Err("the tail was not applied".into());
    }
    child::check(&node, task.keys)?;
    // Dropped, not closed: what is on disk stays as the child left it.
    drop(node);
    let start = Instant::now();
    drop(FileWal::open(OsFileSystem::new(), &node::wal_dir(&task.dir), config.wal)?);
    Ok((all.as_secs_f64() * 1e3, start.elapsed().as_secs_f64() * 1e3))
}

/// Ten times as many keys in little memory: puts, then the open after the kill.
pub fn large(plan: &Plan, dir: &Path) -> Result<Figures> {
    let task = Task { keys: 10 * plan.keys, time: 3 * plan.time, small: true, ..task(plan, dir) };
    let told = task.spawn()?;
    let (all, log) = open_killed(&task)?;
    Ok(vec![
        (APPLY, told.rate),
        ("applies that waited for memory, share of the time", told.waited),
        ("longest wait for memory, ms", told.longest_apply_ms),
        (RSS_MIB, told.peak_rss as f64 / f64::from(1 << 20)),
        (OPEN_MS, all),
        ("of these, ms for the log", log),
        ("entries in this tail", told.entries as f64),
    ])
}
