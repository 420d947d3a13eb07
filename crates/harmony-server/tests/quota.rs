//! A quota that is used up, on a cluster of processes: puts are refused for certain, what makes room is not, and the alarm goes by itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use harmony_server::proto::etcdserverpb as pb;
use harmony_testkit::wait::{PATIENCE, until};
use harmony_testkit::{Ledger, ProcessCluster, ProcessNode, TestError};
use harmony_types::{Revision, TestCluster};
use kit::GrpcClient;
use tonic::Code;

const QUOTA_BYTES: &str = "200000";
const VALUE: [u8; 1_000] = [b'x'; 1_000];

/// What became of one put; `None`: it was refused for want of space.
type Puts = BTreeMap<String, Option<Revision>>;

fn put(client: &GrpcClient, key: &str, lease: i64) -> Result<Revision, tonic::Status> {
    let (key, value) = (key.as_bytes().to_vec().into(), VALUE.to_vec().into());
    let request = pb::PutRequest { key, value, lease, ..Default::default() };
    let header = client.kv(async |kv| kv.put(request).await)?.header.unwrap();
    Ok(Revision(u64::try_from(header.revision).unwrap()))
}

#[track_caller]
fn check_refused(status: &tonic::Status) {
    let refusal = (status.code(), status.message());
    assert_eq!(refusal, (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"));
}

/// Puts until some are refused.
fn fill(endpoint: &str, name: &str, lease: i64) -> Puts {
    let client = GrpcClient::new(endpoint).unwrap();
    let mut puts = Puts::new();
    let mut refused = 0;
    while refused < 5 {
        let key = format!("{name}/{:04}", puts.len());
        let outcome = match put(&client, &key, lease) {
            Ok(revision) => Some(revision),
            Err(status) => {
                check_refused(&status);
                refused += 1;
                None
            }
        };
        puts.insert(key, outcome);
        assert!(puts.len() < 1_000, "the quota is never used up");
    }
    puts
}

/// Each member has the puts that were acknowledged, and no other.
fn check_puts(cluster: &ProcessCluster, puts: &Puts) {
    let acknowledged: BTreeMap<String, Revision> =
        puts.iter().filter_map(|(key, outcome)| Some((key.clone(), (*outcome)?))).collect();
    for node in cluster.running() {
        let client = GrpcClient::new(&node.endpoint()).unwrap();
        let all = pb::RangeRequest { key: "w".into(), range_end: "x".into(), ..Default::default() };
        let rows = client.kv(async |kv| kv.range(all).await).unwrap().kvs;
        let found: BTreeMap<String, Revision> = rows
            .into_iter()
            .map(|kv| {
                let key = String::from_utf8(kv.key.to_vec()).unwrap();
                (key, Revision(u64::try_from(kv.mod_revision).unwrap()))
            })
            .collect();
        assert_eq!(found, acknowledged);
    }
}

fn is_alarmed(endpoint: &str) -> Result<bool, TestError> {
    let client = GrpcClient::new(endpoint)?;
    let alarms = client.maintenance(async |it| it.alarm(pb::AlarmRequest::default()).await)?.alarms;
    Ok(alarms.iter().any(|one| one.alarm == i32::from(pb::AlarmType::Nospace)))
}

fn wait_for_alarm(endpoints: &[String], expected: bool) {
    for endpoint in endpoints {
        until("the alarm", PATIENCE, || match is_alarmed(endpoint)? == expected {
            true => Ok(()),
            false => Err(format!("raised: {}", !expected).into()),
        })
        .unwrap();
    }
}

#[test]
fn a_quota_that_is_used_up_refuses_puts_for_certain_and_clears_itself() {
    let mut cluster = kit::cluster_with(&["--quota-backend-bytes", QUOTA_BYTES], &Arc::default());
    cluster.start(3).unwrap();
    let ledger = Ledger::new();
    let endpoints: Vec<String> = cluster.nodes().map(ProcessNode::endpoint).collect();
    let leader = cluster.leader().unwrap();
    kit::write(&cluster, &ledger, leader);
    let client = GrpcClient::new(&endpoints[0]).unwrap();
    let grant = pb::LeaseGrantRequest { ttl: 600, id: 7 };
    client.lease(async |it| it.lease_grant(grant).await).unwrap();

    // Through all members at once: each decides by what it has applied, and one of them is the first to raise the alarm.
    let puts: Puts = thread::scope(|scope| {
        let writers: Vec<_> = endpoints
            .iter()
            .enumerate()
            .map(|(number, endpoint)| {
                scope.spawn(move || fill(endpoint, &format!("w{number}"), if number == 0 { 7 } else { 0 }))
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    wait_for_alarm(&endpoints, true);
    assert!(100 < puts.values().flatten().count());
    check_puts(&cluster, &puts);

    // The alarm outlives its leader.
    cluster.kill_node(leader).unwrap();
    let other = cluster.other(leader).endpoint();
    until("the others refuse", PATIENCE, || match put(&GrpcClient::new(&other)?, "late", 0) {
        Err(status) if status.code() == Code::ResourceExhausted => Ok(()),
        other => Err(format!("{other:?}").into()),
    })
    .unwrap();
    cluster.restart_node(leader).unwrap();
    check_puts(&cluster, &puts);

    // What makes room is taken by whoever is asked.
    let clients: Vec<_> = endpoints.iter().map(|endpoint| GrpcClient::new(endpoint).unwrap()).collect();
    clients[0].lease(async |it| it.lease_revoke(pb::LeaseRevokeRequest { id: 7 }).await).unwrap();
    let all = pb::DeleteRangeRequest { key: "w1".into(), range_end: "w2".into(), ..Default::default() };
    let deleted = clients[1].kv(async |kv| kv.delete_range(all).await).unwrap();
    assert!(0 < deleted.deleted);
    let revision = deleted.header.unwrap().revision;
    let compact = pb::CompactionRequest { revision, physical: true };
    clients[2].kv(async |kv| kv.compact(compact).await).unwrap();
    wait_for_alarm(&endpoints, false);
    for (number, client) in clients.iter().enumerate() {
        put(client, &format!("again/{number}"), 0).unwrap();
    }
    let left = puts.into_iter().map(|(key, outcome)| {
        let is_gone = key.starts_with("w0") || key.starts_with("w1");
        (key, if is_gone { None } else { outcome })
    });
    check_puts(&cluster, &left.collect());
    kit::check(&cluster, &ledger);
}
