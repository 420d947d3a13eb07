//! Random puts over keys that are there, with checkpoints beside them; the same into redb.

use std::path::Path;
use std::time::{Duration, Instant};

use bench_harness::random::Random;
use bench_harness::stats::percentile;

use crate::clocks::{Pace, process_cpu, thread_cpu};
use crate::naive::Naive;
use crate::node::{BATCH, Node, Took};
use crate::report::Figures;
use crate::row::{APPLY, APPLY_HOT_US, NAIVE, NAIVE_LARGE, STALL_MS};
use crate::{Plan, Result};

/// Applies longer than this are waits for memory when writes come as fast as they can.
const WAIT: Duration = Duration::from_millis(20);

/// A cache that holds all keys.
const LARGE_CACHE: usize = 1 << 30;

pub fn measure(plan: &Plan, round: usize, dir: &Path) -> Result<Figures> {
    let mut figures = Figures::new();
    // Peers in turn.
    for turn in 0..3 {
        let dir = dir.join(turn.to_string());
        match (turn + round) % 3 {
            0 => figures.extend(harmony(plan, &dir)?),
            1 => figures.push((NAIVE, redb(plan, &dir, plan.config.tree_cache_bytes)?)),
            _ => figures.push((NAIVE_LARGE, redb(plan, &dir, LARGE_CACHE)?)),
        }
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(figures)
}

fn redb(plan: &Plan, dir: &Path, cache_bytes: usize) -> Result<f64> {
    let mut naive = Naive::open(dir, cache_bytes)?;
    naive.fill(plan.keys)?;
    let mut random = Random::new(7);
    let start = Instant::now();
    let mut puts = 0;
    while start.elapsed() < plan.time {
        naive.write((0..BATCH).map(|_| (random.below(plan.keys), 1)))?;
        puts += BATCH;
    }
    naive.sync()?;
    Ok(puts as f64 / start.elapsed().as_secs_f64())
}

fn harmony(plan: &Plan, dir: &Path) -> Result<Figures> {
    let mut node = Node::open(dir, plan.config.clone())?;
    node.fill(0..plan.keys)?;
    let mut figures = Figures::new();
    let full = run(&mut node, plan, None)?;
    let rate = full.rate();
    figures.push((APPLY, rate));
    figures.push(("puts/s until all is applied", full.puts as f64 / full.applied.as_secs_f64()));
    figures.push(("applies that waited for memory, share of the time", full.waited()));
    figures.push(("longest wait for memory, ms", full.longest_apply_ms()));
    figures.push(("checkpoints", full.checkpoints as f64));
    figures.push(("CPU us a put of the thread that writes", full.own_cpu_us()));
    figures.push(("CPU us a put of all other threads", full.other_cpu_us()));
    let paced = run(&mut node, plan, Some(rate / 2.0 / BATCH as f64))?;
    figures.push((STALL_MS, paced.longest_apply_ms()));
    figures.push(("p99 of applies at half that rate, ms", paced.p99_apply_ms()));
    figures.push(("longest save at half that rate, ms", paced.longest_save_ms()));
    figures.extend(insert(&mut node, plan.keys)?);
    Ok(figures)
}

/// What a time of writing gave.
pub struct Run {
    pub puts: u64,
    pub took: Vec<Took>,
    /// Until the last apply.
    pub applied: Duration,
    /// Until all was in the tree.
    pub settled: Duration,
    pub checkpoints: u64,
    pub own_cpu: Duration,
    pub all_cpu: Duration,
}

/// Writes for the plan's time, so many batches a second or as fast as it can, and makes a last checkpoint.
pub fn run(node: &mut Node, plan: &Plan, batches_per_second: Option<f64>) -> Result<Run> {
    let mut random = Random::new(7);
    let mut pace = batches_per_second.map(Pace::new);
    let (own_before, all_before) = (thread_cpu(), process_cpu());
    let start = Instant::now();
    let mut took = Vec::new();
    node.start_checkpoints();
    while start.elapsed() < plan.time {
        if let Some(pace) = &mut pace {
            pace.wait();
        }
        let entries = node.puts((0..BATCH).map(|_| (random.below(plan.keys), 1)));
        took.push(node.write(&entries)?);
    }
    let (applied, own_cpu) = (start.elapsed(), thread_cpu() - own_before);
    let checkpoints = node.settle()?;
    Ok(Run {
        puts: took.len() as u64 * BATCH,
        took,
        applied,
        settled: start.elapsed(),
        checkpoints,
        own_cpu,
        all_cpu: process_cpu() - all_before,
    })
}

impl Run {
    pub fn rate(&self) -> f64 {
        self.puts as f64 / self.settled.as_secs_f64()
    }

    /// Share of the time that went into applies that waited.
    pub fn waited(&self) -> f64 {
        let waits = self.took.iter().map(|took| took.apply).filter(|apply| WAIT < *apply);
        waits.sum::<Duration>().as_secs_f64() / self.settled.as_secs_f64()
    }

    pub fn longest_apply_ms(&self) -> f64 {
        ms(self.took.iter().map(|took| took.apply).max())
    }

    fn longest_save_ms(&self) -> f64 {
        ms(self.took.iter().map(|took| took.save).max())
    }

    fn p99_apply_ms(&self) -> f64 {
        let mut applies: Vec<Duration> = self.took.iter().map(|took| took.apply).collect();
        applies.sort_unstable();
        ms(percentile(&applies, 0.99))
    }

    fn own_cpu_us(&self) -> f64 {
        self.own_cpu.as_secs_f64() * 1e6 / self.puts as f64
    }

    fn other_cpu_us(&self) -> f64 {
        self.all_cpu.saturating_sub(self.own_cpu).as_secs_f64() * 1e6 / self.puts as f64
    }
}

fn ms(time: Option<Duration>) -> f64 {
    time.unwrap_or_default().as_secs_f64() * 1e3
}

/// What a put costs in apply, by CPU time: first keys that are in the tree alone, then the same keys, in memory now. The
/// second bounds the insert into memory from above: decoding the command and hashing what it did are in it.
fn insert(node: &mut Node, keys: u64) -> Result<Figures> {
    const BATCHES: u64 = 64;
    const PASSES: u32 = 8;
    let mut pass = |generation: u32| -> Result<Duration> {
        let mut spent = Duration::ZERO;
        for batch in 0..BATCHES {
            let turns = batch * BATCH..(batch + 1) * BATCH;
            let entries = node.puts(turns.map(|turn| (crate::load::shuffled(turn, keys), generation)));
            node.save(&entries)?;
            let before = thread_cpu();
            harmony_types::Storage::apply(&*node.storage, &entries)?;
            spent += thread_cpu() - before;
        }
        Ok(spent)
    };
    let cold = pass(2)?;
    let mut hot = Duration::ZERO;
    for n in 0..PASSES {
        hot += pass(3 + n)?;
    }
    let us = |spent: Duration, passes: u64| spent.as_secs_f64() * 1e6 / (BATCHES * BATCH * passes) as f64;
    Ok(vec![
        ("CPU us a put in apply, keys in the tree", us(cold, 1)),
        (APPLY_HOT_US, us(hot, u64::from(PASSES))),
    ])
}
