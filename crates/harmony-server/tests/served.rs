//! `harmony`'s client commands against nodes that serve: exact output, JSON, endpoints that are down.

mod kit;
mod program;

use std::net::TcpListener;

use harmony_types::TestCluster as _;
use program::{HARMONY, Running, Said, run};
use serde_json::{Value, json};

/// Runs a command with arguments that have no spaces in them.
fn at(endpoints: &str, args: &str, input: &str) -> Said {
    run(HARMONY, args.split_whitespace().chain(["--endpoints", endpoints]), input)
}

#[track_caller]
fn json_of(said: &Said) -> Value {
    serde_json::from_str(said.succeeds()).expect("JSON")
}

/// The cells of the only row of a table.
#[track_caller]
fn row(said: &Said) -> Vec<String> {
    let lines: Vec<&str> = said.succeeds().lines().collect();
    assert_eq!(lines.len(), 5, "a frame, a heading and one row: {}", said.out);
    lines[3].trim_matches('│').split('│').map(|cell| cell.trim().to_owned()).collect()
}

#[test]
fn put_get_del_and_txn_print_what_etcdctl_prints() {
    let cluster = kit::started(1);
    let endpoint = cluster.nodes().next().unwrap().endpoint();
    let harmony = |args: &str| at(&endpoint, args, "");
    let txn = |input: &str| at(&endpoint, "txn", input);

    harmony("put a 1").prints("OK\n");
    harmony("put a 2 --prev-kv").prints("OK\na\n1\n");
    at(&endpoint, "put b", "from\nstandard input").prints("OK\n");
    harmony("put b --ignore-value --prev-kv").prints("OK\nb\nfrom\nstandard input\n");
    harmony("get a").prints("a\n2\n");
    harmony("get a --rev 2").prints("a\n1\n");
    harmony("get a --consistency s --hex").prints("\\x61\n\\x32\n");
    harmony("get nothing").prints("");
    harmony("get a b").prints("a\n2\n");
    harmony("get a --from-key --keys-only").prints("a\n\nb\n\n");
    harmony("get a --from-key --print-value-only --order DESCEND --limit 1").prints("from\nstandard input\n");
    harmony("get a --from-key --print-value-only --sort-by value --limit 1").prints("2\n");
    harmony("get a --from-key --count-only").prints("2\n");
    run(HARMONY, ["--endpoints", &endpoint, "get", "", "--prefix", "--count-only"], "").prints("2\n");

    txn("mod(\"a\") = \"3\"\nvalue(\"a\") = \"2\"\n\nput c \"1 2\"\nget c\ndel b --prev-kv\n\nget nothing\n")
        .prints("SUCCESS\n\nOK\n\nc\n1 2\n\n1\nb\nfrom\nstandard input\n");
    txn("version(\"c\") > 1\n\nput c never\n\nget c\nget nothing\n\n").prints("FAILURE\n\nc\n1 2\n\n");
    txn("\n\n\n").prints("SUCCESS\n");

    harmony("del c --prev-kv").prints("1\nc\n1 2\n");
    harmony("del c").prints("0\n");
    harmony("del a --from-key").prints("1\n");

    harmony("get a --rev 999").fails(1, "error: etcdserver: mvcc: required revision is a future revision\n");
    harmony("put k v --lease 5f").fails(1, "error: etcdserver: requested lease not found\n");
    run(HARMONY, ["--endpoints", &endpoint, "get", ""], "")
        .fails(1, "error: etcdserver: key is not provided\n");
    txn("\nput k 1\nput k 2\n\n\n").fails(1, "error: etcdserver: duplicate key given in txn request\n");
}

#[test]
fn json_has_every_field() {
    let cluster = kit::started(1);
    let endpoint = cluster.nodes().next().unwrap().endpoint();
    let harmony = |args: &str| json_of(&at(&endpoint, &format!("{args} --json"), ""));

    assert_eq!(harmony("put a 1")["header"]["revision"], json!(2));
    let previous =
        json!({"key": "YQ==", "create_revision": 2, "mod_revision": 2, "version": 1, "value": "MQ=="});
    assert_eq!(harmony("put a 2 --prev-kv")["prev_kv"], previous);
    let got = harmony("get a");
    let kv = json!({"key": "YQ==", "create_revision": 2, "mod_revision": 3, "version": 2, "value": "Mg=="});
    assert_eq!((&got["kvs"], &got["count"]), (&json!([kv]), &json!(1)));
    for id in ["cluster_id", "member_id", "raft_term"] {
        assert!(got["header"][id].as_u64().is_some_and(|id| id > 0), "{got}");
    }
    let txn = json_of(&at(&endpoint, "txn --json", "mod(\"a\") > 0\n\nget a\n\n\n"));
    assert_eq!(txn["succeeded"], json!(true));
    assert_eq!(txn["responses"][0]["Response"]["response_range"]["kvs"], json!([kv]));
    let deleted = harmony("del a --prev-kv");
    assert_eq!((&deleted["deleted"], &deleted["prev_kvs"]), (&json!(1), &json!([kv])));

    let status = harmony("status");
    assert_eq!(status[0]["Endpoint"], json!(endpoint));
    let member = &status[0]["Status"]["header"]["member_id"];
    assert_eq!(&status[0]["Status"]["leader"], member);
    let members = harmony("members");
    assert_eq!(&members["members"][0]["ID"], member);
    assert_eq!(members["members"][0]["clientURLs"], json!([format!("http://{endpoint}")]));
}

#[test]
fn status_and_members_are_tables() {
    let cluster = kit::started(1);
    let endpoint = cluster.nodes().next().unwrap().endpoint();
    let status = at(&endpoint, "status", "");
    let heading = status.out.lines().nth(1).unwrap().replace(' ', "");
    assert_eq!(heading, "│ENDPOINT│ID│VERSION│DBSIZE│LEADER│TERM│INDEX│APPLIED│ERRORS│");
    let cells = row(&status);
    assert_eq!((cells[0].as_str(), cells[4].as_str(), cells[8].as_str()), (endpoint.as_str(), "self", ""));
    assert!(u64::from_str_radix(&cells[1], 16).is_ok(), "{cells:?}");
    let number = |column: usize| cells[column].parse::<u64>().expect("a number");
    assert!(number(5) > 0 && number(7) <= number(6) && number(7) > 0, "{cells:?}");

    let members = row(&at(&endpoint, "members", ""));
    assert_eq!(members[0], cells[1]);
    let url = format!("http://{endpoint}");
    assert_eq!(
        (members[1].as_str(), members[4].as_str(), members[5].as_str()),
        ("started", url.as_str(), "false")
    );
}

#[test]
fn an_endpoint_that_is_down_is_passed_over() {
    let down = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cluster = kit::started(1);
    let endpoint = cluster.nodes().next().unwrap().endpoint();
    let both = format!("{down},{endpoint}");
    at(&both, "put k v", "").prints("OK\n");
    at(&both, "get k", "").prints("k\nv\n");
    let status = at(&both, "status", "");
    assert_eq!(status.code, Some(1));
    assert!(status.out.contains("Connection refused") && status.out.contains("self"), "{}", status.out);
}

#[test]
fn only_a_read_is_sent_again_when_an_endpoint_does_not_answer() {
    // Connections to it are accepted by the system, and never read.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_address = silent.local_addr().unwrap();
    let cluster = kit::started(1);
    let endpoint = cluster.nodes().next().unwrap().endpoint();
    at(&endpoint, "put k v", "").prints("OK\n");
    let both = format!("{silent_address},{endpoint}");
    at(&both, "get k --command-timeout 2s", "").prints("k\nv\n");
    let lost =
        format!("error: {silent_address}: no answer within 2s (it may have been applied all the same)\n");
    at(&both, "put k twice --command-timeout 2s", "").fails(1, &lost);
    at(&endpoint, "get k", "").prints("k\nv\n");
}

#[test]
fn a_watch_prints_what_etcdctl_prints_and_goes_on_elsewhere() {
    let mut cluster = kit::started(3);
    // The first endpoint is a follower, which can go away without an election.
    let leader = cluster.nodes().next().unwrap().client().status().unwrap().leader;
    let mut nodes: Vec<_> = cluster.nodes().map(|node| (node.id(), node.endpoint())).collect();
    nodes.sort_by_key(|(id, _)| Some(*id) == leader);
    let (first, endpoints) =
        (nodes[0].0, nodes.into_iter().map(|(_, endpoint)| endpoint).collect::<Vec<_>>());
    let watch = |args: &str, endpoints: &str| {
        let args = format!("watch {args} --endpoints {endpoints}");
        Running::start(HARMONY, args.split_whitespace())
    };
    let all = endpoints.join(",");
    at(&endpoints[2], "put a 1", "").prints("OK\n");
    at(&endpoints[2], "put a 2", "").prints("OK\n");
    at(&endpoints[2], "put ab 3", "").prints("OK\n");
    at(&endpoints[2], "del a", "").prints("1\n");
    // What is to come is known only once the watch is there: this one begins in the past.
    let mut watching = watch("a --prefix --rev 2", &all);
    watching.prints("PUT\na\n1\nPUT\na\n2\nPUT\nab\n3\nDELETE\na\n\n");
    watch("a --rev 3 --prev-kv --hex", &all).prints("PUT\n\\x61\n\\x31\n\\x61\n\\x32\nDELETE\n");
    watch("a ab --rev 4", &all).prints("DELETE\na\n\n");
    watch("aa --from-key --rev 2", &all).prints("PUT\nab\n3\n");

    cluster.kill_node(first).expect("the member ends");
    at(&endpoints[1..].join(","), "put a 4", "").prints("OK\n");
    watching.prints("PUT\na\n4\n");
    at(&endpoints[2], "put other 5", "").prints("OK\n");
    at(&endpoints[2], "put a 6", "").prints("OK\n");
    watching.prints("PUT\na\n6\n");
}

#[test]
fn any_of_three_endpoints_serves_any_command() {
    let cluster = kit::started(3);
    let endpoints: Vec<String> = cluster.nodes().map(|node| node.endpoint()).collect();
    for (number, endpoint) in endpoints.iter().enumerate() {
        at(endpoint, &format!("put k {number}"), "").prints("OK\n");
        for endpoint in &endpoints {
            at(endpoint, "get k", "").prints(&format!("k\n{number}\n"));
        }
    }
    let members = json_of(&at(&endpoints[0], "members --json", ""));
    assert_eq!(members["members"].as_array().map(Vec::len), Some(3));
    let status = json_of(&at(&endpoints.join(","), "status --json", ""));
    let leader = &status[0]["Status"]["leader"];
    let leads = |status: &&Value| &status["Status"]["header"]["member_id"] == leader;
    assert_eq!(status.as_array().unwrap().iter().filter(leads).count(), 1);
}

#[test]
fn benchmarks_count_what_they_did() {
    let cluster = kit::started(1);
    let endpoint = cluster.nodes().next().unwrap().endpoint();
    let bench = |args: &str| {
        let args = format!("bench {args} --total 200 --clients 8 --connections 2 --keys 50 --json");
        let report = json_of(&at(&endpoint, &args, ""));
        assert_eq!((&report["operations"], &report["failed"]), (&json!(200), &json!(0)), "{report}");
        assert!(report["latency_ms"]["p50"].as_f64() <= report["latency_ms"]["max"].as_f64(), "{report}");
        report
    };
    assert_eq!(bench("get --no-load")["missing"], json!(200));
    assert_eq!(bench("get")["missing"], json!(0), "the keys are loaded first");
    at(&endpoint, "get bench/ --prefix --count-only", "").prints("50\n");
    assert_eq!(bench("range --range-size 10 --serializable")["missing"], json!(0));
    let before = json_of(&at(&endpoint, "get k --json", ""))["header"]["revision"].as_u64().unwrap();
    bench("put --sequential");
    bench("txn");
    let after = json_of(&at(&endpoint, "get k --json", ""))["header"]["revision"].as_u64().unwrap();
    assert_eq!(after - before, 400, "one revision a put and one a transaction");

    // A value over the server's limit on requests: every one fails, and the reason is counted.
    let args = "bench put --total 4 --clients 2 --connections 1 --value-size 1600000 --json";
    let failed = at(&endpoint, args, "");
    assert_eq!(failed.code, Some(1));
    let report: Value = serde_json::from_str(&failed.out).unwrap();
    assert_eq!(report["errors"], json!({"etcdserver: request is too large": 4}));
}
