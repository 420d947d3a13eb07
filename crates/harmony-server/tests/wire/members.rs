//! The member itself: list, status, hashes, health; what is not served; what survives a restart; whose directory it is.

use harmony_server::proto::etcdserverpb as pb;
use harmony_server::proto::health as health_pb;
use harmony_server::serve::{ServeError, Server};
use tonic::Code;

use crate::served::{Served, all, config};

/// The list, once the member has told its name: that takes a moment behind the start.
async fn list(served: &mut Served) -> pb::MemberListResponse {
    loop {
        let request = pb::MemberListRequest { linearizable: true };
        let answer = served.cluster.member_list(request).await.unwrap().into_inner();
        if !answer.members[0].name.is_empty() {
            return answer;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_member_is_listed_with_its_urls() {
    let mut served = Served::start("name = 'one'\nadvertise-client-urls = 'http://h:1'").await;
    let answer = list(&mut served).await;
    let member = &answer.members[0];
    assert_eq!((member.id, member.name.as_str()), (0x8e9e_05c5_2164_694d, "one"));
    assert_eq!(member.peer_ur_ls, ["http://localhost:2380"]);
    assert_eq!(member.client_ur_ls, ["http://h:1"]);
    assert!(!member.is_learner);
    let header = answer.header.unwrap();
    assert_eq!(header.revision, 0, "answers about members carry no revision");
    assert_eq!(header.member_id, member.id);
    served.stop().await;
}

#[tokio::test]
async fn status_tells_what_the_member_is() {
    let mut served = Served::start("").await;
    served.put("a", "1").await;
    let status = served.maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    let header = status.header.unwrap();
    assert_eq!((status.leader, header.revision), (header.member_id, 2));
    assert!(status.version.starts_with("3.6."), "{}", status.version);
    assert!(0 < status.db_size && 0 < status.db_size_in_use);
    assert!(status.raft_applied_index <= status.raft_index);
    assert_eq!(status.db_size_quota, 2 << 30);
    assert_eq!(status.errors, Vec::<String>::new());
    served.stop().await;
}

#[tokio::test]
async fn hashes_follow_the_data() {
    let mut served = Served::start("").await;
    served.put("a", "1").await;
    let hash_kv = |revision| pb::HashKvRequest { revision };
    let first = served.maintenance.hash_kv(hash_kv(0)).await.unwrap().into_inner();
    assert_eq!(first.hash_revision, 2);
    served.put("a", "2").await;
    let second = served.maintenance.hash_kv(hash_kv(0)).await.unwrap().into_inner();
    assert_ne!(first.hash, second.hash);
    let again = served.maintenance.hash_kv(hash_kv(2)).await.unwrap().into_inner();
    assert_eq!(first.hash, again.hash);
    let future = served.maintenance.hash_kv(hash_kv(9)).await.unwrap_err();
    assert_eq!(future.message(), "etcdserver: mvcc: required revision is a future revision");
    let whole = served.maintenance.hash(pb::HashRequest {}).await.unwrap().into_inner();
    assert_eq!(whole.header.unwrap().revision, 3);
    let alarms = served.maintenance.alarm(pb::AlarmRequest::default()).await.unwrap().into_inner();
    assert_eq!(alarms.alarms, []);
    served.stop().await;
}

#[tokio::test]
async fn health_is_served_for_the_server_as_a_whole() {
    let served = Served::start("").await;
    let mut health = health_pb::health_client::HealthClient::new(served.channel.clone());
    let request = |service: &str| health_pb::HealthCheckRequest { service: service.to_owned() };
    assert_eq!(health.check(request("")).await.unwrap().into_inner().status, 1);
    assert_eq!(health.check(request("x")).await.unwrap_err().code(), Code::NotFound);
    let mut watch = health.watch(request("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    drop((watch, health));
    served.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_data_ids_and_revisions() {
    let mut served = Served::start("").await;
    for key in ["a", "b", "a"] {
        served.put(key, key).await;
    }
    let before = served.kv.range(all()).await.unwrap().into_inner();
    list(&mut served).await;
    let dir = served.stop().await;
    let mut served = Served::start_in(dir, "").await;
    let after = served.kv.range(all()).await.unwrap().into_inner();
    assert_eq!(before.kvs, after.kvs);
    let (old, new) = (before.header.unwrap(), after.header.unwrap());
    assert_eq!((old.revision, old.member_id, old.cluster_id), (new.revision, new.member_id, new.cluster_id));
    assert!(old.raft_term < new.raft_term);
    assert_eq!(served.put("c", "").await, 5);
    served.stop().await;
}

#[tokio::test]
async fn a_directory_of_another_cluster_or_in_use_is_refused() {
    let mut served = Served::start("").await;
    served.put("a", "1").await;
    let start =
        |toml: &str| Server::start(&config(served.dir.path(), toml)).err().expect("it should be refused");
    let locked = start("");
    assert!(matches!(locked, ServeError::Locked { .. }), "{locked}");
    let dir = served.stop().await;
    let foreign = Server::start(&config(dir.path(), "initial-cluster-token = 'other'")).err().unwrap();
    assert!(matches!(foreign, ServeError::Foreign { .. }), "{foreign}");
    assert!(foreign.to_string().contains("belongs to another member or cluster"), "{foreign}");
    let mut served = Served::start_in(dir, "").await;
    assert_eq!(served.get("a").await.count, 1, "the refusals changed nothing");
    served.stop().await;
}
