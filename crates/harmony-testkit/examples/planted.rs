//! Hunts for planted bugs, and prints a row of the table in docs/testing.md for each.
//!
//! `planted SkipSync ForgetVote --tries 5 --seeds 300 --intensity moderate,wild` looks for these bugs, from another first seed each
//! time; without names it looks for all. `--list` prints the names. It ends with status 1 when a bug was not caught once.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::collections::BTreeMap;
use std::process::ExitCode;

use harmony_testkit::simulation::hunt::hunt;
use harmony_testkit::simulation::{Intensity, Options};
use harmony_types::fake::seed::Seed;
use harmony_types::planted::Bug;

struct Arguments {
    bugs: Vec<Bug>,
    tries: u64,
    seeds: u64,
    first: u64,
    intensities: Vec<Intensity>,
    options: Options,
}

fn main() -> ExitCode {
    if std::env::args().any(|word| word == "--list") {
        Bug::ALL.iter().for_each(|bug| println!("{bug:?}"));
        return ExitCode::SUCCESS;
    }
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            println!("{error}");
            return ExitCode::from(2);
        }
    };
    std::panic::set_hook(Box::new(|_| {}));
    let caught = arguments.bugs.iter().filter(|bug| row(**bug, &arguments)).count();
    if caught == arguments.bugs.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        bugs: Vec::new(),
        tries: 5,
        seeds: 300,
        first: 0,
        intensities: vec![Intensity::Moderate, Intensity::Wild],
        options: Options::default(),
    };
    while let Some(word) = words.next() {
        if !word.starts_with("--") {
            arguments.bugs.push(word.parse()?);
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number =
            || Seed::parse(&value).map(|seed| seed.0).ok_or_else(|| format!("{word} {value}: no number"));
        match word.as_str() {
            "--tries" => arguments.tries = number()?,
            "--seeds" => arguments.seeds = number()?,
            "--first" => arguments.first = number()?,
            "--members" => arguments.options.members = number()?,
            "--intensity" => {
                arguments.intensities = value.split(',').map(str::parse).collect::<Result<_, _>>()?;
            }
            _ => return Err(format!("unknown option {word}")),
        }
    }
    if arguments.bugs.is_empty() {
        arguments.bugs.extend(Bug::ALL);
    }
    Ok(arguments)
}

/// Prints a bug's row; false when it was not caught.
fn row(bug: Bug, arguments: &Arguments) -> bool {
    let mut checkers: BTreeMap<&str, u64> = BTreeMap::new();
    let mut medians = String::new();
    let mut example = String::new();
    for intensity in &arguments.intensities {
        let options = Options { intensity: *intensity, ..arguments.options };
        let mut seeds: Vec<Option<u64>> = Vec::new();
        for number in 0..arguments.tries {
            let first = Seed(arguments.first.wrapping_add(number * 1_000_000));
            let caught = hunt(bug, options, first, arguments.seeds);
            if let Some(caught) = &caught {
                *checkers.entry(caught.checker()).or_default() += 1;
                example = format!("{intensity} {caught}");
            }
            seeds.push(caught.map(|caught| caught.seeds));
        }
        // Those that were not caught took more than all that were.
        seeds.sort_by_key(|seeds| seeds.unwrap_or(u64::MAX));
        let shown = |seeds: Option<u64>| {
            seeds.map_or_else(|| format!("> {}", arguments.seeds), |seeds| seeds.to_string())
        };
        let middle = seeds.get(seeds.len() / 2).copied().flatten();
        let most = seeds.last().copied().flatten();
        medians.push_str(&format!(" {} ({}) |", shown(middle), shown(most)));
    }
    let mut by: Vec<(&str, u64)> = checkers.into_iter().collect();
    by.sort_by_key(|(checker, times)| (u64::MAX - times, *checker));
    let by: Vec<String> = by.into_iter().map(|(checker, times)| format!("{checker} ({times})")).collect();
    println!("| `{bug:?}` | {} |{medians}", if by.is_empty() { "nothing".to_owned() } else { by.join("; ") });
    if !example.is_empty() {
        let line = example.lines().next().unwrap_or_default();
        println!("  {}", line.chars().take(300).collect::<String>());
    }
    !by.is_empty()
}
