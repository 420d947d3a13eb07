//! `etcdctl` against one node and three: a client that we did not write, its output word by word.
//!
//! Without `etcdctl` in the path these tests say so and are skipped, except where `CI` is set: there they fail.

mod kit;
mod program;

use harmony_server::proto::v3lockpb::LockRequest;
use harmony_server::proto::v3lockpb::lock_client::LockClient;
use harmony_types::TestCluster as _;
use program::{Running, Said, etcdctl_is_there, run};
use serde_json::Value;

/// The members' client addresses and whose turn it is: any endpoint must serve any request.
struct Etcdctl {
    endpoints: Vec<String>,
    turn: usize,
}

impl Etcdctl {
    /// Runs a command with arguments that have no spaces in them at the next endpoint.
    fn next(&mut self, args: &str) -> Said {
        self.turn += 1;
        self.same(args)
    }

    /// Runs a command at the endpoint that served the last one.
    fn same(&self, args: &str) -> Said {
        self.at(&self.endpoints[self.turn % self.endpoints.len()], args.split_whitespace(), "")
    }

    /// Runs a command for all endpoints.
    fn all(&self, args: &str) -> Said {
        self.at(&self.endpoints.join(","), args.split_whitespace(), "")
    }

    /// Runs a command with a standard input at the next endpoint.
    fn input(&mut self, args: &str, input: &str) -> Said {
        self.turn += 1;
        self.at(&self.endpoints[self.turn % self.endpoints.len()], args.split_whitespace(), input)
    }

    fn at<'a>(&self, endpoints: &str, args: impl IntoIterator<Item = &'a str>, input: &str) -> Said {
        let mut all = vec![format!("--endpoints={endpoints}")];
        all.extend(args.into_iter().map(str::to_owned));
        run("etcdctl", all, input)
    }

    /// Checks that a command at the next endpoint is refused with these words.
    #[track_caller]
    fn refused(&mut self, args: &str, error: &str) {
        let said = self.next(args);
        refusal(&said, error);
    }
}

/// Checks that the server's refusal is among what `etcdctl` said; it may log the attempt before.
#[track_caller]
fn refusal(said: &Said, error: &str) {
    assert_eq!(said.code, Some(1), "{said:?}");
    let line = format!("Error: {error}");
    assert!(said.err.lines().any(|said| said == line), "expected {line:?} in {:?}", said.err);
}

#[track_caller]
fn json(said: &Said) -> Vec<Value> {
    match serde_json::from_str(said.succeeds()).expect("JSON") {
        Value::Array(values) => values,
        value => vec![value],
    }
}

fn check(nodes: usize) {
    if !etcdctl_is_there() {
        return;
    }
    let cluster = kit::started(nodes);
    let endpoints = cluster.nodes().map(|node| node.endpoint()).collect();
    let mut etcdctl = Etcdctl { endpoints, turn: 0 };
    writes_and_reads(&mut etcdctl);
    transactions(&mut etcdctl);
    watches(&etcdctl);
    refusals(&mut etcdctl);
    compaction(&mut etcdctl);
    endpoint_commands(&mut etcdctl);
    members(&mut etcdctl);
    maintenance(&mut etcdctl);
    leadership(&etcdctl);
    membership(&mut etcdctl);
}

/// Revisions 2 to 7.
fn writes_and_reads(etcdctl: &mut Etcdctl) {
    etcdctl.next("put a 1").prints("OK\n");
    etcdctl.next("put a 2 --prev-kv").prints("OK\na\n1\n");
    etcdctl.next("put b/1 x").prints("OK\n");
    etcdctl.next("put b/2 y").prints("OK\n");
    etcdctl.input("put b/3", "from standard input").prints("OK\n");

    etcdctl.next("get a").prints("a\n2\n");
    etcdctl.same("get a --consistency=s").prints("a\n2\n");
    etcdctl.next("get a --rev=2").prints("a\n1\n");
    etcdctl.next("get a --hex").prints("\\x61\n\\x32\n");
    etcdctl.next("get nothing").prints("");
    etcdctl.next("get b/ --prefix").prints("b/1\nx\nb/2\ny\nb/3\nfrom standard input\n");
    etcdctl.next("get b/1 b/3").prints("b/1\nx\nb/2\ny\n");
    etcdctl.next("get b/2 --from-key").prints("b/2\ny\nb/3\nfrom standard input\n");
    etcdctl.next("get b/ --prefix --rev=4").prints("b/1\nx\n");
    etcdctl.next("get b/ --prefix --limit=1").prints("b/1\nx\n");
    etcdctl.next("get b/ --prefix --limit=1 --order=DESCEND").prints("b/3\nfrom standard input\n");
    etcdctl.next("get b/ --prefix --print-value-only").prints("x\ny\nfrom standard input\n");
    etcdctl.next("get b/ --prefix --keys-only").prints("b/1\n\nb/2\n\nb/3\n\n");
    let sorted = |by: &str| format!("get b/ --prefix --print-value-only --sort-by={by}");
    etcdctl.next(&sorted("VALUE")).prints("from standard input\nx\ny\n");
    etcdctl.next(&sorted("VALUE --order=DESCEND")).prints("y\nx\nfrom standard input\n");
    etcdctl.next(&sorted("MODIFY --order=DESCEND --limit=2")).prints("from standard input\ny\n");
    etcdctl.next(&sorted("CREATE")).prints("x\ny\nfrom standard input\n");
    // etcdctl 3.4 cannot ask for it; `harmony` can, see the served tests.
    let counts = etcdctl.next("get --help").succeeds().contains("--count-only");
    let count = if counts { " --count-only" } else { "" };
    let counted = etcdctl.next(&format!("get b/ --prefix --write-out=fields{count}"));
    assert!(counted.succeeds().lines().any(|line| line == "\"Count\" : 3"), "{counted:?}");

    let one = json(&etcdctl.next("get a --write-out=json")).remove(0);
    let kv = &one["kvs"][0];
    assert_eq!((kv["key"].as_str(), kv["value"].as_str()), (Some("YQ=="), Some("Mg==")));
    assert_eq!((kv["create_revision"].as_u64(), kv["mod_revision"].as_u64()), (Some(2), Some(3)));
    assert_eq!((kv["version"].as_u64(), one["header"]["revision"].as_u64()), (Some(2), Some(6)));
    assert_eq!(one["count"].as_u64(), Some(1));

    etcdctl.next("del b/ --prefix --prev-kv").prints("3\nb/1\nx\nb/2\ny\nb/3\nfrom standard input\n");
    etcdctl.next("del b/ --prefix").prints("0\n");
    etcdctl.next("get b/ --prefix").prints("");
    etcdctl.next("get b/1 --rev=6").prints("b/1\nx\n");
}

/// Revision 8.
fn transactions(etcdctl: &mut Etcdctl) {
    let all_hold = "mod(\"a\") = \"3\"\nversion(\"a\") > \"1\"\ncreate(\"a\") < \"3\"\nvalue(\"a\") != \"1\"\n\n\
                    put c \"1 2\"\nget c\ndel a --prev-kv\nput a 3\n\nget nothing\n\n";
    let said = etcdctl.input("txn", all_hold);
    // The put of a key that a sibling deletes.
    refusal(&said, "etcdserver: duplicate key given in txn request");
    let said = etcdctl.input("txn", &all_hold.replace("put a 3\n", ""));
    said.prints("SUCCESS\n\nOK\n\nc\n1 2\n\n1\na\n2\n");
    let said = etcdctl.input("txn", "value(\"c\") = \"other\"\n\nput c never\n\nget c\nget a\n\n");
    said.prints("FAILURE\n\nc\n1 2\n\n");
    etcdctl.next("get c").prints("c\n1 2\n");
    let many =
        |ops: usize| format!("\n{}\n\n", (0..ops).map(|op| format!("get k{op}\n")).collect::<String>());
    etcdctl.input("txn", &many(128)).succeeds();
    refusal(&etcdctl.input("txn", &many(129)), "etcdserver: too many operations in txn request");
}

/// Replays what the functions above wrote, at every endpoint.
fn watches(etcdctl: &Etcdctl) {
    for endpoint in &etcdctl.endpoints {
        let watch = |args: &str| {
            let args = format!("--endpoints={endpoint} watch {args}");
            Running::start("etcdctl", args.split_whitespace())
        };
        watch("a --rev=2").prints("PUT\na\n1\nPUT\na\n2\nDELETE\na\n\n");
        watch("a --rev=3 --prev-kv").prints("PUT\na\n1\na\n2\nDELETE\na\n2\na\n\n");
        watch("b/ --prefix --rev=5").prints(
            "PUT\nb/2\ny\nPUT\nb/3\nfrom standard input\nDELETE\nb/1\n\nDELETE\nb/2\n\nDELETE\nb/3\n\n",
        );
        watch("b/2 b/3 --rev=1").prints("PUT\nb/2\ny\nDELETE\nb/2\n\n");
    }
}

fn refusals(etcdctl: &mut Etcdctl) {
    let empty = etcdctl.at(&etcdctl.endpoints[0], ["put", "", "v"], "");
    refusal(&empty, "etcdserver: key is not provided");
    etcdctl.refused("put nothing --ignore-value", "etcdserver: key not found");
    etcdctl.refused("put k v --lease=1234abcd", "etcdserver: requested lease not found");
    etcdctl.refused("get c --rev=999", "etcdserver: mvcc: required revision is a future revision");
    let large = "x".repeat(1_600_000);
    refusal(&etcdctl.input("put k", &large), "etcdserver: request is too large");
    etcdctl.next("get k").prints("");
}

fn compaction(etcdctl: &mut Etcdctl) {
    const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
    etcdctl.next("compaction 5").prints("compacted revision 5\n");
    etcdctl.refused("get a --rev=4", COMPACTED);
    etcdctl.refused("get a --rev=2", COMPACTED);
    etcdctl.next("get a --rev=5").prints("a\n2\n");
    etcdctl.next("get b/ --prefix --rev=5").prints("b/1\nx\nb/2\ny\n");
    etcdctl.refused("compaction 5", COMPACTED);
    etcdctl.refused("compaction 999", "etcdserver: mvcc: required revision is a future revision");
    etcdctl.next("compaction 8 --physical").prints("compacted revision 8\n");
    etcdctl.refused("get a --rev=7", COMPACTED);
    etcdctl.next("get c --rev=8").prints("c\n1 2\n");
}

fn endpoint_commands(etcdctl: &mut Etcdctl) {
    let count = etcdctl.endpoints.len();
    let health = etcdctl.all("endpoint health");
    assert_eq!(health.code, Some(0), "{health:?}");
    for endpoint in &etcdctl.endpoints {
        let line = format!("{endpoint} is healthy: successfully committed proposal");
        assert!(format!("{}{}", health.out, health.err).contains(&line), "{health:?}");
    }

    // A linearizable read brings every member up to the same revision.
    for _ in 0..count {
        etcdctl.next("get c").prints("c\n1 2\n");
    }
    let statuses = json(&etcdctl.all("endpoint status --write-out=json"));
    assert_eq!(statuses.len(), count);
    let field = |status: &Value, name: &str| status["Status"][name].as_u64().unwrap_or_default();
    for status in &statuses {
        assert_ne!(field(status, "leader"), 0, "{status}");
        assert_eq!(field(status, "leader"), field(&statuses[0], "leader"), "one leader");
        assert!(field(status, "dbSize") > 0 && field(status, "raftTerm") > 0, "{status}");
        assert!(field(status, "raftAppliedIndex") <= field(status, "raftIndex"), "{status}");
        assert_eq!(status["Status"]["header"]["revision"].as_u64(), Some(8));
        assert!(!status["Status"]["version"].as_str().unwrap_or_default().is_empty(), "{status}");
    }
    let leads = |status: &&Value| status["Status"]["header"]["member_id"] == status["Status"]["leader"];
    assert_eq!(statuses.iter().filter(leads).count(), 1, "one member is the leader");

    let hashes = json(&etcdctl.all("endpoint hashkv --write-out=json"));
    assert_eq!(hashes.len(), count);
    for hash in &hashes {
        assert!(hash["HashKV"]["hash"].as_u64().unwrap_or_default() > 0, "{hash}");
        assert_eq!(hash["HashKV"]["hash"], hashes[0]["HashKV"]["hash"], "the members agree");
        assert_eq!(hash["HashKV"]["compact_revision"].as_u64(), Some(8));
    }
}

fn members(etcdctl: &mut Etcdctl) {
    let list = etcdctl.next("member list");
    let lines: Vec<Vec<&str>> = list.succeeds().lines().map(|line| line.split(", ").collect()).collect();
    assert_eq!(lines.len(), etcdctl.endpoints.len());
    for endpoint in &etcdctl.endpoints {
        let url = format!("http://{endpoint}");
        let line =
            lines.iter().find(|line| line[4] == url).unwrap_or_else(|| panic!("{url} in {}", list.out));
        assert!(u64::from_str_radix(line[0], 16).is_ok(), "{line:?}");
        assert_eq!((line[1], line[5]), ("started", "false"));
        assert!(line[2].starts_with('n') && line[3].starts_with("http://127.0.0.1:"), "{line:?}");
    }
}

fn maintenance(etcdctl: &mut Etcdctl) {
    etcdctl.next("alarm list").prints("");
    // Nothing to clear.
    etcdctl.next("alarm disarm").prints("");
    for endpoint in etcdctl.endpoints.clone() {
        let said = etcdctl.at(&endpoint, ["defrag"], "");
        assert!(
            said.succeeds().contains(&format!("Finished defragmenting etcd member[{endpoint}]")),
            "{said:?}"
        );
    }
    etcdctl.next("get c").prints("c\n1 2\n");

    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("backup.db");
    let path = file.to_str().expect("UTF-8");
    // One endpoint only, which is told apart by the command itself.
    let said = etcdctl.next(&format!("snapshot save {path}"));
    assert!(said.succeeds().contains(&format!("Snapshot saved at {path}")), "{said:?}");
    assert_eq!(
        std::fs::metadata(&file).expect("the backup").len() % 512,
        32,
        "a whole one ends with its hash"
    );
}

fn leadership(etcdctl: &Etcdctl) {
    let ids = |said: &Said| -> Vec<(String, u64, u64)> {
        let id = |value: &Value| value.as_u64().unwrap_or_default();
        let row = |status: &Value| {
            let endpoint = status["Endpoint"].as_str().unwrap_or_default().to_owned();
            (endpoint, id(&status["Status"]["header"]["member_id"]), id(&status["Status"]["leader"]))
        };
        json(said).iter().map(row).collect()
    };
    let rows = ids(&etcdctl.all("endpoint status --write-out=json"));
    let (leader, own, _) = rows.iter().find(|(_, own, leader)| own == leader).expect("a leader");
    let at = |endpoint: &str, id: u64| etcdctl.at(endpoint, ["move-leader", &format!("{id:x}")], "");
    refusal(&at(leader, own ^ 1), "etcdserver: bad leader transferee");
    let Some((follower, other, _)) = rows.iter().find(|(_, own, leader)| own != leader) else { return };
    let said = at(follower, *other);
    assert!(said.code != Some(0) && said.err.contains("no leader endpoint given"), "{said:?}");
    at(leader, *other).prints(&format!("Leadership transferred from {own:x} to {other:x}\n"));
    let after = ids(&etcdctl.all("endpoint status --write-out=json"));
    assert!(after.iter().any(|(endpoint, _, leader)| endpoint == follower && leader == other), "{after:?}");
}

/// A member that is added and never started.
fn membership(etcdctl: &mut Etcdctl) {
    let said = etcdctl.next("member add n9 --peer-urls=http://127.0.0.1:9");
    let lines: Vec<&str> = said.succeeds().lines().collect();
    let words: Vec<&str> = lines[0].split_whitespace().collect();
    let [_, id, _, _, _, cluster] = words[..] else { panic!("{said:?}") };
    assert_eq!(lines[0], format!("Member {id:>16} added to cluster {cluster:>16}"));
    for line in [
        "ETCD_NAME=\"n9\"",
        "ETCD_INITIAL_ADVERTISE_PEER_URLS=\"http://127.0.0.1:9\"",
        "ETCD_INITIAL_CLUSTER_STATE=\"existing\"",
    ] {
        assert!(lines.contains(&line), "{line} is not in {said:?}");
    }
    assert!(
        said.out.contains("n9=http://127.0.0.1:9") && said.out.contains("ETCD_INITIAL_CLUSTER=\""),
        "{said:?}"
    );
    let listed = |url: &str| format!("{id}, unstarted, , {url}, , true");
    let list = etcdctl.next("member list");
    assert!(list.succeeds().lines().any(|line| line == listed("http://127.0.0.1:9")), "{list:?}");
    etcdctl.next("put quorum kept").prints("OK\n");

    etcdctl.refused("member add n8 --peer-urls=http://127.0.0.1:9", "etcdserver: Peer URLs already exists");
    let too_many = "etcdserver: too many learner members in cluster";
    etcdctl.refused("member add n8 --peer-urls=http://127.0.0.1:8", too_many);
    etcdctl.refused(
        &format!("member promote {id}"),
        "etcdserver: can only promote a learner member which is in sync with leader",
    );
    let changed = |what: &str| format!("Member {id:>16} {what} cluster {cluster:>16}\n");
    etcdctl
        .next(&format!("member update {id} --peer-urls=http://127.0.0.1:8"))
        .prints(&changed("updated in"));
    let list = etcdctl.next("member list");
    assert!(list.succeeds().lines().any(|line| line == listed("http://127.0.0.1:8")), "{list:?}");
    etcdctl.next(&format!("member remove {id}")).prints(&changed("removed from"));
    let not_found = "etcdserver: member not found";
    for args in ["remove", "promote", "update --peer-urls=http://127.0.0.1:8"] {
        etcdctl.refused(&format!("member {args} {id}"), not_found);
    }
}

#[test]
fn one_node_serves_etcdctl() {
    check(1);
}

#[test]
fn three_nodes_serve_etcdctl_at_any_endpoint() {
    check(3);
}

/// Grants and revocations go through any member; what is left of a lease only the leader says.
fn leases(nodes: usize) {
    if !etcdctl_is_there() {
        return;
    }
    let cluster = kit::started(nodes);
    let endpoints = cluster.nodes().map(|node| node.endpoint()).collect();
    let mut etcdctl = Etcdctl { endpoints, turn: 0 };
    let said = etcdctl.next("lease grant 600");
    let id = said.succeeds().split_whitespace().nth(1).expect("an id").to_owned();
    said.prints(&format!("lease {id} granted with TTL(600s)\n"));
    for key in ["l/b", "l/a"] {
        etcdctl.next(&format!("put {key} v --lease={id}")).prints("OK\n");
    }
    etcdctl.next("get l/ --prefix --keys-only").prints("l/a\n\nl/b\n\n");
    if nodes == 1 {
        etcdctl.next("lease list").prints(&format!("found 1 leases\n{id}\n"));
    }
    // Whichever member is asked.
    for _ in 0..nodes {
        etcdctl
            .next(&format!("lease keep-alive --once {id}"))
            .prints(&format!("lease {id} keepalived with TTL(600)\n"));
        let said = etcdctl.next(&format!("lease timetolive {id} --keys"));
        let text = said.succeeds();
        assert!(text.starts_with(&format!("lease {id} granted with TTL(600s), remaining(")), "{text}");
        assert!(text.ends_with("s), attached keys([l/a l/b])\n"), "{text}");
    }
    etcdctl.next(&format!("lease revoke {id}")).prints(&format!("lease {id} revoked\n"));
    etcdctl.next("get l/ --prefix --keys-only").prints("");
    if nodes == 1 {
        etcdctl.next("lease list").prints("found 0 leases\n");
    }
    etcdctl.next(&format!("lease timetolive {id}")).prints(&format!("lease {id} already expired\n"));
    let said = etcdctl.next(&format!("lease revoke {id}"));
    let words = "etcdserver: requested lease not found";
    assert!(said.code != Some(0) && said.err.contains(words), "{said:?}");
    etcdctl.refused("put k v --lease=1234abcd", words);
}

#[test]
fn leases_on_one_node() {
    leases(1);
}

#[test]
fn leases_on_three_nodes() {
    leases(3);
}

#[test]
fn a_lease_is_renewed_through_any_member_also_while_its_leader_is_killed() {
    if !etcdctl_is_there() {
        return;
    }
    let mut cluster = kit::started(3);
    let endpoints: Vec<String> = cluster.nodes().map(|node| node.endpoint()).collect();
    let mut etcdctl = Etcdctl { endpoints, turn: 0 };
    let said = etcdctl.next("lease grant 60");
    let id = said.succeeds().split_whitespace().nth(1).expect("an id").to_owned();
    etcdctl.next(&format!("put k v --lease={id}")).prints("OK\n");
    let leader = cluster.leader().expect("a leader");
    cluster.kill_node(leader).expect("it ran");
    let left: Vec<String> = cluster.running().map(|node| node.endpoint()).collect();
    assert_eq!(left.len(), 2);
    // At once: there is no leader yet, and the members wait for one within the request's time.
    for endpoint in &left {
        let said = etcdctl.at(endpoint, ["--command-timeout=20s", "lease", "keep-alive", "--once", &id], "");
        said.prints(&format!("lease {id} keepalived with TTL(60)\n"));
    }
    for endpoint in &left {
        let said = etcdctl.at(endpoint, ["--command-timeout=20s", "lease", "timetolive", &id, "--keys"], "");
        assert!(said.succeeds().ends_with("s), attached keys([k])\n"), "{said:?}");
    }
}

#[test]
fn a_lock_taken_by_etcdctl_keeps_one_asked_of_the_server_waiting_until_its_holder_ends() {
    if !etcdctl_is_there() {
        return;
    }
    let cluster = kit::started(1);
    let endpoint = cluster.nodes().next().expect("a node").endpoint();
    let etcdctl = Etcdctl { endpoints: vec![endpoint.clone()], turn: 0 };
    let keys = || etcdctl.all("get l/ --prefix --keys-only").succeeds().split_whitespace().count();
    let holder = Running::start("etcdctl", [&*format!("--endpoints={endpoint}"), "lock", "--ttl=5", "l"]);
    while keys() == 0 {}
    let waiting = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let locks = LockClient::connect(format!("http://{endpoint}")).await;
            let request = LockRequest { name: "l".into(), lease: 0 };
            locks.expect("a connection").lock(request).await.expect("the lock").into_inner().key
        })
    });
    while keys() == 1 {}
    assert!(!waiting.is_finished(), "etcdctl holds it");
    // Killed: its key goes with its lease.
    drop(holder);
    let key = waiting.join().expect("no panic");
    etcdctl
        .all("get l/ --prefix --keys-only")
        .prints(&format!("{}\n\n", std::str::from_utf8(&key).expect("text")));
}
