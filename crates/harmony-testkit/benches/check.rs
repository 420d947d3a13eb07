//! What judging a history costs: 10,000 operations of 16 clients on 100 keys, with few answers lost, and with none.

use std::collections::BTreeMap;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use harmony_testkit::check::Verdict;
use harmony_testkit::check::linearizable;
use harmony_testkit::check::search::Limits;
use harmony_testkit::history::{ClientId, History, Moment, Operation, Reply, put, read};
use harmony_types::fake::seed::Seed;
use harmony_types::txn::{PutOutcome, RangeOutcome};
use harmony_types::{KeyValue, Revision};

const OPERATIONS: u64 = 10_000;
const CLIENTS: u64 = 16;
const KEYS: u64 = 100;

/// Half puts, half reads, each client's next one called when its last one returned; of `lost` puts nobody heard.
fn history(lost: u64) -> History {
    let mut rng = Seed(7).rng();
    let (mut revision, mut state) = (1_i64, BTreeMap::<u64, KeyValue>::new());
    let mut history = History::default();
    for number in 0..OPERATIONS {
        let key_number = rng.below(KEYS);
        let key = format!("key/{key_number}");
        let client = ClientId(u32::try_from(number % CLIENTS).expect("few clients"));
        let called = Moment(100 * number);
        let returned = Moment(100 * (number + CLIENTS) - 1);
        let is_lost = lost != 0 && number % (OPERATIONS / lost) == 0;
        if is_lost || rng.chance(1, 2) {
            revision += 1;
            let before = state.get(&key_number);
            let value = format!("value {number}");
            let kv = KeyValue {
                key: key.clone().into(),
                value: value.clone().into(),
                create_revision: before.map_or(revision, |before| before.create_revision),
                mod_revision: revision,
                version: before.map_or(1, |before| before.version + 1),
                lease: 0,
            };
            state.insert(key_number, kv);
            let sent = Operation::sent(client, called, put(key, value));
            let reply = Reply::Put(PutOutcome::default());
            let header = Revision(u64::try_from(revision).expect("positive"));
            history.operations.push(if is_lost { sent } else { sent.answered(returned, header, reply) });
        } else {
            let kvs: Vec<KeyValue> = state.get(&key_number).cloned().into_iter().collect();
            let count = i64::try_from(kvs.len()).expect("one");
            let reply = Reply::Range(RangeOutcome { kvs, more: false, count });
            let header = Revision(u64::try_from(revision).expect("positive"));
            let sent = Operation::sent(client, called, read(key, ""));
            history.operations.push(sent.answered(returned, header, reply));
        }
    }
    history
}

fn check(c: &mut Criterion) {
    let mut group = c.benchmark_group("linearizable");
    group.sample_size(10);
    group.throughput(Throughput::Elements(OPERATIONS));
    for lost in [0, 10, 100] {
        let history = history(lost);
        group.bench_with_input(BenchmarkId::new("10k operations, lost", lost), &history, |b, history| {
            b.iter(|| assert_eq!(linearizable::check(history, Limits::default()), Verdict::Holds));
        });
    }
    group.finish();
}

criterion_group!(benches, check);
criterion_main!(benches);
