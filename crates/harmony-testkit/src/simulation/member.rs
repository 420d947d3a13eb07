//! One member: its disk, its clock, and the process that runs on them, if one does.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use harmony_node::stepped::Chance;
use harmony_node::{LeaseKeeper, LeaseOptions, Node, SteppedNode, WatchHub, Witness};
use harmony_storage::UnifiedStorage;
use harmony_types::config::{Identity, NodeConfig, StorageConfig, WalConfig};
use harmony_types::fake::fs::{Crash, MemoryFileSystem};
use harmony_types::{
    Clock, ClusterId, FileSystem, Member as MemberOfCluster, Membership, NodeError, NodeId, Role, Storage,
};

use super::invariants::Seen;
use super::network::{Outbox, SimulatedTransport};
use super::plan::{Loss, Work};
use super::time::{MemberClock, Now};
use super::trace::mix;
use super::watcher::HUB;

const CLUSTER: ClusterId = ClusterId(0x51);
const WAL_DIR: &str = "/data/wal";
const TREE_DIR: &str = "/data/tree";

/// What its node keeps all in.
#[cfg(not(feature = "planted"))]
type Stored = UnifiedStorage;
#[cfg(feature = "planted")]
type Stored = super::planted::Altered;

/// See the module.
pub(super) struct Member {
    pub(super) id: NodeId,
    pub(super) disk: MemoryFileSystem,
    /// Whom it begins with on an empty disk.
    pub(super) founders: Membership,
    pub(super) calendar_shift_ms: Arc<AtomicI64>,
    pub(super) drift_ppm: i64,
    /// Processes so far: what was meant for an earlier one is void.
    pub(super) life: u64,
    pub(super) process: Option<Process>,
    /// The process stands still until then.
    pub(super) paused_until: u64,
    /// Its clients and it do not hear each other until then.
    pub(super) cut_off_until: u64,
    /// The disk completes nothing until then.
    pub(super) hung_until: u64,
    /// Nor what an apply reads.
    pub(super) reads_hung_until: u64,
    /// The process ends in the middle of this, when it does it next.
    pub(super) crash_in: Option<(Work, Loss)>,
    /// What a sync takes; 0: what a good disk takes.
    pub(super) slow_us: u64,
    /// Its disk has a limit.
    pub(super) full: bool,
    /// Bits on its disk were flipped: it may end at any time, and not start again.
    pub(super) rotten: bool,
    /// Disk calls that had failed as planned when its last process ended.
    pub(super) faults_before: u64,
    /// Proposals of its clients under way when it was looked at last.
    pub(super) pending: u64,
    /// Its directory was lost: its peers must send it away.
    pub(super) emptied: bool,
    /// It never comes back, for this reason.
    pub(super) gone: Option<String>,
    #[cfg(feature = "planted")]
    replaced: super::planted::Replaced,
}

/// A running process.
pub(super) struct Process {
    pub(super) node: SteppedNode<Stored>,
    pub(super) handle: Node<Stored>,
    pub(super) storage: Arc<UnifiedStorage>,
    pub(super) hub: WatchHub,
    /// Somebody who watches is behind.
    pub(super) behind: bool,
    pub(super) keeper: LeaseKeeper,
    /// Until the keeper's next turn, on the member's clock.
    pub(super) keeper_wait: Duration,
    pub(super) clock: Arc<MemberClock>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) under_way: UnderWay,
    pub(super) seen: Seen,
}

/// The steps that are planned or being done.
#[derive(Default)]
pub(super) struct UnderWay {
    pub(super) turn: bool,
    pub(super) sync: Option<u64>,
    pub(super) apply: bool,
    pub(super) snapshots: bool,
    pub(super) checkpoint: bool,
    pub(super) witness: bool,
    pub(super) rebuild: bool,
    pub(super) publish: bool,
    pub(super) history: bool,
    pub(super) leases: bool,
}

impl Member {
    pub(super) fn new(id: NodeId, founders: Membership) -> Self {
        Self {
            id,
            disk: MemoryFileSystem::with_dir("/data"),
            founders,
            calendar_shift_ms: Arc::default(),
            drift_ppm: 0,
            life: 0,
            process: None,
            paused_until: 0,
            cut_off_until: 0,
            hung_until: 0,
            reads_hung_until: 0,
            crash_in: None,
            slow_us: 0,
            full: false,
            rotten: false,
            faults_before: 0,
            pending: 0,
            emptied: false,
            gone: None,
            #[cfg(feature = "planted")]
            replaced: super::planted::Replaced::default(),
        }
    }

    /// A process on what the disk holds.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(&mut self, now: &Now, seed: u64) -> Result<(), NodeError> {
        self.life += 1;
        let fs: Arc<dyn FileSystem> = Arc::new(self.disk.clone());
        let identity = Identity { cluster: CLUSTER, node: Some(self.id) };
        let config = storage_config(identity);
        let storage = UnifiedStorage::open(Arc::clone(&fs), Path::new(WAL_DIR), Path::new(TREE_DIR), config)?;
        storage.bootstrap(&self.founders)?;
        let storage = Arc::new(storage);
        let witness = Witness::open(fs, "/data")?;
        let outbox = Arc::new(Outbox::default());
        let transport = Arc::new(SimulatedTransport(Arc::clone(&outbox)));
        let clock = Arc::new(MemberClock {
            now: now.clone(),
            calendar_shift_ms: Arc::clone(&self.calendar_shift_ms),
            drift_ppm: self.drift_ppm,
        });
        let own = mix(mix(seed ^ self.id.get()) ^ self.life);
        let chance = Chance { boot_nonce: own, election_seed: mix(own) };
        let config = node_config(self.id);
        let leases = LeaseOptions::new(Duration::from_millis(config.election_timeout_ms));
        let clock_of_node = Arc::clone(&clock) as Arc<dyn Clock>;
        #[cfg(not(feature = "planted"))]
        let stored = Arc::clone(&storage);
        #[cfg(feature = "planted")]
        let stored = Arc::new(Stored::new(Arc::clone(&storage), self.replaced.clone())?);
        let node =
            SteppedNode::start(config, stored, transport, Arc::clone(&clock_of_node), witness, chance)?;
        let handle = node.handle();
        let hub = WatchHub::new(Arc::clone(&storage) as _, HUB);
        let host = Arc::new(handle.clone());
        let keeper = LeaseKeeper::new(Arc::clone(&storage) as _, host, clock_of_node, leases, mix(own ^ 1));
        let seen = Seen::default();
        let under_way = UnderWay::default();
        self.process = Some(Process {
            node,
            handle,
            storage,
            hub,
            behind: false,
            keeper,
            keeper_wait: leases.beat,
            clock,
            outbox,
            under_way,
            seen,
        });
        Ok(())
    }

    /// Whether a process could start from what is synced by now, and would be as far as the tree was.
    ///
    /// # Errors
    /// Why it could not.
    pub(super) fn survives_power_failure(&self) -> Result<(), String> {
        let Some(process) = &self.process else { return Ok(()) };
        let disk = self.disk.crash_image(Crash::LoseUnsynced);
        let config = storage_config(Identity { cluster: CLUSTER, node: Some(self.id) });
        let opened = UnifiedStorage::open(Arc::new(disk), Path::new(WAL_DIR), Path::new(TREE_DIR), config);
        let storage = opened.map_err(|error| error.to_string())?;
        let (found, wanted) = (storage.durable_applied(), process.storage.durable_applied());
        if found == wanted { Ok(()) } else { Err(format!("its tree would be at {found}, not at {wanted}")) }
    }

    /// Lifts the limit of its disk.
    pub(super) fn empty_disk(&mut self) {
        self.disk.set_capacity(None);
        self.full = false;
    }

    /// The process, if it is the one that was meant.
    pub(super) fn process_of(&mut self, life: u64) -> Option<&mut Process> {
        self.process.as_mut().filter(|_| self.life == life)
    }
}

/// Small, so that segments end, logs are released and checkpoints are made all the time.
fn storage_config(identity: Identity) -> StorageConfig {
    let wal = WalConfig { identity, segment_bytes: 8 << 10, cache_bytes: 128 << 10, quota_bytes: None };
    StorageConfig { wal, tree_cache_bytes: 1 << 20, checkpoint_bytes: 128 << 10, view_bytes_max: 64 << 20 }
}

fn node_config(id: NodeId) -> NodeConfig {
    NodeConfig {
        log_keep_entries: 20,
        log_keep_bytes: 4 << 10,
        log_hold_bytes_max: 128 << 10,
        ..NodeConfig::new(id, CLUSTER)
    }
}

/// A member as the cluster knows it.
pub(super) fn member_of_cluster(id: NodeId, role: Role) -> MemberOfCluster {
    MemberOfCluster {
        id,
        name: format!("n{}", id.get()),
        peer_urls: vec![format!("http://n{}:2380", id.get())],
        client_urls: Vec::new(),
        role,
    }
}
