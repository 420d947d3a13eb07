//! Simulated clusters: the same seed gives the same run, and no run breaks a rule.
#![allow(clippy::unwrap_used, reason = "a test")]

use harmony_testkit::simulation::{Intensity, Options, Report, World};
use harmony_types::fake::seed::{Seed, for_each_seed};

#[track_caller]
fn check(report: &Report) {
    assert!(report.violations.is_empty(), "{report}");
    let answered = report.history.operations.iter().filter(|operation| operation.answer().is_some()).count();
    assert!(5 <= answered, "only {answered} calls were answered: {report}");
}

fn options(intensity: Intensity, members: u64) -> Options {
    Options { intensity, members, ..Options::default() }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for (seed, intensity) in
        [(1, Intensity::Calm), (2, Intensity::Moderate), (3, Intensity::Wild), (4, Intensity::Wild)]
    {
        let options = Options { keep_trace: true, length_ms: 15_000, ..options(intensity, 3) };
        let (one, other) = (World::new(Seed(seed), options).run(), World::new(Seed(seed), options).run());
        let differ = one.trace.iter().zip(&other.trace).find(|(one, other)| one != other);
        assert_eq!(differ, None, "seed {seed}");
        assert_eq!(one.trace_hash, other.trace_hash, "seed {seed}");
        assert_eq!(one.history, other.history);
    }
}

#[test]
fn a_calm_cluster_serves() {
    for_each_seed(0..3, 1, |seed, _| check(&World::new(seed, options(Intensity::Calm, 3)).run()));
}

#[test]
fn three_members_under_faults() {
    for_each_seed(0..10, 2, |seed, _| check(&World::new(seed, options(Intensity::Moderate, 3)).run()));
}
