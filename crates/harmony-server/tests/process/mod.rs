//! `harmony serve` as a process of which a test sees everything.
#![allow(dead_code, reason = "every test uses a part of it")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

pub(crate) fn harmony(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harmony"));
    let is_ours = |name: &str| name.starts_with("HARMONY_") || name.starts_with("ETCD_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_ours(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command.arg("serve").args(arguments).current_dir(dir).stderr(Stdio::piped()).stdin(Stdio::null());
    command
}

/// Any free port, and lines that can be searched.
const FIXED: [&str; 4] = ["--listen-client-urls", "http://127.0.0.1:0", "--log-format", "json"];

/// A server that has said where it listens. Killed when dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    stderr: BufReader<ChildStderr>,
    pub(crate) address: String,
    /// What it said before it served.
    pub(crate) said: String,
}

impl Running {
    pub(crate) fn start(dir: &Path, arguments: &[&str]) -> Self {
        Self::spawn(harmony(dir, &[&FIXED[..], arguments].concat()))
    }

    /// Starts one that listens for clients there.
    pub(crate) fn start_at(dir: &Path, client_urls: &str, arguments: &[&str]) -> Self {
        let fixed = ["--listen-client-urls", client_urls, "--log-format", "json"];
        Self::spawn(harmony(dir, &[&fixed[..], arguments].concat()))
    }

    /// Reads what it says until a line has all these parts.
    #[track_caller]
    pub(crate) fn says(&mut self, parts: &[&str]) {
        let mut line = String::new();
        while !parts.iter().all(|part| line.contains(part)) {
            line.clear();
            assert_ne!(self.stderr.read_line(&mut line).unwrap(), 0, "it ended before it said {parts:?}");
        }
    }

    /// Starts one behind a line of shell, such as a limit.
    pub(crate) fn start_behind(dir: &Path, arguments: &[&str], line: &str) -> Self {
        let server = harmony(dir, &[&FIXED[..], arguments].concat());
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{line} && exec \"$0\" \"$@\"")]);
        shell.arg(server.get_program()).args(server.get_args()).current_dir(dir);
        shell.stderr(Stdio::piped()).stdin(Stdio::null());
        Self::spawn(shell)
    }

    /// Starts a command that [`harmony`] made.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut running = Self { child, stderr, address: String::new(), said: String::new() };
        while running.address.is_empty() {
            let mut line = String::new();
            assert_ne!(running.stderr.read_line(&mut line).unwrap(), 0, "it ended before it served");
            running.said.push_str(&line);
            if line.contains("harmony serves") {
                let start = line.find("[127.0.0.1:").unwrap() + 1;
                line[start..].split(']').next().unwrap().clone_into(&mut running.address);
            }
        }
        running
    }

    pub(crate) fn signal(self, signal: Signal) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.end()
    }

    /// Waits until it ends by itself.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
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
pub(crate) fn check_end(output: &Output, code: i32, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}
