//! Views: the same at any time, in nobody's way, and ended when they keep too much.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use common::generate::Generate;
use common::{Store, TREE_DIR, put};
use harmony_storage::{EventsRequest, RangeEnd, StorageConfig, StorageError, StorageView};
use harmony_types::command::Compact;
use harmony_types::fake::fs::{CallKind, MemoryFileSystem};
use harmony_types::fake::seed::for_each_seed;
use harmony_types::txn::{Range, RangeOutcome, SortOrder, SortTarget};
use harmony_types::{CommandKind, Revision, Snapshot, SnapshotData, Storage};

fn all() -> Range {
    Range { key: "\0".into(), range_end: vec![0].into(), ..Range::default() }
}

fn store(config: StorageConfig) -> Store {
    Store::with(MemoryFileSystem::new(), config).unwrap()
}

fn limited(view_bytes_max: u64) -> StorageConfig {
    StorageConfig { view_bytes_max, ..common::config() }
}

/// Overwrites the same keys, so that what is live stays as large as it is.
fn overwrite(store: &mut Store, keys: usize) {
    let value = "v".repeat(1_000);
    store.run_all((0..keys).map(|number| put(&format!("k{number:04}"), &value)));
    // Without history: only pages that a view keeps make the file grow.
    let revision = store.storage().revision().as_i64();
    store.run(CommandKind::Compact(Compact { revision }));
    store.storage().checkpoint().unwrap();
}

#[track_caller]
fn assert_expired<T: std::fmt::Debug>(result: Result<T, StorageError>, revision: Revision, limit: u64) {
    let error = result.unwrap_err();
    let StorageError::ViewExpired { revision: of_view, kept_bytes, limit_bytes } = error else {
        panic!("{error}")
    };
    assert_eq!((of_view, limit_bytes), (revision, limit));
    assert!(limit < kept_bytes);
}

#[test]
fn a_view_that_keeps_too_much_is_ended_and_the_file_stops_growing() {
    const LIMIT: u64 = 8 << 20;
    // Bytes of the file after the first rounds, and after many with a view held.
    let grown = |limit: u64| {
        let mut store = store(limited(limit));
        for _ in 0..5 {
            overwrite(&mut store, 200);
        }
        let before = store.storage().disk_bytes().unwrap();
        let view = store.storage().view().unwrap();
        let revision = view.revision();
        let found = view.range(&all()).unwrap();
        let mut ended_at = None;
        let mut sizes = Vec::new();
        for round in 0..40 {
            // Others, younger ones, are not concerned.
            let young = store.storage().view().unwrap();
            overwrite(&mut store, 200);
            assert_eq!(young.range(&all()).unwrap().outcome.count, 200, "round {round}");
            match view.range(&all()) {
                Ok(again) => assert_eq!(again, found, "round {round}"),
                expired => {
                    assert_expired(expired, revision, limit);
                    assert_expired(view.get(b"k0001"), revision, limit);
                    assert_expired(
                        view.events(&EventsRequest { first: revision.into(), ..EventsRequest::default() }),
                        revision,
                        limit,
                    );
                    ended_at.get_or_insert(round);
                }
            }
            sizes.push(store.storage().disk_bytes().unwrap());
        }
        (before, sizes, ended_at)
    };
    let (before, sizes, ended_at) = grown(LIMIT);
    let ended_at = ended_at.expect("the view was ended");
    assert!(2 < ended_at, "it lived for a while");
    let (last, at_end) = (sizes[39], sizes[ended_at]);
    assert!(last <= at_end.max(before + 2 * LIMIT), "{before} bytes, then {sizes:?}");
    assert!(sizes[ended_at + 2..].iter().all(|size| *size == last), "it grows on: {sizes:?}");
    // Without an end it would.
    let (_, unlimited, never) = grown(u64::MAX);
    assert_eq!(never, None);
    assert!(2 * last < unlimited[39], "{last} bytes with a limit, {} without", unlimited[39]);
}

/// Views taken while everything goes on, each compared at its end with what it said first.
#[test]
fn a_view_says_the_same_at_its_end_as_at_its_start_under_full_load() {
    const ROUNDS: usize = 300;
    let config = StorageConfig { checkpoint_bytes: 60_000, ..common::config() };
    let mut store = store(config);
    store.run_all((0..300).map(|number| put(&format!("k{number:04}"), "first")));
    let batches: Vec<_> = (0..ROUNDS)
        .map(|round| {
            let mut commands: Vec<_> = (0..8)
                .map(|n| put(&format!("k{:04}", (round * 7 + n * 31) % 300), &round.to_string()))
                .collect();
            if round % 10 == 9 {
                let revision = i64::try_from(300 + round * 4).unwrap();
                commands.push(CommandKind::Compact(Compact { revision }));
            }
            commands.into_iter().map(|command| store.entry(command)).collect::<Vec<_>>()
        })
        .collect();
    let done = AtomicBool::new(false);
    let storage = store.storage();
    std::thread::scope(|scope| {
        let running = || !done.load(Ordering::Acquire);
        scope.spawn(move || {
            while running() {
                storage.checkpoint().unwrap();
                storage.drop_compacted().unwrap();
            }
        });
        let reader = scope.spawn(move || {
            let mut views = Vec::new();
            while running() {
                let view = storage.view().unwrap();
                let first = said(&view);
                views.push((view, first));
                if 12 < views.len() {
                    let (view, first) = views.remove(views.len() / 3);
                    assert_eq!(said(&view), first);
                }
            }
            views
        });
        for entries in &batches {
            storage.save(None, entries).unwrap();
            storage.apply(entries).unwrap();
        }
        done.store(true, Ordering::Release);
        let views = reader.join().unwrap();
        storage.checkpoint().unwrap();
        while storage.drop_compacted().unwrap() {}
        for (view, first) in views {
            assert_eq!(said(&view), first);
        }
    });
}

/// All that a view can say.
fn said(view: &StorageView) -> (RangeOutcome, RangeOutcome, String) {
    let now = view.range(&all()).unwrap().outcome;
    let compact = view.compact_revision().as_i64();
    let old = view.range(&Range { revision: compact, ..all() }).unwrap().outcome;
    let first = view.compact_revision().into();
    let request = EventsRequest { first, prev_kv: true, bytes_max: u64::MAX, ..EventsRequest::default() };
    let events = view.events(&request).unwrap();
    assert!(events.is_complete());
    (now, old, format!("{events:?}"))
}

#[test]
fn a_snapshot_that_is_cut_off_fails_at_its_reader() {
    let mut store = store(limited(1 << 20));
    overwrite(&mut store, 300);
    let Snapshot { meta, data } = store.storage().create_snapshot().unwrap();
    let mut stream = data.into_reader();
    let mut head = vec![0; 1_000];
    stream.read_exact(&mut head).unwrap();
    for _ in 0..20 {
        overwrite(&mut store, 300);
    }
    let mut rest = Vec::new();
    let error = stream.read_to_end(&mut rest).unwrap_err();
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<StorageError>());
    assert!(matches!(inner, Some(StorageError::ViewExpired { .. })), "{error}");
    assert!(stream.read(&mut head).is_err(), "an error is no end");

    // At the other end: refused, and nothing is left of it.
    let snapshot = store.storage().create_snapshot().unwrap();
    let mut copy = Store::new();
    copy.run(put("kept", "1"));
    for _ in 0..20 {
        overwrite(&mut store, 300);
    }
    let error =
        copy.storage().save_snapshot(Snapshot { meta: snapshot.meta, data: snapshot.data }).unwrap_err();
    assert!(error.to_string().contains("was ended"), "{error}");
    assert_eq!(copy.fs.read_file(Path::new(TREE_DIR).join("tree.redb.new")), None);
    assert_eq!(copy.storage().get(b"kept").unwrap().unwrap().value, "1");

    // One that was not held for so long arrives.
    let whole = store.storage().create_snapshot().unwrap();
    assert!(meta.index < whole.meta.index);
    let mut bytes = Vec::new();
    whole.data.into_reader().read_to_end(&mut bytes).unwrap();
    copy.storage()
        .save_snapshot(Snapshot { meta: whole.meta, data: SnapshotData::Bytes(bytes.into()) })
        .unwrap();
    assert_eq!(copy.storage().hash().unwrap(), store.storage().hash().unwrap());
}

/// A batch in memory that a view stands on goes into the tree, and the view with it.
#[test]
fn views_keep_no_memory_of_what_is_in_the_tree() {
    let mut store = store(StorageConfig { checkpoint_bytes: 20_000, ..common::config() });
    let mut views = Vec::new();
    for round in 0..30 {
        store.run_all((0..40).map(|number| put(&format!("k{number}"), &round.to_string())));
        // More batches of memory, all together, than views may keep.
        views.push(store.storage().view().unwrap());
        store.storage().checkpoint().unwrap();
    }
    for (round, view) in views.iter().enumerate() {
        assert_eq!(view.get(b"k7").unwrap().unwrap().value, round.to_string());
    }
}

#[test]
fn memory_that_views_copied_while_a_checkpoint_ran_is_bounded() {
    let mut store = store(StorageConfig { checkpoint_bytes: 20_000, ..common::config() });
    store.run(put("a", "0"));
    let fill: Vec<_> = (0..100).map(|number| store.entry(put(&format!("b{number}"), "z"))).collect();
    let entries: Vec<_> = (1..=20).map(|number| store.entry(put("a", &number.to_string()))).collect();
    store.save(&fill);
    store.save(&entries);
    let (fs, storage) = (store.fs.clone(), store.storage());
    std::thread::scope(|scope| {
        let hold = fs.hold([CallKind::Sync]);
        let checkpoint = scope.spawn(|| storage.checkpoint().unwrap());
        hold.wait_for(1);
        // On top of what the checkpoint has.
        storage.apply(&fill).unwrap();
        let views: Vec<_> = entries
            .iter()
            .map(|entry| {
                storage.apply(std::slice::from_ref(entry)).unwrap();
                storage.view().unwrap()
            })
            .collect();
        let expired = views.iter().take_while(|view| view.get(b"a").is_err()).count();
        assert!((1..views.len() - 8).contains(&expired), "{expired} views were ended");
        for view in &views[..expired] {
            assert_expired(view.get(b"a"), view.revision(), 8 * 20_000);
        }
        for (number, view) in (1..).zip(&views).skip(expired) {
            assert_eq!(view.get(b"a").unwrap().unwrap().value, number.to_string());
        }
        drop(hold);
        checkpoint.join().unwrap();
        assert_eq!(views[19].get(b"a").unwrap().unwrap().value, "20");
    });
}

#[test]
fn closing_ends_all_views_and_gives_the_files_free() {
    let mut store = Store::new();
    store.run(put("a", "1"));
    let view = store.storage().view().unwrap();
    let mut snapshot = store.storage().create_snapshot().unwrap().data.into_reader();
    store.restart(true).unwrap();
    assert!(matches!(view.get(b"a"), Err(StorageError::Closed)));
    assert!(snapshot.read(&mut [0; 10]).unwrap_err().to_string().contains("closed"));
    // A crash, too.
    let view = store.storage().view().unwrap();
    store.restart(false).unwrap();
    assert!(matches!(view.get(b"a"), Err(StorageError::Closed)));
    assert_eq!(store.storage().get(b"a").unwrap().unwrap().value, "1");
}

/// The range in pieces, put together.
fn pieces(view: StorageView, request: &Range, bytes_max: usize) -> Result<RangeOutcome, StorageError> {
    let mut chunks = view.into_chunks(request.clone())?;
    let mut kvs = Vec::new();
    loop {
        let chunk = chunks.next_chunk(bytes_max)?.expect("the end comes in the last piece");
        let bytes: usize = chunk.kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
        assert!(bytes <= bytes_max || chunk.kvs.len() == 1, "{bytes} bytes");
        kvs.extend(chunk.kvs);
        if let Some(RangeEnd { count, more }) = chunk.end {
            assert_eq!(chunks.next_chunk(bytes_max)?, None);
            return Ok(RangeOutcome { kvs, more, count });
        }
        assert!(!kvs.is_empty(), "a piece without a key is the last one");
    }
}

#[test]
fn the_pieces_of_a_range_are_the_whole_range() {
    for_each_seed(0..40, 10, |_, rng| {
        let mut store = Store::new();
        let (mut revision, mut in_order) = (1, 0);
        for _ in 0..30 {
            let mut generate = Generate { rng, revision, auth_revision: 1 };
            let command = match generate.rng.below(3) {
                0 => CommandKind::DeleteRange(generate.delete()),
                _ => {
                    let key = *generate.rng.pick(&["a", "ab", "b", "c", "d"]);
                    put(key, "value")
                }
            };
            revision = store.run(command).revision;
            let request = Generate { rng, revision, auth_revision: 1 }.range();
            let bytes_max = rng.index(0..20);
            let view = store.storage().view().unwrap();
            match (view.range(&request), pieces(store.storage().view().unwrap(), &request, bytes_max)) {
                (Ok(whole), Ok(found)) => {
                    assert_eq!(found, whole.outcome, "{request:?}");
                    in_order += 1;
                }
                (Ok(_), Err(error)) => {
                    let by_key = request.sort_target == SortTarget::Key as i32;
                    assert!(
                        !by_key || request.sort_order == SortOrder::Descend as i32,
                        "{request:?}: {error}"
                    );
                }
                (Err(error), Err(same)) => assert_eq!(error.to_string(), same.to_string()),
                (Err(error), Ok(_)) => panic!("{error}"),
            }
        }
        assert!(5 < in_order);
    });
}

/// RangeStream: compaction passes the revision that is read, and keys change; the rest comes as if nothing had happened.
#[test]
fn pieces_that_come_late_are_of_the_same_revision() {
    let mut store = Store::new();
    overwrite(&mut store, 50);
    let whole = store.storage().range(&all()).unwrap().outcome;
    let mut chunks = store.storage().view().unwrap().into_chunks(all()).unwrap();
    let mut kvs = Vec::new();
    while let Some(chunk) = chunks.next_chunk(5_000).unwrap() {
        kvs.extend(chunk.kvs);
        overwrite(&mut store, 50);
        store.run(put(&format!("k0049/{}", kvs.len()), "new"));
    }
    assert_eq!(kvs, whole.kvs);
    assert!(chunks.view().revision() < store.storage().compact_revision());
}

#[test]
fn pieces_stop_with_the_error_of_the_view() {
    let mut store = store(limited(1 << 20));
    overwrite(&mut store, 300);
    let mut chunks = store.storage().view().unwrap().into_chunks(all()).unwrap();
    assert_eq!(chunks.next_chunk(10_000).unwrap().unwrap().kvs.len(), 9);
    for _ in 0..20 {
        overwrite(&mut store, 300);
    }
    assert_expired(chunks.next_chunk(10_000), chunks.view().revision(), 1 << 20);
    assert_expired(chunks.next_chunk(10_000), chunks.view().revision(), 1 << 20);
}
