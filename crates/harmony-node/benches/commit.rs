//! Commits through three nodes in one process, with the log in memory: what the node itself costs.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

#[path = "../tests/support/cluster.rs"]
mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use harmony_node::{ReplySink, Waiter};
use harmony_types::NodeError;
use support::Cluster;

/// Counts what was acknowledged.
#[derive(Default)]
struct Count {
    acknowledged: Mutex<u64>,
    changed: Condvar,
    wakes: AtomicU64,
}

impl ReplySink<u64> for Count {
    fn complete(&self, batch: Vec<(u64, Result<u64, NodeError>)>) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
        for (_, result) in &batch {
            assert!(result.is_ok(), "{result:?}");
        }
        *self.acknowledged.lock().unwrap() += batch.len() as u64;
        self.changed.notify_one();
    }
}

fn commit(criterion: &mut Criterion) {
    let cluster = Cluster::started(3, false);
    let leader = cluster.leader();
    let node = cluster.node(leader);
    let mut group = criterion.benchmark_group("commit");
    group.sample_size(20);
    for waiting in [1, 128, 1_024] {
        group.throughput(Throughput::Elements(waiting));
        group.bench_function(format!("three nodes, {waiting} proposals at once"), |bencher| {
            bencher.iter(|| {
                let count = Arc::new(Count::default());
                for token in 0..waiting {
                    node.propose(Bytes::from_static(b"k=1"), Waiter::new(Arc::clone(&count) as _, token));
                }
                let acknowledged = count.acknowledged.lock().unwrap();
                drop(count.changed.wait_while(acknowledged, |acknowledged| *acknowledged < waiting).unwrap());
            });
        });
    }
    group.finish();
}

criterion_group!(benches, commit);
criterion_main!(benches);
