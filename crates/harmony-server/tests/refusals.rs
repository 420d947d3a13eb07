//! Damage on the disk, seen by an operator: `harmony serve` refuses what it cannot trust, names it, says what to do, and
//! leaves every byte as it was; what was acknowledged is there again once the files are.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod kit;
mod process;
mod program;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use harmony_testkit::Client;
use harmony_testkit::wait::{PATIENCE, until};
use process::{Running, check_end, harmony};
use program::{HARMONY, run};
use rustix::process::Signal;
use tempfile::TempDir;

const PUTS: usize = 12;

/// Small files, so that a few puts fill several.
const SEGMENTS: [&str; 2] = ["--wal-segment-bytes", "4096"];

/// A value that stands in the log once, and that a segment has room for few of.
fn value(number: usize) -> String {
    format!("<value {number}>").repeat(100)
}

/// A data directory with acknowledged puts in it, and what it is taken for when started.
struct Dir {
    temp: TempDir,
}

impl Dir {
    /// Puts, then kills the server.
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let running = Running::start(temp.path(), &SEGMENTS);
        let client = kit::GrpcClient::new(&running.address).unwrap();
        for number in 0..PUTS {
            // The first one waits for the leader.
            until("the put is acknowledged", PATIENCE, || client.put(&key(number), value(number).as_bytes()))
                .unwrap();
        }
        assert_eq!(running.signal(Signal::KILL).0, None);
        Self { temp }
    }

    fn wal(&self) -> PathBuf {
        self.temp.path().join("harmony.data/member/wal")
    }

    fn tree(&self) -> PathBuf {
        self.temp.path().join("harmony.data/member/tree/tree.redb")
    }

    /// In the order of the log.
    fn segments(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.wal()).unwrap().map(|file| file.unwrap().path());
        let mut segments: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|e| e == "wal")).collect();
        segments.sort();
        segments
    }

    /// Every file that holds data, with its content.
    fn content(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut content = BTreeMap::new();
        for dir in [self.wal(), self.tree().parent().unwrap().to_owned()] {
            for path in fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()) {
                content.insert(path.clone(), fs::read(path).unwrap());
            }
        }
        content
    }

    /// Starting is refused with these words, and changes nothing.
    #[track_caller]
    fn is_refused(&self, arguments: &[&str], words: &[&str]) {
        let before = self.content();
        let fixed = ["--listen-client-urls", "http://127.0.0.1:0"];
        let arguments = [&fixed[..], &SEGMENTS, arguments].concat();
        check_end(&harmony(self.temp.path(), &arguments).output().unwrap(), 1, words);
        let after = self.content();
        let names = |content: &BTreeMap<PathBuf, Vec<u8>>| content.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&before), names(&after), "a refusal changes nothing");
        assert!(before == after, "a refusal changes nothing");
    }

    /// Starting succeeds, every put is there, and a new one is taken. Returns what the server said before.
    #[track_caller]
    fn serves_all(&self) -> String {
        let running = Running::start(self.temp.path(), &SEGMENTS);
        let client = kit::GrpcClient::new(&running.address).unwrap();
        for number in 0..PUTS {
            let found = until("a read", PATIENCE, || client.get(&key(number))).unwrap();
            assert_eq!(found.expect("an acknowledged put").value, value(number), "put {number}");
        }
        client.put(b"one more", b"").unwrap();
        let said = running.said.clone();
        assert_eq!(running.signal(Signal::TERM).0, Some(0));
        said
    }
}

fn key(number: usize) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

const COPY: &str = "if it is the only member, start it with a copy of data directory harmony.data from before the damage; in a \
     cluster an older copy is not safe: see docs/operations.md";

#[test]
fn a_torn_last_frame_is_cut_and_kept_aside() {
    let dir = Dir::new();
    // A clean end: what stands last is a commit index, nothing that cannot be found out again.
    Running::start(dir.temp.path(), &SEGMENTS).signal(Signal::TERM);
    let dump = run(HARMONY, ["wal".as_ref(), "dump".as_ref(), dir.wal().as_os_str()], "");
    let last = dump.succeeds().lines().rev().find(|line| line.contains(" crc ")).unwrap();
    assert!(last.contains(" state "), "{last}");
    let (sequence, offset) = last.split(' ').next().unwrap().split_once(':').unwrap();
    let segment = &dir.segments()[sequence.parse::<usize>().unwrap() - 1];
    let mut bytes = fs::read(segment).unwrap();
    bytes[offset.parse::<usize>().unwrap() + 20..].fill(0);
    fs::write(segment, bytes).unwrap();
    let said = dir.serves_all();
    assert!(said.contains("cut a torn tail"), "{said}");
    assert!(said.contains("\"kept\":\"harmony.data/member/wal/torn-"), "{said}");
    let kept = dir.content().into_keys().filter(|path| path.extension().is_some_and(|e| e == "bin")).count();
    assert_eq!(kept, 1);
}

#[test]
fn a_flipped_byte_in_the_middle_of_a_segment_is_named() {
    let dir = Dir::new();
    let wanted = value(PUTS / 2).into_bytes();
    let (segment, at) = dir
        .segments()
        .into_iter()
        .find_map(|path| {
            let bytes = fs::read(&path).unwrap();
            let at = bytes.windows(wanted.len()).position(|window| window == wanted)?;
            Some((path, at + 7))
        })
        .expect("the value is in the log");
    flip(&segment, at);
    let name = segment.file_name().unwrap().to_str().unwrap();
    dir.is_refused(
        &[],
        &["the data of this member is damaged and was left as it is: ", name, " at byte ", COPY],
    );
    flip(&segment, at);
    dir.serves_all();
}

#[test]
fn a_missing_segment_is_named() {
    let dir = Dir::new();
    let segments = dir.segments();
    // The last one may be prepared and not used yet.
    let used = segments.len() - 1;
    assert!(3 <= used, "{segments:?}");
    let aside = dir.temp.path().join("aside");
    for (slot, sequence) in [(0, 1), (used / 2, used / 2 + 1), (used - 1, used)] {
        fs::rename(&segments[slot], &aside).unwrap();
        let missing = format!("segment {sequence} is missing: the log would have a hole behind index ");
        dir.is_refused(&[], &[&missing, COPY]);
        fs::rename(&aside, &segments[slot]).unwrap();
    }
    dir.serves_all();
}

#[test]
fn a_missing_log_is_refused_and_a_missing_tree_is_made_again() {
    let dir = Dir::new();
    Running::start(dir.temp.path(), &SEGMENTS).signal(Signal::TERM);
    let aside = dir.temp.path().join("aside");
    fs::rename(dir.wal(), &aside).unwrap();
    fs::create_dir(dir.wal()).unwrap();
    dir.is_refused(
        &[],
        &["a log beside harmony.data/member/tree/tree.redb in harmony.data/member/wal not found", COPY],
    );
    fs::remove_dir_all(dir.wal()).unwrap();
    fs::rename(&aside, dir.wal()).unwrap();
    dir.serves_all();
    // The log holds everything as long as nothing of it was given up.
    fs::remove_file(dir.tree()).unwrap();
    dir.serves_all();
}

#[test]
fn a_tree_that_is_none_is_refused() {
    let dir = Dir::new();
    flip(&dir.tree(), 0);
    dir.is_refused(
        &[],
        &["the data of this member is damaged", "tree.redb: ", "magic number mismatch", COPY],
    );
    flip(&dir.tree(), 0);
    dir.serves_all();
}

#[test]
fn a_directory_of_another_cluster_is_refused_with_the_flags_to_look_at() {
    let dir = Dir::new();
    for flags in [
        &["--initial-cluster-token", "other"][..],
        &["--initial-advertise-peer-urls", "http://localhost:2381"],
        &["--initial-cluster", "default=http://localhost:2380,b=http://localhost:2382"],
    ] {
        let words = [
            "data directory harmony.data belongs to another member or cluster: ",
            " belongs to member 8e9e05c52164694d of cluster cdf818194e3a8c32, not to member ",
            "--initial-cluster-token it was made with, or choose another --data-dir",
        ];
        dir.is_refused(flags, &words);
    }
    dir.serves_all();
}

#[test]
fn a_disk_that_takes_no_more_ends_the_server_and_loses_nothing_acknowledged() {
    let temp = tempfile::tempdir().unwrap();
    // Stands for a full disk: a write past this size fails, and the tree is the file that grows.
    let line = "trap '' XFSZ && ulimit -f 1000";
    let running = Running::start_behind(temp.path(), &SEGMENTS, line);
    let client = kit::GrpcClient::new(&running.address).unwrap();
    until("the first put", PATIENCE, || client.put(&key(0), value(0).as_bytes())).unwrap();
    let acknowledged =
        (1..).find(|number| client.put(&key(*number), value(*number).as_bytes()).is_err()).unwrap();
    let (code, log) = running.end();
    assert_eq!(code, Some(1), "{log}");
    let last = log.lines().next_back().unwrap();
    assert!(last.starts_with("error: "), "{last}");
    assert!(
        last.contains("File too large") && last.contains("nothing was acknowledged after that"),
        "{last}"
    );

    let running = Running::start(temp.path(), &SEGMENTS);
    let client = kit::GrpcClient::new(&running.address).unwrap();
    for number in 0..acknowledged {
        let found = until("a read", PATIENCE, || client.get(&key(number))).unwrap();
        assert_eq!(found.expect("an acknowledged put").value, value(number), "put {number}");
    }
    client.put(b"one more", b"").unwrap();
    assert_eq!(running.signal(Signal::TERM).0, Some(0));
}
