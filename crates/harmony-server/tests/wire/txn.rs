//! Transactions: nested answers, headers, limits, refusals.

use harmony_server::proto::etcdserverpb as pb;
use pb::compare::TargetUnion;
use pb::request_op::Request;
use pb::response_op::Response;
use tonic::Code;

use crate::served::{Served, check_refusal, range};

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn put(key: &str, value: &str) -> pb::RequestOp {
    op(Request::RequestPut(pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..pb::PutRequest::default()
    }))
}

fn get(key: &str) -> pb::RequestOp {
    op(Request::RequestRange(range(key)))
}

fn delete(key: &str, end: &str) -> pb::RequestOp {
    op(Request::RequestDeleteRange(pb::DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        prev_kv: false,
    }))
}

fn branch(success: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest { success, ..pb::TxnRequest::default() }
}

/// The version of a key is so much.
fn version(key: &str, version: i64) -> pb::Compare {
    pb::Compare {
        key: key.to_owned().into(),
        target_union: Some(TargetUnion::Version(version)),
        ..pb::Compare::default()
    }
}

#[tokio::test]
async fn nested_answers_carry_the_revision_only() {
    let mut served = Served::start("").await;
    let inner = pb::TxnRequest {
        compare: vec![version("a", 0)],
        success: vec![get("a"), put("b", "2")],
        failure: vec![],
    };
    let txn = pb::TxnRequest {
        compare: vec![version("a", 0)],
        success: vec![put("a", "1"), op(Request::RequestTxn(inner)), delete("x", "z"), get("b")],
        failure: vec![get("nothing")],
    };
    let answer = served.kv.txn(txn).await.unwrap().into_inner();
    assert!(answer.succeeded);
    let header = answer.header.unwrap();
    assert_eq!(header.revision, 2, "one revision for all of it");
    assert!(header.member_id != 0 && header.raft_term != 0);
    let nested = Some(pb::ResponseHeader { revision: 2, ..pb::ResponseHeader::default() });
    let mut answers = answer.responses.into_iter().map(|op| op.response.unwrap());
    assert!(matches!(answers.next().unwrap(), Response::ResponsePut(put) if put.header == nested));
    let Some(Response::ResponseTxn(inner)) = answers.next() else { panic!("not a transaction") };
    assert_eq!((inner.header, inner.succeeded), (nested, true), "compares see the state before");
    match inner.responses[0].response.as_ref().unwrap() {
        Response::ResponseRange(range) => {
            assert_eq!((range.header, range.count), (nested, 1), "reads see the writes before them");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(answers.next().unwrap(), Response::ResponseDeleteRange(delete) if delete.deleted == 0));
    match answers.next().unwrap() {
        Response::ResponseRange(range) => assert_eq!(&range.kvs[0].value[..], b"2"),
        other => panic!("{other:?}"),
    }
    served.stop().await;
}

#[tokio::test]
async fn reads_and_compares_alone_take_no_revision() {
    let mut served = Served::start("").await;
    served.put("a", "1").await;
    let index = served.maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner().raft_index;
    let compare = pb::TxnRequest { compare: vec![version("a", 1)], ..pb::TxnRequest::default() };
    let answer = served.kv.txn(compare).await.unwrap().into_inner();
    assert_eq!((answer.succeeded, answer.header.unwrap().revision), (true, 2));
    let read = pb::TxnRequest { compare: vec![version("a", 5)], success: vec![], failure: vec![get("a")] };
    let answer = served.kv.txn(read).await.unwrap().into_inner();
    assert!(!answer.succeeded);
    match answer.responses[0].response.as_ref().unwrap() {
        Response::ResponseRange(range) => assert_eq!(range.count, 1),
        other => panic!("{other:?}"),
    }
    let after = served.maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner().raft_index;
    assert_eq!(index, after, "reads do not go through the log");
    served.stop().await;
}

#[tokio::test]
async fn wrong_transactions_are_refused_in_etcds_words() {
    let mut served = Served::start("").await;
    let kv = &mut served.kv;
    let invalid = Code::InvalidArgument;
    let many = || (0..129).map(|key| put(&key.to_string(), "")).collect::<Vec<_>>();
    let too_many = "etcdserver: too many operations in txn request";
    check_refusal(kv.txn(branch(many())).await, invalid, too_many);
    let failure = pb::TxnRequest { failure: many(), ..pb::TxnRequest::default() };
    check_refusal(kv.txn(failure).await, invalid, too_many);
    let compare =
        pb::TxnRequest { compare: (0..129).map(|_| version("a", 0)).collect(), ..pb::TxnRequest::default() };
    check_refusal(kv.txn(compare).await, invalid, too_many);
    let duplicate = "etcdserver: duplicate key given in txn request";
    check_refusal(kv.txn(branch(vec![put("a", "1"), put("a", "2")])).await, invalid, duplicate);
    check_refusal(kv.txn(branch(vec![put("b", "1"), delete("a", "c")])).await, invalid, duplicate);
    let empty = "etcdserver: key is not provided";
    check_refusal(kv.txn(branch(vec![put("", "1")])).await, invalid, empty);
    let compare = pb::TxnRequest { compare: vec![version("", 0)], ..pb::TxnRequest::default() };
    check_refusal(kv.txn(compare).await, invalid, empty);
    let nothing = branch(vec![pb::RequestOp::default()]);
    check_refusal(kv.txn(nothing).await, invalid, "etcdserver: key not found");
    let future = pb::RangeRequest { revision: 99, ..range("a") };
    let future = branch(vec![op(Request::RequestRange(future.clone())), put("a", "1")]);
    let text = "etcdserver: mvcc: required revision is a future revision";
    check_refusal(kv.txn(future).await, Code::OutOfRange, text);
    let missing = pb::PutRequest { key: "m".into(), ignore_value: true, ..pb::PutRequest::default() };
    let missing = branch(vec![put("a", "1"), op(Request::RequestPut(missing))]);
    check_refusal(kv.txn(missing).await, invalid, "etcdserver: key not found");
    assert_eq!(served.get("a").await.count, 0, "a refused transaction leaves nothing behind");
    served.stop().await;
}

#[tokio::test]
async fn the_limit_of_operations_is_the_operators() {
    let mut served = Served::start("max-txn-ops = 2").await;
    served.kv.txn(branch(vec![put("a", ""), put("b", "")])).await.unwrap();
    check_refusal(
        served.kv.txn(branch(vec![get("a"), get("b"), get("c")])).await,
        Code::InvalidArgument,
        "etcdserver: too many operations in txn request",
    );
    served.stop().await;
}

#[tokio::test]
async fn nesting_has_a_bound_and_what_is_deeper_is_refused() {
    let mut served = Served::start("").await;
    // What is deeper than protobuf libraries read is no longer a transaction at all.
    for (depth, code) in [
        (0, None),
        (32, None),
        (33, Some(Code::InvalidArgument)),
        (40, Some(Code::InvalidArgument)),
        (60, Some(Code::Internal)),
        (2000, Some(Code::Internal)),
    ] {
        let key = depth.to_string();
        let nested = (0..depth).fold(put(&key, ""), |inner, _| op(Request::RequestTxn(branch(vec![inner]))));
        match (served.kv.txn(branch(vec![nested])).await, code) {
            (Ok(answer), None) => assert!(answer.into_inner().succeeded),
            (Err(status), Some(code)) => assert_eq!(status.code(), code, "depth {depth}: {status}"),
            (other, _) => panic!("depth {depth}: served: {}", other.is_ok()),
        }
        assert_eq!(served.get(&key).await.count, i64::from(code.is_none()), "depth {depth}");
    }
    // What went through the log once is read back from it.
    let dir = served.stop().await;
    let mut served = Served::start_in(dir, "").await;
    assert_eq!(served.get("32").await.count, 1);
    served.stop().await;
}
