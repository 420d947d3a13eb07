//! An embedded database: open, put, transaction, a read at an old revision, the history as a watch sees it,
//! a snapshot, a crash and reopen.

use std::error::Error;
use std::io::Read as _;

use harmony_storage::{EventsRequest, StorageConfig, UnifiedStorage};
use harmony_types::txn::{Compare, CompareTarget, Put, Range, Txn, TxnOp, TxnOpKind};
use harmony_types::{Command, CommandKind, Entry, EntryType, HardState, Outcome, Storage, Term};
use harmony_wal::OsFileSystem;

/// Logs a command, makes it durable, applies it: what a node does once a quorum has it.
fn run(storage: &UnifiedStorage, kind: CommandKind) -> Result<Outcome, Box<dyn Error>> {
    let index = storage.applied().index.next();
    let data = Command::from(kind).encode_to_bytes();
    let entry = Entry { term: Term(1), index, entry_type: EntryType::Normal, data };
    let hard_state = HardState { term: Term(1), vote: None, commit: index };
    storage.save(Some(&hard_state), std::slice::from_ref(&entry))?;
    storage.sync()?;
    Ok(storage.apply(&[entry])?.remove(0))
}

fn put(key: &'static str, value: &'static str) -> Put {
    Put { key: key.into(), value: value.into(), ..Put::default() }
}

#[expect(clippy::print_stdout, reason = "an example talks")]
fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let open = || {
        let (wal, tree) = (dir.path().join("wal"), dir.path().join("tree"));
        UnifiedStorage::open(OsFileSystem::new(), &wal, &tree, StorageConfig::default())
    };
    let storage = open()?;
    let first = run(&storage, CommandKind::Put(put("greeting", "hello")))?;
    // Write only if nobody wrote since.
    let compare = Compare {
        key: "greeting".into(),
        target: Some(CompareTarget::ModRevision(first.revision)),
        ..Compare::default()
    };
    let success = vec![TxnOp { kind: Some(TxnOpKind::Put(put("greeting", "good day"))) }];
    run(&storage, CommandKind::Txn(Txn { compare: vec![compare], success, failure: vec![] }))?;
    let old = Range { key: "greeting".into(), revision: first.revision, ..Range::default() };
    println!("at revision {}: {:?}", first.revision, storage.range(&old)?.outcome.kvs[0].value);
    let history = EventsRequest { prev_kv: true, ..EventsRequest::default() };
    for event in storage.events(&history)?.events {
        let (kv, before) = (event.kv.unwrap_or_default(), event.prev_kv.map(|kv| kv.value));
        println!("at revision {}: {:?} became {:?}, before {before:?}", kv.mod_revision, kv.key, kv.value);
    }
    let mut bytes = Vec::new();
    storage.create_snapshot()?.data.into_reader().read_to_end(&mut bytes)?;
    println!("a snapshot of {} bytes", bytes.len());
    drop(storage); // As a crash: nothing was checkpointed, the log repeats it.
    println!("after reopening: {:?}", open()?.query(b"greeting")?);
    Ok(())
}
