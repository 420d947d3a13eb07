//! Makes segments: space first, then the opening, then the name.

use std::path::Path;
use std::sync::Arc;

use harmony_types::{File, FileSystem, OpenMode, WalError};

use crate::segment::Head;

/// Takes no memory: nobody writes to it, so all its pages are the system's one page of zeros.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// A segment's open file.
#[derive(Clone)]
pub(crate) struct SegmentFile {
    pub(crate) file: Arc<dyn File>,
    pub(crate) path: Arc<Path>,
    /// Its length, which is also what it may hold.
    pub(crate) bytes: u64,
}

/// Creates the segment of `head` with `opening` in it, durable in content and name when this returns.
///
/// Its space is reserved, so that records written later change no length; it reads as zeros.
pub(crate) fn create(
    fs: &dyn FileSystem,
    dir: &Path,
    head: &Head,
    opening: &[u8],
    bytes: u64,
) -> Result<SegmentFile, WalError> {
    finish(fs, dir, head, opening, blank(fs, dir, head, bytes)?)
}

/// A new file for the segment of `head`, its space reserved.
fn blank(fs: &dyn FileSystem, dir: &Path, head: &Head, bytes: u64) -> Result<SegmentFile, WalError> {
    let path = head.name().unfinished_path(dir);
    let file = fs.open(&path, OpenMode::CreateNew).map_err(WalError::io("create", &path))?;
    file.allocate(bytes).map_err(WalError::io("reserve space for", &path))?;
    Ok(SegmentFile { file, path: path.into(), bytes })
}

/// As [`create`], with zeros written to all of it: syncs that come later change no metadata of the file.
pub(crate) fn create_filled(
    fs: &dyn FileSystem,
    dir: &Path,
    head: &Head,
    opening: &[u8],
    bytes: u64,
) -> Result<SegmentFile, WalError> {
    let blank = blank(fs, dir, head, bytes)?;
    let path = &*blank.path;
    for at in (0..bytes).step_by(ZEROS.len()) {
        let piece = usize::try_from(bytes - at).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
        blank.file.write_at(&ZEROS[..piece], at).map_err(WalError::io("fill", path))?;
    }
    finish(fs, dir, head, opening, blank)
}

/// As [`create`], in a file that reads as zeros, durably, and is large enough.
pub(crate) fn finish(
    fs: &dyn FileSystem,
    dir: &Path,
    head: &Head,
    opening: &[u8],
    blank: SegmentFile,
) -> Result<SegmentFile, WalError> {
    let SegmentFile { file, path: unfinished, bytes } = blank;
    let path = head.name().path(dir);
    file.write_at(opening, 0).map_err(WalError::io("write", &*unfinished))?;
    file.sync_all().map_err(WalError::io("sync", &*unfinished))?;
    fs.rename(&unfinished, &path).map_err(WalError::io("rename", &*unfinished))?;
    fs.sync_dir(dir).map_err(WalError::io("sync", dir))?;
    Ok(SegmentFile { file, path: path.into(), bytes })
}

/// Whether a file name is that of a segment whose making was cut short.
pub(crate) fn is_unfinished(name: &Path) -> bool {
    name.extension().is_some_and(|extension| extension == "new")
}
