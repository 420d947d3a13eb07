//! Campaigns of simulations: one process for each core, pieces of the seeds for each of them in turn, sums and failures.

mod planted;

use std::collections::BTreeMap;
use std::error::Error;
use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Seeds that one process runs.
const PIECE: u64 = 20;

/// What is run.
#[derive(clap::Args)]
pub(crate) struct Sim {
    /// How many seeds for each size and intensity.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed; a fresh one each time unless it is given.
    #[arg(long)]
    first: Option<u64>,
    /// Stop after so many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// Sizes of clusters.
    #[arg(long, value_delimiter = ',', default_value = "3,5")]
    nodes: Vec<u64>,
    /// How much goes wrong: calm, moderate, wild.
    #[arg(long, value_delimiter = ',', default_value = "calm,moderate,wild")]
    intensity: Vec<String>,
    /// Simulated seconds of faults in a run.
    #[arg(long, default_value_t = 30)]
    length: u64,
    /// Hunt for the planted bugs instead, and print their table; see docs/testing.md.
    #[arg(long)]
    planted: bool,
}

/// Seeds for one process.
struct Piece {
    nodes: u64,
    intensity: String,
    first: u64,
    seeds: u64,
}

/// What came of them.
#[derive(Default)]
struct Sums {
    /// By word of the line `sum`.
    numbers: BTreeMap<String, f64>,
    /// By probe.
    probes: BTreeMap<String, u64>,
    failures: Vec<PathBuf>,
}

/// Runs a campaign.
///
/// # Errors
/// A simulation failed, or could not be run.
pub(crate) fn run(sim: &Sim) -> Result<(), Box<dyn Error>> {
    if sim.planted {
        return planted::run(sim);
    }
    let program = build()?;
    let first = sim.first.unwrap_or_else(fresh);
    println!(
        "seeds {first:#x} to {:#x}, {} members, {}",
        first + sim.seeds,
        join(&sim.nodes),
        sim.intensity.join(", ")
    );
    let failures = crate::root()?.join("target/sim");
    std::fs::create_dir_all(&failures)?;
    let pieces = pieces(sim, first);
    let total = pieces.iter().map(|piece| piece.seeds).sum::<u64>();
    let began = now();
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let sums = Mutex::new(Sums::default());
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let out_of_time = sim
                        .minutes
                        .is_some_and(|minutes| Duration::from_secs(60 * minutes) <= began.elapsed());
                    let place = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap_or(usize::MAX);
                    let Some(piece) = pieces.get(place).filter(|_| !out_of_time) else { return };
                    run_piece(&program, piece, sim.length, &failures, &sums);
                    let done = done.fetch_add(piece.seeds, Ordering::Relaxed) + piece.seeds;
                    let failed = lock(&sums).failures.len();
                    print!("\r{done} of {total} runs, {failed} failures, {} s ", began.elapsed().as_secs());
                    let _shown = std::io::stdout().flush();
                }
            });
        }
    });
    println!();
    report(&lock(&sums), began.elapsed())
}

fn build() -> Result<PathBuf, Box<dyn Error>> {
    example("simulate", &[])
}

/// Builds an example of the testkit for simulations, and says where it is.
///
/// # Errors
/// It does not build.
fn example(name: &str, features: &[&str]) -> Result<PathBuf, Box<dyn Error>> {
    let root = crate::root()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let words = ["build", "--quiet", "--profile", "sim", "-p", "harmony-testkit", "--example", name];
    let status = Command::new(cargo).args(words).args(features).current_dir(&root).status()?;
    if !status.success() {
        return Err(format!("{name} does not build").into());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("sim/examples").join(name))
}

/// Every size and intensity gets its turn early.
fn pieces(sim: &Sim, first: u64) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for start in (0..sim.seeds).step_by(usize::try_from(PIECE).unwrap_or(1)) {
        for nodes in &sim.nodes {
            for intensity in &sim.intensity {
                let seeds = PIECE.min(sim.seeds - start);
                let first = first.wrapping_add(start);
                pieces.push(Piece { nodes: *nodes, intensity: intensity.clone(), first, seeds });
            }
        }
    }
    pieces
}

fn run_piece(program: &Path, piece: &Piece, length: u64, failures: &Path, sums: &Mutex<Sums>) {
    let Piece { nodes, intensity, first, seeds } = piece;
    let words = [
        ("--first", first.to_string()),
        ("--seeds", seeds.to_string()),
        ("--members", nodes.to_string()),
        ("--intensity", intensity.clone()),
        ("--length-ms", (1_000 * length).to_string()),
    ];
    let output = Command::new(program).args(words.iter().flat_map(|(name, value)| [*name, value])).output();
    let (ok, text) = match &output {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            (output.status.success(), text + &String::from_utf8_lossy(&output.stderr))
        }
        Err(error) => (false, error.to_string()),
    };
    let mut sums = lock(sums);
    sums.add(&text);
    if !ok {
        let path = failures.join(format!("{nodes}-{intensity}-{first:#x}.txt"));
        if let Err(error) = std::fs::write(&path, &text) {
            eprintln!("{}: {error}\n{text}", path.display());
        }
        sums.failures.push(path);
    }
}

impl Sums {
    fn add(&mut self, text: &str) {
        let Some(at) = text.lines().position(|line| line.starts_with("sum ")) else { return };
        for (number, line) in text.lines().skip(at).enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match (number, words.as_slice()) {
                (0, [_, rest @ ..]) => {
                    for pair in rest.chunks_exact(2) {
                        *self.numbers.entry(pair[0].to_owned()).or_default() +=
                            pair[1].parse().unwrap_or(0.0);
                    }
                }
                (_, [count, probe]) => {
                    *self.probes.entry((*probe).to_owned()).or_default() += count.parse().unwrap_or(0);
                }
                _ => {}
            }
        }
    }
}

fn report(sums: &Sums, took: Duration) -> Result<(), Box<dyn Error>> {
    let number = |name: &str| sums.numbers.get(name).copied().unwrap_or_default();
    println!(
        "{} runs, {:.0} simulated seconds, {:.0} times real time a core, {:.0} events, {:.0} calls, {} histories undecided, {} s",
        number("runs"),
        number("simulated_s"),
        number("simulated_s") / number("real_s").max(1e-9),
        number("events"),
        number("operations"),
        number("undecided"),
        took.as_secs()
    );
    for (probe, count) in &sums.probes {
        println!("{count:>12} {probe}");
    }
    let unvisited: Vec<&str> =
        sums.probes.iter().filter(|(_, count)| **count == 0).map(|(probe, _)| probe.as_str()).collect();
    println!(
        "never visited: {}",
        if unvisited.is_empty() { "none".to_owned() } else { unvisited.join(", ") }
    );
    if sums.failures.is_empty() {
        return Ok(());
    }
    for path in &sums.failures {
        println!("failure: {}", path.display());
    }
    Err(format!("{} pieces with failures", sums.failures.len()).into())
}

fn lock(sums: &Mutex<Sums>) -> std::sync::MutexGuard<'_, Sums> {
    sums.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fresh() -> u64 {
    std::hash::RandomState::new().build_hasher().finish() >> 1
}

fn join(numbers: &[u64]) -> String {
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a campaign takes is shown and bounded, no result depends on it"
)]
fn now() -> Instant {
    Instant::now()
}
