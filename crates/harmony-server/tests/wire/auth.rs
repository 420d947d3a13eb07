//! Logging in, users and roles over the wire: every text that concerns them, and what a token outlives. Who may call what is in
//! `auth_table`.

use std::path::PathBuf;

use harmony_server::proto::authpb::{Permission, UserAddOptions, permission::Type};
use harmony_server::proto::etcdserverpb as pb;
use harmony_server::proto::etcdserverpb::auth_client::AuthClient;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::served::{Served, check_refusal, range};

pub(crate) const NO_NAME: &str = "etcdserver: user name is empty";
pub(crate) const DENIED: &str = "etcdserver: permission denied";
pub(crate) const BAD_TOKEN: &str = "etcdserver: invalid auth token";
const OLD: &str = "etcdserver: revision of auth store is old";

/// Cheap passwords, as tests need many.
pub(crate) const OPTIONS: &str = "bcrypt-cost = 4\n";

/// A request of whoever holds a token; of nobody without one.
pub(crate) fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        request.metadata_mut().insert("token", token.parse().unwrap());
    }
    request
}

/// The Auth service as root uses it.
pub(crate) struct Admin {
    pub(crate) auth: AuthClient<Channel>,
    pub(crate) token: String,
}

impl Admin {
    pub(crate) fn of(served: &Served) -> Self {
        Self { auth: AuthClient::new(served.channel.clone()), token: String::new() }
    }

    /// Adds root, switches permissions on, and logs in.
    pub(crate) async fn enable(served: &Served) -> Self {
        let mut admin = Self::of(served);
        admin.add_user("root", "root-secret").await;
        admin.grant("root", "root").await;
        admin.auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
        admin.token = admin.login("root", "root-secret").await.unwrap();
        admin
    }

    pub(crate) async fn login(&self, name: &str, password: &str) -> Result<String, Status> {
        let request = pb::AuthenticateRequest { name: name.into(), password: password.into() };
        self.auth.clone().authenticate(request).await.map(|answer| answer.into_inner().token)
    }

    pub(crate) async fn add_user(&mut self, name: &str, password: &str) {
        let request =
            pb::AuthUserAddRequest { name: name.into(), password: password.into(), ..Default::default() };
        self.auth.user_add(with(&self.token, request)).await.unwrap();
    }

    pub(crate) async fn grant(&mut self, user: &str, role: &str) {
        let request = pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
        self.auth.user_grant_role(with(&self.token, request)).await.unwrap();
    }

    pub(crate) async fn add_role(&mut self, name: &str, kind: Type, key: &'static str, end: &'static str) {
        let request = pb::AuthRoleAddRequest { name: name.into() };
        self.auth.role_add(with(&self.token, request)).await.unwrap();
        self.auth.role_grant_permission(with(&self.token, permission(name, kind, key, end))).await.unwrap();
    }

    async fn change_password(&mut self, name: &str, password: &str) -> Result<(), Status> {
        let request = pb::AuthUserChangePasswordRequest {
            name: name.into(),
            password: password.into(),
            ..Default::default()
        };
        self.auth.user_change_password(with(&self.token, request)).await.map(drop)
    }
}

fn permission(
    role: &str,
    kind: Type,
    key: &'static str,
    end: &'static str,
) -> pb::AuthRoleGrantPermissionRequest {
    let perm = Permission { perm_type: kind.into(), key: key.into(), range_end: end.into() };
    pb::AuthRoleGrantPermissionRequest { name: role.into(), perm: Some(perm) }
}

fn user_add(name: &str, no_password: bool) -> pb::AuthUserAddRequest {
    let options = Some(UserAddOptions { no_password });
    pb::AuthUserAddRequest { name: name.into(), options, ..Default::default() }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Status>, message: &str) {
    check_refusal(result, Code::FailedPrecondition, &format!("etcdserver: {message}"));
}

#[track_caller]
fn invalid<T: std::fmt::Debug>(result: Result<T, Status>, message: &str) {
    check_refusal(result, Code::InvalidArgument, &format!("etcdserver: {message}"));
}

#[tokio::test]
async fn every_refusal_has_etcds_words() {
    let served = Served::start(OPTIONS).await;
    let mut admin = Admin::of(&served);
    refused(admin.login("root", "x").await, "authentication is not enabled");
    refused(admin.auth.auth_enable(pb::AuthEnableRequest {}).await, "root user does not exist");
    admin.add_user("root", "root-secret").await;
    refused(admin.auth.auth_enable(pb::AuthEnableRequest {}).await, "root user does not have root role");
    admin.grant("root", "root").await;
    admin.grant("root", "root").await;
    let enable =
        async |admin: &mut Admin| admin.auth.auth_enable(with(&admin.token, pb::AuthEnableRequest {})).await;
    enable(&mut admin).await.unwrap();
    admin.token = admin.login("root", "root-secret").await.unwrap();
    enable(&mut admin).await.expect("idempotent");

    // Logging in.
    const FAILED: &str = "authentication failed, invalid user ID or password";
    invalid(admin.login("root", "wrong").await, FAILED);
    invalid(admin.login("root", "").await, FAILED);
    invalid(admin.login("nobody", "root-secret").await, FAILED);
    invalid(admin.login("", "").await, FAILED);
    let token = admin.token.clone();
    let mut auth = admin.auth.clone();
    auth.user_add(with(&token, user_add("certified", true))).await.unwrap();
    check_refusal(
        admin.login("certified", "x").await,
        Code::Unknown,
        "auth: authentication failed, password was given for no password user",
    );
    admin.change_password("certified", "x").await.expect("etcd leaves it without a password");
    check_refusal(
        admin.login("certified", "x").await,
        Code::Unknown,
        "auth: authentication failed, password was given for no password user",
    );

    // Users.
    let role = |name: &str| pb::AuthRoleAddRequest { name: name.into() };
    invalid(auth.user_add(with(&token, user_add("", false))).await, "user name is empty");
    invalid(auth.user_add(with(&token, user_add("", true))).await, "user name is empty");
    refused(auth.user_add(with(&token, user_add("root", false))).await, "user name already exists");
    let long = pb::AuthUserAddRequest { name: "long".into(), password: "x".repeat(73), ..Default::default() };
    check_refusal(
        auth.user_add(with(&token, long)).await,
        Code::Unknown,
        "bcrypt: password length exceeds 72 bytes",
    );
    refused(admin.change_password("nobody", "x").await, "user name not found");
    let get = pb::AuthUserGetRequest { name: "nobody".into() };
    refused(auth.user_get(with(&token, get)).await, "user name not found");
    let delete = |name: &str| pb::AuthUserDeleteRequest { name: name.into() };
    refused(auth.user_delete(with(&token, delete("nobody"))).await, "user name not found");
    invalid(auth.user_delete(with(&token, delete("root"))).await, "invalid auth management");

    // Roles.
    invalid(auth.role_add(with(&token, role(""))).await, "role name is empty");
    auth.role_add(with(&token, role("r"))).await.unwrap();
    refused(auth.role_add(with(&token, role("r"))).await, "role name already exists");
    let get = pb::AuthRoleGetRequest { role: "none".into() };
    refused(auth.role_get(with(&token, get)).await, "role name not found");
    let delete = |name: &str| pb::AuthRoleDeleteRequest { role: name.into() };
    refused(auth.role_delete(with(&token, delete("none"))).await, "role name not found");
    invalid(auth.role_delete(with(&token, delete("root"))).await, "invalid auth management");
    let grant =
        |user: &str, role: &str| pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
    refused(auth.user_grant_role(with(&token, grant("nobody", "r"))).await, "user name not found");
    refused(auth.user_grant_role(with(&token, grant("root", "none"))).await, "role name not found");
    let revoke =
        |user: &str, role: &str| pb::AuthUserRevokeRoleRequest { name: user.into(), role: role.into() };
    refused(auth.user_revoke_role(with(&token, revoke("nobody", "r"))).await, "user name not found");
    refused(
        auth.user_revoke_role(with(&token, revoke("root", "r"))).await,
        "role is not granted to the user",
    );
    invalid(auth.user_revoke_role(with(&token, revoke("root", "root"))).await, "invalid auth management");

    // Permissions.
    let none = pb::AuthRoleGrantPermissionRequest { name: "r".into(), perm: None };
    invalid(auth.role_grant_permission(with(&token, none)).await, "permission not given");
    let grant = async |role: &str, key, end| {
        let request = permission(role, Type::Read, key, end);
        auth.clone().role_grant_permission(with(&token, request)).await
    };
    refused(grant("none", "a", "").await, "role name not found");
    invalid(grant("r", "", "").await, "invalid auth management");
    invalid(grant("r", "b", "a").await, "invalid auth management");
    let revoke = |role: &str| pb::AuthRoleRevokePermissionRequest {
        role: role.into(),
        key: "a".into(),
        ..Default::default()
    };
    refused(auth.role_revoke_permission(with(&token, revoke("none"))).await, "role name not found");
    refused(
        auth.role_revoke_permission(with(&token, revoke("r"))).await,
        "permission is not granted to the role",
    );
    served.stop().await;
}

#[tokio::test]
async fn users_and_roles_are_told_to_root_and_to_themselves() {
    let served = Served::start(OPTIONS).await;
    let mut admin = Admin::enable(&served).await;
    admin.add_user("alice", "a").await;
    admin.add_role("r", Type::Readwrite, "a", "c").await;
    admin.add_role("other", Type::Read, "z", "\0").await;
    admin.grant("alice", "r").await;
    let alice = admin.login("alice", "a").await.unwrap();
    let mut auth = admin.auth.clone();

    let user = |name: &str| pb::AuthUserGetRequest { name: name.into() };
    let role = |name: &str| pb::AuthRoleGetRequest { role: name.into() };
    for token in [&alice, &admin.token] {
        assert_eq!(auth.user_get(with(token, user("alice"))).await.unwrap().into_inner().roles, ["r"]);
        let perm = auth.role_get(with(token, role("r"))).await.unwrap().into_inner().perm;
        let expected = Permission { perm_type: 2, key: "a".into(), range_end: "c".into() };
        assert_eq!(perm, [expected]);
    }
    check_refusal(auth.user_get(with(&alice, user("root"))).await, Code::PermissionDenied, DENIED);
    check_refusal(auth.role_get(with(&alice, role("other"))).await, Code::PermissionDenied, DENIED);
    check_refusal(auth.role_get(with(&alice, role("none"))).await, Code::PermissionDenied, DENIED);
    let users = auth.user_list(with(&admin.token, pb::AuthUserListRequest {})).await.unwrap().into_inner();
    assert_eq!(users.users, ["alice", "root"]);
    let roles = auth.role_list(with(&admin.token, pb::AuthRoleListRequest {})).await.unwrap().into_inner();
    assert_eq!(roles.roles, ["other", "r"]);

    // The root role, once it is added, shows as a permission on all keys.
    auth.role_add(with(&admin.token, pb::AuthRoleAddRequest { name: "root".into() })).await.unwrap();
    let perm = auth.role_get(with(&admin.token, role("root"))).await.unwrap().into_inner().perm;
    assert_eq!(perm, [Permission { perm_type: 2, key: "".into(), range_end: "\0".into() }]);

    let status = auth.auth_status(pb::AuthStatusRequest {}).await.unwrap().into_inner();
    // Two users, two grants, two roles with a permission each, and one more role.
    assert_eq!((status.enabled, status.auth_revision), (true, 1 + 2 + 2 + 4 + 1));
    assert_eq!(status.header.unwrap().revision, 1, "no key changed");
    served.stop().await;
}

#[tokio::test]
async fn a_simple_token_outlives_a_restart_and_dies_with_its_password() {
    let mut served = Served::start(OPTIONS).await;
    let mut admin = Admin::enable(&served).await;
    admin.add_user("alice", "a").await;
    admin.add_role("r", Type::Read, "k", "").await;
    admin.grant("alice", "r").await;
    let (root, alice) = (admin.token.clone(), admin.login("alice", "a").await.unwrap());
    served.kv.range(with(&alice, range("k"))).await.unwrap();
    drop(admin);
    let dir = served.stop().await;

    let mut served = Served::start_in(dir, OPTIONS).await;
    served.kv.range(with(&alice, range("k"))).await.unwrap();
    let mut admin = Admin { token: root, ..Admin::of(&served) };
    // Rights that change count at once, and need no new login.
    admin.add_role("more", Type::Read, "l", "").await;
    check_refusal(served.kv.range(with(&alice, range("l"))).await, Code::PermissionDenied, DENIED);
    admin.grant("alice", "more").await;
    served.kv.range(with(&alice, range("l"))).await.unwrap();
    let delete = pb::AuthRoleDeleteRequest { role: "more".into() };
    admin.auth.role_delete(with(&admin.token, delete)).await.unwrap();
    check_refusal(served.kv.range(with(&alice, range("l"))).await, Code::PermissionDenied, DENIED);

    // The same password is another one.
    admin.change_password("alice", "a").await.unwrap();
    check_refusal(served.kv.range(with(&alice, range("k"))).await, Code::Unauthenticated, BAD_TOKEN);
    let alice = admin.login("alice", "a").await.unwrap();
    served.kv.range(with(&alice, range("k"))).await.unwrap();
    let delete = pb::AuthUserDeleteRequest { name: "alice".into() };
    admin.auth.user_delete(with(&admin.token, delete)).await.unwrap();
    check_refusal(served.kv.range(with(&alice, range("k"))).await, Code::Unauthenticated, BAD_TOKEN);
    admin.add_user("alice", "a").await;
    check_refusal(served.kv.range(with(&alice, range("k"))).await, Code::Unauthenticated, BAD_TOKEN);

    // Switched off, nobody asks; a token that proves nothing does no harm then.
    admin.auth.auth_disable(with(&admin.token, pb::AuthDisableRequest {})).await.unwrap();
    served.kv.range(range("k")).await.unwrap();
    served.kv.range(with("nonsense", range("k"))).await.unwrap();
    served.put("k", "v").await;
    admin.auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
    check_refusal(served.kv.range(range("k")).await, Code::InvalidArgument, NO_NAME);
    served.stop().await;
}

/// What a member does by itself is asked of nobody.
#[tokio::test]
async fn a_member_raises_and_clears_its_alarm_with_nobody_logged_in() {
    let mut served = Served::start(&format!("{OPTIONS}quota-backend-bytes = 100000")).await;
    let admin = Admin::enable(&served).await;
    let put = |key: String, bytes: usize| {
        let request = pb::PutRequest { key: key.into(), value: vec![7; bytes].into(), ..Default::default() };
        with(&admin.token, request)
    };
    served.kv.put(put("other".into(), 0)).await.unwrap();
    let mut written = 0;
    while served.kv.put(put(format!("key{written}"), 10_000)).await.is_ok() {
        written += 1;
    }
    assert!((5..10).contains(&written), "{written}");
    let mut maintenance = served.maintenance.clone();
    let mut raised = async || {
        let request = with(&admin.token, pb::AlarmRequest::default());
        maintenance.alarm(request).await.unwrap().into_inner().alarms.len()
    };
    while raised().await == 0 {
        tokio::task::yield_now().await;
    }
    // What the last delete replaced is history at the compact revision, which stays.
    let mut revision = 0;
    for (key, range_end) in [("key", "kez"), ("other", "")] {
        let (key, range_end) = (key.into(), range_end.into());
        let delete = pb::DeleteRangeRequest { key, range_end, prev_kv: false };
        let deleted = served.kv.delete_range(with(&admin.token, delete)).await.unwrap().into_inner();
        revision = deleted.header.unwrap().revision;
    }
    let compact = pb::CompactionRequest { revision, physical: true };
    served.kv.compact(with(&admin.token, compact)).await.unwrap();
    while raised().await != 0 {
        tokio::task::yield_now().await;
    }
    served.stop().await;
}

/// Each change makes the auth revision of whatever is on its way old; who holds a simple token does not notice.
#[tokio::test]
async fn changes_that_do_not_concern_a_user_do_not_disturb_it() {
    let served = Served::start(OPTIONS).await;
    let mut admin = Admin::enable(&served).await;
    admin.add_user("alice", "a").await;
    admin.add_role("r", Type::Readwrite, "k", "").await;
    admin.grant("alice", "r").await;
    let alice = admin.login("alice", "a").await.unwrap();
    let mut tasks = Vec::new();
    for round in 0..40 {
        let (mut auth, root) = (admin.auth.clone(), admin.token.clone());
        let role = pb::AuthRoleAddRequest { name: format!("role{round}") };
        tasks.push(tokio::spawn(async move { auth.role_add(with(&root, role)).await.map(drop) }));
        let (mut kv, token) = (served.kv.clone(), alice.clone());
        let put = pb::PutRequest { key: "k".into(), prev_kv: true, ..Default::default() };
        tasks.push(tokio::spawn(async move { kv.put(with(&token, put)).await.map(drop) }));
        let (mut kv, token) = (served.kv.clone(), alice.clone());
        tasks.push(tokio::spawn(async move { kv.range(with(&token, range("k"))).await.map(drop) }));
    }
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    served.stop().await;
}

/// The keys of the tests.
fn key(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name)
}

pub(crate) fn jwt_options() -> String {
    let (public, private) = (key("rsa.pub.pem"), key("rsa.pem"));
    let (public, private) = (public.display(), private.display());
    format!("{OPTIONS}auth-token = 'jwt,pub-key={public},priv-key={private},sign-method=RS256,ttl=10m'\n")
}

/// A token that somebody else made with the cluster's key.
pub(crate) fn jwt(user: &str, revision: u64, exp: u64) -> String {
    let pem = std::fs::read(key("rsa.pem")).unwrap();
    let claims = serde_json::json!({"username": user, "revision": revision, "exp": exp});
    let signing = EncodingKey::from_rsa_pem(&pem).unwrap();
    jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &signing).unwrap()
}

/// Far in the future, seconds since 1970.
const NEVER: u64 = 100_000_000_000;

#[tokio::test]
async fn a_jwt_holds_until_users_or_roles_change() {
    let mut served = Served::start(&jwt_options()).await;
    let mut admin = Admin::enable(&served).await;
    assert_eq!(admin.token.split('.').count(), 3, "{}", admin.token);
    served.kv.range(with(&admin.token, range("k"))).await.unwrap();
    let status = admin.auth.auth_status(pb::AuthStatusRequest {}).await.unwrap().into_inner();
    let revision = status.auth_revision;
    served.kv.range(with(&jwt("root", revision, NEVER), range("k"))).await.unwrap();
    check_refusal(
        served.kv.range(with(&jwt("root", revision, 1), range("k"))).await,
        Code::Unauthenticated,
        BAD_TOKEN,
    );
    check_refusal(
        served.kv.range(with(&jwt("nobody", revision, NEVER), range("k"))).await,
        Code::PermissionDenied,
        DENIED,
    );
    check_refusal(
        served.kv.range(with(&jwt("root", revision + 1, NEVER), range("k"))).await,
        Code::Unauthenticated,
        BAD_TOKEN,
    );
    admin.add_user("alice", "a").await;
    check_refusal(served.kv.range(with(&admin.token, range("k"))).await, Code::InvalidArgument, OLD);
    let put = pb::PutRequest { key: "k".into(), ..Default::default() };
    check_refusal(served.kv.put(with(&admin.token, put)).await, Code::InvalidArgument, OLD);
    let status = with(&admin.token, pb::StatusRequest {});
    check_refusal(served.maintenance.status(status).await, Code::InvalidArgument, OLD);
    // What is for root alone may be several changes in a row.
    admin.add_role("r", Type::Read, "k", "").await;
    let token = admin.login("root", "root-secret").await.unwrap();
    served.kv.range(with(&token, range("k"))).await.unwrap();
    let dir = served.stop().await;

    // A member that has the public key alone checks tokens and makes none.
    let public = key("rsa.pub.pem");
    let options = format!("{OPTIONS}auth-token = 'jwt,pub-key={},sign-method=RS256'\n", public.display());
    let mut served = Served::start_in(dir, &options).await;
    served.kv.range(with(&token, range("k"))).await.unwrap();
    check_refusal(
        Admin::of(&served).login("root", "root-secret").await,
        Code::Unknown,
        "auth: token signing attempted with verify-only key",
    );
    served.stop().await;
}
