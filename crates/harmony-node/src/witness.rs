//! What members are known to hold: whoever comes back with less has lost it, and must not vote.
//!
//! A member acknowledges an entry once it is on its disk; a leader counts that, and the entry is committed. A member that comes
//! back on an empty data directory, or on an older copy of it, has forgotten such entries, and maybe a vote: it could help to
//! elect a leader that lacks what was committed. It cannot know that by itself. So each leader tells all members from time to
//! time what each of them has acknowledged and is committed, which no later leader takes away from a log; all keep it, on disk
//! as well; and members that greet each other say where their logs end. One that ends before what the other knows of it is
//! refused and told so, before a single vote or acknowledgement of it counts.
//!
//! What a member acknowledged since it was last told of is not known, about a second of it.
//!
//! | offset of the file | size | meaning (integers little endian) |
//! | --- | --- | --- |
//! | 0 | 8 | `HMYPEERS` |
//! | 8 | 4 | crc32 of the rest |
//! | 12 | 16 each | member, index |

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use harmony_types::fs::OpenMode;
use harmony_types::{FileSystem, LogIndex, NodeId, StorageError};

const MAGIC: &[u8; 8] = b"HMYPEERS";
const HEAD_BYTES: usize = 12;
const ROW_BYTES: usize = 16;

/// What members are known to have acknowledged, in memory and in a file.
#[derive(Default)]
pub struct Witness {
    state: Mutex<State>,
    file: Option<WitnessFile>,
}

struct WitnessFile {
    files: Arc<dyn FileSystem>,
    dir: PathBuf,
}

#[derive(Default)]
struct State {
    held: BTreeMap<NodeId, LogIndex>,
    changed: bool,
}

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.lock().held.iter()).finish()
    }
}

impl Witness {
    /// One that forgets when the process ends.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Reads the file `peers` in `dir`, if there is one.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged: removing it costs only this member's part in finding those who forgot.
    pub fn open(files: Arc<dyn FileSystem>, dir: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let dir = dir.into();
        let path = dir.join("peers");
        let mut state = State::default();
        if files.exists(&path).map_err(StorageError::io("look for", &path))? {
            let bytes = read(&*files, &path).map_err(StorageError::io("read", &path))?;
            state.held = decode(&bytes).map_err(|reason| StorageError::CorruptRecord {
                place: path.display().to_string(),
                reason: format!("{reason}; what it holds is learned anew: remove it and start again"),
            })?;
        }
        Ok(Self { state: Mutex::new(state), file: Some(WitnessFile { files, dir }) })
    }

    /// Notes what members acknowledged; a lower index changes nothing.
    pub(crate) fn note(&self, held: &[(NodeId, LogIndex)]) {
        let mut state = self.lock();
        for (id, index) in held {
            let known = state.held.entry(*id).or_default();
            if *known < *index {
                *known = *index;
                state.changed = true;
            }
        }
    }

    /// Forgets members that are gone for good.
    pub(crate) fn retain(&self, stays: impl Fn(NodeId) -> bool) {
        let mut state = self.lock();
        let before = state.held.len();
        state.held.retain(|id, _| stays(*id));
        state.changed |= before != state.held.len();
    }

    /// What a member is known to have acknowledged.
    pub(crate) fn held(&self, id: NodeId) -> LogIndex {
        self.lock().held.get(&id).copied().unwrap_or_default()
    }

    /// The highest committed index that any member is known to have acknowledged.
    #[must_use]
    pub fn highest(&self) -> LogIndex {
        self.lock().held.values().copied().max().unwrap_or_default()
    }

    /// Writes what changed since the last time to the file.
    pub(crate) fn save(&self) -> Result<(), StorageError> {
        let Some(WitnessFile { files, dir }) = &self.file else { return Ok(()) };
        let bytes = {
            let mut state = self.lock();
            if !std::mem::take(&mut state.changed) {
                return Ok(());
            }
            encode(&state.held)
        };
        let (path, new) = (dir.join("peers"), dir.join("peers.new"));
        let written = || -> io::Result<()> {
            let file = files.open(&new, OpenMode::Create)?;
            file.set_len(0)?;
            file.write_at(&bytes, 0)?;
            file.sync_all()?;
            files.rename(&new, &path)?;
            files.sync_dir(dir)
        };
        written().map_err(|source| {
            self.lock().changed = true;
            StorageError::Io { action: "write", path, source }
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(files: &dyn FileSystem, path: &Path) -> io::Result<Vec<u8>> {
    let file = files.open(path, OpenMode::Read)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], filled as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
    }
    Ok(bytes)
}

fn encode(held: &BTreeMap<NodeId, LogIndex>) -> Vec<u8> {
    let rows: Vec<u8> = held
        .iter()
        .flat_map(|(id, index)| [id.get().to_le_bytes(), index.0.to_le_bytes()].concat())
        .collect();
    [MAGIC.as_slice(), &crc32fast::hash(&rows).to_le_bytes(), &rows].concat()
}

fn decode(bytes: &[u8]) -> Result<BTreeMap<NodeId, LogIndex>, String> {
    let (head, rows) = bytes.split_at_checked(HEAD_BYTES).ok_or("the file is cut short")?;
    if &head[..8] != MAGIC {
        return Err("this is no file of peers".to_owned());
    }
    if head[8..] != crc32fast::hash(rows).to_le_bytes() || rows.len() % ROW_BYTES != 0 {
        return Err("the checksum is wrong".to_owned());
    }
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    rows.chunks_exact(ROW_BYTES)
        .map(|row| {
            let id = NodeId::new(number(&row[..8])).ok_or("a member has id 0")?;
            Ok((id, LogIndex(number(&row[8..]))))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use harmony_types::fake::fs::{Crash, MemoryFileSystem};

    use super::*;

    fn id(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    #[test]
    fn what_was_saved_survives_and_never_steps_back() {
        let files = Arc::new(MemoryFileSystem::with_dir("/m"));
        let witness = Witness::open(Arc::clone(&files) as _, "/m").unwrap();
        witness.note(&[(id(1), LogIndex(10)), (id(2), LogIndex(1 << 40))]);
        witness.note(&[(id(1), LogIndex(4)), (id(3), LogIndex(7))]);
        witness.save().unwrap();
        witness.retain(|member| member != id(3));
        witness.note(&[(id(1), LogIndex(11))]);

        let image = Arc::new(files.crash_image(Crash::LoseUnsynced));
        let after = Witness::open(image as _, "/m").unwrap();
        assert_eq!([1, 2, 3, 4].map(|number| after.held(id(number)).0), [10, 1 << 40, 7, 0]);
        witness.save().unwrap();
        let after = Witness::open(Arc::clone(&files) as _, "/m").unwrap();
        assert_eq!([1, 3].map(|number| after.held(id(number)).0), [11, 0]);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let files = Arc::new(MemoryFileSystem::with_dir("/m"));
        let witness = Witness::open(Arc::clone(&files) as _, "/m").unwrap();
        witness.note(&[(id(1), LogIndex(10))]);
        witness.save().unwrap();
        for offset in [0, 9, 14] {
            files.flip("/m/peers", offset, 1).unwrap();
            let error = Witness::open(Arc::clone(&files) as _, "/m").unwrap_err().to_string();
            assert!(error.contains("/m/peers") && error.contains("remove it"), "{error}");
            files.flip("/m/peers", offset, 1).unwrap();
        }
        assert!(Witness::open(files as _, "/m").is_ok());
    }
}
