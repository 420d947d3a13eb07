//! Compaction by itself.

use harmony_server::proto::etcdserverpb as pb;
use tonic::Code;

use crate::served::{Served, check_refusal, range};

#[tokio::test]
async fn what_is_older_than_the_period_is_compacted_and_the_newest_stays() {
    let mut served = Served::start("auto-compaction-retention = '100ms'").await;
    let first = served.put("a", "1").await;
    let last = served.put("a", "2").await;
    let at = |revision| pb::RangeRequest { revision, ..range("a") };
    while served.kv.range(at(first)).await.is_ok() {}
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    check_refusal(served.kv.range(at(first)).await, Code::OutOfRange, compacted);
    let newest = served.kv.range(at(last)).await.unwrap().into_inner();
    assert_eq!(newest.kvs[0].value, "2");
    assert_eq!(served.get("a").await.header.unwrap().revision, last, "a compaction makes no revision");
    served.stop().await;
}

/// A member compacts for nobody: no user has to be logged in.
#[tokio::test]
async fn permissions_do_not_stop_it() {
    let served =
        Served::start(&format!("{}auto-compaction-retention = '100ms'\n", crate::auth::OPTIONS)).await;
    let admin = crate::auth::Admin::enable(&served).await;
    let mut kv = served.kv.clone();
    let token = admin.token.clone();
    let put = |value: &'static str| {
        let put = pb::PutRequest { key: "a".into(), value: value.into(), ..pb::PutRequest::default() };
        crate::auth::with(&token, put)
    };
    let first = kv.put(put("1")).await.unwrap().into_inner().header.unwrap().revision;
    kv.put(put("2")).await.unwrap();
    let at = || crate::auth::with(&token, pb::RangeRequest { revision: first, ..range("a") });
    while kv.range(at()).await.is_ok() {}
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    check_refusal(kv.range(at()).await, Code::OutOfRange, compacted);
    drop((kv, admin));
    served.stop().await;
}
