//! Old revisions, compaction and what it keeps.

#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use common::{Store, put};
use harmony_storage::StorageError;
use harmony_types::command::Compact;
use harmony_types::txn::{DeleteRange, Range};
use harmony_types::{CommandKind, Outcome, Refusal, Revision};

fn delete(key: &'static str) -> CommandKind {
    CommandKind::DeleteRange(DeleteRange { key: key.into(), ..DeleteRange::default() })
}

fn compact(revision: i64) -> CommandKind {
    CommandKind::Compact(Compact { revision })
}

/// What `a` was at `revision`, or `-`.
fn at(store: &Store, revision: i64) -> String {
    let request = Range { key: "a".into(), revision, ..Range::default() };
    match store.storage().range(&request) {
        Ok(found) => match found.outcome.kvs.first() {
            Some(kv) => String::from_utf8(kv.value.to_vec()).unwrap(),
            None => "-".to_owned(),
        },
        Err(StorageError::Compacted { .. }) => "compacted".to_owned(),
        Err(StorageError::FutureRevision { .. }) => "future".to_owned(),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn old_revisions_are_read_until_they_are_compacted() {
    for batched in [false, true] {
        let mut store = Store::new();
        let commands = [put("a", "x"), put("a", "y"), delete("a"), put("a", "z"), put("b", "1")];
        if batched {
            store.run_all(commands);
        } else {
            for command in commands {
                store.run(command);
            }
        }
        let read = |store: &Store| (1..=7).map(|revision| at(store, revision)).collect::<Vec<_>>();
        assert_eq!(read(&store), ["-", "x", "y", "-", "z", "z", "future"]);
        store.run(compact(3));
        assert_eq!(read(&store), ["compacted", "compacted", "y", "-", "z", "z", "future"]);
        store.restart(true).unwrap();
        assert_eq!(read(&store), ["compacted", "compacted", "y", "-", "z", "z", "future"]);
        store.run(compact(6));
        assert_eq!(read(&store)[4..], ["compacted", "z", "future"]);
        assert_eq!(at(&store, 0), "z");
        assert_eq!(at(&store, -1), "z");
    }
}

#[test]
fn a_bad_compaction_is_refused() {
    let mut store = Store::new();
    store.run(put("a", "x"));
    assert_eq!(store.run(compact(3)), Outcome::refused(2, Refusal::FutureRevision));
    store.run(compact(2));
    assert_eq!(store.run(compact(2)), Outcome::refused(2, Refusal::Compacted));
    assert_eq!(store.run(compact(0)), Outcome::refused(2, Refusal::Compacted));
    assert_eq!(store.storage().compact_revision(), Revision(2));
    assert_eq!(store.storage().revision(), Revision(2));
}
