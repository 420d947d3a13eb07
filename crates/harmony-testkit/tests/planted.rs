//! Each planted bug is caught within its number of seeds: the simulator is not blind for it.
#![allow(clippy::unwrap_used, reason = "a test")]

use harmony_testkit::simulation::hunt::hunt;
use harmony_testkit::simulation::{Intensity, Options, World};
use harmony_types::fake::seed::Seed;
use harmony_types::planted::Bug;

/// Within how many seeds each one is caught.
fn seeds_max(bug: Bug) -> u64 {
    match bug {
        _ => 40,
    }
}

#[test]
fn planted_bugs_are_caught() {
    let options = Options { intensity: Intensity::Wild, ..Options::default() };
    let missed: Vec<Bug> =
        Bug::ALL.into_iter().filter(|bug| hunt(*bug, options, Seed(0), seeds_max(*bug)).is_none()).collect();
    assert_eq!(missed, [], "no seed shows these bugs");
}

/// A run of the same build without one: what catches the others is the bug.
#[test]
fn without_a_bug_nothing_is_caught() {
    let options = Options { intensity: Intensity::Wild, ..Options::default() };
    for seed in 0..10 {
        let report = World::new(Seed(seed), options).run();
        assert!(report.violations.is_empty(), "{report}");
    }
}
