//! Calls about who belongs to the cluster.

use std::net::TcpListener;

use harmony_server::proto::etcdserverpb as pb;
use harmony_testkit::ProcessCluster;
use harmony_testkit::wait::{PATIENCE, until};
use tonic::{Code, Status};

use super::GrpcClient;

/// A client of some member that runs.
pub(crate) fn client(cluster: &ProcessCluster) -> GrpcClient {
    GrpcClient::new(&cluster.running().next().unwrap().endpoint()).unwrap()
}

pub(crate) fn try_list(client: &GrpcClient) -> Result<Vec<pb::Member>, Status> {
    let request = pb::MemberListRequest { linearizable: true };
    let answer = client.cluster(async |cluster| cluster.member_list(request).await)?;
    assert_eq!(answer.header.unwrap().revision, 0);
    Ok(answer.members)
}

pub(crate) fn list(client: &GrpcClient) -> Vec<pb::Member> {
    try_list(client).unwrap()
}

pub(crate) fn add(
    client: &GrpcClient,
    urls: &[&str],
    is_learner: bool,
) -> Result<pb::MemberAddResponse, Status> {
    let peer_ur_ls = urls.iter().map(ToString::to_string).collect();
    let request = pb::MemberAddRequest { peer_ur_ls, is_learner };
    client.cluster(async |cluster| cluster.member_add(request).await)
}

pub(crate) fn remove(client: &GrpcClient, id: u64) -> Result<pb::MemberRemoveResponse, Status> {
    client.cluster(async |cluster| cluster.member_remove(pb::MemberRemoveRequest { id }).await)
}

pub(crate) fn promote(client: &GrpcClient, id: u64) -> Result<pb::MemberPromoteResponse, Status> {
    client.cluster(async |cluster| cluster.member_promote(pb::MemberPromoteRequest { id }).await)
}

pub(crate) fn move_leader(client: &GrpcClient, target: u64) -> Result<(), Status> {
    let request = pb::MoveLeaderRequest { target_id: target };
    client.maintenance(async |it| it.move_leader(request).await).map(drop)
}

#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, message: &str) {
    let status = answer.unwrap_err();
    assert_eq!((status.code(), status.message()), (code, format!("etcdserver: {message}").as_str()));
}

/// A URL that nobody listens on just now.
pub(crate) fn free_url() -> String {
    format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

pub(crate) fn wait_for(
    client: &GrpcClient,
    what: &str,
    is_so: impl Fn(&[pb::Member]) -> bool,
) -> Vec<pb::Member> {
    until(what, PATIENCE, || {
        let members = try_list(client)?;
        if is_so(&members) { Ok(members) } else { Err(format!("{members:?}").into()) }
    })
    .unwrap()
}

/// A member with this name votes.
pub(crate) fn votes(members: &[pb::Member], name: &str) -> bool {
    members.iter().any(|member| member.name == name && !member.is_learner)
}
