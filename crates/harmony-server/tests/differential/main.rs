//! The same calls to a real etcd and to this server: what is answered must be equal, but for what [`differences`] lists with its
//! reason. The calls stand in `script` and in `random`, which draws them from a seed.
//!
//! The etcd is the program that `HARMONY_ETCD` names, of release 3.5; without one the comparison says that it was skipped.
//! The list of differences is not complete yet: with an etcd that test fails, and says what is left. Two tests need none: the calls go to this server alone, and what they used of the API and
//! how they were refused is held against section 13 of the API's description (`refusals`) and written to
//! `docs/compatibility.md` (`compatibility`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod base64;
mod compare;
mod compatibility;
mod coverage;
mod differences;
#[path = "../../src/gateway/paths.rs"]
mod paths;
mod play;
#[path = "../process/mod.rs"]
mod process;
mod random;
mod refusals;
mod schema;
mod script;
mod servers;
mod step;
mod wire;

use std::collections::BTreeSet;

use harmony_types::fake::seed::{Seed, SeedGuard};

use compare::Finding;
use coverage::Coverage;
use differences::DIFFERENCES;
use play::Player;
use servers::{Etcd, find_etcd};
use step::{Scenario, Via};

/// Every scenario over both ways to ask, against this server and, if there is one, etcd.
async fn play(etcd: Option<&std::path::Path>, scenarios: Vec<Scenario>) -> (Coverage, Vec<Finding>) {
    let mut coverage = Coverage::default();
    let mut findings = Vec::new();
    for scenario in scenarios {
        for via in [Via::Grpc, Via::Json] {
            let dir = tempfile::tempdir().unwrap();
            let ours = servers::harmony(dir.path());
            let theirs = etcd.map(|program| Etcd::start(program, dir.path()));
            let mut ours = Player::new(&ours.address).await;
            let mut theirs = match &theirs {
                Some(etcd) => Some(Player::new(&etcd.address).await),
                None => None,
            };
            for (place, step) in scenario.steps.iter().enumerate().filter(|(_, step)| step.goes_over(via)) {
                let here = ours.play(step, via, &mut coverage).await;
                if let Some(theirs) = theirs.as_mut().filter(|_| step.is_for_etcd(via)) {
                    let there = theirs.play(step, via, &mut Coverage::default()).await;
                    let what = format!("{} {via:?}, step {place}: {step:?}", scenario.name);
                    findings.extend(compare::compare(&what, step, &there, &here));
                }
            }
        }
    }
    (coverage, findings)
}

#[tokio::test]
async fn the_answers_are_those_of_etcd() {
    let Some(program) = find_etcd() else { return };
    let mut scenarios = script::all();
    let seeds = Seed::choose(0..4, 2);
    // A guard for each seed: a failure names them all.
    let _guards: Vec<SeedGuard> = seeds.iter().map(|seed| seed.guard()).collect();
    scenarios.extend(seeds.iter().map(|seed| random::scenario(*seed)));
    let (_, findings) = play(Some(&program), scenarios).await;
    let mut met = BTreeSet::new();
    let mut unlisted = Vec::new();
    for finding in &findings {
        match DIFFERENCES.iter().position(|row| row.covers(finding)) {
            Some(row) => drop(met.insert(row)),
            None => unlisted.push(finding.to_string()),
        }
    }
    let gone: Vec<_> =
        DIFFERENCES.iter().enumerate().filter(|(row, _)| !met.contains(row)).map(|(_, row)| row).collect();
    assert!(unlisted.is_empty(), "{} differences are not listed:\n{}", unlisted.len(), unlisted.join("\n"));
    assert!(gone.is_empty(), "listed, and no difference any more: {gone:#?}");
}

#[tokio::test]
async fn every_refusal_of_the_api_is_met_and_the_document_is_current() {
    let (coverage, _) = play(None, script::all()).await;
    refusals::check(&coverage);
    compatibility::check(&coverage);
}
