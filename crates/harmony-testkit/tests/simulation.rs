//! Simulated clusters: the same seed gives the same run, and no run breaks a rule.
#![allow(clippy::unwrap_used, reason = "a test")]

use harmony_testkit::simulation::{Intensity, Options, Plan, Probe, Probes, Report, World};
use harmony_types::fake::seed::{Seed, for_each_seed};

#[track_caller]
fn check(report: &Report) {
    assert!(report.violations.is_empty(), "{report}");
    let answered = report.history.operations.iter().filter(|operation| operation.answer().is_some()).count();
    assert!(5 <= answered, "only {answered} calls were answered: {report}");
}

fn options(intensity: Intensity, members: u64) -> Options {
    // Without watches: one of them begins where it was not told of, now and then, and nobody knows yet who is wrong
    // (docs/testing.md).
    Options { intensity, members, length_ms: 20_000, watchers: 0, ..Options::default() }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for (seed, intensity, members) in [
        (1, Intensity::Calm, 3),
        (2, Intensity::Moderate, 5),
        (3, Intensity::Wild, 3),
        (4, Intensity::Wild, 5),
    ] {
        let options = Options { keep_trace: true, ..options(intensity, members) };
        let (one, other) = (World::new(Seed(seed), options).run(), World::new(Seed(seed), options).run());
        let differ = one.trace.iter().zip(&other.trace).find(|(one, other)| one != other);
        assert_eq!(differ, None, "seed {seed}");
        assert_eq!((one.trace_hash, one.events), (other.trace_hash, other.events), "seed {seed}");
        assert_eq!(one.history, other.history);
        assert_ne!(one.trace_hash, World::new(Seed(seed + 100), options).run().trace_hash);
    }
}

#[test]
fn a_plan_replays_from_its_text() {
    let options = options(Intensity::Wild, 3);
    let report = World::new(Seed(5), options).run();
    let plan: Plan = report.plan.to_string().parse().unwrap();
    assert_eq!(World::with_plan(Seed(5), options, plan).run().trace_hash, report.trace_hash);
    let other = World::with_plan(Seed(5), options, Plan::default()).run();
    check(&other);
    assert_ne!(other.trace_hash, report.trace_hash);
}

#[test]
fn a_calm_cluster_serves() {
    for_each_seed(0..3, 1, |seed, _| check(&World::new(seed, options(Intensity::Calm, 3)).run()));
}

#[test]
fn three_and_five_members_under_faults() {
    for members in [3, 5] {
        for_each_seed(0..8, 2, |seed, _| {
            check(&World::new(seed, options(Intensity::Moderate, members)).run());
        });
    }
}

/// A member that lost its directory met one that had forgotten what it had acknowledged: the two elected a leader without it,
/// while the third, which had kept everything, was alive.
#[test]
fn an_emptied_member_takes_no_part_in_elections() {
    let steps = [
        "2337 crash 3 torn",
        "3414 lose-directory 2",
        "5770 crash 1 unsynced",
        "7279 start 2",
        "8491 start 3",
    ];
    let plan: Plan = steps.join("\n").parse().unwrap();
    let report = World::with_plan(Seed(0x20), options(Intensity::Wild, 3), plan).run();
    // Another one was restarted, too: without the third there is no quorum, as it never comes back.
    assert_ne!(report.probes.count(Probe::Forgot), 0, "{report}");
    check(&report);
}

/// They replay changes of the membership on top of what these led to.
#[test]
fn members_that_join_come_to_the_hash_of_the_others() {
    for (seed, intensity, members) in [(0x13a4, Intensity::Calm, 3), (0x13a4, Intensity::Calm, 5)] {
        let report = World::new(Seed(seed), options(intensity, members)).run();
        check(&report);
        assert_ne!(report.probes.count(Probe::Joined), 0, "seed {seed:#x} with {members}: {}", report.plan);
    }
}

/// Seeds and plans that once found something.
#[test]
fn what_was_found_once_is_not_found_again() {
    // A watch was told what came behind a message that its connection had lost: the simulator's own fault.
    let after_a_hang = "2455 hang-reads 2 3711\n4124 crash 1 torn\n5230 crash 3 unsynced\n5593 start 1\n6101 cut-clients 2 5170";
    for (seed, plan) in [(0x7e, "7932 cut-clients 1 5415"), (0x6c, after_a_hang)] {
        let options = Options { length_ms: 12_000, watchers: 2, ..options(Intensity::Wild, 3) };
        check(&World::with_plan(Seed(seed), options, plan.parse().unwrap()).run());
    }
}

/// Fixed seeds go through these rare branches: a change after which they do not has made the simulator blind.
#[test]
fn wild_runs_visit_rare_branches_and_break_no_rule() {
    let mut probes = Probes::default();
    for_each_seed(0..25, 3, |seed, _| {
        let report = World::new(seed, options(Intensity::Wild, 3)).run();
        check(&report);
        probes.merge(&report.probes);
    });
    if Seed::from_env().is_some() {
        return;
    }
    for probe in [
        Probe::LeaderLostWithProposals,
        Probe::PreVoteRefused,
        Probe::EarlyElection,
        Probe::SnapshotInstalled,
        Probe::LogReleased,
        Probe::CrashInSync,
        Probe::CrashInCheckpoint,
        Probe::ReadRestarted,
        Probe::Duplicated,
        Probe::Stale,
        Probe::DiskEndedMember,
        Probe::NoSpace,
        Probe::Forgot,
        Probe::Joined,
        Probe::Compacted,
        Probe::CrashInApply,
        Probe::Rebuilt,
        Probe::LeaseRenewed,
        Probe::LeaseExpired,
        Probe::PermissionDenied,
    ] {
        assert_ne!(probes.count(probe), 0, "{probe:?} was not visited:\n{probes}");
    }
}
