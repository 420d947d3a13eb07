//! Disks of single members that hang, are emptied, or go back in time, on real processes.
//!
//! A disk that hangs is a file system of its own, in a file, that is frozen (`fsfreeze`): every write and sync waits in the kernel.
//! For it the test must be root; otherwise it says so and is skipped.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harmony_testkit::wait::{PATIENCE, until};
use harmony_testkit::{Ledger, ProcessCluster, ProcessConfig};
use harmony_types::{NodeId, TestCluster, TestNode};

fn runs(program: &str, args: &[&str], path: &Path) -> bool {
    Command::new(program).args(args).arg(path).output().is_ok_and(|output| output.status.success())
}

fn copy(from: &Path, to: &Path) {
    assert!(
        runs("cp", &["-a", "-T", from.to_str().unwrap()], to),
        "copy {} to {}",
        from.display(),
        to.display()
    );
}

/// A file system of its own below a directory. Thawed and gone when dropped: a frozen process cannot even be killed, so it is
/// declared behind its cluster.
struct Disk {
    _image: tempfile::NamedTempFile,
    dir: PathBuf,
}

impl Disk {
    /// `None` where the system does not let this process mount.
    fn below(dir: &Path) -> Option<Self> {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(192 << 20).unwrap();
        let image_path = image.path().to_str().unwrap();
        (runs("mkfs.ext4", &["-q", "-F"], image.path()) && runs("mount", &["-o", "loop", image_path], dir))
            .then(|| Self { _image: image, dir: dir.to_owned() })
    }

    fn freeze(&self) {
        assert!(runs("fsfreeze", &["-f"], &self.dir));
    }

    fn thaw(&self) {
        assert!(runs("fsfreeze", &["-u"], &self.dir));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It is thawed already when the test went well.
        let _thawed = runs("fsfreeze", &["-u"], &self.dir);
        let _ended = runs("umount", &["-l"], &self.dir);
    }
}

/// Three members whose logs are small files.
fn started() -> ProcessCluster {
    let extra_args = vec!["--wal-segment-bytes".to_owned(), "1048576".to_owned()];
    let config = ProcessConfig { extra_args, ..ProcessConfig::new(kit::HARMONY) };
    let mut cluster =
        ProcessCluster::new(config, |endpoint| Ok(Box::new(kit::GrpcClient::new(endpoint)?))).unwrap();
    cluster.start(3).unwrap();
    cluster
}

/// Moves the data of a member to a disk of its own.
fn on_its_own_disk(cluster: &mut ProcessCluster, id: NodeId) -> Option<Disk> {
    let dir = cluster.node(id).unwrap().data_dir();
    cluster.kill_node(id).unwrap();
    let aside = dir.with_extension("aside");
    fs::rename(&dir, &aside).unwrap();
    fs::create_dir(&dir).unwrap();
    let disk = Disk::below(&dir)?;
    copy(&aside, &dir);
    cluster.restart_node(id).unwrap();
    Some(disk)
}

fn check(cluster: &ProcessCluster, ledger: &Ledger) {
    cluster.check_agreement().unwrap();
    for node in cluster.running() {
        ledger.check(node.client()).unwrap();
    }
}

fn write(cluster: &ProcessCluster, ledger: &Ledger, through: NodeId) {
    until("a put is acknowledged", PATIENCE, || {
        match ledger.write_one(cluster.node(through).ok_or("it runs")?.client())? {
            true => Ok(()),
            false => Err("refused".into()),
        }
    })
    .unwrap();
}

#[test]
fn a_disk_that_hangs_costs_a_follower_nothing_but_time_and_a_leader_its_leadership() {
    let (mut cluster, ledger) = (started(), Ledger::new());
    let id = cluster.other(cluster.leader().unwrap()).id();
    let Some(disk) = on_its_own_disk(&mut cluster, id) else {
        println!("skipped: this process may not mount a file system");
        return;
    };
    let leader = cluster.leader().unwrap();
    assert_ne!(leader, id);
    let term = cluster.node(leader).unwrap().term();

    disk.freeze();
    for _ in 0..200 {
        assert!(ledger.write_one(cluster.node(leader).unwrap().client()).unwrap());
    }
    assert_eq!(cluster.node(leader).unwrap().term(), term, "a follower's disk costs no election");
    disk.thaw();
    check(&cluster, &ledger);

    // Now it leads: the others are asked to let it by being stopped, one after the other.
    while cluster.leader().unwrap() != id {
        let leader = cluster.leader().unwrap();
        cluster.terminate_node(leader).unwrap();
        cluster.leader().unwrap();
        cluster.restart_node(leader).unwrap();
    }
    let other = cluster.other(id).id();
    disk.freeze();
    until("another leader", PATIENCE, || {
        ledger.write_one(cluster.node(other).ok_or("it runs")?.client())?;
        match cluster.node(other).ok_or("it runs")?.client().status()?.leader {
            Some(leader) if leader != id => Ok(()),
            leader => Err(format!("the leader is {leader:?}").into()),
        }
    })
    .unwrap();
    for _ in 0..20 {
        write(&cluster, &ledger, other);
    }
    disk.thaw();
    check(&cluster, &ledger);
}

#[test]
fn a_member_whose_directory_was_emptied_or_is_an_older_copy_is_refused_and_the_others_go_on() {
    for emptied in [true, false] {
        let (mut cluster, ledger) = (started(), Ledger::new());
        let leader = cluster.leader().unwrap();
        write(&cluster, &ledger, leader);
        cluster.check_agreement().unwrap();
        let id = cluster.other(leader).id();
        let dir = cluster.node(id).unwrap().data_dir();
        let older = dir.with_extension("older");
        cluster.kill_node(id).unwrap();
        copy(&dir, &older);
        cluster.restart_node(id).unwrap();
        for _ in 0..50 {
            write(&cluster, &ledger, leader);
        }
        cluster.check_agreement().unwrap();
        cluster.kill_node(id).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        if !emptied {
            copy(&older, &dir);
        }
        cluster.spawn_node(id).unwrap();
        let ended = cluster.wait_until_ended(id).unwrap();
        assert_eq!(ended.code(), Some(1));
        let log = cluster.nodes().find(|node| node.id() == id).unwrap().log();
        // Whoever speaks first: a peer at the greeting, or the leader's own messages.
        let told = ["had acknowledged index", "the leader knows that this member held it"];
        assert!(told.iter().any(|told| log.contains(told)), "emptied: {emptied}\n{log}");
        assert!(log.contains("add it a"), "emptied: {emptied}\n{log}");
        write(&cluster, &ledger, leader);
        check(&cluster, &ledger);
    }
}
