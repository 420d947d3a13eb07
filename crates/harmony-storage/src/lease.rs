//! Leases: which exist, and which keys are attached to them. A key's version names its lease; a row for each attached key
//! leads back from the lease to its keys.
//!
//! Invariant: there is a row for a lease and a key exactly when the key exists and its newest version names the lease; the
//! lease exists then. Who moves a key from one lease to another, or deletes it, says so to [`move_key`].

use bytes::Bytes;
use harmony_types::lease::{
    LeaseCheckpoint, LeaseCheckpointOutcome, LeaseGrant, LeaseGrantOutcome, LeaseRevoke, LeaseRevokeOutcome,
};
use harmony_types::{Lease, LeaseId, Refusal, StorageError};

use crate::batch::Batch;
use crate::mvcc::{OpError, write};
use crate::tree::record::corrupt;
use crate::tree::{NEXT, Table, rows};
use crate::unified::UnifiedStorage;
use crate::view::Reads;

/// Grants a lease.
///
/// # Errors
/// [`Refusal::LeaseExists`], and those of [`LeaseGrant::validate`].
pub(crate) fn grant(batch: &mut Batch, request: &LeaseGrant) -> Result<LeaseGrantOutcome, OpError> {
    request.validate().map_err(OpError::Refused)?;
    let &LeaseGrant { id, ttl } = request;
    if find(batch, LeaseId(id))?.is_some() {
        return Err(OpError::Refused(Refusal::LeaseExists));
    }
    set(batch, &Lease { id: LeaseId(id), ttl_s: ttl, remaining_ttl_s: 0 });
    Ok(LeaseGrantOutcome { id, ttl })
}

/// Ends a lease and deletes its keys, in key order.
///
/// # Errors
/// [`Refusal::LeaseNotFound`].
pub(crate) fn revoke(batch: &mut Batch, request: &LeaseRevoke) -> Result<LeaseRevokeOutcome, OpError> {
    let id = LeaseId(request.id);
    require(batch, request.id)?;
    let keys = keys_of(batch, id)?;
    let mut outcome = LeaseRevokeOutcome::default();
    for key in keys {
        let Some(before) = batch.before(&key)?.filter(|before| before.live && before.lease == id.0) else {
            let row = rows::leased(id, &key);
            return Err(corrupt(Table::State, &row, "the key is not attached to this lease").into());
        };
        write::delete(batch, &key, &before);
        outcome.deleted += 1;
    }
    batch.set_row(rows::lease(id), None);
    Ok(outcome)
}

/// Takes in how much of some leases is left. Those that are gone are passed over: they were revoked meanwhile.
///
/// # Errors
/// [`Refusal::Invalid`] for less than nothing.
pub(crate) fn checkpoint(
    batch: &mut Batch,
    request: &LeaseCheckpoint,
) -> Result<LeaseCheckpointOutcome, OpError> {
    if request.leases.iter().any(|lease| lease.remaining_ttl < 0) {
        return Err(OpError::Refused(Refusal::Invalid));
    }
    let mut outcome = LeaseCheckpointOutcome::default();
    for remaining in &request.leases {
        let Some(lease) = find(batch, LeaseId(remaining.id))? else { continue };
        outcome.known += 1;
        set(batch, &Lease { remaining_ttl_s: remaining.remaining_ttl.min(lease.ttl_s), ..lease });
    }
    Ok(outcome)
}

/// Whether keys can be attached to the lease; 0 stands for none, which is always there.
///
/// # Errors
/// [`Refusal::LeaseNotFound`].
pub(crate) fn require(batch: &Batch, id: i64) -> Result<(), OpError> {
    if id == 0 || find(batch, LeaseId(id))?.is_some() {
        return Ok(());
    }
    Err(OpError::Refused(Refusal::LeaseNotFound))
}

/// A key that was attached to one lease is attached to another now; 0 stands for none.
pub(crate) fn move_key(batch: &mut Batch, key: &[u8], from: i64, to: i64) {
    if from == to {
        return;
    }
    if from != 0 {
        batch.set_row(rows::leased(LeaseId(from), key), None);
    }
    if to != 0 {
        batch.set_row(rows::leased(LeaseId(to), key), Some(Bytes::new()));
    }
}

fn set(batch: &mut Batch, lease: &Lease) {
    batch.set_row(rows::lease(lease.id), Some(rows::encode_lease(lease)));
}

fn find(reads: &(impl Reads + ?Sized), id: LeaseId) -> Result<Option<Lease>, StorageError> {
    let name = rows::lease(id);
    let mut found = None;
    reads.state_row(&name, &mut |row| {
        found = Some(rows::decode_lease(&name, row)?);
        Ok(())
    })?;
    Ok(found)
}

/// The keys attached to a lease, ascending.
pub(crate) fn keys_of(reads: &(impl Reads + ?Sized), id: LeaseId) -> Result<Vec<Bytes>, StorageError> {
    let mut keys = Vec::new();
    reads.state_rows(&rows::leased_by(id), &mut |name, _| {
        keys.push(Bytes::copy_from_slice(rows::leased_key(name)?));
        Ok(NEXT)
    })?;
    Ok(keys)
}

impl UnifiedStorage {
    /// All leases, by id taken as unsigned.
    ///
    /// # Errors
    /// [`StorageError::CrcMismatch`] and the like: nothing damaged is handed out.
    pub fn leases(&self) -> Result<Vec<Lease>, StorageError> {
        self.read(|reads| {
            let mut leases = Vec::new();
            reads.state_rows(&rows::leases(), &mut |name, row| {
                leases.push(rows::decode_lease(name, row)?);
                Ok(NEXT)
            })?;
            Ok(leases)
        })
    }

    /// One lease.
    ///
    /// # Errors
    /// As [`UnifiedStorage::leases`].
    pub fn lease(&self, id: LeaseId) -> Result<Option<Lease>, StorageError> {
        self.read(|reads| find(reads, id))
    }

    /// One lease with the keys attached to it, ascending, both at one applied index.
    ///
    /// # Errors
    /// As [`UnifiedStorage::leases`].
    pub fn lease_with_keys(&self, id: LeaseId) -> Result<Option<(Lease, Vec<Bytes>)>, StorageError> {
        self.read(|reads| match find(reads, id)? {
            Some(lease) => Ok(Some((lease, keys_of(reads, id)?))),
            None => Ok(None),
        })
    }
}
