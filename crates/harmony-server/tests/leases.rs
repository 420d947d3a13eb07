//! Leases on real processes whose leaders change, stand still, and are killed: none ends early, each ends, and its time goes on.
//!
//! `HARMONY_LEASES=100000` has that many of them end at once.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use harmony_node::SystemClock;
use harmony_server::proto::etcdserverpb as pb;
use harmony_testkit::wait::{PATIENCE, pause, until};
use harmony_testkit::{Client, Ledger, ProcessCluster, TestError};
use harmony_types::{Clock as _, NodeId, TestCluster};
use kit::GrpcClient;
use kit::members::move_leader;
use pb::lease_client::LeaseClient;
use tonic::Status;
use tonic::codegen::tokio_stream;

/// What is left of leases goes through the log soon.
const FAST: [&str; 4] = ["--heartbeat-interval", "20", "--election-timeout", "200"];

/// Threads that grant.
const THREADS: usize = 4;

fn started(nodes: usize) -> ProcessCluster {
    let mut cluster = kit::cluster_with(&FAST, &std::sync::Arc::default());
    cluster.start(nodes).unwrap();
    cluster
}

fn at(cluster: &ProcessCluster, id: NodeId) -> GrpcClient {
    GrpcClient::new(&cluster.node(id).unwrap().endpoint()).unwrap()
}

fn grant(client: &GrpcClient, id: i64, ttl: i64) -> Result<i64, Status> {
    let request = pb::LeaseGrantRequest { id, ttl };
    let call = async |channel| LeaseClient::new(channel).lease_grant(request).await;
    client.run(call).map(|answer| answer.into_inner().ttl)
}

/// Seconds that are left; -1 of a lease that is gone.
fn left(client: &GrpcClient, id: i64) -> Result<i64, Status> {
    let request = pb::LeaseTimeToLiveRequest { id, keys: false };
    let call = async |channel| LeaseClient::new(channel).lease_time_to_live(request).await;
    client.run(call).map(|answer| answer.into_inner().ttl)
}

/// The TTL after a renewal; 0 of a lease that is gone.
fn renew(client: &GrpcClient, id: i64) -> Result<i64, Status> {
    client.run(async |channel| {
        let request = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
        let mut answers = LeaseClient::new(channel).lease_keep_alive(request).await?.into_inner();
        let answer = answers.message().await?;
        answer.map(|answer| answer.ttl).ok_or_else(|| Status::unavailable("the stream ended"))
    })
}

fn key(lease: i64) -> String {
    format!("leased/{lease:06}")
}

fn put(client: &GrpcClient, lease: i64) -> Result<(), Status> {
    let request = pb::PutRequest { key: key(lease).into(), lease, ..pb::PutRequest::default() };
    client.kv(async |kv| kv.put(request).await).map(drop)
}

/// Leases that have their key, read linearizably.
fn present(client: &GrpcClient) -> Result<BTreeSet<i64>, Status> {
    let request = pb::RangeRequest {
        key: "leased/".into(),
        range_end: "leased0".into(),
        keys_only: true,
        ..pb::RangeRequest::default()
    };
    let kvs = client.kv(async |kv| kv.range(request).await)?.kvs;
    Ok(kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key[7..]).parse().unwrap()).collect())
}

fn known(client: &GrpcClient) -> Vec<i64> {
    let call = async |channel| LeaseClient::new(channel).lease_leases(pb::LeaseLeasesRequest {}).await;
    client.run(call).unwrap().into_inner().leases.iter().map(|lease| lease.id).collect()
}

/// Until when each lease must live: what was promised, counted from when it was asked for.
struct Promises {
    clock: SystemClock,
    until: Mutex<BTreeMap<i64, Duration>>,
}

impl Promises {
    fn new() -> Self {
        Self { clock: SystemClock::new(), until: Mutex::default() }
    }

    fn promised(&self, id: i64, asked_at: Duration, ttl: i64) {
        let until = asked_at + Duration::from_secs(ttl.cast_unsigned());
        self.until.lock().unwrap().insert(id, until);
    }

    /// Grants leases with a key each, from several threads.
    fn grant(&self, client: impl Fn() -> GrpcClient + Sync, leases: i64, ttl: i64) {
        thread::scope(|scope| {
            for first in (1..).take(THREADS) {
                let client = &client;
                scope.spawn(move || {
                    let client = client();
                    for id in (first..=leases).step_by(THREADS) {
                        let asked_at = self.clock.now();
                        assert_eq!(grant(&client, id, ttl).unwrap(), ttl);
                        self.promised(id, asked_at, ttl);
                        put(&client, id).unwrap();
                    }
                });
            }
        });
    }

    /// Reads which leases are there; none of the others may have been promised to be.
    fn check(&self, client: &GrpcClient) -> Result<BTreeSet<i64>, TestError> {
        let present = present(client)?;
        let now = self.clock.now();
        for (id, until) in &*self.until.lock().unwrap() {
            assert!(present.contains(id) || *until <= now, "lease {id} ended {:?} early", *until - now);
        }
        Ok(present)
    }
}

fn check(cluster: &ProcessCluster, ledger: &Ledger) {
    cluster.check_agreement().unwrap();
    for node in cluster.running() {
        ledger.check(node.client()).unwrap();
    }
}

/// Lets another member lead.
fn change_leader(cluster: &ProcessCluster) {
    let old = cluster.leader().unwrap();
    let next = cluster.other(old).id();
    until("another leader", PATIENCE, || {
        let leader = cluster.leader()?;
        if leader != old {
            return Ok(());
        }
        Ok(move_leader(&at(cluster, leader), next.get())?)
    })
    .unwrap();
}

#[test]
fn leases_end_in_their_time_and_not_before_while_the_leader_changes_every_two_seconds() {
    const LEASES: i64 = 200;
    const TTL: i64 = 3;
    let (cluster, ledger, promises) = (started(3), Ledger::new(), Promises::new());
    let through = at(&cluster, cluster.leader().unwrap());
    grant(&through, LEASES + 1, 60).unwrap();
    put(&through, LEASES + 1).unwrap();
    promises.grant(|| at(&cluster, cluster.leader().unwrap()), LEASES, TTL);
    let ended = until("all leases end, however often the leader changes", PATIENCE, || {
        change_leader(&cluster);
        let clock = SystemClock::new();
        while clock.now() < Duration::from_secs(2) {
            ledger.write_one(&through)?;
            if promises.check(&through)?.len() == 1 {
                return Ok(());
            }
        }
        Err("some are left".into())
    });
    ended.unwrap();
    for node in cluster.running() {
        let of_node = GrpcClient::new(&node.endpoint()).unwrap();
        of_node.get(b"k").unwrap();
        assert_eq!(known(&of_node), [LEASES + 1], "no orphans");
    }
    let long =
        until("the long one's time", PATIENCE, || Ok(left(&at(&cluster, cluster.leader()?), LEASES + 1)?));
    assert!((0..60).contains(&long.unwrap()), "its time does not begin again with each leader");
    check(&cluster, &ledger);
}

#[test]
fn what_is_left_of_a_lease_survives_a_kill_of_the_leader_and_of_all() {
    const TTL: i64 = 60;
    let (mut cluster, ledger) = (started(3), Ledger::new());
    change_leader(&cluster);
    let leader = cluster.leader().unwrap();
    let clock = SystemClock::new();
    grant(&at(&cluster, leader), 7, TTL).unwrap();
    put(&at(&cluster, leader), 7).unwrap();
    let ask = |cluster: &ProcessCluster| {
        until("what is left", PATIENCE, || Ok(left(&at(cluster, cluster.leader()?), 7)?)).unwrap()
    };
    // Its leader told the log twice by then.
    until("four seconds are over", PATIENCE, || match ask(&cluster) {
        ..57 => Ok(()),
        left => Err(format!("{left} left").into()),
    })
    .unwrap();
    for everybody in [false, true] {
        let victims = if everybody { cluster.node_ids() } else { vec![cluster.leader().unwrap()] };
        for id in &victims {
            cluster.kill_node(*id).unwrap();
        }
        if !everybody {
            until("the others go on", PATIENCE, || {
                match ledger.write_one(cluster.running().next().ok_or("they run")?.client())? {
                    true => Ok(()),
                    false => Err("refused".into()),
                }
            })
            .unwrap();
        }
        for id in &victims {
            cluster.spawn_node(*id).unwrap();
        }
        for id in &victims {
            cluster.wait_until_serving(*id).unwrap();
        }
        let left = ask(&cluster);
        let passed = i64::try_from(clock.now().as_secs()).unwrap() + 1;
        assert!(left < TTL, "it began again");
        assert!(TTL - passed - 1 <= left, "{left} s left {passed} s behind the grant: early");
    }
    check(&cluster, &ledger);
}

#[test]
fn a_leader_that_stood_still_renews_no_lease_that_is_gone_and_revokes_none_that_lives() {
    const SHORT: i64 = 1;
    const LONG: i64 = 3;
    let (cluster, ledger, promises) = (started(3), Ledger::new(), Promises::new());
    let old = cluster.leader().unwrap();
    let waiting: Vec<GrpcClient> = (0..3).map(|_| at(&cluster, old)).collect();
    assert_eq!(grant(&waiting[0], 1, SHORT).unwrap(), SHORT);
    assert_eq!(grant(&waiting[0], 2, LONG).unwrap(), LONG);
    put(&waiting[0], 1).unwrap();
    put(&waiting[0], 2).unwrap();
    // Connections that are open before it stops: their requests get as far as its sockets.
    for client in &waiting {
        left(client, 2).unwrap();
    }
    cluster.pause_node(old).unwrap();
    let clock = SystemClock::new();
    let others: Vec<_> = cluster.running().filter(|node| node.id() != old).collect();
    let others: Vec<GrpcClient> =
        others.iter().map(|node| GrpcClient::new(&node.endpoint()).unwrap()).collect();
    let keep = || {
        for client in &others {
            let asked_at = promises.clock.now();
            if let Ok(ttl @ 1..) = renew(client, 2) {
                assert_eq!(ttl, LONG);
                promises.promised(2, asked_at, ttl);
            }
        }
    };
    thread::scope(|scope| {
        let stale: Vec<_> = waiting.iter().map(|client| scope.spawn(move || renew(client, 1))).collect();
        until("the short one ends, and the old leader's time for the long one", PATIENCE, || {
            keep();
            let present = promises.check(&others[0])?;
            let is_over = Duration::from_secs(LONG.cast_unsigned() + 1) < clock.now();
            if is_over && !present.contains(&1) { Ok(()) } else { Err(format!("{present:?}").into()) }
        })
        .unwrap();
        cluster.resume_node(old).unwrap();
        for answer in stale {
            let answer = answer.join().unwrap();
            assert!(matches!(answer, Ok(0) | Err(_)), "a lease that is gone was renewed: {answer:?}");
        }
        until("it follows another", PATIENCE, || {
            keep();
            promises.check(&others[0])?;
            match cluster.node(old).ok_or("it runs")?.client().status()?.leader {
                Some(leader) if leader != old => Ok(()),
                leader => Err(format!("the leader is {leader:?}").into()),
            }
        })
        .unwrap();
        for _ in 0..20 {
            keep();
            promises.check(&others[0]).unwrap();
            pause(Duration::from_millis(20));
        }
    });
    assert!(ledger.write_one(&at(&cluster, old)).unwrap());
    check(&cluster, &ledger);
}

#[test]
fn many_leases_that_end_at_once_all_end_though_their_leader_is_killed_amid_it() {
    let leases = std::env::var("HARMONY_LEASES").map_or(600, |count| count.parse().unwrap());
    // Those of the first and of the last grant are to be over at once.
    let ttl = 2 + leases / 500;
    let (mut cluster, ledger, promises) = (started(3), Ledger::new(), Promises::new());
    let leader = cluster.leader().unwrap();
    let other = cluster.other(leader).id();
    promises.grant(|| at(&cluster, leader), leases, ttl);
    let through = at(&cluster, other);
    let limit = PATIENCE + 3 * Duration::from_secs(ttl.cast_unsigned());
    until("some have ended", limit, || {
        let left = promises.check(&through)?.len() as i64;
        if left < leases { Ok(()) } else { Err("none".into()) }
    })
    .unwrap();
    assert!(ledger.write_one(&through).unwrap(), "writes go on beside revocations");
    cluster.kill_node(leader).unwrap();
    until("all have ended", limit, || {
        ledger.write_one(&through)?;
        let left = promises.check(&through)?.len();
        if left == 0 { Ok(()) } else { Err(format!("{left} are left").into()) }
    })
    .unwrap();
    cluster.restart_node(leader).unwrap();
    for node in cluster.running() {
        let of_node = GrpcClient::new(&node.endpoint()).unwrap();
        of_node.get(b"k").unwrap();
        assert_eq!(known(&of_node), Vec::<i64>::new(), "none is forgotten");
    }
    check(&cluster, &ledger);
}

#[test]
fn a_stream_of_renewals_goes_on_while_the_leader_is_killed() {
    const TTL: i64 = 60;
    let (mut cluster, ledger) = (started(3), Ledger::new());
    let leader = cluster.leader().unwrap();
    let through = at(&cluster, cluster.other(leader).id());
    grant(&through, 7, TTL).unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let renew = || sender.try_send(pb::LeaseKeepAliveRequest { id: 7 }).unwrap();
    renew();
    let open = async |channel| {
        let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
        LeaseClient::new(channel).lease_keep_alive(requests).await.unwrap().into_inner()
    };
    let mut answers = through.run(open);
    assert_eq!(through.next(&mut answers).unwrap().unwrap().ttl, TTL);
    cluster.kill_node(leader).unwrap();
    for _ in 0..3 {
        renew();
        // The first of them waits for the next leader.
        let answer = through.next(&mut answers).unwrap().unwrap();
        assert_eq!((answer.id, answer.ttl), (7, TTL));
    }
    cluster.restart_node(leader).unwrap();
    renew();
    assert_eq!(through.next(&mut answers).unwrap().unwrap().ttl, TTL);
    assert!(ledger.write_one(&through).unwrap());
    check(&cluster, &ledger);
}
