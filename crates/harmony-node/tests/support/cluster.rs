//! Nodes in one process, over the network in memory or over TCP, each with a disk that outlives it.
#![allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "shared by tests, each of which uses a part"
)]

#[path = "memory_wal.rs"]
pub mod memory_wal;
#[path = "store.rs"]
pub mod store;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use harmony_node::{
    ApplicationStorage, MemoryNetwork, Node, SystemClock, TcpTransport, TcpTransportConfig, Witness,
};
use harmony_types::config::{Identity, NodeConfig};
use harmony_types::fake::fs::{Crash, MemoryFileSystem};
use harmony_types::{
    Clock, ClusterId, ConfChange, ConfChangeType, Member, Membership, MembershipError, NodeError, NodeId,
    Role, Storage, Transport,
};

use memory_wal::MemoryWal;
use store::Store;

pub type Replica = ApplicationStorage<Store, MemoryWal>;

/// Long enough for a loaded machine; no test waits for it when all is well.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

/// Waits for a condition.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let clock = SystemClock::new();
    while !condition() {
        assert!(clock.now() < PATIENCE, "waited in vain for {what}");
        clock.sleep(Duration::from_millis(2));
    }
}

/// What outlives a node.
#[derive(Clone)]
pub struct Disk {
    pub wal: MemoryWal,
    pub files: Arc<MemoryFileSystem>,
}

impl Default for Disk {
    fn default() -> Self {
        Self { wal: MemoryWal::default(), files: Arc::new(MemoryFileSystem::with_dir("/")) }
    }
}

impl Disk {
    /// What is on it now; it goes on without this copy.
    pub fn copy(&self) -> Self {
        Self { wal: self.wal.copy(), files: Arc::new(self.files.crash_image(Crash::KeepAll)) }
    }

    pub fn open(&self) -> Replica {
        ApplicationStorage::open(Store::default(), self.wal.clone(), Arc::clone(&self.files) as _, "/node")
            .unwrap()
    }
}

pub enum Wires {
    Memory(MemoryNetwork),
    Tcp(tempfile::TempDir),
}

pub struct Cluster {
    pub wires: Wires,
    pub members: Vec<Member>,
    pub disks: BTreeMap<NodeId, Disk>,
    pub nodes: BTreeMap<NodeId, Node<Replica>>,
    /// Members that were added later.
    pub added: Vec<Member>,
    /// Entries kept for slow followers.
    pub log_keep_entries: u64,
    /// Bytes kept for slow followers.
    pub log_keep_bytes: u64,
    pub election_timeout_ms: u64,
    pub checkpoint_interval_ms: u64,
}

impl Cluster {
    /// A cluster that has not started.
    pub fn new(count: u64, tcp: bool) -> Self {
        // Ports that are free now; each stays taken until its node starts, or another test could be given it.
        let listeners: Vec<TcpListener> =
            (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let members: Vec<Member> = (1..=count)
            .zip(&listeners)
            .map(|(number, listener)| Member {
                id: id(number),
                name: format!("n{number}"),
                peer_urls: vec![format!("http://{}", listener.local_addr().unwrap())],
                client_urls: Vec::new(),
                role: Role::Voter,
            })
            .collect();
        let wires =
            if tcp { Wires::Tcp(tempfile::tempdir().unwrap()) } else { Wires::Memory(MemoryNetwork::new()) };
        Self {
            wires,
            disks: members.iter().map(|member| (member.id, Disk::default())).collect(),
            members,
            nodes: BTreeMap::new(),
            added: Vec::new(),
            log_keep_entries: 10_000,
            log_keep_bytes: 64 << 20,
            election_timeout_ms: 200,
            checkpoint_interval_ms: harmony_types::limits::CHECKPOINT_INTERVAL_MS,
        }
    }

    /// A cluster that has a leader.
    pub fn started(count: u64, tcp: bool) -> Self {
        let mut cluster = Self::new(count, tcp);
        for number in 1..=count {
            cluster.start(number);
        }
        cluster.leader();
        cluster
    }

    pub fn network(&self) -> &MemoryNetwork {
        match &self.wires {
            Wires::Memory(network) => network,
            Wires::Tcp(_) => panic!("a cluster over TCP has no switchboard"),
        }
    }

    /// Starts a node on its disk.
    pub fn start(&mut self, number: u64) {
        self.try_start(number).unwrap();
    }

    pub fn try_start(&mut self, number: u64) -> Result<(), NodeError> {
        let cluster = ClusterId(7);
        let config = NodeConfig {
            heartbeat_interval_ms: 20,
            election_timeout_ms: self.election_timeout_ms,
            checkpoint_interval_ms: self.checkpoint_interval_ms,
            log_keep_entries: self.log_keep_entries,
            log_keep_bytes: self.log_keep_bytes,
            ..NodeConfig::new(id(number), cluster)
        };
        let disk = &self.disks[&id(number)];
        let witness = Witness::open(Arc::clone(&disk.files) as _, "/node").unwrap();
        let storage = disk.open();
        storage.bootstrap(&Membership::from_members(self.members.clone())).unwrap();
        let storage = Arc::new(storage);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let node = match &self.wires {
            Wires::Memory(network) => {
                let transport = network.transport(id(number));
                let node = Node::start_with(config, storage, Arc::clone(&transport) as _, clock, witness)?;
                transport.attach(node.peer_sink());
                node
            }
            Wires::Tcp(dir) => {
                let own = self.members.iter().chain(&self.added).find(|one| one.id == id(number)).unwrap();
                let listen = own.peer_urls[0].strip_prefix("http://").unwrap().parse().unwrap();
                let transport = TcpTransport::start(TcpTransportConfig {
                    identity: Identity { cluster, node: Some(id(number)) },
                    listen: vec![listen],
                    peers: self.members.clone(),
                    spool_dir: dir.path().join(format!("spool-{number}")),
                    ..TcpTransportConfig::default()
                })
                .unwrap();
                let started = Node::start_with(
                    config,
                    storage,
                    Arc::clone(&transport) as Arc<dyn Transport>,
                    clock,
                    witness,
                );
                let node = started.inspect_err(|_| transport.stop())?;
                transport.attach(node.peer_sink());
                node
            }
        };
        self.nodes.insert(id(number), node);
        Ok(())
    }

    /// A member that is added while the cluster runs, with an empty disk.
    pub fn new_member(&mut self, number: u64) -> Member {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let member = Member {
            id: id(number),
            name: String::new(),
            peer_urls: vec![format!("http://{}", listener.local_addr().unwrap())],
            client_urls: Vec::new(),
            role: Role::Learner,
        };
        self.added.push(member.clone());
        self.disks.insert(id(number), Disk::default());
        member
    }

    /// Changes the membership at any running node, until the answer is final.
    pub fn change(&self, change_type: ConfChangeType, member: &Member) -> Result<Membership, NodeError> {
        let mut result = Err(NodeError::NoLeader);
        wait_for("the change", || {
            let change = ConfChange { change_type, member: member.clone() };
            // Whoever is removed may stop before it can answer.
            let others = |id: &NodeId| change_type != ConfChangeType::Remove || *id != member.id;
            let node = self.nodes.iter().find(|(id, _)| others(id)).unwrap().1;
            result = node.change_members_blocking(vec![change], PATIENCE);
            !matches!(
                result,
                Err(NodeError::NoLeader | NodeError::LeaderChanged | NodeError::Timeout)
                    | Err(NodeError::Membership(MembershipError::Unhealthy | MembershipError::Pending))
            )
        });
        result
    }

    /// Waits until this node knows that a member acknowledged everything that is committed.
    pub fn wait_witness(&self, number: u64, of: u64) {
        wait_for("what a member acknowledged to be known", || {
            let node = self.node(number);
            let commit = node.status().commit;
            commit <= node.acknowledged(id(of))
        });
    }

    /// Ends a node; its disk stays.
    pub fn kill(&mut self, number: u64) {
        let node = self.nodes.remove(&id(number)).unwrap();
        node.stop();
    }

    pub fn node(&self, number: u64) -> &Node<Replica> {
        &self.nodes[&id(number)]
    }

    /// Waits until some running node leads and returns its number.
    pub fn leader(&self) -> u64 {
        self.leader_among(&self.nodes.keys().map(|id| id.get()).collect::<Vec<_>>())
    }

    /// Waits until one of these nodes leads, of the newest term that they know.
    pub fn leader_among(&self, numbers: &[u64]) -> u64 {
        let mut leader = 0;
        wait_for("a leader", || {
            let newest = numbers.iter().map(|number| self.node(*number).term()).max();
            let found = numbers.iter().find(|number| {
                let node = self.node(**number);
                node.is_leader() && Some(node.term()) == newest
            });
            leader = found.copied().unwrap_or(0);
            leader != 0
        });
        leader
    }

    /// Some running node that is not this one.
    pub fn another(&self, number: u64) -> u64 {
        self.nodes.keys().map(|id| id.get()).find(|other| *other != number).unwrap()
    }

    pub fn put(&self, number: u64, command: &str) -> Result<u64, NodeError> {
        self.node(number).propose_blocking(Bytes::from(command.to_owned()), PATIENCE)
    }

    /// Puts until it is acknowledged: for tests that only need the entry.
    pub fn put_until_acknowledged(&self, number: u64, command: &str) {
        wait_for("an acknowledgement", || self.put(number, command).is_ok());
    }

    /// A linearizable read.
    pub fn get(&self, number: u64, key: &str) -> Result<Option<String>, NodeError> {
        let node = self.node(number);
        node.read_index_blocking(PATIENCE)?;
        let value = node.storage().query(key.as_bytes()).unwrap();
        Ok(value.map(|value| String::from_utf8(value.to_vec()).unwrap()))
    }

    /// Waits until all running nodes have applied the same.
    pub fn agree(&self) -> String {
        let mut states = Vec::new();
        wait_for("agreement", || {
            states = self.nodes.values().map(|node| node.storage().application().print()).collect();
            let applied: Vec<_> = self.nodes.values().map(|node| node.storage().applied()).collect();
            applied.windows(2).all(|pair| pair[0] == pair[1])
                && states.windows(2).all(|pair| pair[0] == pair[1])
        });
        states.swap_remove(0)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in self.nodes.values() {
            node.stop();
        }
    }
}
