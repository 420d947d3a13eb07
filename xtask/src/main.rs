//! Development tasks: `cargo xtask <task>`.
//!
//! - `test`: the whole test suite. What the README names.
//! - `ci`: everything that a change must pass, with `test` in it.
//! - `phase-check`: the crates stack in one direction, each stands alone, and the contract between them is frozen.
//! - `proto`: the server's wire code from its `.proto` files.
//! - `publish-check`: each crate of the stack could be published as it is.
//! - `sim`: simulated clusters, thousands of seeds.
//! - `bench`: our crates beside their peers.

#![allow(clippy::print_stdout)]

mod bench;
mod ci;
mod phase_check;
mod proto;
mod publish_check;
mod sim;
mod step;
mod suite;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Development tasks of HarmonyDB.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Task {
    /// Run the whole test suite.
    Test,
    /// Check everything that a change must pass: format, lints, documents, wire code, phases, tests.
    Ci,
    /// Check that the crates stack in one direction, that each stands alone, and that the contract has not changed.
    PhaseCheck {
        /// Accept the contract as it is now: rewrite its golden file.
        #[arg(long)]
        bless: bool,
        /// Do not run each phase's tests: something else runs them.
        #[arg(long)]
        no_tests: bool,
    },
    /// Write the server's wire protocol code from its `.proto` files.
    Proto {
        /// Only check that the code checked in is current.
        #[arg(long)]
        check: bool,
    },
    /// Check that each crate of the stack could be published: manifests, files, and that packages build in their order.
    PublishCheck {
        /// Only what needs neither the registry nor a build.
        #[arg(long)]
        quick: bool,
    },
    /// Run simulated clusters from seeds, on all cores; failures are kept in `target/sim`.
    Sim(sim::Sim),
    /// Measure our crates beside their peers, which are built apart from the workspace.
    #[command(subcommand)]
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let result = match Task::parse() {
        Task::Test => suite::run(),
        Task::Ci => ci::run(),
        Task::PhaseCheck { bless: true, .. } => phase_check::bless(),
        Task::PhaseCheck { bless: false, no_tests } => phase_check::run(!no_tests),
        Task::Proto { check } => proto::run(check),
        Task::PublishCheck { quick } => publish_check::run(quick),
        Task::Sim(sim) => sim::run(&sim),
        Task::Bench(bench) => bench::run(&bench),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Where the workspace lies.
fn root() -> Result<PathBuf, Box<dyn Error>> {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    Ok(here.parent().ok_or("xtask lies in no workspace")?.to_owned())
}
