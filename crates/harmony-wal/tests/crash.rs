//! Random operations, failing calls and crashes against a model: what was synced is there, and nothing else than what
//! was written.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of the functions that clippy exempts")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use harmony_types::config::WalConfig;
use harmony_types::fake::fs::{CallKind, Crash, ENOSPC, Fault, MemoryFileSystem};
use harmony_types::fake::seed::{Seed, SeededRng, for_each_seed};
use harmony_types::{Entry, EntryType, HardState, LogIndex, Rng, Term, limits};
use harmony_wal::{FileWal, Wal, WalError};

const DIR: &str = "/wal";

fn open(disk: &MemoryFileSystem) -> Result<FileWal, WalError> {
    let config =
        WalConfig { segment_bytes: limits::SEGMENT_BYTES_MIN, cache_bytes: 500, ..WalConfig::default() };
    FileWal::open(Arc::new(disk.clone()), Path::new(DIR), config)
}

/// What the log may hold after a crash: its content after each operation since the last sync, the synced one first.
struct Model {
    /// Entries from index 1 on, and the hard state.
    histories: Vec<(Vec<Entry>, HardState)>,
    released: u64,
    term: u64,
}

impl Model {
    fn now(&self) -> &(Vec<Entry>, HardState) {
        self.histories.last().unwrap()
    }

    fn synced(&mut self) {
        self.histories.drain(..self.histories.len() - 1);
    }

    /// Compares with a log that was opened after a crash, and goes on from what it holds.
    fn recovered(&mut self, wal: &FileWal) {
        let bounds = wal.bounds();
        assert!(bounds.boundary.0 <= self.released, "{bounds:?}, released {}", self.released);
        let entries = wal.entries(bounds.first()..bounds.last.next(), u64::MAX).unwrap();
        let matches = |(model, _): &(Vec<Entry>, HardState)| {
            model.get(usize::try_from(bounds.boundary.0).unwrap()..) == Some(&entries[..])
        };
        // A group may be there in part: then the log lies between two states of the model.
        let between = self.histories.windows(2).any(|pair| {
            let (before, after) = (&pair[0].0, &pair[1].0);
            let last = usize::try_from(bounds.last.0).unwrap();
            let common = before.iter().zip(after).take_while(|(a, b)| a == b).count();
            common <= last && last <= after.len() && matches(&(after[..last].to_vec(), HardState::default()))
        });
        assert!(
            self.histories.iter().any(matches) || between,
            "{bounds:?} fits no state since the last sync"
        );
        let state = wal.hard_state();
        assert!(self.histories.iter().any(|(_, model)| *model == state), "{state:?}");
        let mut content: Vec<Entry> = self.now().0.clone();
        content.truncate(usize::try_from(bounds.boundary.0).unwrap());
        if (content.len() as u64) < bounds.boundary.0 {
            content = self.histories[0].0[..usize::try_from(bounds.boundary.0).unwrap()].to_vec();
        }
        content.extend(entries);
        self.histories = vec![(content, state)];
    }
}

fn group(rng: &mut SeededRng, model: &mut Model) -> Vec<Entry> {
    let last = model.now().0.len() as u64;
    let mut first = last + 1;
    if rng.chance(1, 5) && model.released < last {
        first = rng.range(model.released + 1..last + 1);
        model.term += 1;
    }
    let sizes = [0, 1, 100, 700, 5_000];
    (first..first + rng.range(0..5))
        .map(|index| {
            let size = *rng.pick(&sizes);
            // Zeros, which look like what was never written, and other bytes.
            let data = if rng.chance(1, 2) { vec![0; size] } else { rng.bytes(size) };
            let (term, entry_type) = (Term(model.term), EntryType::Normal);
            Entry { term, index: LogIndex(index), entry_type, data: Bytes::from(data) }
        })
        .collect()
}

/// One random operation on both; false when the log refused it because of the disk.
fn operate(rng: &mut SeededRng, wal: &FileWal, model: &mut Model) -> bool {
    let (mut entries, mut state) = model.now().clone();
    let result = match rng.below(10) {
        0..=4 => {
            let group = group(rng, model);
            if let Some(first) = group.first() {
                entries.truncate(usize::try_from(first.index.0).unwrap() - 1);
                entries.extend(group.iter().cloned());
            }
            state.commit = LogIndex(entries.len() as u64);
            state.term = Term(model.term);
            model.histories.push((entries, state));
            wal.append_many(Some(&state), &group).map(drop)
        }
        5 if model.released < entries.len() as u64 => {
            let from = rng.range(model.released + 1..entries.len() as u64 + 1);
            entries.truncate(usize::try_from(from).unwrap() - 1);
            model.term += 1;
            model.histories.push((entries, state));
            wal.truncate(LogIndex(from))
        }
        6 if !entries.is_empty() => wal.sync().and_then(|()| {
            model.synced();
            let upto = rng.range(model.released..entries.len() as u64 + 1);
            model.released = model.released.max(upto);
            wal.release(LogIndex(upto))
        }),
        7 => wal.read_all().map(drop),
        _ => wal.sync().map(|()| model.synced()),
    };
    match result {
        Ok(()) => true,
        Err(WalError::Io { .. } | WalError::Poisoned { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

fn new_model() -> Model {
    Model { histories: vec![(Vec::new(), HardState::default())], released: 0, term: 1 }
}

#[test]
fn crashes_lose_nothing_that_was_synced() {
    for_each_seed(0..60, 20, |_, rng| {
        let mut disk = MemoryFileSystem::new();
        let mut model = new_model();
        for _ in 0..8 {
            let wal = open(&disk).unwrap();
            model.recovered(&wal);
            for _ in 0..rng.range(1..30) {
                assert!(operate(rng, &wal, &mut model));
            }
            let crash = match rng.below(4) {
                0 => Crash::LoseUnsynced,
                1 => Crash::KeepAll,
                _ => Crash::Seeded(Seed(rng.next_u64())),
            };
            disk = disk.crash_image(crash);
        }
    });
}

#[test]
fn a_crash_while_opening_loses_nothing() {
    for_each_seed(100..120, 10, |_, rng| {
        let disk = MemoryFileSystem::new();
        let mut model = new_model();
        let wal = open(&disk).unwrap();
        for _ in 0..25 {
            assert!(operate(rng, &wal, &mut model));
        }
        let disk = disk.crash_image(Crash::Seeded(Seed(rng.next_u64())));
        for n in 1.. {
            let disk = disk.crash_image(Crash::KeepAll);
            disk.inject(Fault::on(CallKind::CHANGING).nth(n).lasting());
            let opened = open(&disk).is_ok();
            let after = disk.crash_image(Crash::Seeded(Seed(rng.next_u64())));
            let mut model = Model { histories: model.histories.clone(), ..model };
            model.recovered(&open(&after).unwrap());
            if opened {
                break;
            }
        }
    });
}

#[test]
fn any_failing_call_is_a_clean_error_and_loses_nothing() {
    for_each_seed(200..203, 1, |seed, _| {
        for errno in [None, Some(ENOSPC)] {
            for n in 1.. {
                let mut rng = seed.rng();
                let disk = MemoryFileSystem::new();
                let mut fault = Fault::on(CallKind::CHANGING).nth(n).short_write(100);
                if let Some(errno) = errno {
                    fault = fault.errno(errno);
                }
                disk.inject(fault);
                let mut model = new_model();
                match open(&disk) {
                    Ok(wal) => {
                        let mut going = true;
                        for _ in 0..40 {
                            going = going && operate(&mut rng, &wal, &mut model);
                        }
                        if !going {
                            assert!(matches!(wal.sync(), Err(WalError::Poisoned { .. })));
                        }
                    }
                    Err(WalError::Io { .. }) => {}
                    Err(error) => panic!("call {n}: {error}"),
                }
                let struck = disk.faults_struck();
                disk.clear_faults();
                let after = disk.crash_image(Crash::Seeded(Seed(n)));
                model.recovered(&open(&after).unwrap_or_else(|error| panic!("call {n}: {error}")));
                if struck == 0 {
                    break;
                }
            }
        }
    });
}

/// A process ends at any call, be it by a failed sync; the next one finds what the system still has in memory, goes on,
/// and syncs: then nothing of the log may rest on what the first one did not sync.
#[test]
fn what_a_restarted_process_synced_survives_whatever_the_first_left_open() {
    for_each_seed(300..304, 1, |seed, _| {
        for n in 1.. {
            let mut rng = seed.rng();
            let disk = MemoryFileSystem::new();
            disk.inject(Fault::on(CallKind::CHANGING).nth(n).lasting());
            let mut model = new_model();
            if let Ok(wal) = open(&disk) {
                let mut going = true;
                for _ in 0..30 {
                    going = going && operate(&mut rng, &wal, &mut model);
                }
            }
            let struck = disk.faults_struck();
            disk.clear_faults();
            let wal = open(&disk).unwrap_or_else(|error| panic!("{seed}, call {n}: {error}"));
            model.recovered(&wal);
            let entry = Entry { index: wal.bounds().last.next(), term: Term(model.term), ..Entry::default() };
            wal.append_many(None, std::slice::from_ref(&entry)).unwrap();
            wal.sync().unwrap();
            let (bounds, state) = (wal.bounds(), wal.hard_state());
            let entries = wal.entries(bounds.first()..bounds.last.next(), u64::MAX).unwrap();
            for crash in [Crash::LoseUnsynced, Crash::Seeded(Seed(n))] {
                let context = format!("{seed}, call {n}, {crash:?}");
                let after =
                    open(&disk.crash_image(crash)).unwrap_or_else(|error| panic!("{context}: {error}"));
                assert_eq!((after.bounds(), after.hard_state()), (bounds, state), "{context}");
                let found = after.entries(bounds.first()..bounds.last.next(), u64::MAX).unwrap();
                assert_eq!(found, entries, "{context}");
            }
            if struck == 0 {
                break;
            }
        }
    });
}
