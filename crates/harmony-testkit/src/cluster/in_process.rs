//! A cluster in this process: real nodes and real storage, on disks in memory that lose what was not synced.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use harmony_node::{MemoryNetwork, Node, SystemClock};
use harmony_storage::UnifiedStorage;
use harmony_types::config::{Identity, NodeConfig, StorageConfig, WalConfig};
use harmony_types::fake::fs::{CallKind, Crash, Fault, MemoryFileSystem};
use harmony_types::testing::TestError;
use harmony_types::txn::{DeleteRange, Put};
use harmony_types::{
    ClusterId, CommandKind, FileSystem, KeyValue, Member, Membership, NodeId, Outcome, OutcomeKind, Refusal,
    Revision, Role, Storage, Term, TestCluster, TestNode,
};

use crate::client::{Client, NodeStatus, StateHash};
use crate::wait::{PATIENCE, until};

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Directories on a member's disk.
const WAL: &str = "/data/wal";
const TREE: &str = "/data/tree";

/// One running member.
pub struct InProcessNode {
    node: Node<UnifiedStorage>,
}

impl InProcessNode {
    /// A client of a node.
    #[must_use]
    pub fn on(node: Node<UnifiedStorage>) -> Self {
        Self { node }
    }

    /// The node itself.
    #[must_use]
    pub fn node(&self) -> &Node<UnifiedStorage> {
        &self.node
    }

    fn run(&self, kind: CommandKind) -> Result<Outcome, TestError> {
        let outcome =
            self.node.propose_blocking(harmony_types::Command::from(kind).encode_to_bytes(), CALL_TIMEOUT)?;
        match outcome.kind {
            Some(OutcomeKind::Refused(refusal)) => {
                Err(format!("refused: {:?}", Refusal::try_from(refusal)).into())
            }
            _ => Ok(outcome),
        }
    }
}

fn revision_of(outcome: &Outcome) -> Result<Revision, TestError> {
    Ok(Revision(u64::try_from(outcome.revision)?))
}

impl Client for InProcessNode {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<Revision, TestError> {
        let put =
            Put { key: Bytes::copy_from_slice(key), value: Bytes::copy_from_slice(value), ..Put::default() };
        revision_of(&self.run(CommandKind::Put(put))?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, TestError> {
        self.node.read_index_blocking(CALL_TIMEOUT)?;
        Ok(self.node.storage().get(key)?)
    }

    fn delete(&self, key: &[u8]) -> Result<Revision, TestError> {
        let delete = DeleteRange { key: Bytes::copy_from_slice(key), ..DeleteRange::default() };
        revision_of(&self.run(CommandKind::DeleteRange(delete))?)
    }

    fn status(&self) -> Result<NodeStatus, TestError> {
        let status = self.node.status();
        Ok(NodeStatus {
            id: status.id,
            leader: status.leader,
            term: status.term,
            revision: self.node.storage().revision(),
            applied: self.node.storage().applied().index,
        })
    }

    fn state_hash(&self, revision: Revision) -> Result<StateHash, TestError> {
        let hash = self.node.storage().hash_kv(revision.as_i64())?;
        Ok(StateHash {
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            revision: hash.hash_revision,
        })
    }
}

impl TestNode for InProcessNode {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<Revision, TestError> {
        Client::put(self, key, value)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TestError> {
        Ok(Client::get(self, key)?.map(|kv| kv.value))
    }

    fn delete(&self, key: &[u8]) -> Result<Revision, TestError> {
        Client::delete(self, key)
    }

    fn is_leader(&self) -> bool {
        self.node.is_leader()
    }

    fn term(&self) -> Term {
        self.node.term()
    }
}

fn members_of(ids: &[NodeId]) -> Membership {
    Membership::from_members(ids.iter().map(|id| Member {
        id: *id,
        name: format!("n{id}"),
        peer_urls: Vec::new(),
        client_urls: Vec::new(),
        role: Role::Voter,
    }))
}

/// A cluster in this process.
pub struct InProcessCluster {
    cluster: ClusterId,
    network: MemoryNetwork,
    membership: Membership,
    disks: BTreeMap<NodeId, MemoryFileSystem>,
    nodes: BTreeMap<NodeId, InProcessNode>,
    /// What a kill does to writes that were not synced.
    crash: Crash,
}

impl InProcessCluster {
    /// A cluster without members, whose kills lose everything that was not synced.
    #[must_use]
    pub fn new() -> Self {
        Self::with_crash(Crash::LoseUnsynced)
    }

    /// A cluster whose kills do `crash` to the disks.
    #[must_use]
    pub fn with_crash(crash: Crash) -> Self {
        Self {
            cluster: ClusterId(0xc1),
            network: MemoryNetwork::new(),
            membership: Membership::default(),
            disks: BTreeMap::new(),
            nodes: BTreeMap::new(),
            crash,
        }
    }

    /// Changes what later kills do to the disks.
    pub fn set_crash(&mut self, crash: Crash) {
        self.crash = crash;
    }

    /// A member's disk, which its restarts get, too: to be filled, held or broken by a test.
    ///
    /// # Errors
    /// There is no such member.
    pub fn disk(&self, id: NodeId) -> Result<&MemoryFileSystem, TestError> {
        self.disks.get(&id).ok_or_else(|| format!("no member {id}").into())
    }

    /// Members that run.
    pub fn running(&self) -> impl Iterator<Item = &InProcessNode> {
        self.nodes.values()
    }

    /// Waits for a leader.
    ///
    /// # Errors
    /// None within the patience.
    pub fn leader(&self) -> Result<NodeId, TestError> {
        until("a leader", PATIENCE, || {
            self.nodes
                .iter()
                .find(|(_, node)| node.is_leader())
                .map(|(id, _)| *id)
                .ok_or_else(|| "nobody leads".into())
        })
    }

    /// Waits until every running member has applied the same and has the same hash.
    ///
    /// # Errors
    /// The states differ.
    pub fn check_agreement(&self) -> Result<(), TestError> {
        crate::agreement::check(self.running().map(|node| node as &dyn Client))
    }

    /// Opens the storage of a member that does not run, to be looked at or damaged by a test, which closes it.
    ///
    /// # Errors
    /// There is no such member; the storage's.
    pub fn open_storage(&self, id: NodeId) -> Result<UnifiedStorage, TestError> {
        let (fs, config) = (self.fs(id)?, self.storage_config(id));
        let wal = Arc::new(harmony_wal::FileWal::open(Arc::clone(&fs), Path::new(WAL), config.wal.clone())?);
        Ok(UnifiedStorage::with_wal(fs, wal, Path::new(TREE), config)?)
    }

    fn fs(&self, id: NodeId) -> Result<Arc<dyn FileSystem>, TestError> {
        Ok(Arc::new(self.disks.get(&id).ok_or_else(|| format!("no member {id}"))?.clone()))
    }

    fn storage_config(&self, id: NodeId) -> StorageConfig {
        let identity = Identity { cluster: self.cluster, node: Some(id) };
        let wal = WalConfig { identity, segment_bytes: 1 << 20, ..WalConfig::default() };
        StorageConfig { wal, tree_cache_bytes: 8 << 20, ..StorageConfig::default() }
    }

    fn start_node(&mut self, id: NodeId) -> Result<(), TestError> {
        let (fs, config) = (self.fs(id)?, self.storage_config(id));
        let members = || Some(self.membership.clone());
        let (_, storage) =
            UnifiedStorage::open_member(&fs, Path::new(WAL), Path::new(TREE), &config, &members)?;
        let storage = Arc::new(storage);
        storage.bootstrap(&self.membership)?;
        let transport = self.network.transport(id);
        let config = NodeConfig {
            heartbeat_interval_ms: 20,
            election_timeout_ms: 200,
            ..NodeConfig::new(id, self.cluster)
        };
        let node = Node::start(config, storage, Arc::clone(&transport) as _, Arc::new(SystemClock::new()))?;
        transport.attach(node.peer_sink());
        self.nodes.insert(id, InProcessNode { node });
        Ok(())
    }
}

impl Default for InProcessCluster {
    fn default() -> Self {
        Self::new()
    }
}

impl TestCluster for InProcessCluster {
    type Node = InProcessNode;

    fn start(&mut self, node_count: usize) -> Result<(), TestError> {
        let ids: Vec<NodeId> = (1..=node_count as u64).filter_map(NodeId::new).collect();
        self.membership = members_of(&ids);
        for id in &ids {
            self.disks.insert(*id, MemoryFileSystem::with_dir("/data"));
        }
        for id in &ids {
            self.start_node(*id)?;
        }
        self.leader().map(drop)
    }

    fn stop(&mut self) -> Result<(), TestError> {
        for (_, running) in std::mem::take(&mut self.nodes) {
            running.node.stop();
            running.node.storage().close()?;
        }
        Ok(())
    }

    fn node_ids(&self) -> Vec<NodeId> {
        self.disks.keys().copied().collect()
    }

    fn node(&self, id: NodeId) -> Option<&InProcessNode> {
        self.nodes.get(&id)
    }

    fn partition_node(&mut self, id: NodeId) {
        for other in self.node_ids().into_iter().filter(|other| *other != id) {
            self.network.cut(id, other);
            self.network.cut(other, id);
        }
    }

    fn unpartition_node(&mut self, id: NodeId) {
        for other in self.node_ids().into_iter().filter(|other| *other != id) {
            self.network.heal(id, other);
            self.network.heal(other, id);
        }
    }

    fn kill_node(&mut self, id: NodeId) -> Result<(), TestError> {
        let running = self.nodes.remove(&id).ok_or("the member does not run")?;
        // The power goes before the image is taken: a node that went on syncing would acknowledge, between the two, what
        // the image does not hold.
        self.disks[&id].inject(Fault::on(CallKind::CHANGING).lasting());
        let image = self.disks[&id].crash_image(self.crash);
        self.disks.insert(id, image);
        running.node.stop();
        Ok(())
    }

    fn restart_node(&mut self, id: NodeId) -> Result<(), TestError> {
        self.start_node(id)
    }
}

impl Drop for InProcessCluster {
    fn drop(&mut self) {
        for running in self.nodes.values() {
            running.node.stop();
        }
    }
}
