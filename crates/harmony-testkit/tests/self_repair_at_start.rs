//! A member that finds damage when it starts keeps what it had promised, serves nobody, and takes the others' state.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use harmony_storage::UnifiedStorage;
use harmony_testkit::wait::{PATIENCE, until};
use harmony_testkit::{Client, InProcessCluster, Ledger};
use harmony_types::config::{Identity, StorageConfig, WalConfig};
use harmony_types::fake::fs::{CallKind, Crash, Fault, MemoryFileSystem};
use harmony_types::{
    ClusterId, FileSystem, HardState, LogIndex, Member, Membership, NodeError, NodeId, Role, Storage,
    StorageError, TestCluster,
};

const TREE_DIR: &str = "/data/tree";
const TREE: &str = "/data/tree/tree.redb";
const WAL_DIR: &str = "/data/wal";
const PAGE: u64 = 4096;
/// A byte of the page with redb's header.
const HEADER: u64 = 2 * PAGE + 100;

const CALL_TIMEOUT: Duration = Duration::from_secs(5);

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    until(what, PATIENCE, || if condition() { Ok(()) } else { Err("not yet".into()) }).unwrap();
}

/// Three members that acknowledged something and have all of it in their trees but the last puts; one of them, a follower,
/// does not run any more.
fn three_and_one_down() -> (InProcessCluster, Ledger, NodeId) {
    let (mut cluster, ledger) = (InProcessCluster::with_crash(Crash::KeepAll), Ledger::new());
    cluster.start(3).unwrap();
    let leader = cluster.leader().unwrap();
    let hurt = cluster.node_ids().into_iter().find(|id| *id != leader).unwrap();
    write(&cluster, &ledger, 12);
    cluster.check_agreement().unwrap();
    cluster.node(hurt).unwrap().node().storage().checkpoint().unwrap();
    write(&cluster, &ledger, 12);
    cluster.check_agreement().unwrap();
    cluster.kill_node(hurt).unwrap();
    (cluster, ledger, hurt)
}

fn write(cluster: &InProcessCluster, ledger: &Ledger, count: usize) {
    let leader = cluster.leader().unwrap();
    for _ in 0..count {
        until("a put", PATIENCE, || match ledger.write_one(cluster.node(leader).unwrap())? {
            true => Ok(()),
            false => Err("refused".into()),
        })
        .unwrap();
    }
}

fn is_corrupt(cluster: &InProcessCluster, id: NodeId) -> bool {
    cluster.node(id).unwrap().node().metrics().corrupt.get() != 0
}

/// All members are as one, have what was acknowledged, and take more.
fn check_healed(cluster: &mut InProcessCluster, ledger: &Ledger, hurt: NodeId, what: &str) {
    wait_for(what, || !is_corrupt(cluster, hurt));
    let node = cluster.node(hurt).unwrap();
    wait_for(what, || ledger.write_one(node).is_ok_and(|written| written));
    cluster.check_agreement().unwrap();
    for node in cluster.running() {
        assert_eq!(node.node().failure(), None, "{what}");
        ledger.check(node).unwrap();
    }
    // And it stays so.
    cluster.kill_node(hurt).unwrap();
    cluster.restart_node(hurt).unwrap();
    wait_for(what, || !is_corrupt(cluster, hurt));
    cluster.check_agreement().unwrap();
    assert_eq!(cluster.node(hurt).unwrap().node().metrics().repairs.get(), 0, "{what}");
}

fn set_aside(disk: &MemoryFileSystem) -> Vec<PathBuf> {
    let mut names = disk.list_dir(Path::new(TREE_DIR)).unwrap();
    names.retain(|name| name.to_string_lossy().contains("damaged-"));
    names
}

fn segments(disk: &MemoryFileSystem) -> Vec<PathBuf> {
    let mut names = disk.list_dir(Path::new(WAL_DIR)).unwrap();
    names.retain(|name| name.extension().is_some_and(|ending| ending == "wal"));
    names.sort();
    names.into_iter().map(|name| Path::new(WAL_DIR).join(name)).collect()
}

/// Bytes of a log's segment that were written.
fn written(disk: &MemoryFileSystem, path: &Path) -> usize {
    let bytes = disk.read_file(path).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

#[test]
fn damage_of_any_page_of_the_tree_heals_at_the_start_or_later() {
    let (mut cluster, ledger, hurt) = three_and_one_down();
    let image = cluster.disk(hurt).unwrap().crash_image(Crash::KeepAll);
    let pages = image.read_file(TREE).unwrap().len() as u64 / PAGE;
    for page in 0..pages {
        cluster.disk(hurt).unwrap().flip(TREE, page * PAGE + 1_000, 1).unwrap();
        cluster.restart_node(hurt).unwrap();
        wait_for(&format!("page {page}"), || !is_corrupt(&cluster, hurt));
        cluster.check_agreement().unwrap();
        ledger.check(cluster.node(hurt).unwrap()).unwrap();
        cluster.node(hurt).unwrap().node().storage().checkpoint().unwrap();
        cluster.kill_node(hurt).unwrap();
        if cluster.disk(hurt).unwrap().read_file(TREE).unwrap().len() as u64 <= (page + 1) * PAGE {
            break;
        }
    }
    assert!(!set_aside(cluster.disk(hurt).unwrap()).is_empty(), "no page of {pages} was needed");
    cluster.restart_node(hurt).unwrap();
    check_healed(&mut cluster, &ledger, hurt, "all pages");
}

#[test]
fn a_member_without_a_readable_tree_serves_nobody_and_forgets_nothing_until_it_has_the_others_state() {
    let damages: [&dyn Fn(&MemoryFileSystem); 3] = [
        &|disk| disk.flip(TREE, HEADER, 1).unwrap(),
        &|disk| disk.remove_file(Path::new(TREE)).unwrap(),
        &|disk| disk.resize(TREE, 10_000).unwrap(),
    ];
    for (number, damage) in damages.iter().enumerate() {
        let what = format!("damage {number}");
        let (mut cluster, ledger, hurt) = three_and_one_down();
        let last = cluster.open_storage(hurt).unwrap().bounds().last;
        damage(cluster.disk(hurt).unwrap());
        // The snapshot cannot take its place.
        cluster.partition_node(hurt);
        cluster.restart_node(hurt).unwrap();
        let node = cluster.node(hurt).unwrap().node();
        assert!(is_corrupt(&cluster, hurt) && node.storage().is_lost(), "{what}");
        assert_eq!(node.storage().bounds().last, last, "{what}");
        let refused = node.read_index_blocking(CALL_TIMEOUT).unwrap_err();
        assert!(matches!(refused, NodeError::Corrupt { id } if id == hurt), "{what}: {refused}");
        node.storage().create_snapshot().unwrap_err();
        cluster.unpartition_node(hurt);
        check_healed(&mut cluster, &ledger, hurt, &what);
    }
}

#[test]
fn a_cluster_of_one_is_refused_and_left_as_it_is() {
    let (mut cluster, ledger) = (InProcessCluster::with_crash(Crash::KeepAll), Ledger::new());
    cluster.start(1).unwrap();
    let only = cluster.node_ids()[0];
    write(&cluster, &ledger, 5);
    cluster.kill_node(only).unwrap();
    let segment = segments(cluster.disk(only).unwrap()).remove(0);
    for (path, offset) in [(Path::new(TREE), HEADER), (&*segment, 300)] {
        cluster.disk(only).unwrap().flip(path, offset, 1).unwrap();
        let before = cluster.disk(only).unwrap().files();
        let error = cluster.restart_node(only).unwrap_err().to_string();
        assert!(error.contains(" at byte "), "{error}");
        assert_eq!(cluster.disk(only).unwrap().files(), before);
        cluster.disk(only).unwrap().flip(path, offset, 1).unwrap();
    }
    cluster.restart_node(only).unwrap();
    cluster.leader().unwrap();
    ledger.check(cluster.node(only).unwrap()).unwrap();
}

/// One bit in the middle of the log. What the tree has is not asked of anybody; what it has not, is.
#[test]
fn a_damaged_entry_in_the_log_heals_wherever_it_is() {
    let (mut cluster, ledger, hurt) = three_and_one_down();
    let (mut began_later, mut took_a_snapshot) = (0, 0);
    for part in 1..16 {
        let disk = cluster.disk(hurt).unwrap();
        let segment = segments(disk).pop().unwrap();
        let bytes = written(disk, &segment);
        let offset = (160 + (bytes - 160) * part / 17) as u64;
        let (last, promised) = {
            let storage = cluster.open_storage(hurt).unwrap();
            (storage.bounds().last, storage.hard_state())
        };
        cluster.disk(hurt).unwrap().flip(&segment, offset, 1).unwrap();
        match cluster.open_storage(hurt) {
            // Bytes that nothing depends on.
            Ok(storage) => {
                drop(storage);
                cluster.disk(hurt).unwrap().flip(&segment, offset, 1).unwrap();
                continue;
            }
            Err(error) => assert!(error.to_string().contains("at byte"), "{error}"),
        }
        cluster.partition_node(hurt);
        cluster.restart_node(hurt).unwrap();
        let storage = Arc::clone(cluster.node(hurt).unwrap().node().storage());
        check_promises(&storage, last, promised, &format!("byte {offset} of {bytes}"));
        if storage.is_lost() {
            took_a_snapshot += 1;
        } else {
            began_later += 1;
        }
        cluster.unpartition_node(hurt);
        let what = format!("byte {offset} of {bytes}");
        check_healed(&mut cluster, &ledger, hurt, &what);
        write(&cluster, &ledger, 6);
        cluster.check_agreement().unwrap();
        cluster.node(hurt).unwrap().node().storage().checkpoint().unwrap();
        write(&cluster, &ledger, 12);
        cluster.check_agreement().unwrap();
        cluster.kill_node(hurt).unwrap();
    }
    assert!(0 < began_later && 0 < took_a_snapshot, "{began_later} and {took_a_snapshot}");
}

/// A member holds what it held, and its term and vote are those that it gave.
fn check_promises(storage: &UnifiedStorage, last: LogIndex, promised: HardState, what: &str) {
    let state = storage.hard_state();
    assert_eq!(storage.bounds().last, last, "{what}");
    assert!(promised.term <= state.term, "{what}: {state:?}, promised {promised:?}");
    assert!(
        promised.term != state.term || promised.vote == state.vote,
        "{what}: {state:?}, promised {promised:?}"
    );
}

/// The same committed entry on all members: nothing is skipped, nobody leads, and all say why.
#[test]
fn an_entry_that_is_damaged_on_all_members_stops_the_cluster() {
    let (mut cluster, ledger) = (InProcessCluster::with_crash(Crash::KeepAll), Ledger::new());
    cluster.start(3).unwrap();
    write(&cluster, &ledger, 5);
    let leader = cluster.leader().unwrap();
    Client::put(cluster.node(leader).unwrap(), b"canary", b"all of them lose this").unwrap();
    write(&cluster, &ledger, 5);
    cluster.check_agreement().unwrap();
    for id in cluster.node_ids() {
        cluster.kill_node(id).unwrap();
        let disk = cluster.disk(id).unwrap();
        let segment = segments(disk).pop().unwrap();
        let bytes = disk.read_file(&segment).unwrap();
        let at = bytes.windows(21).position(|window| window == b"all of them lose this").unwrap();
        disk.flip(&segment, at as u64, 1).unwrap();
    }
    for id in cluster.node_ids() {
        cluster.restart_node(id).unwrap();
        assert!(cluster.node(id).unwrap().node().storage().is_lost());
    }
    for id in cluster.node_ids() {
        let node = cluster.node(id).unwrap().node();
        let refused = node.read_index_blocking(CALL_TIMEOUT).unwrap_err();
        assert!(matches!(refused, NodeError::Corrupt { .. }), "{refused}");
        assert_eq!((node.leader(), node.failure()), (None, None));
        assert!(is_corrupt(&cluster, id));
    }
}

fn open_member(disk: &MemoryFileSystem, id: NodeId) -> Result<UnifiedStorage, StorageError> {
    let identity = Identity { cluster: ClusterId(0xc1), node: Some(id) };
    let wal = WalConfig { identity, segment_bytes: 1 << 20, ..WalConfig::default() };
    let config = StorageConfig { wal, tree_cache_bytes: 8 << 20, ..StorageConfig::default() };
    let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
    let member = |number: u64| Member {
        id: NodeId::new(number).unwrap(),
        name: String::new(),
        peer_urls: Vec::new(),
        client_urls: Vec::new(),
        role: Role::Voter,
    };
    let members = || Some(Membership::from_members((1..=3).map(member)));
    UnifiedStorage::open_member(&fs, Path::new(WAL_DIR), Path::new(TREE_DIR), &config, &members)
        .map(|(_, storage)| storage)
}

/// The power goes, or a call fails, at each step: the next start ends where an undisturbed one would have.
#[test]
fn a_crash_at_any_step_of_the_start_changes_nothing() {
    let (cluster, _ledger, hurt) = three_and_one_down();
    let (last, promised) = {
        let storage = cluster.open_storage(hurt).unwrap();
        (storage.bounds().last, storage.hard_state())
    };
    let whole = cluster.disk(hurt).unwrap();
    let segment = segments(whole).pop().unwrap();
    let middle = (written(whole, &segment) * 9 / 10) as u64;
    let damages: [&dyn Fn(&MemoryFileSystem); 3] = [
        &|disk| disk.flip(TREE, HEADER, 1).unwrap(),
        &|disk| disk.flip(&segment, middle, 1).unwrap(),
        &|disk| {
            disk.flip(TREE, HEADER, 1).unwrap();
            disk.flip(&segment, middle, 1).unwrap();
        },
    ];
    for (number, damage) in damages.iter().enumerate() {
        let mut step = 0;
        loop {
            step += 1;
            let what = format!("damage {number}, step {step}");
            let disk = whole.crash_image(Crash::KeepAll);
            damage(&disk);
            disk.inject(Fault::on(CallKind::CHANGING).nth(step).lasting());
            drop(open_member(&disk, hurt));
            let struck = disk.faults_struck();
            let crash = if step % 2 == 0 { Crash::KeepAll } else { Crash::LoseUnsynced };
            let storage =
                open_member(&disk.crash_image(crash), hurt).unwrap_or_else(|error| panic!("{what}: {error}"));
            check_promises(&storage, last, promised, &what);
            let (applied, boundary) = (storage.applied().index, storage.bounds().boundary);
            if number == 1 && !storage.is_lost() {
                // A checkpoint has come in time for what the log lost.
                assert!(boundary <= applied, "{what}");
            } else {
                assert!(storage.is_lost(), "{what}");
                assert_eq!(applied, boundary, "{what}");
            }
            if struck == 0 {
                break;
            }
        }
        assert!(3 < step, "damage {number} took {step} steps");
    }
}

/// The system refuses one read of the tree, whichever it is: the member starts, or the next time; with a state or without.
#[test]
fn a_read_that_the_disk_refuses_at_the_start_is_no_reason_to_stay_away() {
    let (cluster, _ledger, hurt) = three_and_one_down();
    let (last, promised) = {
        let storage = cluster.open_storage(hurt).unwrap();
        (storage.bounds().last, storage.hard_state())
    };
    let whole = cluster.disk(hurt).unwrap();
    let (mut lost, mut later) = (0, 0);
    for read in 1.. {
        let disk = whole.crash_image(Crash::KeepAll);
        disk.inject(Fault::on([CallKind::Read]).on_path("tree.redb").nth(read));
        let opened = open_member(&disk, hurt);
        if disk.faults_struck() == 0 {
            break;
        }
        let what = format!("read {read}");
        let storage = opened.or_else(|_| {
            later += 1;
            open_member(&disk, hurt)
        });
        let storage = storage.unwrap_or_else(|error| panic!("{what}: {error}"));
        check_promises(&storage, last, promised, &what);
        lost += usize::from(storage.is_lost());
    }
    assert!(0 < lost && 0 < later, "{lost} without a state, {later} only the next time");
}
