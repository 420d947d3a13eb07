//! Two processes and one directory: the second is refused until the first is gone, however it went.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of the functions that clippy exempts")]

#[path = "support/model.rs"]
mod model;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use harmony_types::config::WalConfig;
use harmony_types::{LogIndex, Wal, WalError, limits};
use harmony_wal::{FileWal, OsFileSystem, verify};

use model::{Held, entry};

/// Tells the process that it is the other one, and where the log is.
const DIR_VARIABLE: &str = "HARMONY_WAL_TEST_DIR";

fn open(dir: &Path) -> Result<FileWal, WalError> {
    let config = WalConfig { segment_bytes: limits::SEGMENT_BYTES_MIN, ..WalConfig::default() };
    FileWal::open(OsFileSystem::new(), dir, config)
}

/// Another process of this program that runs [`the_other_process`]. Killed when dropped.
struct Other {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Other {
    fn start(dir: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "the_other_process", "--nocapture", "--test-threads=1"])
            .env(DIR_VARIABLE, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { stdin: child.stdin.take(), child, stdout }
    }

    /// What it said of the log; the test harness says other things.
    fn answer(&mut self) -> String {
        for line in (&mut self.stdout).lines() {
            // The harness begins a line of its own with the test's name.
            if let Some((_, answer)) = line.unwrap().split_once("log: ") {
                return answer.to_owned();
            }
        }
        panic!("the other process ended without an answer");
    }

    /// Lets it close the log and end.
    fn finish(mut self) {
        drop(self.stdin.take());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success(), "{rest}");
    }

    /// `SIGKILL`: nothing of the process runs any more.
    fn kill(mut self) {
        self.child.kill().unwrap();
        assert!(!self.child.wait().unwrap().success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // Ended already, most often.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Run by [`Other`]: opens the log, appends two entries of which it syncs one, says how it went, and waits for the end of
/// its input.
#[test]
#[ignore = "the tests beside it run it, in a process of its own"]
fn the_other_process() {
    let dir = std::env::var_os(DIR_VARIABLE).unwrap();
    let answer = |text: String| {
        println!("log: {text}");
        std::io::stdout().flush().unwrap();
    };
    match open(Path::new(&dir)) {
        Ok(wal) => {
            let last = wal.bounds().last.0;
            wal.append_many(None, &[entry(last + 1, 1, 100)]).unwrap();
            wal.sync().unwrap();
            wal.append_many(None, &[entry(last + 2, 1, 100)]).unwrap();
            wal.read_all().unwrap();
            answer(format!("open behind {last}"));
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
            wal.close().unwrap();
        }
        Err(error @ WalError::Locked { .. }) => answer(format!("locked: {error}")),
        Err(error) => answer(format!("refused: {error}")),
    }
}

#[test]
fn a_second_process_is_refused_until_the_first_has_ended() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("wal");
    let mut first = Other::start(&dir);
    assert_eq!(first.answer(), "open behind 0");

    let lock = dir.join("LOCK");
    let mut second = Other::start(&dir);
    let expected = format!("locked: {} is locked: another process uses this directory", lock.display());
    assert_eq!(second.answer(), expected);
    second.finish();
    for refused in [open(&dir).map(drop), verify(&*OsFileSystem::new(), &dir).map(drop)] {
        assert!(matches!(&refused, Err(WalError::Locked { path }) if *path == lock), "{refused:?}");
    }

    first.finish();
    let mut second = Other::start(&dir);
    assert_eq!(second.answer(), "open behind 2");
    second.finish();
    assert_eq!(
        Held::of(&open(&dir).unwrap()).entries,
        (1..=4).map(|at| entry(at, 1, 100)).collect::<Vec<_>>()
    );
}

#[test]
fn a_killed_process_leaves_no_lock_and_all_that_it_wrote() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("wal");
    for round in 0..3 {
        let mut first = Other::start(&dir);
        assert_eq!(first.answer(), format!("open behind {}", 2 * round));
        assert!(matches!(open(&dir), Err(WalError::Locked { .. })));
        first.kill();
        let wal = open(&dir).unwrap();
        assert_eq!(wal.bounds().last, LogIndex(2 * round + 2), "the system has what the process wrote");
        assert_eq!(wal.recovery().torn, None);
        wal.close().unwrap();
    }
}
