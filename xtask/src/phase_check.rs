//! The crates stack in one direction, each stands alone, and the contract of the first is frozen.

mod contract;
mod edges;
mod reasons;

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use cargo_metadata::{Metadata, MetadataCommand};

use crate::step::{Step, run_all};
use crate::suite;

/// The stack: a crate names only crates before it.
const PHASES: [&str; 6] =
    ["harmony-types", "harmony-wal", "harmony-storage", "harmony-node", "harmony-testkit", "harmony-server"];

const REASONS: &str = "docs/dependencies.md";

const GOLDEN: &str = "crates/harmony-types/contract.golden";

/// Checks the edges, that each dependency has its reason, the contract, and that each phase builds alone with every public item documented; with `tests`,
/// also that each phase passes its tests alone.
///
/// # Errors
/// Names what failed.
pub(crate) fn run(tests: bool) -> Result<(), Box<dyn Error>> {
    let mut steps = vec![
        Step::new("dependencies point one way", "cargo xtask phase-check --no-tests", check_edges),
        Step::new("dependencies have reasons", "cargo xtask phase-check --no-tests", check_reasons),
        Step::new("the contract is frozen", "cargo xtask phase-check --no-tests", check_contract),
    ];
    for phase in PHASES {
        // A crate's own features and no others: a whole-workspace build would lend it those of its neighbours.
        let alone = format!("cargo clippy -p {phase} --all-targets --no-deps -- -D warnings -D missing_docs");
        steps.push(Step::command(&format!("{phase} builds alone, documented"), &alone));
        if tests {
            let name = format!("{phase} passes its tests alone");
            steps.extend(suite::commands_for(phase).iter().map(|line| Step::command(&name, line)));
        }
    }
    run_all("phase-check", steps)
}

/// Rewrites the golden file of the contract.
///
/// # Errors
/// The sources cannot be read, or the file cannot be written.
pub(crate) fn bless() -> Result<(), Box<dyn Error>> {
    fs::write(crate::root()?.join(GOLDEN), current_contract()?)?;
    println!("{GOLDEN} is the contract as it is now: read the diff, and commit it with the change");
    Ok(())
}

fn check_edges() -> Result<(), Box<dyn Error>> {
    none_wrong("", &edges::check(&metadata()?))
}

fn check_reasons() -> Result<(), Box<dyn Error>> {
    let document =
        fs::read_to_string(crate::root()?.join(REASONS)).map_err(|error| format!("{REASONS}: {error}"))?;
    none_wrong(&format!("{REASONS}: "), &reasons::check(&document, &metadata()?))
}

fn metadata() -> Result<Metadata, Box<dyn Error>> {
    Ok(MetadataCommand::new().current_dir(crate::root()?).no_deps().exec()?)
}

fn none_wrong(place: &str, wrong: &[String]) -> Result<(), Box<dyn Error>> {
    let lines: Vec<String> = wrong.iter().map(|line| format!("{place}{line}")).collect();
    if lines.is_empty() { Ok(()) } else { Err(lines.join("\n").into()) }
}

fn check_contract() -> Result<(), Box<dyn Error>> {
    let golden =
        fs::read_to_string(crate::root()?.join(GOLDEN)).map_err(|error| format!("{GOLDEN}: {error}"))?;
    contract::compare(&golden, &current_contract()?).map_err(|diff| {
        format!(
            "the contract of harmony-types differs from {GOLDEN} (- frozen, + now):\n{diff}\
             if later phases can live with that: cargo xtask phase-check --bless, in the same commit"
        )
        .into()
    })
}

fn current_contract() -> Result<String, Box<dyn Error>> {
    let lib: PathBuf = crate::root()?.join("crates/harmony-types/src/lib.rs");
    contract::render_crate("harmony_types", &lib)
}
