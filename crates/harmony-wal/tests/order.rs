//! The power goes at every call of a log's life, and the disk keeps any of what was not synced, in any order, torn
//! anywhere: the log opens with a prefix that has all that was synced, and goes on.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of the functions that clippy exempts")]

#[path = "support/model.rs"]
mod model;
#[path = "support/story.rs"]
mod story;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use harmony_types::config::WalConfig;
use harmony_types::fake::fs::{CallKind, Change, Crash, Fate, Fault, MemoryFileSystem};
use harmony_types::fake::seed::Seed;
use harmony_types::{Wal, WalError, limits};
use harmony_wal::FileWal;

use model::{Model, entry};
use story::STORY;

/// More sets of kept changes than this are drawn instead of listed.
const SETS_MAX: u64 = 64;

fn open(disk: &MemoryFileSystem) -> Result<FileWal, WalError> {
    let config =
        WalConfig { segment_bytes: limits::SEGMENT_BYTES_MIN, cache_bytes: 500, ..WalConfig::default() };
    FileWal::open(Arc::new(disk.clone()), Path::new("/data/wal"), config)
}

/// Opens the image of a crash: a prefix with all that was synced, the same at a second look, and able to go on.
fn check(image: &MemoryFileSystem, model: &Model, what: &str) {
    let mut model = model.clone();
    let wal = open(image).unwrap_or_else(|error| panic!("{what}: {error}"));
    model.recovered(&wal, what);
    let last = model.now().last();
    let next = entry(last.0 + 1, model.now().last_term().0 + 1, 700);
    model.append_many(&wal, None, &[next]).unwrap();
    model.sync(&wal).unwrap();
    let wal = open(&image.crash_image(Crash::LoseUnsynced)).unwrap_or_else(|error| panic!("{what}: {error}"));
    model.is_now(&wal, what);
    assert_eq!(wal.recovery().torn, None, "{what}: what was cut is gone");
}

/// The fates of `changes` to look at: every set of them kept and the others lost, and each write torn with the others
/// kept and lost.
fn fates(changes: &[Change], seed: Seed) -> Vec<Vec<Fate>> {
    let count = changes.len();
    let whole = |kept: bool| if kept { Fate::Keep } else { Fate::Lose };
    let mut fates: Vec<Vec<Fate>> = if count <= 6 {
        (0..1u64 << count).map(|set| (0..count).map(|at| whole(set >> at & 1 == 1)).collect()).collect()
    } else {
        let mut rng = seed.rng();
        let prefixes = (0..=count).map(|kept| (0..count).map(|at| whole(at < kept)).collect());
        prefixes.chain((0..SETS_MAX).map(|_| (0..count).map(|_| whole(rng.chance(1, 2))).collect())).collect()
    };
    for (torn, change) in changes.iter().enumerate() {
        let Change::Write { bytes, .. } = change else { continue };
        // Cut short within a sector: then nothing that was written later is there.
        for kept in [1, 31, 33, bytes.len() / 2, bytes.len() - 1].map(Fate::KeepBytes) {
            for before in [true, false] {
                let fate = |at: usize| match at.cmp(&torn) {
                    Ordering::Less => whole(before),
                    Ordering::Equal => kept.clone(),
                    Ordering::Greater => Fate::Lose,
                };
                fates.push((0..count).map(fate).collect());
            }
        }
        // One sector missing, or there alone: all else is there in any order.
        let sectors = (bytes.len() / 512 + 2).min(9);
        for (one, alone, others) in (0..sectors).flat_map(|one| {
            [(true, true), (true, false), (false, true), (false, false)].map(|(a, b)| (one, a, b))
        }) {
            let marks: Vec<bool> = (0..sectors).map(|sector| (sector == one) == alone).collect();
            let fate = |at| if at == torn { Fate::KeepSectors(marks.clone()) } else { whole(others) };
            fates.push((0..count).map(fate).collect());
        }
    }
    fates
}

#[test]
fn whatever_the_disk_keeps_of_what_was_not_synced_the_log_is_a_prefix() {
    check_every_order(None);
}

#[test]
fn whatever_the_disk_keeps_of_blocks_the_log_is_a_prefix() {
    check_every_order(Some(512));
}

fn check_every_order(block_bytes: Option<usize>) {
    let mut images = 0;
    let mut largest = 0;
    for n in 1.. {
        let disk = MemoryFileSystem::new();
        disk.set_block_bytes(block_bytes);
        disk.inject(Fault::on(CallKind::CHANGING).nth(n).lasting());
        let mut model = Model::default();
        if let Ok(wal) = open(&disk) {
            for step in STORY {
                if step.take(&mut model, &wal).is_err() {
                    break;
                }
            }
        }
        let changes = disk.unsynced();
        largest = largest.max(changes.len());
        for fates in fates(&changes, Seed(n)) {
            images += 1;
            let what = format!("power lost at call {n}, {fates:?} of {}", described(&changes));
            check(&disk.crash_image_with(|at, _| fates[at].clone()), &model, &what);
        }
        if disk.faults_struck() == 0 {
            break;
        }
    }
    assert!(1000 < images && 4 <= largest, "{images} images, at most {largest} changes at once");
}

fn described(changes: &[Change]) -> String {
    let text = |change: &Change| match change {
        Change::Write { path, offset, bytes } => format!("write {} {offset}+{}", path.display(), bytes.len()),
        other => format!("{other:?}"),
    };
    changes.iter().map(text).collect::<Vec<_>>().join("; ")
}

/// The story above is worth its name: every call that the log knows is in it, rolls and recycled segments too.
#[test]
fn the_story_has_everything_in_it() {
    let disk = MemoryFileSystem::new();
    let mut model = Model::default();
    let wal = open(&disk).unwrap();
    let mut free = 0;
    for step in STORY {
        step.take(&mut model, &wal).unwrap_or_else(|error| panic!("{step:?}: {error}"));
        model.is_now(&wal, &format!("{step:?}"));
        free = free.max(
            disk.files().iter().filter(|path| path.extension().is_some_and(|ext| ext == "free")).count(),
        );
    }
    wal.close().unwrap();
    let counts: BTreeMap<CallKind, u64> = disk.call_counts();
    assert!(CallKind::ALL.iter().all(|kind| counts.contains_key(kind)), "{counts:?}");
    assert_eq!(free, 2, "released segments are kept");
    let newest = disk.files().into_iter().rfind(|path| path.extension().is_some_and(|ext| ext == "wal"));
    let sequence = newest.unwrap().file_name().unwrap().to_str().unwrap()[..16].to_owned();
    assert!(5 <= u64::from_str_radix(&sequence, 16).unwrap(), "{sequence}");
    model.is_now(&open(&disk).unwrap(), "reopened");
}
