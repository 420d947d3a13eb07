//! Who is told of changes as they are applied: the events that they hear are the history, the leases that they hear of are
//! the state, whatever restarts, snapshots and compactions come in between.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use common::{Store, WAL_DIR, put};
use harmony_storage::{EventsRequest, StorageError};
use harmony_types::command::Compact;
use harmony_types::fake::fs::{CallKind, Fault};
use harmony_types::fake::seed::{SeededRng, for_each_seed};
use harmony_types::lease::{LeaseCheckpoint, LeaseGrant, LeaseRemaining, LeaseRevoke};
use harmony_types::txn::{DeleteRange, Put, Txn, TxnOp, TxnOpKind};
use harmony_types::{
    CommandKind, Event, History, HistoryObserver, Lease, LeaseChange, LeaseId, LeaseObserver, Leases,
    Revision, Storage,
};

/// Hears of revisions, as a hub does.
#[derive(Default)]
struct Heard {
    bytes_max: u64,
    calls: Mutex<Vec<(Revision, Option<Vec<Event>>)>>,
}

impl HistoryObserver for Heard {
    fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    fn advanced(&self, revision: Revision, events: Option<Vec<Event>>) {
        self.calls.lock().unwrap().push((revision, events));
    }
}

impl Heard {
    fn new(store: &Store, bytes_max: u64) -> Arc<Self> {
        let heard = Arc::new(Self { bytes_max, ..Self::default() });
        store.storage().observe(Arc::clone(&heard) as _);
        assert_eq!(heard.take(), [(store.storage().revision(), None)], "where the history stands");
        heard
    }

    fn take(&self) -> Vec<(Revision, Option<Vec<Event>>)> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

/// Hears of leases, as a keeper does: `None` when all of them are to be read anew.
#[derive(Default)]
struct HeardLeases(Mutex<Vec<Option<Vec<LeaseChange>>>>);

impl LeaseObserver for HeardLeases {
    fn changed(&self, changes: Vec<LeaseChange>) {
        assert!(!changes.is_empty());
        self.0.lock().unwrap().push(Some(changes));
    }

    fn replaced(&self) {
        self.0.lock().unwrap().push(None);
    }
}

/// Leases as one knows them who only listens.
#[derive(Default)]
struct Known(BTreeMap<LeaseId, Lease>);

impl Known {
    fn hear(&mut self, store: &Store, heard: &HeardLeases) {
        for call in std::mem::take(&mut *heard.0.lock().unwrap()) {
            let Some(changes) = call else {
                let all = Leases::leases(store.storage()).unwrap();
                self.0 = all.into_iter().map(|lease| (lease.id, lease)).collect();
                continue;
            };
            for change in changes {
                match change {
                    LeaseChange::Granted { id, ttl_s } => {
                        self.0.insert(id, Lease { id, ttl_s, remaining_ttl_s: 0 });
                    }
                    LeaseChange::Revoked { id } => drop(self.0.remove(&id)),
                    LeaseChange::Remaining { id, remaining_ttl_s } => {
                        if let Some(lease) = self.0.get_mut(&id) {
                            lease.remaining_ttl_s = remaining_ttl_s;
                        }
                    }
                }
            }
        }
        let known: Vec<Lease> = self.0.values().copied().collect();
        assert_eq!(known, Leases::leases(store.storage()).unwrap(), "who listens knows the leases");
    }
}

fn command(rng: &mut SeededRng, revision: i64) -> CommandKind {
    let lease = i64::try_from(rng.range(1..6)).unwrap();
    let write = |rng: &mut SeededRng| {
        let key = rng.range(0..8).to_string();
        let value = "v".repeat(rng.index(0..60));
        Put { key: key.into(), value: value.into(), ..Put::default() }
    };
    match rng.below(16) {
        0..2 => CommandKind::LeaseGrant(LeaseGrant { id: lease, ttl: 60 }),
        2 => CommandKind::LeaseRevoke(LeaseRevoke { id: lease }),
        3 => {
            let left = |id| LeaseRemaining { id, remaining_ttl: 7 * id };
            CommandKind::LeaseCheckpoint(LeaseCheckpoint { leases: vec![left(lease), left(lease + 1)] })
        }
        4..6 => CommandKind::Put(Put { lease, ..write(rng) }),
        6 => CommandKind::Compact(Compact { revision: revision - i64::try_from(rng.below(4)).unwrap() }),
        7..9 => {
            let key = rng.range(0..8).to_string().into();
            CommandKind::DeleteRange(DeleteRange { key, range_end: "\0".into(), ..DeleteRange::default() })
        }
        9..11 => {
            // In one transaction each key once.
            let mut puts: BTreeMap<_, _> = BTreeMap::new();
            for _ in 0..rng.range(0..5) {
                let put = write(rng);
                puts.insert(put.key.clone(), put);
            }
            let op = |put| TxnOp { kind: Some(TxnOpKind::Put(put)) };
            CommandKind::Txn(Txn { success: puts.into_values().map(op).collect(), ..Txn::default() })
        }
        _ => CommandKind::Put(write(rng)),
    }
}

/// All events from a revision on, with what they replaced.
fn history(store: &Store, first: Revision) -> Vec<Event> {
    let request = EventsRequest { first: first.into(), prev_kv: true, ..EventsRequest::default() };
    let events = store.storage().events(&request).unwrap();
    assert!(events.is_complete());
    events.events
}

#[test]
fn what_is_told_is_the_history_and_the_leases() {
    for_each_seed(1..40, 6, |_, rng| {
        let mut store = Store::new();
        store.run(put("first", "1"));
        // The same without compactions and restarts: what all events were.
        let mut whole = Store::new();
        whole.run(put("first", "1"));
        let mut heard = Heard::new(&store, 1 << 20);
        let (mut leases, mut known) = (Arc::new(HeardLeases::default()), Known::default());
        store.storage().observe_leases(Arc::clone(&leases) as _);
        for _ in 0..60 {
            match rng.below(12) {
                0 => store.restart(rng.chance(1, 2)).unwrap(),
                1 => store.move_by_snapshot(),
                _ => {
                    let before = store.storage().revision();
                    let commands: Vec<CommandKind> =
                        (0..rng.range(1..9)).map(|_| command(rng, before.as_i64())).collect();
                    store.run_all(commands.clone());
                    let is_compact = |kind: &CommandKind| matches!(kind, CommandKind::Compact(_));
                    whole.run_all(commands.into_iter().filter(|kind| !is_compact(kind)));
                    let after = store.storage().revision();
                    let expected = history(&whole, before.next());
                    let told = heard.take();
                    if before == after {
                        assert_eq!(told, [], "nothing of commands that change no key");
                    } else {
                        assert_eq!(told, [(after, Some(expected))]);
                    }
                    known.hear(&store, &leases);
                    continue;
                }
            }
            heard = Heard::new(&store, 1 << 20);
            leases = Arc::default();
            store.storage().observe_leases(Arc::clone(&leases) as _);
            known.hear(&store, &leases);
        }
    });
}

#[test]
fn more_than_wanted_is_told_without_events() {
    let mut store = Store::new();
    let heard = Heard::new(&store, 2_000);
    store.run_all([put("a", "1"), put("b", "2")]);
    let told = heard.take();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].1.as_ref().map(Vec::len), Some(2));
    store.run_all((0..7).map(|number| put("a", &number.to_string())));
    assert_eq!(heard.take(), [(store.storage().revision(), None)], "too many");
    store.run_all([put("a", &"v".repeat(1_500)), put("b", &"v".repeat(1_500))]);
    assert_eq!(heard.take(), [(store.storage().revision(), None)], "too large");
    let nobody = Heard::new(&store, 0);
    store.run(put("a", "1"));
    assert_eq!(nobody.take(), [(store.storage().revision(), None)]);
    assert_eq!(heard.take(), [], "another one took its place");
}

/// A store with a lease, observed, and a snapshot of another one that is further on.
fn observed() -> (Store, Arc<Heard>, Arc<HeardLeases>, Store) {
    let mut source = Store::new();
    source.run(CommandKind::LeaseGrant(LeaseGrant { id: 2, ttl: 60 }));
    source.run_all((0..9).map(|number| put("a", &number.to_string())));
    let mut store = Store::new();
    store.run(CommandKind::LeaseGrant(LeaseGrant { id: 1, ttl: 60 }));
    let heard = Heard::new(&store, 1 << 20);
    let leases = Arc::new(HeardLeases::default());
    store.storage().observe_leases(Arc::clone(&leases) as _);
    (store, heard, leases, source)
}

#[test]
fn an_installed_snapshot_is_told_without_events_and_events_go_on_behind_it() {
    let (mut store, heard, leases, source) = observed();
    let mut known = Known::default();
    known.hear(&store, &leases);
    let snapshot = source.storage().create_snapshot().unwrap();
    store.next = snapshot.meta.index.next();
    store.storage().save_snapshot(snapshot).unwrap();
    assert_eq!(heard.take(), [(source.storage().revision(), None)]);
    known.hear(&store, &leases);
    assert_eq!(known.0.keys().copied().collect::<Vec<_>>(), [LeaseId(2)]);
    store.run(put("b", "1"));
    let revision = store.storage().revision();
    assert_eq!(heard.take(), [(revision, Some(history(&store, revision)))]);
}

#[test]
fn a_snapshot_that_readers_see_is_told_even_when_the_log_fails_behind_it() {
    let (store, heard, leases, source) = observed();
    let mut known = Known::default();
    known.hear(&store, &leases);
    store.fs.inject(Fault::on([CallKind::Write, CallKind::Sync]).on_path(WAL_DIR).lasting());
    let failed = store.storage().save_snapshot(source.storage().create_snapshot().unwrap());
    assert!(matches!(failed, Err(StorageError::Wal(_))), "{failed:?}");
    assert_eq!(store.storage().revision(), source.storage().revision());
    assert_eq!(heard.take(), [(source.storage().revision(), None)]);
    known.hear(&store, &leases);
}
