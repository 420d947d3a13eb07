//! How long a cluster of three processes, with default timings, acknowledges nothing when its leader goes:
//! `cargo bench -p harmony-server --bench failover -- [TRIES]`.
//!
//! | row | measured | must reach |
//! | --- | --- | --- |
//! | `kill` | from just before SIGKILL is sent to the leader to the first acknowledgement of a put that was sent after its process had ended | median 400 ms, at most 1.5 s |
//! | `sigterm` | the longest time between two acknowledgements around a SIGTERM of the leader | 100 ms, no operation that failed |
//!
//! All the time, before and after, two clients of each member put without a pause, in the first row of the members that stay. In
//! the second row they go to another member with what was never sent, as gRPC libraries do; an operation
//! failed when its client saw any other error.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for a terminal")]

#[path = "../tests/kit/mod.rs"]
mod kit;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use harmony_node::SystemClock;
use harmony_testkit::wait::pause;
use harmony_testkit::{Client, ProcessCluster};
use harmony_types::{Clock, NodeId, TestCluster};

use kit::GrpcClient;
use kit::retrying::Retrying;

/// Load before the leader goes, and after it has gone.
const WARM_UP: Duration = Duration::from_millis(500);

/// Clients of each member.
const CLIENTS: usize = 2;

/// A put that was acknowledged: when it was sent, and when it was answered.
type Acknowledged = (Duration, Duration);

fn main() {
    let tries = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(20);
    let clock = SystemClock::new();
    let mut cluster = kit::started(3);
    let mut times: Vec<Duration> = (0..tries).map(|_| kill(&mut cluster, &clock)).collect();
    report("kill", &mut times, "median 400 ms, max 1500 ms");
    let (mut pauses, mut errors) = (Vec::new(), Vec::new());
    for _ in 0..tries {
        let (pause, failed) = terminate(&mut cluster, &clock);
        pauses.push(pause);
        errors.extend(failed);
    }
    report("sigterm", &mut pauses, "max 100 ms, 0 operations failed");
    println!("sigterm: {} operations failed", errors.len());
    for error in errors.iter().take(5) {
        println!("sigterm: {error}");
    }
}

fn report(row: &str, times: &mut [Duration], limit: &str) {
    times.sort_unstable();
    let ms = |at: usize| times[at].as_secs_f64() * 1_000.0;
    let last = times.len() - 1;
    println!(
        "{row}: {} tries, min {:.1} ms, median {:.1} ms, max {:.1} ms (must reach: {limit})",
        last + 1,
        ms(0),
        ms(last / 2),
        ms(last)
    );
    let all: Vec<String> = times.iter().map(|time| format!("{:.1}", time.as_secs_f64() * 1_000.0)).collect();
    println!("{row}: {}", all.join(" "));
}

/// Puts through `client` until it is done, and says when each acknowledged one was sent and answered.
fn put_until(done: &AtomicBool, clock: &SystemClock, client: &dyn Client) -> Vec<Acknowledged> {
    let mut acknowledged = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let sent = clock.now();
        match client.put(b"k", b"v") {
            Ok(_) => acknowledged.push((sent, clock.now())),
            Err(_) => pause(Duration::from_millis(1)),
        }
    }
    acknowledged
}

/// What these clients were acknowledged while `act` ran, some time before and after.
fn under_load<T>(
    clients: &[&dyn Client],
    clock: &SystemClock,
    act: impl FnOnce() -> T,
) -> (Vec<Acknowledged>, T) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let puts: Vec<_> =
            clients.iter().map(|client| scope.spawn(|| put_until(&done, clock, *client))).collect();
        pause(WARM_UP);
        let acted = act();
        pause(WARM_UP);
        done.store(true, Ordering::Relaxed);
        (puts.into_iter().flat_map(|puts| puts.join().unwrap()).collect(), acted)
    })
}

fn survivors(cluster: &ProcessCluster, leader: NodeId) -> Vec<String> {
    cluster.nodes().filter(|node| node.id() != leader).map(|node| node.endpoint()).collect()
}

fn kill(cluster: &mut ProcessCluster, clock: &SystemClock) -> Duration {
    let leader = cluster.leader().unwrap();
    let endpoints = survivors(cluster, leader);
    let clients: Vec<GrpcClient> = endpoints
        .iter()
        .flat_map(|endpoint| [endpoint; CLIENTS])
        .map(|endpoint| GrpcClient::new(endpoint).unwrap())
        .collect();
    let clients: Vec<&dyn Client> = clients.iter().map(|client| client as _).collect();
    let (acknowledged, (began, ended)) = under_load(&clients, clock, || {
        let began = clock.now();
        cluster.kill_node(leader).unwrap();
        (began, clock.now())
    });
    cluster.restart_node(leader).unwrap();
    let sent_after = acknowledged.iter().filter(|(sent, _)| ended <= *sent);
    sent_after.map(|(_, answered)| *answered - began).min().expect("a put within the load's time")
}

fn terminate(cluster: &mut ProcessCluster, clock: &SystemClock) -> (Duration, Vec<String>) {
    let leader = cluster.leader().unwrap();
    let mut endpoints = vec![cluster.node(leader).unwrap().endpoint()];
    endpoints.extend(survivors(cluster, leader));
    // Some at the leader that goes, and as many at each of the others.
    let clients: Vec<Retrying> =
        (0..CLIENTS * endpoints.len()).map(|first| Retrying::new(&endpoints, first).unwrap()).collect();
    let load: Vec<&dyn Client> = clients.iter().map(|client| client as _).collect();
    let (acknowledged, began) = under_load(&load, clock, || {
        let began = clock.now();
        assert!(cluster.terminate_node(leader).unwrap().success());
        began
    });
    cluster.restart_node(leader).unwrap();
    let mut answered: Vec<Duration> = acknowledged.into_iter().map(|(_, answered)| answered).collect();
    answered.sort_unstable();
    let around = answered.windows(2).filter(|pair| began <= pair[1]);
    let pause = around.map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
    (pause, clients.iter().flat_map(|client| client.errors().clone()).collect())
}
