//! How long gets and applies take while other work goes on.

use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bench_harness::random::Random;
use bench_harness::stats::percentile;
use harmony_storage::StorageConfig;
use harmony_types::command::Compact;
use harmony_types::{CommandKind, Storage};
use harmony_wal::work_in_background;

use crate::clocks::Pace;
use crate::load;
use crate::node::{BATCH, Node};
use crate::report::Figures;
use crate::row::{APPLIES_BUSY, GETS_BUSY};
use crate::{Plan, Result};

/// Batches and gets a second: about half of what one core can do.
const BATCHES_PER_SECOND: f64 = 200.0;
const GETS_PER_SECOND: f64 = 10_000.0;

/// Many more than a node makes, so that one is under way half of the time.
const CHECKPOINTS_PER_SECOND: f64 = 4.0;

/// Revisions that stay readable when the rest is compacted.
const KEPT_REVISIONS: i64 = 50_000;

/// The same load twice: with nothing beside it, then while checkpoints, compaction, rebuilds and snapshots run,
/// in threads that work in the background, as a node's do.
pub fn measure(plan: &Plan, dir: &Path) -> Result<Figures> {
    // Idle: all of the time fits into memory.
    let config = StorageConfig { checkpoint_bytes: 1 << 30, ..plan.config.clone() };
    let mut node = Node::open(dir, config)?;
    node.fill(0..plan.keys)?;
    let idle = load_beside(&mut node, plan, |_, _| Ok(()))?;
    node.settle()?;
    let checkpoints = AtomicU64::new(0);
    let snapshots = AtomicU64::new(0);
    let rebuilds = Mutex::new(Vec::new());
    let busy = load_beside(&mut node, plan, |storage, running| {
        thread::scope(|scope| {
            let checkpointing = scope.spawn(|| -> Result<()> {
                work_in_background();
                let mut pace = Pace::new(CHECKPOINTS_PER_SECOND);
                while running.load(Ordering::Acquire) {
                    pace.wait();
                    storage.checkpoint()?;
                    checkpoints.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
            let rebuilding = scope.spawn(|| -> Result<()> {
                work_in_background();
                while running.load(Ordering::Acquire) {
                    let start = Instant::now();
                    storage.rebuild()?;
                    rebuilds.lock().unwrap_or_else(PoisonError::into_inner).push(start.elapsed());
                }
                Ok(())
            });
            work_in_background();
            let mut chunk = vec![0; 64 << 10];
            while running.load(Ordering::Acquire) {
                let mut stream = storage.create_snapshot()?.data.into_reader();
                while running.load(Ordering::Acquire) && stream.read(&mut chunk)? != 0 {}
                snapshots.fetch_add(1, Ordering::Relaxed);
            }
            rebuilding.join().map_err(|_| "the rebuild thread panicked")??;
            checkpointing.join().map_err(|_| "the checkpoint thread panicked")?
        })
    })?;
    let rebuilds = rebuilds.into_inner().unwrap_or_else(PoisonError::into_inner);
    let rebuild = rebuilds.iter().max().copied().unwrap_or_default();
    let us = |nanos: u64| nanos as f64 / 1e3;
    Ok(vec![
        (GETS_BUSY, busy.get_p99 as f64 / idle.get_p99 as f64),
        (APPLIES_BUSY, busy.apply_p99 as f64 / idle.apply_p99 as f64),
        ("p99 of gets, idle, us", us(idle.get_p99)),
        ("p99 of gets, busy, us", us(busy.get_p99)),
        ("longest get, idle, us", us(idle.get_longest)),
        ("longest get, busy, us", us(busy.get_longest)),
        ("p99 of applies of 64, idle, us", us(idle.apply_p99)),
        ("p99 of applies of 64, busy, us", us(busy.apply_p99)),
        ("longest apply, idle, us", us(idle.apply_longest)),
        ("longest apply, busy, us", us(busy.apply_longest)),
        ("checkpoints meanwhile", checkpoints.into_inner() as f64),
        ("rebuilds meanwhile", rebuilds.len() as f64),
        ("the longest of these, s", rebuild.as_secs_f64()),
        ("snapshots meanwhile", snapshots.into_inner() as f64),
    ])
}

struct Tails {
    get_p99: u64,
    get_longest: u64,
    apply_p99: u64,
    apply_longest: u64,
}

/// Runs the load for the plan's time, and `beside` in a thread of its own until it says that the time is over.
fn load_beside(
    node: &mut Node,
    plan: &Plan,
    beside: impl Fn(&harmony_storage::UnifiedStorage, &AtomicBool) -> Result<()> + Sync,
) -> Result<Tails> {
    let running = AtomicBool::new(true);
    let storage = std::sync::Arc::clone(&node.storage);
    thread::scope(|scope| {
        let beside = scope.spawn(|| beside(&storage, &running));
        let gets = scope.spawn(|| gets(&storage, plan, &running));
        let applies = applies(node, plan);
        running.store(false, Ordering::Release);
        let gets = gets.join().map_err(|_| "the reader panicked")??;
        beside.join().map_err(|_| "a thread beside panicked")??;
        let ((apply_p99, apply_longest), (get_p99, get_longest)) = (tail(applies?)?, tail(gets)?);
        Ok(Tails { get_p99, get_longest, apply_p99, apply_longest })
    })
}

fn gets(storage: &harmony_storage::UnifiedStorage, plan: &Plan, running: &AtomicBool) -> Result<Vec<u64>> {
    let mut random = Random::new(17);
    let mut pace = Pace::new(GETS_PER_SECOND);
    let mut nanos = Vec::new();
    while running.load(Ordering::Acquire) {
        pace.wait();
        let key = load::key(random.below(plan.keys));
        let start = Instant::now();
        let found = storage.get(&key)?;
        nanos.push(start.elapsed().as_nanos() as u64);
        if found.is_none() {
            return Err(format!("no {key:?}").into());
        }
    }
    Ok(nanos)
}

/// Batches of puts, and once a second a compaction of all but the newest revisions.
fn applies(node: &mut Node, plan: &Plan) -> Result<Vec<u64>> {
    let mut random = Random::new(19);
    let mut pace = Pace::new(BATCHES_PER_SECOND);
    let mut nanos = Vec::new();
    let start = Instant::now();
    let mut compactions = Duration::from_secs(1);
    while start.elapsed() < plan.time {
        pace.wait();
        let mut entries = node.puts((0..BATCH).map(|_| (random.below(plan.keys), 1)));
        if compactions < start.elapsed() {
            compactions += Duration::from_secs(1);
            let revision = node.storage.revision().as_i64() - KEPT_REVISIONS;
            entries.push(node.command(CommandKind::Compact(Compact { revision })));
        }
        nanos.push(node.write(&entries)?.apply.as_nanos() as u64);
    }
    Ok(nanos)
}

fn tail(mut nanos: Vec<u64>) -> Result<(u64, u64)> {
    nanos.sort_unstable();
    let p99 = percentile(&nanos, 0.99).ok_or("nothing was measured")?;
    Ok((p99, nanos.last().copied().unwrap_or(p99)))
}
