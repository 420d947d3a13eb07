//! What is acknowledged is there after a crash: on a real log, over a disk that loses what was not synced.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/store.rs"]
mod store;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use harmony_node::{ApplicationStorage, MemoryNetwork, Node, SystemClock};
use harmony_types::config::{Identity, NodeConfig};
use harmony_types::fake::fs::{Crash, MemoryFileSystem};
use harmony_types::{ClusterId, LogIndex, Member, Membership, NodeId, Role, Storage, StorageError};
use harmony_wal::{FileWal, WalConfig};
use store::Store;

const PATIENCE: Duration = Duration::from_secs(60);

type Replica = ApplicationStorage<Store, FileWal>;

fn id() -> NodeId {
    NodeId::new(1).unwrap()
}

fn open(disk: &MemoryFileSystem) -> Result<Replica, StorageError> {
    let files = Arc::new(disk.clone());
    let identity = Identity { cluster: ClusterId(1), node: Some(id()) };
    let config = WalConfig { identity, segment_bytes: 64 << 10, ..WalConfig::default() };
    let wal = FileWal::open(files.clone(), Path::new("/node/wal"), config)?;
    let storage = ApplicationStorage::open(Store::default(), wal, files, "/node")?;
    let member = Member {
        id: id(),
        name: "n1".to_owned(),
        peer_urls: Vec::new(),
        client_urls: Vec::new(),
        role: Role::Voter,
    };
    storage.bootstrap(&Membership::from_members([member]))?;
    Ok(storage)
}

/// A node whose election timeout is so long that a test which waits for it fails.
fn start(storage: Replica) -> Node<Replica> {
    let network = MemoryNetwork::new();
    let config = NodeConfig {
        heartbeat_interval_ms: 10_000,
        election_timeout_ms: 50_000,
        ..NodeConfig::new(id(), ClusterId(1))
    };
    let clock = Arc::new(SystemClock::new());
    Node::start(config, Arc::new(storage), network.transport(id()), clock).unwrap()
}

fn put(node: &Node<Replica>, command: String) -> u64 {
    node.propose_blocking(command.into(), PATIENCE).unwrap()
}

fn get(node: &Node<Replica>, key: &str) -> Option<Bytes> {
    node.read_index_blocking(PATIENCE).unwrap();
    node.storage().query(key.as_bytes()).unwrap()
}

#[test]
fn every_acknowledged_put_survives_a_power_loss_and_the_only_voter_leads_at_once() {
    let mut disk = MemoryFileSystem::with_dir("/node");
    let mut count = 0;
    for life in 0..5 {
        let node = start(open(&disk).unwrap());
        for key in 0..count {
            assert_eq!(
                get(&node, &format!("k{key}")).as_deref(),
                Some(format!("{key}").as_bytes()),
                "life {life}"
            );
        }
        for _ in 0..20 {
            assert_eq!(put(&node, format!("k{count}={count}")), count);
            count += 1;
        }
        if life == 2 {
            node.storage().checkpoint().unwrap();
        }
        // The image is taken while the node runs; what it does until it stops is lost with the old disk.
        let image = disk.crash_image(Crash::LoseUnsynced);
        node.stop();
        disk = image;
    }
}

#[test]
fn a_term_never_steps_back() {
    let mut disk = MemoryFileSystem::with_dir("/node");
    let mut last = harmony_types::Term(0);
    for _ in 0..5 {
        let node = start(open(&disk).unwrap());
        put(&node, "a=1".to_owned());
        assert!(last < node.term(), "{last} then {}", node.term());
        last = node.term();
        let image = disk.crash_image(Crash::LoseUnsynced);
        node.stop();
        disk = image;
    }
}

#[test]
fn a_restart_from_a_checkpoint_replays_only_what_is_behind_it() {
    let disk = MemoryFileSystem::with_dir("/node");
    let node = start(open(&disk).unwrap());
    for number in 0..10 {
        put(&node, format!("k{number}=1"));
    }
    node.storage().checkpoint().unwrap();
    put(&node, "behind=1".to_owned());
    node.stop();
    drop(node);
    let storage = open(&disk).unwrap();
    let recovered = storage.read_all().unwrap();
    assert_eq!(recovered.entries.first().unwrap().index, LogIndex(12));
    assert_eq!(storage.application().print().split(':').next(), Some("10"));
    let node = start(storage);
    assert_eq!(get(&node, "behind").as_deref(), Some(b"1".as_slice()));
    node.stop();
}

#[test]
fn every_flipped_bit_of_the_state_file_is_noticed() {
    let disk = MemoryFileSystem::with_dir("/node");
    let node = start(open(&disk).unwrap());
    put(&node, "a=1".to_owned());
    node.storage().checkpoint().unwrap();
    node.stop();
    drop(node);
    let length = disk.read_file("/node/state").unwrap().len();
    for offset in 0..length as u64 {
        for bit in [0, 3, 7] {
            disk.flip("/node/state", offset, 1 << bit).unwrap();
            let error = open(&disk).err().unwrap_or_else(|| panic!("byte {offset} is not checked"));
            let known = matches!(
                error,
                StorageError::CrcMismatch { .. }
                    | StorageError::CorruptRecord { .. }
                    | StorageError::UnsupportedVersion { .. }
            );
            assert!(known, "byte {offset}: {error}");
            disk.flip("/node/state", offset, 1 << bit).unwrap();
        }
    }
    for bytes in 0..length as u64 {
        let cut = disk.crash_image(Crash::KeepAll);
        cut.resize("/node/state", bytes).unwrap();
        open(&cut).err().unwrap_or_else(|| panic!("cut at {bytes}"));
    }
    open(&disk).unwrap();
}
