//! Transactions: decide by the state before, check everything that can be refused, then run.

use std::cmp::Ordering;

use harmony_types::planted::{self, Bug};
use harmony_types::txn::{Compare, CompareResult, CompareTarget, Txn, TxnOp, TxnOpKind, TxnOutcome};
use harmony_types::txn::{OpOutcome, OpOutcomeKind};
use harmony_types::{Refusal, StorageError};

use super::{At, OpError, history, range, write};
use crate::batch::Batch;
use crate::tree::record::VersionRef;
use crate::tree::{NEXT, STOP};
use crate::view::Reads;

/// Which branch each transaction takes, in the order in which the taken branches are walked: the outermost first, then
/// each one within as it is met.
struct Path(Vec<bool>);

impl Path {
    /// Evaluates all compares against the state before the transaction, those within included.
    fn decide(reads: &(impl Reads + ?Sized), txn: &Txn) -> Result<Self, OpError> {
        let mut path = Self(Vec::new());
        path.walk(reads, txn)?;
        Ok(path)
    }

    fn walk(&mut self, reads: &(impl Reads + ?Sized), txn: &Txn) -> Result<(), OpError> {
        let mut succeeded = true;
        for compare in &txn.compare {
            succeeded = succeeded && holds(reads, compare)?;
        }
        succeeded ^= planted::is(Bug::TxnWrongBranch);
        self.0.push(succeeded);
        for op in branch(txn, succeeded) {
            if let Some(TxnOpKind::Txn(inner)) = &op.kind {
                self.walk(reads, inner)?;
            }
        }
        Ok(())
    }
}

fn branch(txn: &Txn, succeeded: bool) -> &[TxnOp] {
    if succeeded { &txn.success } else { &txn.failure }
}

/// Runs a transaction; its writes are the command's.
///
/// # Errors
/// [`OpError::Refused`] before anything was written. [`OpError::Failed`] may leave a part in `batch`, which is given up
/// then.
pub(crate) fn txn(batch: &mut Batch, txn: &Txn) -> Result<TxnOutcome, OpError> {
    txn.validate(usize::MAX).map_err(|_| OpError::Refused(Refusal::Invalid))?;
    let path = Path::decide(batch, txn)?;
    // In etcd's order: first whatever could refuse a put, then whatever could refuse a range.
    each_op(txn, &mut path.0.iter(), &mut |op| match op {
        TxnOpKind::Put(put) => write::check_put(batch, put),
        _ => Ok(()),
    })?;
    each_op(txn, &mut path.0.iter(), &mut |op| match op {
        TxnOpKind::Range(range) => {
            At::requested(range.revision, &batch.progress).map(|_| ()).map_err(OpError::Refused)
        }
        _ => Ok(()),
    })?;
    Ok(run(batch, txn, &mut path.0.iter())?)
}

/// Visits the operations that will run, those of transactions within included.
fn each_op(
    txn: &Txn,
    path: &mut std::slice::Iter<'_, bool>,
    visit: &mut dyn FnMut(&TxnOpKind) -> Result<(), OpError>,
) -> Result<(), OpError> {
    for op in branch(txn, next(path)) {
        match &op.kind {
            Some(TxnOpKind::Txn(inner)) => each_op(inner, path, visit)?,
            Some(kind) => visit(kind)?,
            None => return Err(OpError::Refused(Refusal::Invalid)),
        }
    }
    Ok(())
}

fn next(path: &mut std::slice::Iter<'_, bool>) -> bool {
    *path.next().expect("the path was made by the same walk")
}

fn run(
    batch: &mut Batch,
    txn: &Txn,
    path: &mut std::slice::Iter<'_, bool>,
) -> Result<TxnOutcome, StorageError> {
    let succeeded = next(path);
    let ops = branch(txn, succeeded);
    let mut responses = Vec::with_capacity(ops.len());
    // What the revisions of ranges mean was settled before the first write.
    let progress = batch.progress;
    for op in ops {
        let outcome = match op.kind.as_ref().expect("every operation was checked") {
            TxnOpKind::Range(request) => {
                let at = At::requested(request.revision, &progress).expect("every revision was checked");
                OpOutcomeKind::Range(range::range(batch, request, at)?)
            }
            TxnOpKind::Put(put) => OpOutcomeKind::Put(write::put(batch, put)?),
            TxnOpKind::DeleteRange(delete) => OpOutcomeKind::DeleteRange(write::delete_range(batch, delete)?),
            TxnOpKind::Txn(inner) => OpOutcomeKind::Txn(run(batch, inner, path)?),
        };
        responses.push(OpOutcome::from(outcome));
    }
    Ok(TxnOutcome { succeeded, responses })
}

/// Whether a condition holds for every key of its range; an empty range is judged like a key that does not exist.
fn holds(reads: &(impl Reads + ?Sized), compare: &Compare) -> Result<bool, OpError> {
    let target = compare.target.as_ref().ok_or(OpError::Refused(Refusal::Invalid))?;
    let (mut any, mut all) = (false, true);
    history::live_versions(reads, &compare.range(), At::Newest, &mut |_, version| {
        any = true;
        all = judge(compare.result, compare_existing(&version, target));
        Ok(if all { NEXT } else { STOP })
    })?;
    if any {
        return Ok(all);
    }
    Ok(match target {
        CompareTarget::Value(_) => false,
        CompareTarget::Version(wanted)
        | CompareTarget::CreateRevision(wanted)
        | CompareTarget::ModRevision(wanted)
        | CompareTarget::Lease(wanted) => judge(compare.result, 0.cmp(wanted)),
    })
}

fn compare_existing(version: &VersionRef<'_>, target: &CompareTarget) -> Ordering {
    match target {
        CompareTarget::Version(wanted) => version.version.cast_signed().cmp(wanted),
        CompareTarget::CreateRevision(wanted) => version.create.as_i64().cmp(wanted),
        CompareTarget::ModRevision(wanted) => version.written.revision.as_i64().cmp(wanted),
        CompareTarget::Value(wanted) => version.value.cmp(wanted),
        CompareTarget::Lease(wanted) => version.lease.cmp(wanted),
    }
}

/// A judgement that this release does not know holds, as in etcd.
fn judge(result: i32, found: Ordering) -> bool {
    match CompareResult::try_from(result) {
        Ok(CompareResult::Equal) => found.is_eq(),
        Ok(CompareResult::Greater) => found.is_gt(),
        Ok(CompareResult::Less) => found.is_lt(),
        Ok(CompareResult::NotEqual) => found.is_ne(),
        Err(_) => true,
    }
}
