//! A process that becomes a member of a running cluster, started as `harmony members add` says.
#![allow(dead_code, reason = "every test uses a part of it")]

use std::path::Path;

use harmony_testkit::ProcessCluster;

use crate::process::{Running, check_end, harmony};
use crate::program::{HARMONY, Said, run};

/// `harmony members` with these arguments, at the last member that runs.
pub(crate) fn members(cluster: &ProcessCluster, args: &[&str]) -> Said {
    members_at(&cluster.running().last().unwrap().endpoint(), args)
}

pub(crate) fn members_at(endpoint: &str, args: &[&str]) -> Said {
    let endpoint = format!("--endpoints={endpoint}");
    run(HARMONY, [&[endpoint.as_str(), "members"][..], args].concat(), "")
}

/// The variables in the lines that `members add` and `etcdctl member add` print, without their prefix.
pub(crate) fn variables(said: &Said) -> impl Iterator<Item = (&str, &str)> {
    let lines = said.succeeds().lines().filter_map(|line| line.strip_prefix("ETCD_")?.split_once('='));
    lines.map(|(name, value)| (name, value.trim_matches('"')))
}

/// The flags for `harmony serve` that those lines are the environment of.
pub(crate) fn flags(said: &Said) -> Vec<String> {
    variables(said)
        .flat_map(|(name, value)| [format!("--{}", name.to_lowercase().replace('_', "-")), value.to_owned()])
        .collect()
}

pub(crate) fn start(dir: &Path, flags: &[String]) -> Running {
    Running::start(dir, &flags.iter().map(String::as_str).collect::<Vec<_>>())
}

#[track_caller]
pub(crate) fn does_not_start(dir: &Path, flags: &[String], parts: &[&str]) {
    let mut command = harmony(dir, &["--listen-client-urls", "http://127.0.0.1:0"]);
    check_end(&command.args(flags).output().unwrap(), 1, parts);
}
