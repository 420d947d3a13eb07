//! The JSON gateway: the same services, asked and answered in JSON.

use serde_json::{Value, json};

use crate::http::{request, with_body, with_headers};
use crate::served::Served;

impl Served {
    /// The status and the answer of a POST.
    async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        let (line, body) = with_body(self, "POST", path, body).await;
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}")))
    }

    async fn good(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, &body.to_string()).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }
}

fn refusal(code: i32, message: &str) -> Value {
    json!({"code": code, "message": message, "details": []})
}

#[tokio::test]
async fn keys_are_written_and_read_in_json() {
    let served = Served::start("").await;
    let put = served.good("/v3/kv/put", json!({"key": "Zm9v", "value": "YmFy"})).await;
    assert_eq!(put["header"]["revision"], "2", "64-bit integers are strings");
    assert!(put["header"]["cluster_id"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(put.get("prev_kv"), None);

    let range = served.good("/v3/kv/range", json!({"key": "Zm9v"})).await;
    let kv =
        json!({"key": "Zm9v", "create_revision": "2", "mod_revision": "2", "version": "1", "value": "YmFy"});
    assert_eq!((&range["kvs"], &range["count"]), (&json!([kv]), &json!("1")));
    let nothing = served.good("/v3/kv/range", json!({"key": "YQ=="})).await;
    assert_eq!(nothing, json!({"header": range["header"]}), "what is zero is left out");

    let txn = json!({
        "compare": [{"key": "Zm9v", "target": "VERSION", "version": "1"}],
        "success": [{"request_put": {"key": "Zm9v", "value": "", "prev_kv": true}}],
        "failure": [{"requestRange": {"key": "Zm9v"}}],
    });
    let first = served.good("/v3/kv/txn", txn.clone()).await;
    assert_eq!(first["succeeded"], true);
    assert_eq!(first["responses"][0]["response_put"]["prev_kv"]["value"], "YmFy");
    let second = served.good("/v3/kv/txn", txn).await;
    assert_eq!(second.get("succeeded"), None);
    assert_eq!(second["responses"][0]["response_range"]["kvs"][0]["mod_revision"], "3");

    let deleted = served.good("/v3/kv/deleterange", json!({"key": "AA==", "range_end": "AA=="})).await;
    assert_eq!(deleted["deleted"], "1");
    served.good("/v3/kv/compaction", json!({"revision": 4})).await;
    served.stop().await;
}

#[tokio::test]
async fn the_member_answers_for_itself_in_json() {
    let served = Served::start("").await;
    let (status, answer) = served.post("/v3/maintenance/status", "").await;
    assert_eq!(
        (status, &answer["version"], &answer["storageVersion"]),
        (200, &json!("3.6.14"), &json!("3.6.0"))
    );
    assert_eq!(answer["leader"], answer["header"]["member_id"]);
    let list = served.good("/v3/cluster/member/list", json!({"linearizable": true})).await;
    assert_eq!(list["members"][0]["ID"], answer["leader"]);
    assert_eq!(list["members"][0]["peerURLs"], json!(["http://localhost:2380"]));
    let member = list["members"][0]["ID"].clone();
    let alarm = served
        .good("/v3/maintenance/alarm", json!({"action": "ACTIVATE", "memberID": member, "alarm": 1}))
        .await;
    assert_eq!(alarm["alarms"], json!([{"memberID": member, "alarm": "NOSPACE"}]));
    let hash = served.good("/v3/maintenance/hashkv", json!({})).await;
    assert_eq!(hash["hash_revision"], "1");
    served.stop().await;
}

#[tokio::test]
async fn refusals_have_etcds_shape_and_an_http_status() {
    let served = Served::start("max-request-bytes = 1000").await;
    for (path, body, status, code, message) in [
        ("/v3/kv/put", "{}", 400, 3, "etcdserver: key is not provided"),
        ("/v3/kv/put", r#"{"key":"YQ==","lease":"7"}"#, 404, 5, "etcdserver: requested lease not found"),
        (
            "/v3/kv/range",
            r#"{"key":"YQ==","revision":9}"#,
            400,
            11,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        (
            "/v3/maintenance/downgrade",
            r#"{"action":"CANCEL"}"#,
            400,
            9,
            "etcdserver: no inflight downgrade job",
        ),
        ("/v3/kv/nothing", "{}", 404, 5, "Not Found"),
        ("/v3alpha/kv/put", "", 404, 0, ""),
    ] {
        let (line, answer) = with_body(&served, "POST", path, body).await;
        assert!(line.contains(&format!(" {status} ")), "{path} {line}");
        if code != 0 {
            assert_eq!(serde_json::from_str::<Value>(&answer).unwrap(), refusal(code, message), "{path}");
        }
    }
    let (status, answer) = served.post("/v3/kv/put", "{\"key\":").await;
    assert_eq!((status, &answer["code"]), (400, &json!(3)));
    assert!(answer["message"].as_str().unwrap().contains("PutRequest"), "{answer}");
    let large = json!({"key": "YQ==", "value": "A".repeat(4_000)}).to_string();
    let (status, answer) = served.post("/v3/kv/put", &large).await;
    assert_eq!((status, answer), (400, refusal(3, "etcdserver: request is too large")));
    let (line, answer) = request(&served, "GET", "/v3/kv/range").await;
    assert_eq!(line, "HTTP/1.1 501 Not Implemented");
    assert_eq!(serde_json::from_str::<Value>(&answer).unwrap(), refusal(12, "Method Not Allowed"));
    served.stop().await;
}

#[tokio::test]
async fn a_stream_is_a_line_a_message() {
    let served = Served::start("").await;
    served.good("/v3/kv/put", json!({"key": "Zm9v", "value": "A".repeat(200_000)})).await;
    // The lines come in chunks of HTTP, whose lengths stand between them.
    let (line, body) = with_body(&served, "POST", "/v3/maintenance/snapshot", "{}").await;
    assert_eq!(line, "HTTP/1.1 200 OK");
    let lines: Vec<Value> = body
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(4 < lines.len(), "{}", lines.len());
    assert!(lines.iter().all(|line| line["result"]["blob"].is_string()), "{:?}", lines.last());
    assert_eq!(lines.last().unwrap()["result"]["blob"].as_str().unwrap().len(), 44, "the hash, in base64");
    served.stop().await;
}

#[tokio::test]
async fn what_a_stream_is_asked_for_is_checked_too() {
    let served = Served::start("").await;
    let (status, answer) = served.post("/v3/maintenance/snapshot", "[1]").await;
    assert_eq!((status, &answer["code"]), (400, &json!(3)), "{answer}");
    let (status, answer) = served.post("/v3/election/observe", "[1]").await;
    assert_eq!((status, &answer["code"]), (400, &json!(3)), "{answer}");
    served.stop().await;
}

#[tokio::test]
async fn locks_and_elections_are_asked_for_in_json() {
    let served = Served::start("").await;
    let lock = served.good("/v3/lock/lock", json!({"name": "Zm9v"})).await;
    assert_eq!(lock["header"]["revision"], "2");
    let range = served.good("/v3/kv/range", json!({"key": lock["key"]})).await;
    assert_eq!(range["count"], "1");
    served.good("/v3/lock/unlock", json!({"key": lock["key"]})).await;
    let range = served.good("/v3/kv/range", json!({"key": lock["key"]})).await;
    assert_eq!(range.get("count"), None, "it is gone");

    let (status, answer) = served.post("/v3/election/leader", r#"{"name": "Zm9v"}"#).await;
    assert_eq!((status, &answer), (500, &refusal(2, "election: no leader")));
    let (status, answer) = served.post("/v3/election/resign", "{}").await;
    assert_eq!((status, &answer), (500, &refusal(2, "\"leader\" field must be provided")));
    let campaign = served.good("/v3/election/campaign", json!({"name": "Zm9v", "value": "YmFy"})).await;
    let leader = served.good("/v3/election/leader", json!({"name": "Zm9v"})).await;
    assert_eq!((&leader["kv"]["key"], &leader["kv"]["value"]), (&campaign["leader"]["key"], &json!("YmFy")));
    served.good("/v3/election/resign", json!({"leader": campaign["leader"]})).await;
    let (status, _) = served.post("/v3/election/leader", r#"{"name": "Zm9v"}"#).await;
    assert_eq!(status, 500);
    served.stop().await;
}

#[tokio::test]
async fn users_log_in_and_show_their_tokens_in_json() {
    let served = Served::start("bcrypt-cost = 4").await;
    served.good("/v3/auth/user/add", json!({"name": "root", "password": "r"})).await;
    served.good("/v3/auth/user/add", json!({"name": "alice", "password": "a"})).await;
    served.good("/v3/auth/user/grant", json!({"user": "root", "role": "root"})).await;
    served.good("/v3/auth/role/add", json!({"name": "r"})).await;
    let permission = json!({"permType": "READWRITE", "key": "Zm9v"});
    served.good("/v3/auth/role/grant", json!({"name": "r", "perm": permission})).await;
    served.good("/v3/auth/user/grant", json!({"user": "alice", "role": "r"})).await;
    served.good("/v3/auth/enable", json!({})).await;
    let status = served.good("/v3/auth/status", json!({})).await;
    assert_eq!((&status["enabled"], &status["authRevision"]), (&json!(true), &json!("7")));

    let wrong = json!({"name": "alice", "password": "b"}).to_string();
    let failed = refusal(3, "etcdserver: authentication failed, invalid user ID or password");
    assert_eq!(served.post("/v3/auth/authenticate", &wrong).await, (400, failed));
    let login = served.good("/v3/auth/authenticate", json!({"name": "alice", "password": "a"})).await;
    let token = login["token"].as_str().unwrap();
    let by = async |token: &str, path: &str, body: Value| {
        let header = format!("Authorization: {token}\r\n");
        let (line, body) = with_headers(&served, &format!("POST {path}"), &header, &body.to_string()).await;
        let status: u16 = line.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    assert_eq!(by(token, "/v3/kv/put", json!({"key": "Zm9v"})).await.0, 200);
    assert_eq!(by(token, "/v3/maintenance/status", json!({})).await.0, 200);
    let denied = (403, refusal(7, "etcdserver: permission denied"));
    assert_eq!(by(token, "/v3/kv/put", json!({"key": "YQ=="})).await, denied);
    assert_eq!(by(token, "/v3/maintenance/hash", json!({})).await, denied);
    assert_eq!(by(token, "/v3/maintenance/snapshot", json!({})).await, denied);
    assert_eq!(by(token, "/v3/auth/user/list", json!({})).await, denied);
    let bad = (401, refusal(16, "etcdserver: invalid auth token"));
    assert_eq!(by("nonsense", "/v3/kv/put", json!({"key": "Zm9v"})).await, bad);
    assert_eq!(by("nonsense", "/v3/maintenance/snapshot", json!({})).await, bad);
    let nobody = (400, refusal(3, "etcdserver: user name is empty"));
    assert_eq!(served.post("/v3/kv/put", "{\"key\": \"Zm9v\"}").await, nobody);
    assert_eq!(served.post("/v3/maintenance/snapshot", "{}").await, nobody);
    served.stop().await;
}
