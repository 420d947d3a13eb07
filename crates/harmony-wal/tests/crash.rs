//! Random operations, failing calls and crashes against a model: what was synced is there, and nothing else than what
//! was written.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of the functions that clippy exempts")]

#[path = "support/model.rs"]
mod model;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use harmony_types::config::WalConfig;
use harmony_types::fake::clock::VirtualClock;
use harmony_types::fake::fs::{CallKind, Crash, ENOSPC, Fault, MemoryFileSystem};
use harmony_types::fake::seed::{Seed, SeededRng, for_each_seed};
use harmony_types::{Entry, EntryType, HardState, LogIndex, NodeId, Rng, Term, Wal, WalError, limits};
use harmony_wal::{BatchOptions, BatchedWal, FileWal};

use model::Model;

const DIR: &str = "/wal";

fn open(disk: &MemoryFileSystem) -> Result<FileWal, WalError> {
    let config =
        WalConfig { segment_bytes: limits::SEGMENT_BYTES_MIN, cache_bytes: 500, ..WalConfig::default() };
    FileWal::open(Arc::new(disk.clone()), Path::new(DIR), config)
}

/// A log's model, and the newest term that anybody used: no index ever has two entries of one term.
#[derive(Clone, Default)]
struct Life {
    model: Model,
    term: u64,
}

impl Life {
    fn entries(&self, rng: &mut SeededRng, first: u64, count: u64) -> Vec<Entry> {
        let sizes = [0, 1, 100, 700, 5_000];
        (first..first + count)
            .map(|index| {
                let size = *rng.pick(&sizes);
                // Zeros, which look like what was never written, and other bytes.
                let data = if rng.chance(1, 2) { vec![0; size] } else { rng.bytes(size) };
                let (term, entry_type) = (Term(self.term), EntryType::Normal);
                Entry { term, index: LogIndex(index), entry_type, data: Bytes::from(data) }
            })
            .collect()
    }

    /// Where the next entries go: behind the last one, or in place of some.
    fn next(&mut self, rng: &mut SeededRng) -> u64 {
        let (first, last) = (self.model.boundary_max().0 + 1, self.model.now().last().0);
        if first <= last && rng.chance(1, 5) {
            self.term += 1;
            return rng.range(first..last + 1);
        }
        last + 1
    }

    fn hard_state(&self, rng: &mut SeededRng) -> HardState {
        let commit = LogIndex(rng.range(0..self.model.now().last().0 + 1));
        HardState { term: Term(self.term), vote: NodeId::new(rng.below(3)), commit }
    }

    /// One random operation on both; what it changed counts as done even if it fails.
    fn operate(&mut self, rng: &mut SeededRng, wal: &dyn Wal) -> Result<(), WalError> {
        let (held, last) = (self.model.boundary_max().0 + 1, self.model.now().last().0);
        match rng.below(20) {
            0..=7 => {
                let first = self.next(rng);
                let count = rng.range(0..5);
                let entries = self.entries(rng, first, count);
                let hard_state = rng.chance(1, 2).then(|| self.hard_state(rng));
                self.model.append_many(wal, hard_state, &entries)
            }
            8 => {
                let first = self.next(rng);
                let entries = self.entries(rng, first, 1);
                self.model.append(wal, &entries[0])
            }
            9 => {
                let hard_state = self.hard_state(rng);
                self.model.set_hard_state(wal, hard_state)
            }
            10 if held <= last => {
                self.term += 1;
                self.model.truncate(wal, LogIndex(rng.range(held..last + 1)))
            }
            11 if held <= last => {
                let index = LogIndex(rng.range(held..last + 1));
                let term = self.model.now().term(index).unwrap();
                self.model.snapshot(wal, index, term)
            }
            // Seldom: it empties the log.
            12 if rng.chance(1, 3) => {
                self.term += 1;
                self.model.snapshot(wal, LogIndex(rng.range(held..last + 5)), Term(self.term))
            }
            13 => {
                self.model.sync(wal)?;
                self.release(rng, wal)
            }
            14 => self.release(rng, wal),
            15 | 16 => wal.read_all().map(drop),
            17 => {
                // Reading must not hide a failure: only a log without one is compared.
                wal.read_all()?;
                self.model.is_now(wal, "before the crash");
                Ok(())
            }
            _ => self.model.sync(wal),
        }
    }

    fn release(&mut self, rng: &mut SeededRng, wal: &dyn Wal) -> Result<(), WalError> {
        let (first, last) = (self.model.boundary_max().0, self.model.synced_last().0);
        self.model.release(wal, LogIndex(rng.range(first..first.max(last) + 1)))
    }

    /// As often as asked; false when the disk ended it.
    fn operate_times(&mut self, rng: &mut SeededRng, wal: &dyn Wal, times: u64) -> bool {
        for _ in 0..times {
            match self.operate(rng, wal) {
                Ok(()) => {}
                Err(WalError::Io { .. }) => return false,
                Err(error) => panic!("{error}"),
            }
        }
        true
    }
}

/// A disk that takes groups as they are, or one that takes blocks.
fn disk_for(rng: &mut SeededRng) -> MemoryFileSystem {
    let disk = MemoryFileSystem::new();
    disk.set_block_bytes([None, Some(512), Some(4096)][usize::try_from(rng.below(3)).unwrap()]);
    disk
}

#[test]
fn crashes_lose_nothing_that_was_synced() {
    for_each_seed(0..300, 60, |_, rng| {
        let mut disk = disk_for(rng);
        let mut life = Life { term: 1, ..Life::default() };
        for round in 0..8 {
            let wal = open(&disk).unwrap();
            life.model.recovered(&wal, &format!("round {round}"));
            let times = rng.range(1..30);
            assert!(life.operate_times(rng, &wal, times));
            let crash = match rng.below(6) {
                0 => Crash::LoseUnsynced,
                1 => Crash::KeepAll,
                // The process ends, and the machine goes on.
                2 => continue,
                3 => {
                    wal.close().unwrap();
                    life.model.synced();
                    Crash::LoseUnsynced
                }
                _ => Crash::Seeded(Seed(rng.next_u64())),
            };
            disk = disk.crash_image(crash);
        }
    });
}

/// Syncs of its own are as good as those that somebody asked for.
#[test]
fn a_batched_log_loses_less_than_one_batch() {
    const RECORDS_MAX: u64 = 4;
    for_each_seed(0..30, 10, |_, rng| {
        let mut disk = disk_for(rng);
        let mut life = Life { term: 1, ..Life::default() };
        for _ in 0..4 {
            let clock = VirtualClock::new();
            let options = BatchOptions { records_max: RECORDS_MAX, flush_interval: Duration::from_secs(1) };
            let wal = BatchedWal::new(open(&disk).unwrap(), options, Arc::new(clock.clone())).unwrap();
            life.model.recovered(&wal, "batched");
            let mut unsynced = 0;
            for _ in 0..rng.range(1..40) {
                let first = life.model.now().last().0 + 1;
                let count = rng.range(1..3);
                let entries = life.entries(rng, first, count);
                life.model.append_many(&wal, None, &entries).unwrap();
                unsynced += count;
                if RECORDS_MAX <= unsynced {
                    life.model.synced();
                    unsynced = 0;
                }
            }
            let after = disk.crash_image(Crash::Seeded(Seed(rng.next_u64())));
            drop(wal);
            clock.stop();
            disk = after;
        }
    });
}

#[test]
fn a_crash_while_opening_loses_nothing() {
    for_each_seed(100..120, 10, |_, rng| {
        let disk = disk_for(rng);
        let mut life = Life { term: 1, ..Life::default() };
        let wal = open(&disk).unwrap();
        assert!(life.operate_times(rng, &wal, 25));
        let disk = disk.crash_image(Crash::Seeded(Seed(rng.next_u64())));
        for n in 1.. {
            let disk = disk.crash_image(Crash::KeepAll);
            disk.inject(Fault::on(CallKind::CHANGING).nth(n).lasting());
            let opened = open(&disk).is_ok();
            let after = disk.crash_image(Crash::Seeded(Seed(rng.next_u64())));
            life.model.clone().recovered(&open(&after).unwrap(), &format!("call {n}"));
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
                let disk = disk_for(&mut rng);
                let mut fault = Fault::on(CallKind::CHANGING).nth(n).short_write(100);
                if let Some(errno) = errno {
                    fault = fault.errno(errno);
                }
                disk.inject(fault);
                let mut life = Life { term: 1, ..Life::default() };
                match open(&disk) {
                    Ok(wal) => {
                        if !life.operate_times(&mut rng, &wal, 40) {
                            assert!(matches!(wal.sync(), Err(WalError::Poisoned { .. })));
                        }
                    }
                    Err(WalError::Io { .. }) => {}
                    Err(error) => panic!("call {n}: {error}"),
                }
                let struck = disk.faults_struck();
                disk.clear_faults();
                let after = disk.crash_image(Crash::Seeded(Seed(n)));
                let wal = open(&after).unwrap_or_else(|error| panic!("call {n}: {error}"));
                life.model.recovered(&wal, &format!("call {n}"));
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
            let disk = disk_for(&mut rng);
            disk.inject(Fault::on(CallKind::CHANGING).nth(n).lasting());
            let mut life = Life { term: 1, ..Life::default() };
            if let Ok(wal) = open(&disk) {
                life.operate_times(&mut rng, &wal, 30);
            }
            let struck = disk.faults_struck();
            disk.clear_faults();
            let wal = open(&disk).unwrap_or_else(|error| panic!("{seed}, call {n}: {error}"));
            life.model.recovered(&wal, &format!("call {n}"));
            let entry = Entry { index: wal.bounds().last.next(), term: Term(life.term), ..Entry::default() };
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
