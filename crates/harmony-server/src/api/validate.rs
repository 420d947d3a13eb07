//! What is checked before a command is proposed and that `harmony-types` cannot check: it needs this server's limits or
//! etcd's enums.

use harmony_types::txn::{CompareResult, Txn, TxnOpKind};

use super::Limits;
use super::status::{ApiError, Code};

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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use harmony_types::txn::{Compare, CompareTarget, Put, TxnOp};

    use super::*;

    const LIMITS: Limits =
        Limits { request_bytes_max: 1 << 20, txn_ops_max: 128, quota: None, timeout: Duration::from_secs(1) };

    fn put(bytes: usize) -> TxnOp {
        TxnOp { kind: Some(TxnOpKind::Put(Put { key: vec![b'k'; bytes].into(), ..Put::default() })) }
    }

    fn branches(success: Vec<TxnOp>, failure: Vec<TxnOp>) -> Txn {
        Txn { compare: vec![], success, failure }
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
