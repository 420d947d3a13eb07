//! Carries a plan out: first everything that goes is safe elsewhere, then the log changes, one durable step at a time.
//!
//! | step | a crash behind it finds |
//! | --- | --- |
//! | the damaged segment is copied aside | the damaged log |
//! | its good part is written under the name `.new`, and renamed over it | segments behind that continue another one: refused, to the same plan |
//! | the segments behind are moved aside, the last one first | the same, until the last of them is gone: the repaired log |
//! | segments before the kept ones are moved aside | the same |
//!
//! The damaged segment goes first: its new content may carry the only note left that the segments before the log had been
//! released.

use std::path::{Path, PathBuf};

use harmony_types::{File, FileSystem, LogIndex, OpenMode, Term, WalError, WalOffset};

use super::Draft;
use super::prefix::Prefix;
use crate::aside;
use crate::frame::{self, FRAME_BYTES_MIN, Kind, Meta};
use crate::recovery;
use crate::segment::SEAL_BYTES;

/// Bytes copied at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Does it all. Returns the directory with what was cut.
pub(super) fn execute(fs: &dyn FileSystem, dir: &Path, draft: &Draft) -> Result<PathBuf, WalError> {
    let home = make_home(fs, dir)?;
    if let Some(prefix) = draft.prefix.as_ref().filter(|_| draft.rewrite) {
        copy_aside(fs, prefix, &home)?;
        rewrite(fs, dir, prefix, draft.release)?;
    }
    if draft.prefix.is_none() {
        // Nothing stays: without it, the next open begins anew, once the last segment is gone.
        aside::remove_reserve(fs, dir)?;
    }
    for name in draft.behind.iter().rev().chain(&draft.before) {
        let (from, to) = (name.path(dir), name.path(&home));
        fs.rename(&from, &to).map_err(WalError::io("move aside", &from))?;
        fs.sync_dir(&home).map_err(WalError::io("sync", &home))?;
        fs.sync_dir(dir).map_err(WalError::io("sync", dir))?;
    }
    Ok(home)
}

/// Makes the first of `repaired-1`, `repaired-2`, ... that does not exist.
pub(super) fn make_home(fs: &dyn FileSystem, dir: &Path) -> Result<PathBuf, WalError> {
    let mut number = 1u64;
    let home = loop {
        let home = dir.join(format!("repaired-{number}"));
        if !fs.exists(&home).map_err(WalError::io("look for", &home))? {
            break home;
        }
        number += 1;
    };
    fs.create_dir_all(&home).map_err(WalError::io("create", &home))?;
    fs.sync_dir(dir).map_err(WalError::io("sync", dir))?;
    Ok(home)
}

/// Copies the last segment kept, whole and as it is.
fn copy_aside(fs: &dyn FileSystem, prefix: &Prefix, home: &Path) -> Result<(), WalError> {
    let last = prefix.last();
    let to = last.name.path(home);
    let source = recovery::open_read(fs, &last.path)?;
    let target = fs.open(&to, OpenMode::CreateNew).map_err(WalError::io("create", &to))?;
    copy((&*source, &last.path), (&*target, &to), last.file_bytes)?;
    target.set_len(last.file_bytes).map_err(WalError::io("extend", &to))?;
    target.sync_all().map_err(WalError::io("sync", &to))?;
    fs.sync_dir(home).map_err(WalError::io("sync", home))
}

/// Gives the last segment kept a new file: its good part, the note of the oldest segment if there has to be one, zeros.
fn rewrite(fs: &dyn FileSystem, dir: &Path, prefix: &Prefix, release: Option<u32>) -> Result<(), WalError> {
    let last = prefix.last();
    let unfinished = last.name.unfinished_path(dir);
    let source = recovery::open_read(fs, &last.path)?;
    let target = fs.open(&unfinished, OpenMode::Create).map_err(WalError::io("create", &unfinished))?;
    // With room for that note and a seal, even in a file that was cut short.
    let end = u64::from(prefix.end);
    let bytes = last.file_bytes.max(end + (FRAME_BYTES_MIN + SEAL_BYTES) as u64);
    target.reset(bytes).map_err(WalError::io("reserve space for", &unfinished))?;
    copy((&*source, &last.path), (&*target, &unfinished), end)?;
    if let Some(oldest) = release {
        let at = WalOffset::new(last.name.sequence, prefix.end);
        // The file has its name only once all of it is synced.
        let meta = Meta {
            kind: Kind::Release,
            index: LogIndex(u64::from(oldest)),
            term: Term(0),
            durable: prefix.end,
        };
        let mut note = Vec::new();
        frame::encode(&mut note, at, prefix.chain, &meta, &[], &[]);
        target.write_at(&note, end).map_err(WalError::io("write", &unfinished))?;
    }
    target.sync_all().map_err(WalError::io("sync", &unfinished))?;
    fs.rename(&unfinished, &last.path).map_err(WalError::io("rename", &unfinished))?;
    fs.sync_dir(dir).map_err(WalError::io("sync", dir))
}

/// Copies the first `bytes` bytes into a file that reads as zeros; free space is left out.
fn copy(from: (&dyn File, &Path), to: (&dyn File, &Path), bytes: u64) -> Result<(), WalError> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut at = 0;
    while at < bytes {
        let wanted = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let read = from.0.read_at(&mut buffer[..wanted], at).map_err(WalError::io("read", from.1))?;
        if read < wanted {
            return Err(WalError::io("read", from.1)(std::io::ErrorKind::UnexpectedEof.into()));
        }
        if !frame::is_zero(&buffer[..read]) {
            to.0.write_at(&buffer[..read], at).map_err(WalError::io("write", to.1))?;
        }
        at += read as u64;
    }
    Ok(())
}
