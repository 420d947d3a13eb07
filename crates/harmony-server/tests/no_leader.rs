//! A member of three that is left alone: who asks for a leader hears at once that there is none, calls and streams alike.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use harmony_server::proto::etcdserverpb as pb;
use harmony_testkit::Client as _;
use harmony_testkit::wait::{PATIENCE, until};
use harmony_types::{NodeId, TestCluster as _};
use kit::GrpcClient;
use pb::lease_client::LeaseClient;
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use tonic::codegen::tokio_stream::{self, StreamExt as _};
use tonic::{Code, Request, Status};

/// A request whose client wants a leader.
fn led<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("hasleader", "true".parse().unwrap());
    request
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let status = answer.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: no leader"));
}

/// Requests of a watch that its client keeps open.
fn watch(key: &'static str) -> impl tokio_stream::Stream<Item = pb::WatchRequest> + Send + 'static {
    let create = pb::WatchCreateRequest { key: key.into(), ..pb::WatchCreateRequest::default() };
    let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    tokio_stream::once(request).chain(tokio_stream::pending())
}

#[test]
fn who_asks_for_a_leader_is_refused_at_once_by_a_member_without_one() {
    let mut cluster = kit::started(3);
    let ids: Vec<NodeId> = cluster.node_ids();
    let alone = GrpcClient::new(&cluster.node(ids[0]).unwrap().endpoint()).unwrap();
    alone.put(b"k", b"v").unwrap();
    alone.get(b"k").unwrap();
    let range = || pb::RangeRequest { key: "k".into(), ..pb::RangeRequest::default() };
    let local = || pb::RangeRequest { serializable: true, ..range() };
    let found = alone.kv(async |kv| kv.range(led(range())).await).unwrap();
    assert_eq!(found.count, 1, "there is a leader");
    let open = async |channel| WatchClient::new(channel).watch(led(watch("k"))).await.unwrap().into_inner();
    let mut watched = alone.run(open);
    assert!(alone.next(&mut watched).unwrap().unwrap().created);

    for id in &ids[1..] {
        cluster.kill_node(*id).unwrap();
    }
    until("it knows", PATIENCE, || match alone.status()?.leader {
        None => Ok(()),
        leader => Err(format!("{leader:?} leads").into()),
    })
    .unwrap();
    refused(alone.next(&mut watched).map(|response| response.map(|response| response.events.len())));

    let put = || pb::PutRequest { key: "k".into(), ..pb::PutRequest::default() };
    refused(alone.kv(async |kv| kv.put(led(put())).await));
    refused(alone.kv(async |kv| kv.range(led(range())).await));
    refused(alone.kv(async |kv| kv.range(led(local())).await));
    let mut stranger = Request::new(local());
    stranger.metadata_mut().insert("hasleader", "false".parse().unwrap());
    assert_eq!(alone.kv(async |kv| kv.range(stranger).await).unwrap().count, 1, "it asks for none");
    let grant = pb::LeaseGrantRequest { id: 7, ttl: 60 };
    refused(alone.lease(async |lease| lease.lease_grant(led(grant)).await));
    let list = pb::MemberListRequest { linearizable: false };
    refused(alone.cluster(async |it| it.member_list(led(list)).await));

    // Streams that their clients keep open.
    refused(alone.run(async |to| WatchClient::new(to).watch(led(watch("k"))).await.map(drop)));
    let renewals = || tokio_stream::pending::<pb::LeaseKeepAliveRequest>();
    refused(alone.run(async |to| LeaseClient::new(to).lease_keep_alive(led(renewals())).await.map(drop)));
    let open = async |channel| WatchClient::new(channel).watch(watch("k")).await.unwrap().into_inner();
    let mut patient = alone.run(open);
    assert!(alone.next(&mut patient).unwrap().unwrap().created, "this one waits");

    cluster.spawn_node(ids[1]).unwrap();
    until("a put that asks for a leader", PATIENCE, || Ok(alone.kv(async |kv| kv.put(led(put())).await)?))
        .unwrap();
    assert!(!alone.next(&mut patient).unwrap().unwrap().events.is_empty());
}
