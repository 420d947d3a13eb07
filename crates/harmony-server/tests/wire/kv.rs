//! Range, Put, DeleteRange, Compact: answers, headers, refusals, limits.

use harmony_server::proto::etcdserverpb as pb;
use tonic::Code;

use crate::served::{Served, all, check_refusal, range};

fn put(key: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), ..pb::PutRequest::default() }
}

fn delete(key: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: key.to_owned().into(), ..pb::DeleteRangeRequest::default() }
}

#[tokio::test]
async fn what_is_put_is_read_with_its_history() {
    let mut served = Served::start("").await;
    let empty = served.get("a").await;
    assert_eq!((empty.count, empty.header.unwrap().revision), (0, 1), "a new store is at revision 1");
    assert_eq!(served.put("a", "1").await, 2);
    assert_eq!(served.put("a", "2").await, 3);
    assert_eq!(served.put("b", "3").await, 4);

    let answer = served.get("a").await;
    let kv = &answer.kvs[0];
    assert_eq!((&kv.key[..], &kv.value[..]), (&b"a"[..], &b"2"[..]));
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version, kv.lease), (2, 3, 2, 0));
    let header = answer.header.unwrap();
    assert_eq!(header.revision, 4, "the store's revision, not the key's");
    assert_eq!(header.member_id, 0x8e9e_05c5_2164_694d, "etcd derives the same id");
    assert_eq!(header.cluster_id, 0xcdf8_1819_4e3a_8c32);
    assert!(0 < header.raft_term);

    let old = pb::RangeRequest { revision: 2, ..range("a") };
    assert_eq!(&served.kv.range(old).await.unwrap().into_inner().kvs[0].value[..], b"1");
    let serializable = pb::RangeRequest { serializable: true, limit: 1, ..all() };
    let answer = served.kv.range(serializable).await.unwrap().into_inner();
    assert_eq!((answer.kvs.len(), answer.count, answer.more), (1, 2, true));
    let keys = pb::RangeRequest { keys_only: true, ..all() };
    let answer = served.kv.range(keys).await.unwrap().into_inner();
    assert!(answer.kvs.iter().all(|kv| kv.value.is_empty()));
    let count = pb::RangeRequest { count_only: true, ..all() };
    let answer = served.kv.range(count).await.unwrap().into_inner();
    assert_eq!((answer.kvs.len(), answer.count), (0, 2));
    let sorted = pb::RangeRequest { sort_order: 2, sort_target: 0, ..all() };
    let answer = served.kv.range(sorted).await.unwrap().into_inner();
    assert_eq!(&answer.kvs[0].key[..], b"b");
    served.stop().await;
}

#[tokio::test]
async fn previous_values_come_when_asked_for() {
    let mut served = Served::start("").await;
    let first = pb::PutRequest { value: "1".into(), prev_kv: true, ..put("a") };
    assert_eq!(served.kv.put(first).await.unwrap().into_inner().prev_kv, None);
    let second = pb::PutRequest { value: "2".into(), prev_kv: true, ..put("a") };
    let previous = served.kv.put(second).await.unwrap().into_inner().prev_kv.unwrap();
    assert_eq!((&previous.value[..], previous.version), (&b"1"[..], 1));
    let same = pb::PutRequest { ignore_value: true, ..put("a") };
    served.kv.put(same).await.unwrap();
    assert_eq!(&served.get("a").await.kvs[0].value[..], b"2");

    let answer = served
        .kv
        .delete_range(pb::DeleteRangeRequest { prev_kv: true, ..delete("a") })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((answer.deleted, answer.header.unwrap().revision), (1, 5));
    assert_eq!(&answer.prev_kvs[0].value[..], b"2");
    let answer = served.kv.delete_range(delete("a")).await.unwrap().into_inner();
    assert_eq!((answer.deleted, answer.header.unwrap().revision), (0, 5), "nothing deleted is no revision");
    served.stop().await;
}

#[tokio::test]
async fn wrong_requests_are_refused_in_etcds_words() {
    let mut served = Served::start("").await;
    let kv = &mut served.kv;
    let invalid = Code::InvalidArgument;
    check_refusal(kv.range(range("")).await, invalid, "etcdserver: key is not provided");
    check_refusal(kv.put(put("")).await, invalid, "etcdserver: key is not provided");
    check_refusal(kv.delete_range(delete("")).await, invalid, "etcdserver: key is not provided");
    let sort = pb::RangeRequest { sort_order: 3, ..range("a") };
    check_refusal(kv.range(sort).await, invalid, "etcdserver: invalid sort option");
    let sort = pb::RangeRequest { sort_target: 5, ..range("a") };
    check_refusal(kv.range(sort).await, invalid, "etcdserver: invalid sort option");
    let value = pb::PutRequest { value: "v".into(), ignore_value: true, ..put("a") };
    check_refusal(kv.put(value).await, invalid, "etcdserver: value is provided");
    let lease = pb::PutRequest { lease: 1, ignore_lease: true, ..put("a") };
    check_refusal(kv.put(lease).await, invalid, "etcdserver: lease is provided");
    for missing in [
        pb::PutRequest { ignore_value: true, ..put("a") },
        pb::PutRequest { ignore_lease: true, value: "v".into(), ..put("a") },
    ] {
        check_refusal(kv.put(missing).await, invalid, "etcdserver: key not found");
    }
    let lease = pb::PutRequest { lease: 77, ..put("a") };
    check_refusal(kv.put(lease).await, Code::NotFound, "etcdserver: requested lease not found");
    let future = pb::RangeRequest { revision: 2, ..range("a") };
    let text = "etcdserver: mvcc: required revision is a future revision";
    check_refusal(kv.range(future).await, Code::OutOfRange, text);
    assert_eq!(served.get("a").await.header.unwrap().revision, 1, "refusals change nothing");
    served.stop().await;
}

#[tokio::test]
async fn compacted_history_is_refused_and_the_rest_stays() {
    let mut served = Served::start("").await;
    for value in ["1", "2", "3"] {
        served.put("a", value).await;
    }
    let compact = |revision| pb::CompactionRequest { revision, physical: revision == 3 };
    let header = served.kv.compact(compact(3)).await.unwrap().into_inner().header.unwrap();
    assert_eq!(header.revision, 4);
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    for revision in [3, 2] {
        check_refusal(served.kv.compact(compact(revision)).await, Code::OutOfRange, compacted);
    }
    let future = "etcdserver: mvcc: required revision is a future revision";
    check_refusal(served.kv.compact(compact(5)).await, Code::OutOfRange, future);
    let at = |revision| pb::RangeRequest { revision, ..range("a") };
    check_refusal(served.kv.range(at(2)).await, Code::OutOfRange, compacted);
    assert_eq!(&served.kv.range(at(3)).await.unwrap().into_inner().kvs[0].value[..], b"2");
    assert_eq!(&served.get("a").await.kvs[0].value[..], b"3");
    served.stop().await;
}

#[tokio::test]
async fn requests_over_the_limit_are_refused() {
    let mut served = Served::start("max-request-bytes = 1000").await;
    let sized = |bytes: usize| pb::PutRequest { value: vec![b'x'; bytes].into(), ..put("a") };
    served.kv.put(sized(900)).await.unwrap();
    check_refusal(
        served.kv.put(sized(1000)).await,
        Code::InvalidArgument,
        "etcdserver: request is too large",
    );
    // The largest message: 1000 bytes and gRPC's 512 KiB; this one is 10 bytes of key and lengths longer than its value.
    let limit = 1000 + 524_288;
    let message = format!("grpc: received message larger than max ({} vs. {limit})", limit + 1);
    check_refusal(served.kv.put(sized(limit + 1 - 7)).await, Code::ResourceExhausted, &message);
    check_refusal(
        served.kv.put(sized(limit - 7)).await,
        Code::InvalidArgument,
        "etcdserver: request is too large",
    );
    assert_eq!(served.put("a", "still served").await, 3);
    served.stop().await;
}

#[tokio::test]
async fn a_full_quota_refuses_puts_only() {
    let mut served = Served::start("quota-backend-bytes = 2000").await;
    let big = |key: &str| pb::PutRequest { value: vec![b'x'; 1000].into(), ..put(key) };
    served.kv.put(big("a")).await.unwrap();
    let text = "etcdserver: mvcc: database space exceeded";
    check_refusal(served.kv.put(big("b")).await, Code::ResourceExhausted, text);
    let op = |request| pb::RequestOp { request: Some(request) };
    let txn = pb::TxnRequest {
        success: vec![op(pb::request_op::Request::RequestPut(big("b")))],
        ..pb::TxnRequest::default()
    };
    check_refusal(served.kv.txn(txn).await, Code::ResourceExhausted, text);
    assert_eq!(served.get("a").await.count, 1);
    assert_eq!(served.kv.delete_range(delete("a")).await.unwrap().into_inner().deleted, 1);
    served.kv.compact(pb::CompactionRequest { revision: 3, physical: true }).await.unwrap();
    served.stop().await;
}

#[tokio::test]
async fn large_answers_arrive_whole() {
    let mut served = Served::start("").await;
    let value = vec![b'x'; 100_000];
    for key in 0..20 {
        let request = pb::PutRequest { value: value.clone().into(), ..put(&format!("k{key:02}")) };
        served.kv.put(request).await.unwrap();
    }
    let answer = served.kv.range(all()).await.unwrap().into_inner();
    assert_eq!(answer.kvs.len(), 20);
    assert!(answer.kvs.iter().all(|kv| kv.value == value));
    served.stop().await;
}

#[tokio::test]
async fn puts_side_by_side_each_get_a_revision_of_their_own() {
    let served = Served::start("").await;
    let puts: Vec<_> = (0..200)
        .map(|key| {
            let mut kv = served.kv.clone();
            let request = put(&format!("k{key}"));
            tokio::spawn(async move { kv.put(request).await.unwrap().into_inner().header.unwrap().revision })
        })
        .collect();
    let mut revisions = Vec::new();
    for put in puts {
        revisions.push(put.await.unwrap());
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (2..202).collect::<Vec<_>>());
    served.stop().await;
}

#[tokio::test]
async fn a_client_that_names_its_release_in_bytes_that_are_no_text_is_refused() {
    let mut served = Served::start("").await;
    let mut request = tonic::Request::new(range("a"));
    let version = tonic::metadata::MetadataValue::try_from(b"\xff").unwrap();
    request.metadata_mut().insert("client-api-version", version);
    let refusal = "etcdserver: invalid client api version";
    check_refusal(served.kv.range(request).await, Code::InvalidArgument, refusal);
    served.stop().await;
}
