//! Runs a program to its end and keeps all that it said.

#![allow(dead_code, reason = "every test uses a part of it")]

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// The program under test.
pub(crate) const HARMONY: &str = env!("CARGO_BIN_EXE_harmony");

/// What a program said, and how it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Checks that it succeeded and said exactly this on standard output, and nothing on standard error.
    #[track_caller]
    pub(crate) fn prints(&self, out: &str) {
        assert_eq!((self.out.as_str(), self.err.as_str(), self.code), (out, "", Some(0)));
    }

    /// Checks that it succeeded, and returns its standard output.
    #[track_caller]
    pub(crate) fn succeeds(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        &self.out
    }

    /// Checks that it failed with this code, said nothing on standard output, and began with these words.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, err: &str) {
        assert_eq!((self.code, self.out.as_str()), (Some(code), ""), "{self:?}");
        assert!(self.err.starts_with(err), "expected {err:?}, found {:?}", self.err);
    }
}

/// Runs a program with this standard input, without the settings of whoever runs the tests.
pub(crate) fn run(program: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>, input: &str) -> Said {
    let mut command = command(program, args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    // A program that does not read its input has closed it: not the test's concern.
    drop(stdin.write_all(input.as_bytes()));
    drop(stdin);
    let output = child.wait_with_output().expect("a child's output");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn command(program: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("HARMONY_") || name.starts_with("ETCDCTL_"))
    {
        command.env_remove(name);
    }
    command.args(args);
    command
}

/// Whether tests with `etcdctl` can run.
pub(crate) fn etcdctl_is_there() -> bool {
    let found = Command::new("etcdctl").arg("version").output().is_ok();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "etcdctl is not in the path: install Debian's etcd-client");
        eprintln!("SKIPPED: etcdctl is not in the path; Debian has it in etcd-client");
    }
    found
}

/// A program that goes on until it is dropped, and its standard output.
pub(crate) struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    /// Starts a program without an input.
    pub(crate) fn start(program: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let mut command = command(program, args);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, out }
    }

    /// Checks that these are the next lines that it prints.
    #[track_caller]
    pub(crate) fn prints(&mut self, lines: &str) {
        let mut found = String::new();
        for _ in lines.lines() {
            self.out.read_line(&mut found).expect("UTF-8");
        }
        assert_eq!(found, lines);
    }

    /// Reads on until this line.
    #[track_caller]
    pub(crate) fn until(&mut self, line: &str) {
        let mut found = String::new();
        while found != line {
            found.clear();
            assert_ne!(self.out.read_line(&mut found).expect("UTF-8"), 0, "it ended before {line:?}");
        }
    }
}

impl Running {
    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Checks that it prints nothing more, and returns the code with which it ends.
    #[track_caller]
    pub(crate) fn ends(mut self) -> Option<i32> {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).expect("UTF-8");
        assert_eq!(rest, "", "more than was expected");
        self.child.wait().expect("a child").code()
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("UTF-8");
        line
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs `harmony` with arguments that have no spaces in them.
pub(crate) fn harmony(args: &str) -> Said {
    run(HARMONY, args.split_whitespace(), "")
}
