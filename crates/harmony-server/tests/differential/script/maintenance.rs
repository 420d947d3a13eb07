//! Alarms, status, hashes, backups, leadership, versions, health.

use serde_json::{Value, json};

use super::{b, get, put};
use crate::step::{Step, step};

pub(super) fn steps() -> Vec<Step> {
    let alarm = |message: Value| step("Maintenance/Alarm", message);
    let downgrade = |action: Value, version: &str| {
        step("Maintenance/Downgrade", json!({"action": action, "version": version}))
    };
    let move_leader = |id: &str| step("Maintenance/MoveLeader", json!({"targetID": id}));
    let mut steps = vec![
        step("Maintenance/Status", json!({})),
        step("Maintenance/Hash", json!({})),
        put("a", "1"),
        step("Maintenance/Defragment", json!({})),
        step("Maintenance/Snapshot", json!({})),
        step("Maintenance/HashKV", json!({})),
        move_leader("0"),
        move_leader("1"),
        move_leader("$member"),
        downgrade(json!("VALIDATE"), ""),
        downgrade(json!("VALIDATE"), "3"),
        downgrade(json!("VALIDATE"), "x.y.z"),
        downgrade(json!("VALIDATE"), "2.0.0"),
        downgrade(json!("ENABLE"), "9.9.0"),
        // Each has its own minor version below.
        downgrade(json!("VALIDATE"), "3.5.0").ours_alone(),
        downgrade(json!("ENABLE"), "3.5.0").ours_alone(),
        downgrade(json!("CANCEL"), ""),
        downgrade(json!(9), "").ends_etcd(),
        alarm(json!({})),
        alarm(json!({"action": 9})).ends_etcd(),
        alarm(json!({"action": "ACTIVATE", "memberID": "$member", "alarm": 9})).ours_alone(),
        alarm(json!({"action": "DEACTIVATE", "memberID": "$member", "alarm": "NOSPACE"})),
        step("Lease/LeaseGrant", json!({"ID": 1, "TTL": 1000})),
    ];
    for kind in ["NOSPACE", "CORRUPT"] {
        steps.push(alarm(json!({"action": "ACTIVATE", "memberID": "$member", "alarm": kind})));
        steps.push(alarm(json!({"action": "ACTIVATE", "memberID": "$member", "alarm": kind})));
        steps.push(alarm(json!({})));
        steps.push(alarm(json!({"alarm": kind})));
        steps.push(alarm(json!({"memberID": 5})));
        steps.extend(under_alarm());
        steps.push(alarm(json!({"action": "DEACTIVATE", "memberID": 0, "alarm": kind})));
        steps.push(alarm(json!({"action": "DEACTIVATE", "memberID": "$member", "alarm": "NONE"})));
        steps.push(alarm(json!({"action": "DEACTIVATE", "memberID": "$member", "alarm": kind})));
        steps.push(put("a", "2"));
    }
    steps.extend([
        alarm(json!({"action": "ACTIVATE", "memberID": 0, "alarm": "NOSPACE"})),
        alarm(json!({"action": "DEACTIVATE", "memberID": 0, "alarm": "NOSPACE"})),
        alarm(json!({"action": "ACTIVATE", "memberID": "$member", "alarm": "NONE"})),
        step("Health/Check", json!({})),
        step("Health/Check", json!({"service": "nothing"})),
        step("Health/Watch", json!({})).until(1),
    ]);
    steps
}

fn under_alarm() -> Vec<Step> {
    let put_in_txn = json!({"request_put": {"key": b("t")}});
    vec![
        put("a", "full"),
        step("KV/Txn", json!({"success": [put_in_txn]})),
        step("KV/Txn", json!({"failure": [put_in_txn]})),
        step("KV/Txn", json!({"success": [{"request_range": {"key": b("a")}}]})),
        step("KV/Txn", json!({"success": [{"request_delete_range": {"key": b("t")}}]})),
        step("KV/DeleteRange", json!({"key": b("t")})),
        get("a"),
        step("Lease/LeaseGrant", json!({"ID": 2, "TTL": 1000})),
        step("Lease/LeaseRevoke", json!({"ID": 2})),
        step("Lease/LeaseKeepAlive", json!({"ID": 1})),
        step("Maintenance/Status", json!({})),
        step("KV/Compact", json!({"revision": 999})),
    ]
}
