//! A repair keeps exactly what stands before the damage, loses no byte whatever interrupts it, and never does more than it
//! was told.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of the functions that clippy exempts")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use harmony_types::config::WalConfig;
use harmony_types::fake::fs::{CallKind, Crash, ENOSPC, Fault, MemoryFileSystem};
use harmony_types::fake::seed::Seed;
use harmony_types::{
    Entry, EntryType, FileSystem, HardState, LogIndex, NodeId, RecordType, Term, WalOffset, limits,
};
use harmony_wal::{FileWal, RepairOptions, RepairPlan, Wal, WalError, plan_repair, repair, verify};

const DIR: &str = "/wal";
const STRICT: RepairOptions = RepairOptions { accept_lost_beginning: false };
const ACCEPT: RepairOptions = RepairOptions { accept_lost_beginning: true };

fn open(disk: &MemoryFileSystem) -> Result<FileWal, WalError> {
    let config =
        WalConfig { segment_bytes: limits::SEGMENT_BYTES_MIN, cache_bytes: 0, ..WalConfig::default() };
    FileWal::open(Arc::new(disk.clone()), Path::new(DIR), config)
}

fn entry(index: u64, term: u64, bytes: usize) -> Entry {
    let data = Bytes::from(vec![u8::try_from(index % 250 + 1).unwrap(); bytes]);
    Entry { term: Term(term), index: LogIndex(index), entry_type: EntryType::Normal, data }
}

fn append(wal: &FileWal, entries: &[Entry]) {
    let first = entries[0].index.prev();
    let state = HardState { term: entries[0].term, vote: NodeId::new(7), commit: first };
    wal.append_many(Some(&state), entries).unwrap();
    wal.sync().unwrap();
}

fn all(wal: &FileWal) -> Vec<Entry> {
    let bounds = wal.bounds();
    wal.entries(bounds.first()..bounds.last.next(), u64::MAX).unwrap()
}

/// Synced entries over three segments, and where each record stands.
fn three_segments() -> (MemoryFileSystem, Vec<Entry>, Vec<Placed>) {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk).unwrap();
    let entries: Vec<Entry> = (1..=18)
        .zip([0, 33, 600, 350, 900].into_iter().cycle())
        .map(|(index, bytes)| entry(index, 1, bytes))
        .collect();
    for group in entries.chunks(2) {
        append(&wal, group);
    }
    let mut records = Vec::new();
    wal.scan(&mut |at, record| {
        records.push((at, record.data.len(), record.record_type == RecordType::Entry));
        true
    })
    .unwrap();
    wal.close().unwrap();
    assert_eq!(segments(&disk).len(), 3);
    (disk.crash_image(Crash::KeepAll), entries, records)
}

fn segments(disk: &MemoryFileSystem) -> Vec<PathBuf> {
    let in_log = |path: &PathBuf| path.parent() == Some(Path::new(DIR));
    let segment = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "wal");
    disk.files().into_iter().filter(|path| in_log(path) && segment(path)).collect()
}

fn content(disk: &MemoryFileSystem) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = disk.files().into_iter().filter(|path| !path.ends_with("LOCK"));
    files.map(|path| (path.clone(), disk.read_file(&path).unwrap())).collect()
}

/// Every segment of `before` is whole in its place or in a directory that a repair made.
#[track_caller]
fn check_nothing_is_gone(disk: &MemoryFileSystem, before: &BTreeMap<PathBuf, Vec<u8>>, what: &str) {
    let after = content(disk);
    for (path, bytes) in before.iter().filter(|(path, _)| path.extension().is_some_and(|kind| kind == "wal"))
    {
        let name = path.file_name();
        let kept = after.iter().any(|(found, content)| found.file_name() == name && content == bytes);
        assert!(kept, "{what}: {} is gone", path.display());
    }
}

/// The log opens with exactly these entries, verifies, and goes on through the segments that were cut.
fn check_goes_on(disk: &MemoryFileSystem, entries: &[Entry], what: &str) {
    let report = verify(disk, Path::new(DIR)).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(report.torn, None, "{what}");
    let wal = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(all(&wal), entries, "{what}");
    let next = wal.bounds().last.0 + 1;
    let mut entries = entries.to_vec();
    for index in next..next + 20 {
        let entry = entry(index, 3, 500);
        append(&wal, std::slice::from_ref(&entry));
        entries.push(entry);
    }
    let wal = open(&disk.crash_image(Crash::LoseUnsynced)).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(all(&wal), entries, "{what}: nothing that was cut comes back");
}

/// Repairs, and checks that the outcome is what the plan said.
fn check_repair(disk: &MemoryFileSystem, options: RepairOptions, what: &str) -> RepairPlan {
    let before = content(disk);
    let planned = plan_repair(disk, Path::new(DIR)).unwrap().unwrap();
    assert_eq!(content(disk), before, "{what}: a plan changes nothing");
    let done =
        repair(disk, Path::new(DIR), options).unwrap_or_else(|error| panic!("{what}: {error}")).unwrap();
    assert_eq!(format!("{:?}", done.plan), format!("{planned:?}"), "{what}");
    check_nothing_is_gone(disk, &before, what);
    for cut in &planned.cut {
        let kept = disk.read_file(done.kept_in.join(cut.path.file_name().unwrap())).unwrap();
        assert_eq!(kept, before[&cut.path], "{what}: kept whole");
        let end = usize::try_from(cut.offset + cut.bytes).unwrap();
        assert!(kept[end..].iter().all(|byte| *byte == 0), "{what}: only free space is not counted");
    }
    if let Some(kept) = &planned.kept {
        let report = verify(disk, Path::new(DIR)).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(report.bounds, kept.bounds, "{what}");
        assert_eq!(report.hard_state, kept.hard_state, "{what}");
        assert_eq!((report.segments, report.records), (kept.segments, kept.records), "{what}");
    }
    assert!(matches!(plan_repair(disk, Path::new(DIR)), Ok(None) | Err(WalError::Io { .. })), "{what}");
    planned
}

#[test]
fn a_log_without_damage_is_left_alone() {
    let (disk, ..) = three_segments();
    let before = content(&disk);
    assert!(plan_repair(&disk, Path::new(DIR)).unwrap().is_none());
    assert!(repair(&disk, Path::new(DIR), ACCEPT).unwrap().is_none());
    assert_eq!(content(&disk), before);

    // A torn tail is for the next open to cut.
    let wal = open(&disk).unwrap();
    append(&wal, &[entry(19, 1, 900)]);
    drop(wal);
    let last = segments(&disk).pop().unwrap();
    let bytes = disk.read_file(&last).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    disk.overwrite(&last, written as u64 - 600, &[0; 601]).unwrap();
    let before = content(&disk);
    assert!(verify(&disk, Path::new(DIR)).unwrap().torn.is_some());
    assert!(repair(&disk, Path::new(DIR), ACCEPT).unwrap().is_none());
    assert_eq!(content(&disk), before);
}

/// A record: where its frame stands, bytes of its payload, whether it is an entry.
type Placed = (WalOffset, usize, bool);

/// The entries that stand before byte `offset` of a segment; of an opening, before the segment.
fn entries_before<'a>(entries: &'a [Entry], records: &[Placed], segment: u32, offset: usize) -> &'a [Entry] {
    let kept = records.iter().filter(|(at, payload, is_entry)| {
        let end = at.byte() as usize + (36 + payload).next_multiple_of(8);
        let before = at.segment() < segment || (at.segment() == segment && end <= offset);
        *is_entry && before
    });
    &entries[..kept.count()]
}

/// Flips bits of one byte of the log of three segments. Returns what came of it.
fn check_flip(
    (disk, entries, records): &(MemoryFileSystem, Vec<Entry>, Vec<Placed>),
    (path, segment): (&Path, u32),
    offset: usize,
    mask: u8,
) -> &'static str {
    let what = format!("{} byte {offset} ^ {mask:#x}", path.display());
    let disk = disk.crash_image(Crash::KeepAll);
    disk.flip(path, offset as u64, mask).unwrap();
    if verify(&disk, Path::new(DIR)).is_ok() {
        return "no damage";
    }
    if segment == 1 && offset < 160 {
        let before = content(&disk);
        let error = repair(&disk, Path::new(DIR), STRICT).err().unwrap();
        assert!(error.to_string().starts_with(path.to_str().unwrap()), "{what}: {error}");
        assert_eq!(content(&disk), before, "{what}");
        return "refused";
    }
    let expected = entries_before(entries, records, segment, offset);
    let plan = check_repair(&disk, STRICT, &what);
    assert!(!plan.beginning_lost && plan.damage.len() == 1, "{what}: {plan:?}");
    assert!(plan.damage[0].to_string().starts_with(path.to_str().unwrap()), "{what}: {plan:?}");
    assert_eq!(all(&open(&disk).unwrap()), expected, "{what}");
    // All but the one that is damaged itself is counted.
    let behind = (entries.len() - expected.len()) as u64;
    let counted = plan.lost.entries.map_or(0, |(first, last)| last.0 - first.0 + 1);
    assert!(counted == behind || counted + 1 == behind, "{what}: {counted} of {behind}: {plan:?}");
    assert!(plan.lost.synced || behind < 3, "{what}: later groups prove that it was synced");
    if (offset + usize::from(mask)).is_multiple_of(97) {
        check_goes_on(&disk, expected, &what);
    }
    "repaired"
}

#[test]
fn every_flipped_byte_costs_what_stands_behind_it_and_nothing_else() {
    let log = three_segments();
    let mut outcomes = BTreeMap::new();
    for (path, segment) in segments(&log.0).iter().zip(1..) {
        for (offset, byte) in log.0.read_file(path).unwrap().into_iter().enumerate() {
            // Every other one to zero, which is also what a sector that was not written reads as.
            let mask = if offset % 2 == 0 || byte == 0 { 0x41 } else { byte };
            *outcomes.entry(check_flip(&log, (path, segment), offset, mask)).or_insert(0) += 1;
        }
    }
    assert!(outcomes.len() == 3 && outcomes.values().all(|count| 100 < *count), "{outcomes:?}");
}

#[test]
fn behind_a_missing_segment_everything_goes_aside() {
    let (disk, entries, records) = three_segments();
    let paths = segments(&disk);
    let in_first = records.iter().filter(|(at, _, is_entry)| *is_entry && at.segment() == 1).count();
    disk.remove_file(&paths[1]).unwrap();
    let plan = check_repair(&disk, STRICT, "segment 2 is missing");
    let found = &plan.damage[0];
    assert!(
        matches!(found, WalError::MissingSegment { sequence: 2, index, .. } if index.0 == in_first as u64),
        "{found}"
    );
    assert!(plan.lost.synced, "a segment that has a follower was synced");
    check_goes_on(&disk, &entries[..in_first], "segment 2 is missing");
}

#[test]
fn a_sealed_segment_whose_follower_is_missing_is_kept() {
    let (disk, entries, records) = three_segments();
    let kept = records.iter().filter(|(at, _, is_entry)| *is_entry && at.segment() < 3).count();
    disk.remove_file(segments(&disk).last().unwrap()).unwrap();
    let plan = check_repair(&disk, STRICT, "segment 3 is missing");
    assert!(!plan.lost.synced, "nobody knows what it held");
    check_goes_on(&disk, &entries[..kept], "segment 3 is missing");
}

#[test]
fn a_lost_beginning_has_to_be_accepted() {
    let (disk, entries, records) = three_segments();
    let in_first = records.iter().filter(|(at, _, is_entry)| *is_entry && at.segment() == 1).count();
    let first = segments(&disk)[0].clone();
    let missing = disk.crash_image(Crash::KeepAll);
    missing.remove_file(&first).unwrap();
    disk.flip(&first, 100, 1).unwrap();
    for (disk, what) in [(disk, "damaged"), (missing, "missing")] {
        let before = content(&disk);
        let error = repair(&disk, Path::new(DIR), STRICT).err().unwrap();
        assert!(
            matches!(&error, WalError::CorruptRecord { path, .. } if *path == first)
                || matches!(&error, WalError::MissingSegment { sequence: 1, .. }),
            "{error}"
        );
        assert_eq!(content(&disk), before, "{what}");
        let plan = check_repair(&disk, ACCEPT, what);
        assert!(plan.beginning_lost);
        assert_eq!(plan.kept.unwrap().bounds.boundary, LogIndex(in_first as u64), "{what}");
        check_goes_on(&disk, &entries[in_first..], what);
    }
}

#[test]
fn a_log_of_which_nothing_is_left_becomes_an_empty_one() {
    let (disk, ..) = three_segments();
    for path in segments(&disk) {
        disk.overwrite(&path, 0, &[0; 512]).unwrap();
    }
    assert!(matches!(repair(&disk, Path::new(DIR), STRICT), Err(WalError::CorruptRecord { .. })));
    let plan = check_repair(&disk, ACCEPT, "no segment opens");
    assert_eq!((&plan.kept, plan.cluster), (&None, None));
    assert_eq!(segments(&disk), [] as [PathBuf; 0]);
    assert!(12 < plan.lost.records, "what is whole is counted all the same: {plan:?}");
    assert_eq!(all(&open(&disk).unwrap()), []);
}

/// A log that released its first segments: the only note of that stands in the last one.
fn released() -> (MemoryFileSystem, Vec<Entry>) {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk).unwrap();
    let entries: Vec<Entry> = (1..=60).map(|index| entry(index, 1, 300)).collect();
    entries.chunks(3).for_each(|group| append(&wal, group));
    wal.release(LogIndex(25)).unwrap();
    append(&wal, &[entry(61, 1, 8)]);
    let held = all(&wal);
    wal.close().unwrap();
    let disk = disk.crash_image(Crash::KeepAll);
    assert!(1 < held[0].index.0 && 4 <= segments(&disk).len());
    (disk, held)
}

#[test]
fn what_was_released_stays_released_though_the_note_of_it_is_cut() {
    let (disk, held) = released();
    for (slot, path) in segments(&disk).iter().enumerate() {
        let damaged = disk.crash_image(Crash::KeepAll);
        damaged.flip(path, 1000, 0x10).unwrap();
        let what = format!("segment in slot {slot}");
        let plan = check_repair(&damaged, STRICT, &what);
        assert!(!plan.beginning_lost, "{what}");
        let last = plan.kept.unwrap().bounds.last;
        let kept = held.partition_point(|entry| entry.index <= last);
        assert!(0 < kept && kept < held.len());
        check_goes_on(&damaged, &held[..kept], &what);
    }
}

#[test]
fn without_any_note_a_released_beginning_counts_as_lost() {
    let (disk, held) = released();
    let path = segments(&disk).pop().unwrap();
    let bytes = disk.read_file(&path).unwrap();
    // The note is the frame before the last entry: 40 bytes, no payload.
    let payload = bytes.windows(8).rposition(|window| window == [62; 8]).unwrap();
    let note = payload - 1 - 32 - 40;
    assert_eq!((bytes[note], bytes[note + 31]), (36, 6), "length and kind");
    disk.flip(&path, note as u64 + 24, 1).unwrap();
    let error = repair(&disk, Path::new(DIR), STRICT).err().unwrap();
    assert!(matches!(error, WalError::MissingSegment { .. }), "{error}");
    let plan = check_repair(&disk, ACCEPT, "no note");
    assert_eq!(plan.damage.len(), 2, "the beginning, and the note: {:?}", plan.damage);
    check_goes_on(&disk, &held[..held.len() - 1], "no note");
}

#[test]
fn a_lost_vote_and_entries_that_were_replaced_are_told() {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk).unwrap();
    append(&wal, &(1..=6).map(|index| entry(index, 1, 100)).collect::<Vec<_>>());
    append(&wal, &(4..=9).map(|index| entry(index, 2, 101)).collect::<Vec<_>>());
    wal.close().unwrap();
    let path = segments(&disk)[0].clone();
    let bytes = disk.read_file(&path).unwrap();
    let sixth = bytes.windows(100).position(|window| window == [7; 100]).unwrap();
    disk.flip(&path, sixth as u64 + 50, 1).unwrap();
    let plan = check_repair(&disk, STRICT, "entry 6 of term 1");
    assert_eq!(plan.kept.unwrap().bounds.last, LogIndex(5));
    assert_eq!(plan.lost.entries, Some((LogIndex(4), LogIndex(9))));
    assert_eq!(plan.lost.stale_from, Some(LogIndex(4)));
    let state = HardState { term: Term(2), vote: NodeId::new(7), commit: LogIndex(3) };
    assert_eq!(plan.lost.hard_state, Some(state));
    assert!(plan.lost.synced);
}

#[test]
fn damage_to_what_may_never_have_been_acknowledged_is_told_as_such() {
    let (disk, entries, _) = three_segments();
    let wal = open(&disk).unwrap();
    append(&wal, &[entry(19, 1, 200)]);
    wal.close().unwrap();
    let path = segments(&disk).pop().unwrap();
    let bytes = disk.read_file(&path).unwrap();
    let payload = bytes.windows(200).position(|window| window == [20; 200]).unwrap();
    disk.flip(&path, payload as u64 + 9, 1).unwrap();
    let plan = check_repair(&disk, STRICT, "the last group");
    assert!(!plan.lost.synced, "{plan:?}");
    assert_eq!(plan.lost.entries, None, "what is damaged itself cannot be counted");
    check_goes_on(&disk, &entries, "the last group");
}

/// The damaged logs that the tests of crashes and failing calls repair, with what has to be there afterwards.
fn damaged_logs() -> Vec<(&'static str, MemoryFileSystem, Vec<Entry>)> {
    let (disk, ..) = three_segments();
    let paths = segments(&disk);
    let (note, _) = released();
    let mut damaged = Vec::new();
    let mut add = |what, disk: &MemoryFileSystem, hurt: &dyn Fn(&MemoryFileSystem)| {
        let disk = disk.crash_image(Crash::KeepAll);
        hurt(&disk);
        let repaired = disk.crash_image(Crash::KeepAll);
        repair(&repaired, Path::new(DIR), ACCEPT).unwrap().unwrap();
        let expected = all(&open(&repaired).unwrap());
        damaged.push((what, disk, expected));
    };
    add("in segment 1", &disk, &|disk| disk.flip(&paths[0], 1200, 1).unwrap());
    add("in segment 3", &disk, &|disk| disk.flip(&paths[2], 400, 1).unwrap());
    add("opening of segment 2", &disk, &|disk| disk.flip(&paths[1], 130, 1).unwrap());
    add("segment 2 missing", &disk, &|disk| disk.remove_file(&paths[1]).unwrap());
    add("opening of segment 1", &disk, &|disk| disk.flip(&paths[0], 30, 1).unwrap());
    add("all openings", &disk, &|disk| {
        paths.iter().for_each(|path| disk.flip(path, 30, 1).unwrap());
    });
    add("no segment left", &disk, &|disk| {
        paths.iter().for_each(|path| disk.remove_file(path).unwrap());
    });
    let second = segments(&note)[1].clone();
    add("after a release", &note, &|disk| disk.flip(&second, 1000, 1).unwrap());
    damaged
}

/// Repairs `disk` until `fault` strikes; true when it did. `images` are what may be found then.
fn check_interrupted(
    (what, damaged, expected): &(&str, MemoryFileSystem, Vec<Entry>),
    fault: Fault,
    crashes: &[Crash],
) -> bool {
    let disk = damaged.crash_image(Crash::KeepAll);
    let before = content(&disk);
    disk.inject(fault);
    let result = repair(&disk, Path::new(DIR), ACCEPT);
    if disk.faults_struck() == 0 {
        assert!(result.unwrap().is_some());
        return false;
    }
    assert!(matches!(result, Err(WalError::Io { .. })), "{what}: {result:?}");
    for crash in crashes {
        let what = format!("{what}, {crash:?}");
        let image = disk.crash_image(*crash);
        check_nothing_is_gone(&image, &before, &what);
        if let Ok(wal) = open(&image.crash_image(Crash::KeepAll)) {
            assert_eq!(all(&wal), *expected, "{what}");
        }
        match repair(&image, Path::new(DIR), ACCEPT) {
            Ok(_) => {}
            // Everything was moved, and an open begins anew.
            Err(WalError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                assert_eq!(segments(&image), [] as [PathBuf; 0], "{what}");
            }
            Err(error) => panic!("{what}: {error}"),
        }
        check_nothing_is_gone(&image, &before, &what);
        let wal =
            open(&image.crash_image(Crash::LoseUnsynced)).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(all(&wal), *expected, "{what}");
    }
    true
}

#[test]
fn a_crash_at_any_call_leaves_the_damaged_log_or_the_repaired_one() {
    let crashes: Vec<Crash> = [Crash::LoseUnsynced, Crash::KeepAll]
        .into_iter()
        .chain((0..3).map(|whole| Crash::Prefix { whole, torn_bytes: 700 }))
        .chain((0..4).map(|seed| Crash::Seeded(Seed(seed))))
        .collect();
    for log in damaged_logs() {
        let mut calls = 1;
        while check_interrupted(&log, Fault::on(CallKind::CHANGING).nth(calls).lasting(), &crashes) {
            calls += 1;
        }
        assert!(5 < calls, "{}: {calls}", log.0);
    }
}

#[test]
fn a_failing_call_loses_nothing() {
    for log in damaged_logs() {
        for full in [false, true] {
            let mut calls = 1;
            let fault = |n| {
                let fault = Fault::on(CallKind::ALL).nth(n);
                if full { fault.errno(ENOSPC) } else { fault.short_write(100) }
            };
            while check_interrupted(&log, fault(calls), &[Crash::KeepAll, Crash::LoseUnsynced]) {
                calls += 1;
            }
            assert!(5 < calls, "{}: {calls}", log.0);
        }
    }
}

#[test]
fn an_older_repair_is_never_overwritten() {
    let (disk, ..) = three_segments();
    for round in 1..=3 {
        let last = segments(&disk).pop().unwrap();
        disk.flip(&last, 200, 1).unwrap();
        let before = content(&disk);
        let done = repair(&disk, Path::new(DIR), STRICT).unwrap().unwrap();
        assert_eq!(done.kept_in, Path::new(DIR).join(format!("repaired-{round}")));
        for (path, bytes) in before.iter().filter(|(path, _)| path.to_string_lossy().contains("repaired")) {
            assert_eq!(disk.read_file(path).as_ref(), Some(bytes));
        }
        let wal = open(&disk).unwrap();
        let next = wal.bounds().last.0 + 1;
        append(&wal, &[entry(next, 1, 100)]);
        append(&wal, &[entry(next + 1, 1, 100)]);
        wal.close().unwrap();
    }
}

#[test]
fn a_log_in_use_is_refused() {
    let (disk, ..) = three_segments();
    let wal = open(&disk).unwrap();
    disk.flip(&segments(&disk)[1], 1000, 1).unwrap();
    let before = content(&disk);
    assert!(matches!(plan_repair(&disk, Path::new(DIR)), Err(WalError::Locked { .. })));
    assert!(matches!(repair(&disk, Path::new(DIR), ACCEPT), Err(WalError::Locked { .. })));
    assert_eq!(content(&disk), before);
    drop(wal);
    check_repair(&disk, STRICT, "closed");
}

/// Changes bytes of a segment's head and makes its checksum right again.
fn forge_head(disk: &MemoryFileSystem, path: &Path, at: usize, byte: u8) {
    let mut head = disk.read_file(path).unwrap()[..72].to_vec();
    head[at] = byte;
    let crc = crc32fast::hash(&head[..68]);
    head[68..72].copy_from_slice(&crc.to_le_bytes());
    disk.overwrite(path, 0, &head).unwrap();
}

#[test]
fn a_newer_format_and_mixed_owners_are_refused() {
    for segment in 0..3 {
        let (disk, ..) = three_segments();
        let paths = segments(&disk);
        forge_head(&disk, &paths[segment], 8, 2);
        // Damage before it is no reason to touch what a newer release wrote.
        disk.flip(&paths[0], 1000, 1).unwrap();
        let before = content(&disk);
        let error = repair(&disk, Path::new(DIR), ACCEPT).err().unwrap();
        assert!(matches!(&error, WalError::UnsupportedVersion { found: 2, .. }), "{error}");
        assert_eq!(content(&disk), before);
    }
    let (disk, ..) = three_segments();
    let paths = segments(&disk);
    forge_head(&disk, &paths[2], 40, 9);
    disk.flip(&paths[1], 1000, 1).unwrap();
    let before = content(&disk);
    let error = repair(&disk, Path::new(DIR), ACCEPT).err().unwrap();
    assert!(matches!(&error, WalError::Foreign { path, found_node: 9, .. } if *path == paths[2]), "{error}");
    assert_eq!(content(&disk), before);
}

#[test]
fn a_directory_without_a_log_and_files_that_are_no_segments_are_refused() {
    let empty = MemoryFileSystem::with_dir(DIR);
    assert!(matches!(repair(&empty, Path::new(DIR), ACCEPT), Err(WalError::Io { .. })));
    assert_eq!(empty.files(), [] as [PathBuf; 0]);
    let (disk, ..) = three_segments();
    disk.rename(&segments(&disk)[1], &Path::new(DIR).join("copy.wal")).unwrap();
    let before = content(&disk);
    assert!(matches!(repair(&disk, Path::new(DIR), ACCEPT), Err(WalError::CorruptRecord { .. })));
    assert_eq!(content(&disk), before);
}
