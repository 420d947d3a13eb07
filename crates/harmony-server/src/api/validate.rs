//! What is checked before a command is proposed and that `harmony-types` cannot check: it needs this server's limits or
//! etcd's enums.

use harmony_types::txn::{CompareResult, Txn, TxnOp, TxnOpKind};

use super::Limits;
use super::status::{ApiError, Code};

/// What a put takes at least, bytes, as etcd counts it.
const PUT_OVERHEAD_BYTES: u64 = 256;

/// Checks a transaction.
pub(crate) fn txn(txn: &Txn, limits: &Limits) -> Result<(), ApiError> {
    txn.validate(limits.txn_ops_max)?;
    compares(txn)
}

/// etcd takes an unknown target or result as "equal to whatever"; a client that sends one means something newer, so it is
/// told rather than misunderstood.
fn compares(txn: &Txn) -> Result<(), ApiError> {
    let unknown = txn
        .compare
        .iter()
        .any(|compare| compare.target.is_none() || CompareResult::try_from(compare.result).is_err());
    if unknown {
        return Err(ApiError {
            code: Code::InvalidArgument,
            message: "etcdserver: invalid compare option".into(),
        });
    }
    for op in txn.success.iter().chain(&txn.failure) {
        if let Some(TxnOpKind::Txn(inner)) = &op.kind {
            compares(inner)?;
        }
    }
    Ok(())
}

/// What a put takes, bytes.
pub(crate) fn put_bytes(key: &[u8], value: &[u8]) -> u64 {
    PUT_OVERHEAD_BYTES + key.len() as u64 + value.len() as u64
}

/// What a transaction may take at most, bytes: that of its larger branch; 0 when it puts nothing.
pub(crate) fn txn_bytes(txn: &Txn) -> u64 {
    let branch = |ops: &[TxnOp]| {
        ops.iter()
            .map(|op| match &op.kind {
                Some(TxnOpKind::Put(put)) => put_bytes(&put.key, &put.value),
                Some(TxnOpKind::Txn(inner)) => txn_bytes(inner),
                _ => 0,
            })
            .sum::<u64>()
    };
    branch(&txn.success).max(branch(&txn.failure))
}

/// Refuses what would pass the quota.
pub(crate) fn quota(
    limits: &Limits,
    used_bytes: impl FnOnce() -> u64,
    more_bytes: u64,
) -> Result<(), ApiError> {
    match limits.quota_bytes {
        Some(quota) if 0 < more_bytes && quota <= used_bytes().saturating_add(more_bytes) => {
            Err(ApiError::NO_SPACE)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use harmony_types::txn::{Compare, CompareTarget, DeleteRange, Put};

    use super::*;

    const LIMITS: Limits = Limits {
        request_bytes_max: 1 << 20,
        txn_ops_max: 128,
        quota_bytes: Some(1000),
        timeout: Duration::from_secs(1),
    };

    fn put(bytes: usize) -> TxnOp {
        TxnOp { kind: Some(TxnOpKind::Put(Put { key: vec![b'k'; bytes].into(), ..Put::default() })) }
    }

    fn branches(success: Vec<TxnOp>, failure: Vec<TxnOp>) -> Txn {
        Txn { compare: vec![], success, failure }
    }

    #[test]
    fn a_transaction_costs_its_larger_branch() {
        assert_eq!(txn_bytes(&branches(vec![put(1), put(2)], vec![put(100)])), 2 * 256 + 3);
        assert_eq!(txn_bytes(&branches(vec![put(1)], vec![put(100)])), 356);
        let inner = TxnOp { kind: Some(TxnOpKind::Txn(branches(vec![put(5)], vec![]))) };
        assert_eq!(txn_bytes(&branches(vec![inner, put(1)], vec![])), 2 * 256 + 6);
        let delete = TxnOpKind::DeleteRange(DeleteRange { key: "k".into(), ..DeleteRange::default() });
        assert_eq!(txn_bytes(&branches(vec![TxnOp { kind: Some(delete) }], vec![])), 0);
    }

    #[test]
    fn the_quota_refuses_what_takes_space_and_nothing_else() {
        assert_eq!(quota(&LIMITS, || 0, 999), Ok(()));
        assert_eq!(quota(&LIMITS, || 1, 999), Err(ApiError::NO_SPACE));
        assert_eq!(quota(&LIMITS, || 5000, 0), Ok(()), "deletes always pass");
        assert_eq!(quota(&LIMITS, || u64::MAX, 1), Err(ApiError::NO_SPACE));
        assert_eq!(quota(&Limits { quota_bytes: None, ..LIMITS }, || u64::MAX, 1), Ok(()));
    }

    #[test]
    fn compares_of_unknown_kinds_are_refused() {
        let with = |result, target| {
            let compare = Compare { key: "k".into(), range_end: "".into(), result, target };
            Txn { compare: vec![compare], success: vec![], failure: vec![] }
        };
        let known = with(1, Some(CompareTarget::Version(1)));
        assert_eq!(txn(&known, &LIMITS), Ok(()));
        for wrong in [with(1, None), with(4, Some(CompareTarget::Version(1)))] {
            assert_eq!(txn(&wrong, &LIMITS).unwrap_err().message, "etcdserver: invalid compare option");
            let nested = TxnOp { kind: Some(TxnOpKind::Txn(wrong)) };
            assert!(txn(&branches(vec![], vec![nested]), &LIMITS).is_err());
        }
    }

    #[test]
    fn the_limit_of_operations_is_the_servers() {
        let limits = Limits { txn_ops_max: 1, ..LIMITS };
        assert!(txn(&branches(vec![put(1)], vec![]), &limits).is_ok());
        let error = txn(&branches(vec![put(1), put(2)], vec![]), &limits).unwrap_err();
        assert_eq!(error.message, "etcdserver: too many operations in txn request");
    }
}
