//! Members of a cluster of one. The last call takes it its quorum.

use serde_json::{Value, json};

use super::put;
use crate::step::{Step, step};

pub(super) fn steps() -> Vec<Step> {
    let list = |message: Value| step("Cluster/MemberList", message);
    let add = |message: Value| step("Cluster/MemberAdd", message);
    let learner = |urls: Value| add(json!({"peerURLs": urls, "isLearner": true}));
    let update = |id: &str, urls: Value| step("Cluster/MemberUpdate", json!({"ID": id, "peerURLs": urls}));
    let remove = |id: &str| step("Cluster/MemberRemove", json!({"ID": id}));
    let promote = |id: &str| step("Cluster/MemberPromote", json!({"ID": id}));
    let mut steps = vec![list(json!({})), list(json!({"linearizable": true}))];
    for urls in [
        json!([]),
        json!([""]),
        json!(["127.0.0.1:1"]),
        json!(["http://127.0.0.1"]),
        json!(["http://127.0.0.1:1/path"]),
        json!(["ftp://127.0.0.1:1"]),
        json!(["http://127.0.0.1:x"]),
        json!(["http://127.0.0.1:1", "x"]),
        json!(["$peer-url"]),
    ] {
        steps.push(learner(urls.clone()));
        steps.push(update("$member", urls));
    }
    steps.extend([
        remove("0"),
        remove("1"),
        update("1", json!(["http://127.0.0.1:7"])),
        promote("1"),
        promote("$member"),
        update("$member", json!(["http://127.0.0.1:8", "http://127.0.0.1:7"])),
        list(json!({"linearizable": true})),
        update("$member", json!(["$peer-url"])),
        learner(json!(["http://127.0.0.1:9"])).keeps("$learner", "/member/ID"),
        learner(json!(["http://127.0.0.1:9"])),
        learner(json!(["http://127.0.0.1:10"])),
        list(json!({"linearizable": true})),
        promote("$learner"),
        step("Maintenance/MoveLeader", json!({"targetID": "$learner"})),
        update("$learner", json!(["$peer-url"])),
        update("$learner", json!(["http://127.0.0.1:11"])),
        put("a", "still"),
        remove("$learner"),
        remove("$learner"),
        update("$learner", json!(["http://127.0.0.1:11"])),
        promote("$learner"),
        list(json!({})),
        remove("$member"),
        add(json!({"peerURLs": ["http://127.0.0.1:9"]})).keeps("$second", "/member/ID"),
    ]);
    steps
}
