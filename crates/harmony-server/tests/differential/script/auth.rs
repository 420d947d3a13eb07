//! Users, roles and permissions; calls of every kind by those who may and those who may not.

use serde_json::json;

use super::{b, get, put};
use crate::step::{Step, step};

fn user(rpc: &'static str, name: &str) -> Step {
    step(rpc, json!({"name": name}))
}

fn add_user(name: &str, password: &str) -> Step {
    step("Auth/UserAdd", json!({"name": name, "password": password}))
}

fn grant(user: &str, role: &str) -> Step {
    step("Auth/UserGrantRole", json!({"user": user, "role": role}))
}

fn revoke(name: &str, role: &str) -> Step {
    step("Auth/UserRevokeRole", json!({"name": name, "role": role}))
}

fn permit(role: &str, kind: &str, key: &str, end: &str) -> Step {
    let perm = json!({"permType": kind, "key": b(key), "range_end": b(end)});
    step("Auth/RoleGrantPermission", json!({"name": role, "perm": perm}))
}

fn forbid(role: &str, key: &str, end: &str) -> Step {
    step("Auth/RoleRevokePermission", json!({"role": role, "key": b(key), "range_end": b(end)}))
}

fn role(rpc: &'static str, role: &str) -> Step {
    let field = if rpc == "Auth/RoleAdd" { "name" } else { "role" };
    step(rpc, json!({field: role}))
}

fn login(name: &str, password: &str) -> Step {
    step("Auth/Authenticate", json!({"name": name, "password": password}))
}

fn change_password(name: &str, password: &str) -> Step {
    step("Auth/UserChangePassword", json!({"name": name, "password": password}))
}

fn empty(rpc: &'static str) -> Step {
    step(rpc, json!({}))
}

pub(super) fn steps() -> Vec<Step> {
    let mut steps = changes();
    steps.extend(switching_on());
    for token in ["", "nonsense", "$reader", "$writer"] {
        steps.extend(calls().into_iter().map(|call| call.by(token)));
    }
    steps.extend(changes_while_on());
    steps
}

fn changes() -> Vec<Step> {
    vec![
        empty("Auth/AuthStatus"),
        empty("Auth/AuthDisable"),
        login("root", "x"),
        empty("Auth/AuthEnable"),
        add_user("", "x"),
        add_user("u", "x"),
        add_user("u", "x"),
        add_user("empty", ""),
        step("Auth/UserAdd", json!({"name": "cert", "options": {"no_password": true}})),
        step("Auth/UserAdd", json!({"name": "cert2", "password": "x", "options": {"no_password": true}})),
        // The hash of "hashed" by bcrypt.
        step(
            "Auth/UserAdd",
            json!({"name": "hashed", "hashedPassword": "JDJiJDA0JHNhbHRzYWx0c2FsdHNhbHRzYWx0c2FsdA=="}),
        ),
        user("Auth/UserGet", "u"),
        user("Auth/UserGet", "nobody"),
        user("Auth/UserGet", ""),
        empty("Auth/UserList"),
        user("Auth/UserDelete", "nobody"),
        user("Auth/UserDelete", "empty"),
        change_password("nobody", "x"),
        change_password("u", "u"),
        change_password("u", ""),
        change_password("cert", "x"),
        change_password("u", "u"),
        role("Auth/RoleAdd", ""),
        role("Auth/RoleAdd", "r"),
        role("Auth/RoleAdd", "r"),
        role("Auth/RoleGet", "r"),
        role("Auth/RoleGet", "nothing"),
        empty("Auth/RoleList"),
        role("Auth/RoleDelete", "nothing"),
        permit("r", "READ", "a", ""),
        permit("r", "READ", "a", ""),
        permit("r", "READWRITE", "a", ""),
        permit("r", "WRITE", "b", "d"),
        permit("r", "READ", "z", "\0"),
        permit("r", "READ", "b", "a"),
        permit("r", "READ", "", ""),
        permit("r", "READ", "b", "b"),
        step("Auth/RoleGrantPermission", json!({"name": "r"})),
        step("Auth/RoleGrantPermission", json!({"name": "r", "perm": {"permType": 7, "key": b("q")}}))
            .ends_etcd(),
        permit("nothing", "READ", "a", ""),
        role("Auth/RoleGet", "r"),
        forbid("r", "b", "d"),
        forbid("r", "b", "d"),
        forbid("r", "never", ""),
        forbid("nothing", "a", ""),
        role("Auth/RoleGet", "r"),
        grant("u", "r"),
        grant("u", "r"),
        grant("u", "nothing"),
        grant("nobody", "r"),
        user("Auth/UserGet", "u"),
        revoke("u", "nothing"),
        revoke("nobody", "r"),
        revoke("u", "r"),
        revoke("u", "r"),
        grant("u", "r"),
        role("Auth/RoleDelete", "r"),
        user("Auth/UserGet", "u"),
        empty("Auth/AuthStatus"),
    ]
}

fn switching_on() -> Vec<Step> {
    vec![
        add_user("root", "secret"),
        empty("Auth/AuthEnable"),
        grant("root", "root"),
        role("Auth/RoleGet", "root"),
        role("Auth/RoleAdd", "reads"),
        permit("reads", "READ", "k", "m"),
        role("Auth/RoleAdd", "writes"),
        permit("writes", "WRITE", "k", "l"),
        add_user("reader", "r"),
        grant("reader", "reads"),
        add_user("writer", "w"),
        grant("writer", "writes"),
        put("k", "1"),
        put("z", "1"),
        step("Lease/LeaseGrant", json!({"ID": 70, "TTL": 1000})),
        step("Lease/LeaseGrant", json!({"ID": 71, "TTL": 1000})),
        step("KV/Put", json!({"key": b("z2"), "value": b("v"), "lease": 71})),
        empty("Auth/AuthEnable"),
        empty("Auth/AuthEnable"),
        empty("Auth/AuthStatus"),
        login("root", "wrong"),
        login("nobody", "x"),
        login("", ""),
        login("cert", "x"),
        login("root", "secret").keeps("$root", "/token"),
        login("reader", "r").keeps("$reader", "/token"),
        login("writer", "w").keeps("$writer", "/token"),
    ]
}

/// One call of every kind.
fn calls() -> Vec<Step> {
    let mut calls = vec![
        get("k"),
        get("z"),
        step("KV/Range", json!({"key": b("k"), "range_end": b("m")})),
        step("KV/Range", json!({"key": b("k"), "range_end": b("n")})),
        step("KV/Range", json!({"key": "AA==", "range_end": "AA=="})),
        step("KV/Range", json!({"key": b("k"), "serializable": true})),
        put("k", "2"),
        put("z", "2"),
        step("KV/Put", json!({"key": b("k"), "prev_kv": true})),
        step("KV/Put", json!({"key": b("k"), "lease": 70})),
        step("KV/Put", json!({"key": b("k"), "lease": 71})),
        step("KV/DeleteRange", json!({"key": b("k9")})),
        step("KV/DeleteRange", json!({"key": b("k9"), "prev_kv": true})),
        step("KV/DeleteRange", json!({"key": b("k9"), "range_end": b("m")})),
        step("KV/Txn", json!({})),
        step("KV/Compact", json!({"revision": 999})),
        step("Lease/LeaseGrant", json!({"ID": 10})),
        step("Lease/LeaseTimeToLive", json!({"ID": 71})),
        step("Lease/LeaseTimeToLive", json!({"ID": 71, "keys": true})),
        step("Lease/LeaseTimeToLive", json!({"ID": 70, "keys": true})),
        step("Lease/LeaseTimeToLive", json!({"ID": 999, "keys": true})),
        step("Lease/LeaseLeases", json!({})),
        step("Lease/LeaseRevoke", json!({"ID": 71})),
        step("Lease/LeaseRevoke", json!({"ID": 999})),
        step("Lease/LeaseRevoke", json!({"ID": 10})),
        step("Lease/LeaseKeepAlive", json!({"ID": 71})),
        step("Cluster/MemberList", json!({"linearizable": true})),
        step("Cluster/MemberAdd", json!({})),
        step("Cluster/MemberAdd", json!({"peerURLs": ["http://127.0.0.1:1"]})).grpc_alone(),
        step("Cluster/MemberRemove", json!({"ID": 1})),
        step("Cluster/MemberUpdate", json!({"ID": 1, "peerURLs": ["http://127.0.0.1:1"]})),
        step("Cluster/MemberPromote", json!({"ID": 1})),
        step("Maintenance/Status", json!({})),
        step("Maintenance/Alarm", json!({})),
        step("Maintenance/Alarm", json!({"action": "DEACTIVATE", "memberID": 1, "alarm": "NOSPACE"})),
        step("Maintenance/Defragment", json!({})),
        step("Maintenance/Hash", json!({})),
        step("Maintenance/HashKV", json!({})),
        step("Maintenance/Snapshot", json!({})).grpc_alone(),
        step("Maintenance/MoveLeader", json!({"targetID": 1})),
        step("Maintenance/Downgrade", json!({"action": "CANCEL"})),
        empty("Auth/AuthStatus"),
        add_user("new", "x"),
        user("Auth/UserGet", "root"),
        user("Auth/UserGet", "reader"),
        user("Auth/UserGet", "nobody"),
        empty("Auth/UserList"),
        user("Auth/UserDelete", "nobody"),
        change_password("nobody", "x"),
        grant("nobody", "reads"),
        revoke("nobody", "reads"),
        role("Auth/RoleAdd", "new"),
        role("Auth/RoleGet", "reads"),
        role("Auth/RoleGet", "writes"),
        role("Auth/RoleGet", "root"),
        role("Auth/RoleGet", "nothing"),
        empty("Auth/RoleList"),
        role("Auth/RoleDelete", "nothing"),
        permit("nothing", "READ", "a", ""),
        forbid("nothing", "a", ""),
        empty("Auth/AuthEnable"),
        empty("Auth/AuthDisable"),
        step("Lock/Unlock", json!({"key": b("k9")})),
        step("Election/Leader", json!({"name": b("k")})),
        step("Watch/Watch", json!({"create_request": {"key": b("k")}})).until(1),
        step("Watch/Watch", json!({"create_request": {"key": b("z")}})).until(1),
        step("Watch/Watch", json!({"create_request": {"key": b("k"), "range_end": "AA=="}})).until(1),
    ];
    for op in [
        json!({"request_range": {"key": b("k")}}),
        json!({"request_put": {"key": b("k")}}),
        json!({"request_put": {"key": b("z")}}),
        json!({"request_put": {"key": b("k"), "prev_kv": true}}),
        json!({"request_delete_range": {"key": b("k9")}}),
        json!({"request_delete_range": {"key": b("k9"), "prev_kv": true}}),
        json!({}),
    ] {
        calls.push(step("KV/Txn", json!({"success": [op]})));
        calls.push(step("KV/Txn", json!({"failure": [op]})));
        calls.push(step("KV/Txn", json!({"success": [{"request_txn": {"success": [op]}}]})));
        calls.push(step("KV/Txn", json!({"success": [{"request_txn": {"failure": [op]}}]})));
    }
    calls.push(step("KV/Txn", json!({"compare": [{"key": b("k")}]})));
    calls.push(step("KV/Txn", json!({"compare": [{"key": b("z")}]})));
    calls.push(step("KV/Txn", json!({"success": [{"request_txn": {"compare": [{"key": b("z")}]}}]})));
    calls
}

fn changes_while_on() -> Vec<Step> {
    let by_root = |steps: Vec<Step>| steps.into_iter().map(|step: Step| step.by("$root"));
    let mut steps: Vec<Step> = by_root(vec![
        get("z"),
        step("KV/Compact", json!({"revision": 3})),
        step("Lease/LeaseLeases", json!({})),
        user("Auth/UserDelete", "root"),
        role("Auth/RoleDelete", "root"),
        revoke("root", "root"),
        user("Auth/UserGet", "root"),
        grant("reader", "writes"),
    ])
    .collect();
    steps.extend([
        // Its rights are those of now.
        put("k", "3").by("$reader"),
        role("Auth/RoleGet", "writes").by("$reader"),
    ]);
    steps.extend(by_root(vec![change_password("reader", "other"), user("Auth/UserDelete", "writer")]));
    steps.extend([
        get("k").by("$reader"),
        get("k").by("$writer"),
        login("reader", "r"),
        login("writer", "w"),
        login("reader", "other").keeps("$again", "/token"),
        get("k").by("$again"),
        empty("Auth/AuthDisable").by("$again"),
        empty("Auth/AuthDisable").by("$root"),
        empty("Auth/AuthStatus"),
        get("z"),
        get("z").by("nonsense"),
        login("root", "secret"),
        user("Auth/UserDelete", "root"),
        empty("Auth/AuthEnable"),
    ]);
    steps
}
