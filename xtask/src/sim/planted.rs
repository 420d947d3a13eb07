//! The table of planted bugs: a process for each bug, as many at a time as there are cores.

use std::error::Error;
use std::num::NonZero;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::Sim;

/// Hunts for each bug, and prints the rows as they come.
///
/// # Errors
/// A bug was not caught once, or the program does not build.
pub(crate) fn run(sim: &Sim) -> Result<(), Box<dyn Error>> {
    let program = super::example("planted", &["--features", "planted"])?;
    let names = String::from_utf8(Command::new(&program).arg("--list").output()?.stdout)?;
    let (seeds, first, intensity) =
        (sim.seeds.to_string(), sim.first.unwrap_or(0).to_string(), sim.intensity.join(","));
    println!("| bug | caught by (times) | {} |", sim.intensity.join(" | "));
    let (waiting, missed) = (Mutex::new(names.lines()), Mutex::new(Vec::new()));
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    let hunt = || {
        while let Some(name) = next() {
            let words = [name, "--seeds", &seeds, "--first", &first, "--intensity", &intensity];
            let output = Command::new(&program).args(words).output();
            let mut missed = missed.lock().unwrap_or_else(PoisonError::into_inner);
            match output {
                Ok(output) if output.status.success() => {
                    print!("{}", String::from_utf8_lossy(&output.stdout))
                }
                Ok(output) => {
                    print!("{}", String::from_utf8_lossy(&output.stdout));
                    missed.push(name);
                }
                Err(error) => {
                    println!("{name}: {error}");
                    missed.push(name);
                }
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(hunt))));
    let missed = missed.into_inner().unwrap_or_else(PoisonError::into_inner);
    if missed.is_empty() { Ok(()) } else { Err(format!("not caught: {}", missed.join(", ")).into()) }
}
