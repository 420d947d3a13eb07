//! Old versions: from a key's newest version back along the log.

use std::ops::ControlFlow;

use bytes::Bytes;
use harmony_types::{KeyRange, KeyValue, StorageError};

use super::At;
use crate::tree::record::{EventRef, Replaced, VersionBuf, WrittenAt, corrupt};
use crate::tree::{NEXT, STOP, Table};
use crate::view::{ReadVersion, Reads, VisitVersion};

/// Writes that a walk goes back before it tries from the other end, too; doubled with every turn.
const STEPS_MIN: usize = 4;

/// Log rows that are scanned for each write walked back: a scan's next row is that much cheaper than a look-up.
const ROWS_PER_STEP: usize = 8;

/// The version of a key at `at`, given where its newest version was written, which `at` does not see. `None`: the key had
/// none. The version may be a tombstone.
///
/// Two ways lead there: back along the key's writes, one look into the log for each, and forward through the log from `at`
/// to the first write of the key, which replaced the version looked for. A hot key has many writes since `at`, but the
/// first is near. They take turns, so that the cost is a small multiple of the cheaper one.
///
/// # Errors
/// What reading the log reports; [`StorageError::CorruptRecord`] when it lacks an event that must be there.
pub(crate) fn version_before(
    reads: &(impl Reads + ?Sized),
    key: &[u8],
    newest: WrittenAt,
    at: At,
) -> Result<Option<VersionBuf>, StorageError> {
    let At::Revision(revision) = at else {
        return Err(corrupt(Table::Log, &newest.log_key(), "no write is behind the newest"));
    };
    let mut written = newest;
    let mut ahead = WrittenAt { revision: revision.next(), sub: 0 };
    let mut steps = STEPS_MIN;
    loop {
        for _ in 0..steps {
            match replaced_by(reads, key, written, at)? {
                Before::Found(version) => return Ok(version),
                Before::TooNew(older) if older < written => written = older,
                Before::TooNew(_) => {
                    return Err(corrupt(Table::Log, &written.log_key(), "it replaced a later version"));
                }
            }
        }
        if let Some(first) = first_write(reads, key, &mut ahead, steps * ROWS_PER_STEP)? {
            written = first;
        }
        steps *= 2;
    }
}

/// The first write of `key` among the next `rows_max` rows of the log from `ahead` on, which moves behind them.
fn first_write(
    reads: &(impl Reads + ?Sized),
    key: &[u8],
    ahead: &mut WrittenAt,
    rows_max: usize,
) -> Result<Option<WrittenAt>, StorageError> {
    let mut found = None;
    let mut rows = 0;
    reads.writes_from(*ahead, &mut |of, written| {
        if of == key {
            found = Some(written);
        } else if rows < rows_max {
            rows += 1;
            return Ok(NEXT);
        }
        *ahead = written;
        Ok(STOP)
    })?;
    Ok(found)
}

/// What a write replaced.
enum Before {
    /// The version at the revision looked for.
    Found(Option<VersionBuf>),
    /// One that is too new, too, written here.
    TooNew(WrittenAt),
}

fn replaced_by(
    reads: &(impl Reads + ?Sized),
    key: &[u8],
    written: WrittenAt,
    at: At,
) -> Result<Before, StorageError> {
    let mut before = Before::Found(None);
    let mut behind = None;
    event_of(reads, key, written, &mut |event| {
        match event.replaced {
            Replaced::None => {}
            Replaced::Here(version) if at.sees(version.written.revision) => {
                before = Before::Found(Some(version.to_buf()));
            }
            Replaced::Here(version) => before = Before::TooNew(version.written),
            Replaced::InLog(older) if at.sees(older.revision) => behind = Some(older),
            Replaced::InLog(older) => before = Before::TooNew(older),
        }
        Ok(())
    })?;
    if let Some(older) = behind {
        event_of(reads, key, older, &mut |event| {
            before = Before::Found(Some(event.version.to_buf()));
            Ok(())
        })?;
    }
    Ok(before)
}

/// Hands the event of `key` at `written` to `read`; it must be there.
///
/// # Errors
/// What reading reports; [`StorageError::CorruptRecord`] when it is not there.
pub(crate) fn event_of(
    reads: &(impl Reads + ?Sized),
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
    reads: &(impl Reads + ?Sized),
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

/// The newest version of one key, unless it does not exist.
pub(crate) fn get(reads: &(impl Reads + ?Sized), key: &[u8]) -> Result<Option<KeyValue>, StorageError> {
    let mut found = None;
    live_version(reads, key, At::Newest, &mut |version| {
        let value = Bytes::copy_from_slice(version.value);
        found = Some(version.to_key_value(Bytes::copy_from_slice(key), value));
        Ok(())
    })?;
    Ok(found)
}

/// Visits the keys of a range that exist at `at`, in key order.
pub(crate) fn live_versions(
    reads: &(impl Reads + ?Sized),
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
