//! `harmony serve` as a process: exit codes, refusals, signals.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn harmony(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harmony"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HARMONY_")) {
        command.env_remove(name);
    }
    command.arg("serve").args(arguments).current_dir(dir).stderr(Stdio::piped()).stdin(Stdio::null());
    command
}

/// A server that has said where it listens. Killed when dropped.
struct Running {
    child: Child,
    stderr: BufReader<ChildStderr>,
    address: String,
}

impl Running {
    fn start(dir: &Path, arguments: &[&str]) -> Self {
        let fixed = ["--listen-client-urls", "http://127.0.0.1:0", "--log-format", "json"];
        let mut child = harmony(dir, &[&fixed[..], arguments].concat()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut running = Self { child, stderr, address: String::new() };
        while running.address.is_empty() {
            let mut line = String::new();
            assert_ne!(running.stderr.read_line(&mut line).unwrap(), 0, "it ended before it served");
            if line.contains("harmony serves") {
                let start = line.find("[127.0.0.1:").unwrap() + 1;
                line[start..].split(']').next().unwrap().clone_into(&mut running.address);
            }
        }
        running
    }

    fn signal(mut self, signal: Signal) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let mut log = String::new();
        self.stderr.read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already when the test went well.
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}

/// It ends with this code, saying all of this.
#[track_caller]
fn check_end(output: &Output, code: i32, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

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
    check_end(&harmony(temp.path(), &arguments).output().unwrap(), 1, &["holds no member"]);
}
