//! Leases: grants, revocations, renewals, expiry, and who may do what with them.

use harmony_server::proto::authpb::permission::Type;
use harmony_server::proto::etcdserverpb as pb;
use pb::lease_client::LeaseClient;
use tonic::Code;
use tonic::codegen::tokio_stream;
use tonic::transport::Channel;

use crate::auth::{Admin, DENIED, OPTIONS, with};
use crate::served::{Served, all, check_refusal};

const NOT_FOUND: &str = "etcdserver: requested lease not found";

/// Shortest TTLs: one second.
const FAST: &str = "heartbeat-interval = 10\nelection-timeout = 100\n";

fn client(served: &Served) -> LeaseClient<Channel> {
    LeaseClient::new(served.channel.clone())
}

fn grant(id: i64, ttl: i64) -> pb::LeaseGrantRequest {
    pb::LeaseGrantRequest { ttl, id }
}

fn put(key: &'static str, lease: i64) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: "v".into(), lease, ..pb::PutRequest::default() }
}

fn time_to_live(id: i64) -> pb::LeaseTimeToLiveRequest {
    pb::LeaseTimeToLiveRequest { id, keys: true }
}

#[tokio::test]
async fn grants_have_an_id_and_a_ttl_within_bounds() {
    let served = Served::start("").await;
    let mut leases = client(&served);
    let given = leases.lease_grant(grant(7, 60)).await.unwrap().into_inner();
    assert_eq!((given.id, given.ttl, given.error.as_str()), (7, 60, ""));
    assert_eq!(given.header.unwrap().revision, 1, "a grant makes no revision");
    let mut ids = vec![7];
    for ttl in [-1, 0, 1] {
        let picked = leases.lease_grant(grant(0, ttl)).await.unwrap().into_inner();
        assert_eq!(picked.ttl, 2, "raised to one and a half election timeouts");
        assert!(0 < picked.id);
        ids.push(picked.id);
    }
    let exists = leases.lease_grant(grant(7, 60)).await;
    check_refusal(exists, Code::FailedPrecondition, "etcdserver: lease already exists");
    let long = leases.lease_grant(grant(8, 9_000_000_001)).await;
    check_refusal(long, Code::OutOfRange, "etcdserver: too large lease TTL");
    assert_eq!(leases.lease_grant(grant(9, 9_000_000_000)).await.unwrap().into_inner().ttl, 9_000_000_000);
    let known = leases.lease_leases(pb::LeaseLeasesRequest {}).await.unwrap().into_inner().leases;
    assert!(known.iter().any(|lease| lease.id == 7) && known.iter().any(|lease| lease.id == 9));
    let ttls = |text: &str| {
        let name = "etcd_debugging_lease_ttl_total_";
        let line =
            |ending: &str| text.lines().find_map(|line| line.strip_prefix(&format!("{name}{ending} ")));
        let read = |ending: &str| line(ending).unwrap().parse::<f64>().unwrap();
        (read("count"), read("bucket{le=\"2.0\"}"), read("bucket{le=\"64.0\"}"), read("sum"))
    };
    // The keeper hears of what was applied on a thread of its own.
    while ttls(&crate::http::request(&served, "GET", "/metrics").await.1) != (5.0, 3.0, 4.0, 9_000_000_066.0)
    {
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4, "each has an id of its own");
    drop(leases);
    served.stop().await;
}

#[tokio::test]
async fn a_revocation_deletes_the_keys_in_one_revision() {
    let mut served = Served::start("").await;
    let mut leases = client(&served);
    leases.lease_grant(grant(7, 600)).await.unwrap();
    for key in ["b", "a"] {
        served.kv.put(put(key, 7)).await.unwrap();
    }
    assert_eq!(served.put("c", "stays").await, 4);
    let left = leases.lease_time_to_live(time_to_live(7)).await.unwrap().into_inner();
    assert_eq!((left.id, left.granted_ttl), (7, 600));
    assert!((500..=600).contains(&left.ttl), "{}", left.ttl);
    assert_eq!(left.keys, ["a", "b"]);

    let revoked = leases.lease_revoke(pb::LeaseRevokeRequest { id: 7 }).await.unwrap().into_inner();
    assert_eq!(revoked.header.unwrap().revision, 5, "one revision for both keys");
    let rest = served.kv.range(all()).await.unwrap().into_inner();
    assert_eq!((rest.count, &rest.kvs[0].key[..]), (1, &b"c"[..]));
    let gone = leases.lease_time_to_live(time_to_live(7)).await.unwrap().into_inner();
    assert_eq!((gone.ttl, gone.granted_ttl, gone.keys.len()), (-1, 0, 0));
    let again = leases.lease_revoke(pb::LeaseRevokeRequest { id: 7 }).await;
    check_refusal(again, Code::NotFound, NOT_FOUND);
    leases.lease_grant(grant(8, 600)).await.unwrap();
    let empty = leases.lease_revoke(pb::LeaseRevokeRequest { id: 8 }).await.unwrap().into_inner();
    assert_eq!(empty.header.unwrap().revision, 5, "no keys, no revision");
    drop(leases);
    served.stop().await;
}

#[tokio::test]
async fn renewals_are_answered_in_their_order() {
    let served = Served::start("").await;
    let mut leases = client(&served);
    leases.lease_grant(grant(7, 60)).await.unwrap();
    leases.lease_grant(grant(8, 90)).await.unwrap();
    let ids: Vec<i64> = (0..300).map(|i| [7, 99, 8][i % 3]).collect();
    let requests: Vec<_> = ids.iter().map(|&id| pb::LeaseKeepAliveRequest { id }).collect();
    let mut answers = leases.lease_keep_alive(tokio_stream::iter(requests)).await.unwrap().into_inner();
    for id in ids {
        let answer = answers.message().await.unwrap().unwrap();
        let ttl = match id {
            7 => 60,
            8 => 90,
            _ => 0,
        };
        assert_eq!((answer.id, answer.ttl), (id, ttl), "0 for a lease that is not there");
    }
    assert!(answers.message().await.unwrap().is_none(), "the stream ends when the client ends it");

    // One that its client leaves open ends with the server.
    let open = tokio_stream::pending::<pb::LeaseKeepAliveRequest>();
    let mut answers = leases.lease_keep_alive(open).await.unwrap().into_inner();
    drop(leases);
    served.stop().await;
    assert_eq!(answers.message().await.unwrap_err().message(), "etcdserver: server stopped");
}

#[tokio::test]
async fn a_renewal_tells_of_no_revision_at_which_its_lease_was_gone() {
    let mut served = Served::start("").await;
    let leases = client(&served);
    for id in 1..=50 {
        let (mut renewing, mut revoking) = (leases.clone(), leases.clone());
        revoking.lease_grant(grant(id, 60)).await.unwrap();
        served.kv.put(put("a", id)).await.unwrap();
        let renew = async {
            let request = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
            let mut answers = renewing.lease_keep_alive(request).await.unwrap().into_inner();
            answers.message().await.unwrap().unwrap()
        };
        let revoke =
            async { revoking.lease_revoke(pb::LeaseRevokeRequest { id }).await.unwrap().into_inner() };
        let (renewed, revoked) = tokio::join!(renew, revoke);
        let (seen, gone) = (renewed.header.unwrap().revision, revoked.header.unwrap().revision);
        assert!(renewed.ttl == 0 || seen < gone, "renewed at {seen}, gone at {gone}");
    }
    drop(leases);
    served.stop().await;
}

#[tokio::test]
async fn keys_go_with_a_lease_whose_time_is_over_and_stay_with_one_that_is_renewed() {
    let mut served = Served::start(FAST).await;
    let mut leases = client(&served);
    for id in [7, 8] {
        assert_eq!(leases.lease_grant(grant(id, 1)).await.unwrap().into_inner().ttl, 1);
    }
    served.kv.put(put("a", 7)).await.unwrap();
    served.kv.put(put("b", 8)).await.unwrap();
    let renew = || tokio_stream::once(pb::LeaseKeepAliveRequest { id: 8 });
    while served.get("a").await.count == 1 {
        let mut answers = leases.lease_keep_alive(renew()).await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().ttl, 1);
    }
    assert_eq!(served.get("b").await.count, 1);
    let gone = leases.lease_time_to_live(time_to_live(7)).await.unwrap().into_inner();
    assert_eq!(gone.ttl, -1);
    while served.get("b").await.count == 1 {}
    // The keeper hears of what was applied on a thread of its own.
    for name in ["granted", "revoked"] {
        let line = format!("etcd_debugging_lease_{name}_total 2");
        while !crate::http::request(&served, "GET", "/metrics").await.1.contains(&line) {}
    }
    let header = served.get("b").await.header.unwrap();
    assert_eq!(header.revision, 5, "two puts, two leases over");
    drop(leases);
    served.stop().await;
}

#[tokio::test]
async fn what_a_lease_holds_is_seen_and_deleted_only_by_those_who_may() {
    let mut served = Served::start(OPTIONS).await;
    let mut admin = Admin::enable(&served).await;
    admin.add_role("a", Type::Readwrite, "a", "b").await;
    for name in ["with", "without"] {
        admin.add_user(name, name).await;
    }
    admin.grant("with", "a").await;
    let token = admin.login("with", "with").await.unwrap();
    let stranger = admin.login("without", "without").await.unwrap();
    let mut leases = client(&served);
    leases.lease_grant(with(&token, grant(7, 600))).await.unwrap();
    served.kv.put(with(&token, put("a", 7))).await.unwrap();

    let denied = Code::PermissionDenied;
    check_refusal(leases.lease_time_to_live(with(&stranger, time_to_live(7))).await, denied, DENIED);
    let without_keys = pb::LeaseTimeToLiveRequest { id: 7, keys: false };
    leases.lease_time_to_live(with(&stranger, without_keys)).await.unwrap();
    check_refusal(leases.lease_leases(with(&stranger, pb::LeaseLeasesRequest {})).await, denied, DENIED);
    let revoke = pb::LeaseRevokeRequest { id: 7 };
    check_refusal(leases.lease_revoke(with(&stranger, revoke)).await, denied, DENIED);

    let left = leases.lease_time_to_live(with(&token, time_to_live(7))).await.unwrap().into_inner();
    assert_eq!(left.keys, ["a"]);
    let known = leases.lease_leases(with(&token, pb::LeaseLeasesRequest {})).await.unwrap().into_inner();
    assert_eq!(known.leases, [pb::LeaseStatus { id: 7 }]);
    leases.lease_revoke(with(&token, revoke)).await.unwrap();
    drop((leases, admin));
    served.stop().await;
}
