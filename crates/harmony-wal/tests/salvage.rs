//! A damaged log that still tells what it had promised becomes one that promises the same; any other is refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of the functions that clippy exempts")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use harmony_types::config::{Identity, WalConfig};
use harmony_types::fake::fs::{CallKind, Crash, Fault, MemoryFileSystem};
use harmony_types::{ClusterId, Entry, EntryType, HardState, LogIndex, NodeId, Term, limits};
use harmony_wal::{FileWal, Salvage, Wal, WalError, is_damage, plan_salvage, salvage};

const DIR: &str = "/wal";
const LAST: LogIndex = LogIndex(24);

fn config() -> WalConfig {
    let identity = Identity { cluster: ClusterId(1), node: NodeId::new(3) };
    WalConfig { identity, segment_bytes: limits::SEGMENT_BYTES_MIN, cache_bytes: 0, ..WalConfig::default() }
}

fn open(disk: &MemoryFileSystem) -> Result<FileWal, WalError> {
    FileWal::open(Arc::new(disk.clone()), Path::new(DIR), config())
}

fn entry(index: u64) -> Entry {
    let data = Bytes::from(vec![
        u8::try_from(index + 1).unwrap();
        [0, 33, 600, 350, 900][usize::try_from(index % 5).unwrap()]
    ]);
    Entry { term: Term(index / 9 + 1), index: LogIndex(index), entry_type: EntryType::Normal, data }
}

/// What the log had promised.
fn promised() -> HardState {
    HardState { term: Term(4), vote: NodeId::new(7), commit: LogIndex(22) }
}

/// Synced entries of three terms over several segments, a vote behind them, and some more.
fn written() -> MemoryFileSystem {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk).unwrap();
    for first in (1..=LAST.0).step_by(2) {
        let entries = [entry(first), entry(first + 1)];
        let state = HardState { term: entries[0].term, vote: NodeId::new(7), commit: LogIndex(first - 1) };
        wal.append_many(Some(&state), &entries).unwrap();
        wal.sync().unwrap();
    }
    wal.append_many(Some(&promised()), &[]).unwrap();
    wal.sync().unwrap();
    wal.close().unwrap();
    disk.crash_image(Crash::KeepAll)
}

fn segments(disk: &MemoryFileSystem) -> Vec<PathBuf> {
    let segment = |path: &PathBuf| {
        path.parent() == Some(Path::new(DIR)) && path.extension().is_some_and(|kind| kind == "wal")
    };
    disk.files().into_iter().filter(segment).collect()
}

fn check_plan(plan: &Salvage, what: &str) {
    let state = plan.hard_state();
    assert_eq!((plan.last(), state.term), (LAST, promised().term), "{what}");
    // A vote that is not known counts as given to this member itself.
    assert!(state.vote == promised().vote || state.vote == NodeId::new(3), "{what}: {state:?}");
    assert!(state.commit <= promised().commit, "{what}: {state:?}");
    for index in 1..=LAST.0 {
        let term = plan.term(LogIndex(index));
        assert!(term.is_none_or(|term| term == entry(index).term), "{what}: {index} of {term:?}");
    }
}

/// The log that a salvage made holds what the plan says; entries before the damage behind its boundary are whole.
fn check_made(disk: &MemoryFileSystem, plan: &Salvage, what: &str) {
    let wal = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    let bounds = wal.bounds();
    assert_eq!((bounds.boundary, bounds.last), (plan.committed().index, LAST), "{what}");
    assert_eq!(wal.hard_state(), plan.hard_state(), "{what}");
    let held = wal.entries(bounds.first()..bounds.last.next(), u64::MAX).unwrap();
    for found in held {
        let whole = entry(found.index.0);
        assert_eq!(found.term, whole.term, "{what}");
        assert!(
            found == whole || found.data.is_empty() && found.index <= plan.last_damaged(),
            "{what}: {found:?}"
        );
    }
    // And it goes on.
    let next = Entry { index: LAST.next(), ..entry(LAST.0) };
    wal.append_many(None, std::slice::from_ref(&next)).unwrap();
    wal.sync().unwrap();
    wal.close().unwrap();
    assert_eq!(open(disk).unwrap().bounds().last, next.index, "{what}");
}

#[test]
fn every_damaged_byte_is_salvaged_to_the_same_promises_or_refused() {
    let whole = written();
    let (mut salvaged, mut refused) = (0, 0);
    for path in segments(&whole) {
        let bytes = whole.read_file(&path).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for offset in 0..end as u64 {
            let disk = whole.crash_image(Crash::KeepAll);
            disk.flip(&path, offset, 0x10).unwrap();
            match open(&disk) {
                Ok(_) => continue,
                Err(error) if is_damage(&error) => {}
                // A name or a version that nobody can read is nobody's to change.
                Err(_) => continue,
            }
            let what = format!("{} at {offset}", path.display());
            let plan = match plan_salvage(&disk, Path::new(DIR), config().identity) {
                Ok(plan) => plan,
                Err(error) => {
                    println!("{what}: {error}");
                    refused += 1;
                    continue;
                }
            };
            check_plan(&plan, &what);
            salvaged += 1;
            if offset % 7 == 0 {
                salvage(&disk, Path::new(DIR), &config(), plan.committed()).unwrap();
                check_made(&disk, &plan, &what);
            }
        }
    }
    // Refused are the newest vote's header, and little else.
    assert!(refused * 20 < salvaged && refused != 0, "{salvaged} salvaged, {refused} refused");
}

/// A hole over several records, as a lost page makes it.
#[test]
fn a_hole_in_the_middle_is_bridged_only_within_one_term() {
    let whole = written();
    let (mut salvaged, mut refused) = (0, 0);
    for path in segments(&whole) {
        for start in (0..3_500).step_by(64) {
            let disk = whole.crash_image(Crash::KeepAll);
            disk.overwrite(&path, start, &[0x5a; 1_200]).unwrap();
            if open(&disk).is_ok() {
                continue;
            }
            match plan_salvage(&disk, Path::new(DIR), config().identity) {
                Ok(plan) => {
                    check_plan(&plan, &format!("{} from {start}", path.display()));
                    salvaged += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(0 < salvaged && 0 < refused, "{salvaged} salvaged, {refused} refused");
}

#[test]
fn a_crash_at_any_step_leaves_the_damaged_log_or_the_new_one() {
    let whole = written();
    let path = segments(&whole).remove(1);
    whole.flip(&path, 700, 1).unwrap();
    let plan = plan_salvage(&whole, Path::new(DIR), config().identity).unwrap();
    for step in 1.. {
        let disk = whole.crash_image(Crash::KeepAll);
        disk.inject(Fault::on(CallKind::CHANGING).nth(step).lasting());
        let done = salvage(&disk, Path::new(DIR), &config(), plan.committed());
        assert_eq!(done.is_ok(), disk.faults_struck() == 0, "step {step}");
        for crash in [Crash::LoseUnsynced, Crash::KeepAll] {
            let image = disk.crash_image(crash);
            if let Err(error) = open(&image) {
                assert!(is_damage(&error), "step {step}: {error}");
                salvage(&image, Path::new(DIR), &config(), plan.committed()).unwrap();
            }
            check_made(&image, &plan, &format!("step {step}"));
        }
        if done.is_ok() {
            assert!(5 < step);
            break;
        }
    }
}
