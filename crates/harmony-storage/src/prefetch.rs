//! What commands will ask the tree for, read before anybody has to wait for it: apply holds the lock of the memory, for
//! which readers wait, and a look into the tree takes longer than all the rest of a put.
//!
//! It changes no outcome: it counts only above the same tree, and only for keys that were not written in memory since.

use std::collections::HashMap;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use harmony_types::CommandKind;
use harmony_types::txn::{Compare, Txn, TxnOpKind};

use crate::memory::Memory;
use crate::tree::record::VersionBuf;
use crate::view::View;

/// Keys that are worth a thread more.
const KEYS_PER_THREAD: usize = 2_048;

/// Threads that read at most: more would take the processors from everybody else.
const THREADS_MAX: usize = 4;

/// What a tree holds of some keys.
pub(crate) struct Prefetched {
    tree: Arc<View>,
    newest: HashMap<Bytes, Option<VersionBuf>>,
}

impl Prefetched {
    /// Reads what `commands` will look for and memory does not hold.
    pub(crate) fn read<'a>(memory: &Memory, commands: impl Iterator<Item = &'a CommandKind>) -> Self {
        let mut keys = keys_of(commands);
        let tree = memory.below(&mut keys);
        Self { newest: read_all(&tree, in_order(keys)), tree }
    }

    /// Reads what `commands` will look for in `tree`, whatever memory holds, by this thread alone and from `twin`, which holds
    /// the same.
    pub(crate) fn of_tree<'a>(
        tree: &Arc<View>,
        twin: &View,
        commands: impl Iterator<Item = &'a CommandKind>,
    ) -> Self {
        let keys = in_order(keys_of(commands));
        let found = read_some(twin, &keys);
        Self { newest: found_of(keys, found), tree: Arc::clone(tree) }
    }

    /// Whether it is what this tree holds.
    pub(crate) fn is_of(&self, tree: &Arc<View>) -> bool {
        Arc::ptr_eq(&self.tree, tree)
    }

    /// The newest version of a key in the tree, `Some(None)` when it has none; `None` when it was not read.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Option<&VersionBuf>> {
        self.newest.get(key).map(Option::as_ref)
    }
}

/// The keys that commands will probably look at.
fn keys_of<'a>(commands: impl Iterator<Item = &'a CommandKind>) -> Vec<Bytes> {
    let mut keys = Vec::new();
    for command in commands {
        match command {
            CommandKind::Put(put) => keys.push(put.key.clone()),
            CommandKind::Txn(txn) => keys.extend(keys_of_txn(txn)),
            _ => {}
        }
    }
    keys
}

/// In key order, neighbours are read from one page.
fn in_order(mut keys: Vec<Bytes>) -> Vec<Bytes> {
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The single keys that a transaction will probably look at. Those of transactions within are left to apply.
fn keys_of_txn(txn: &Txn) -> impl Iterator<Item = Bytes> {
    let compared = txn.compare.iter().filter(|compare| compare.range().is_single());
    let written = txn.success.iter().chain(&txn.failure).filter_map(|op| match &op.kind {
        Some(TxnOpKind::Put(put)) => Some(put.key.clone()),
        _ => None,
    });
    compared.map(|Compare { key, .. }| key.clone()).chain(written)
}

/// What a tree holds of these keys. One that cannot be read is none: if its command gets as far as that, apply meets the same
/// error.
fn read_some(tree: &View, keys: &[Bytes]) -> Vec<Option<Option<VersionBuf>>> {
    keys.iter().map(|key| tree.version(key).ok()).collect()
}

fn found_of(keys: Vec<Bytes>, found: Vec<Option<Option<VersionBuf>>>) -> HashMap<Bytes, Option<VersionBuf>> {
    keys.into_iter().zip(found).filter_map(|(key, found)| Some((key, found?))).collect()
}

/// As [`read_some`], by several threads when it is worth it.
fn read_all(tree: &View, keys: Vec<Bytes>) -> HashMap<Bytes, Option<VersionBuf>> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX);
    let share = keys.len().div_ceil((keys.len() / KEYS_PER_THREAD).clamp(1, cores)).max(1);
    let found: Vec<_> = thread::scope(|scope| {
        let mut shares = keys.chunks(share);
        let own = shares.next().unwrap_or_default();
        let spawn = |keys| {
            let thread = thread::Builder::new().name("harmony-prefetch".to_owned());
            (keys, thread.spawn_scoped(scope, move || read_some(tree, keys)))
        };
        let others: Vec<_> = shares.map(spawn).collect();
        let mut found = read_some(tree, own);
        for (keys, other) in others {
            found.extend(match other {
                Ok(other) => other.join().unwrap_or_else(|panic| resume_unwind(panic)),
                // The system has no more threads.
                Err(_) => read_some(tree, keys),
            });
        }
        found
    });
    found_of(keys, found)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use harmony_types::fake::fs::MemoryFileSystem;
    use harmony_types::txn::{DeleteRange, Put};
    use harmony_types::{Command, Entry, EntryType, LogIndex, Storage as _, Term};

    use super::*;
    use crate::unified::UnifiedStorage;

    fn put(key: &str, value: &str) -> CommandKind {
        let put = Put { key: key.to_owned().into(), value: value.to_owned().into(), ..Put::default() };
        CommandKind::Put(put)
    }

    fn key_of(command: &CommandKind) -> Bytes {
        let CommandKind::Put(put) = command else { panic!("{command:?}") };
        put.key.clone()
    }

    fn open() -> UnifiedStorage {
        let fs = Arc::new(MemoryFileSystem::new());
        let config = crate::StorageConfig { tree_cache_bytes: 1 << 20, ..crate::StorageConfig::default() };
        UnifiedStorage::open(fs, Path::new("/wal"), Path::new("/tree"), config).unwrap()
    }

    fn run(storage: &UnifiedStorage, command: CommandKind) {
        let index = storage.applied().index.next();
        let data = Command::from(command).encode_to_bytes();
        let entry = Entry { term: Term(1), index, entry_type: EntryType::Normal, data };
        storage.save(None, std::slice::from_ref(&entry)).unwrap();
        storage.apply(&[entry]).unwrap();
    }

    /// What an apply with `prefetched` finds before its first write of `key`.
    fn before(storage: &UnifiedStorage, prefetched: Prefetched, key: &[u8]) -> Option<Bytes> {
        let found = storage.memory.change(|batch| {
            batch.take_prefetched(prefetched);
            batch.before(key)
        });
        found.unwrap().map(|version| version.value)
    }

    #[test]
    fn what_was_written_since_counts_more() {
        type Move = fn(&UnifiedStorage);
        let moves: [(&str, Move); 3] = [
            ("nothing", |_| {}),
            ("freeze", |storage| drop(storage.fixed_view().unwrap())),
            ("checkpoint", |storage| assert_eq!(storage.checkpoint().unwrap(), LogIndex(3))),
        ];
        for (name, move_writes) in moves {
            let storage = open();
            run(&storage, put("old", "1"));
            storage.checkpoint().unwrap();
            let read = || Prefetched::read(&storage.memory, [put("old", ""), put("new", "")].iter());
            let stale = [read(), read()];
            run(&storage, put("old", "2"));
            run(&storage, put("new", "2"));
            move_writes(&storage);
            for (prefetched, key) in stale.into_iter().zip([b"old", b"new"]) {
                assert_eq!(before(&storage, prefetched, key).as_deref(), Some(&b"2"[..]), "{name}");
            }
        }
    }

    #[test]
    fn many_keys_are_read_by_several_threads() {
        let storage = open();
        let keys = 3 * KEYS_PER_THREAD + 5;
        let command = |number: usize| put(&format!("{:05}", (number * 7_919) % keys), &number.to_string());
        (0..keys).for_each(|number| run(&storage, command(number)));
        let delete = DeleteRange { key: key_of(&command(1)), ..DeleteRange::default() };
        run(&storage, CommandKind::DeleteRange(delete));
        storage.checkpoint().unwrap();
        let commands: Vec<_> = (0..keys).map(command).chain([put("none", "")]).collect();
        let prefetched = Prefetched::read(&storage.memory, commands.iter());
        for (number, command) in commands.iter().enumerate() {
            let found = prefetched.get(&key_of(command)).expect("it was read");
            match number {
                1 => assert!(!found.unwrap().live),
                _ if number == keys => assert_eq!(found, None),
                _ => assert_eq!(found.unwrap().value, number.to_string()),
            }
        }
    }
}
