//! Reading: everything that looks at one view and changes nothing.

use bytes::Bytes;
use harmony_types::txn::{Range, RangeOutcome, Txn, TxnOpKind};
use harmony_types::{KeyValue, LogIndex, Outcome, OutcomeKind, Refusal, Revision, StorageError};

use crate::batch::Batch;
use crate::mvcc::hash::{self, HashKv};
use crate::mvcc::{At, OpError, range, txn};
use crate::op_counts::OpCounts;
use crate::tree::meta::Progress;
use crate::unified::UnifiedStorage;

/// What a range found, and the store's revision then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeResult {
    /// The newest revision of the view that was read.
    pub revision: Revision,
    /// What was found.
    pub outcome: RangeOutcome,
}

/// The rolling hash at one applied index. Two members with the same index must have the same hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppliedHash {
    /// The last entry applied.
    pub index: LogIndex,
    /// Over what all entries up to there did.
    pub hash: u32,
}

impl UnifiedStorage {
    /// Reads a range of keys. Local: linearizable only behind a read index.
    ///
    /// # Errors
    /// [`StorageError::Compacted`], [`StorageError::FutureRevision`]; [`StorageError::CrcMismatch`] and the like: nothing
    /// damaged is handed out.
    pub fn range(&self, request: &Range) -> Result<RangeResult, StorageError> {
        self.ops.read();
        if request.revision <= 0 && request.range().is_single() {
            self.check_open()?;
            let (progress, newest) = self.memory().newest(&request.key)?;
            let outcome = range::of_version(request, newest.as_ref())?;
            return Ok(RangeResult { revision: progress.revision, outcome });
        }
        self.read(|reads| {
            let progress = reads.progress();
            let at = At::requested(request.revision, progress)
                .map_err(|refusal| refused(refusal, request.revision, progress))?;
            Ok(RangeResult { revision: progress.revision, outcome: range::range(reads, request, at)? })
        })
    }

    /// The newest version of a key.
    ///
    /// # Errors
    /// [`StorageError::CrcMismatch`] and the like.
    pub fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, StorageError> {
        self.check_open()?;
        let (_, newest) = self.memory().newest(key)?;
        let live = newest.filter(|version| version.live);
        Ok(live.map(|version| version.to_key_value(Bytes::copy_from_slice(key), version.value.clone())))
    }

    /// Runs a transaction that only reads, all of it at one view.
    ///
    /// # Errors
    /// [`StorageError::Compacted`] and [`StorageError::FutureRevision`] when a range of the branch taken asks for such a
    /// revision; [`StorageError::CorruptRecord`] when the transaction may write: it must go through the log; else as
    /// [`UnifiedStorage::range`].
    pub fn read_txn(&self, request: &Txn) -> Result<Outcome, StorageError> {
        let invalid = |reason: &str| StorageError::CorruptRecord {
            place: "read-only transaction".to_owned(),
            reason: reason.to_owned(),
        };
        if !request.is_read_only() {
            return Err(invalid("it may write, so it must go through the log"));
        }
        let mut batch = Batch::new(self.fixed_view()?);
        let progress = batch.progress;
        let revision = progress.revision.as_i64();
        match txn::txn(&mut batch, request) {
            Ok(outcome) => {
                let outcome = Outcome { revision, kind: Some(OutcomeKind::Txn(outcome)) };
                self.ops.ran(std::slice::from_ref(&outcome));
                Ok(outcome)
            }
            Err(OpError::Refused(Refusal::Invalid)) => Err(invalid("it breaks a rule of transactions")),
            Err(OpError::Refused(refusal)) => {
                Err(refused(refusal, bad_revision(request, &progress), &progress))
            }
            Err(OpError::Failed(error)) => Err(error),
        }
    }

    /// How many operations ran since this was opened.
    pub fn op_counts(&self) -> OpCounts {
        self.ops.get()
    }

    /// The newest revision.
    pub fn revision(&self) -> Revision {
        self.progress().revision
    }

    /// The oldest revision that can still be read; 0 when nothing was compacted.
    pub fn compact_revision(&self) -> Revision {
        self.progress().compact
    }

    /// Bytes of keys and records: etcd's size in use. Writes that are not in the tree yet are estimated.
    pub fn live_bytes(&self) -> u64 {
        self.published().bytes
    }

    /// The rolling hash over what each entry did, at what is applied: the same on every member that has applied as much.
    pub fn applied_hash(&self) -> AppliedHash {
        let progress = self.progress();
        AppliedHash { index: progress.applied.index, hash: progress.state_hash.0 }
    }

    /// etcd's HashKV at a revision, 0 or less for the newest. Reads the whole store; blocks nobody.
    ///
    /// # Errors
    /// [`StorageError::Compacted`], [`StorageError::FutureRevision`]; else as [`UnifiedStorage::range`].
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, StorageError> {
        let view = self.tree_view()?;
        hash::hash_kv(&view, revision)?.map_err(|refusal| refused(refusal, revision, &view.progress))
    }

    /// A hash over all that members have in common at one applied index. Reads the whole store; blocks nobody.
    ///
    /// # Errors
    /// As [`UnifiedStorage::range`].
    pub fn hash(&self) -> Result<u32, StorageError> {
        hash::hash(&*self.tree_view()?)
    }
}

/// The revision for which a read-only transaction was refused.
fn bad_revision(request: &Txn, progress: &Progress) -> i64 {
    let ranges = request.success.iter().chain(&request.failure).filter_map(|op| match &op.kind {
        Some(TxnOpKind::Range(range)) => Some(range.revision),
        _ => None,
    });
    let mut bad = ranges.filter(|revision| At::requested(*revision, progress).is_err());
    bad.next().unwrap_or(0)
}

/// The error of a read for a refusal of the revision asked for.
pub(crate) fn refused(refusal: Refusal, requested: i64, progress: &Progress) -> StorageError {
    let requested = Revision(u64::try_from(requested).unwrap_or(0));
    if refusal == Refusal::Compacted {
        StorageError::Compacted { requested, compacted: progress.compact }
    } else {
        StorageError::FutureRevision { requested, current: progress.revision }
    }
}
