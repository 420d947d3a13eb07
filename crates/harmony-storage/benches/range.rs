//! Gets of random keys and lists, in a store of 100,000 keys.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use harmony_types::txn::Range;

mod common;

fn range(criterion: &mut Criterion) {
    let store = common::Store::filled(100_000);
    criterion.bench_function("get", |bench| {
        bench.iter(|| black_box(store.storage.get(&store.random_key()).expect("the disk works")));
    });
    let mut group = criterion.benchmark_group("list");
    for rows in [100, 10_000] {
        group.throughput(Throughput::Elements(rows));
        let range_end = common::key(rows);
        let request = Range { key: common::key(0), range_end, ..Range::default() };
        group.bench_function(BenchmarkId::new("rows", rows), |bench| {
            bench.iter(|| black_box(store.storage.range(&request).expect("the disk works")));
        });
    }
    group.finish();
}

criterion_group!(benches, range);
criterion_main!(benches);
