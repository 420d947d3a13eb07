//! Members whose wall clocks jump by days each second: nothing changes but the time stamps in their logs.
//!
//! A few lines of C stand before the C library's clock, so that the program under test is the real one, without a hook. Compiled by
//! the compiler that links the tests, too.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harmony_node::SystemClock;
use harmony_server::proto::etcdserverpb as pb;
use harmony_testkit::wait::{PATIENCE, until};
use harmony_testkit::{Client, Ledger, ProcessCluster, ProcessConfig, ProcessNode};
use harmony_types::{Clock as _, TestCluster};
use kit::GrpcClient;
use pb::lease_client::LeaseClient;

/// Seconds that a lease of the test lives: a day of the wall clock goes by more than once.
const TTL: i64 = 5;

fn jumping_clock(dir: &Path) -> PathBuf {
    let library = dir.join("wall_clock.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wall_clock.c");
    let output =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).output();
    let output = output.expect("a C compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

/// The days that a member's log speaks of.
fn days(node: &ProcessNode) -> BTreeSet<String> {
    let is_day = |word: &&str| word.len() == 10 && word.as_bytes()[4] == b'-' && word.as_bytes()[7] == b'-';
    let log = node.log();
    let starts = log.lines().flat_map(|line| line.split(|c: char| c != '-' && !c.is_ascii_digit()));
    starts.filter(is_day).map(str::to_owned).collect()
}

/// Lines of product code that ask for the wall clock: everything before a file's tests.
fn users(dir: &Path, found: &mut BTreeMap<String, usize>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("tests") && !path.ends_with("fake") {
            users(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let asks = code.lines().filter(|line| line.contains(".unix_ms()")).count();
            if 0 < asks {
                let name = path.strip_prefix(crates()).unwrap().display().to_string();
                found.insert(name, asks);
            }
        }
    }
}

fn crates() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Clippy refuses `SystemTime::now` outside the clock's home. Who asks the clock for it is listed here, with the reason why no
/// decision about leadership, leases, reads or members depends on it: whoever adds a line says so, too.
#[test]
fn the_wall_clock_is_asked_only_for_what_may_be_wrong() {
    let reasons = [
        (
            "harmony-node/src/node.rs",
            1,
            "a number that differs from life to life, with the process id and the other clock",
        ),
        ("harmony-node/src/tls/auto.rs", 1, "from when a certificate made here is good"),
        (
            "harmony-node/src/transport/tcp.rs",
            1,
            "the first number of this life's snapshots; their bytes have checksums",
        ),
        (
            "harmony-server/src/api/cluster.rs",
            1,
            "part of a new member's id, which is checked against all known ones",
        ),
        (
            "harmony-server/src/auth/tokens.rs",
            3,
            "how long clients' tokens are good on all members, as JWT has it",
        ),
    ];
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(crates()).unwrap() {
        users(&entry.unwrap().path().join("src"), &mut found);
    }
    let expected = reasons.map(|(file, lines, _)| (file.to_owned(), lines));
    assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn wall_clocks_that_jump_by_days_each_second_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let preload = jumping_clock(dir.path()).display().to_string();
    let config =
        ProcessConfig { env: vec![("LD_PRELOAD".to_owned(), preload)], ..ProcessConfig::new(kit::HARMONY) };
    let connect = |endpoint: &str| Ok(Box::new(GrpcClient::new(endpoint)?) as Box<dyn Client>);
    let (mut cluster, ledger) = (ProcessCluster::new(config, connect).unwrap(), Ledger::new());
    cluster.start(3).unwrap();
    let leader = cluster.leader().unwrap();
    let term = cluster.node(leader).unwrap().client().status().unwrap().term;
    let through = GrpcClient::new(&cluster.node(leader).unwrap().endpoint()).unwrap();

    let clock = SystemClock::new();
    let request = pb::LeaseGrantRequest { id: 7, ttl: TTL };
    through.run(async |channel| LeaseClient::new(channel).lease_grant(request).await).unwrap();
    let put = pb::PutRequest { key: "k".into(), lease: 7, ..pb::PutRequest::default() };
    through.kv(async |kv| kv.put(put).await).unwrap();
    until("the lease ends", PATIENCE, || {
        for node in cluster.running() {
            assert!(ledger.write_one(node.client()).unwrap(), "a jump costs a put");
        }
        let found = through.get(b"k")?;
        // Looked at behind the answer: it ends no sooner than this by any clock that runs evenly.
        let is_early = clock.now() < Duration::from_secs(TTL.cast_unsigned());
        assert!(found.is_some() || !is_early, "the lease ended early");
        if found.is_none() { Ok(()) } else { Err("it is there".into()) }
    })
    .unwrap();
    let status = cluster.node(leader).unwrap().client().status().unwrap();
    assert_eq!((status.leader, status.term), (Some(leader), term), "no election");

    // Restarts find the days in any order; the member's own log says that there were several.
    let away = cluster.other(leader).id();
    until("the log speaks of two days", PATIENCE, || {
        cluster.kill_node(away)?;
        cluster.restart_node(away)?;
        let days = days(cluster.node(away).ok_or("it runs")?);
        if 1 < days.len() { Ok(()) } else { Err(format!("{days:?}").into()) }
    })
    .unwrap();
    cluster.check_agreement().unwrap();
    for node in cluster.running() {
        ledger.check(node.client()).unwrap();
    }
}
