//! A leader cut off from the others, on real processes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use harmony_testkit::Ledger;
use harmony_testkit::wait::{PATIENCE, until};
use harmony_types::{TestCluster, TestNode};

#[test]
fn a_leader_cut_off_acknowledges_nothing_and_answers_no_linearizable_read() {
    let (mut cluster, ledger) = (kit::started(3), Ledger::new());
    for round in 0..3 {
        let old = cluster.leader().unwrap();
        assert!(ledger.write_one(cluster.node(old).unwrap().client()).unwrap());
        let key = format!("cut/{round}");
        cluster.node(old).unwrap().put(key.as_bytes(), b"before").unwrap();
        cluster.partition_node(old);

        // Asked at once, while it still believes that it leads: neither acknowledged nor answered.
        let cut_off = cluster.node(old).unwrap();
        let lost = format!("lost/{round}");
        let (put, get) = std::thread::scope(|scope| {
            let put = scope
                .spawn(|| cut_off.put(lost.as_bytes(), b"never acknowledged").map_err(|e| e.to_string()));
            let get = scope.spawn(|| cut_off.get(key.as_bytes()).map_err(|e| e.to_string()));
            (put.join().unwrap(), get.join().unwrap())
        });
        assert!(put.is_err(), "a leader without a quorum acknowledged a put: {put:?}");
        assert!(get.is_err(), "a leader without a quorum answered a linearizable read: {get:?}");

        // The other side goes on, and what it writes the cut-off member must not know.
        let other = cluster.other(old);
        until("the other side writes", PATIENCE, || other.put(key.as_bytes(), b"after")).unwrap();
        assert_eq!(other.get(key.as_bytes()).unwrap().as_deref(), Some(&b"after"[..]));
        let client = kit::GrpcClient::new(&cluster.node(old).unwrap().endpoint()).unwrap();
        let stale = client.get_serializable(key.as_bytes()).unwrap().unwrap();
        assert_eq!(&stale.value[..], b"before", "a serializable read answers from the member's own state");

        cluster.unpartition_node(old);
        cluster.wait_until_serving(old).unwrap();
        cluster.check_agreement().unwrap();
        assert_eq!(cluster.node(old).unwrap().get(key.as_bytes()).unwrap().as_deref(), Some(&b"after"[..]));
        for node in cluster.running() {
            ledger.check(node.client()).unwrap();
        }
    }
}
