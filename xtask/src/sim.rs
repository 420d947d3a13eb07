//! Campaigns of simulations: some processes beside each other, pieces of the seeds for each of them in turn, sums and failures.

mod planted;

use std::collections::BTreeMap;
use std::error::Error;
use std::hash::{BuildHasher, Hasher};
use std::io::{IsTerminal, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Seeds that one process runs.
const PIECE: u64 = 20;

/// The seeds that every check of a change runs, for each size and intensity.
const FIXED: std::ops::Range<u64> = 0x5eed_0000..0x5eed_0028;

/// How long fresh seeds are run behind them.
const FRESH: Duration = Duration::from_secs(45);

/// What is run.
#[derive(clap::Args)]
pub(crate) struct Sim {
    /// How many seeds for each size and intensity.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed; a fresh one each time unless it is given.
    #[arg(long, value_parser = number)]
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
    /// Processes beside each other; as many as there are cores unless it is given.
    #[arg(long)]
    jobs: Option<usize>,
    /// What every check of a change runs: a fixed set of seeds, then fresh ones; 90 seconds at most on two cores, and every common
    /// probe must be visited. Of the other options, only `--jobs` counts.
    #[arg(long)]
    ci: bool,
}

/// Seeds for one process.
struct Piece {
    nodes: u64,
    intensity: String,
    first: u64,
    seeds: u64,
}

/// How often a probe was visited, and whether it has to be.
#[derive(Default)]
struct Visits {
    count: u64,
    is_common: bool,
}

/// What came of them.
#[derive(Default)]
struct Sums {
    /// By word of the line `sum`.
    numbers: BTreeMap<String, f64>,
    probes: BTreeMap<String, Visits>,
    /// Processes that ended badly.
    failures: Vec<String>,
}

/// A campaign under way.
struct Campaign<'a> {
    program: &'a Path,
    /// Where failures are kept.
    keep: &'a Path,
    length: u64,
    jobs: usize,
    deadline: Option<Duration>,
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
    let keep = crate::root()?.join("target/sim");
    std::fs::create_dir_all(&keep)?;
    let jobs = sim.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZero::get));
    let deadline = sim.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let mut campaign = Campaign { program: &program, keep: &keep, length: sim.length, jobs, deadline };
    let began = now();
    let mut sums = Sums::default();
    if sim.ci {
        campaign.run(&ci(FIXED.start, FIXED.end - FIXED.start), &mut sums);
        campaign.deadline = Some(FRESH);
        campaign.run(&ci(fresh(), 100_000), &mut sums);
    } else {
        campaign.run(sim, &mut sums);
    }
    report(&sums, began.elapsed(), sim.ci, &keep)
}

/// Seeds as every check of a change runs them.
fn ci(first: u64, seeds: u64) -> Sim {
    let intensity = ["calm", "moderate", "wild"].map(str::to_owned).to_vec();
    Sim {
        seeds,
        first: Some(first),
        minutes: None,
        nodes: vec![3, 5],
        intensity,
        length: 20,
        planted: false,
        jobs: None,
        ci: true,
    }
}

impl Campaign<'_> {
    /// Runs seeds, until all are run or time is over; says which.
    fn run(&self, sim: &Sim, sums: &mut Sums) {
        let first = sim.first.unwrap_or_else(fresh);
        let pieces = pieces(sim, first);
        let total = pieces.iter().map(|piece| piece.seeds).sum::<u64>();
        let began = now();
        let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
        let shared = Mutex::new(std::mem::take(sums));
        thread::scope(|scope| {
            for _ in 0..self.jobs {
                scope.spawn(|| {
                    while self.deadline.is_none_or(|deadline| began.elapsed() < deadline) {
                        let place =
                            usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap_or(usize::MAX);
                        let Some(piece) = pieces.get(place) else { return };
                        self.run_piece(piece, &shared);
                        let done = done.fetch_add(piece.seeds, Ordering::Relaxed) + piece.seeds;
                        show(done, total, lock(&shared).number("failures"), began.elapsed());
                    }
                });
            }
        });
        *sums = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        let done = done.into_inner();
        let kinds = (sim.nodes.len() * sim.intensity.len()).max(1) as u64;
        // Pieces of all kinds take turns, so that about as many seeds of each were run.
        let last = first.wrapping_add(done.div_ceil(kinds));
        println!(
            "{}seeds {first:#x} to {last:#x}, {done} runs, {} members, {}, {} s of faults each",
            if std::io::stdout().is_terminal() { "\r" } else { "" },
            join(&sim.nodes),
            sim.intensity.join(", "),
            sim.length
        );
    }

    fn run_piece(&self, piece: &Piece, sums: &Mutex<Sums>) {
        let Piece { nodes, intensity, first, seeds } = piece;
        let words = [
            ("--first", first.to_string()),
            ("--seeds", seeds.to_string()),
            ("--members", nodes.to_string()),
            ("--intensity", intensity.clone()),
            ("--length-ms", (1_000 * self.length).to_string()),
        ];
        let mut command = Command::new(self.program);
        command.args(words.iter().flat_map(|(name, value)| [*name, value])).arg("--keep").arg(self.keep);
        let (ok, text) = match command.output() {
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                (output.status.success(), text + &String::from_utf8_lossy(&output.stderr))
            }
            Err(error) => (false, error.to_string()),
        };
        let mut sums = lock(sums);
        sums.add(&text);
        if !ok {
            sums.failures.push(format!("{nodes} members, {intensity}, seeds from {first:#x} on:\n{text}"));
        }
    }
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

impl Sums {
    fn number(&self, name: &str) -> f64 {
        self.numbers.get(name).copied().unwrap_or_default()
    }

    /// Takes in what one process printed.
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
                (_, [count, probe, common @ ..]) => {
                    let visits = self.probes.entry((*probe).to_owned()).or_default();
                    visits.count += count.parse().unwrap_or(0);
                    visits.is_common = *common == ["common"];
                }
                _ => {}
            }
        }
    }
}

/// How far it is: on one line of a terminal, and nowhere else.
fn show(done: u64, total: u64, failed: f64, took: Duration) {
    if std::io::stdout().is_terminal() {
        print!("\r{done} of {total} runs, {failed} failures, {} s ", took.as_secs());
        let _shown = std::io::stdout().flush();
    }
}

fn report(sums: &Sums, took: Duration, is_ci: bool, keep: &Path) -> Result<(), Box<dyn Error>> {
    println!(
        "{} histories, {:.0} simulated seconds, {:.0} times real time a core, {:.0} events, {:.0} calls, {:.0} watches, {} histories \
         undecided, {} s",
        sums.number("runs"),
        sums.number("simulated_s"),
        sums.number("simulated_s") / sums.number("real_s").max(1e-9),
        sums.number("events"),
        sums.number("operations"),
        sums.number("watches"),
        sums.number("undecided"),
        took.as_secs()
    );
    for (probe, Visits { count, .. }) in &sums.probes {
        println!("{count:>12} {probe}");
    }
    let unvisited = |wanted: fn(&Visits) -> bool| {
        let probes = sums.probes.iter().filter(|(_, visits)| visits.count == 0 && wanted(visits));
        probes.map(|(probe, _)| probe.as_str()).collect::<Vec<_>>().join(", ")
    };
    println!("never visited: {}", unvisited(|_| true));
    for failure in &sums.failures {
        println!("{failure}");
    }
    let blind = unvisited(|visits| visits.is_common);
    if !sums.failures.is_empty() {
        let (failed, keep) = (sums.number("failures"), keep.display());
        Err(format!("{failed} histories failed: {keep} has each with plan, trace and page").into())
    } else if sums.number("runs") == 0.0 {
        Err("no history was run".into())
    } else if is_ci && !blind.is_empty() {
        Err(format!("the simulator has become blind, nobody visited: {blind}").into())
    } else {
        Ok(())
    }
}

/// A number, in the way in which seeds are printed or in decimals.
fn number(text: &str) -> Result<u64, std::num::ParseIntError> {
    text.strip_prefix("0x").map_or_else(|| text.parse(), |digits| u64::from_str_radix(digits, 16))
}

fn lock(sums: &Mutex<Sums>) -> MutexGuard<'_, Sums> {
    sums.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fresh() -> u64 {
    std::hash::RandomState::new().build_hasher().finish() >> 16
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
