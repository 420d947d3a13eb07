//! Members added, promoted and removed while links are cut, leaders change and members are away: on real processes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod joiner;
mod kit;
mod process;
mod program;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harmony_testkit::wait::{PATIENCE, pause, until};
use harmony_testkit::{Client, Ledger, ProcessCluster};
use harmony_types::{NodeId, TestCluster};
use joiner::{members, start};
use kit::GrpcClient;
use kit::members::{
    add, client, free_url, list, move_leader, promote, refused, remove, try_list, votes, wait_for,
};
use tonic::Code;

const ELECTION: Duration = Duration::from_millis(200);
const FAST: [&str; 4] = ["--heartbeat-interval", "20", "--election-timeout", "200"];

fn started(nodes: usize) -> ProcessCluster {
    let mut cluster = kit::cluster_with(&FAST, &std::sync::Arc::default());
    cluster.start(nodes).unwrap();
    cluster
}

fn at(cluster: &ProcessCluster, id: NodeId) -> GrpcClient {
    GrpcClient::new(&cluster.node(id).unwrap().endpoint()).unwrap()
}

fn id(member: u64) -> NodeId {
    NodeId::new(member).unwrap()
}

fn write(client: &dyn Client, ledger: &Ledger) {
    until("a put is acknowledged", PATIENCE, || match ledger.write_one(client)? {
        true => Ok(()),
        false => Err("refused".into()),
    })
    .unwrap();
}

/// Removes a member though answers get lost and leaders change.
fn remove_whatever_happens(client: &GrpcClient, id: u64) {
    until("it is removed", PATIENCE, || {
        remove(client, id).map(drop).or_else(|status| match status.code() {
            Code::NotFound => Ok(()),
            _ => Err(status.into()),
        })
    })
    .unwrap();
}

/// Ends a thread when the test goes on or fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The common check, and all members list the same.
fn check(cluster: &ProcessCluster, ledger: &Ledger) {
    cluster.check_agreement().unwrap();
    let lists = cluster.running().map(|node| {
        ledger.check(node.client()).unwrap();
        until("the list", PATIENCE, || Ok(try_list(&at(cluster, node.id()))?)).unwrap()
    });
    let lists: Vec<_> = lists.collect();
    assert!(lists.windows(2).all(|pair| pair[0] == pair[1]), "{lists:?}");
}

#[test]
fn a_member_with_a_wrong_url_costs_no_quorum_is_shown_as_not_started_and_can_be_removed() {
    for nodes in [1, 3] {
        let (mut cluster, ledger) = (started(nodes), Ledger::new());
        let through = client(&cluster);
        // Nobody is there; somebody who is no peer; nobody who can be reached.
        let nobody = free_url();
        let client_port = format!("http://{}", cluster.running().next().unwrap().endpoint());
        for url in [nobody.as_str(), &client_port, "http://192.0.2.1:2380"] {
            let added = add(&through, &[url], false).unwrap().member.unwrap();
            for _ in 0..10 {
                write(&through, &ledger);
            }
            let table = members(&cluster, &["list"]);
            let id = format!("{:x}", added.id);
            let row = table.succeeds().lines().find(|line| line.contains(&id)).unwrap();
            assert!(row.contains("unstarted") && row.contains("true"), "{row}");
            if nodes == 3 && url == nobody {
                let down = cluster.other(cluster.leader().unwrap()).id();
                cluster.kill_node(down).unwrap();
                write(cluster.running().next().unwrap().client(), &ledger);
                cluster.restart_node(down).unwrap();
            }
            let left = until("it is removed", PATIENCE, || Ok(remove(&through, added.id)?)).unwrap();
            assert_eq!(left.members.len(), nodes);
            write(&through, &ledger);
        }
        check(&cluster, &ledger);
    }
}

#[test]
fn a_leader_that_is_cut_off_changes_no_members_the_others_do_and_restarts_keep_the_roles() {
    let (mut cluster, ledger) = (started(3), Ledger::new());
    let through = client(&cluster);
    write(&through, &ledger);
    let join = |cluster: &mut ProcessCluster, name: &str, is_learner| {
        let reserved = cluster.reserve(name).unwrap();
        let added = add(&through, &[reserved.url()], is_learner).unwrap().member.unwrap();
        cluster.adopt(reserved, id(added.id)).unwrap();
        cluster.spawn_node(id(added.id)).unwrap();
        wait_for(&through, "it tells its name", |members| members.iter().any(|one| one.name == name));
        id(added.id)
    };
    let four = join(&mut cluster, "n4", false);
    wait_for(&through, "n4 to vote", |members| votes(members, "n4"));
    let five = join(&mut cluster, "n5", true);

    // Four voters and a learner: three voters are left on the other side, which are enough.
    let old = cluster.leader().unwrap();
    let lone = at(&cluster, old);
    cluster.partition_node(old);
    let (refused, other) = std::thread::scope(|scope| {
        let answers = [
            scope.spawn(|| promote(&at(&cluster, old), five.get()).is_err()),
            scope.spawn(|| add(&at(&cluster, old), &[&free_url()], true).is_err()),
            scope.spawn(|| remove(&at(&cluster, old), five.get()).is_err()),
        ];
        // The three voters of the other side elect one of them, and promote.
        let apart = [old, four, five];
        let other = cluster.running().map(|node| node.id()).find(|id| !apart.contains(id)).unwrap();
        until("the other side promotes", PATIENCE, || {
            if votes(&try_list(&at(&cluster, other))?, "n5") {
                return Ok(());
            }
            Ok(promote(&at(&cluster, other), five.get()).map(drop)?)
        })
        .unwrap();
        (answers.map(|answer| answer.join().unwrap()), other)
    });
    assert_eq!(refused, [true; 3], "a leader without a quorum changed the members");
    write(&at(&cluster, other), &ledger);
    cluster.unpartition_node(old);
    cluster.wait_until_serving(old).unwrap();
    let now = wait_for(&lone, "it knows", |members| votes(members, "n5"));
    assert_eq!(now.len(), 5);
    assert!(now.iter().all(|member| !member.is_learner), "{now:?}");

    // One is removed, one is added as a learner; then all are killed and come back as what they were.
    remove_whatever_happens(&lone, four.get());
    cluster.wait_until_ended(four).unwrap();
    cluster.forget(four);
    let six = join(&mut cluster, "n6", true);
    let before = list(&through);
    for id in cluster.node_ids() {
        cluster.kill_node(id).unwrap();
    }
    for id in cluster.node_ids() {
        cluster.spawn_node(id).unwrap();
    }
    for id in cluster.node_ids().into_iter().filter(|id| *id != six) {
        cluster.wait_until_serving(id).unwrap();
    }
    let voter = at(&cluster, five);
    assert_eq!(list(&voter), before);
    assert_eq!(
        before.iter().filter(|member| member.is_learner).map(|one| one.id).collect::<Vec<_>>(),
        [six.get()]
    );
    write(&voter, &ledger);
    until("n6 is promoted", PATIENCE, || Ok(promote(&voter, six.get()).map(drop)?)).unwrap();
    cluster.wait_until_serving(six).unwrap();
    check(&cluster, &ledger);
}

#[test]
fn changes_while_the_leader_changes_happen_once_or_not_at_all() {
    const CHANGES: usize = 12;
    let (cluster, ledger) = (started(3), Ledger::new());
    let voters: Vec<u64> = cluster.node_ids().iter().map(|id| id.get()).collect();
    let through = client(&cluster);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for target in voters.iter().cycle() {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                // Refused where it leads already, or leadership moves just now.
                let leader = cluster.leader().unwrap();
                let _moved = move_leader(&at(&cluster, leader), *target);
                pause(ELECTION / 4);
            }
        });
        let _done = Done(&done);
        for round in 0..CHANGES {
            let url = free_url();
            let added = add(&through, &[&url], true);
            let now = until("the list", PATIENCE, || Ok(try_list(&through)?)).unwrap();
            let listed = now.iter().find(|member| member.peer_ur_ls == [url.clone()]).map(|member| member.id);
            if let Ok(answer) = added {
                assert_eq!(answer.member.map(|member| member.id), listed, "round {round}");
            }
            write(&through, &ledger);
            if let Some(added) = listed {
                remove_whatever_happens(&through, added);
            }
        }
    });
    // One whose addition was still under way when the list was read is here now.
    for member in list(&through).into_iter().filter(|member| !voters.contains(&member.id)) {
        remove_whatever_happens(&through, member.id);
    }
    let mut now: Vec<u64> = list(&through).iter().map(|member| member.id).collect();
    now.sort_unstable();
    assert_eq!(now, voters);
    check(&cluster, &ledger);
}

#[test]
fn a_member_that_was_removed_while_it_was_away_ends_on_its_old_data_and_says_why() {
    let (mut cluster, ledger) = (started(3), Ledger::new());
    let away = cluster.other(cluster.leader().unwrap()).id();
    write(cluster.other(away).client(), &ledger);
    cluster.kill_node(away).unwrap();
    let through = GrpcClient::new(&cluster.other(away).endpoint()).unwrap();
    until("it is removed", PATIENCE, || Ok(remove(&through, away.get()).map(drop)?)).unwrap();
    // Whoever of the others it meets first tells it, each time.
    for _ in 0..2 {
        cluster.spawn_node(away).unwrap();
        let ended = cluster.wait_until_ended(away).unwrap();
        assert_eq!(ended.code(), Some(1));
    }
    let node = cluster.forget(away).unwrap();
    let log = node.log();
    let last_words: Vec<&str> = log.lines().filter(|line| line.starts_with("error: member ")).collect();
    assert_eq!(last_words.len(), 2, "{log}");
    for part in ["was removed from the cluster", "to come back, add it anew"] {
        assert!(last_words.iter().all(|line| line.contains(part)), "{log}");
    }
    write(&through, &ledger);
    check(&cluster, &ledger);
}

#[test]
fn a_removal_that_would_leave_too_few_that_are_there_is_refused() {
    let (mut cluster, ledger) = (started(3), Ledger::new());
    let leader = cluster.leader().unwrap();
    let ids: Vec<NodeId> = cluster.node_ids().into_iter().filter(|id| *id != leader).collect();
    let (down, up) = (ids[0], ids[1]);
    cluster.kill_node(down).unwrap();
    let through = at(&cluster, leader);
    write(&through, &ledger);
    // For an election timeout it counts as there.
    pause(3 * ELECTION);
    refused(remove(&through, up.get()), Code::Unavailable, "unhealthy cluster");
    assert_eq!(list(&through).len(), 3);
    write(&through, &ledger);
    // The one that is away may go: that costs nothing.
    remove(&through, down.get()).unwrap();
    cluster.forget(down);
    let own = cluster.other(up).id();
    assert_eq!(remove(&through, up.get()).unwrap().members.len(), 1, "both were there");
    cluster.wait_until_ended(up).unwrap();
    write(&through, &ledger);
    let last = "re-configuration failed due to not enough started members";
    refused(remove(&through, own.get()), Code::Unknown, last);
    cluster.forget(up);
    check(&cluster, &ledger);
}

#[test]
fn a_member_that_never_started_does_not_count_when_another_is_to_be_removed() {
    let urls = [(); 3].map(|()| free_url());
    let named: Vec<String> = urls.iter().enumerate().map(|(n, url)| format!("n{n}={url}")).collect();
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let flags = |n: usize| -> Vec<String> {
        let name = format!("n{n}");
        let own = ["--name", &name, "--initial-advertise-peer-urls", &urls[n], "--initial-cluster"];
        own.iter().copied().chain([named.join(",").as_str()]).chain(FAST).map(str::to_owned).collect()
    };
    let running = [0, 1].map(|n| start(dirs[n].path(), &flags(n)));
    let through = GrpcClient::new(&running[0].address).unwrap();
    until("a put", PATIENCE, || through.put(b"k", b"v")).unwrap();
    let members =
        wait_for(&through, "two to tell their names", |members| votes(members, "n0") && votes(members, "n1"));
    let of = |name: &str| members.iter().find(|member| member.name == name).unwrap().id;
    let not_enough = "re-configuration failed due to not enough started members";
    refused(remove(&through, of("n1")), Code::Unknown, not_enough);
    remove(&through, of("")).unwrap();
    until("a put", PATIENCE, || through.put(b"k", b"w")).unwrap();
}
