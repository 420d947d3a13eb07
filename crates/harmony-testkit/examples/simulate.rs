//! Runs simulations: `cargo xtask sim` starts one of these for each core.
//!
//! `simulate --seeds 1000 --first 0x10 --members 3 --intensity wild --length-ms 30000` runs 1000 seeds from 0x10 on and prints one
//! line of sums; `--seed N` alone runs one seed and prints its report, with `--trace` every event, with `--plan FILE` another
//! plan than its own, with `--html FILE` a page with the run as a space-time diagram. `--no-judge` leaves the histories unjudged. A
//! failure prints its seed, its plan cut down, and the line that replays it, and ends with status 1; `--keep DIR` has it written there
//! with plan, trace and page.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use harmony_node::SystemClock;
use harmony_testkit::simulation::{Intensity, Options, Plan, Probe, Probes, Report, World, shrink};
use harmony_types::Clock;
use harmony_types::fake::seed::Seed;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often a failing plan is run again to cut it down.
const SHRINK_RUNS: usize = 200;

#[derive(Default)]
struct Arguments {
    seed: Option<Seed>,
    first: u64,
    seeds: u64,
    seconds: Option<u64>,
    plan: Option<Plan>,
    html: Option<PathBuf>,
    keep: Option<PathBuf>,
    options: Options,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            println!("{error}");
            return ExitCode::from(2);
        }
    };
    match arguments.seed {
        Some(seed) => one(seed, &arguments),
        None => many(&arguments),
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments { seeds: 100, ..Arguments::default() };
    while let Some(word) = words.next() {
        if word == "--trace" {
            arguments.options.keep_trace = true;
            continue;
        }
        if word == "--no-judge" {
            arguments.options.judge = false;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number =
            || Seed::parse(&value).map(|seed| seed.0).ok_or_else(|| format!("{word} {value}: no number"));
        match word.as_str() {
            "--seed" => arguments.seed = Some(Seed(number()?)),
            "--first" => arguments.first = number()?,
            "--seeds" => arguments.seeds = number()?,
            "--seconds" => arguments.seconds = Some(number()?),
            "--members" => arguments.options.members = number()?,
            "--length-ms" => arguments.options.length_ms = number()?,
            "--clients" => arguments.options.clients = u32::try_from(number()?.min(63)).unwrap_or(63),
            "--watchers" => arguments.options.watchers = u32::try_from(number()?.min(63)).unwrap_or(63),
            "--html" => {
                arguments.html = Some(PathBuf::from(&value));
                arguments.options.keep_trace = true;
            }
            "--keep" => arguments.keep = Some(PathBuf::from(&value)),
            "--think-ms" => arguments.options.think_ms = number()?,
            "--intensity" => arguments.options.intensity = value.parse::<Intensity>()?,
            "--plan" => {
                let text = std::fs::read_to_string(&value).map_err(|error| format!("{value}: {error}"))?;
                arguments.plan = Some(text.parse::<Plan>().map_err(|error| format!("{value}: {error}"))?);
            }
            _ => return Err(format!("unknown option {word}")),
        }
    }
    Ok(arguments)
}

fn run(seed: Seed, arguments: &Arguments) -> Report {
    match &arguments.plan {
        Some(plan) => World::with_plan(seed, arguments.options, plan.clone()).run(),
        None => World::new(seed, arguments.options).run(),
    }
}

fn one(seed: Seed, arguments: &Arguments) -> ExitCode {
    let report = run(seed, arguments);
    match (&arguments.html, &report.picture) {
        (Some(path), Some(picture)) => write(path, &picture.to_html()),
        _ => report.trace.iter().for_each(|line| println!("{line}")),
    }
    print!("{report}{}", report.probes);
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn many(arguments: &Arguments) -> ExitCode {
    let clock = SystemClock::new();
    let began = clock.now();
    let (mut probes, mut events, mut simulated_ms, mut operations, mut watches) =
        (Probes::default(), 0, 0, 0, 0);
    let (mut runs, mut failures, mut undecided) = (0u64, 0u64, 0u64);
    for seed in (arguments.first..arguments.first.saturating_add(arguments.seeds)).map(Seed) {
        let time = clock.now().saturating_sub(began);
        if arguments.seconds.is_some_and(|seconds| Duration::from_secs(seconds) <= time) {
            break;
        }
        let report = run(seed, arguments);
        runs += 1;
        probes.merge(&report.probes);
        events += report.events;
        simulated_ms += report.simulated_ms;
        undecided += u64::from(report.undecided.is_some());
        operations += report.history.operations.len() as u64;
        watches += report.history.watches.len() as u64;
        if !report.violations.is_empty() {
            failures += 1;
            fail(&report, arguments);
        }
    }
    let seconds = clock.now().saturating_sub(began).as_secs_f64();
    let simulated = simulated_ms as f64 / 1e3;
    println!(
        "sum runs {runs} failures {failures} simulated_s {simulated:.0} real_s {seconds:.1} times_real {:.0} events {events} operations {operations} \
         watches {watches} undecided {undecided}",
        simulated / seconds.max(1e-9)
    );
    for probe in Probe::ALL {
        println!("{} {probe:?}{}", probes.count(probe), if probe.is_common() { " common" } else { "" });
    }
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn write(path: &Path, text: &str) {
    if let Err(error) = std::fs::write(path, text) {
        println!("{}: {error}", path.display());
    }
}

fn fail(report: &Report, arguments: &Arguments) {
    let Options { members, length_ms, clients, watchers, think_ms, intensity, .. } = arguments.options;
    let small = shrink(&report.plan, SHRINK_RUNS, |plan| {
        !World::with_plan(report.seed, arguments.options, plan.clone()).run().violations.is_empty()
    });
    let options = Options { keep_trace: arguments.keep.is_some(), ..arguments.options };
    let small = World::with_plan(report.seed, options, small).run();
    let replay = format!(
        "simulate --seed {} --members {members} --length-ms {length_ms} --clients {clients} --watchers {watchers} --think-ms {think_ms} \
         --intensity {intensity}",
        report.seed
    );
    let text = format!("FAILURE {report}\ncut down to {small}\nreplay: {replay} --trace\n");
    println!("{text}");
    let Some(directory) = &arguments.keep else { return };
    let name = format!("{members}-{intensity}-{}", report.seed);
    write(&directory.join(format!("{name}.txt")), &text);
    write(&directory.join(format!("{name}.plan")), &small.plan.to_string());
    write(&directory.join(format!("{name}.trace")), &small.trace.join("\n"));
    if let Some(picture) = &small.picture {
        write(&directory.join(format!("{name}.html")), &picture.to_html());
    }
}
