//! Leases.

use serde_json::{Value, json};

use super::{b, get};
use crate::step::{Step, step};

fn grant(message: Value) -> Step {
    step("Lease/LeaseGrant", message)
}

fn time_to_live(id: i64, keys: bool) -> Step {
    step("Lease/LeaseTimeToLive", json!({"ID": id, "keys": keys}))
}

fn keep_alive(ids: &[i64]) -> Step {
    let messages = ids.iter().map(|id| json!({"ID": id})).collect();
    Step { messages, ..step("Lease/LeaseKeepAlive", json!({})) }
}

pub(super) fn steps() -> Vec<Step> {
    let attach =
        |key: &str, lease: i64| step("KV/Put", json!({"key": b(key), "value": b("v"), "lease": lease}));
    let revoke = |id: i64| step("Lease/LeaseRevoke", json!({"ID": id}));
    vec![
        step("Lease/LeaseLeases", json!({})),
        grant(json!({})),
        grant(json!({"ID": 1, "TTL": 0})),
        grant(json!({"ID": 2, "TTL": -5})),
        grant(json!({"ID": 3, "TTL": 1})),
        revoke(1),
        revoke(2),
        revoke(3),
        grant(json!({"ID": 4, "TTL": 9_000_000_000_i64})),
        grant(json!({"ID": 5, "TTL": 9_000_000_001_i64})),
        revoke(4),
        grant(json!({"TTL": 600})).keeps("$lease", "/ID"),
        step("Lease/LeaseTimeToLive", json!({"ID": "$lease"})),
        step("Lease/LeaseRevoke", json!({"ID": "$lease"})),
        grant(json!({"ID": 10, "TTL": 1000})),
        grant(json!({"ID": 10, "TTL": 1000})),
        grant(json!({"ID": -10, "TTL": 1000})),
        grant(json!({"ID": 11, "TTL": 2000})),
        step("Lease/LeaseLeases", json!({})),
        time_to_live(10, false),
        time_to_live(10, true),
        time_to_live(0, true),
        time_to_live(99, true),
        attach("k2", 10),
        attach("k1", 10),
        attach("k3", 10),
        attach("other", 11),
        time_to_live(10, true),
        time_to_live(10, false),
        // Moves from one to the other.
        attach("k1", 11),
        time_to_live(10, true),
        time_to_live(11, true),
        // Lets go.
        step("KV/Put", json!({"key": b("k2"), "value": b("v")})),
        time_to_live(10, true),
        step("KV/DeleteRange", json!({"key": b("k1")})),
        time_to_live(11, true),
        get("k3"),
        keep_alive(&[10]),
        keep_alive(&[99]),
        keep_alive(&[0]),
        keep_alive(&[10, 99, 11, 10]).grpc_alone(),
        keep_alive(&[]).grpc_alone(),
        revoke(10),
        revoke(10),
        revoke(0),
        revoke(99),
        get("k3"),
        time_to_live(10, true),
        keep_alive(&[10]),
        step("Lease/LeaseLeases", json!({})),
        revoke(11),
        revoke(-10),
        step("Lease/LeaseLeases", json!({})),
        get("other"),
    ]
}
