//! How long a member takes to join a cluster of three processes with 1M keys of 256 B, and what that costs those who write meanwhile:
//! `cargo bench -p harmony-server --bench join -- [KEYS]`.
//!
//! Its time runs from the start of its process, when it was added already, to when the member list says that it votes: it asks for its
//! place, is sent a snapshot, installs it, catches up, and is promoted by the leader. Clients of the leader put at an even pace
//! before and meanwhile. Must reach: 10 s; the p99 of their puts at most 2 x the one before.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for a terminal")]

#[path = "../tests/kit/mod.rs"]
mod kit;
#[path = "../tests/process/mod.rs"]
mod process;

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use harmony_node::SystemClock;
use harmony_server::proto::etcdserverpb as pb;
use harmony_testkit::wait::pause;
use harmony_testkit::{Client, ProcessCluster};
use harmony_types::{Clock, TestCluster};

use kit::GrpcClient;
use process::Running;

/// Puts in a transaction while the cluster is filled.
const PUTS: u64 = 100;

/// Clients that fill it.
const FILLERS: u64 = 8;

/// Clients that put while the member joins.
const WRITERS: u32 = 4;

/// Time between two puts of one of them.
const PACE: Duration = Duration::from_millis(10);

/// How long they put before the member comes.
const BEFORE: Duration = Duration::from_secs(8);

/// After that a member that does not vote will not.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() {
    let keys = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(1_000_000);
    let clock = SystemClock::new();
    let cluster = kit::started(3);
    let leader = cluster.leader().unwrap();
    let endpoint = cluster.node(leader).unwrap().endpoint();
    let began = clock.now();
    fill(&endpoint, keys);
    println!("join: {keys} keys written in {:.1} s", (clock.now() - began).as_secs_f64());
    // What filling left to do, as checkpoints, is no part of it.
    pause(Duration::from_secs(3));

    let done = AtomicBool::new(false);
    let put_until = |number| put_until(&done, &clock, &endpoint, number);
    let (puts, (began, ended)) = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS).map(|number| scope.spawn(move || put_until(number))).collect();
        pause(BEFORE);
        let joined = join(&cluster, &endpoint, &clock);
        done.store(true, Ordering::Relaxed);
        let puts: Vec<_> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        (puts, joined)
    });
    let p99 = |during: &dyn Fn(Duration) -> bool| {
        let mut took: Vec<Duration> =
            puts.iter().filter(|(due, took)| during(*due + *took)).map(|(_, took)| *took).collect();
        took.sort_unstable();
        took[took.len() * 99 / 100].as_secs_f64() * 1_000.0
    };
    let (before, meanwhile) =
        (p99(&|answered| answered < began), p99(&|answered| (began..=ended).contains(&answered)));
    println!(
        "join: joined and promoted in {:.2} s (must reach: 10 s); p99 of {} puts a second {before:.2} ms before, \
         {meanwhile:.2} ms meanwhile: {:.2} x (must reach: 2 x)",
        (ended - began).as_secs_f64(),
        WRITERS * 1_000 / u32::try_from(PACE.as_millis()).unwrap(),
        meanwhile / before
    );
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("/registry/pods/default/{number:09}"))
}

/// Not all the same, and nothing that can be made smaller.
fn value(number: u64) -> Bytes {
    let mut state = number;
    let words = (0..32).flat_map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 8).to_le_bytes()
    });
    words.collect::<Vec<u8>>().into()
}

fn put_request(number: u64) -> pb::PutRequest {
    pb::PutRequest { key: key(number), value: value(number), ..Default::default() }
}

fn fill(endpoint: &str, keys: u64) {
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..FILLERS {
            scope.spawn(|| {
                let client = GrpcClient::new(endpoint).unwrap();
                loop {
                    let first = next.fetch_add(PUTS, Ordering::Relaxed);
                    if keys <= first {
                        return;
                    }
                    let put = |number| pb::RequestOp {
                        request: Some(pb::request_op::Request::RequestPut(put_request(number))),
                    };
                    let success = (first..keys.min(first + PUTS)).map(put).collect();
                    let txn = pb::TxnRequest { success, ..Default::default() };
                    client.kv(async |kv| kv.txn(txn).await).unwrap();
                }
            });
        }
    });
}

/// Puts at an even pace, and says when each put was due, and how long after that it was answered.
fn put_until(
    done: &AtomicBool,
    clock: &SystemClock,
    endpoint: &str,
    number: u32,
) -> Vec<(Duration, Duration)> {
    let client = GrpcClient::new(endpoint).unwrap();
    client.put(b"connected", b"").unwrap();
    let mut puts = Vec::new();
    let mut due = clock.now() + PACE / WRITERS * number;
    while !done.load(Ordering::Relaxed) {
        pause(due.saturating_sub(clock.now()));
        client.put(&key(u64::from(number)), &value(u64::from(number))).unwrap();
        puts.push((due, clock.now() - due));
        due += PACE;
    }
    puts
}

/// Adds a member and starts it: when it was started, and when it voted.
fn join(cluster: &ProcessCluster, endpoint: &str, clock: &SystemClock) -> (Duration, Duration) {
    let url = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let client = GrpcClient::new(endpoint).unwrap();
    let add = pb::MemberAddRequest { peer_ur_ls: vec![url.clone()], is_learner: false };
    let added = client.cluster(async |cluster| cluster.member_add(add).await).unwrap();
    let members: Vec<String> = added
        .members
        .iter()
        .flat_map(|member| {
            let name = if member.peer_ur_ls.contains(&url) { "joining" } else { member.name.as_str() };
            member.peer_ur_ls.iter().map(move |url| format!("{name}={url}"))
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let began = clock.now();
    let members = members.join(",");
    let joining = Running::start(
        dir.path(),
        &[
            "--name",
            "joining",
            "--listen-peer-urls",
            &url,
            "--initial-advertise-peer-urls",
            &url,
            "--initial-cluster",
            &members,
            "--initial-cluster-state",
            "existing",
        ],
    );
    let votes = || {
        let list = pb::MemberListRequest { linearizable: false };
        let members = client.cluster(async |cluster| cluster.member_list(list).await).unwrap().members;
        members.iter().any(|member| member.name == "joining" && !member.is_learner)
    };
    while !votes() {
        assert!(clock.now() - began < PATIENCE, "{}", cluster.running().next().unwrap().log());
        pause(Duration::from_millis(20));
    }
    let ended = clock.now();
    // It is one of four now: the others can go on without it.
    drop(joining);
    (began, ended)
}
