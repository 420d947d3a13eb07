use std::path::Path;
use std::sync::Arc;

use harmony_storage::{EventsRequest, StorageConfig, UnifiedStorage};
use harmony_types::command::Compact;
use harmony_types::fake::fs::MemoryFileSystem;
use harmony_types::fake::seed::{Seed, for_each_seed};
use harmony_types::txn::{DeleteRange, TxnOp, TxnOpKind};
use harmony_types::{
    Command, CommandKind, Entry, EntryType, HardState, OutcomeKind, Refusal, Storage, StorageError, Term, Txn,
};

use super::*;
use crate::check::random::{self, Shape};

const SHAPE: Shape =
    Shape { operations: 0, clients: 1, keys: 5, lost_one_in: 0, everything: true, revisions: true };

/// The product's own store, command by command.
struct Product {
    storage: UnifiedStorage,
}

impl Product {
    fn new() -> Self {
        let disk = MemoryFileSystem::with_dir("/data");
        let open = UnifiedStorage::open(
            Arc::new(disk),
            Path::new("/data/wal"),
            Path::new("/data/tree"),
            StorageConfig::default(),
        );
        Self { storage: open.unwrap() }
    }

    fn apply(&self, kind: CommandKind) -> (i64, Result<Reply, Refusal>) {
        let index = self.storage.applied().index.next();
        let data = Command::from(kind).encode_to_bytes();
        let entry = Entry { term: Term(1), index, entry_type: EntryType::Normal, data };
        let hard_state = HardState { term: Term(1), vote: None, commit: index };
        self.storage.save(Some(&hard_state), std::slice::from_ref(&entry)).unwrap();
        self.storage.sync().unwrap();
        let outcome = self.storage.apply(&[entry]).unwrap().remove(0);
        let reply = match outcome.kind.unwrap() {
            OutcomeKind::Refused(refusal) => Err(Refusal::try_from(refusal).unwrap()),
            OutcomeKind::Put(outcome) => Ok(Reply::Put(outcome)),
            OutcomeKind::DeleteRange(outcome) => Ok(Reply::DeleteRange(outcome)),
            OutcomeKind::Txn(outcome) => Ok(Reply::Txn(outcome)),
            OutcomeKind::Compact(_) => Ok(Reply::Compact),
            OutcomeKind::LeaseGrant(outcome) => Ok(Reply::LeaseGrant { ttl_s: outcome.ttl }),
            OutcomeKind::LeaseRevoke(_) => Ok(Reply::LeaseRevoke),
            other => panic!("{other:?}"),
        };
        (outcome.revision, reply)
    }

    fn run(&self, request: &Request) -> Option<(i64, Result<Reply, Refusal>)> {
        Some(match request.clone() {
            Request::Range { range, .. } => match self.storage.range(&range) {
                Ok(result) => (result.revision.as_i64(), Ok(Reply::Range(result.outcome))),
                Err(StorageError::Compacted { .. }) => (0, Err(Refusal::Compacted)),
                Err(StorageError::FutureRevision { .. }) => (0, Err(Refusal::FutureRevision)),
                Err(error) => panic!("{error}"),
            },
            Request::Put(put) => self.apply(CommandKind::Put(put)),
            Request::DeleteRange(delete) => self.apply(CommandKind::DeleteRange(delete)),
            Request::Txn(txn) => self.apply(CommandKind::Txn(txn)),
            Request::Compact(to) => self.apply(CommandKind::Compact(Compact { revision: to.as_i64() })),
            Request::LeaseGrant(grant) => self.apply(CommandKind::LeaseGrant(grant)),
            Request::LeaseRevoke(revoke) => self.apply(CommandKind::LeaseRevoke(revoke)),
            Request::LeaseRenew(_) => return None,
        })
    }
}

#[test]
fn the_checkers_store_answers_as_the_products_does() {
    for_each_seed(1..8, 2, |_, rng| {
        let (product, mut store) = (Product::new(), Store::new());
        let mut events = Vec::new();
        for _ in 0..250 {
            let request = random::request(rng, SHAPE, store.revision());
            let mark = store.mark();
            let reply = store.run(&request);
            events.extend(store.events_since(mark));
            let Some((revision, expected)) = product.run(&request) else { continue };
            assert_eq!(reply, expected, "{request}");
            assert!(revision == 0 || revision == store.revision(), "{request}: {revision}");
        }
        let all = EventsRequest { prev_kv: true, bytes_max: u64::MAX, ..EventsRequest::default() };
        match product.storage.events(&all) {
            Ok(all) => assert_eq!(events, all.events),
            Err(StorageError::Compacted { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    });
}

#[test]
fn what_is_taken_back_leaves_no_trace() {
    for_each_seed(1..20, 2, |_, rng| {
        let mut store = Store::new();
        let mut places = Vec::new();
        for _ in 0..100 {
            places.push((store.mark(), store.fingerprint(), format!("{store:?}")));
            let _ = store.run(&random::request(rng, SHAPE, store.revision()));
        }
        for (mark, fingerprint, text) in places.into_iter().rev() {
            store.undo(mark);
            assert_eq!((store.fingerprint(), format!("{store:?}")), (fingerprint, text));
        }
    });
}

#[test]
fn one_key_deleted_and_put_in_one_revision_makes_two_events() {
    let mut store = Store::new();
    store.run(&crate::history::put("k", "old")).unwrap();
    let delete = DeleteRange { key: "\0".into(), range_end: "\0".into(), prev_kv: false };
    let put = Put { key: "k".into(), value: "new".into(), ..Put::default() };
    let ops = [TxnOpKind::DeleteRange(delete), TxnOpKind::Put(put)];
    let success = ops.into_iter().map(|kind| TxnOp { kind: Some(kind) }).collect();
    let mark = store.mark();
    store.run(&Request::Txn(Txn { compare: vec![], success, failure: vec![] })).unwrap();
    let events = store.events_since(mark);
    let story: Vec<_> = events.iter().map(|event| (event.event_type, event.prev_kv.is_some())).collect();
    assert_eq!(story, [(1, true), (0, false)]);
    let seeds = [Seed(1), Seed(2)].map(|seed| hash_of(&seed.0));
    assert_ne!(seeds[0], seeds[1]);
}
