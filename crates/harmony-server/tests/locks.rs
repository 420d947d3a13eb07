//! Locks, elections and leases from the command line: `harmony` and `etcdctl` contend with each other, say the same, and let
//! go when they are told to stop; and through every one of three members.
//!
//! Without `etcdctl` in the path the tests that need it say so and are skipped, except where `CI` is set: there they fail.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;
mod program;

use harmony_server::proto::etcdserverpb as pb;
use harmony_server::proto::v3electionpb::election_client::ElectionClient;
use harmony_server::proto::v3electionpb::{CampaignRequest, LeaderRequest, ProclaimRequest, ResignRequest};
use harmony_server::proto::v3lockpb::lock_client::LockClient;
use harmony_server::proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest};
use harmony_testkit::ProcessCluster;
use kit::GrpcClient;
use program::{HARMONY, Running, Said, etcdctl_is_there, run};
use rustix::process::Signal;
use serde_json::Value;
use tonic::Status;

/// The clients to compare.
const BOTH: [&str; 2] = [HARMONY, "etcdctl"];

/// One member's address for clients.
struct At(String);

impl At {
    fn first(cluster: &ProcessCluster) -> Self {
        Self(cluster.nodes().next().unwrap().endpoint())
    }

    fn args(&self, args: &str) -> Vec<String> {
        let endpoint = format!("--endpoints={}", self.0);
        std::iter::once(endpoint).chain(args.split_whitespace().map(str::to_owned)).collect()
    }

    fn run(&self, program: &str, args: &str) -> Said {
        run(program, self.args(args), "")
    }

    fn start(&self, program: &str, args: &str) -> Running {
        Running::start(program, self.args(args))
    }

    /// Keys under a prefix, in their order.
    fn keys(&self, prefix: &str) -> Vec<String> {
        let said = self.run(HARMONY, &format!("get {prefix} --prefix --keys-only"));
        said.succeeds().split_whitespace().map(str::to_owned).collect()
    }

    /// Waits until there are so many keys.
    fn until_keys(&self, prefix: &str, count: usize) -> Vec<String> {
        loop {
            let keys = self.keys(prefix);
            if keys.len() == count {
                return keys;
            }
        }
    }
}

/// The next key with its value, which both programs print on two lines.
fn pair(running: &mut Running) -> (String, String) {
    let line = |running: &mut Running| running.line().trim_end().to_owned();
    (line(running), line(running))
}

#[test]
fn harmony_and_etcdctl_say_the_same_of_leases() {
    if !etcdctl_is_there() {
        return;
    }
    let cluster = kit::started(1);
    let at = At::first(&cluster);
    let said: Vec<Vec<String>> = BOTH
        .into_iter()
        .map(|program| {
            let mut all = Vec::new();
            let granted = at.run(program, "lease grant 600");
            let id = granted.succeeds().split_whitespace().nth(1).unwrap().to_owned();
            let mut say = |said: Said| {
                let left = ["599", "598", "597", "596", "595"];
                let text = left
                    .iter()
                    .fold(said.succeeds().replace(&id, "ID"), |text, left| text.replace(left, "LEFT"));
                all.push(text);
            };
            say(granted);
            at.run(program, &format!("put l/b v --lease={id}")).prints("OK\n");
            at.run(program, &format!("put l/a v --lease={id}")).prints("OK\n");
            for args in ["timetolive", "timetolive --keys", "keep-alive --once"] {
                say(at.run(program, &format!("lease {args} {id}")));
            }
            say(at.run(program, "lease list"));
            say(at.run(program, &format!("lease revoke {id}")));
            for args in [format!("timetolive {id}"), format!("keep-alive {id}"), "list".to_owned()] {
                say(at.run(program, &format!("lease {args}")));
            }
            assert_eq!(at.keys("l/"), Vec::<String>::new());
            for args in ["revoke", "keep-alive --once"] {
                let refused = at.run(program, &format!("lease {args} {id}"));
                assert!(refused.code != Some(0) && refused.out.is_empty(), "{refused:?}");
                assert!(refused.err.contains("etcdserver: requested lease not found"), "{refused:?}");
            }
            all
        })
        .collect();
    assert_eq!(said[0], said[1]);
    assert_eq!(said[0][2], "lease ID granted with TTL(600s), remaining(LEFTs), attached keys([l/a l/b])\n");
}

#[test]
fn leases_in_json_have_the_fields_that_etcdctl_prints() {
    if !etcdctl_is_there() {
        return;
    }
    let cluster = kit::started(1);
    let at = At::first(&cluster);
    let json = "--write-out=json";
    let shapes = BOTH.map(|program| {
        let say = |args: &str| -> Value {
            serde_json::from_str(at.run(program, &format!("{args} {json}")).succeeds()).unwrap()
        };
        let granted = say("lease grant 600");
        let id = format!("{:x}", granted["ID"].as_i64().unwrap());
        at.run(program, &format!("put k v --lease={id}")).succeeds();
        let all = [
            granted,
            say(&format!("lease timetolive {id}")),
            say(&format!("lease timetolive {id} --keys")),
            say(&format!("lease keep-alive --once {id}")),
            say("lease list"),
            say(&format!("lease revoke {id}")),
        ];
        all.map(|value| shape(&value))
    });
    assert_eq!(shapes[0], shapes[1]);
}

/// Names and kinds, without numbers that differ from call to call.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Value::Array(values) => values.iter().map(shape).collect(),
        Value::Number(_) => Value::from(0),
        other => other.clone(),
    }
}

#[test]
fn a_lease_is_kept_alive_until_it_is_revoked() {
    let cluster = kit::started(1);
    let at = At::first(&cluster);
    let granted = at.run(HARMONY, "lease grant 2");
    let id = granted.succeeds().split_whitespace().nth(1).unwrap().to_owned();
    let mut keeping = at.start(HARMONY, &format!("lease keep-alive {id}"));
    // Longer than it would live by itself.
    for _ in 0..5 {
        keeping.prints(&format!("lease {id} keepalived with TTL(2)\n"));
    }
    at.run(HARMONY, &format!("lease revoke {id}")).prints(&format!("lease {id} revoked\n"));
    keeping.until(&format!("lease {id} expired or revoked.\n"));
    assert_eq!(keeping.ends(), Some(0));
}

#[test]
fn a_lock_goes_from_one_program_to_the_other_when_its_holder_is_interrupted() {
    if !etcdctl_is_there() {
        return;
    }
    let cluster = kit::started(1);
    let at = At::first(&cluster);
    for (first, second, signal) in [
        (HARMONY, "etcdctl", Signal::INT),
        ("etcdctl", HARMONY, Signal::INT),
        (HARMONY, HARMONY, Signal::TERM),
    ] {
        let mut holder = at.start(first, "lock l");
        let (key, value) = pair(&mut holder);
        assert_eq!((at.until_keys("l/", 1), value.as_str()), (vec![key.clone()], ""));
        let mut waiting = at.start(second, "lock l");
        at.until_keys("l/", 2);
        holder.signal(signal);
        assert_eq!(holder.ends(), Some(0));
        let (next, _) = pair(&mut waiting);
        assert_ne!(next, key);
        assert_eq!(at.until_keys("l/", 1), [next]);
        waiting.signal(Signal::INT);
        assert_eq!(waiting.ends(), Some(0));
        at.until_keys("l/", 0);
    }
    at.run(HARMONY, "lease list").succeeds();
}

#[test]
fn who_is_interrupted_while_it_waits_for_a_lock_leaves_nothing_behind() {
    let cluster = kit::started(1);
    let at = At::first(&cluster);
    let mut holder = at.start(HARMONY, "lock l");
    let (key, _) = pair(&mut holder);
    let waiting = at.start(HARMONY, "lock l");
    at.until_keys("l/", 2);
    waiting.signal(Signal::INT);
    assert_eq!(waiting.ends(), Some(1));
    assert_eq!(at.keys("l/"), [key], "gone on return");
    holder.signal(Signal::INT);
    assert_eq!(holder.ends(), Some(0));
    at.run(HARMONY, "lease list").prints("found 0 leases\n");
}

#[test]
fn a_command_runs_under_a_lock_and_its_exit_code_is_that_of_the_whole() {
    let cluster = kit::started(1);
    let at = At::first(&cluster);
    let lock = |script: &str| {
        let args = at.args("lock l sh -c").into_iter().chain([script.to_owned()]);
        run(HARMONY, args, "")
    };
    let said = lock("echo $ETCD_LOCK_KEY $ETCD_LOCK_REV; exit 3");
    let (key, revision) = said.out.trim_end().split_once(' ').unwrap();
    assert!(key.starts_with("l/") && revision.parse::<u64>().is_ok(), "{said:?}");
    assert_eq!((said.code, said.err.as_str()), (Some(3), ""));
    assert_eq!(lock("kill -9 $$").code, Some(255), "as etcdctl");
    at.run(HARMONY, "lock l -- echo --prefix").prints("--prefix\n");
    at.run(HARMONY, "lock l no-such-program").fails(1, "error: no-such-program: No such file");
    // Told to stop, it tells its command, and lets go when that has ended.
    let args = at.args("lock l -- sh -c").into_iter();
    let script = "trap 'echo told; exit 7' TERM; echo ready; while :; do sleep 0.01; done";
    let mut running = Running::start(HARMONY, args.chain([script.to_owned()]));
    running.prints("ready\n");
    running.signal(Signal::TERM);
    running.prints("told\n");
    assert_eq!(running.ends(), Some(7));
    assert_eq!(at.keys("l/"), Vec::<String>::new());
    at.run(HARMONY, "lease list").prints("found 0 leases\n");
}

#[test]
fn a_holder_whose_lease_is_taken_away_says_so() {
    let cluster = kit::started(1);
    let at = At::first(&cluster);
    let mut holder = at.start(HARMONY, "lock --ttl=2 l");
    let (key, _) = pair(&mut holder);
    let lease = key.rsplit_once('/').unwrap().1;
    at.run(HARMONY, &format!("lease revoke {lease}")).succeeds();
    assert_eq!(holder.ends(), Some(1));
}

#[test]
fn a_lock_is_not_lost_when_its_members_leader_is_killed() {
    use harmony_types::TestCluster as _;
    let mut cluster = kit::started(3);
    let all = At(cluster.nodes().map(|node| node.endpoint()).collect::<Vec<_>>().join(","));
    let mut holder = all.start(HARMONY, "lock l");
    let (key, _) = pair(&mut holder);
    let mut waiting = all.start(HARMONY, "lock l");
    all.until_keys("l/", 2);
    let leader = cluster.leader().unwrap();
    cluster.kill_node(leader).unwrap();
    let left = At(cluster.running().map(|node| node.endpoint()).collect::<Vec<_>>().join(","));
    while left.run(HARMONY, "put k v").code != Some(0) {}
    assert!(left.keys("l/").contains(&key), "it is still held");
    holder.signal(Signal::INT);
    assert_eq!(holder.ends(), Some(0));
    let (next, _) = pair(&mut waiting);
    assert_ne!(next, key);
    waiting.signal(Signal::INT);
    assert_eq!(waiting.ends(), Some(0));
    left.until_keys("l/", 0);
}

#[test]
fn leaders_of_both_programs_follow_each_other_and_both_tell_of_them() {
    if !etcdctl_is_there() {
        return;
    }
    let cluster = kit::started(1);
    let at = At::first(&cluster);
    let mut told = [at.start(HARMONY, "elect --listen e"), at.start("etcdctl", "elect --listen e")];
    let mut leader: Option<Running> = None;
    for (program, value) in [(HARMONY, "one"), ("etcdctl", "two"), (HARMONY, "three"), ("etcdctl", "four")] {
        let mut next = at.start(program, &format!("elect e {value}"));
        if let Some(before) = leader.take() {
            at.until_keys("e/", 2);
            before.signal(Signal::INT);
            assert_eq!(before.ends(), Some(0));
        }
        let elected = pair(&mut next);
        assert_eq!(elected.1, value);
        for listener in &mut told {
            assert_eq!(pair(listener), elected);
        }
        leader = Some(next);
    }
    // One that begins to listen hears who leads now, and an interrupt is how it ends.
    let mut late = at.start(HARMONY, "elect -l e");
    assert_eq!(pair(&mut late).1, "four");
    late.signal(Signal::INT);
    assert_eq!(late.ends(), Some(0));
    run(HARMONY, at.args("elect e"), "").fails(2, "error: the following required arguments");
}

/// What a client of a member gets who asks for a lock, on a thread of its own.
fn lock(endpoint: String, lease: i64) -> std::thread::JoinHandle<Result<LockResponse, Status>> {
    std::thread::spawn(move || {
        let client = GrpcClient::new(&endpoint).unwrap();
        let request = LockRequest { name: "l".into(), lease };
        client.run(async |to| LockClient::new(to).lock(request).await).map(tonic::Response::into_inner)
    })
}

#[test]
fn locks_and_elections_are_the_same_through_every_member() {
    let cluster = kit::started(3);
    let endpoints: Vec<String> = cluster.nodes().map(|node| node.endpoint()).collect();
    let clients: Vec<GrpcClient> =
        endpoints.iter().map(|endpoint| GrpcClient::new(endpoint).unwrap()).collect();
    let at = At(endpoints[0].clone());
    for lease in 1..=6 {
        let grant = pb::LeaseGrantRequest { id: lease, ttl: 600 };
        clients[0].lease(async |leases| leases.lease_grant(grant).await).unwrap();
    }
    for (holder, lease) in [(0, 1), (1, 2), (2, 3)] {
        let held = lock(endpoints[holder].clone(), lease).join().unwrap().unwrap();
        let waiting = lock(endpoints[(holder + 1) % 3].clone(), lease + 3);
        at.until_keys("l/", 2);
        assert!(!waiting.is_finished(), "somebody else holds it");
        let unlock = |through: usize, key| {
            let request = UnlockRequest { key };
            clients[through].run(async |to| LockClient::new(to).unlock(request).await).unwrap();
        };
        unlock((holder + 2) % 3, held.key);
        let next = waiting.join().unwrap().unwrap();
        assert_eq!(next.key, format!("l/{:x}", lease + 3));
        unlock(holder, next.key);
        at.until_keys("l/", 0);
    }
    for through in 0..3 {
        let (own, other) = (&clients[through], &clients[(through + 1) % 3]);
        let request = CampaignRequest { name: "e".into(), lease: 1, value: "v".into() };
        let campaign = async |to| ElectionClient::new(to).campaign(request).await;
        let leader = own.run(campaign).unwrap().into_inner().leader;
        let name = || LeaderRequest { name: "e".into() };
        let ask = |client: &GrpcClient| {
            let found = client.run(async |to| ElectionClient::new(to).leader(name()).await);
            found.map(|found| found.into_inner().kv.unwrap().value)
        };
        assert_eq!(ask(other).unwrap(), "v");
        let request = ProclaimRequest { leader: leader.clone(), value: "w".into() };
        other.run(async |to| ElectionClient::new(to).proclaim(request).await).unwrap();
        let mut told =
            other.run(async |to| ElectionClient::new(to).observe(name()).await).unwrap().into_inner();
        assert_eq!(other.next(&mut told).unwrap().unwrap().kv.unwrap().value, "w");
        let request = ResignRequest { leader };
        other.run(async |to| ElectionClient::new(to).resign(request).await).unwrap();
        assert_eq!(ask(own).unwrap_err().message(), "election: no leader");
    }
}
