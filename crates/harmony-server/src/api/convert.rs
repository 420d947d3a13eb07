//! Wire requests to commands, outcomes to wire answers. Keys and values are moved, never copied.

use harmony_types::txn::{
    Compare, CompareTarget, DeleteRange, DeleteRangeOutcome, OpOutcome, OpOutcomeKind, Put, PutOutcome,
    Range, RangeOutcome, Txn, TxnOp, TxnOpKind, TxnOutcome,
};

use crate::proto::etcdserverpb as pb;
use pb::compare::{CompareTarget as PbTarget, TargetUnion};
use pb::request_op::Request;
use pb::response_op::Response;

pub(crate) fn range(request: pb::RangeRequest) -> Range {
    Range {
        key: request.key,
        range_end: request.range_end,
        limit: request.limit,
        revision: request.revision,
        sort_order: request.sort_order,
        sort_target: request.sort_target,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    }
}

pub(crate) fn put(request: pb::PutRequest) -> Put {
    Put {
        key: request.key,
        value: request.value,
        lease: request.lease,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

pub(crate) fn delete_range(request: pb::DeleteRangeRequest) -> DeleteRange {
    DeleteRange { key: request.key, range_end: request.range_end, prev_kv: request.prev_kv }
}

pub(crate) fn txn(request: pb::TxnRequest) -> Txn {
    Txn {
        compare: request.compare.into_iter().map(compare).collect(),
        success: request.success.into_iter().map(op).collect(),
        failure: request.failure.into_iter().map(op).collect(),
    }
}

/// The field named by `target` counts; when the value given is of another kind or missing, it is 0 or empty, as etcd has
/// it. An unknown target has no meaning and is left out: the transaction is refused.
fn compare(request: pb::Compare) -> Compare {
    let number = |expected: fn(&TargetUnion) -> Option<i64>| {
        request.target_union.as_ref().and_then(expected).unwrap_or_default()
    };
    let target = match PbTarget::try_from(request.target) {
        Ok(PbTarget::Version) => Some(CompareTarget::Version(number(|union| match union {
            TargetUnion::Version(version) => Some(*version),
            _ => None,
        }))),
        Ok(PbTarget::Create) => Some(CompareTarget::CreateRevision(number(|union| match union {
            TargetUnion::CreateRevision(revision) => Some(*revision),
            _ => None,
        }))),
        Ok(PbTarget::Mod) => Some(CompareTarget::ModRevision(number(|union| match union {
            TargetUnion::ModRevision(revision) => Some(*revision),
            _ => None,
        }))),
        Ok(PbTarget::Lease) => Some(CompareTarget::Lease(number(|union| match union {
            TargetUnion::Lease(lease) => Some(*lease),
            _ => None,
        }))),
        Ok(PbTarget::Value) => Some(CompareTarget::Value(match request.target_union {
            Some(TargetUnion::Value(value)) => value,
            _ => bytes::Bytes::new(),
        })),
        Err(_) => None,
    };
    Compare { key: request.key, range_end: request.range_end, result: request.result, target }
}

fn op(request: pb::RequestOp) -> TxnOp {
    TxnOp {
        kind: request.request.map(|request| match request {
            Request::RequestRange(request) => TxnOpKind::Range(range(request)),
            Request::RequestPut(request) => TxnOpKind::Put(put(request)),
            Request::RequestDeleteRange(request) => TxnOpKind::DeleteRange(delete_range(request)),
            Request::RequestTxn(request) => TxnOpKind::Txn(txn(request)),
        }),
    }
}

pub(crate) fn range_response(header: pb::ResponseHeader, outcome: RangeOutcome) -> pb::RangeResponse {
    pb::RangeResponse { header: Some(header), kvs: outcome.kvs, more: outcome.more, count: outcome.count }
}

pub(crate) fn put_response(header: pb::ResponseHeader, outcome: PutOutcome) -> pb::PutResponse {
    pb::PutResponse { header: Some(header), prev_kv: outcome.prev_kv }
}

pub(crate) fn delete_range_response(
    header: pb::ResponseHeader,
    outcome: DeleteRangeOutcome,
) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse { header: Some(header), deleted: outcome.deleted, prev_kvs: outcome.prev_kvs }
}

/// The headers of nested answers hold the revision only.
pub(crate) fn txn_response(header: pb::ResponseHeader, outcome: TxnOutcome) -> pb::TxnResponse {
    let nested = pb::ResponseHeader { revision: header.revision, ..pb::ResponseHeader::default() };
    pb::TxnResponse {
        header: Some(header),
        succeeded: outcome.succeeded,
        responses: outcome.responses.into_iter().map(|outcome| op_response(nested, outcome)).collect(),
    }
}

fn op_response(header: pb::ResponseHeader, outcome: OpOutcome) -> pb::ResponseOp {
    pb::ResponseOp {
        response: outcome.kind.map(|kind| match kind {
            OpOutcomeKind::Range(outcome) => Response::ResponseRange(range_response(header, outcome)),
            OpOutcomeKind::Put(outcome) => Response::ResponsePut(put_response(header, outcome)),
            OpOutcomeKind::DeleteRange(outcome) => {
                Response::ResponseDeleteRange(delete_range_response(header, outcome))
            }
            OpOutcomeKind::Txn(outcome) => Response::ResponseTxn(txn_response(header, outcome)),
        }),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use harmony_types::KeyValue;

    use super::*;

    #[test]
    fn every_field_of_a_range_arrives() {
        let request = pb::RangeRequest {
            key: "a".into(),
            range_end: "b".into(),
            limit: 1,
            revision: 2,
            sort_order: 1,
            sort_target: 3,
            serializable: true,
            keys_only: true,
            count_only: true,
            min_mod_revision: 4,
            max_mod_revision: 5,
            min_create_revision: 6,
            max_create_revision: 7,
        };
        let expected = Range {
            key: "a".into(),
            range_end: "b".into(),
            limit: 1,
            revision: 2,
            sort_order: 1,
            sort_target: 3,
            keys_only: true,
            count_only: true,
            min_mod_revision: 4,
            max_mod_revision: 5,
            min_create_revision: 6,
            max_create_revision: 7,
        };
        assert_eq!(range(request), expected);
    }

    #[test]
    fn keys_and_values_are_moved() {
        let (key, value) = (Bytes::from(vec![1; 9]), Bytes::from(vec![2; 9]));
        let places = (key.as_ptr(), value.as_ptr());
        let command =
            put(pb::PutRequest { key, value, lease: 3, prev_kv: true, ..pb::PutRequest::default() });
        assert_eq!((command.key.as_ptr(), command.value.as_ptr()), places);
        assert_eq!((command.lease, command.prev_kv), (3, true));
    }

    #[track_caller]
    fn check_compare(target: i32, union: Option<TargetUnion>, expected: Option<CompareTarget>) {
        let request =
            pb::Compare { result: 2, target, key: "k".into(), range_end: "l".into(), target_union: union };
        let command = compare(request);
        assert_eq!(command.target, expected);
        assert_eq!((&command.key[..], &command.range_end[..], command.result), (&b"k"[..], &b"l"[..], 2));
    }

    #[test]
    fn a_compare_looks_at_what_its_target_names() {
        check_compare(0, Some(TargetUnion::Version(5)), Some(CompareTarget::Version(5)));
        check_compare(1, Some(TargetUnion::CreateRevision(5)), Some(CompareTarget::CreateRevision(5)));
        check_compare(2, Some(TargetUnion::ModRevision(5)), Some(CompareTarget::ModRevision(5)));
        check_compare(3, Some(TargetUnion::Value("v".into())), Some(CompareTarget::Value("v".into())));
        check_compare(4, Some(TargetUnion::Lease(5)), Some(CompareTarget::Lease(5)));
        check_compare(3, None, Some(CompareTarget::Value(Bytes::new())));
        check_compare(0, None, Some(CompareTarget::Version(0)));
        check_compare(0, Some(TargetUnion::Value("v".into())), Some(CompareTarget::Version(0)));
        check_compare(9, Some(TargetUnion::Version(5)), None);
    }

    #[test]
    fn nested_answers_carry_the_revision_only() {
        let header = pb::ResponseHeader { cluster_id: 1, member_id: 2, revision: 3, raft_term: 4 };
        let kv = KeyValue { key: "k".into(), ..KeyValue::default() };
        let inner = TxnOutcome {
            succeeded: true,
            responses: vec![OpOutcomeKind::Put(PutOutcome { prev_kv: Some(kv.clone()) }).into()],
        };
        let outcome = TxnOutcome {
            succeeded: false,
            responses: vec![
                OpOutcomeKind::Range(RangeOutcome { kvs: vec![kv], more: true, count: 7 }).into(),
                OpOutcomeKind::DeleteRange(DeleteRangeOutcome { deleted: 1, prev_kvs: vec![] }).into(),
                OpOutcomeKind::Txn(inner).into(),
            ],
        };
        let response = txn_response(header, outcome);
        assert_eq!(response.header, Some(header));
        let nested = Some(pb::ResponseHeader { revision: 3, ..pb::ResponseHeader::default() });
        let mut kinds = response.responses.into_iter().map(|op| op.response.unwrap());
        match kinds.next() {
            Some(Response::ResponseRange(range)) => {
                assert_eq!((range.header, range.count, range.more, range.kvs.len()), (nested, 7, true, 1));
            }
            other => panic!("{other:?}"),
        }
        match kinds.next() {
            Some(Response::ResponseDeleteRange(delete)) => {
                assert_eq!((delete.header, delete.deleted), (nested, 1))
            }
            other => panic!("{other:?}"),
        }
        match kinds.next() {
            Some(Response::ResponseTxn(inner)) => {
                assert_eq!((inner.header, inner.succeeded), (nested, true));
                match &inner.responses[0].response {
                    Some(Response::ResponsePut(put)) => {
                        assert_eq!(put.header, nested);
                        assert!(put.prev_kv.is_some());
                    }
                    other => panic!("{other:?}"),
                }
            }
            other => panic!("{other:?}"),
        }
    }
}
