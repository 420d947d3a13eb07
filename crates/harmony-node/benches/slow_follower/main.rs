//! What the leader's writes take while each sync of one follower takes 10 s: `cargo bench -p harmony-node --bench slow_follower`.
//!
//! Three members with the real storage on this machine's disk, over TCP, in one process. Puts of 256 B come at an even pace, and a
//! put's time runs from when it was due to its answer at the leader. Phases with and without the delay take turns; before one
//! without begins, the follower has caught up. Must reach: the p99 with it is at most 1.10 x the p99 without, medians of the phases.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for a terminal")]

mod files;

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use files::{Delay, SlowFiles};
use harmony_node::{Node, ReplySink, SystemClock, TcpTransport, TcpTransportConfig, Waiter};
use harmony_storage::UnifiedStorage;
use harmony_types::config::{Identity, NodeConfig, StorageConfig, WalConfig};
use harmony_types::txn::Put;
use harmony_types::{
    Clock, ClusterId, Command, CommandKind, Member, Membership, NodeError, NodeId, Outcome, Role, Storage,
};
use harmony_wal::OsFileSystem;
use tempfile::TempDir;

const CLUSTER: ClusterId = ClusterId(5);

/// Phases of each kind.
const ROUNDS: usize = 3;

/// How long a phase takes: with the delay, so long that the follower is seen in it from its beginning to its end.
const PHASE: Duration = Duration::from_secs(11);

/// What a sync of the follower takes in every second phase.
const DELAY: Duration = Duration::from_secs(10);

const PUTS_A_SECOND: u32 = 2_000;

const KEYS: u32 = 10_000;

/// When each put was due, and what it took.
struct Times {
    clock: SystemClock,
    due: Mutex<Vec<Duration>>,
    took: Mutex<Vec<Duration>>,
}

impl ReplySink<Outcome> for Times {
    fn complete(&self, batch: Vec<(u64, Result<Outcome, NodeError>)>) {
        let now = self.clock.now();
        let due = self.due.lock().unwrap();
        let mut took = self.took.lock().unwrap();
        for (token, result) in batch {
            result.unwrap();
            took.push(now - due[usize::try_from(token).unwrap()]);
        }
    }
}

struct Cluster {
    nodes: Vec<Node<UnifiedStorage>>,
    /// The delays of their disks.
    delays: Vec<Arc<Delay>>,
    _dir: TempDir,
}

impl Cluster {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let members: Vec<Member> = (1..)
            .zip(&listeners)
            .map(|(number, listener)| Member {
                id: NodeId::new(number).unwrap(),
                name: format!("n{number}"),
                peer_urls: vec![format!("http://{}", listener.local_addr().unwrap())],
                client_urls: Vec::new(),
                role: Role::Voter,
            })
            .collect();
        let mut cluster = Self { nodes: Vec::new(), delays: Vec::new(), _dir: dir };
        for (member, listener) in members.iter().zip(listeners) {
            let listen = listener.local_addr().unwrap();
            drop(listener);
            let dir = cluster._dir.path().join(&member.name);
            let identity = Identity { cluster: CLUSTER, node: Some(member.id) };
            let delay = Arc::new(Delay::default());
            let files = Arc::new(SlowFiles { files: OsFileSystem::new(), delay: Arc::clone(&delay) });
            let config = StorageConfig {
                wal: WalConfig { identity, ..WalConfig::default() },
                ..StorageConfig::default()
            };
            let storage = UnifiedStorage::open(files, &dir.join("wal"), &dir.join("tree"), config).unwrap();
            storage.bootstrap(&Membership::from_members(members.clone())).unwrap();
            let transport = TcpTransport::start(TcpTransportConfig {
                identity,
                listen: vec![listen],
                peers: members.clone(),
                spool_dir: dir.join("spool"),
                ..TcpTransportConfig::default()
            })
            .unwrap();
            let config = NodeConfig::new(member.id, CLUSTER);
            let clock = Arc::new(SystemClock::new());
            let node = Node::start(config, Arc::new(storage), Arc::clone(&transport) as _, clock).unwrap();
            transport.attach(node.peer_sink());
            cluster.nodes.push(node);
            cluster.delays.push(delay);
        }
        cluster
    }

    fn leader(&self, clock: &SystemClock) -> usize {
        loop {
            match self.nodes.iter().position(Node::is_leader) {
                Some(leader) => return leader,
                None => clock.sleep(Duration::from_millis(10)),
            }
        }
    }

    /// How long it takes until a member has applied what another has.
    fn caught_up(&self, clock: &SystemClock, behind: usize, ahead: usize) -> Duration {
        let began = clock.now();
        let goal = self.nodes[ahead].status().applied;
        while self.nodes[behind].status().applied < goal {
            clock.sleep(Duration::from_millis(10));
        }
        clock.now() - began
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (node, delay) in self.nodes.iter().zip(&self.delays) {
            delay.set(Duration::ZERO);
            node.stop();
        }
    }
}

fn put(number: u32) -> Bytes {
    let key = Bytes::from(format!("/registry/pods/{:06}", number.wrapping_mul(7_919) % KEYS));
    let put = Put { key, value: Bytes::from_static(&[7; 256]), ..Put::default() };
    Command::from(CommandKind::Put(put)).encode_to_bytes()
}

/// Puts at an even pace for a phase, and says what the 99th of 100 took.
fn phase(leader: &Node<UnifiedStorage>, clock: &SystemClock) -> Duration {
    let times = Arc::new(Times { clock: *clock, due: Mutex::default(), took: Mutex::default() });
    let began = clock.now();
    let mut number = 0;
    loop {
        let due = began + Duration::from_secs(1) / PUTS_A_SECOND * number;
        if began + PHASE < due {
            break;
        }
        clock.sleep(due.saturating_sub(clock.now()));
        times.due.lock().unwrap().push(due);
        leader.propose(put(number), Waiter::new(Arc::clone(&times) as _, number.into()));
        number += 1;
    }
    while times.took.lock().unwrap().len() < number as usize {
        clock.sleep(Duration::from_millis(10));
    }
    let mut took = std::mem::take(&mut *times.took.lock().unwrap());
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() {
    let clock = SystemClock::new();
    let cluster = Cluster::start();
    let leader = cluster.leader(&clock);
    let follower = (leader + 1) % 3;
    let node = &cluster.nodes[leader];
    phase(node, &clock);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        without.push(phase(node, &clock));
        cluster.delays[follower].set(DELAY);
        with.push(phase(node, &clock));
        let behind = node.status().applied.0 - cluster.nodes[follower].status().applied.0;
        cluster.delays[follower].set(Duration::ZERO);
        let caught_up = cluster.caught_up(&clock, follower, leader);
        println!(
            "slow follower: round {round}: p99 without {:.2} ms, with {:.2} ms; {behind} entries behind at the end, \
             caught up in {:.0} ms",
            ms(without[round - 1]),
            ms(with[round - 1]),
            ms(caught_up)
        );
        assert_eq!(cluster.leader(&clock), leader, "no election");
    }
    let (without, with) = (median(&mut without), median(&mut with));
    println!(
        "slow follower: p99 {:.2} ms without, {:.2} ms with syncs of 10 s: {:.2} x (must reach: 1.10 x)",
        ms(without),
        ms(with),
        with.as_secs_f64() / without.as_secs_f64()
    );
}
