//! Put and delete. What can be refused was checked before: from here on only this machine can fail.

use bytes::Bytes;
use harmony_types::planted::{self, Bug};
use harmony_types::txn::{DeleteRange, DeleteRangeOutcome, Put, PutOutcome};
use harmony_types::{KeyValue, Refusal, StorageError};

use super::{At, OpError, history};
use crate::batch::Batch;
use crate::lease;
use crate::tree::NEXT;
use crate::tree::record::{Version, VersionBuf};

/// Whether `put` can run on the state of `batch`.
///
/// # Errors
/// [`Refusal::KeyNotFound`], [`Refusal::LeaseNotFound`].
pub(crate) fn check_put(batch: &Batch, put: &Put) -> Result<(), OpError> {
    if put.ignore_value || put.ignore_lease {
        let mut exists = false;
        history::live_version(batch, &put.key, At::Newest, &mut |_| {
            exists = true;
            Ok(())
        })?;
        if !exists {
            return Err(OpError::Refused(Refusal::KeyNotFound));
        }
    }
    lease::require(batch, put.lease)
}

/// Writes one key.
///
/// # Errors
/// This machine failed.
pub(crate) fn put(batch: &mut Batch, put: &Put) -> Result<PutOutcome, StorageError> {
    let before = batch.before(&put.key)?;
    let live = before.as_ref().filter(|before| before.live);
    let written = batch.next_write();
    let goes_on = before.is_some() && planted::is(Bug::VersionNotReset);
    let version = Version {
        written,
        live: true,
        create: live.map_or(written.revision, |before| before.create),
        version: live.map_or(1 + u64::from(goes_on), |before| before.version + 1),
        lease: match live {
            Some(before) if put.ignore_lease => before.lease,
            _ => put.lease,
        },
        value: match live {
            Some(before) if put.ignore_value => before.value.clone(),
            _ => put.value.clone(),
        },
    };
    lease::move_key(batch, &put.key, live.map_or(0, |before| before.lease), version.lease);
    let prev_kv = live.filter(|_| put.prev_kv).map(|before| key_value(&put.key, before));
    batch.write(&put.key, &version, before.as_ref());
    Ok(PutOutcome { prev_kv })
}

/// Deletes a range of keys, in key order.
///
/// # Errors
/// This machine failed.
pub(crate) fn delete_range(
    batch: &mut Batch,
    delete: &DeleteRange,
) -> Result<DeleteRangeOutcome, StorageError> {
    let mut found: Vec<(Bytes, VersionBuf)> = Vec::new();
    history::live_versions(batch, &delete.range(), At::Newest, &mut |key, version| {
        found.push((Bytes::copy_from_slice(key), version.to_buf()));
        Ok(NEXT)
    })?;
    let mut outcome = DeleteRangeOutcome::default();
    for (key, before) in found {
        outcome.deleted += 1;
        if delete.prev_kv {
            outcome.prev_kvs.push(key_value(&key, &before));
        }
        self::delete(batch, &key, &before);
    }
    Ok(outcome)
}

/// Deletes one key, whose live version is `before`.
pub(crate) fn delete(batch: &mut Batch, key: &[u8], before: &VersionBuf) {
    if !planted::is(Bug::KeepLeaseAtDelete) {
        lease::move_key(batch, key, before.lease, 0);
    }
    let tombstone = VersionBuf::tombstone(batch.next_write());
    batch.write(key, &tombstone, Some(before));
}

fn key_value(key: &Bytes, version: &VersionBuf) -> KeyValue {
    version.to_key_value(key.clone(), version.value.clone())
}
