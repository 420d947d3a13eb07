//! harmony-storage beside redb used naively, in one run: `cargo xtask bench storage`.
//!
//! In each round every row is measured once, those with a peer beside it in the same minute. Medians over the rounds count,
//! and single rounds show the noise.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock and lets the disk rest")]

mod child;
mod clocks;
mod files;
mod load;
mod naive;
mod node;
mod report;
mod row;
mod rows;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bench_harness::Result;
use bench_harness::machine::{Machine, Quiet};
use bench_harness::record::{Record, command, commit};
use bench_harness::scratch::Scratch;
use clap::Parser;
use harmony_storage::StorageConfig;
use report::{Figures, Results};
use row::Row;

/// The server's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures harmony-storage beside redb used naively.
#[derive(Parser)]
struct Arguments {
    /// Where to write. A directory is made in it, and removed.
    #[arg(long)]
    dir: PathBuf,
    /// How often everything is measured; `space` and `large` once.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Fewer keys and short measurements, to see that it works: figures mean little.
    #[arg(long)]
    quick: bool,
    /// Only these rows.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Keys in a store, at least 100,000; 10 times as many in `large`.
    #[arg(long)]
    keys: Option<u64>,
    /// Cache of the tree, MiB, and of redb beside it.
    #[arg(long)]
    cache_mib: Option<usize>,
    /// Memory for what is not in the tree yet, MiB, twice; not in `tails`.
    #[arg(long)]
    memory_mib: Option<u64>,
    /// Segments of the log, MiB.
    #[arg(long)]
    segment_mib: Option<u64>,
    /// Also the row `large`.
    #[arg(long)]
    large: bool,
    /// Write every figure here.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// How much.
pub struct Plan {
    /// Keys in a store.
    pub keys: u64,
    /// For which a rate is measured.
    pub time: Duration,
    /// Settings of our stores.
    pub config: StorageConfig,
}

fn main() -> ExitCode {
    let done = match child::task() {
        Some(task) => task.and_then(|task| task.run()),
        None => run(&Arguments::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("storage-peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let rows = chosen(arguments)?;
    let scratch = Scratch::new(&arguments.dir, "storage-peers")?;
    let machine = Machine::of(scratch.path());
    let mut config = StorageConfig::default();
    config.tree_cache_bytes = arguments.cache_mib.map_or(config.tree_cache_bytes, |mib| mib << 20);
    config.checkpoint_bytes = arguments.memory_mib.map_or(config.checkpoint_bytes, |mib| mib << 20);
    config.wal.segment_bytes = arguments.segment_mib.map_or(config.wal.segment_bytes, |mib| mib << 20);
    let plan = Plan {
        config,
        keys: arguments.keys.unwrap_or(if arguments.quick { 100_000 } else { 1_000_000 }),
        time: if arguments.quick { Duration::from_secs(2) } else { Duration::from_secs(10) },
    };
    if plan.keys < load::PREFIX_KEYS {
        return Err(format!("--keys must be at least {}", load::PREFIX_KEYS).into());
    }
    introduce(arguments, &plan, &machine);

    let start = Instant::now();
    let mut quiet = Quiet::default();
    let mut results = Results::default();
    for round in 0..arguments.rounds {
        for row in rows.iter().filter(|row| round == 0 || !row.is_once()) {
            results.push(*row, measure(&plan, *row, round, scratch.path())?);
            quiet.settle();
            eprintln!(
                "round {} of {}: {} after {} s",
                round + 1,
                arguments.rounds,
                row.key(),
                start.elapsed().as_secs()
            );
        }
    }
    conclude(arguments, &machine, &rows, &results, &quiet)
}

fn chosen(arguments: &Arguments) -> Result<Vec<Row>> {
    let find = |key: &String| {
        let found = Row::ALL.into_iter().find(|row| row.key() == key);
        found.ok_or_else(|| format!("no row {key}; there are {}", Row::ALL.map(Row::key).join(", ")).into())
    };
    if arguments.only.is_empty() {
        let large = |row: &Row| *row == Row::Large && arguments.large;
        return Ok(Row::ALL.into_iter().filter(|row| !row.is_special() || large(row)).collect());
    }
    arguments.only.iter().map(find).collect()
}

fn measure(plan: &Plan, row: Row, round: usize, scratch: &Path) -> Result<Figures> {
    let dir = scratch.join(row.key());
    let figures = match row {
        Row::Apply => rows::apply::measure(plan, round, &dir),
        Row::Get => return rows::reads::gets(plan, round, scratch),
        Row::List => return rows::reads::lists(plan, scratch),
        Row::Watch => return rows::history::watch(plan, scratch),
        Row::Compact => rows::history::compact(plan, &dir),
        Row::Open => rows::restart::open(plan, &dir),
        Row::Space => rows::space::measure(plan, &dir),
        Row::Written => rows::space::written(plan, &dir),
        Row::Tails => rows::tails::measure(plan, &dir),
        Row::Large => rows::restart::large(plan, &dir),
    };
    // Stores that several rows and rounds read stay; these do not.
    std::fs::remove_dir_all(&dir)?;
    figures.map_err(|error| format!("{}: {error}", row.key()).into())
}

fn introduce(arguments: &Arguments, plan: &Plan, machine: &Machine) {
    println!("# harmony-storage beside redb used naively\n");
    println!("- command: {}", command());
    println!("- harmony-storage at commit {}; redb 4.6.0; mimalloc", commit());
    println!("- machine: {}", machine.describe());
    println!("- load before: {}", machine.load);
    println!(
        "- {} rounds; {} keys of 32 B, values of {} B, random bytes of a fixed seed",
        arguments.rounds,
        plan.keys,
        load::VALUE_BYTES
    );
    println!(
        "- cache of the tree {} MiB, memory before a checkpoint twice {} MiB",
        plan.config.tree_cache_bytes >> 20,
        plan.config.checkpoint_bytes >> 20
    );
    if machine.loaded() {
        eprintln!("warning: the machine is not quiet (load {}): read ratios, not figures", machine.load);
    }
    println!();
}

fn conclude(
    arguments: &Arguments,
    machine: &Machine,
    rows: &[Row],
    results: &Results,
    quiet: &Quiet,
) -> Result<()> {
    for row in rows {
        println!("- {}: {}", row.key(), row.describe());
    }
    println!("\n{}\n\n{}\n", results.table(), results.verdicts());
    let record =
        Record { machine, rounds: arguments.rounds, quick: arguments.quick, results: results.json() };
    record.conclude(quiet, arguments.json.as_deref())
}
