//! The last lines of a run, and the file that keeps it.

use std::path::Path;

use serde_json::{Value, json};

use crate::Result;
use crate::machine::{Machine, Quiet};

/// What a run was, and what came of it.
pub struct Record<'a> {
    pub machine: &'a Machine,
    pub rounds: usize,
    /// Too short to count.
    pub quick: bool,
    pub results: Value,
}

impl Record<'_> {
    /// Prints how far the figures may be trusted, and writes everything to `path`.
    pub fn conclude(&self, quiet: &Quiet, path: Option<&Path>) -> Result<()> {
        let (noise, trusted) = quiet.verdict();
        println!("{noise}");
        if !trusted || self.quick {
            println!("NOT A QUIET RUN OR TOO SHORT A ONE: not for the record");
        }
        let Some(path) = path else { return Ok(()) };
        let document = json!({
            "command": command(),
            "commit": commit(),
            "machine": self.machine.json(),
            "rounds": self.rounds,
            "quick": self.quick,
            "noise": noise,
            "results": self.results,
        });
        std::fs::write(path, format!("{document:#}\n"))?;
        Ok(())
    }
}

/// What was built.
pub fn commit() -> String {
    std::env::var("BENCH_COMMIT").unwrap_or_else(|_| "unknown".to_owned())
}

/// How a person repeats it.
pub fn command() -> String {
    let given = std::env::var("BENCH_COMMAND").ok();
    given.unwrap_or_else(|| std::env::args().collect::<Vec<_>>().join(" "))
}
