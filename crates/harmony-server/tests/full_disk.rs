//! A real file system that fills up under the program: puts are refused in etcd's words, everything else goes on, nothing that was
//! acknowledged is lost, and puts work again when there is room.
//!
//! The file system is a small tmpfs, for which the test must be root; otherwise it says so and is skipped.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod disks;
mod kit;
mod process;

use std::fs;

use disks::Disk;
use harmony_server::proto::etcdserverpb as pb;
use harmony_testkit::Client;
use harmony_testkit::wait::{PATIENCE, until};
use kit::GrpcClient;
use process::Running;
use rustix::process::Signal;
use tonic::Code;

const SEGMENTS: [&str; 2] = ["--wal-segment-bytes", "1048576"];
const VALUE_BYTES: usize = 64 << 10;
const DISK_BYTES: u64 = 160 << 20;

fn key(number: usize) -> Vec<u8> {
    format!("key {number:06}").into_bytes()
}

fn value(number: usize) -> Vec<u8> {
    format!("{number:08}").repeat(VALUE_BYTES / 8).into_bytes()
}

fn put(client: &GrpcClient, number: usize) -> Result<(), tonic::Status> {
    let request =
        pb::PutRequest { key: key(number).into(), value: value(number).into(), ..Default::default() };
    client.kv(async |kv| kv.put(request).await).map(drop)
}

/// Puts until one is refused. Returns how many were acknowledged before. One put may be in the log when it shows that the tree has
/// no room for it: it waits, and its outcome is unknown until there is room. It is put again.
fn put_until_refused(client: &GrpcClient, first: usize) -> usize {
    let (mut number, mut waited) = (first, 0);
    while number < first + 5_000 {
        match put(client, number) {
            Ok(()) => number += 1,
            Err(status) if status.code() == Code::Unavailable && waited == 0 => waited += 1,
            Err(status) => {
                let refusal = (status.code(), status.message());
                assert_eq!(refusal, (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"));
                return number;
            }
        }
    }
    panic!("the disk never fills");
}

fn has_all(client: &GrpcClient, range: std::ops::Range<usize>) {
    for number in range {
        let found = until("a read", PATIENCE, || client.get(&key(number))).unwrap();
        assert!(found.expect("an acknowledged put").value == value(number), "put {number}");
    }
}

fn alarms(client: &GrpcClient) -> Vec<i32> {
    let alarms = client.maintenance(async |it| it.alarm(pb::AlarmRequest::default()).await).unwrap();
    alarms.alarms.iter().map(|one| one.alarm).collect()
}

#[test]
fn a_disk_that_is_full_refuses_puts_and_nothing_else_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::in_memory(dir.path(), DISK_BYTES) else {
        println!("skipped: this process may not mount a file system");
        return;
    };
    let running = Running::start(disk.path(), &SEGMENTS);
    let client = GrpcClient::new(&running.address).unwrap();
    until("the first put", PATIENCE, || Ok(put(&client, 0)?)).unwrap();
    assert!(alarms(&client).is_empty());
    let ballast = disk.fill(12 << 20);
    let acknowledged = put_until_refused(&client, 1);
    assert!(10 < acknowledged, "{acknowledged}");

    // Reads go on, and whoever asks is told.
    has_all(&client, 0..acknowledged);
    assert!(client.get_serializable(&key(0)).unwrap().is_some());
    assert_eq!(alarms(&client), [i32::from(pb::AlarmType::Nospace)]);
    let status = client.maintenance(async |it| it.status(pb::StatusRequest {}).await).unwrap();
    assert!(status.errors.iter().any(|error| error.contains("alarm:NOSPACE")), "{:?}", status.errors);
    // So does what frees space.
    let revision = client.delete(&key(0)).unwrap();
    let compact = pb::CompactionRequest { revision: revision.as_i64(), physical: false };
    client.kv(async |kv| kv.compact(compact).await).unwrap();
    client.delete(&key(1)).unwrap();

    // Killed and started on the full disk, it serves all of it.
    assert_eq!(running.signal(Signal::KILL).0, None);
    let running = Running::start(disk.path(), &SEGMENTS);
    let client = GrpcClient::new(&running.address).unwrap();
    has_all(&client, 2..acknowledged);
    assert!(client.get(&key(1)).unwrap().is_none());
    let acknowledged = put_until_refused(&client, acknowledged);

    // Space comes back, and nobody does anything.
    fs::remove_file(ballast).unwrap();
    until("a put", PATIENCE, || Ok(put(&client, acknowledged)?)).unwrap();
    for number in acknowledged..acknowledged + 100 {
        put(&client, number).unwrap();
    }
    until(
        "no alarm",
        PATIENCE,
        || if alarms(&client).is_empty() { Ok(()) } else { Err("it is raised".into()) },
    )
    .unwrap();
    assert_eq!(running.signal(Signal::KILL).0, None);
    let running = Running::start(disk.path(), &SEGMENTS);
    let client = GrpcClient::new(&running.address).unwrap();
    has_all(&client, 2..acknowledged + 100);
    assert_eq!(running.signal(Signal::TERM).0, Some(0));
}

#[test]
fn a_member_on_a_full_disk_stops_in_order_and_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::in_memory(dir.path(), DISK_BYTES) else {
        println!("skipped: this process may not mount a file system");
        return;
    };
    let running = Running::start(disk.path(), &SEGMENTS);
    let client = GrpcClient::new(&running.address).unwrap();
    until("the first put", PATIENCE, || Ok(put(&client, 0)?)).unwrap();
    disk.fill(12 << 20);
    let acknowledged = put_until_refused(&client, 1);
    disk.fill_the_rest();
    let (code, log) = running.signal(Signal::TERM);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("the disk is nearly full: commands that need space are refused"), "{log}");
    assert!(log.contains("closed without a last checkpoint"), "{log}");
    let running = Running::start(disk.path(), &SEGMENTS);
    let client = GrpcClient::new(&running.address).unwrap();
    has_all(&client, 0..acknowledged);
    assert_eq!(running.signal(Signal::TERM).0, Some(0));
}
