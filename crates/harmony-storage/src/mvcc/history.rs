//! Old versions: from a key's newest version back along the log.

use std::ops::ControlFlow;

use harmony_types::{KeyRange, StorageError};

use super::At;
use crate::tree::record::{EventRef, Replaced, VersionBuf, WrittenAt, corrupt};
use crate::tree::{NEXT, Table};
use crate::view::{ReadVersion, Reads, VisitVersion};

/// The version of a key at `at`, given where its newest version was written, which `at` does not see. `None`: the key had
/// none. The version may be a tombstone.
///
/// Cost: one look into the log for each write of the key since `at`.
///
/// # Errors
/// What reading the log reports; [`StorageError::CorruptRecord`] when it lacks an event that must be there.
pub(crate) fn version_before(
    reads: &impl Reads,
    key: &[u8],
    newest: WrittenAt,
    at: At,
) -> Result<Option<VersionBuf>, StorageError> {
    let mut written = newest;
    loop {
        match replaced_by(reads, key, written)? {
            None => return Ok(None),
            Some(version) if at.sees(version.written.revision) => return Ok(Some(version)),
            Some(version) => {
                if written <= version.written {
                    return Err(corrupt(Table::Log, &written.log_key(), "it replaced a later version"));
                }
                written = version.written;
            }
        }
    }
}

/// The version that the write at `written` replaced.
fn replaced_by(
    reads: &impl Reads,
    key: &[u8],
    written: WrittenAt,
) -> Result<Option<VersionBuf>, StorageError> {
    let mut found = Replaced::None;
    event_of(reads, key, written, &mut |event| {
        found = match event.replaced {
            Replaced::None => Replaced::None,
            Replaced::Here(version) => Replaced::Here(version.to_buf()),
            Replaced::InLog(at) => Replaced::InLog(at),
        };
        Ok(())
    })?;
    match found {
        Replaced::None => Ok(None),
        Replaced::Here(version) => Ok(Some(version)),
        Replaced::InLog(at) => {
            let mut version = None;
            event_of(reads, key, at, &mut |event| {
                version = Some(event.version.to_buf());
                Ok(())
            })?;
            Ok(version)
        }
    }
}

/// Hands the event of `key` at `written` to `read`; it must be there.
fn event_of(
    reads: &impl Reads,
    key: &[u8],
    written: WrittenAt,
    read: &mut dyn FnMut(EventRef<'_>) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let found = reads.event(written, &mut |event| {
        if event.key != key {
            return Err(corrupt(Table::Log, &written.log_key(), "the event is of another key"));
        }
        read(event)
    })?;
    if found { Ok(()) } else { Err(corrupt(Table::Log, &written.log_key(), "the event is missing")) }
}

/// Hands the version of one key at `at` to `read`, unless the key does not exist then.
pub(crate) fn live_version(
    reads: &impl Reads,
    key: &[u8],
    at: At,
    read: ReadVersion<'_>,
) -> Result<(), StorageError> {
    let mut too_new = None;
    reads.newest(key, &mut |version| {
        if !at.sees(version.written.revision) {
            too_new = Some(version.written);
        } else if version.live {
            read(version)?;
        }
        Ok(())
    })?;
    if let Some(newest) = too_new
        && let Some(version) = version_before(reads, key, newest, at)?
        && version.live
    {
        read(version.borrowed())?;
    }
    Ok(())
}

/// Visits the keys of a range that exist at `at`, in key order.
pub(crate) fn live_versions(
    reads: &impl Reads,
    range: &KeyRange,
    at: At,
    visit: VisitVersion<'_>,
) -> Result<(), StorageError> {
    if range.is_single() {
        return live_version(reads, &range.key, at, &mut |version| visit(&range.key, version).map(|_| ()));
    }
    reads.scan(range, &mut |key, version| -> Result<ControlFlow<()>, StorageError> {
        if at.sees(version.written.revision) {
            return if version.live { visit(key, version) } else { Ok(NEXT) };
        }
        match version_before(reads, key, version.written, at)? {
            Some(version) if version.live => visit(key, version.borrowed()),
            _ => Ok(NEXT),
        }
    })
}

#[cfg(test)]
mod tests;
