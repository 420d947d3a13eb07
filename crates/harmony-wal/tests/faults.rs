//! Every call of a log's life fails once, in memory and on real files: a clean error, a poisoned log where the disk may
//! differ from what was meant, and nothing lost at the next open.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of the functions that clippy exempts")]

#[path = "support/failing.rs"]
mod failing;
#[path = "support/model.rs"]
mod model;
#[path = "support/story.rs"]
mod story;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use harmony_types::config::WalConfig;
use harmony_types::fake::fs::{CallKind, Crash, EIO, ENOSPC, MemoryFileSystem};
use harmony_types::{FileSystem, LogIndex, Wal, WalError, limits};
use harmony_wal::{FileWal, verify};

use failing::{FailingFileSystem, Plan};
use model::{Held, Model, entry};
use story::{STORY, Step};

fn open(fs: Arc<dyn FileSystem>, dir: &Path) -> Result<FileWal, WalError> {
    let config =
        WalConfig { segment_bytes: limits::SEGMENT_BYTES_MIN, cache_bytes: 500, ..WalConfig::default() };
    FileWal::open(fs, dir, config)
}

/// A directory that nobody used yet, and its file system without failures.
enum Ground {
    Memory(MemoryFileSystem),
    Disk(tempfile::TempDir),
}

impl Ground {
    fn dir(&self) -> PathBuf {
        match self {
            Self::Memory(_) => PathBuf::from("/data/wal"),
            Self::Disk(dir) => dir.path().join("wal"),
        }
    }

    fn failing(&self) -> FailingFileSystem {
        match self {
            Self::Memory(disk) => FailingFileSystem::over(Arc::new(disk.clone())),
            Self::Disk(_) => FailingFileSystem::real(),
        }
    }

    /// What the next process finds: the same files, or in memory also those that a power loss leaves.
    fn afterwards(&self) -> Vec<Arc<dyn FileSystem>> {
        match self {
            Self::Memory(disk) => [Crash::LoseUnsynced, Crash::KeepAll]
                .map(|crash| -> Arc<dyn FileSystem> { Arc::new(disk.crash_image(crash)) })
                .into(),
            Self::Disk(_) => vec![Arc::new(FailingFileSystem::real())],
        }
    }
}

/// Lives the story with one call failing. Returns whether it failed.
fn check(ground: &Ground, plan: &Plan) -> bool {
    let what = format!("{plan:?}");
    let fs = ground.failing();
    fs.plan(plan.clone());
    let mut model = Model::default();
    match open(Arc::new(fs.clone()), &ground.dir()) {
        Ok(wal) => {
            for step in STORY {
                let Err(error) = step.take(&mut model, &wal) else { continue };
                assert!(matches!(error, WalError::Io { .. }), "{what}: {step:?}: {error}");
                check_after_failure(&wal, &mut model, plan, step, &what);
                if plan.kinds != [CallKind::Read] {
                    break;
                }
            }
        }
        Err(error) => assert!(matches!(error, WalError::Io { .. }), "{what}: {error}"),
    }
    let struck = fs.struck();
    for fs in ground.afterwards() {
        let mut model = model.clone();
        let wal = open(Arc::clone(&fs), &ground.dir()).unwrap_or_else(|error| panic!("{what}: {error}"));
        model.recovered(&wal, &what);
        let next = entry(model.now().last().0 + 1, model.now().last_term().0 + 1, 700);
        model.append_many(&wal, None, &[next]).unwrap();
        model.sync(&wal).unwrap();
        wal.close().unwrap();
        assert_eq!(verify(&*fs, &ground.dir()).unwrap().bounds.last, model.now().last(), "{what}");
    }
    struck != 0
}

/// A failed read changes nothing. After any other failure nothing is written any more, and reads go on.
fn check_after_failure(wal: &FileWal, model: &mut Model, plan: &Plan, step: Step, what: &str) {
    if plan.kinds == [CallKind::Read] {
        assert_eq!(step, Step::Read, "{what}: nothing else reads");
        model.is_now(wal, what);
        return;
    }
    let next = model.now().last().0 + 1;
    for refused in [
        wal.sync(),
        wal.append_many(None, &[entry(next, 99, 1)]).map(drop),
        wal.truncate(LogIndex(next - 1)),
        wal.release(LogIndex(1)),
    ] {
        assert!(matches!(refused, Err(WalError::Poisoned { .. })), "{what}: {step:?}: {refused:?}");
    }
    assert_eq!(Held::of(wal).bounds.last, model.now().last(), "{what}: {step:?}: reads go on");
    match wal.close() {
        Ok(()) => model.synced(),
        Err(error) => assert!(matches!(error, WalError::Poisoned { .. }), "{what}: {error}"),
    }
}

/// Each call of these kinds in turn. Returns how many there are.
fn check_each(ground: &mut dyn FnMut() -> Ground, kind: CallKind, errno: i32, written_bytes: usize) -> u64 {
    let kinds = vec![kind];
    for nth in 1.. {
        if !check(&ground(), &Plan { kinds: kinds.clone(), nth, errno, written_bytes }) {
            return nth - 1;
        }
    }
    unreachable!("the story ends")
}

fn check_all(ground: &mut dyn FnMut() -> Ground) {
    for kind in CallKind::ALL {
        let calls = check_each(ground, kind, EIO, 0);
        assert!(0 < calls, "the story has no {}", kind.word());
    }
    for kind in [CallKind::Open, CallKind::Write, CallKind::SetLen, CallKind::Allocate, CallKind::Rename] {
        check_each(ground, kind, ENOSPC, 0);
    }
    for written_bytes in [1, 40, 513] {
        for errno in [EIO, ENOSPC] {
            check_each(ground, CallKind::Write, errno, written_bytes);
        }
    }
}

#[test]
fn any_failing_call_is_a_clean_error_in_memory() {
    check_all(&mut || Ground::Memory(MemoryFileSystem::new()));
}

#[test]
fn any_failing_call_is_a_clean_error_in_blocks() {
    check_all(&mut || {
        let disk = MemoryFileSystem::new();
        disk.set_block_bytes(Some(512));
        Ground::Memory(disk)
    });
}

#[test]
fn any_failing_call_is_a_clean_error_on_real_files() {
    check_all(&mut || Ground::Disk(tempfile::tempdir().unwrap()));
}

/// A lock that cannot be asked for is an error of the system, not another process.
#[test]
fn a_failing_lock_is_not_taken_for_another_process() {
    let ground = Ground::Disk(tempfile::tempdir().unwrap());
    let fs = ground.failing();
    fs.plan(Plan { kinds: vec![CallKind::Lock], nth: 1, errno: EIO, written_bytes: 0 });
    let error = open(Arc::new(fs.clone()), &ground.dir()).err().unwrap();
    assert!(matches!(error, WalError::Io { action: "lock", .. }), "{error}");
    fs.clear();
    open(Arc::new(fs), &ground.dir()).unwrap();
}
