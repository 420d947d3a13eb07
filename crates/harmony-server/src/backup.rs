//! A backup as a file: a snapshot stream, zeros up to a multiple of 512 bytes, and the SHA-256 of all before it. The form
//! in which `etcdctl snapshot save` and `harmony snapshot save` keep what the server sends.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// Length of the hash at the end.
const HASH_BYTES: u64 = 32;

/// What the length of the rest is a multiple of.
const ALIGN_BYTES: u64 = 512;

/// Read at once while the hash is taken.
const READ_BYTES: usize = 1 << 20;

/// Why a file is no backup.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    /// It cannot be read.
    #[error("read {path}: {source}")]
    Io { path: String, source: io::Error },
    /// Its length is not that of a backup.
    #[error("{path} is {bytes} bytes long, which no whole backup is: it was cut short, or is no backup")]
    Length { path: String, bytes: u64 },
    /// Its bytes are not those that were saved.
    #[error("{path} is damaged: its SHA-256 is {found}, {expected} was saved with it; use another backup")]
    Hash { path: String, expected: String, found: String },
}

/// A backup whose hash is right, or was not looked at.
#[derive(Debug)]
pub(crate) struct Backup {
    file: File,
    /// Of the whole file.
    pub(crate) bytes: u64,
    /// The hash that it ends with, as hexadecimal digits.
    pub(crate) hash: String,
}

impl Backup {
    /// Opens a backup, and reads all of it to check its hash unless that is not wanted.
    ///
    /// # Errors
    /// [`BackupError`].
    pub(crate) fn open(path: &Path, check: bool) -> Result<Self, BackupError> {
        let failed = |source| BackupError::Io { path: path.display().to_string(), source };
        let mut file = File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        if bytes < ALIGN_BYTES || bytes % ALIGN_BYTES != HASH_BYTES {
            return Err(BackupError::Length { path: path.display().to_string(), bytes });
        }
        let mut content = (&mut file).take(bytes - HASH_BYTES);
        let found = if check { Some(hash(&mut content).map_err(failed)?) } else { None };
        file.seek(SeekFrom::Start(bytes - HASH_BYTES)).map_err(failed)?;
        let mut saved = [0; HASH_BYTES as usize];
        file.read_exact(&mut saved).map_err(failed)?;
        let expected = hex(&saved);
        if let Some(found) = found.filter(|found| *found != expected) {
            return Err(BackupError::Hash { path: path.display().to_string(), expected, found });
        }
        file.rewind().map_err(failed)?;
        Ok(Self { file, bytes, hash: expected })
    }

    /// The snapshot stream, with the zeros behind it.
    pub(crate) fn into_stream(self) -> Box<dyn Read + Send> {
        Box::new(BufReader::with_capacity(READ_BYTES, self.file.take(self.bytes - HASH_BYTES)))
    }
}

fn hash(content: &mut impl Read) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut piece = vec![0; READ_BYTES];
    loop {
        match content.read(&mut piece)? {
            0 => return Ok(hex(&hasher.finalize())),
            read => hasher.update(&piece[..read]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_backup_when_its_hash_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup");
        let content = [7; 1024];
        let mut file = [&content[..], &Sha256::digest(content)[..]].concat();
        std::fs::write(&path, &file).unwrap();
        let backup = Backup::open(&path, true).unwrap();
        assert_eq!(backup.bytes, 1056);
        let mut read = Vec::new();
        backup.into_stream().read_to_end(&mut read).unwrap();
        assert_eq!(read, content);

        file[100] ^= 1;
        std::fs::write(&path, &file).unwrap();
        let error = Backup::open(&path, true).unwrap_err();
        assert!(matches!(error, BackupError::Hash { .. }), "{error}");
        Backup::open(&path, false).unwrap();
        std::fs::write(&path, &file[..1055]).unwrap();
        assert!(matches!(Backup::open(&path, false).unwrap_err(), BackupError::Length { .. }));
        std::fs::write(&path, &file[1024..]).unwrap();
        assert!(matches!(Backup::open(&path, true).unwrap_err(), BackupError::Length { .. }));
    }
}
