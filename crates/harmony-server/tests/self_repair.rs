//! A member whose tree was damaged while it was down heals from the others without an operator, on real processes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;
mod program;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use harmony_server::proto::etcdserverpb as pb;
use harmony_testkit::wait::{PATIENCE, until};
use harmony_testkit::{Client, Ledger, ProcessCluster, ProcessNode, TestError};
use harmony_types::{NodeId, TestCluster};
use kit::GrpcClient;
use pb::alarm_request::AlarmAction;
use tonic::Code;

const PAGE: u64 = 4096;
/// A byte of the page with the tree's own header.
const HEADER: u64 = 2 * PAGE + 100;

/// Flips one bit of a file.
fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

/// Members with the CORRUPT alarm, as this one knows them.
fn alarms(client: &GrpcClient) -> Result<Vec<u64>, TestError> {
    let request = pb::AlarmRequest { action: AlarmAction::Get as i32, ..Default::default() };
    let listed = client.maintenance(async |maintenance| maintenance.alarm(request).await)?;
    let is_corrupt = |alarm: &&pb::AlarmMember| alarm.alarm == pb::AlarmType::Corrupt as i32;
    Ok(listed.alarms.iter().filter(is_corrupt).map(|alarm| alarm.member_id).collect())
}

/// A member that runs or not.
fn member(cluster: &ProcessCluster, id: NodeId) -> &ProcessNode {
    cluster.nodes().find(|node| node.id() == id).unwrap()
}

fn client(cluster: &ProcessCluster, id: NodeId) -> GrpcClient {
    GrpcClient::new(&member(cluster, id).endpoint()).unwrap()
}

/// `etcdctl endpoint health` of one member; `None` without `etcdctl` in the path.
fn is_healthy(cluster: &ProcessCluster, id: NodeId) -> Option<bool> {
    std::process::Command::new("etcdctl").arg("version").output().ok()?;
    let endpoints = format!("--endpoints={}", member(cluster, id).endpoint());
    Some(program::run("etcdctl", [endpoints.as_str(), "endpoint", "health"], "").code == Some(0))
}

/// Damages a page of a member that is down, one that it can do without to start, and starts it.
fn start_on_a_damaged_page(cluster: &mut ProcessCluster, hurt: NodeId) {
    let dir = member(cluster, hurt).data_dir();
    let tree = dir.join("member/tree/tree.redb");
    let pages = tree.metadata().unwrap().len() / PAGE;
    for page in 1..pages {
        let offset = page * PAGE + 1_000;
        flip(&tree, offset);
        let check = program::run(kit::HARMONY, ["db", "check", dir.to_str().unwrap()], "");
        if check.code != Some(0) {
            let before = member(cluster, hurt).log().len();
            cluster.spawn_node(hurt).unwrap();
            let found = until("it starts or not, and finds the damage", PATIENCE, || {
                match alarms(&client(cluster, hurt)) {
                    Ok(corrupt) if corrupt == [hurt.get()] => Ok(true),
                    _ if member(cluster, hurt).log()[before..].contains("was left as it is") => Ok(false),
                    other => Err(format!("{other:?}").into()),
                }
            });
            if found.unwrap() {
                return;
            }
            // It needs this one to start.
            cluster.wait_until_ended(hurt).unwrap();
        }
        flip(&tree, offset);
    }
    panic!("no page of {pages} is used, and not needed to start");
}

#[test]
fn a_member_with_a_damaged_page_raises_corrupt_serves_nobody_and_heals_by_itself() {
    let (mut cluster, ledger) = (kit::started(3), Ledger::new());
    let leader = cluster.leader().unwrap();
    let hurt = cluster.other(leader).id();
    let value = "v".repeat(1_000);
    for number in 0..400 {
        cluster
            .node(leader)
            .unwrap()
            .client()
            .put(format!("key {number}").as_bytes(), value.as_bytes())
            .unwrap();
    }
    cluster.check_agreement().unwrap();
    // It closes in order, so that all of it is in the tree.
    cluster.terminate_node(hurt).unwrap();
    // Nobody answers it: what it does until then can be looked at.
    let others: Vec<NodeId> = cluster.node_ids().into_iter().filter(|id| *id != hurt).collect();
    others.iter().for_each(|id| cluster.pause_node(*id).unwrap());
    start_on_a_damaged_page(&mut cluster, hurt);

    let alone = client(&cluster, hurt);
    let refused = alone.get_serializable(b"key 7").unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::DataLoss, "etcdserver: corrupt cluster"));
    assert!(alone.put(b"k", b"v").is_err());
    assert_ne!(is_healthy(&cluster, hurt), Some(true));

    others.iter().for_each(|id| cluster.resume_node(*id).unwrap());
    until("the alarm ends", PATIENCE, || match alarms(&alone)? {
        corrupt if corrupt.is_empty() => Ok(()),
        corrupt => Err(format!("{corrupt:?}").into()),
    })
    .unwrap();
    assert!(member(&cluster, hurt).log().contains("this member serves again"));
    until("it serves", PATIENCE, || if ledger.write_one(&alone)? { Ok(()) } else { Err("refused".into()) })
        .unwrap();
    assert_eq!(alone.get_serializable(b"key 7").unwrap().unwrap().value, value);
    cluster.check_agreement().unwrap();
    for node in cluster.running() {
        ledger.check(node.client()).unwrap();
        // The leader hears of the repair with the next beat.
        let client = client(&cluster, node.id());
        until("no alarm", PATIENCE, || match alarms(&client)? {
            corrupt if corrupt.is_empty() => Ok(()),
            corrupt => Err(format!("{corrupt:?}").into()),
        })
        .unwrap();
        assert_ne!(is_healthy(&cluster, node.id()), Some(false));
    }
    // What took the tree's place is whole.
    cluster.terminate_node(hurt).unwrap();
    let dir = member(&cluster, hurt).data_dir();
    program::run(kit::HARMONY, ["db", "check", dir.to_str().unwrap()], "").succeeds();
    cluster.restart_node(hurt).unwrap();
    cluster.check_agreement().unwrap();
}

/// Segments of a member's log, the oldest first.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(dir.join("member/wal")).unwrap().map(|file| file.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|ending| ending == "wal"));
    found.sort();
    found
}

/// The middle of what was written to a log.
fn middle_of(segment: &Path) -> u64 {
    let bytes = fs::read(segment).unwrap();
    (bytes.iter().rposition(|byte| *byte != 0).unwrap() / 2) as u64
}

#[test]
fn a_member_whose_tree_and_log_were_damaged_while_it_was_down_starts_and_heals_by_itself() {
    let (mut cluster, ledger) = (kit::started(3), Ledger::new());
    let leader = cluster.leader().unwrap();
    let hurt = cluster.other(leader).id();
    let write = |cluster: &ProcessCluster, count: usize| {
        for _ in 0..count {
            assert!(ledger.write_one(cluster.node(leader).unwrap().client()).unwrap());
        }
    };
    let damages: [&dyn Fn(&Path); 3] = [
        &|dir| flip(&dir.join("member/tree/tree.redb"), HEADER),
        &|dir| {
            let segment = segments(dir).pop().unwrap();
            flip(&segment, middle_of(&segment));
        },
        &|dir| {
            flip(&dir.join("member/tree/tree.redb"), HEADER);
            let segment = segments(dir).pop().unwrap();
            flip(&segment, middle_of(&segment));
        },
    ];
    for damage in damages {
        write(&cluster, 100);
        cluster.check_agreement().unwrap();
        cluster.kill_node(hurt).unwrap();
        let dir = member(&cluster, hurt).data_dir();
        damage(&dir);
        cluster.restart_node(hurt).unwrap();
        let alone = client(&cluster, hurt);
        until("no alarm", PATIENCE, || match alarms(&alone)? {
            corrupt if corrupt.is_empty() => Ok(()),
            corrupt => Err(format!("{corrupt:?}").into()),
        })
        .unwrap();
        let serves = || if ledger.write_one(&alone)? { Ok(()) } else { Err("refused".into()) };
        until("it serves", PATIENCE, serves).unwrap();
        cluster.check_agreement().unwrap();
        ledger.check(&alone).unwrap();
        cluster.terminate_node(hurt).unwrap();
        program::run(kit::HARMONY, ["db", "check", dir.to_str().unwrap()], "").succeeds();
        cluster.restart_node(hurt).unwrap();
    }
    cluster.check_agreement().unwrap();
    cluster.running().for_each(|node| ledger.check(node.client()).unwrap());
}
