//! harmony-wal beside its peers, in one run: `cargo xtask bench wal`.
//!
//! In each round every peer takes its turn at every workload, each time in a fresh directory; the order moves on by one
//! from round to round. Medians over the rounds are compared, and single rounds show the noise.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock and lets the disk rest")]

mod payload;
mod peer;
mod peers;
mod report;
mod stats;
mod workload;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bench_harness::Result;
use bench_harness::machine::{Machine, Quiet};
use bench_harness::record::{Record, command, commit};
use bench_harness::scratch::Scratch;
use clap::Parser;
use payload::Payloads;
use peer::Peer;
use report::Results;
use workload::{Plan, Workload};

/// Measures harmony-wal beside raft-engine, okaywal and a raw file.
#[derive(Parser)]
struct Arguments {
    /// Where to write. A directory is made in it, and removed.
    #[arg(long)]
    dir: PathBuf,
    /// How often everything is measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Short measurements, to see that it works: figures mean little.
    #[arg(long)]
    quick: bool,
    /// Only these workloads.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these peers, by a part of their names.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Compare with what is asked on a file system with a journal.
    #[arg(long)]
    journaled: bool,
    /// Write every sample here.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wal-peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let workloads = chosen(&arguments.only)?;
    let peers: Vec<Peer> = Peer::ALL
        .into_iter()
        .filter(|peer| {
            arguments.peers.is_empty() || arguments.peers.iter().any(|part| peer.name().contains(part))
        })
        .collect();
    let scratch = Scratch::new(&arguments.dir, "wal-peers")?;
    let machine = Machine::of(scratch.path());
    introduce(arguments, &machine, &peers);

    let plan = Plan {
        time: if arguments.quick { Duration::from_millis(200) } else { Duration::from_millis(1200) },
        entries: if arguments.quick { 102_400 } else { 1_000_000 },
        small: Payloads::new(256),
        large: Payloads::new(4096),
    };
    let start = Instant::now();
    let mut quiet = Quiet::default();
    for (workload, peer) in to_fill(&workloads, &peers) {
        if let Some(batch) = workload.filled_by() {
            workload::fill(&plan, peer, batch, &filled(scratch.path(), peer, batch))?;
            quiet.settle();
        }
    }
    let mut results = Results::default();
    for round in 0..arguments.rounds {
        for group in Workload::groups() {
            let group: Vec<Workload> = group.iter().copied().filter(|one| workloads.contains(one)).collect();
            for turn in 0..peers.len() {
                let peer = peers[(turn + round) % peers.len()];
                let group: Vec<Workload> = group.iter().copied().filter(|one| one.fits(peer)).collect();
                if !group.is_empty() {
                    one_turn(&plan, peer, &group, scratch.path(), &mut results)?;
                    quiet.settle();
                }
            }
        }
        eprintln!("round {} of {} done after {} s", round + 1, arguments.rounds, start.elapsed().as_secs());
    }
    conclude(arguments, &machine, &results, &quiet)
}

/// One workload for each log that is written once and read in each round.
fn to_fill(workloads: &BTreeSet<Workload>, peers: &[Peer]) -> Vec<(Workload, Peer)> {
    let mut logs = Vec::new();
    for group in Workload::groups() {
        let Some(workload) = group.iter().find(|one| workloads.contains(one)) else { continue };
        logs.extend(peers.iter().filter(|peer| workload.fits(**peer)).map(|peer| (*workload, *peer)));
    }
    logs
}

/// Where such a log lies.
fn filled(scratch: &Path, peer: Peer, batch: usize) -> PathBuf {
    scratch.join(format!("filled-{batch}-{peer:?}"))
}

fn one_turn(
    plan: &Plan,
    peer: Peer,
    group: &[Workload],
    scratch: &Path,
    results: &mut Results,
) -> Result<()> {
    let filled = group[0].filled_by().map(|batch| filled(scratch, peer, batch));
    let dir = filled.clone().unwrap_or_else(|| scratch.join(format!("{peer:?}")));
    let samples = workload::measure(plan, peer, group, &dir)
        .map_err(|error| format!("{}, {}: {error}", peer.name(), group[0].key()))?;
    if filled.is_none() {
        std::fs::remove_dir_all(&dir)?;
    }
    for (workload, sample) in samples {
        results.push(workload, peer, sample);
    }
    Ok(())
}

fn chosen(only: &[String]) -> Result<BTreeSet<Workload>> {
    let find = |key: &String| {
        let found = Workload::ALL.into_iter().find(|workload| workload.key() == key);
        let all = || Workload::ALL.map(Workload::key).join(", ");
        found.ok_or_else(|| format!("no workload {key}; there are {}", all()).into())
    };
    if only.is_empty() { Ok(Workload::ALL.into()) } else { only.iter().map(find).collect() }
}

fn introduce(arguments: &Arguments, machine: &Machine, peers: &[Peer]) {
    println!("# harmony-wal beside its peers\n");
    println!("- command: {}", command());
    println!("- harmony-wal at commit {}; raft-engine 0.4.2; okaywal 0.3.1", commit());
    println!("- machine: {}", machine.describe());
    println!("- load before: {}", machine.load);
    println!("- {} rounds, peers in turn, the order moves on by one each round", arguments.rounds);
    println!(
        "- payloads: random bytes of a fixed seed, made before; each workload runs for the same time with each peer"
    );
    for peer in peers {
        println!("- {}: {}", peer.name(), peer.settings());
    }
    if machine.loaded() {
        eprintln!("warning: the machine is not quiet (load {}): read ratios, not figures", machine.load);
    }
    println!();
}

fn conclude(arguments: &Arguments, machine: &Machine, results: &Results, quiet: &Quiet) -> Result<()> {
    for workload in Workload::ALL {
        println!("- {}: {}", workload.key(), workload.describe());
    }
    println!("\n{}\n\n{}\n", results.table(), results.verdicts(arguments.journaled));
    let record =
        Record { machine, rounds: arguments.rounds, quick: arguments.quick, results: results.json() };
    record.conclude(quiet, arguments.json.as_deref())
}
