//! What an append and a sync cost. `cargo bench -p harmony-wal`; the directory is made in `HARMONY_BENCH_DIR` or the
//! current directory, as a RAM disk would show nothing.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark, not an API")]

use std::hint::black_box;
use std::path::Path;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use harmony_types::{Entry, LogIndex, Term};
use harmony_wal::{FileWal, OsFileSystem, Wal, WalConfig};

/// A log that gives up what it holds from time to time, so that a long run does not fill the disk.
struct Log {
    wal: FileWal,
    next: u64,
    released: u64,
    data: Bytes,
}

impl Log {
    fn open(dir: &Path) -> Self {
        let wal = FileWal::open(OsFileSystem::new(), dir, WalConfig::default()).unwrap();
        Self { wal, next: 1, released: 0, data: Bytes::from(vec![7; 256]) }
    }

    fn append(&mut self, count: u64) {
        let entry = |index| Entry {
            term: Term(1),
            index: LogIndex(index),
            data: self.data.clone(),
            ..Entry::default()
        };
        let entries: Vec<Entry> = (self.next..self.next + count).map(entry).collect();
        black_box(self.wal.append_many(None, &entries).unwrap());
        self.next += count;
        if self.released + 1_000_000 < self.next {
            self.wal.sync().unwrap();
            self.released = self.next - 1;
            self.wal.release(LogIndex(self.released)).unwrap();
        }
    }
}

fn append(criterion: &mut Criterion) {
    let base = std::env::var_os("HARMONY_BENCH_DIR").unwrap_or_else(|| ".".into());
    let mut group = criterion.benchmark_group("append");
    group.sample_size(20);
    for (name, count, sync) in
        [("1x256B+sync", 1, true), ("64x256B+sync", 64, true), ("1x256B", 1, false), ("64x256B", 64, false)]
    {
        let dir = tempfile::tempdir_in(&base).unwrap();
        let mut log = Log::open(dir.path());
        group.throughput(Throughput::Elements(count));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                log.append(count);
                if sync {
                    log.wal.sync().unwrap();
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
