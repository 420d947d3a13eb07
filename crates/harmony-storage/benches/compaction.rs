//! Dropping the history that was compacted, in the steps in which checkpoints do it.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use harmony_types::Storage as _;

mod common;

/// Superseded records.
const RECORDS: u64 = 200_000;
/// Keys.
const KEYS: u64 = 20_000;

/// A store whose history is due to go, nothing of it dropped.
fn compacted() -> common::Store {
    let store = common::Store::filled(KEYS);
    for _ in (0..RECORDS).step_by(64) {
        store.storage.apply(&store.random_puts(64)).expect("the disk works");
    }
    store.storage.checkpoint().expect("the disk works");
    let revision = store.storage.revision();
    store.storage.apply(&[store.compact(revision)]).expect("the disk works");
    store
}

fn compaction(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compaction");
    group.sample_size(10).throughput(Throughput::Elements(RECORDS + KEYS));
    group.bench_function("all of it", |bench| {
        let all = |store: common::Store| {
            while store.storage.drop_compacted().expect("the disk works") {}
            store
        };
        bench.iter_batched(compacted, all, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, compaction);
criterion_main!(benches);
