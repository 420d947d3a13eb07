//! Snapshots to a member that lags, whose sender or receiver is killed on the way, or which arrive beside reads and a defragmentation:
//! whoever looks sees the old state or the new one, and nothing in between.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use harmony_server::proto::etcdserverpb as pb;
use harmony_testkit::wait::{PATIENCE, until};
use harmony_testkit::{Ledger, ProcessCluster, ProcessNode};
use harmony_types::fake::seed::for_each_seed;
use harmony_types::{KeyValue, NodeId, TestCluster, TestNode};
use kit::GrpcClient;

/// Keys of the state, each of which every round writes, in order.
const KEYS: usize = 24;

/// About what a snapshot has behind three rounds: its history is all of them.
fn snapshot_bytes(value_bytes: usize) -> u64 {
    (3 * KEYS * value_bytes) as u64
}

/// Three members that keep next to no log, and send a snapshot in a second or so. After a restart a member may know of two rounds in part,
/// but has every key.
fn started(value_bytes: usize) -> (ProcessCluster, Ledger) {
    let rate = snapshot_bytes(value_bytes).to_string();
    let flags =
        ["--snapshot-catchup-entries", "5", "--wal-segment-bytes", "4096", "--snapshot-send-rate", &rate];
    let mut cluster = kit::cluster_with(&flags, &Arc::default());
    cluster.start(3).unwrap();
    for round in 1..=2 {
        write_round(cluster.running().next().unwrap(), round, value_bytes);
    }
    cluster.check_agreement().unwrap();
    (cluster, Ledger::new())
}

fn write_round(node: &ProcessNode, round: u8, value_bytes: usize) {
    for number in 0..KEYS {
        let key = format!("key {number:02}");
        until("a put", PATIENCE, || node.put(key.as_bytes(), &vec![round; value_bytes])).unwrap();
    }
}

fn everything() -> pb::RangeRequest {
    let (key, range_end) = (Bytes::from_static(b"key "), Bytes::from_static(b"key!"));
    pb::RangeRequest { key, range_end, serializable: true, ..Default::default() }
}

/// Checks that these are the keys at one revision: of two rounds one after the other, the newer one first, in whole values.
fn check_rows(rows: &[KeyValue], value_bytes: usize) {
    assert_eq!(rows.len(), KEYS);
    let rounds: Vec<u8> = rows.iter().map(|row| row.value[0]).collect();
    let (newest, oldest) = (rounds[0], rounds[KEYS - 1]);
    assert!(rounds.is_sorted_by(|a, b| b <= a) && newest - oldest <= 1, "a mix of states: {rounds:?}");
    for row in rows {
        assert_eq!(row.value, vec![row.value[0]; value_bytes], "a torn value");
    }
    for pair in rows.windows(2).filter(|pair| pair[0].value == pair[1].value) {
        assert!(pair[0].mod_revision < pair[1].mod_revision, "a mix of states");
    }
}

/// What a member has by itself is one state, whenever it is asked; it must have one.
fn check_local(node: &ProcessNode, value_bytes: usize) {
    let client = GrpcClient::new(&node.endpoint()).unwrap();
    let read = || Ok(client.kv(async |kv| kv.range(everything()).await)?);
    check_rows(&until("a local read", PATIENCE, read).unwrap().kvs, value_bytes);
}

fn segments(node: &ProcessNode) -> Vec<String> {
    let files = fs::read_dir(node.data_dir().join("member/wal")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".wal")).collect();
    names.sort();
    names
}

/// Writes a round while a member is away, until none of the others has what it would need of the log.
fn leave_behind(cluster: &ProcessCluster, away: NodeId, round: u8, value_bytes: usize) {
    let others = || cluster.running().filter(|node| node.id() != away);
    let newest: Vec<String> = others().map(|node| segments(node).pop().unwrap()).collect();
    write_round(others().next().unwrap(), round, value_bytes);
    until("the log's beginning is given up", PATIENCE, || {
        match others().zip(&newest).find(|(node, newest)| segments(node)[0] <= **newest) {
            None => Ok(()),
            Some((node, _)) => Err(format!("member {} has segments of before", node.id()).into()),
        }
    })
    .unwrap();
}

/// As `unpartition_node`, beside others who use the cluster.
fn heal(cluster: &ProcessCluster, id: NodeId) {
    for peer in cluster.node_ids() {
        cluster.links().heal(id, peer);
        cluster.links().heal(peer, id);
    }
}

fn log(cluster: &ProcessCluster, id: NodeId) -> String {
    cluster.nodes().find(|node| node.id() == id).unwrap().log()
}

/// How often a member has said this.
fn said(cluster: &ProcessCluster, id: NodeId, words: &str) -> usize {
    log(cluster, id).matches(words).count()
}

#[test]
fn a_receiver_that_is_killed_on_the_way_has_the_old_state_or_the_new_one() {
    const VALUE_BYTES: usize = 32 << 10;
    for_each_seed([], 1, |_, rng| {
        let (mut cluster, ledger) = started(VALUE_BYTES);
        let leader = cluster.leader().unwrap();
        let away = cluster.other(leader).id();
        cluster.kill_node(away).unwrap();
        leave_behind(&cluster, away, 3, VALUE_BYTES);
        let whole = snapshot_bytes(VALUE_BYTES);
        for half in 0..3 {
            let (before, received) =
                (cluster.links().passed(leader, away), said(&cluster, away, "snapshot received"));
            cluster.spawn_node(away).unwrap();
            check_local(cluster.node(away).unwrap(), VALUE_BYTES);
            let enough = rng.below(whole / 2) + half * whole / 2;
            until("a part of the snapshot", PATIENCE, || {
                let passed = cluster.links().passed(leader, away) - before;
                // The last time it has arrived, and is being installed, or was just now.
                let is_there = received < said(&cluster, away, "snapshot received");
                if is_there || (half < 2 && enough <= passed) {
                    Ok(())
                } else {
                    Err(format!("{passed}").into())
                }
            })
            .unwrap();
            cluster.kill_node(away).unwrap();
        }
        cluster.spawn_node(away).unwrap();
        check_local(cluster.node(away).unwrap(), VALUE_BYTES);
        cluster.wait_until_serving(away).unwrap();
        kit::write(&cluster, &ledger, away);
        kit::check(&cluster, &ledger);
        check_local(cluster.node(away).unwrap(), VALUE_BYTES);
        assert!(log(&cluster, away).contains("snapshot installed"), "{}", log(&cluster, away));
    });
}

#[test]
fn a_sender_that_is_killed_on_the_way_is_followed_by_another() {
    const VALUE_BYTES: usize = 32 << 10;
    for_each_seed([], 1, |_, rng| {
        let (mut cluster, ledger) = started(VALUE_BYTES);
        let away = cluster.other(cluster.leader().unwrap()).id();
        cluster.kill_node(away).unwrap();
        leave_behind(&cluster, away, 3, VALUE_BYTES);
        cluster.spawn_node(away).unwrap();
        let whole = snapshot_bytes(VALUE_BYTES);
        for _ in 0..2 {
            let sender = until("a leader other than who lags", PATIENCE, || match cluster.leader()? {
                leader if leader != away => Ok(leader),
                _ => Err("it leads".into()),
            })
            .unwrap();
            let (before, enough) = (cluster.links().passed(sender, away), rng.below(whole));
            until("a part of the snapshot", PATIENCE, || {
                let passed = cluster.links().passed(sender, away) - before;
                let is_there = 0 < said(&cluster, away, "snapshot received");
                if is_there || enough <= passed {
                    Ok(())
                } else {
                    Err(format!("{passed} of {enough}").into())
                }
            })
            .unwrap();
            cluster.kill_node(sender).unwrap();
            check_local(cluster.node(away).unwrap(), VALUE_BYTES);
            cluster.restart_node(sender).unwrap();
        }
        kit::write(&cluster, &ledger, away);
        kit::check(&cluster, &ledger);
        check_local(cluster.node(away).unwrap(), VALUE_BYTES);
        assert!(log(&cluster, away).contains("snapshot installed"), "{}", log(&cluster, away));
    });
}

#[test]
fn a_snapshot_that_arrives_beside_a_stream_and_a_defragmentation_mixes_with_neither() {
    const VALUE_BYTES: usize = 128 << 10;
    let (mut cluster, ledger) = started(VALUE_BYTES);
    let away = cluster.other(cluster.leader().unwrap()).id();
    cluster.partition_node(away);
    leave_behind(&cluster, away, 3, VALUE_BYTES);

    // Far more than what is sent ahead of a client that does not read.
    let client = GrpcClient::new(&cluster.node(away).unwrap().endpoint()).unwrap();
    let mut stream = client.kv(async |kv| kv.range_stream(everything()).await).unwrap();
    let mut rows = client.next(&mut stream).unwrap().unwrap().range_response.unwrap().kvs;
    assert!(rows.len() < KEYS);
    let installed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let node = cluster.node(away).unwrap();
        let defragmented = scope.spawn(|| {
            let client = GrpcClient::new(&node.endpoint()).unwrap();
            let mut defragmented = 0;
            while !installed.load(Ordering::Relaxed) {
                // One that the snapshot ends is an error and changes nothing.
                let done = client.maintenance(async |it| it.defragment(pb::DefragmentRequest {}).await);
                defragmented += usize::from(done.is_ok());
                check_local(node, VALUE_BYTES);
            }
            defragmented
        });
        heal(&cluster, away);
        until("the snapshot is installed", PATIENCE, || match node.log().contains("snapshot installed") {
            true => Ok(()),
            false => Err("not yet".into()),
        })
        .unwrap();
        installed.store(true, Ordering::Relaxed);
        assert!(0 < defragmented.join().unwrap(), "it was defragmented");
    });

    let end = loop {
        match client.next(&mut stream) {
            Ok(Some(chunk)) => rows.extend(chunk.range_response.unwrap().kvs),
            Ok(None) => break Ok(()),
            Err(status) => break Err(status),
        }
    };
    match end {
        // It ended on the state that it began with.
        Ok(()) => {
            check_rows(&rows, VALUE_BYTES);
            assert!(rows.iter().all(|row| row.value[0] == 2), "a row of after");
        }
        Err(status) => {
            assert!(rows.iter().all(|row| row.value[0] == 2), "a row of after");
            assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");
        }
    }
    kit::write(&cluster, &ledger, away);
    kit::check(&cluster, &ledger);
    check_local(cluster.node(away).unwrap(), VALUE_BYTES);
}
