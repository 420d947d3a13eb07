//! Locks and elections, as far as nobody waits.

use serde_json::{Value, json};

use super::{b, get};
use crate::step::{Step, step};

fn leader(key: &str, rev: &str, lease: i64) -> Value {
    json!({"name": b("e"), "key": b(key), "rev": rev, "lease": lease})
}

pub(super) fn steps() -> Vec<Step> {
    let lock = |name: &str, lease: i64| step("Lock/Lock", json!({"name": b(name), "lease": lease}));
    let unlock = |key: &str| step("Lock/Unlock", json!({"key": b(key)}));
    let campaign = |lease: i64, value: &str| {
        step("Election/Campaign", json!({"name": b("e"), "lease": lease, "value": b(value)}))
    };
    let proclaim = |leader: Value| step("Election/Proclaim", json!({"leader": leader, "value": b("said")}));
    let resign = |leader: Value| step("Election/Resign", json!({"leader": leader}));
    let who = || step("Election/Leader", json!({"name": b("e")}));
    vec![
        step("Lease/LeaseGrant", json!({"ID": 26, "TTL": 1000})),
        step("Lease/LeaseGrant", json!({"ID": 27, "TTL": 1000})),
        lock("l", 26),
        lock("l", 26),
        get("l/1a"),
        unlock("l/1a"),
        unlock("l/1a"),
        unlock(""),
        unlock("never"),
        lock("l", 27),
        lock("other", 26),
        lock("", 27),
        lock("l", 99),
        who(),
        step("Election/Leader", json!({})),
        campaign(26, "one").keeps("$rev", "/leader/rev"),
        campaign(26, "one"),
        campaign(26, "two"),
        campaign(99, "three"),
        who(),
        step("Election/Observe", json!({"name": b("e")})).until(1),
        proclaim(Value::Null),
        proclaim(leader("e/1a", "$rev", 26)),
        proclaim(leader("e/1a", "3", 26)),
        proclaim(leader("e/1b", "$rev", 27)),
        who(),
        resign(Value::Null),
        // Not the one that it was created at.
        resign(leader("e/1a", "3", 26)),
        who(),
        resign(leader("e/1a", "$rev", 26)),
        who(),
        resign(leader("e/1a", "$rev", 26)),
        proclaim(leader("e/1a", "$rev", 26)),
        campaign(27, "four"),
        who(),
        step("Lease/LeaseRevoke", json!({"ID": 27})),
        who(),
    ]
}
