//! Gets and lists.

use std::path::{Path, PathBuf};
use std::time::Instant;

use bench_harness::random::Random;
use bytes::Bytes;
use harmony_storage::StorageConfig;
use harmony_types::Storage;
use harmony_types::txn::Range;

use crate::load::{self, PREFIX_KEYS, Values};
use crate::naive::Naive;
use crate::node::{BATCH, Node};
use crate::report::Figures;
use crate::row::{GETS, GETS_CACHED, LIST, LIST_AGED, RAW_GETS, RAW_GETS_CACHED};
use crate::{Plan, Result};

const GETS_EACH: u64 = 200_000;
const LISTS_EACH: u32 = 5;
/// Overwrites of every key in a store that is listed after them.
pub const OVERWRITES: u32 = 3;
/// Keys in that store.
const AGED_KEYS_MAX: u64 = 3 * PREFIX_KEYS;

const LARGE_CACHE: usize = 1 << 30;

/// A directory that is written by the first who needs it.
fn once(dir: PathBuf, write: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    if !dir.exists() {
        write(&dir)?;
    }
    Ok(dir)
}

fn filled(plan: &Plan, scratch: &Path) -> Result<PathBuf> {
    once(scratch.join("filled"), |dir| {
        let mut node = Node::open(dir, plan.config.clone())?;
        node.fill(0..plan.keys)?;
        Ok(node.storage.close()?)
    })
}

fn filled_redb(plan: &Plan, scratch: &Path) -> Result<PathBuf> {
    once(scratch.join("filled-redb"), |dir| Naive::open(dir, plan.config.tree_cache_bytes)?.fill(plan.keys))
}

/// A store in which every key was written, and then overwritten [`OVERWRITES`] times, all of it in the tree.
pub fn aged(plan: &Plan, scratch: &Path) -> Result<(PathBuf, u64)> {
    let keys = plan.keys.min(AGED_KEYS_MAX);
    let dir = once(scratch.join("aged"), |dir| {
        let mut node = Node::open(dir, plan.config.clone())?;
        node.fill(0..keys)?;
        node.start_checkpoints();
        for generation in 1..=OVERWRITES {
            node.overwrite(keys, generation)?;
        }
        node.settle()?;
        Ok(node.storage.close()?)
    })?;
    Ok((dir, keys))
}

/// Random gets by one thread, values compared with what was written; with the storage's own cache, and with one that holds
/// everything.
pub fn gets(plan: &Plan, round: usize, scratch: &Path) -> Result<Figures> {
    let (ours, raw) = (filled(plan, scratch)?, filled_redb(plan, scratch)?);
    let own_cache = plan.config.tree_cache_bytes;
    let mut figures = Figures::new();
    // Peers in turn.
    for turn in 0..2 {
        if (turn + round).is_multiple_of(2) {
            figures.push((GETS, our_gets(plan, &ours, own_cache)?));
            figures.push((GETS_CACHED, our_gets(plan, &ours, LARGE_CACHE)?));
        } else {
            figures.push((RAW_GETS, raw_gets(plan, &raw, own_cache)?));
            figures.push((RAW_GETS_CACHED, raw_gets(plan, &raw, LARGE_CACHE)?));
        }
    }
    Ok(figures)
}

fn our_gets(plan: &Plan, dir: &Path, tree_cache_bytes: usize) -> Result<f64> {
    let node = Node::open(dir, StorageConfig { tree_cache_bytes, ..plan.config.clone() })?;
    let rate = rate(plan, |key, expected| Ok(node.storage.get(key)?.is_some_and(|kv| kv.value == expected)))?;
    node.storage.close()?;
    Ok(rate)
}

fn raw_gets(plan: &Plan, dir: &Path, cache_bytes: usize) -> Result<f64> {
    let naive = Naive::open(dir, cache_bytes)?;
    let table = naive.view()?;
    rate(plan, |key, expected| Ok(table.get(&key[..])?.is_some_and(|value| value.value() == expected)))
}

/// Gets a second, after as many that warm the caches.
fn rate(plan: &Plan, get: impl Fn(&Bytes, &Bytes) -> Result<bool>) -> Result<f64> {
    let values = Values::new();
    let mut random = Random::new(11);
    let mut part = || -> Result<f64> {
        let numbers: Vec<u64> = (0..GETS_EACH).map(|_| random.below(plan.keys)).collect();
        let keys: Vec<(Bytes, Bytes)> =
            numbers.iter().map(|number| (load::key(*number), values.of(*number, 0))).collect();
        let start = Instant::now();
        for (key, expected) in &keys {
            if !get(key, expected)? {
                return Err(format!("get of {key:?} gave another value").into());
            }
        }
        Ok(GETS_EACH as f64 / start.elapsed().as_secs_f64())
    };
    part()?;
    part()
}

/// Lists of one prefix: just written; overwritten, all in the tree; and with a part of the newest versions in memory.
pub fn lists(plan: &Plan, scratch: &Path) -> Result<Figures> {
    let mut figures = Figures::new();
    {
        let node = Node::open(&filled(plan, scratch)?, plan.config.clone())?;
        figures.push((LIST, list(&node)?));
        node.storage.close()?;
    }
    {
        let naive = Naive::open(&filled_redb(plan, scratch)?, plan.config.tree_cache_bytes)?;
        let (from, end) = load::prefix(0);
        let list = || Ok(naive.list(&from, &end)?.len());
        figures.push(("raw redb, rows/s, copied", rows_per_second(list)?));
    }
    let (dir, keys) = aged(plan, scratch)?;
    let mut node = Node::open(&dir, plan.config.clone())?;
    figures.push((LIST_AGED, list(&node)?));
    let mut random = Random::new(13);
    for _ in 0..300 {
        let entries = node.puts((0..BATCH).map(|_| (random.below(keys), OVERWRITES + 1)));
        node.write(&entries)?;
    }
    figures.push(("rows/s, with 19,200 random puts in memory", list(&node)?));
    node.storage.close()?;
    Ok(figures)
}

fn list(node: &Node) -> Result<f64> {
    let (key, range_end) = load::prefix(0);
    let request = Range { key, range_end, ..Range::default() };
    rows_per_second(|| Ok(node.storage.range(&request)?.outcome.kvs.len()))
}

fn rows_per_second(list: impl Fn() -> Result<usize>) -> Result<f64> {
    let check = |rows: usize| match rows as u64 {
        PREFIX_KEYS => Ok(()),
        rows => Err(format!("listed {rows} rows of {PREFIX_KEYS}")),
    };
    check(list()?)?;
    let start = Instant::now();
    for _ in 0..LISTS_EACH {
        check(list()?)?;
    }
    Ok(f64::from(LISTS_EACH) * PREFIX_KEYS as f64 / start.elapsed().as_secs_f64())
}
