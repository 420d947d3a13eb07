//! A store against the plain model.

use harmony_storage::StorageError;
use harmony_types::txn::{Range, RangeOutcome};
use harmony_types::{LeaseId, Refusal};

use super::Store;
use super::model::Model;

/// What storage's error means to a client.
pub fn refusal(error: StorageError) -> Refusal {
    match error {
        StorageError::Compacted { .. } => Refusal::Compacted,
        StorageError::FutureRevision { .. } => Refusal::FutureRevision,
        error => panic!("{error}"),
    }
}

pub fn read(store: &Store, request: &Range) -> Result<RangeOutcome, Refusal> {
    store.storage().range(request).map(|found| found.outcome).map_err(refusal)
}

/// Everything at every revision that can be read, and the hashes.
pub fn check_all(store: &Store, model: &Model) {
    check_reads(store, model);
    let storage = store.storage();
    for revision in model.compact.max(1)..=model.revision {
        let found = storage.hash_kv(revision).unwrap();
        assert_eq!(
            found.hash,
            model.hash_kv(revision),
            "HashKV at {revision}, compacted at {}",
            model.compact
        );
    }
    assert_eq!(storage.hash_kv(0).unwrap().hash_revision, model.revision);
}

/// Everything at every revision that can be read.
pub fn check_reads(store: &Store, model: &Model) {
    let storage = store.storage();
    assert_eq!(storage.revision().as_i64(), model.revision);
    assert_eq!(storage.compact_revision().as_i64(), model.compact);
    for revision in 0..=model.revision + 1 {
        let request = Range { key: "\0".into(), range_end: vec![0].into(), revision, ..Range::default() };
        assert_eq!(read(store, &request), model.range(&request), "the state at {revision}");
    }
    check_rest(store, model);
}

/// Every lease with its keys, every alarm, every user and role.
pub fn check_rest(store: &Store, model: &Model) {
    let storage = store.storage();
    let alarms = storage.alarms();
    let alarms = alarms.iter().map(|alarm| (alarm.alarm, alarm.member));
    assert_eq!(alarms.collect::<Vec<_>>(), model.alarms.iter().copied().collect::<Vec<_>>());
    model.auth.check(&storage.auth());
    assert_eq!(storage.leases().unwrap(), model.leases.values().copied().collect::<Vec<_>>());
    for id in 1..=5 {
        let expected = model.leases.get(&id).map(|lease| (*lease, model.leased(id)));
        assert_eq!(storage.lease_with_keys(LeaseId(id)).unwrap(), expected);
    }
}
