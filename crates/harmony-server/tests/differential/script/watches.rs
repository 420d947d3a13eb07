//! Watches: what a stream answers, and the events of each watcher.

use serde_json::{Value, json};

use super::{and, b, put};
use crate::step::{Step, step};

fn create(key: &str, more: Value) -> Value {
    json!({"create_request": and(json!({"key": b(key)}), more)})
}

/// A stream with these requests that ends after so many answers and events.
fn watch(messages: Vec<Value>, answers: usize) -> Step {
    Step { messages, ..step("Watch/Watch", json!({})).until(answers) }
}

fn history() -> Vec<Step> {
    let delete = |key: &str| step("KV/DeleteRange", json!({"key": b(key)}));
    let two = json!([
        {"request_put": {"key": b("a"), "value": b("in one")}},
        {"request_put": {"key": b("c"), "value": b("revision")}},
    ]);
    vec![
        put("a", "1"),
        put("a", "2"),
        put("b", "1"),
        delete("a"),
        put("a", "3"),
        step("KV/Txn", json!({"success": two})),
        step("Lease/LeaseGrant", json!({"ID": 7, "TTL": 1000})),
        step("KV/Put", json!({"key": b("b"), "value": b("leased"), "lease": 7})),
        step("Lease/LeaseRevoke", json!({"ID": 7})),
    ]
}

pub(super) fn steps() -> Vec<Step> {
    let mut steps = history();
    let all = |more: Value| create("a", and(json!({"range_end": b("z")}), more));
    steps.extend([
        watch(vec![all(json!({"start_revision": 1}))], 10),
        watch(vec![all(json!({"start_revision": 2, "prev_kv": true}))], 10),
        watch(vec![all(json!({"start_revision": 4}))], 8),
        watch(vec![all(json!({"start_revision": 2, "filters": ["NOPUT"]}))], 3),
        watch(vec![all(json!({"start_revision": 2, "filters": ["NODELETE"]}))], 8),
        watch(vec![all(json!({"start_revision": 2, "fragment": true}))], 10),
        watch(vec![create("a", json!({"start_revision": 2}))], 6),
        watch(vec![create("", json!({"start_revision": 2}))], 1),
        watch(vec![create("\0", json!({"range_end": "AA==", "start_revision": 2}))], 10),
        watch(vec![create("b", json!({"range_end": "AA==", "start_revision": 2}))], 5),
        // Refused.
        watch(vec![create("b", json!({"range_end": b("a")}))], 1),
        watch(vec![create("b", json!({"range_end": b("b")}))], 1),
        watch(vec![all(json!({"start_revision": -1}))], 1),
        watch(vec![all(json!({"watch_id": 5})), all(json!({"watch_id": 5}))], 2),
        watch(vec![all(json!({"watch_id": -5}))], 1),
        // More than one on a stream, live, cancelled, with progress.
        Step {
            meanwhile: vec![
                put("live", "1"),
                put("a", "live"),
                step("KV/DeleteRange", json!({"key": b("a")})),
            ],
            ..watch(
                vec![
                    create("live", json!({})),
                    create("a", json!({"prev_kv": true})),
                    create("a", json!({"watch_id": 77, "filters": ["NOPUT"]})),
                ],
                3 + 1 + 2 + 1,
            )
        },
        Step {
            more: vec![
                json!({"cancel_request": {"watch_id": 1}}),
                json!({"cancel_request": {"watch_id": 99}}),
                json!({"cancel_request": {"watch_id": 0}}),
            ],
            ..watch(vec![create("x", json!({})), create("y", json!({"progress_notify": true}))], 4)
        },
        Step { more: vec![json!({"progress_request": {}})], ..watch(vec![create("x", json!({}))], 2) },
        // Nothing below the future revision is told: the fourth put from here is the first.
        Step {
            meanwhile: vec![put("f", "1"), put("f", "2"), put("f", "3"), put("f", "4")],
            ..watch(vec![create("f", json!({"start_revision": 16}))], 2)
        },
        step("KV/Compact", json!({"revision": 6})),
        watch(vec![all(json!({"start_revision": 3}))], 2),
        watch(vec![all(json!({"start_revision": 6}))], 10),
        watch(vec![all(json!({"start_revision": 6, "prev_kv": true}))], 10),
        watch(vec![all(json!({"start_revision": 7, "prev_kv": true}))], 9),
        watch(vec![json!({}), create("x", json!({}))], 1),
    ]);
    steps
}
