//! Commits through three nodes in one process over the network in memory, each with its log in memory, for a second of the
//! processor: `cargo bench -p harmony-node --bench commits`.
//!
//! Everything but log, network and state machine is what runs in production, with all its threads. The processor's time is that of
//! the whole process, the clients in it too. A client proposes again when it was answered; all that are answered at once do so
//! at once. Must reach: 300,000 commits a CPU second with 1,024 clients.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for a terminal")]

#[path = "../tests/support/cluster.rs"]
mod support;

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use harmony_node::{ReplySink, SystemClock, Waiter};
use harmony_types::{Clock, NodeError};
use rustix::time::{ClockId, clock_gettime};
use support::Cluster;

/// How long each row runs.
const TIME: Duration = Duration::from_secs(4);

/// Who was answered, and proposes next.
#[derive(Default)]
struct Answered {
    tokens: Mutex<Vec<u64>>,
    changed: Condvar,
}

impl ReplySink<u64> for Answered {
    fn complete(&self, batch: Vec<(u64, Result<u64, NodeError>)>) {
        let mut tokens = self.tokens.lock().unwrap();
        tokens.extend(batch.into_iter().map(|(token, result)| result.map(|_| token).unwrap()));
        drop(tokens);
        self.changed.notify_one();
    }
}

impl Answered {
    fn take(&self) -> Vec<u64> {
        let tokens = self.tokens.lock().unwrap();
        std::mem::take(&mut *self.changed.wait_while(tokens, |tokens| tokens.is_empty()).unwrap())
    }
}

fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap()
}

fn main() {
    let cluster = Cluster::started(3, false);
    let node = cluster.node(cluster.leader());
    let clock = SystemClock::new();
    for (clients, limit) in [(1, None), (128, None), (1_024, Some(300_000))] {
        let answered = Arc::new(Answered::default());
        let propose = |token| {
            node.propose(Bytes::from_static(b"k=1"), Waiter::new(Arc::clone(&answered) as _, token));
        };
        let (began, cpu_before) = (clock.now(), cpu_time());
        (0..clients).for_each(propose);
        let mut commits = 0;
        while clock.now() - began < TIME {
            let tokens = answered.take();
            commits += tokens.len();
            tokens.into_iter().for_each(propose);
        }
        let (took, cpu) = (clock.now() - began, cpu_time() - cpu_before);
        let rate = commits as f64 / cpu.as_secs_f64();
        let limit = limit.map(|limit| format!(" (must reach: {limit})")).unwrap_or_default();
        println!(
            "commits: {clients} clients: {rate:.0} a CPU second{limit}, {:.0} a second",
            commits as f64 / took.as_secs_f64()
        );
        // All are answered before the next row begins.
        let mut waiting = clients;
        while waiting != 0 {
            waiting -= answered.take().len() as u64;
        }
    }
}
