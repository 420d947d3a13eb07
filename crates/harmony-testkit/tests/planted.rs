//! Each planted bug is caught within its number of seeds: the simulator is not blind for it.
#![allow(clippy::unwrap_used, reason = "a test")]

use harmony_testkit::simulation::hunt::hunt;
use harmony_testkit::simulation::{Intensity, Options, World};
use harmony_types::fake::seed::Seed;
use harmony_types::planted::Bug;

/// Within how many wild seeds each one is caught: several times the largest number in docs/testing.md, so that a change of the
/// workload does not fail here by chance. None: it takes thousands, or nobody has seen it caught.
fn seeds_max(bug: Bug) -> Option<u64> {
    match bug {
        Bug::ReuseReadContext | Bug::CheckpointUnsynced | Bug::BoundaryBeforeTree => None,
        Bug::ForgetVote | Bug::ForgetTerm | Bug::DropTermCheck | Bug::StayWhenRemoved => Some(800),
        _ => Some(300),
    }
}

#[test]
fn planted_bugs_are_caught() {
    let options = Options { intensity: Intensity::Wild, ..Options::default() };
    let is_missed =
        |bug: &Bug| seeds_max(*bug).is_some_and(|max| hunt(*bug, options, Seed(0), max).is_none());
    let missed: Vec<Bug> = Bug::ALL.into_iter().filter(is_missed).collect();
    assert_eq!(missed, [], "no seed shows these bugs");
}

/// The same build without a bug: what is caught above is the bug.
#[test]
fn without_a_bug_nothing_is_caught() {
    let options = Options { intensity: Intensity::Wild, ..Options::default() };
    for seed in 0..10 {
        let report = World::new(Seed(seed), options).run();
        assert!(report.violations.is_empty(), "{report}");
    }
}
