//! Locks and elections over gRPC: whose turn it is, and what ends a turn.

use harmony_server::proto::etcdserverpb as pb;
use harmony_server::proto::v3electionpb::election_client::ElectionClient;
use harmony_server::proto::v3electionpb::{
    CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
};
use harmony_server::proto::v3lockpb::lock_client::LockClient;
use harmony_server::proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest};
use pb::lease_client::LeaseClient;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use crate::served::{Served, check_refusal, range};

const NOT_LEADER: &str = "election: not leader";
const MISSING: &str = "\"leader\" field must be provided";

async fn lease(served: &Served, id: i64) {
    let grant = pb::LeaseGrantRequest { id, ttl: 600 };
    LeaseClient::new(served.channel.clone()).lease_grant(grant).await.unwrap();
}

async fn revoke(served: &Served, id: i64) {
    LeaseClient::new(served.channel.clone()).lease_revoke(pb::LeaseRevokeRequest { id }).await.unwrap();
}

fn lock(served: &Served, lease: i64) -> JoinHandle<Result<LockResponse, Status>> {
    let mut locks = LockClient::new(served.channel.clone());
    let request = LockRequest { name: "l".into(), lease };
    tokio::spawn(async move { locks.lock(request).await.map(tonic::Response::into_inner) })
}

/// Returns when the key is there.
async fn until_there(served: &mut Served, key: &str) {
    while served.get(key).await.count == 0 {}
}

#[tokio::test]
async fn a_lock_is_held_in_turn_and_goes_with_its_key_its_lease_or_its_client() {
    let mut served = Served::start("").await;
    for id in [0xa, 0xb, 0xc, 0xd] {
        lease(&served, id).await;
    }
    let held = lock(&served, 0xa).await.unwrap().unwrap();
    assert_eq!(held.key, "l/a");
    let again = lock(&served, 0xa).await.unwrap().unwrap();
    assert_eq!((again.key, again.header.unwrap().revision), (held.key.clone(), 2), "the same lease holds it");
    assert_eq!(served.get("l/a").await.kvs[0].lease, 0xa);

    let mut waiting = Vec::new();
    for (id, key) in [(0xb, "l/b"), (0xc, "l/c"), (0xd, "l/d")] {
        waiting.push(lock(&served, id));
        until_there(&mut served, key).await;
    }
    let [second, third, fourth] = <[_; 3]>::try_from(waiting).unwrap();
    // One that goes away leaves no key, and the one behind it still waits for the holder.
    third.abort();
    while served.get("l/c").await.count == 1 {}
    // One whose lease ends hears of it at once.
    revoke(&served, 0xd).await;
    check_refusal(fourth.await.unwrap(), Code::Unknown, "mutex: session is expired");
    assert!(!second.is_finished());

    let mut locks = LockClient::new(served.channel.clone());
    for _ in 0..2 {
        locks.unlock(UnlockRequest { key: held.key.clone() }).await.expect("also when it is gone");
    }
    assert_eq!(second.await.unwrap().unwrap().key, "l/b");
    revoke(&served, 0xb).await;
    lease(&served, 0xe).await;
    assert_eq!(lock(&served, 0xe).await.unwrap().unwrap().key, "l/e");
    revoke(&served, 0xe).await;

    // Who brings no lease gets one of a minute.
    let own = lock(&served, 0).await.unwrap().unwrap();
    let id = served.get(std::str::from_utf8(&own.key).unwrap()).await.kvs[0].lease;
    assert_eq!(own.key, format!("l/{id:x}"));
    let ask = pb::LeaseTimeToLiveRequest { id, keys: true };
    let left = LeaseClient::new(served.channel.clone()).lease_time_to_live(ask).await.unwrap().into_inner();
    assert_eq!((left.granted_ttl, left.keys), (60, vec![own.key]));
    let unknown = lock(&served, 99).await.unwrap();
    check_refusal(unknown, Code::NotFound, "etcdserver: requested lease not found");
    drop(locks);
    served.stop().await;
}

#[tokio::test]
async fn many_who_wait_for_a_lock_have_it_one_after_the_other_in_the_order_of_their_keys() {
    let mut served = Served::start("").await;
    let mut waiting = Vec::new();
    for id in 1..=20 {
        lease(&served, id).await;
        waiting.push(lock(&served, id));
        until_there(&mut served, &format!("l/{id:x}")).await;
    }
    let mut locks = LockClient::new(served.channel.clone());
    for (id, waiter) in (1..=20).zip(waiting) {
        let held = waiter.await.unwrap().unwrap();
        assert_eq!(held.key, format!("l/{id:x}"));
        locks.unlock(UnlockRequest { key: held.key }).await.unwrap();
    }
    assert_eq!(served.get("l/14").await.header.unwrap().revision, 41, "20 puts, 20 deletes, nothing else");
    drop(locks);
    served.stop().await;
}

fn campaign(id: i64, value: &'static str) -> CampaignRequest {
    CampaignRequest { name: "e".into(), lease: id, value: value.into() }
}

#[tokio::test]
async fn leaders_follow_each_other_and_an_observer_hears_of_each_and_of_all_they_proclaim() {
    let mut served = Served::start("").await;
    for id in [0xa, 0xb] {
        lease(&served, id).await;
    }
    let mut election = ElectionClient::new(served.channel.clone());
    let name = || LeaderRequest { name: "e".into() };
    check_refusal(election.leader(name()).await, Code::Unknown, "election: no leader");
    check_refusal(election.resign(ResignRequest::default()).await, Code::Unknown, MISSING);
    check_refusal(election.proclaim(ProclaimRequest::default()).await, Code::Unknown, MISSING);

    let mut observed = election.observe(name()).await.unwrap().into_inner();
    let first = election.campaign(campaign(0xa, "one")).await.unwrap().into_inner().leader.unwrap();
    assert_eq!(first, LeaderKey { name: "e".into(), key: "e/a".into(), rev: 2, lease: 0xa });
    let kv = observed.message().await.unwrap().unwrap().kv.unwrap();
    assert_eq!((&kv.key[..], &kv.value[..]), (&b"e/a"[..], &b"one"[..]));
    let other = {
        let mut election = election.clone();
        tokio::spawn(async move { election.campaign(campaign(0xb, "two")).await })
    };
    until_there(&mut served, "e/b").await;

    let proclaim = |leader: &LeaderKey, value: &'static str| ProclaimRequest {
        leader: Some(leader.clone()),
        value: value.into(),
    };
    election.proclaim(proclaim(&first, "more")).await.unwrap();
    let told = observed.message().await.unwrap().unwrap();
    assert_eq!((told.header.unwrap().revision, told.kv.unwrap().value), (4, "more".into()));
    // The same lease again: it leads, and its new value counts.
    let again = election.campaign(campaign(0xa, "again")).await.unwrap().into_inner().leader.unwrap();
    assert_eq!(again, first);
    assert_eq!(observed.message().await.unwrap().unwrap().kv.unwrap().value, "again");
    let leader = election.leader(name()).await.unwrap().into_inner().kv.unwrap();
    assert_eq!((leader.value, leader.lease), ("again".into(), 0xa));

    let resign = ResignRequest { leader: Some(first.clone()) };
    election.resign(resign.clone()).await.unwrap();
    let second = other.await.unwrap().unwrap().into_inner().leader.unwrap();
    assert_eq!(second.key, "e/b");
    assert_eq!(observed.message().await.unwrap().unwrap().kv.unwrap().value, "two");
    check_refusal(election.proclaim(proclaim(&first, "late")).await, Code::Unknown, NOT_LEADER);
    check_refusal(election.resign(resign).await, Code::Unknown, NOT_LEADER);
    assert_eq!(served.kv.range(range("e/b")).await.unwrap().into_inner().count, 1, "the other still leads");
    let lost = {
        let mut election = election.clone();
        lease(&served, 0xc).await;
        tokio::spawn(async move { election.campaign(campaign(0xc, "three")).await })
    };
    until_there(&mut served, "e/c").await;
    revoke(&served, 0xc).await;
    check_refusal(lost.await.unwrap(), Code::Unknown, NOT_LEADER);
    drop((election, observed));
    served.stop().await;
}
