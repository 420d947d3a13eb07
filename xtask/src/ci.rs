//! Everything that a change must pass.

use std::error::Error;

use crate::step::{Step, run_all};
use crate::{phase_check, proto, publish_check, suite};

/// Runs all checks. The tests come last and run once: each phase is built alone before, and its tests are part of the
/// whole suite.
///
/// # Errors
/// Names the checks that failed.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    run_all(
        "ci",
        vec![
            Step::command("format", "cargo fmt --all --check"),
            Step::new("wire code is current", "cargo xtask proto --check", || proto::run(true)),
            Step::new(
                "packages are complete",
                "cargo xtask publish-check --quick",
                publish_check::check_packages,
            ),
            Step::command("lints", "cargo clippy --workspace --all-targets -- -D warnings"),
            Step::new("phases", "cargo xtask phase-check --no-tests", || phase_check::run(false)),
            Step::command("documents", "RUSTDOCFLAGS=-D_warnings cargo doc --workspace --no-deps"),
            Step::new("tests", "cargo xtask test", suite::run),
        ],
    )
}
