//! Who may call what: every RPC by callers of every kind, and every operation in every place of a transaction.

use std::future::Future;
use std::pin::Pin;

use harmony_server::proto::authpb::permission::Type;
use harmony_server::proto::etcdserverpb as pb;
use harmony_server::proto::etcdserverpb::auth_client::AuthClient;
use harmony_server::proto::etcdserverpb::cluster_client::ClusterClient;
use harmony_server::proto::etcdserverpb::kv_client::KvClient;
use harmony_server::proto::etcdserverpb::lease_client::LeaseClient;
use harmony_server::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use harmony_server::proto::v3electionpb::election_client::ElectionClient;
use harmony_server::proto::v3electionpb::{
    CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
};
use harmony_server::proto::v3lockpb::lock_client::LockClient;
use harmony_server::proto::v3lockpb::{LockRequest, UnlockRequest};
use pb::request_op::Request;
use pb::{CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::auth::{Admin, BAD_TOKEN, DENIED, NO_NAME, OPTIONS, jwt, jwt_options, with};
use crate::served::{Served, check_refusal, range};

type Answer = Pin<Box<dyn Future<Output = Result<(), Status>>>>;

/// Makes one call on behalf of the holder of a token.
type Call = Box<dyn Fn(Channel, &str) -> Answer>;

/// What an RPC asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    Nothing,
    ToBeAUser,
    ToBeRoot,
    /// A right on key `a`.
    Keys,
}

macro_rules! call {
    ($client:ident.$method:ident, $message:expr) => {
        Box::new(|channel: Channel, token: &str| -> Answer {
            let request = with(token, $message);
            Box::pin(async move { $client::new(channel).$method(request).await.map(drop) })
        }) as Call
    };
}

/// Every RPC that is served, but `Authenticate`, `AuthDisable` and health.
fn calls() -> Vec<(&'static str, Asks, Call)> {
    use Asks::{Keys, Nothing, ToBeAUser, ToBeRoot};
    let default = TxnRequest::default;
    vec![
        ("Range", Keys, call!(KvClient.range, range("a"))),
        (
            "serializable Range",
            Keys,
            call!(KvClient.range, RangeRequest { serializable: true, ..range("a") }),
        ),
        (
            "Range over a range",
            Keys,
            call!(KvClient.range, RangeRequest { range_end: "b".into(), ..range("a") }),
        ),
        ("RangeStream", Keys, call!(KvClient.range_stream, range("a"))),
        ("Put", Keys, call!(KvClient.put, put("a", false))),
        ("DeleteRange", Keys, call!(KvClient.delete_range, delete("a", false))),
        (
            "Txn",
            Keys,
            call!(
                KvClient.txn,
                TxnRequest {
                    success: vec![op(Request::RequestPut(put("a", true)))],
                    ..TxnRequest::default()
                }
            ),
        ),
        (
            "Txn without anything",
            ToBeAUser,
            Box::new(move |channel, token| {
                let request = with(token, default());
                Box::pin(async move { KvClient::new(channel).txn(request).await.map(drop) })
            }),
        ),
        ("Compact", ToBeRoot, call!(KvClient.compact, CompactionRequest { revision: 99, physical: false })),
        (
            "LeaseKeepAlive",
            ToBeAUser,
            call!(
                LeaseClient.lease_keep_alive,
                tonic::codegen::tokio_stream::once(pb::LeaseKeepAliveRequest { id: 7 })
            ),
        ),
        (
            "LeaseGrant",
            ToBeAUser,
            call!(LeaseClient.lease_grant, pb::LeaseGrantRequest { ttl: 600, ..Default::default() }),
        ),
        ("LeaseRevoke", ToBeAUser, call!(LeaseClient.lease_revoke, pb::LeaseRevokeRequest { id: 7 })),
        (
            "LeaseTimeToLive",
            ToBeAUser,
            call!(LeaseClient.lease_time_to_live, pb::LeaseTimeToLiveRequest { id: 7, keys: true }),
        ),
        ("LeaseLeases", ToBeAUser, call!(LeaseClient.lease_leases, pb::LeaseLeasesRequest {})),
        ("Lock", Keys, call!(LockClient.lock, LockRequest { name: "a".into(), lease: 7 })),
        ("Unlock", Keys, call!(LockClient.unlock, UnlockRequest { key: "a/7".into() })),
        (
            "Campaign",
            Keys,
            call!(ElectionClient.campaign, CampaignRequest { name: "a".into(), lease: 7, value: "v".into() }),
        ),
        (
            "Proclaim",
            Keys,
            call!(ElectionClient.proclaim, ProclaimRequest { leader: Some(leader_key()), value: "v".into() }),
        ),
        ("Leader", Keys, call!(ElectionClient.leader, LeaderRequest { name: "a".into() })),
        ("Observe", Keys, call!(ElectionClient.observe, LeaderRequest { name: "a".into() })),
        ("Resign", Keys, call!(ElectionClient.resign, ResignRequest { leader: Some(leader_key()) })),
        ("MemberList", ToBeAUser, call!(ClusterClient.member_list, pb::MemberListRequest::default())),
        ("MemberAdd", ToBeRoot, call!(ClusterClient.member_add, pb::MemberAddRequest::default())),
        ("MemberRemove", ToBeRoot, call!(ClusterClient.member_remove, pb::MemberRemoveRequest::default())),
        ("MemberUpdate", ToBeRoot, call!(ClusterClient.member_update, pb::MemberUpdateRequest::default())),
        ("MemberPromote", ToBeRoot, call!(ClusterClient.member_promote, pb::MemberPromoteRequest::default())),
        ("Status", ToBeAUser, call!(MaintenanceClient.status, pb::StatusRequest {})),
        ("Alarm, look", ToBeAUser, call!(MaintenanceClient.alarm, pb::AlarmRequest::default())),
        (
            "Alarm, change",
            ToBeRoot,
            call!(MaintenanceClient.alarm, pb::AlarmRequest { action: 2, member_id: 7, alarm: 1 }),
        ),
        ("Defragment", ToBeRoot, call!(MaintenanceClient.defragment, pb::DefragmentRequest {})),
        ("Hash", ToBeRoot, call!(MaintenanceClient.hash, pb::HashRequest {})),
        ("HashKV", ToBeRoot, call!(MaintenanceClient.hash_kv, pb::HashKvRequest { revision: 0 })),
        ("Snapshot", ToBeRoot, call!(MaintenanceClient.snapshot, pb::SnapshotRequest {})),
        (
            "MoveLeader",
            ToBeRoot,
            call!(MaintenanceClient.move_leader, pb::MoveLeaderRequest { target_id: 1 }),
        ),
        ("Downgrade", ToBeRoot, call!(MaintenanceClient.downgrade, pb::DowngradeRequest::default())),
        ("AuthStatus", Nothing, call!(AuthClient.auth_status, pb::AuthStatusRequest {})),
        ("AuthEnable", ToBeRoot, call!(AuthClient.auth_enable, pb::AuthEnableRequest {})),
        (
            "UserAdd",
            ToBeRoot,
            call!(AuthClient.user_add, pb::AuthUserAddRequest { name: "new".into(), ..Default::default() }),
        ),
        ("UserGet", ToBeRoot, call!(AuthClient.user_get, pb::AuthUserGetRequest { name: "new".into() })),
        ("UserList", ToBeRoot, call!(AuthClient.user_list, pb::AuthUserListRequest {})),
        (
            "UserChangePassword",
            ToBeRoot,
            call!(
                AuthClient.user_change_password,
                pb::AuthUserChangePasswordRequest { name: "new".into(), ..Default::default() }
            ),
        ),
        ("RoleAdd", ToBeRoot, call!(AuthClient.role_add, pb::AuthRoleAddRequest { name: "new".into() })),
        ("RoleGet", ToBeRoot, call!(AuthClient.role_get, pb::AuthRoleGetRequest { role: "new".into() })),
        ("RoleList", ToBeRoot, call!(AuthClient.role_list, pb::AuthRoleListRequest {})),
        (
            "RoleGrantPermission",
            ToBeRoot,
            call!(
                AuthClient.role_grant_permission,
                pb::AuthRoleGrantPermissionRequest { name: "new".into(), perm: None }
            ),
        ),
        (
            "RoleRevokePermission",
            ToBeRoot,
            call!(
                AuthClient.role_revoke_permission,
                pb::AuthRoleRevokePermissionRequest { role: "new".into(), ..Default::default() }
            ),
        ),
        (
            "UserGrantRole",
            ToBeRoot,
            call!(
                AuthClient.user_grant_role,
                pb::AuthUserGrantRoleRequest { user: "new".into(), role: "new".into() }
            ),
        ),
        (
            "UserRevokeRole",
            ToBeRoot,
            call!(
                AuthClient.user_revoke_role,
                pb::AuthUserRevokeRoleRequest { name: "new".into(), role: "new".into() }
            ),
        ),
        (
            "RoleDelete",
            ToBeRoot,
            call!(AuthClient.role_delete, pb::AuthRoleDeleteRequest { role: "new".into() }),
        ),
        (
            "UserDelete",
            ToBeRoot,
            call!(AuthClient.user_delete, pb::AuthUserDeleteRequest { name: "new".into() }),
        ),
    ]
}

fn leader_key() -> LeaderKey {
    LeaderKey { name: "a".into(), key: "a/7".into(), rev: 1, lease: 7 }
}

fn put(key: &'static str, prev_kv: bool) -> PutRequest {
    PutRequest { key: key.into(), prev_kv, ..PutRequest::default() }
}

fn delete(key: &'static str, prev_kv: bool) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key.into(), prev_kv, ..DeleteRangeRequest::default() }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// Refused for what the caller is, with this code and text; `None`: not refused for that, whatever the request came to.
fn refusal(result: &Result<(), Status>) -> Option<(Code, &str)> {
    let status = result.as_ref().err()?;
    let about_the_caller = [NO_NAME, DENIED, BAD_TOKEN, "etcdserver: revision of auth store is old"];
    about_the_caller.contains(&status.message()).then(|| (status.code(), status.message()))
}

const NOBODY: Option<(Code, &str)> = Some((Code::InvalidArgument, NO_NAME));
const NOT_HIS: Option<(Code, &str)> = Some((Code::PermissionDenied, DENIED));
const NO_TOKEN: Option<(Code, &str)> = Some((Code::Unauthenticated, BAD_TOKEN));

#[tokio::test]
async fn every_rpc_asks_for_its_right() {
    use Asks::{Keys, Nothing, ToBeRoot};
    let served = Served::start(OPTIONS).await;
    let mut admin = Admin::enable(&served).await;
    admin.add_role("a", Type::Readwrite, "a", "b").await;
    for name in ["with", "without"] {
        admin.add_user(name, name).await;
    }
    admin.grant("with", "a").await;
    let (with, without) =
        (admin.login("with", "with").await.unwrap(), admin.login("without", "without").await.unwrap());
    for (name, asks, call) in calls() {
        let callers = [
            ("nobody", "", (asks != Nothing).then_some(NOBODY).flatten()),
            ("a stranger's token", "nonsense", (asks != Nothing).then_some(NO_TOKEN).flatten()),
            (
                "a user without rights",
                &*without,
                matches!(asks, Keys | ToBeRoot).then_some(NOT_HIS).flatten(),
            ),
            ("a user with rights", &*with, (asks == ToBeRoot).then_some(NOT_HIS).flatten()),
            ("root", &*admin.token, None),
        ];
        for (caller, token, expected) in callers {
            let result = call(served.channel.clone(), token).await;
            assert_eq!(refusal(&result), expected, "{name} by {caller}: {result:?}");
        }
    }
    let disable = |token: &str| crate::auth::with(token, pb::AuthDisableRequest {});
    check_refusal(admin.auth.auth_disable(disable("")).await, Code::InvalidArgument, NO_NAME);
    check_refusal(admin.auth.auth_disable(disable(&with)).await, Code::PermissionDenied, DENIED);
    admin.auth.auth_disable(disable(&admin.token)).await.unwrap();
    for (name, _, call) in calls().into_iter().filter(|(name, ..)| *name != "AuthEnable") {
        let result = call(served.channel.clone(), "").await;
        assert_eq!(refusal(&result), None, "{name}, switched off: {result:?}");
    }
    served.stop().await;
}

#[tokio::test]
async fn no_rpc_takes_a_token_whose_time_is_up() {
    let served = Served::start(&jwt_options()).await;
    let mut admin = Admin::enable(&served).await;
    let status = admin.auth.auth_status(pb::AuthStatusRequest {}).await.unwrap().into_inner();
    let expired = jwt("root", status.auth_revision, 1);
    for (name, asks, call) in calls() {
        let result = call(served.channel.clone(), &expired).await;
        let expected = if asks == Asks::Nothing { None } else { NO_TOKEN };
        assert_eq!(refusal(&result), expected, "{name}: {result:?}");
    }
    for (name, _, _, txn) in transactions() {
        let result = served.kv.clone().txn(crate::auth::with(&expired, txn)).await.map(drop);
        assert_eq!(refusal(&result), NO_TOKEN, "{name}: {result:?}");
    }
    served.stop().await;
}

/// A new RPC without a row here would be one whose right nobody asked about.
#[test]
fn every_rpc_of_the_api_is_in_the_table() {
    // Logging in is open; `AuthDisable` is called when the table is through; a watch is refused in its stream: `auth`. Health is open.
    let elsewhere = ["Authenticate", "AuthDisable", "Watch", "Check"];
    let pool = prost_reflect::DescriptorPool::decode(&include_bytes!("../../src/proto/descriptors.bin")[..])
        .unwrap();
    let calls = calls();
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let is_named =
            |(name, ..): &(&str, Asks, Call)| name.split([' ', ',']).any(|word| word == method.name());
        let is_there = calls.iter().any(is_named);
        assert_ne!(is_there, elsewhere.contains(&method.name()), "{}", method.full_name());
    }
}

/// What one operation does with key `k`, and which of the two rights it takes.
fn operations() -> Vec<(&'static str, bool, bool, Request)> {
    let k = "k";
    vec![
        ("range", true, false, Request::RequestRange(range(k))),
        (
            "serializable range",
            true,
            false,
            Request::RequestRange(RangeRequest { serializable: true, ..range(k) }),
        ),
        ("put", false, true, Request::RequestPut(put(k, false))),
        ("put with prev_kv", true, true, Request::RequestPut(put(k, true))),
        ("delete", false, true, Request::RequestDeleteRange(delete(k, false))),
        ("delete with prev_kv", true, true, Request::RequestDeleteRange(delete(k, true))),
    ]
}

/// A transaction with an operation in every place that one can be in, taken or not.
fn places(request: &Request) -> Vec<(&'static str, TxnRequest)> {
    let here = || vec![op(request.clone())];
    let branches = |success, failure| TxnRequest { compare: vec![], success, failure };
    let nest = |txn| vec![op(Request::RequestTxn(txn))];
    vec![
        ("taken", branches(here(), vec![])),
        ("not taken", branches(vec![], here())),
        ("nested, taken", branches(nest(branches(here(), vec![])), vec![])),
        ("nested, not taken", branches(nest(branches(vec![], here())), vec![])),
        ("nested in what is not taken", branches(vec![], nest(branches(here(), vec![])))),
        ("nested twice", branches(vec![], nest(branches(nest(branches(vec![], here())), vec![])))),
    ]
}

/// A transaction with a compare of `k`, itself or nested.
fn compares() -> Vec<(&'static str, TxnRequest)> {
    let compare = Compare { key: "k".into(), ..Compare::default() };
    let plain = TxnRequest { compare: vec![compare], ..TxnRequest::default() };
    let nested = |success, failure| TxnRequest { success, failure, ..TxnRequest::default() };
    let inner = || vec![op(Request::RequestTxn(plain.clone()))];
    vec![
        ("compare", plain.clone()),
        ("compare, nested", nested(inner(), vec![])),
        ("compare, nested in what is not taken", nested(vec![], inner())),
    ]
}

/// Every compare and operation in every place: its name, whether it takes the right to read, and to write.
fn transactions() -> Vec<(String, bool, bool, TxnRequest)> {
    let mut transactions: Vec<_> =
        compares().into_iter().map(|(place, txn)| (place.to_owned(), true, false, txn)).collect();
    for (name, read, write, request) in operations() {
        let places = places(&request).into_iter();
        transactions.extend(places.map(|(place, txn)| (format!("{name}, {place}"), read, write, txn)));
    }
    transactions
}

#[tokio::test]
async fn every_operation_in_every_place_asks_for_its_right() {
    let served = Served::start(OPTIONS).await;
    let mut admin = Admin::enable(&served).await;
    admin.add_role("reads", Type::Read, "k", "").await;
    admin.add_role("writes", Type::Write, "k", "").await;
    admin.add_role("elsewhere", Type::Readwrite, "l", "\0").await;
    // May read, may write.
    let mut callers = vec![
        ("nobody", false, false, String::new()),
        ("a stranger's token", false, false, "nonsense".to_owned()),
        ("root", true, true, admin.token.clone()),
    ];
    for (name, reads, writes, roles) in [
        ("reader", true, false, &["reads"][..]),
        ("writer", false, true, &["writes"]),
        ("both", true, true, &["reads", "writes", "elsewhere"]),
        ("stranger", false, false, &["elsewhere"]),
    ] {
        admin.add_user(name, name).await;
        for role in roles {
            admin.grant(name, role).await;
        }
        callers.push((name, reads, writes, admin.login(name, name).await.unwrap()));
    }
    let mut kv = served.kv.clone();
    for (name, read, write, txn) in transactions() {
        for (caller, may_read, may_write, token) in &callers {
            let before = revision(&served, &admin).await;
            let result = kv.txn(with(token, txn.clone())).await.map(drop);
            let expected = match *caller {
                "nobody" => NOBODY,
                "a stranger's token" => NO_TOKEN,
                _ if (read && !may_read) || (write && !may_write) => NOT_HIS,
                _ => None,
            };
            assert_eq!(refusal(&result), expected, "{name} by {caller}: {result:?}");
            if expected.is_some() {
                assert_eq!(revision(&served, &admin).await, before, "{name} by {caller} left a trace");
            } else {
                result.unwrap_or_else(|error| panic!("{name} by {caller}: {error}"));
            }
        }
    }
    served.stop().await;
}

async fn revision(served: &Served, admin: &Admin) -> i64 {
    let request = with(&admin.token, range("k"));
    served.kv.clone().range(request).await.unwrap().into_inner().header.unwrap().revision
}

/// A range must lie within the union of what is granted, and the answer of a range says nothing of keys beyond.
#[tokio::test]
async fn a_range_needs_every_key_in_it() {
    let served = Served::start(OPTIONS).await;
    let mut admin = Admin::enable(&served).await;
    admin.add_role("first", Type::Read, "a", "c").await;
    admin.add_role("second", Type::Readwrite, "b", "d").await;
    admin.add_role("all", Type::Read, "\0", "\0").await;
    admin.add_user("u", "u").await;
    admin.grant("u", "first").await;
    admin.grant("u", "second").await;
    let token = admin.login("u", "u").await.unwrap();
    let mut kv = served.kv.clone();
    let mut check = async |key: &'static str, end: &'static str, is_permitted: bool| {
        let request = RangeRequest { key: key.into(), range_end: end.into(), ..RangeRequest::default() };
        let result = kv.range(with(&token, request)).await.map(drop);
        assert_eq!(refusal(&result), if is_permitted { None } else { NOT_HIS }, "{key:?} to {end:?}");
    };
    check("a", "d", true).await;
    check("b", "c", true).await;
    check("c", "c", true).await;
    check("a", "d\0", false).await;
    check("0", "b", false).await;
    check("a", "\0", false).await;
    check("\0", "\0", false).await;
    check("d", "", false).await;
    admin.grant("u", "all").await;
    check("a", "\0", true).await;
    check("\0", "\0", true).await;
    served.stop().await;
}
