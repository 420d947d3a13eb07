//! A log's directory as a map of files, in memory or on the real disk, to be damaged and opened.

#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of the functions that clippy exempts")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harmony_types::config::WalConfig;
use harmony_types::fake::fs::MemoryFileSystem;
use harmony_types::{FileSystem, LogIndex, OpenMode, limits};
use harmony_wal::{FileWal, WalError, verify};

use crate::failing::FailingFileSystem;
use crate::model::Model;

/// Content by file name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

pub(crate) fn config() -> WalConfig {
    WalConfig { segment_bytes: limits::SEGMENT_BYTES_MIN, cache_bytes: 0, ..WalConfig::default() }
}

/// A directory on some file system.
pub(crate) struct Place {
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) dir: PathBuf,
    real: Option<tempfile::TempDir>,
}

impl Place {
    pub(crate) fn fake() -> Self {
        let dir = PathBuf::from("/wal");
        Self { fs: Arc::new(MemoryFileSystem::with_dir(&dir)), dir, real: None }
    }

    /// On the real disk, without waiting for it: nobody cuts its power.
    pub(crate) fn real() -> Self {
        let real = tempfile::tempdir().unwrap();
        let fs = FailingFileSystem::real();
        Self { fs: Arc::new(fs), dir: real.path().to_owned(), real: Some(real) }
    }

    /// All files but the lock, which opening may create.
    pub(crate) fn files(&self) -> Files {
        let names = self.fs.list_dir(&self.dir).unwrap();
        let files = names.iter().filter(|name| *name != Path::new("LOCK")).map(|name| {
            let file = self.fs.open(&self.dir.join(name), OpenMode::Read).unwrap();
            let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
            assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
            (name.to_str().unwrap().to_owned(), bytes)
        });
        files.collect()
    }

    /// Makes the directory hold these files and no others.
    pub(crate) fn load(&mut self, files: &Files) {
        if self.real.is_none() {
            *self = Self::fake();
        }
        for name in self.fs.list_dir(&self.dir).unwrap() {
            if !files.contains_key(name.to_str().unwrap()) {
                self.fs.remove_file(&self.dir.join(name)).unwrap();
            }
        }
        for (name, bytes) in files {
            let file = self.fs.open(&self.dir.join(name), OpenMode::Create).unwrap();
            file.set_len(bytes.len() as u64).unwrap();
            file.write_at(bytes, 0).unwrap();
        }
    }

    pub(crate) fn open(&self) -> Result<FileWal, WalError> {
        FileWal::open(Arc::clone(&self.fs), &self.dir, config())
    }

    /// Opens what lies here. Either the log is whole, and a second look finds the same; or it is refused with place and
    /// reason, and nothing was changed.
    pub(crate) fn check(&self, model: &Model, what: &str) -> Outcome {
        let before = self.files();
        let looked =
            verify(&*self.fs, &self.dir).map(|report| (report.bounds, report.hard_state, report.torn));
        assert_eq!(self.files(), before, "{what}: a look changed something");
        match self.open() {
            Ok(wal) => {
                let mut model = model.clone();
                model.recovered(&wal, what);
                let torn = wal.recovery().torn.clone();
                let looked = looked.unwrap_or_else(|error| panic!("{what}: refused only to look: {error}"));
                let now = model.now();
                assert_eq!(
                    (looked.0.last, looked.1, &looked.2),
                    (now.last(), now.hard_state, &torn),
                    "{what}"
                );
                drop(wal);
                let wal = self.open().unwrap_or_else(|error| panic!("{what}: a second open: {error}"));
                assert_eq!(wal.recovery().torn, None, "{what}: cut twice");
                model.is_now(&wal, what);
                Outcome::Recovered { torn: torn.is_some(), last: now.last() }
            }
            Err(error) => {
                assert_eq!(self.files(), before, "{what}: changed by a refusal: {error}");
                let looked = looked.expect_err("verify refuses what open refuses");
                assert_eq!(error.to_string(), looked.to_string(), "{what}");
                Outcome::Refused(Refusal::of(&error, &self.dir, &before))
            }
        }
    }
}

/// What became of a damaged log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Recovered { torn: bool, last: LogIndex },
    Refused(Refusal),
}

impl Outcome {
    pub(crate) fn refused(self, what: &str) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal,
            other => panic!("{what}: {other:?}"),
        }
    }
}

/// Where the log says that it is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Name of the segment, or the sequence number of one that is missing.
    pub(crate) segment: Result<String, u64>,
    pub(crate) offset: u64,
    /// Last good index before.
    pub(crate) index: LogIndex,
    pub(crate) message: String,
}

impl Refusal {
    /// Checks that the error names a place in the log, and prints it.
    fn of(error: &WalError, dir: &Path, files: &Files) -> Self {
        let message = error.to_string();
        let names = |text: &str| assert!(message.contains(text), "`{message}` does not say `{text}`");
        match error {
            WalError::CrcMismatch { path, offset, index, .. }
            | WalError::CorruptRecord { path, offset, index, .. } => {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                assert!(*offset < files[&name].len() as u64 && offset.is_multiple_of(8), "{message}");
                names(&path.display().to_string());
                names(&format!("at byte {offset}"));
                names(&format!("behind index {index}"));
                if let WalError::CorruptRecord { reason, .. } = error {
                    assert!(!reason.is_empty());
                    names(reason);
                }
                Self { segment: Ok(name), offset: *offset, index: *index, message }
            }
            WalError::UnsupportedVersion { path, found, .. } => {
                names(&path.display().to_string());
                names(&format!("version {found}"));
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                Self { segment: Ok(name), offset: 0, index: LogIndex::ZERO, message }
            }
            WalError::MissingSegment { dir: named, sequence, index } => {
                assert_eq!(named, dir);
                names(&dir.display().to_string());
                names(&format!("segment {sequence} is missing"));
                names(&format!("behind index {index}"));
                Self { segment: Err(*sequence), offset: 0, index: *index, message }
            }
            other => panic!("no refusal of damage: {other}"),
        }
    }
}
