//! How long a cluster of three processes, with default timings, acknowledges nothing when its leader goes:
//! `cargo bench -p harmony-server --bench failover -- [TRIES]`.
//!
//! | row | measured |
//! | --- | --- |
//! | `kill` | from SIGKILL of the leader to the first acknowledgement of a put that was begun after its process had ended, by a member that lives |
//! | `sigterm` | longest time between two acknowledgements, of a client that puts without a pause while the leader is told to end; and puts that it had to repeat |
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for a terminal")]

#[path = "../tests/kit/mod.rs"]
mod kit;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harmony_node::SystemClock;
use harmony_testkit::wait::pause;
use harmony_testkit::{Client, ProcessCluster};
use harmony_types::{Clock, NodeId, TestCluster};

use kit::GrpcClient;

/// Load before the leader goes, and after the cluster has recovered.
const WARM_UP: Duration = Duration::from_millis(1_500);

fn main() {
    let tries = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(20);
    let mut kills = Vec::new();
    let mut gaps = Vec::new();
    let mut repeated = 0;
    let mut cluster = kit::started(3);
    for _ in 0..tries {
        kills.push(kill(&mut cluster));
    }
    for _ in 0..tries {
        let (gap, errors) = terminate(&mut cluster);
        gaps.push(gap);
        repeated += errors;
    }
    report("kill", &mut kills);
    report("sigterm", &mut gaps);
    println!("sigterm: {repeated} puts were repeated");
}

fn report(row: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let ms = |at: usize| times[at].as_secs_f64() * 1_000.0;
    let last = times.len() - 1;
    println!(
        "{row}: {} tries, min {:.1} ms, median {:.1} ms, max {:.1} ms",
        last + 1,
        ms(0),
        ms(last / 2),
        ms(last)
    );
    let all: Vec<String> = times.iter().map(|time| format!("{:.0}", time.as_secs_f64() * 1_000.0)).collect();
    println!("{row}: {}", all.join(" "));
}

fn survivors(cluster: &ProcessCluster, leader: NodeId) -> Vec<GrpcClient> {
    let others = cluster.nodes().filter(|node| node.id() != leader);
    others.map(|node| GrpcClient::new(&node.endpoint()).unwrap()).collect()
}

fn kill(cluster: &mut ProcessCluster) -> Duration {
    let clock = SystemClock::new();
    let leader = cluster.leader().unwrap();
    let clients = survivors(cluster, leader);
    let end = clock.now() + WARM_UP;
    while clock.now() < end {
        for client in &clients {
            client.put(b"k", b"v").unwrap();
        }
    }
    let killed = clock.now();
    cluster.kill_node(leader).unwrap();
    let took = clients
        .iter()
        .cycle()
        .find_map(|client| match client.put(b"k", b"v") {
            Ok(_) => Some(clock.now() - killed),
            Err(_) => {
                pause(Duration::from_millis(1));
                None
            }
        })
        .unwrap();
    cluster.restart_node(leader).unwrap();
    took
}

fn terminate(cluster: &mut ProcessCluster) -> (Duration, usize) {
    let clock = SystemClock::new();
    let leader = cluster.leader().unwrap();
    let clients = survivors(cluster, leader);
    let done = AtomicBool::new(false);
    let measured = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut last, mut gap, mut errors) = (clock.now(), Duration::ZERO, 0);
            let warm = last + WARM_UP / 2;
            for client in clients.iter().cycle() {
                match client.put(b"k", b"v") {
                    Ok(_) => {
                        let now = clock.now();
                        if warm < now {
                            gap = gap.max(now - last);
                        }
                        last = now;
                    }
                    Err(_) => errors += 1,
                }
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
            (gap, errors)
        });
        pause(WARM_UP);
        assert!(cluster.terminate_node(leader).unwrap().success());
        pause(WARM_UP / 3);
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    cluster.restart_node(leader).unwrap();
    measured
}
