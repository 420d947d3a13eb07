//! Somebody else's state machine, a counter, replicated over three nodes in one process.
//!
//! Run it: `cargo run -p harmony-node --example replicated_counter`
#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::error::Error;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use harmony_node::{ApplicationStorage, MemoryNetwork, Node, SystemClock};
use harmony_types::application::ApplicationError;
use harmony_types::config::{Identity, NodeConfig};
use harmony_types::{Application, ClusterId, Entry, Member, Membership, NodeId, Role, SnapshotData, Storage};
use harmony_wal::{FileWal, OsFileSystem, WalConfig};

/// The state machine: a command is a number to add, its outcome the sum after it.
#[derive(Default)]
struct Counter(AtomicU64);

impl Application for Counter {
    type Outcome = u64;

    fn apply(&self, entries: &[Entry]) -> Result<Vec<u64>, ApplicationError> {
        let add = |entry: &Entry| match <[u8; 8]>::try_from(&*entry.data) {
            Ok(number) => {
                let number = u64::from_le_bytes(number);
                Ok(self.0.fetch_add(number, Ordering::Relaxed) + number)
            }
            // A new leader's first entry.
            Err(_) if entry.data.is_empty() => Ok(0),
            Err(error) => Err(error.into()),
        };
        entries.iter().map(add).collect()
    }

    fn snapshot(&self) -> Result<SnapshotData, ApplicationError> {
        Ok(SnapshotData::Bytes(Bytes::copy_from_slice(&self.0.load(Ordering::Relaxed).to_le_bytes())))
    }

    fn restore(&self, snapshot: SnapshotData) -> Result<(), ApplicationError> {
        let mut number = [0; 8];
        snapshot.into_reader().read_exact(&mut number)?;
        self.0.store(u64::from_le_bytes(number), Ordering::Relaxed);
        Ok(())
    }

    fn query(&self, _key: &[u8]) -> Result<Option<Bytes>, ApplicationError> {
        Ok(Some(self.0.load(Ordering::Relaxed).to_string().into()))
    }
}

fn member(number: u64) -> Result<Member, Box<dyn Error>> {
    Ok(Member {
        id: NodeId::new(number).ok_or("member 0 does not exist")?,
        name: format!("n{number}"),
        peer_urls: Vec::new(), // In one process nobody needs an address.
        client_urls: Vec::new(),
        role: Role::Voter,
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let cluster = ClusterId(1);
    let members = [member(1)?, member(2)?, member(3)?];
    let dir = std::env::temp_dir().join(format!("replicated-counter-{}", std::process::id()));
    let network = MemoryNetwork::new();
    let clock = Arc::new(SystemClock::new());

    let mut nodes = Vec::new();
    for member in &members {
        let files = Arc::new(OsFileSystem);
        let dir = dir.join(&member.name);
        let identity = Identity { cluster, node: Some(member.id) };
        let config = WalConfig { identity, segment_bytes: 1 << 20, ..WalConfig::default() };
        let wal = FileWal::open(files.clone(), &dir.join("wal"), config)?;
        let storage = ApplicationStorage::open(Counter::default(), wal, files, &dir)?;
        storage.bootstrap(&Membership::from_members(members.clone()))?;

        let transport = network.transport(member.id);
        let config = NodeConfig::new(member.id, cluster);
        let node = Node::start(config, Arc::new(storage), transport.clone(), clock.clone())?;
        transport.attach(node.peer_sink());
        nodes.push(node);
    }

    // Any node takes a proposal; it is acknowledged when it is on the disks of two.
    let patience = Duration::from_secs(10);
    for (number, node) in (1..=9u64).zip(nodes.iter().cycle()) {
        let sum = node.propose_blocking(Bytes::copy_from_slice(&number.to_le_bytes()), patience)?;
        println!("{node:?} added {number}: {sum}");
    }
    // Any node answers a linearizable read: it sees what was acknowledged anywhere.
    for node in &nodes {
        node.read_index_blocking(patience)?;
        let sum = node.storage().query(b"")?.unwrap_or_default();
        println!("{node:?} reads {}", String::from_utf8_lossy(&sum));
    }
    for node in &nodes {
        node.stop();
        node.storage().close()?;
    }
    std::fs::remove_dir_all(dir)?;
    Ok(())
}
