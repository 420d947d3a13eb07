//! Random puts into a store of 100,000 keys, by size of the batch. The log is left out: `harmony-wal` measures it.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use harmony_types::Storage;

mod common;

fn apply(criterion: &mut Criterion) {
    let store = common::Store::filled(100_000);
    let mut group = criterion.benchmark_group("apply");
    for batch in [1, 8, 64, 256] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::new("puts", batch), |bench| {
            bench.iter_batched(
                || store.random_puts(batch),
                |entries| black_box(store.storage.apply(&entries).expect("the disk works")),
                criterion::BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, apply);
criterion_main!(benches);
