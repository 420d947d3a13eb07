//! `harmony serve` as a process: exit codes, refusals, signals.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod kit;
mod process;

use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

use harmony_testkit::Client;
use harmony_testkit::wait::{PATIENCE, until};
use process::{Running, check_end, harmony};
use rustix::process::Signal;

#[test]
fn mistakes_in_options_end_with_2_and_say_what_to_do() {
    let temp = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| harmony(temp.path(), arguments).output().unwrap();
    check_end(&run(&["--data-dri", "x"]), 2, &["unexpected argument '--data-dri'", "'--data-dir'"]);
    check_end(&run(&["--max-txn-ops", "many"]), 2, &["invalid value 'many'", "--max-txn-ops"]);
    check_end(
        &run(&["--listen-client-urls", "localhost:2379", "--election-timeout", "7"]),
        2,
        &["--listen-client-urls localhost:2379 has no scheme", "--election-timeout is 7 ms"],
    );
    check_end(&run(&["--config-file", "none.toml"]), 2, &["--config-file none.toml"]);
    let environment = harmony(temp.path(), &[]).env("HARMONY_LOG_LEVEL", "loud").output().unwrap();
    check_end(&environment, 2, &["--log-level is \"loud\""]);
    let flag =
        harmony(temp.path(), &["--log-level", "louder"]).env("HARMONY_LOG_LEVEL", "loud").output().unwrap();
    check_end(&flag, 2, &["--log-level is \"louder\""]);
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0, "nothing was touched");
}

#[test]
fn a_port_or_a_directory_in_use_ends_at_once_with_1() {
    let temp = tempfile::tempdir().unwrap();
    let first = Running::start(temp.path(), &[]);
    let url = format!("http://{}", first.address);
    let second = harmony(temp.path(), &["--listen-client-urls", &url]).output().unwrap();
    check_end(&second, 1, &["cannot listen on", &url, "--listen-client-urls"]);
    let second = harmony(temp.path(), &["--listen-client-urls", "http://127.0.0.1:0"]).output().unwrap();
    let process = format!("(process {})", first.child.id());
    check_end(
        &second,
        1,
        &["data directory harmony.data is in use by another process", &process, "--data-dir"],
    );
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let peers = format!("http://{}", taken.local_addr().unwrap());
    let arguments =
        ["--listen-client-urls", "http://127.0.0.1:0", "--data-dir", "d", "--listen-peer-urls", &peers];
    check_end(&harmony(temp.path(), &arguments).output().unwrap(), 1, &["--listen-peer-urls", &peers]);
    assert_eq!(first.signal(Signal::TERM).0, Some(0));
}

#[test]
fn signals_end_it_in_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let temp = tempfile::tempdir().unwrap();
        let running = Running::start(temp.path(), &["--name", "one"]);
        assert!(temp.path().join("harmony.data/member/wal").is_dir());
        let (code, log) = running.signal(signal);
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("\"stopped\""), "{log}");
    }
}

#[test]
fn a_member_that_should_exist_and_does_not_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let arguments = ["--listen-client-urls", "http://127.0.0.1:0", "--initial-cluster-state", "existing"];
    check_end(
        &harmony(temp.path(), &arguments).output().unwrap(),
        1,
        &["the data directory holds no member, and --initial-cluster names no other member to ask"],
    );
}

#[test]
fn standard_error_on_a_full_disk_changes_no_exit_code() {
    let temp = tempfile::tempdir().unwrap();
    let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let mut wrong = harmony(temp.path(), &["--max-txn-ops", "0"]);
    assert_eq!(wrong.stderr(full()).status().unwrap().code(), Some(2));
    let mut missing = harmony(temp.path(), &["--initial-cluster-state", "existing"]);
    assert_eq!(missing.stderr(full()).status().unwrap().code(), Some(1));
}

#[test]
fn a_flood_of_silent_connections_leaves_files_for_the_log() {
    let temp = tempfile::tempdir().unwrap();
    let segments = ["--wal-segment-bytes", "4096"];
    let running = Running::start_behind(temp.path(), &segments, "ulimit -n 80");
    let client = kit::GrpcClient::new(&running.address).unwrap();
    until("the first put", PATIENCE, || client.put(b"k", b"before")).unwrap();
    // More than there are places: the system takes them in and nobody answers.
    let flood: Vec<_> = (0..100).map(|_| TcpStream::connect(&running.address).unwrap()).collect();
    for number in 0..30_u8 {
        // Each needs a new segment, so a new file, every few puts.
        client.put(b"k", &[number; 1000]).unwrap();
    }
    drop(flood);
    let late = kit::GrpcClient::new(&running.address).unwrap();
    assert_eq!(late.get(b"k").unwrap().unwrap().value, [29; 1000].as_slice());
    let (code, log) = running.signal(Signal::TERM);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("no connection more until one closes"), "{log}");
    assert!(!log.contains("Too many open files"), "{log}");
}
