//! What a node does while nobody asks it for anything.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/cluster.rs"]
mod support;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use harmony_node::{MemoryNetwork, Node, SystemClock, Witness};
use harmony_storage::{StorageConfig, UnifiedStorage};
use harmony_types::command::Compact;
use harmony_types::config::NodeConfig;
use harmony_types::fake::fs::{Crash, MemoryFileSystem};
use harmony_types::txn::Put;
use harmony_types::{Clock, ClusterId, Command, CommandKind, Member, Membership, Role, Storage as _};
use support::{PATIENCE, id, wait_for};

/// One checkpoint reads so much of what it drops, and no more.
const STEP_BYTES: usize = 16 << 20;

#[test]
fn history_that_was_compacted_goes_without_another_write() {
    let files = Arc::new(MemoryFileSystem::with_dir("/"));
    let config = StorageConfig { tree_cache_bytes: 1 << 20, ..StorageConfig::default() };
    let (wal, tree) = (Path::new("/wal"), Path::new("/tree"));
    let storage = UnifiedStorage::open(Arc::clone(&files) as _, wal, tree, config).unwrap();
    let alone = Member {
        id: id(1),
        name: "n1".to_owned(),
        peer_urls: vec!["http://n1:1".to_owned()],
        client_urls: Vec::new(),
        role: Role::Voter,
    };
    storage.bootstrap(&Membership::from_members([alone])).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let config = NodeConfig { checkpoint_interval_ms: 20, ..NodeConfig::new(id(1), ClusterId(7)) };
    let witness = Witness::open(Arc::clone(&files) as _, "/node").unwrap();
    let transport = MemoryNetwork::new().transport(id(1));
    let node = Node::start_with(config, Arc::new(storage), transport as _, clock, witness).unwrap();
    let run = |kind: CommandKind| {
        node.propose_blocking(Command::from(kind).encode_to_bytes(), PATIENCE).unwrap();
    };
    let value = Bytes::from(vec![b'v'; 1 << 20]);
    // Each event holds the value before, too.
    let writes = STEP_BYTES / value.len();
    for _ in 0..writes {
        run(CommandKind::Put(Put { key: "k".into(), value: value.clone(), ..Put::default() }));
    }
    // A checkpoint that writes much may drop as much again.
    node.storage().checkpoint().unwrap();
    let newest = i64::try_from(writes).unwrap() + 1;
    run(CommandKind::Compact(Compact { revision: newest }));
    let events = || harmony_storage::stats(&files.crash_image(Crash::KeepAll), tree).unwrap().events;
    wait_for("the end of the compaction", || events() == 1);
    node.stop();
}
