//! The file that holds an application's newest snapshot.
//!
//! | offset | size | meaning (integers little endian) |
//! | --- | --- | --- |
//! | 0 | 8 | `HMYSTATE` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | length of the head |
//! | 16 | 4 | crc32 of the head |
//! | 20 | head | protobuf: index, term, members |
//! | … | content | what the application wrote |
//! | end - 4 | 4 | crc32 of the content |

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harmony_types::fs::{File, OpenMode};
use harmony_types::{FileSystem, Snapshot, SnapshotData, SnapshotMeta, StorageError};
use prost::Message as _;

use crate::transport::wire::{WireSnapshot, snapshot_from_wire, snapshot_to_wire};

const MAGIC: &[u8; 8] = b"HMYSTATE";
const VERSION: u32 = 1;
const FIXED_BYTES: u64 = 20;
const CHECKSUM_BYTES: u64 = 4;
const CHUNK_BYTES: usize = 256 << 10;

/// The file and its directory.
pub(super) struct StateFile {
    files: Arc<dyn FileSystem>,
    dir: PathBuf,
    path: PathBuf,
}

/// A snapshot that is written and durable, but not the newest yet.
pub(super) struct Arrived(PathBuf);

/// The parts of a file that was checked.
struct Parts {
    file: Arc<dyn File>,
    meta: SnapshotMeta,
    content: std::ops::Range<u64>,
}

impl StateFile {
    pub(super) fn open(files: Arc<dyn FileSystem>, dir: PathBuf) -> Result<Self, StorageError> {
        files.create_dir_all(&dir).map_err(StorageError::io("create", &dir))?;
        let path = dir.join("state");
        Ok(Self { files, dir, path })
    }

    /// What the file stands for; `None` when there is none yet. The content is checked, too.
    pub(super) fn read_meta(&self) -> Result<Option<SnapshotMeta>, StorageError> {
        let exists = self.files.exists(&self.path).map_err(StorageError::io("look for", &self.path))?;
        if exists { Ok(Some(self.read(&self.path)?.meta)) } else { Ok(None) }
    }

    /// The content.
    pub(super) fn read_data(&self) -> Result<SnapshotData, StorageError> {
        Ok(self.read(&self.path)?.into_data())
    }

    /// Replaces the file. Durable on return; a crash leaves the old one or the new one.
    pub(super) fn write(&self, snapshot: Snapshot) -> Result<(), StorageError> {
        let arrived = self.write_beside(snapshot)?;
        self.replace(arrived)
    }

    /// Writes a snapshot without replacing the newest one.
    pub(super) fn write_beside(&self, snapshot: Snapshot) -> Result<Arrived, StorageError> {
        let path = self.dir.join("state.new");
        self.write_to(&path, snapshot).map_err(StorageError::io("write", &path))?;
        Ok(Arrived(path))
    }

    /// The content of a snapshot that is not the newest yet.
    pub(super) fn read_beside(&self, arrived: &Arrived) -> Result<SnapshotData, StorageError> {
        Ok(self.read(&arrived.0)?.into_data())
    }

    /// Makes a snapshot the newest one.
    pub(super) fn replace(&self, arrived: Arrived) -> Result<(), StorageError> {
        self.files.rename(&arrived.0, &self.path).map_err(StorageError::io("rename", &arrived.0))?;
        self.files.sync_dir(&self.dir).map_err(StorageError::io("sync", &self.dir))
    }

    fn write_to(&self, path: &Path, snapshot: Snapshot) -> io::Result<()> {
        let head = snapshot_to_wire(&snapshot.meta).encode_to_vec();
        let head_bytes = u32::try_from(head.len()).map_err(io::Error::other)?;
        let mut start = Vec::new();
        start.extend_from_slice(MAGIC);
        start.extend_from_slice(&VERSION.to_le_bytes());
        start.extend_from_slice(&head_bytes.to_le_bytes());
        start.extend_from_slice(&crc32fast::hash(&head).to_le_bytes());
        start.extend_from_slice(&head);
        let file = self.files.open(path, OpenMode::Create)?;
        // What a crash left behind under this name goes first.
        file.set_len(0)?;
        file.write_at(&start, 0)?;
        let mut offset = start.len() as u64;
        let mut checksum = crc32fast::Hasher::new();
        let mut content = snapshot.data.into_reader();
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        loop {
            chunk.clear();
            content.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
            if chunk.is_empty() {
                break;
            }
            checksum.update(&chunk);
            file.write_at(&chunk, offset)?;
            offset += chunk.len() as u64;
        }
        file.write_at(&checksum.finalize().to_le_bytes(), offset)?;
        file.sync_all()
    }

    /// Opens a file and checks all of it.
    fn read(&self, path: &Path) -> Result<Parts, StorageError> {
        let place = || path.display().to_string();
        let corrupt =
            |reason: &str| StorageError::CorruptRecord { place: place(), reason: reason.to_owned() };
        let damaged = |expected, found| StorageError::CrcMismatch { place: place(), expected, found };
        let failed = |source| StorageError::Io { action: "read", path: path.to_owned(), source };
        let file = self.files.open(path, OpenMode::Read).map_err(failed)?;
        let bytes = file.len().map_err(failed)?;
        let mut reader = Reader { file: Arc::clone(&file), range: 0..bytes };
        let mut fixed = [0; 20];
        if bytes < FIXED_BYTES + CHECKSUM_BYTES {
            return Err(corrupt("the file is cut short"));
        }
        reader.read_exact(&mut fixed).map_err(failed)?;
        let number = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        if &fixed[..8] != MAGIC {
            return Err(corrupt("this is no state file"));
        }
        if number(8) != VERSION {
            return Err(StorageError::UnsupportedVersion {
                place: place(),
                found: number(8),
                supported: VERSION,
            });
        }
        let content = FIXED_BYTES + u64::from(number(12))..bytes - CHECKSUM_BYTES;
        if content.end < content.start {
            return Err(corrupt("the file is cut short"));
        }
        let mut head = vec![0; number(12) as usize];
        reader.read_exact(&mut head).map_err(failed)?;
        let expected = crc32fast::hash(&head);
        if expected != number(16) {
            return Err(damaged(expected, number(16)));
        }
        let wire = WireSnapshot::decode(head.as_slice()).map_err(|error| corrupt(&error.to_string()))?;
        let meta = snapshot_from_wire(wire).map_err(|reason| corrupt(&reason))?;

        let mut checksum = crc32fast::Hasher::new();
        let mut reader = Reader { file: Arc::clone(&file), range: content.clone() };
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match reader.read(&mut chunk).map_err(failed)? {
                0 => break,
                read => checksum.update(&chunk[..read]),
            }
        }
        let mut found = [0; 4];
        Reader { file: Arc::clone(&file), range: content.end..bytes }
            .read_exact(&mut found)
            .map_err(failed)?;
        let (expected, found) = (checksum.finalize(), u32::from_le_bytes(found));
        if expected != found {
            return Err(damaged(expected, found));
        }
        Ok(Parts { file, meta, content })
    }
}

impl Parts {
    fn into_data(self) -> SnapshotData {
        if self.content.is_empty() {
            return SnapshotData::Empty;
        }
        let reader = Reader { file: self.file, range: self.content };
        SnapshotData::Stream(Box::new(io::BufReader::with_capacity(CHUNK_BYTES, reader)))
    }
}

/// A part of a file, front to back.
struct Reader {
    file: Arc<dyn File>,
    range: std::ops::Range<u64>,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let read = self.file.read_at(&mut buffer[..wanted], self.range.start)?;
        self.range.start += read as u64;
        Ok(read)
    }
}
