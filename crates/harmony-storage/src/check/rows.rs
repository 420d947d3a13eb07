//! What must hold within a tree's tables and between them.
//!
//! | rows | must agree with |
//! | --- | --- |
//! | a key's newest version | the event that wrote it, as long as compaction leaves it; a tombstone always has its event |
//! | a key's lease | the lease's row, and the one that attaches the key to it |
//! | an event | a newest version of its key that is not older; the event of the version that it replaced |
//! | the events behind the compact revision | the revisions: each has some, numbered from 0 |
//! | a row that attaches a key | the key's lease |
//! | the counts of bytes in `progress` | the rows |

use harmony_types::{KeyRange, LeaseId, Revision, StorageError};

use crate::canonical::EVERYTHING;
use crate::tree::record::{EventRef, Replaced, VersionBuf, VersionRef, WrittenAt, check_crc, corrupt};
use crate::tree::{NEXT, Table, rows};
use crate::view::{Reads, View};

/// What is in the tables.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) keys: u64,
    pub(super) tombstones: u64,
    pub(super) events: u64,
    pub(super) state_rows: u64,
    pub(super) latest_bytes: u64,
    pub(super) log_bytes: u64,
    pub(super) state_bytes: u64,
}

/// Counts the rows, each of which is well-formed.
///
/// # Errors
/// [`StorageError::CrcMismatch`], [`StorageError::CorruptRecord`].
pub(super) fn count(view: &View) -> Result<Counts, StorageError> {
    let mut counts = Counts::default();
    let bytes = |key: &[u8], row: &[u8]| (key.len() + row.len()) as u64;
    view.tree.scan(Table::Latest, EVERYTHING, &mut |key, row| {
        let is_live = VersionRef::decode_latest(key, row)?.live;
        *if is_live { &mut counts.keys } else { &mut counts.tombstones } += 1;
        counts.latest_bytes += bytes(key, row);
        Ok(NEXT)
    })?;
    view.tree.scan(Table::Log, EVERYTHING, &mut |key, row| {
        EventRef::decode(key, row)?;
        counts.events += 1;
        counts.log_bytes += bytes(key, row);
        Ok(NEXT)
    })?;
    view.tree.scan(Table::State, EVERYTHING, &mut |name, row| {
        let body = check_crc(Table::State, name, row)?;
        if rows::is_replicated(name) {
            rows::check(name, body)?;
            counts.state_rows += 1;
            counts.state_bytes += bytes(name, row);
        }
        Ok(NEXT)
    })?;
    Ok(counts)
}

/// Compares the tables with each other and with what is counted in them.
///
/// # Errors
/// [`StorageError::CorruptRecord`] for the first row that does not agree.
pub(super) fn compare(view: &View, counts: &Counts) -> Result<(), StorageError> {
    let progress = &view.progress;
    for (what, written, found) in [
        ("latest", progress.latest_bytes, counts.latest_bytes),
        ("log", progress.log_bytes, counts.log_bytes),
        ("replicated rows of state", progress.state_bytes, counts.state_bytes),
    ] {
        if written != found {
            let reason = format!("{found} bytes in {what}, counted as {written}");
            return Err(corrupt(Table::State, b"progress", &reason));
        }
    }
    compare_latest(view)?;
    compare_log(view)?;
    compare_attached(view)
}

fn compare_latest(view: &View) -> Result<(), StorageError> {
    view.tree.scan(Table::Latest, EVERYTHING, &mut |key, row| {
        let version = VersionRef::decode_latest(key, row)?;
        let wrong = |reason: &str| Err(corrupt(Table::Latest, key, reason));
        if view.progress.revision < version.written.revision {
            return wrong("newer than the newest revision");
        }
        if version.live && (version.version == 0 || version.written.revision < version.create) {
            return wrong("its version and create revision make no sense");
        }
        match event_at(view, version.written)? {
            Some((event_key, written)) if event_key != key || written.borrowed() != version => {
                return wrong("its event is another one");
            }
            None if !version.live || view.progress.compact <= version.written.revision => {
                return wrong("its event is missing");
            }
            _ => {}
        }
        if version.lease != 0 {
            let id = LeaseId(version.lease);
            if !view.state_row(&rows::lease(id), &mut |_| Ok(()))? {
                return wrong("its lease is missing");
            }
            if !view.state_row(&rows::leased(id, key), &mut |_| Ok(()))? {
                return wrong("its lease does not know it");
            }
        }
        Ok(NEXT)
    })
}

/// Key and version that an event wrote.
fn event_at(view: &View, at: WrittenAt) -> Result<Option<(Vec<u8>, VersionBuf)>, StorageError> {
    let mut found = None;
    view.event(at, &mut |event| {
        found = Some((event.key.to_vec(), event.version.to_buf()));
        Ok(())
    })?;
    Ok(found)
}

fn compare_log(view: &View) -> Result<(), StorageError> {
    let progress = &view.progress;
    // Revision 1 is that of an empty store.
    let mut last = WrittenAt { revision: progress.compact.max(Revision::EMPTY), sub: 0 };
    view.tree.scan(Table::Log, EVERYTHING, &mut |log_key, row| {
        let event = EventRef::decode(log_key, row)?;
        let wrong = |reason: &str| Err(corrupt(Table::Log, log_key, reason));
        let written = event.version.written;
        if progress.revision < written.revision {
            return wrong("newer than the newest revision");
        }
        if written.revision < progress.dropped {
            return wrong("compaction has dropped it");
        }
        if last.revision < written.revision {
            if written != (WrittenAt { revision: last.revision.next(), sub: 0 }) {
                return wrong("events before it are missing");
            }
            last = written;
        } else if written.revision == last.revision && progress.compact < written.revision {
            if written.sub != last.sub + 1 {
                return wrong("events before it are missing");
            }
            last = written;
        }
        let mut is_known = false;
        view.newest(event.key, &mut |newest| {
            is_known = written <= newest.written;
            Ok(())
        })?;
        if !is_known {
            return wrong("its key has no version as new as it");
        }
        match replaced_agrees(view, &event)? {
            None => Ok(NEXT),
            Some(reason) => wrong(reason),
        }
    })?;
    if last.revision < progress.revision {
        let reason =
            format!("the newest revision is {}, its events end at {}", progress.revision, last.revision);
        return Err(corrupt(Table::State, b"progress", &reason));
    }
    Ok(())
}

/// What is wrong with the version that an event says it replaced.
fn replaced_agrees(view: &View, event: &EventRef<'_>) -> Result<Option<&'static str>, StorageError> {
    let version = &event.version;
    let begins = !version.live || (version.version == 1 && version.create == version.written.revision);
    let replaced = match &event.replaced {
        Replaced::None => return Ok((!begins).then_some("it replaced nothing, and goes on all the same")),
        Replaced::Here(replaced) => replaced,
        Replaced::InLog(_) => return Ok(None),
    };
    if version.written <= replaced.written {
        return Ok(Some("what it replaced is newer"));
    }
    let continues = if replaced.live {
        !version.live || (version.version == replaced.version + 1 && version.create == replaced.create)
    } else {
        begins
    };
    if !continues {
        return Ok(Some("it does not continue what it replaced"));
    }
    let agrees = match event_at(view, replaced.written)? {
        Some((key, written)) => key == event.key && written.borrowed() == *replaced,
        None => replaced.written.revision < view.progress.compact,
    };
    Ok((!agrees).then_some("the event of what it replaced is another one, or missing"))
}

fn compare_attached(view: &View) -> Result<(), StorageError> {
    view.state_rows(&KeyRange::prefix(rows::LEASED), &mut |name, _| {
        let key = rows::leased_key(name)?;
        let mut attached = false;
        view.newest(key, &mut |version| {
            attached = version.live && *rows::leased(LeaseId(version.lease), key) == *name;
            Ok(())
        })?;
        if attached {
            Ok(NEXT)
        } else {
            Err(corrupt(Table::State, name, "its key is not attached to the lease"))
        }
    })
}
