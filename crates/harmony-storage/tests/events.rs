//! The history as watches read it: order, previous values, whole revisions, the edge of compaction.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use bytes::Bytes;
use common::generate::Generate;
use common::model::Model;
use common::{Store, put};
use harmony_storage::{Events, EventsRequest, HistoryPosition, StorageConfig, StorageError, UnifiedStorage};
use harmony_types::command::Compact;
use harmony_types::fake::fs::MemoryFileSystem;
use harmony_types::fake::seed::{SeededRng, for_each_seed};
use harmony_types::txn::{DeleteRange, Put, Txn, TxnOp, TxnOpKind};
use harmony_types::{Command, CommandKind, Event, EventType, KeyRange, KeyValue, Revision, Storage};

fn delete(key: &'static str, end: &'static str) -> CommandKind {
    CommandKind::DeleteRange(DeleteRange { key: key.into(), range_end: end.into(), ..DeleteRange::default() })
}

fn compact(revision: i64) -> CommandKind {
    CommandKind::Compact(Compact { revision })
}

/// Puts of one revision.
fn puts(keys: impl IntoIterator<Item = String>, value: &str) -> CommandKind {
    let op = |key: String| {
        let value = Bytes::copy_from_slice(value.as_bytes());
        TxnOp { kind: Some(TxnOpKind::Put(Put { key: key.into(), value, ..Put::default() })) }
    };
    CommandKind::Txn(Txn { success: keys.into_iter().map(op).collect(), ..Txn::default() })
}

fn from(revision: u64) -> EventsRequest {
    EventsRequest { first: Revision(revision).into(), prev_kv: true, ..EventsRequest::default() }
}

fn key(event: &Event) -> &[u8] {
    &event.kv.as_ref().unwrap().key
}

fn revision(event: &Event) -> u64 {
    event.kv.as_ref().unwrap().mod_revision.cast_unsigned()
}

/// `3 put a=y was x`, one a line.
fn told(events: &[Event]) -> String {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let tell = |event: &Event| {
        let kv = event.kv.as_ref().unwrap();
        let was = event.prev_kv.as_ref().map_or(String::new(), |prev| {
            assert_eq!(prev.key, kv.key);
            format!(" was {}", text(&prev.value))
        });
        match event.event_type() {
            EventType::Put => format!("{} put {}={}{was}", kv.mod_revision, text(&kv.key), text(&kv.value)),
            EventType::Delete => {
                let bare =
                    KeyValue { key: kv.key.clone(), mod_revision: kv.mod_revision, ..KeyValue::default() };
                assert_eq!(*kv, bare, "a delete carries key and mod revision only");
                format!("{} delete {}{was}", kv.mod_revision, text(&kv.key))
            }
        }
    };
    events.iter().map(tell).collect::<Vec<_>>().join("\n")
}

/// The places in which the history may be: memory, the tree, a tree without what compaction gave up, one that was opened again,
/// another member's.
fn everywhere(store: &mut Store, check: impl Fn(&Store)) {
    check(store);
    store.storage().checkpoint().unwrap();
    check(store);
    while store.storage().drop_compacted().unwrap() {}
    check(store);
    store.restart(false).unwrap();
    check(store);
    store.move_by_snapshot();
    check(store);
}

#[test]
fn events_come_in_order_with_what_they_replaced() {
    let mut store = Store::new();
    store.run_all([put("b", "1"), put("a", "x"), put("a", "y")]);
    store.run_all([delete("a", "c"), puts(["b".to_owned(), "a".to_owned()], "z")]);
    everywhere(&mut store, |store| {
        let all = store.storage().events(&from(0)).unwrap();
        let expected = "2 put b=1\n3 put a=x\n4 put a=y was x\n5 delete a was y\n5 delete b was 1\n\
                        6 put b=z\n6 put a=z";
        assert_eq!(told(&all.events), expected);
        assert!(all.is_complete() && !all.is_fragment());
        assert_eq!((all.next, all.revision), (Revision(7).into(), Revision(6)));
        let request = EventsRequest { keys: KeyRange::single("b"), prev_kv: false, ..from(5) };
        let some = store.storage().events(&request).unwrap();
        assert_eq!(told(&some.events), "5 delete b\n6 put b=z");
        let put = some.events[1].kv.clone().unwrap();
        assert_eq!((put.create_revision, put.version), (6, 1));
    });
}

/// etcd#18089, etcd#19179.
#[test]
fn a_watch_from_the_compact_revision_sees_the_delete_there() {
    let mut store = Store::new();
    store.run_all([put("a", "x"), put("b", "1"), delete("a", ""), put("b", "2")]);
    store.run(compact(4));
    everywhere(&mut store, |store| {
        let found = store.storage().events(&from(4)).unwrap();
        assert_eq!(told(&found.events), "4 delete a\n5 put b=2 was 1");
    });
    // A later compaction takes it.
    store.run(compact(5));
    everywhere(&mut store, |store| {
        assert_eq!(told(&store.storage().events(&from(5)).unwrap().events), "5 put b=2");
        assert!(store.storage().events(&from(4)).is_err());
    });
}

#[test]
fn below_the_compact_revision_the_history_is_refused() {
    let mut store = Store::new();
    store.run_all([put("a", "x"), put("a", "y"), put("a", "z")]);
    store.run(compact(3));
    everywhere(&mut store, |store| {
        for revision in 0..3 {
            let error = store.storage().events(&from(revision)).unwrap_err();
            let StorageError::Compacted { requested, compacted } = error else { panic!("{error}") };
            assert_eq!((requested, compacted), (Revision(revision), Revision(3)));
        }
        // A part of a revision that was begun is refused as well.
        let first = HistoryPosition { revision: Revision(2), sub: 1 };
        let error = store.storage().events(&EventsRequest { first, ..from(0) }).unwrap_err();
        assert!(matches!(error, StorageError::Compacted { .. }), "{error}");
        assert_eq!(told(&store.storage().events(&from(3)).unwrap().events), "3 put a=y\n4 put a=z was y");
    });
}

/// etcd reads it at the revision before the event: at the compact revision that is refused.
#[test]
fn what_was_replaced_is_left_out_where_it_cannot_be_read_any_more() {
    let mut store = Store::new();
    store.run_all([put("a", "x"), put("a", "y"), put("a", "z"), delete("a", ""), put("a", "new")]);
    store.run(compact(4));
    everywhere(&mut store, |store| {
        let found = store.storage().events(&from(4)).unwrap();
        assert_eq!(told(&found.events), "4 put a=z\n5 delete a was z\n6 put a=new");
    });
}

/// A rule of etcd's transactions has this gap: one within may put a key, and the next one within delete it. What was there
/// before is that of the revision before.
#[test]
fn a_key_written_twice_in_one_revision_replaced_what_was_there_before_it() {
    let within = |op: TxnOpKind| {
        let success = vec![TxnOp { kind: Some(op) }];
        TxnOp { kind: Some(TxnOpKind::Txn(Txn { success, ..Txn::default() })) }
    };
    let put_and_delete = |value: &'static str| {
        let put = Put { key: "a".into(), value: value.into(), ..Put::default() };
        let delete = DeleteRange { key: "a".into(), ..DeleteRange::default() };
        let success = vec![within(TxnOpKind::Put(put)), within(TxnOpKind::DeleteRange(delete))];
        CommandKind::Txn(Txn { success, ..Txn::default() })
    };
    let mut store = Store::new();
    store.run(put("a", "x"));
    store.run_all([put_and_delete("y"), put_and_delete("z")]);
    everywhere(&mut store, |store| {
        let found = store.storage().events(&from(0)).unwrap();
        let expected = "2 put a=x\n3 put a=y was x\n3 delete a was x\n4 put a=z\n4 delete a";
        assert_eq!(told(&found.events), expected);
    });
}

#[test]
fn a_future_revision_has_no_events_yet() {
    let mut store = Store::new();
    store.run(put("a", "x"));
    let found = store.storage().events(&from(4)).unwrap();
    let nothing = Events { events: vec![], next: Revision(4).into(), revision: Revision(2) };
    assert_eq!(found, nothing);
    assert!(found.is_complete());
    store.run_all([put("a", "y"), put("a", "z")]);
    let found = store.storage().events(&EventsRequest { first: found.next, ..from(0) }).unwrap();
    assert_eq!(told(&found.events), "4 put a=z was y");
}

#[test]
fn a_revision_is_split_only_when_it_alone_is_too_large() {
    let mut store = Store::new();
    let keys = |count: usize| (0..count).map(|number| format!("k{number}"));
    store.run_all([put("a", "12345"), puts(keys(3), "12345"), puts(keys(8), "12345"), put("a", "6")]);
    everywhere(&mut store, |store| {
        // Key and value of a put take 6 or 7 bytes, or 15 with what it replaced.
        let mut request = EventsRequest { bytes_max: 30, ..from(1) };
        let mut pieces = Vec::new();
        loop {
            let found = store.storage().events(&request).unwrap();
            let revisions: Vec<_> = found.events.iter().map(revision).collect();
            pieces.push((revisions, found.is_fragment()));
            request.first = found.next;
            if found.is_complete() {
                break;
            }
        }
        let expected = [
            (vec![2, 3, 3, 3], false),
            (vec![4, 4], true),
            (vec![4, 4, 4], true),
            (vec![4, 4, 4], false),
            (vec![5], false),
        ];
        assert_eq!(pieces, expected);
    });
}

#[test]
fn looking_at_many_events_that_do_not_match_ends_too() {
    let mut store = Store::new();
    let keys = |count: usize| (0..count).map(|number| format!("k{number}"));
    store.run_all([put("x", "1"), puts(keys(10), "1"), put("y", "1")]);
    everywhere(&mut store, |store| {
        let request = EventsRequest { keys: KeyRange::single("y"), rows_max: 4, ..from(1) };
        let mut seen = Vec::new();
        let mut first = request.first;
        while seen.last().is_none_or(|(_, count)| *count == 0) {
            let found = store.storage().events(&EventsRequest { first, ..request.clone() }).unwrap();
            assert!(first < found.next, "it goes on");
            first = found.next;
            seen.push((found.next, found.events.len()));
        }
        let at = |revision, sub| HistoryPosition { revision: Revision(revision), sub };
        let expected = [(at(3, 0), 0), (at(3, 4), 0), (at(3, 8), 0), (at(4, 0), 0), (at(5, 0), 1)];
        assert_eq!(seen, expected);
    });
}

/// What the model says happened from `first` on to keys of a range: events of one revision in key order.
fn expected(model: &Model, first: i64, keys: &KeyRange) -> Vec<Event> {
    let mut events = Vec::new();
    for revision in first.max(1)..=model.revision {
        let (before, after) = (model.state_at(revision - 1), model.state_at(revision));
        let prev = |key: &Bytes| before.get(key).filter(|_| model.compact < revision).cloned();
        let puts = after.values().filter(|kv| kv.mod_revision == revision);
        let put = |kv: &KeyValue| {
            let prev_kv = prev(&kv.key).filter(|_| kv.create_revision < revision);
            Event { event_type: 0, kv: Some(kv.clone()), prev_kv }
        };
        let mut of_revision: Vec<_> = puts
            .map(put)
            .chain(before.keys().filter(|key| !after.contains_key(*key)).map(|key| {
                let kv = KeyValue { key: key.clone(), mod_revision: revision, ..KeyValue::default() };
                Event { event_type: 1, kv: Some(kv), prev_kv: prev(key) }
            }))
            .filter(|event| keys.contains(key(event)))
            .collect();
        of_revision.sort_by(|a, b| key(a).cmp(key(b)));
        events.extend(of_revision);
    }
    events
}

/// All events from `first` on, in pieces of random size, each checked for what an answer promises.
fn in_pieces(storage: &UnifiedStorage, rng: &mut SeededRng, first: i64, keys: &KeyRange) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    let mut first = HistoryPosition::from(Revision(first.cast_unsigned()));
    loop {
        let request = EventsRequest {
            first,
            keys: keys.clone(),
            prev_kv: true,
            bytes_max: rng.below(60),
            rows_max: 1 + rng.below(12),
        };
        let found = storage.events(&request).unwrap();
        if let (Some(before), Some(now)) = (events.last(), found.events.first()) {
            assert!(revision(before) < revision(now) || first.sub != 0, "a revision was split: {request:?}");
        }
        if first.sub != 0 || found.is_fragment() {
            assert!(
                found.events.iter().all(|event| revision(event) == first.revision.0),
                "a part of a revision stands alone: {request:?}, {found:?}"
            );
        }
        events.extend(found.events.iter().cloned());
        let (is_complete, next) = (found.is_complete(), found.next);
        assert!(is_complete || first < next, "it goes on");
        first = next;
        if is_complete {
            break;
        }
    }
    events
}

/// What of the events the model can tell: for each revision the last one of each key that changed, in key order.
fn changes(model: &Model, mut events: Vec<Event>) -> Vec<Event> {
    assert!(events.is_sorted_by_key(revision));
    events.sort_by(|a, b| (revision(a), key(a)).cmp(&(revision(b), key(b))));
    // A transaction may write a key and delete it.
    let mut last: Vec<Event> = Vec::new();
    for event in events {
        if last.last().is_some_and(|last| (revision(last), key(last)) == (revision(&event), key(&event))) {
            last.pop();
        }
        last.push(event);
    }
    last.retain(|event| {
        event.event_type() == EventType::Put
            || model.state_at(revision(event).cast_signed() - 1).contains_key(key(event))
    });
    last
}

#[test]
fn the_history_is_what_the_model_went_through() {
    for_each_seed(0..40, 10, |_, rng| {
        let config = StorageConfig { checkpoint_bytes: 1 + rng.below(4_000), ..common::config() };
        let mut store = Store::with(MemoryFileSystem::new(), config).unwrap();
        let mut model = Model::new();
        for _ in 0..10 {
            let (revision, auth_revision) = (model.revision, model.auth.revision);
            let mut commands: Vec<Command> = Vec::new();
            for _ in 0..1 + rng.below(6) {
                let mut generate = Generate { rng, revision, auth_revision };
                commands.push(match generate.rng.below(12) {
                    0..=4 => CommandKind::Put(Put { lease: 0, ..generate.put() }).into(),
                    5..=6 => CommandKind::DeleteRange(generate.delete()).into(),
                    7..=10 => CommandKind::Txn(generate.txn(2)).into(),
                    _ => compact(revision - 2).into(),
                });
            }
            for (command, outcome) in commands.clone().iter().zip(store.run_all(commands)) {
                assert_eq!(outcome, model.apply(command), "{command:?}");
            }
            match rng.below(8) {
                0 => store.storage().checkpoint().map(drop).unwrap(),
                1 => store.restart(rng.chance(1, 2)).unwrap(),
                2 => store.move_by_snapshot(),
                3 => while store.storage().drop_compacted().unwrap() {},
                // Freezes what is in memory.
                4 => store.storage().hash_kv(0).map(drop).unwrap(),
                _ => {}
            }
            for keys in [KeyRange::all(), KeyRange::prefix(b"a"), KeyRange::single("b")] {
                let first = model.compact.max(0)
                    + i64::try_from(rng.below(model.revision.abs_diff(model.compact) + 3)).unwrap();
                let found = changes(&model, in_pieces(store.storage(), rng, first, &keys));
                assert_eq!(found, expected(&model, first, &keys), "from {first}");
            }
        }
    });
}

/// Readers of the history beside writes, checkpoints and compactions: each sees every revision once, whole and in order.
#[test]
fn no_event_is_missed_or_seen_twice_while_writes_and_checkpoints_go_on() {
    const ROUNDS: u64 = 600;
    const KEYS: u64 = 5;
    let mut store = Store::new();
    let value = |round: u64| format!("{round}");
    let batches: Vec<_> = (0..ROUNDS)
        .map(|round| {
            let command = puts((0..KEYS).map(|key| format!("k{key}")), &value(round));
            vec![store.entry(command)]
        })
        .collect();
    let storage = store.storage();
    let last = ROUNDS + 1;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while storage.revision().0 < last {
                storage.checkpoint().unwrap();
            }
        });
        for bytes_max in [40, 4_000] {
            scope.spawn(move || {
                let mut request = EventsRequest { bytes_max, ..from(2) };
                let mut seen = 0;
                while seen < ROUNDS * KEYS {
                    let found = storage.events(&request).unwrap();
                    for event in &found.events {
                        let (round, number) = (seen / KEYS, seen % KEYS);
                        let kv = event.kv.as_ref().unwrap();
                        assert_eq!(kv.mod_revision.cast_unsigned(), round + 2);
                        assert_eq!(kv.key, format!("k{number}"));
                        assert_eq!(kv.value, value(round));
                        let prev = event.prev_kv.as_ref().map(|prev| prev.value.to_vec());
                        assert_eq!(prev, (round != 0).then(|| value(round - 1).into_bytes()));
                        seen += 1;
                    }
                    assert!(found.is_fragment() || seen % KEYS == 0, "a revision came in part");
                    request.first = found.next;
                }
            });
        }
        for entries in &batches {
            storage.save(None, entries).unwrap();
            storage.apply(entries).unwrap();
        }
    });
}
