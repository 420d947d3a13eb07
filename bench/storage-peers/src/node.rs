//! harmony-storage as a node drives it: entries into the log, then applied in batches; a thread that makes checkpoints
//! beside that when so much was applied, or so much time passed, and releases the log behind them.
//!
//! Two things are left out. Nobody syncs the log but the checkpoints, since the peer's commits are not synced either. And
//! there is no Raft in front: an entry is committed with its hard state in the same call.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use harmony_storage::{StorageConfig, UnifiedStorage};
use harmony_types::txn::Put;
use harmony_types::{
    Command, CommandKind, Entry, EntryType, FileSystem, HardState, LogIndex, Storage, Term, limits,
};
use harmony_wal::OsFileSystem;

use crate::Result;
use crate::load::{self, Values};

/// Puts in one apply.
pub const BATCH: u64 = 64;

/// A storage, and the hand that writes to it.
pub struct Node {
    pub storage: Arc<UnifiedStorage>,
    pub values: Values,
    kept: Arc<Kept>,
    dir: PathBuf,
    last: u64,
    /// Bytes of entries after which it asks for a checkpoint.
    ask_bytes: u64,
    unasked: u64,
    checkpoints: Option<Checkpoints>,
}

/// The newest part of the log, which a node keeps for members that are behind: pieces of some bytes, each with its last
/// index.
#[derive(Default)]
struct Kept(Mutex<VecDeque<(LogIndex, u64)>>);

/// Bytes of a piece of it, about.
const PIECE_BYTES: u64 = 1 << 20;

impl Kept {
    /// Takes in entries that were written.
    fn grow(&self, entries: &[Entry]) {
        let Some(last) = entries.last() else { return };
        let bytes: u64 = entries.iter().map(|entry| entry.data.len() as u64 + ENTRY_OVERHEAD_BYTES).sum();
        let mut pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match pieces.back_mut() {
            Some((end, size)) if *size + bytes <= PIECE_BYTES => (*end, *size) = (last.index, *size + bytes),
            _ => pieces.push_back((last.index, bytes)),
        }
    }

    /// The last entry behind which there are as many bytes as a node keeps.
    fn limit(&self) -> LogIndex {
        let mut pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut limit = LogIndex(0);
        let mut bytes: u64 = pieces.iter().map(|(_, bytes)| bytes).sum();
        while limits::LOG_KEEP_BYTES < bytes
            && let Some((end, piece)) = pieces.pop_front()
        {
            (limit, bytes) = (end, bytes - piece);
        }
        limit
    }
}

/// What an entry takes in the log beside its data, as a node counts it.
const ENTRY_OVERHEAD_BYTES: u64 = 40;

/// How long the two halves of a write took.
#[derive(Clone, Copy)]
pub struct Took {
    pub save: Duration,
    pub apply: Duration,
}

impl Node {
    /// Opens or makes the storage in `dir`. Nobody makes checkpoints yet.
    pub fn open(dir: &Path, config: StorageConfig) -> Result<Self> {
        Self::open_on(OsFileSystem::new(), dir, config)
    }

    /// As [`Node::open`], on these files.
    pub fn open_on(fs: Arc<dyn FileSystem>, dir: &Path, config: StorageConfig) -> Result<Self> {
        let ask_bytes = config.checkpoint_bytes / 4;
        let storage = UnifiedStorage::open(fs, &wal_dir(dir), &tree_dir(dir), config)?;
        Ok(Self {
            last: storage.bounds().last.0,
            storage: Arc::new(storage),
            kept: Arc::default(),
            values: Values::new(),
            dir: dir.to_owned(),
            ask_bytes,
            unasked: 0,
            checkpoints: None,
        })
    }

    /// From now on, a thread makes checkpoints.
    pub fn start_checkpoints(&mut self) {
        let (storage, kept) = (Arc::clone(&self.storage), Arc::clone(&self.kept));
        self.checkpoints.get_or_insert_with(|| Checkpoints::start(storage, kept));
    }

    /// Ends that thread and makes a last checkpoint, so that all that was written is in the tree. Returns how many there
    /// were.
    pub fn settle(&mut self) -> Result<u64> {
        let made = self.checkpoints.take().map_or(Ok(0), Checkpoints::stop)?;
        checkpoint(&self.storage, &self.kept)?;
        Ok(made + 1)
    }

    /// The next entries of the log: puts of these keys, each with the value of a write.
    pub fn puts(&mut self, writes: impl IntoIterator<Item = (u64, u32)>) -> Vec<Entry> {
        let put = |(number, generation)| Put {
            key: load::key(number),
            value: self.values.of(number, generation),
            ..Put::default()
        };
        let mut last = self.last;
        let entries = writes.into_iter().map(|write| {
            last += 1;
            entry(last, CommandKind::Put(put(write)))
        });
        let entries = entries.collect();
        self.last = last;
        entries
    }

    /// The next entry of the log.
    pub fn command(&mut self, kind: CommandKind) -> Entry {
        self.last += 1;
        entry(self.last, kind)
    }

    /// Saves and applies.
    pub fn write(&mut self, entries: &[Entry]) -> Result<Took> {
        let start = Instant::now();
        self.save(entries)?;
        let saved = Instant::now();
        self.storage.apply(entries)?;
        let took = Took { save: saved - start, apply: saved.elapsed() };
        self.unasked += entries.iter().map(|entry| entry.data.len() as u64).sum::<u64>();
        if self.ask_bytes <= self.unasked
            && let Some(checkpoints) = &self.checkpoints
        {
            self.unasked = 0;
            checkpoints.ask();
        }
        Ok(took)
    }

    /// Into the log, as committed.
    pub fn save(&self, entries: &[Entry]) -> Result<()> {
        let commit = entries.last().map_or(LogIndex(0), |entry| entry.index);
        self.storage.save(Some(&HardState { term: Term(1), vote: None, commit }), entries)?;
        self.kept.grow(entries);
        Ok(())
    }

    /// Writes these keys in order, and makes a checkpoint.
    pub fn fill(&mut self, keys: Range<u64>) -> Result<()> {
        self.start_checkpoints();
        for first in keys.clone().step_by(1024) {
            let entries = self.puts((first..keys.end.min(first + 1024)).map(|number| (number, 0)));
            self.write(&entries)?;
        }
        self.settle().map(drop)
    }

    /// Writes every key of `0..keys` once more, in no order.
    pub fn overwrite(&mut self, keys: u64, generation: u32) -> Result<()> {
        for first in (0..keys).step_by(BATCH as usize) {
            let turns = first..keys.min(first + BATCH);
            let entries = self.puts(turns.map(|turn| (load::shuffled(turn, keys), generation)));
            self.write(&entries)?;
        }
        Ok(())
    }

    /// Bytes on disk of the tree and of the log.
    pub fn disk_bytes(&self) -> Result<(u64, u64)> {
        let of = |dir: PathBuf| crate::clocks::disk_bytes(&dir);
        Ok((of(tree_dir(&self.dir))?, of(wal_dir(&self.dir))?))
    }
}

pub fn wal_dir(dir: &Path) -> PathBuf {
    dir.join("wal")
}

pub fn tree_dir(dir: &Path) -> PathBuf {
    dir.join("tree")
}

fn entry(index: u64, kind: CommandKind) -> Entry {
    let data = Command::from(kind).encode_to_bytes();
    Entry { term: Term(1), index: LogIndex(index), entry_type: EntryType::Normal, data }
}

/// What a node's checkpoint thread does.
fn checkpoint(storage: &UnifiedStorage, kept: &Kept) -> Result<()> {
    if storage.durable_applied() < storage.applied().index {
        storage.checkpoint()?;
    }
    Ok(storage.release(kept.limit().min(storage.durable_applied()))?)
}

/// The thread that makes checkpoints.
struct Checkpoints {
    ask: SyncSender<()>,
    thread: JoinHandle<Result<u64>>,
}

impl Checkpoints {
    fn start(storage: Arc<UnifiedStorage>, kept: Arc<Kept>) -> Self {
        let (ask, asked) = mpsc::sync_channel(1);
        let interval = Duration::from_millis(limits::CHECKPOINT_INTERVAL_MS);
        let thread = thread::spawn(move || {
            harmony_wal::work_in_background();
            let mut made = 0;
            loop {
                match asked.recv_timeout(interval) {
                    Ok(()) | Err(RecvTimeoutError::Timeout) => checkpoint(&storage, &kept)?,
                    Err(RecvTimeoutError::Disconnected) => return Ok(made),
                }
                made += 1;
            }
        });
        Self { ask, thread }
    }

    fn ask(&self) {
        // When one is asked for already, that is enough.
        let _ = self.ask.try_send(());
    }

    fn stop(self) -> Result<u64> {
        drop(self.ask);
        self.thread.join().map_err(|_| "the checkpoint thread panicked")?
    }
}
