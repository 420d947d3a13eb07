//! Users and roles against real processes: `etcdctl`'s commands word by word, and three members that know each other's tokens.
//!
//! Without `etcdctl` in the path its test says so and is skipped, except where `CI` is set: there it fails.

mod kit;
mod program;

use std::sync::{Arc, OnceLock};

use harmony_server::proto::authpb::{Permission, permission::Type};
use harmony_server::proto::etcdserverpb as pb;
use harmony_testkit::wait::{PATIENCE, until};
use harmony_types::{NodeId, TestCluster};
use kit::GrpcClient;
use program::{HARMONY, Said, run};
use tonic::{Code, Request, Status};

/// Cheap passwords.
const FLAGS: [&str; 2] = ["--bcrypt-cost", "4"];

struct Etcdctl {
    endpoints: Vec<String>,
    turn: usize,
}

impl Etcdctl {
    /// Runs a command at the next endpoint, as this user (`name:password`), or as nobody.
    fn run(&mut self, user: &str, args: &str) -> Said {
        self.input(user, args, "")
    }

    fn input(&mut self, user: &str, args: &str, input: &str) -> Said {
        self.turn += 1;
        let endpoint = &self.endpoints[self.turn % self.endpoints.len()];
        let mut all = vec![format!("--endpoints={endpoint}")];
        if !user.is_empty() {
            all.push(format!("--user={user}"));
        }
        all.extend(args.split_whitespace().map(str::to_owned));
        run("etcdctl", all, input)
    }

    #[track_caller]
    fn refused(&mut self, user: &str, args: &str, error: &str) {
        let said = self.run(user, args);
        let line = format!("Error: {error}");
        // It may log the attempt before; a login that fails has an exit code of its own.
        assert!(said.code != Some(0) && said.err.lines().any(|said| said == line), "{line}: {said:?}");
    }
}

/// Who may write `a/`, and read `b` as well, against root and nobody.
fn leases(etcdctl: &mut Etcdctl, root: &str, alice: &str) {
    const NOBODY: &str = "etcdserver: user name is empty";
    let said = etcdctl.run(alice, "lease grant 600");
    let id = said.succeeds().split_whitespace().nth(1).expect("an id").to_owned();
    let with = |args: &str| args.replace("ID", &id);
    let left = |etcdctl: &mut Etcdctl, keys: &str| {
        let said = etcdctl.run(alice, &with("lease timetolive ID --keys"));
        assert!(said.succeeds().ends_with(&format!("attached keys([{keys}])\n")), "{said:?}");
    };
    let denied = |etcdctl: &mut Etcdctl, user: &str, args: &str, error: &str| {
        let said = etcdctl.run(user, &with(args));
        assert!(said.code != Some(0) && said.err.contains(error), "{args}: {said:?}");
    };
    for args in ["grant 600", "timetolive ID", "keep-alive --once ID", "list", "revoke ID"] {
        denied(etcdctl, "", &format!("lease {args}"), NOBODY);
    }
    etcdctl.run(alice, &with("put a/3 x --lease=ID")).prints("OK\n");
    etcdctl.run(root, &with("put b y --lease=ID")).prints("OK\n");
    left(etcdctl, "a/3 b");
    let kept = with("lease ID keepalived with TTL(600)\n");
    etcdctl.run(alice, &with("lease keep-alive --once ID")).prints(&kept);
    etcdctl.run(alice, "lease list").succeeds();
    // What would delete a key that alice may not write.
    denied(etcdctl, alice, "put a/4 x --lease=ID", DENIED);
    denied(etcdctl, alice, "lease revoke ID", DENIED);
    etcdctl.run(root, &with("put c z --lease=ID")).prints("OK\n");
    // What would tell of a key that alice may not read.
    denied(etcdctl, alice, "lease timetolive ID --keys", DENIED);
    denied(etcdctl, alice, "lease list", DENIED);
    etcdctl.run(alice, &with("lease timetolive ID")).succeeds();
    etcdctl.run(root, "put b y").prints("OK\n");
    etcdctl.run(root, "del c").prints("1\n");
    left(etcdctl, "a/3");
    etcdctl.run(alice, &with("lease revoke ID")).prints(&with("lease ID revoked\n"));
    etcdctl.run(alice, "get a/3").prints("");
}

#[test]
fn etcdctl_manages_users_and_roles_at_any_endpoint() {
    if std::process::Command::new("etcdctl").arg("version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "etcdctl is not in the path: install Debian's etcd-client");
        eprintln!("SKIPPED: etcdctl is not in the path; Debian has it in etcd-client");
        return;
    }
    let mut cluster = kit::cluster_with(&FLAGS, &Arc::default());
    cluster.start(3).expect("the cluster starts");
    let endpoints = cluster.nodes().map(|node| node.endpoint()).collect();
    let mut etcdctl = Etcdctl { endpoints, turn: 0 };
    const ROOT: &str = "root:root-secret";
    const ALICE: &str = "alice:a";
    etcdctl.refused("", "auth enable", "etcdserver: root user does not exist");
    etcdctl.run("", "user add root:root-secret").prints("User root created\n");
    etcdctl.run("", "user add alice:a").prints("User alice created\n");
    etcdctl.run("", "user add certified --no-password").prints("User certified created\n");
    etcdctl.refused("", "user add alice:b", "etcdserver: user name already exists");
    etcdctl.run("", "role add r").prints("Role r created\n");
    etcdctl.run("", "role grant-permission r readwrite a/ --prefix").prints("Role r updated\n");
    etcdctl.run("", "role grant-permission r read b").prints("Role r updated\n");
    etcdctl.run("", "user grant-role alice r").prints("Role r is granted to user alice\n");
    // It gives root its role itself when that is what is missing, and logs that it was.
    assert_eq!(etcdctl.run("", "auth enable").succeeds(), "Authentication Enabled\n");

    etcdctl.refused("", "get a/1", "etcdserver: user name is empty");
    etcdctl.refused(
        "alice:wrong",
        "get a/1",
        "etcdserver: authentication failed, invalid user ID or password",
    );
    etcdctl.refused("nobody:x", "get a/1", "etcdserver: authentication failed, invalid user ID or password");
    etcdctl.run(ALICE, "put a/1 x").prints("OK\n");
    etcdctl.run(ALICE, "get a/ --prefix").prints("a/1\nx\n");
    etcdctl.run(ALICE, "get b").prints("");
    etcdctl.refused(ALICE, "put b x", "etcdserver: permission denied");
    etcdctl.refused(ALICE, "get a --prefix", "etcdserver: permission denied");
    etcdctl.run(ROOT, "put b y").prints("OK\n");
    let txn = "value(\"b\") = \"y\"\n\nput a/2 z\n\nput c never\n\n";
    let said = etcdctl.input(ALICE, "txn", txn);
    assert!(said.err.contains("Error: etcdserver: permission denied"), "{said:?}");
    etcdctl.input(ALICE, "txn", &txn.replace("put c never", "get b")).prints("SUCCESS\n\nOK\n");
    leases(&mut etcdctl, ROOT, ALICE);
    etcdctl.refused(ALICE, "compaction 2", "etcdserver: permission denied");
    etcdctl.refused(ALICE, "user list", "etcdserver: permission denied");

    etcdctl.run(ROOT, "user list").prints("alice\ncertified\nroot\n");
    etcdctl.run(ROOT, "role list").prints("r\nroot\n");
    etcdctl.run(ALICE, "user get alice").prints("User: alice\nRoles: r\n");
    let role = "Role r\nKV Read:\n\t[a/, a0) (prefix a/)\n\tb\nKV Write:\n\t[a/, a0) (prefix a/)\n";
    etcdctl.run(ALICE, "role get r").prints(role);
    let health = etcdctl.run(ALICE, "endpoint health");
    assert_eq!(health.code, Some(0), "{health:?}");

    etcdctl.input(ROOT, "user passwd alice --interactive=false", "new\n").prints("Password updated\n");
    etcdctl.refused(ALICE, "get b", "etcdserver: authentication failed, invalid user ID or password");
    etcdctl.run("alice:new", "get b").prints("b\ny\n");
    etcdctl
        .run(ROOT, "role revoke-permission r a/ --prefix")
        .prints("Permission of range [a/, a0) is revoked from role r\n");
    etcdctl.refused("alice:new", "get a/1", "etcdserver: permission denied");
    etcdctl.run(ROOT, "user revoke-role alice r").prints("Role r is revoked from user alice\n");
    etcdctl.refused("alice:new", "get b", "etcdserver: permission denied");
    etcdctl.run(ROOT, "role delete r").prints("Role r deleted\n");
    etcdctl.run(ROOT, "user delete alice").prints("User alice deleted\n");
    etcdctl.refused(ROOT, "user delete root", "etcdserver: invalid auth management");
    etcdctl.run(ROOT, "auth disable").prints("Authentication Disabled\n");
    etcdctl.run("", "get b").prints("b\ny\n");
}

#[test]
fn harmony_manages_users_and_roles_as_etcdctl_does() {
    let mut cluster = kit::cluster_with(&FLAGS, &Arc::default());
    cluster.start(1).expect("the node starts");
    let endpoint = cluster.nodes().next().expect("a node").endpoint();
    let input = |user: &str, args: &str, input: &str| {
        let user: &[&str] = if user.is_empty() { &[] } else { &["--user", user] };
        let args = args.split_whitespace().chain(["--endpoints", &endpoint]).chain(user.iter().copied());
        run(HARMONY, args, input)
    };
    let harmony = |user: &str, args: &str| input(user, args, "");
    const ROOT: &str = "root:root-secret";
    // Nobody asks yet, and a login is not needed: the answer says so, and the command goes on.
    harmony("anybody:x", "auth status").prints("Authentication Status: false\nAuthRevision: 1\n");
    harmony("", "user add root:root-secret").prints("User root created\n");
    harmony("", "user grant-role root root").prints("Role root is granted to user root\n");
    input("", "user add alice", "a\n").prints("User alice created\n");
    input("", "user add alice", "").fails(2, "error: no password: give it as the first line");
    harmony("", "user add certified --no-password").prints("User certified created\n");
    harmony("", "role add r").prints("Role r created\n");
    harmony("", "role grant-permission r readwrite a/ --prefix").prints("Role r updated\n");
    harmony("", "role grant-permission r read b").prints("Role r updated\n");
    harmony("", "role grant-permission r write x --from-key").prints("Role r updated\n");
    harmony("", "role grant-permission r all b").fails(2, "error: invalid value 'all'");
    harmony("", "user grant-role alice r").prints("Role r is granted to user alice\n");
    harmony("", "auth enable").prints("Authentication Enabled\n");

    harmony("", "get b").fails(1, "error: etcdserver: user name is empty");
    harmony("alice", "get b").fails(2, "error: a user without a password");
    let failed = "error: etcdserver: authentication failed, invalid user ID or password";
    harmony("alice:wrong", "get b").fails(1, failed);
    harmony("alice:wrong", "put a/1 x").fails(1, failed);
    harmony("alice:a", "put a/1 x").prints("OK\n");
    harmony("alice", "get a/1 --password a").prints("a/1\nx\n");
    harmony("alice:a", "put b x").fails(1, "error: etcdserver: permission denied");
    harmony("alice:a", "members").succeeds();
    harmony("alice:a", "status").succeeds();

    harmony(ROOT, "user list").prints("alice\ncertified\nroot\n");
    harmony(ROOT, "role list").prints("r\n");
    harmony("alice:a", "user get alice").prints("User: alice\nRoles: r\n");
    let role = "Role r\nKV Read:\n\t[a/, a0) (prefix a/)\n\tb\nKV Write:\n\t[a/, a0) (prefix a/)\n\t[x, <open ended>\n";
    harmony("alice:a", "role get r").prints(role);
    let json = harmony(ROOT, "role get r --json");
    let json: serde_json::Value = serde_json::from_str(json.succeeds()).expect("JSON");
    assert_eq!(json["perm"][1], serde_json::json!({"key": "Yg=="}), "READ is 0, which is left out");
    let json = harmony(ROOT, "user list --json");
    let json: serde_json::Value = serde_json::from_str(json.succeeds()).expect("JSON");
    assert_eq!(json["users"], serde_json::json!(["alice", "certified", "root"]));

    input(ROOT, "user passwd alice", "new\n").prints("Password updated\n");
    harmony("alice:new", "get a/1").prints("a/1\nx\n");
    harmony(ROOT, "role revoke-permission r a/ --prefix")
        .prints("Permission of range [a/, a0) is revoked from role r\n");
    harmony(ROOT, "role revoke-permission r b").prints("Permission of key b is revoked from role r\n");
    harmony("alice:new", "get a/1").fails(1, "error: etcdserver: permission denied");
    harmony(ROOT, "user revoke-role alice r").prints("Role r is revoked from user alice\n");
    harmony(ROOT, "role delete r").prints("Role r deleted\n");
    harmony(ROOT, "user delete alice").prints("User alice deleted\n");
    harmony(ROOT, "auth disable").prints("Authentication Disabled\n");
    harmony("", "get a/1").prints("a/1\nx\n");
}

fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        request.metadata_mut().insert("token", token.parse().expect("hexadecimal"));
    }
    request
}

/// Reads a key of everybody's.
fn get(client: &GrpcClient, token: &str, key: &'static str, serializable: bool) -> Result<(), Status> {
    let range = pb::RangeRequest { key: key.into(), serializable, ..Default::default() };
    client.kv(async |kv| kv.range(with(token, range)).await).map(drop)
}

fn put(client: &GrpcClient, token: &str, key: &'static str) -> Result<(), Status> {
    let put = pb::PutRequest { key: key.into(), ..Default::default() };
    client.kv(async |kv| kv.put(with(token, put)).await).map(drop)
}

fn login(client: &GrpcClient, name: &str, password: &str) -> Result<String, Status> {
    let request = pb::AuthenticateRequest { name: name.into(), password: password.into() };
    client.auth(async |auth| auth.authenticate(request).await).map(|answer| answer.token)
}

fn add_user(client: &GrpcClient, token: &str, name: &str) {
    let request = pb::AuthUserAddRequest { name: name.into(), password: name.into(), ..Default::default() };
    client.auth(async |auth| auth.user_add(with(token, request)).await).expect("a user");
}

fn grant(client: &GrpcClient, token: &str, user: &str, role: &str) {
    let request = pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
    client.auth(async |auth| auth.user_grant_role(with(token, request)).await).expect("a grant");
}

#[track_caller]
fn is_refused(result: Result<(), Status>, code: Code, message: &str) {
    let status = result.expect_err(message);
    assert_eq!((status.code(), status.message()), (code, message));
}

const DENIED: &str = "etcdserver: permission denied";
const BAD_TOKEN: &str = "etcdserver: invalid auth token";

#[test]
fn a_token_of_one_member_is_good_on_all_and_after_every_restart() {
    let known = Arc::new(OnceLock::new());
    let mut cluster = kit::cluster_with(&FLAGS, &known);
    cluster.start(3).expect("the cluster starts");
    let ids: Vec<NodeId> = cluster.nodes().map(|node| node.id()).collect();
    let clients: Vec<GrpcClient> =
        cluster.nodes().map(|node| GrpcClient::new(&node.endpoint()).expect("a client")).collect();
    let [first, second, third] = &clients[..] else { panic!("three members") };

    add_user(first, "", "root");
    grant(second, "", "root", "root");
    add_user(third, "", "alice");
    let role = pb::AuthRoleAddRequest { name: "r".into() };
    first.auth(async |auth| auth.role_add(role).await).expect("a role");
    let perm = Permission { perm_type: Type::Readwrite.into(), key: "k".into(), range_end: "".into() };
    let request = pb::AuthRoleGrantPermissionRequest { name: "r".into(), perm: Some(perm) };
    second.auth(async |auth| auth.role_grant_permission(request).await).expect("a permission");
    grant(third, "", "alice", "r");
    first.auth(async |auth| auth.auth_enable(pb::AuthEnableRequest {}).await).expect("switched on");

    let root = login(second, "root", "root").expect("a token");
    known.set(root.clone()).expect("set once");
    let alice = login(third, "alice", "alice").expect("a token");
    for client in &clients {
        put(client, &alice, "k").expect("a permission on every member");
        get(client, &alice, "k", false).expect("a permission on every member");
        get(client, &alice, "k", true).expect("a permission on every member");
        is_refused(put(client, &alice, "l"), Code::PermissionDenied, DENIED);
        is_refused(get(client, &alice, "l", false), Code::PermissionDenied, DENIED);
        is_refused(get(client, "", "k", false), Code::InvalidArgument, "etcdserver: user name is empty");
        put(client, &root, "l").expect("root may do everything");
    }

    // A right that one member took away is gone on all, before anybody else was told.
    let revoke = pb::AuthUserRevokeRoleRequest { name: "alice".into(), role: "r".into() };
    first.auth(async |auth| auth.user_revoke_role(with(&root, revoke)).await).expect("taken away");
    for client in &clients {
        is_refused(get(client, &alice, "k", false), Code::PermissionDenied, DENIED);
        is_refused(put(client, &alice, "k"), Code::PermissionDenied, DENIED);
    }
    // And a new one is there.
    grant(second, &root, "alice", "r");
    for client in &clients {
        get(client, &alice, "k", false).expect("given again");
    }

    for &id in &ids {
        cluster.kill_node(id).expect("killed");
        cluster.restart_node(id).expect("started again");
    }
    for client in &clients {
        let served = || put(client, &alice, "k").map_err(Into::into);
        until("a restarted member takes the token", PATIENCE, served).expect("as before");
        get(client, &root, "l", false).expect("as before");
    }

    let request = pb::AuthUserChangePasswordRequest {
        name: "alice".into(),
        password: "alice".into(),
        ..Default::default()
    };
    third.auth(async |auth| auth.user_change_password(with(&root, request)).await).expect("changed");
    let again = login(first, "alice", "alice").expect("a token");
    for client in &clients {
        // The member that lags is the one that must not refuse the new token.
        put(client, &again, "k").expect("a new token");
        get(client, &again, "k", true).expect("a new token");
        is_refused(get(client, &alice, "k", false), Code::Unauthenticated, BAD_TOKEN);
    }
}
