//! Put, Range, RangeStream, DeleteRange, Txn, Compact.

use serde_json::{Value, json};

use super::{and, b, get, put};
use crate::step::{Step, step};

pub(super) fn steps() -> Vec<Step> {
    let mut steps = puts();
    steps.extend(ranges());
    steps.extend(deletes());
    steps.extend(transactions());
    steps.extend(compactions());
    steps.extend(too_large());
    steps
}

fn puts() -> Vec<Step> {
    let put_with = |more| step("KV/Put", and(json!({"key": b("a"), "value": b("x")}), more));
    vec![
        get("a"),
        step("KV/Put", json!({})),
        step("KV/Put", json!({"value": b("x")})),
        put_with(json!({"prev_kv": true})),
        put_with(json!({"prev_kv": true})),
        put_with(json!({"ignore_value": true})),
        put_with(json!({"ignore_lease": true, "lease": 7})),
        put_with(json!({"lease": 7})),
        put_with(json!({"lease": -1})),
        step("KV/Put", json!({"key": b("a"), "ignore_value": true, "prev_kv": true})),
        put_with(json!({"ignore_lease": true})),
        step("KV/Put", json!({"key": b("missing"), "ignore_value": true})),
        step("KV/Put", json!({"key": b("missing"), "ignore_lease": true})),
        step("KV/Put", json!({"key": b("missing"), "ignore_lease": true, "ignore_value": true})),
        step("Lease/LeaseGrant", json!({"ID": 7, "TTL": 1000})),
        put_with(json!({"lease": 7})),
        put_with(json!({"ignore_lease": true, "value": b("y")})),
        get("a"),
        put("b", ""),
        put("c", "3"),
        put("b", "2"),
        put("d", "1"),
        put("\0", "zero"),
        step("KV/Put", json!({"key": "//8=", "value": "AP8="})),
    ]
}

fn range(more: Value) -> Step {
    let sort = match more["sort_target"].as_str() {
        Some("VERSION") => Some("version"),
        Some("CREATE") => Some("create_revision"),
        Some("MOD") => Some("mod_revision"),
        Some("VALUE") => Some("value"),
        _ => None,
    };
    step("KV/Range", and(json!({"key": b("a"), "range_end": b("z")}), more)).sorts_by(sort)
}

fn ranges() -> Vec<Step> {
    let mut steps = vec![
        step("KV/Range", json!({})),
        step("KV/Range", json!({"range_end": b("a")})),
        step("KV/Range", json!({"key": "AA==", "range_end": "AA=="})),
        step("KV/Range", json!({"key": b("b"), "range_end": "AA=="})),
        step("KV/Range", json!({"key": b("c"), "range_end": b("a")})),
        step("KV/Range", json!({"key": b("c"), "range_end": b("c")})),
        step("KV/Range", json!({"key": b("nothing")})),
        step("KV/Range", json!({"key": b("a"), "serializable": true})),
        range(json!({"sort_order": 7})).ends_etcd(),
        range(json!({"sort_target": 9})).ours_alone(),
        range(json!({"sort_order": -1})).ends_etcd(),
        range(json!({"limit": -3})),
        range(json!({"revision": -3})),
        range(json!({"revision": 1000})),
        range(json!({"keys_only": true})),
        range(json!({"count_only": true})),
        range(json!({"count_only": true, "limit": 1})),
        range(json!({"keys_only": true, "count_only": true})),
        range(json!({"limit": 2, "min_mod_revision": 6})),
        range(json!({"count_only": true, "max_mod_revision": 6})),
        // The one that sorts a part only in etcd.
        range(json!({"sort_target": "VALUE", "limit": 1})),
    ];
    for revision in 0..12 {
        steps.push(range(json!({"revision": revision})));
    }
    for limit in 0..7 {
        steps.push(range(json!({"limit": limit})));
        steps.push(range(json!({"limit": limit, "sort_order": "DESCEND"})));
        steps.push(range(json!({"limit": limit, "sort_order": "ASCEND", "sort_target": "MOD"})));
    }
    for order in ["NONE", "ASCEND", "DESCEND"] {
        for target in ["KEY", "VERSION", "CREATE", "MOD", "VALUE"] {
            steps.push(range(json!({"sort_order": order, "sort_target": target})));
        }
    }
    for field in ["min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"] {
        for revision in [-1, 0, 1, 4, 6, 9, 100] {
            steps.push(range(json!({field: revision})));
        }
    }
    let stream =
        |more| step("KV/RangeStream", and(json!({"key": b("a"), "range_end": b("z")}), more)).ours_alone();
    steps.extend([
        stream(json!({})),
        stream(json!({"limit": 1, "keys_only": true})),
        stream(json!({"sort_order": "DESCEND"})),
        stream(json!({"min_mod_revision": 2})),
        stream(json!({"revision": 100})),
    ]);
    steps
}

fn delete(message: Value) -> Step {
    step("KV/DeleteRange", message)
}

fn deletes() -> Vec<Step> {
    vec![
        delete(json!({})),
        delete(json!({"key": b("nothing")})),
        delete(json!({"key": b("nothing"), "prev_kv": true})),
        delete(json!({"key": b("b"), "range_end": b("a"), "prev_kv": true})),
        delete(json!({"key": b("a"), "prev_kv": true})),
        delete(json!({"key": b("b"), "range_end": b("d"), "prev_kv": true})),
        put("b", "again"),
        get("b"),
        range(json!({"revision": 6})),
        delete(json!({"key": "AA==", "range_end": "AA=="})),
        step("KV/Range", json!({"key": "AA==", "range_end": "AA=="})),
    ]
}

fn op_put(key: &str) -> Value {
    json!({"request_put": {"key": b(key), "value": b("txn")}})
}

fn op_get(key: &str) -> Value {
    json!({"request_range": {"key": b(key)}})
}

fn op_delete(key: &str, end: &str) -> Value {
    json!({"request_delete_range": {"key": b(key), "range_end": b(end), "prev_kv": true}})
}

fn op_txn(compare: Value, success: Value, failure: Value) -> Value {
    json!({"request_txn": {"compare": compare, "success": success, "failure": failure}})
}

fn txn(compare: Value, success: Value, failure: Value) -> Step {
    step("KV/Txn", json!({"compare": compare, "success": success, "failure": failure}))
}

fn compares() -> Vec<Step> {
    let mut steps = Vec::new();
    for (target, field, values) in [
        ("VERSION", "version", [json!(0), json!(1), json!(2)]),
        ("CREATE", "create_revision", [json!(0), json!(13), json!(100)]),
        ("MOD", "mod_revision", [json!(0), json!(14), json!(100)]),
        ("VALUE", "value", [b(""), b("again"), b("x")]),
        ("LEASE", "lease", [json!(0), json!(7), json!(8)]),
    ] {
        for result in ["EQUAL", "GREATER", "LESS", "NOT_EQUAL"] {
            for value in &values {
                for key in ["x", "missing"] {
                    let compare =
                        json!({"key": b(key), "target": target, "result": result, field: value.clone()});
                    steps.push(txn(json!([compare]), json!([op_get("x")]), json!([])));
                }
                let compare = json!({"key": b("x"), "range_end": b("z"), "target": target, "result": result, field: value});
                steps.push(txn(json!([compare]), json!([]), json!([op_get("x")])));
            }
            let unset = json!({"key": b("x"), "target": target, "result": result});
            steps.push(txn(json!([unset]), json!([op_get("x")]), json!([])));
        }
    }
    steps.push(txn(json!([{"key": b("x"), "target": 9}]), json!([]), json!([])).ours_alone());
    steps.push(txn(json!([{"key": b("x"), "result": 9}]), json!([]), json!([])).ours_alone());
    steps.push(txn(json!([{"result": "EQUAL"}]), json!([]), json!([])));
    steps
}

fn transactions() -> Vec<Step> {
    let many = |count: usize, op: fn(&str) -> Value| -> Value {
        (0..count).map(|at| op(&format!("many{at}"))).collect()
    };
    let nested = |op: Value| op_txn(json!([]), json!([op]), json!([]));
    let mut steps = vec![put("x", "1"), put("x", "x"), put("y", "y")];
    steps.extend(compares());
    steps.extend([
        step("KV/Txn", json!({})),
        txn(json!([]), json!([{}]), json!([])),
        txn(json!([]), json!([]), json!([{}])),
        txn(json!([]), json!([op_put("")]), json!([])),
        txn(json!([]), json!([op_get("")]), json!([])),
        txn(json!([]), json!([op_delete("", "")]), json!([])),
        txn(json!([]), json!([op_put("x"), op_get("x"), op_put("w")]), json!([])),
        txn(json!([]), json!([op_put("x"), op_put("x")]), json!([])),
        txn(json!([]), json!([]), json!([op_put("x"), op_put("x")])),
        txn(json!([]), json!([op_put("x"), op_delete("w", "z")]), json!([])),
        txn(json!([]), json!([op_delete("w", "z"), op_put("x")]), json!([])),
        txn(json!([]), json!([op_delete("w", "x"), op_delete("w", "z")]), json!([])),
        txn(json!([]), json!([op_put("x")]), json!([op_put("x")])),
        txn(json!([]), json!([op_put("x"), nested(op_put("x"))]), json!([])),
        txn(json!([]), json!([op_delete("x", ""), nested(op_put("x"))]), json!([])),
        txn(json!([]), json!([op_txn(json!([]), json!([op_put("x")]), json!([op_put("x")]))]), json!([])),
        txn(json!([]), json!([nested(op_put("x")), nested(op_get("x"))]), json!([])),
        txn(json!([]), json!([nested(op_delete("x", "z")), op_get("x")]), json!([])),
        txn(json!([]), json!([op_put("new"), op_get("new"), nested(op_delete("new", ""))]), json!([])),
        txn(
            json!([]),
            json!([
                op_put("seen"),
                op_txn(
                    json!([{"key": b("seen"), "target": "VERSION", "version": 1}]),
                    json!([op_get("seen")]),
                    json!([])
                ),
            ]),
            json!([]),
        ),
        txn(json!([]), many(128, op_put), json!([])),
        txn(json!([]), many(129, op_put), json!([])),
        txn(json!([]), json!([]), many(129, op_get)),
        txn(json!([]), json!([op_txn(json!([]), many(127, op_get), json!([]))]), json!([])),
        txn(json!([]), json!([op_txn(json!([]), many(128, op_get), json!([]))]), json!([])),
        txn(json!([]), json!([{"request_range": {"key": b("x"), "revision": 3}}]), json!([])),
        txn(json!([]), json!([{"request_range": {"key": b("x"), "revision": 999}}]), json!([])),
        txn(json!([]), json!([op_put("x"), {"request_range": {"key": b("x"), "revision": 999}}]), json!([])),
        txn(json!([]), json!([op_put("x")]), json!([{"request_range": {"key": b("x"), "revision": 999}}])),
        txn(json!([]), json!([{"request_range": {"key": b("x"), "sort_order": 9}}]), json!([])).ends_etcd(),
        txn(json!([]), json!([{"request_put": {"key": b("x"), "lease": 99}}]), json!([])),
        txn(json!([]), json!([{"request_put": {"key": b("none"), "ignore_value": true}}]), json!([])),
        txn(json!([]), json!([{"request_put": {"key": b("none"), "ignore_lease": true}}]), json!([])),
        txn(
            json!([]),
            json!([{"request_put": {"key": b("x"), "value": b("v"), "ignore_value": true}}]),
            json!([]),
        ),
        txn(
            json!([]),
            json!([{"request_put": {"key": b("x"), "prev_kv": true, "ignore_value": true}}]),
            json!([]),
        ),
        get("x"),
        range(json!({"keys_only": true})),
    ]);
    steps
}

fn compactions() -> Vec<Step> {
    let compact = |message| step("KV/Compact", message);
    let hash = |revision: i64| step("Maintenance/HashKV", json!({"revision": revision}));
    vec![
        hash(0),
        hash(5),
        hash(999),
        compact(json!({"revision": 999})),
        compact(json!({"revision": 8, "physical": true})),
        compact(json!({"revision": 8})),
        compact(json!({"revision": 7})),
        compact(json!({"revision": 0})),
        compact(json!({"revision": -1})),
        compact(json!({})),
        range(json!({"revision": 7})),
        range(json!({"revision": 8})),
        range(json!({"revision": 9})),
        range(json!({"revision": -1})),
        step("KV/RangeStream", json!({"key": b("a"), "revision": 7})).ours_alone(),
        hash(0),
        hash(7),
        hash(8),
        hash(12),
        txn(json!([]), json!([{"request_range": {"key": b("x"), "revision": 7}}]), json!([])),
        txn(json!([]), json!([{"request_range": {"key": b("x"), "revision": -1}}]), json!([])),
        txn(json!([]), json!([op_put("x"), {"request_range": {"key": b("x"), "revision": 7}}]), json!([])),
        compact(json!({"revision": 20, "physical": true})),
        hash(0),
        put("x", "after"),
        hash(0),
    ]
}

fn too_large() -> Vec<Step> {
    let value = crate::base64::encode(vec![0; 1_600_000]);
    let over = crate::base64::encode(vec![0; 2_200_000]);
    vec![
        step("KV/Put", json!({"key": b("large"), "value": value})),
        txn(json!([]), json!([{"request_put": {"key": b("large"), "value": value}}]), json!([])),
        step("KV/Put", json!({"key": b("large"), "value": over})).grpc_alone(),
        get("large"),
    ]
}
