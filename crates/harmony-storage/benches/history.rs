//! The history as a watch that lags reads it: every event with what it replaced, out of the tree.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use harmony_storage::EventsRequest;
use harmony_types::Storage as _;

mod common;

/// Keys; each is written twice on average.
const KEYS: u64 = 100_000;
/// Events, about.
const EVENTS: u64 = 200_000;

fn history(criterion: &mut Criterion) {
    let store = common::Store::filled(KEYS);
    for _ in (KEYS..EVENTS).step_by(64) {
        store.storage.apply(&store.random_puts(64)).expect("the disk works");
    }
    store.storage.checkpoint().expect("the disk works");
    let events = store.storage.revision().0 - 1;
    let mut group = criterion.benchmark_group("history");
    group.throughput(Throughput::Elements(events));
    for prev_kv in [false, true] {
        let name = if prev_kv { "replay with previous values" } else { "replay" };
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let mut request = EventsRequest { prev_kv, ..EventsRequest::default() };
                let mut seen = 0;
                loop {
                    let found = store.storage.events(&request).expect("the disk works");
                    seen += black_box(&found.events).len() as u64;
                    if found.is_complete() {
                        break;
                    }
                    request.first = found.next;
                }
                assert_eq!(seen, events);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, history);
criterion_main!(benches);
