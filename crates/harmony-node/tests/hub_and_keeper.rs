//! Hubs and keepers with their threads around three nodes in one process, over the real storage.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use harmony_node::watch::{WatchMessage, WatchRequest, WatchWake};
use harmony_node::{
    LeaseKeeper, LeaseOptions, MemoryNetwork, Node, ReplySink, SystemClock, Waiter, WatchHub, WatchOptions,
    WatchStream, Witness,
};
use harmony_storage::{StorageConfig, UnifiedStorage};
use harmony_types::config::NodeConfig;
use harmony_types::fake::fs::MemoryFileSystem;
use harmony_types::lease::LeaseGrant;
use harmony_types::txn::Put;
use harmony_types::{
    Clock, ClusterId, Command, CommandKind, KeyRange, LeaseId, Member, Membership, NodeError, NodeId,
    Outcome, OutcomeKind, Role, Storage as _, Term,
};

const PATIENCE: Duration = Duration::from_secs(60);
const ELECTION: Duration = Duration::from_millis(200);

struct One {
    node: Node<UnifiedStorage>,
    hub: WatchHub,
    keeper: LeaseKeeper,
    client: Client,
}

/// Watches every key of one member.
struct Client {
    stream: WatchStream,
    woken: Receiver<()>,
    heard: Vec<String>,
}

struct Wake(Mutex<Sender<()>>);

impl WatchWake for Wake {
    fn wake(&self) {
        let _ = self.0.lock().unwrap().send(());
    }
}

/// Hears the end of one call.
struct Answer<T>(Mutex<Sender<Result<T, NodeError>>>);

impl<T: Send> ReplySink<T> for Answer<T> {
    fn complete(&self, batch: Vec<(u64, Result<T, NodeError>)>) {
        for (_, result) in batch {
            let _ = self.0.lock().unwrap().send(result);
        }
    }
}

/// Makes a call and waits for its end.
fn wait<T: Send + 'static>(call: impl FnOnce(Waiter<T>)) -> Result<T, NodeError> {
    let (sender, end) = channel();
    call(Waiter::new(Arc::new(Answer(Mutex::new(sender))), 0));
    end.recv_timeout(PATIENCE).unwrap()
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let clock = SystemClock::new();
    while !condition() {
        assert!(clock.now() < PATIENCE, "waited in vain for {what}");
        clock.sleep(Duration::from_millis(2));
    }
}

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

fn put(key: &str, lease: i64) -> CommandKind {
    let key = Bytes::copy_from_slice(key.as_bytes());
    CommandKind::Put(Put { key, value: "v".into(), lease, ..Put::default() })
}

impl Client {
    fn new(hub: &WatchHub) -> Self {
        let (sender, woken) = channel();
        let stream = hub.stream(Arc::new(Wake(Mutex::new(sender))));
        stream.create(&WatchRequest { keys: KeyRange::all(), ..WatchRequest::default() }).unwrap();
        Self { stream, woken, heard: Vec::new() }
    }

    /// Waits for wakes, and polls, until this was heard `count` times.
    fn hear(&mut self, what: &str, count: usize) {
        loop {
            let messages = self.stream.poll(1_000);
            if messages.is_empty() {
                if self.heard.iter().filter(|heard| heard.ends_with(what)).count() == count {
                    return;
                }
                self.woken.recv_timeout(PATIENCE).expect("a wake");
            }
            for message in messages {
                let WatchMessage::Events { events, .. } = message else { continue };
                for event in events {
                    let kv = event.kv.as_ref().unwrap();
                    let key = String::from_utf8_lossy(&kv.key);
                    self.heard.push(format!("{} {:?} {key}", kv.mod_revision, event.event_type()));
                }
            }
        }
    }
}

struct Cluster {
    network: MemoryNetwork,
    members: BTreeMap<u64, One>,
}

impl Cluster {
    fn new() -> Self {
        Self::with_clocks(|_| Arc::new(SystemClock::new()))
    }

    fn with_clocks(clock: impl Fn(u64) -> Arc<dyn Clock>) -> Self {
        let network = MemoryNetwork::new();
        let member = |number| Member {
            id: id(number),
            name: format!("n{number}"),
            peer_urls: vec![format!("http://n{number}:1")],
            client_urls: Vec::new(),
            role: Role::Voter,
        };
        let membership = Membership::from_members((1..=3).map(member).collect::<Vec<_>>());
        let start = |number| {
            let files = Arc::new(MemoryFileSystem::with_dir("/"));
            let config = StorageConfig { tree_cache_bytes: 1 << 20, ..StorageConfig::default() };
            let storage =
                UnifiedStorage::open(Arc::clone(&files) as _, Path::new("/wal"), Path::new("/tree"), config)
                    .unwrap();
            storage.bootstrap(&membership).unwrap();
            let storage = Arc::new(storage);
            let clock = clock(number);
            let config = NodeConfig {
                heartbeat_interval_ms: 20,
                election_timeout_ms: 200,
                ..NodeConfig::new(id(number), ClusterId(7))
            };
            let witness = Witness::open(files as _, "/node").unwrap();
            let transport = network.transport(id(number));
            let hub = WatchHub::start(Arc::clone(&storage) as _, WatchOptions::default()).unwrap();
            let client = Client::new(&hub);
            let leases = Arc::clone(&storage) as _;
            let node =
                Node::start_with(config, storage, Arc::clone(&transport) as _, Arc::clone(&clock), witness)
                    .unwrap();
            transport.attach(node.peer_sink());
            let host = Arc::new(node.clone());
            let keeper = LeaseKeeper::start(leases, host, clock, LeaseOptions::new(ELECTION)).unwrap();
            (number, One { node, hub, keeper, client })
        };
        Self { members: (1..=3).map(start).collect(), network }
    }

    fn node(&self, number: u64) -> &Node<UnifiedStorage> {
        &self.members[&number].node
    }

    fn leader_among(&self, numbers: &[u64]) -> u64 {
        let mut leader = 0;
        wait_for("a leader", || {
            let leads = |number: &&u64| self.node(**number).read_index_blocking(ELECTION).is_ok();
            let found = numbers.iter().filter(|number| self.node(**number).is_leader()).find(leads);
            leader = found.copied().unwrap_or(0);
            leader != 0
        });
        leader
    }

    /// Runs a command through a member, which knows a leader.
    fn run(&self, number: u64, kind: CommandKind) -> Outcome {
        let data = Command::from(kind).encode_to_bytes();
        self.node(number).propose_blocking(data, PATIENCE).unwrap()
    }

    /// Renews a lease with the member that leads; the TTL that it says.
    fn renew(&self, number: u64, lease: LeaseId) -> Result<i64, NodeError> {
        wait(|waiter| self.members[&number].keeper.renew(lease, waiter))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for One { node, hub, keeper, .. } in self.members.values() {
            keeper.stop();
            hub.close();
            node.stop();
        }
    }
}

#[test]
fn watchers_of_all_members_hear_the_same_also_behind_a_partition() {
    let mut cluster = Cluster::new();
    let leader = cluster.leader_among(&[1, 2, 3]);
    let lone = leader % 3 + 1;
    for round in 0..3 {
        if round == 1 {
            cluster.network.isolate(id(lone));
        }
        for number in 0..100 {
            cluster.run(leader, put(&format!("{round}-{number:03}"), 0));
        }
    }
    cluster.network.heal_all();
    for one in cluster.members.values_mut() {
        one.client.hear(" 2-099", 1);
    }
    let heard: Vec<_> = cluster.members.values().map(|one| one.client.heard.clone()).collect();
    assert_eq!(heard[0].len(), 300);
    assert!(heard.iter().all(|one| *one == heard[0]), "each member tells the same, once");
}

#[test]
fn a_lease_lives_while_it_is_renewed_through_two_leaders_and_ends_once() {
    let mut cluster = Cluster::new();
    let leader = cluster.leader_among(&[1, 2, 3]);
    let lease = LeaseId(77);
    let granted = cluster.run(leader, CommandKind::LeaseGrant(LeaseGrant { id: lease.0, ttl: 1 }));
    assert!(matches!(granted.kind, Some(OutcomeKind::LeaseGrant(_))));
    cluster.run(leader, put("leased", lease.0));
    wait_for("the leader's keeper to count", || matches!(cluster.renew(leader, lease), Ok(1)));
    let follower = leader % 3 + 1;
    assert!(matches!(cluster.renew(follower, lease), Ok(1)), "the leader renewed it");
    let left = wait(|waiter| cluster.members[&follower].keeper.time_to_live(lease, waiter)).unwrap().unwrap();
    assert_eq!(left.granted_s, 1);
    let unknown = wait(|waiter| cluster.members[&follower].keeper.time_to_live(LeaseId(1), waiter));
    assert!(matches!(unknown, Ok(None)), "{unknown:?}");

    cluster.network.isolate(id(leader));
    let others: Vec<u64> = (1..=3).filter(|number| *number != leader).collect();
    let next = cluster.leader_among(&others);
    // The old leader, which may still believe, says nothing that is not true.
    let old = cluster.renew(leader, lease);
    assert!(old.is_err(), "{old:?}");
    let clock = SystemClock::new();
    // Three times its TTL, through both that are left, whoever of them leads.
    while clock.now() < Duration::from_secs(3) {
        for number in &others {
            let renewed = cluster.renew(*number, lease);
            assert!(matches!(renewed, Ok(1) | Err(_)), "{renewed:?}");
        }
        clock.sleep(Duration::from_millis(50));
    }
    assert_eq!(cluster.node(next).storage().leases().unwrap().len(), 1, "it was renewed in time");
    cluster.network.heal_all();
    for one in cluster.members.values_mut() {
        one.client.hear(" Delete leased", 1);
    }
    for one in cluster.members.values() {
        assert!(one.node.storage().leases().unwrap().is_empty());
        assert_eq!(one.client.heard.len(), 2, "{:?}", one.client.heard);
    }
    let leader = cluster.leader_among(&[1, 2, 3]);
    wait_for("word that it is gone", || matches!(cluster.renew(leader, lease), Ok(0)));
}

#[test]
fn a_proposal_of_one_term_counts_in_that_term_or_never() {
    let mut cluster = Cluster::new();
    let leader = cluster.leader_among(&[1, 2, 3]);
    let propose = |number: u64, term: Term, key: &str| {
        let data = Command::from(put(key, 0)).encode_to_bytes();
        wait(|waiter| cluster.node(number).propose_in_term(term, data, waiter))
    };
    let own_term = |number: u64| cluster.node(number).leadership().own_term.unwrap();
    let term = own_term(leader);
    propose(leader, term, "own").unwrap();
    for other in [Term(term.0 - 1), Term(term.0 + 1)] {
        let refused = propose(leader, other, "wrong term");
        assert!(matches!(refused, Err(NodeError::NotLeader { .. })), "{refused:?}");
    }
    let follower = leader % 3 + 1;
    assert_eq!(cluster.node(follower).leadership().own_term, None);
    let refused = propose(follower, term, "passed on");
    assert!(matches!(refused, Err(NodeError::NotLeader { .. })), "{refused:?}");

    cluster.network.isolate(id(leader));
    let others: Vec<u64> = (1..=3).filter(|number| *number != leader).collect();
    let next = cluster.leader_among(&others);
    let lost = propose(leader, term, "lost");
    assert!(lost.is_err(), "{lost:?}");
    assert!(term < own_term(next));
    cluster.network.heal_all();
    let last = cluster.leader_among(&[1, 2, 3]);
    cluster.run(last, put("last", 0));
    for one in cluster.members.values_mut() {
        one.client.hear(" last", 1);
        let keys: Vec<&str> = one
            .client
            .heard
            .iter()
            .filter_map(|heard| heard.split_once("Put "))
            .map(|(_, key)| key)
            .collect();
        assert_eq!(keys, ["own", "last"]);
    }
}

/// A clock that is too fast or too slow, and whose wall clock is a day behind, right, or a day ahead by turns.
struct Wrong {
    true_clock: SystemClock,
    /// It counts so many seconds ...
    counted: u32,
    /// ... in so many.
    passed: u32,
    asked: AtomicU64,
}

impl Clock for Wrong {
    fn now(&self) -> Duration {
        self.true_clock.now() * self.counted / self.passed
    }

    fn unix_ms(&self) -> u64 {
        let day = 24 * 60 * 60 * 1000;
        self.true_clock.unix_ms() - day + self.asked.fetch_add(1, Ordering::Relaxed) % 3 * day
    }

    fn sleep(&self, duration: Duration) {
        self.true_clock.sleep(duration * self.passed / self.counted);
    }
}

/// What a member that leads counts is its own monotonic clock: one that runs twice too fast may end a lease in half of its time, and
/// no sooner; one that is too slow ends it late, but does. Wall clocks mean nothing.
#[test]
fn a_lease_ends_by_the_monotonic_clock_of_who_leads_and_by_no_other() {
    const TTL: Duration = Duration::from_secs(2);
    let rate = |number| match number {
        1 => (1, 1),
        2 => (2, 1),
        _ => (1, 2),
    };
    let mut cluster = Cluster::with_clocks(|number| {
        let (counted, passed) = rate(number);
        Arc::new(Wrong { true_clock: SystemClock::new(), counted, passed, asked: AtomicU64::new(0) })
    });
    for target in 1..=3 {
        let led = || {
            let leader = cluster.leader_among(&[1, 2, 3]);
            if leader != target {
                cluster.node(leader).transfer_leader(id(target));
            }
            leader == target
        };
        wait_for("it to lead", led);
        let key = format!("of {target}");
        let clock = SystemClock::new();
        let (term, lease) = (cluster.node(target).term(), 70 + i64::try_from(target).unwrap());
        let grant = LeaseGrant { id: lease, ttl: i64::try_from(TTL.as_secs()).unwrap() };
        cluster.run(target, CommandKind::LeaseGrant(grant));
        cluster.run(target, put(&key, lease));
        let storage = Arc::clone(cluster.node(target).storage());
        wait_for("the lease's end", || storage.get(key.as_bytes()).unwrap().is_none());
        let lived = clock.now();
        // Where another led meanwhile it may be the fastest that counted.
        let is_same = cluster.node(target).is_leader() && cluster.node(target).term() == term;
        let (counted, passed) = if is_same { rate(target) } else { rate(2) };
        assert!(TTL * passed / counted <= lived, "leader {target}: ended behind {lived:?}");
    }
    for one in cluster.members.values_mut() {
        one.client.hear(" Delete of 3", 1);
    }
    let heard: Vec<_> = cluster.members.values().map(|one| one.client.heard.clone()).collect();
    assert!(heard.iter().all(|one| *one == heard[0]), "all members did the same: {heard:?}");
}
