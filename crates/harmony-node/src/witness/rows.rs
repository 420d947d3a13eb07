//! A file with a number for each member, replaced as a whole.
//!
//! | offset | size | meaning (integers little endian) |
//! | --- | --- | --- |
//! | 0 | 8 | which file it is |
//! | 8 | 4 | crc32 of the rest |
//! | 12 | 16 each | member, number |

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harmony_types::fs::OpenMode;
use harmony_types::{FileSystem, NodeId, StorageError};

const HEAD_BYTES: usize = 12;
const ROW_BYTES: usize = 16;

/// Which file, and what its reader is told when it is damaged.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) magic: &'static [u8; 8],
    pub(super) advice: &'static str,
}

/// See the module.
pub(super) struct RowsFile {
    files: Arc<dyn FileSystem>,
    dir: PathBuf,
    kind: Kind,
}

impl RowsFile {
    pub(super) fn new(files: Arc<dyn FileSystem>, dir: PathBuf, kind: Kind) -> Self {
        Self { files, dir, kind }
    }

    /// What it holds: nothing when it is not there.
    pub(super) fn read(&self) -> Result<BTreeMap<NodeId, u64>, StorageError> {
        let path = self.dir.join(self.kind.name);
        if !self.files.exists(&path).map_err(StorageError::io("look for", &path))? {
            return Ok(BTreeMap::new());
        }
        let bytes = read(&*self.files, &path).map_err(StorageError::io("read", &path))?;
        decode(self.kind.magic, &bytes).map_err(|reason| StorageError::CorruptRecord {
            place: path.display().to_string(),
            reason: format!("{reason}; {}", self.kind.advice),
        })
    }

    /// Puts these in the place of what it holds, durably. The directory is made if it is not there.
    pub(super) fn write(&self, rows: &BTreeMap<NodeId, u64>) -> Result<(), StorageError> {
        let Self { files, dir, kind } = self;
        let bytes = encode(kind.magic, rows);
        let (path, new) = (dir.join(kind.name), dir.join(format!("{}.new", kind.name)));
        let written = || -> io::Result<()> {
            files.create_dir_all(dir)?;
            let file = files.open(&new, OpenMode::Create)?;
            file.set_len(0)?;
            file.write_at(&bytes, 0)?;
            file.sync_all()?;
            files.rename(&new, &path)?;
            files.sync_dir(dir)
        };
        written().map_err(|source| StorageError::Io { action: "write", path, source })
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

fn encode(magic: &[u8; 8], rows: &BTreeMap<NodeId, u64>) -> Vec<u8> {
    let rows: Vec<u8> = rows
        .iter()
        .flat_map(|(id, number)| [id.get().to_le_bytes(), number.to_le_bytes()].concat())
        .collect();
    [magic.as_slice(), &crc32fast::hash(&rows).to_le_bytes(), &rows].concat()
}

fn decode(magic: &[u8; 8], bytes: &[u8]) -> Result<BTreeMap<NodeId, u64>, String> {
    let (head, rows) = bytes.split_at_checked(HEAD_BYTES).ok_or("the file is cut short")?;
    if &head[..8] != magic {
        return Err("it is another kind of file".to_owned());
    }
    if head[8..] != crc32fast::hash(rows).to_le_bytes() || rows.len() % ROW_BYTES != 0 {
        return Err("the checksum is wrong".to_owned());
    }
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    rows.chunks_exact(ROW_BYTES)
        .map(|row| {
            let id = NodeId::new(number(&row[..8])).ok_or("a member has id 0")?;
            Ok((id, number(&row[8..])))
        })
        .collect()
}
