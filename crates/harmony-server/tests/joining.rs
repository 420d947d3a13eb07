//! Members that are added to a running cluster, vote, are removed, and come back: on real processes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod joiner;
mod kit;
mod process;
mod program;

use harmony_server::proto::etcdserverpb as pb;
use harmony_testkit::Client;
use harmony_testkit::wait::{PATIENCE, until};
use harmony_types::TestCluster;
use joiner::{does_not_start, flags, members, start, variables};
use kit::GrpcClient;
use kit::members::{add, client, free_url, list, promote, refused, remove, votes, wait_for};
use pb::watch_client::WatchClient;
use process::{Running, harmony};
use program::{HARMONY, Said, etcdctl_is_there, run};
use rustix::process::Signal;
use tonic::Code;
use tonic::codegen::tokio_stream;

#[test]
fn a_member_joins_votes_is_removed_and_comes_back_under_a_new_id() {
    let mut cluster = kit::started(3);
    let through = client(&cluster);
    for number in 0..100 {
        through.put(format!("k{number}").as_bytes(), b"before").unwrap();
    }
    let url = free_url();
    let said = members(&cluster, &["add", "n4", &format!("--peer-urls={url}")]);
    assert!(said.out.starts_with("Member ") && said.out.contains(" added to cluster "), "{said:?}");
    let added = list(&through).into_iter().find(|member| member.peer_ur_ls == [url.clone()]).unwrap();
    assert!(added.is_learner && added.name.is_empty() && added.client_ur_ls.is_empty(), "{added:?}");

    // It never started, and costs nothing: two of the three others are enough.
    let down = cluster.node_ids()[2];
    cluster.kill_node(down).unwrap();
    until("a put without one of three", PATIENCE, || through.put(b"quorum", b"kept")).unwrap();
    cluster.restart_node(down).unwrap();

    let flags = flags(&said);
    let dir = tempfile::tempdir().unwrap();
    let four = start(dir.path(), &flags);
    let now = wait_for(&through, "n4 to vote", |members| votes(members, "n4"));
    assert_eq!(now.iter().find(|member| member.name == "n4").unwrap().id, added.id);
    let of_four = GrpcClient::new(&four.address).unwrap();
    assert_eq!(of_four.get(b"k99").unwrap().unwrap().value, b"before".as_slice());
    of_four.put(b"k99", b"through four").unwrap();

    // From its own data from now on, whatever became of the others.
    let (code, log) = four.signal(Signal::TERM);
    assert_eq!(code, Some(0), "{log}");
    through.put(b"k98", b"meanwhile").unwrap();
    let four = start(dir.path(), &flags);
    let of_four = GrpcClient::new(&four.address).unwrap();
    let seen = until("a read at n4", PATIENCE, || of_four.get(b"k98")).unwrap().unwrap();
    assert_eq!(seen.value, b"meanwhile".as_slice());
    assert_eq!(of_four.status().unwrap().id.get(), added.id);
    let other = tempfile::tempdir().unwrap();
    does_not_start(other.path(), &flags, &["has run before under the name \"n4\""]);

    let id = format!("{:x}", added.id);
    let said = members(&cluster, &["remove", &id]);
    assert!(said.succeeds().starts_with(&format!("Member {id:>16} removed from cluster ")), "{said:?}");
    let (_, log) = four.end();
    assert!(log.contains("was removed from the cluster"), "{log}");
    does_not_start(dir.path(), &flags, &["was removed from the cluster"]);
    refused(remove(&through, added.id), Code::NotFound, "member not found");
    does_not_start(other.path(), &flags, &[&format!("does not know a member at {url}"), "add it first"]);

    let again = add(&through, &[&url], false).unwrap().member.unwrap();
    assert_ne!(again.id, added.id);
    let four = start(other.path(), &flags);
    wait_for(&through, "n4 to vote again", |members| votes(members, "n4"));
    let of_four = GrpcClient::new(&four.address).unwrap();
    assert_eq!(of_four.get(b"k99").unwrap().unwrap().value, b"through four".as_slice());
    assert_eq!(of_four.status().unwrap().id.get(), again.id);
    cluster.check_agreement().unwrap();
}

/// The log of such a cluster takes its first member away, and still starts a third one.
#[test]
fn a_cluster_of_which_no_first_member_is_left_takes_members_in() {
    let dirs = [(); 3].map(|()| (free_url(), tempfile::tempdir().unwrap()));
    let url = dirs[0].0.as_str();
    let first = ["--name", "n0", "--listen-peer-urls", url, "--initial-advertise-peer-urls", url];
    let mut running = Running::start(dirs[0].1.path(), &first);
    let mut through = GrpcClient::new(&running.address).unwrap();
    until("the first put", PATIENCE, || through.put(b"k", b"of the first")).unwrap();
    for (number, (url, dir)) in dirs.iter().enumerate().skip(1) {
        let (name, endpoint) = (format!("n{number}"), format!("--endpoints={}", running.address));
        let said = run(
            HARMONY,
            [endpoint.as_str(), "members", "add", name.as_str(), "--peer-urls", url.as_str()],
            "",
        );
        let next = start(dir.path(), &flags(&said));
        let members = wait_for(&through, "the next member to vote", |members| votes(members, &name));
        let old = members.iter().find(|member| member.name != name).unwrap().id;
        through = GrpcClient::new(&next.address).unwrap();
        until("the old one to be removed", PATIENCE, || {
            remove(&through, old).map(drop).or_else(|status| match status.code() {
                Code::NotFound => Ok(()),
                _ => Err(status.into()),
            })
        })
        .unwrap();
        let old = std::mem::replace(&mut running, next);
        let (_, log) = old.end();
        assert!(log.contains("was removed from the cluster"), "{log}");
        let seen = until("a read", PATIENCE, || through.get(b"k")).unwrap().unwrap();
        assert_eq!(seen.value, b"of the first".as_slice());
    }
    assert_eq!(list(&through).len(), 1);
}

#[test]
fn a_learner_serves_what_it_holds_until_it_is_promoted() {
    const LEARNER: &str = "rpc not supported for learner";
    let cluster = kit::started(1);
    let through = client(&cluster);
    through.put(b"k", b"v").unwrap();
    let url = free_url();
    let said = members(&cluster, &["add", "n2", "--learner", "--peer-urls", &url]);
    let dir = tempfile::tempdir().unwrap();
    let two = start(dir.path(), &flags(&said));
    let of_two = GrpcClient::new(&two.address).unwrap();
    let held = until("the learner to hold the key", PATIENCE, || {
        of_two.get_serializable(b"k")?.ok_or_else(|| "not yet".into())
    });
    assert_eq!(held.unwrap().value, b"v".as_slice());
    let now =
        wait_for(&through, "n2 to tell its name", |members| members.iter().any(|member| member.name == "n2"));
    let id = now.iter().find(|member| member.name == "n2").unwrap().id;
    assert!(now.iter().all(|member| member.is_learner == (member.id == id)), "{now:?}");
    let status = of_two.maintenance(async |it| it.status(pb::StatusRequest {}).await).unwrap();
    assert!(status.is_learner);

    let put = pb::PutRequest { key: b"k".as_slice().into(), ..Default::default() };
    refused(of_two.kv(async |kv| kv.put(put).await), Code::FailedPrecondition, LEARNER);
    let get = pb::RangeRequest { key: b"k".as_slice().into(), ..Default::default() };
    refused(of_two.kv(async |kv| kv.range(get).await), Code::FailedPrecondition, LEARNER);
    let members = pb::MemberListRequest::default();
    refused(of_two.cluster(async |it| it.member_list(members).await), Code::FailedPrecondition, LEARNER);
    // A stream that its client keeps open is refused at once, too.
    let watch = of_two.run(async |channel| {
        WatchClient::new(channel).watch(tokio_stream::pending::<pb::WatchRequest>()).await.map(drop)
    });
    refused(watch, Code::FailedPrecondition, LEARNER);
    let hash = pb::HashKvRequest { revision: 0 };
    refused(of_two.maintenance(async |it| it.hash_kv(hash).await), Code::FailedPrecondition, LEARNER);

    until("the learner to be promoted", PATIENCE, || Ok(promote(&through, id).map(drop)?)).unwrap();
    refused(promote(&through, id), Code::FailedPrecondition, "can only promote a learner member");
    until("a put through the new voter", PATIENCE, || of_two.put(b"k", b"w")).unwrap();
    assert_eq!(through.get(b"k").unwrap().unwrap().value, b"w".as_slice());
}

/// The lines as they are printed, set as the environment of a server.
#[test]
fn a_member_joins_with_what_member_add_printed_as_its_environment() {
    let cluster = kit::started(3);
    let through = client(&cluster);
    let join = |name: &str, said: &Said| {
        let dir = tempfile::tempdir().unwrap();
        let mut command =
            harmony(dir.path(), &["--listen-client-urls", "http://127.0.0.1:0", "--log-format", "json"]);
        for (variable, value) in variables(said) {
            command.env(format!("ETCD_{variable}"), value);
        }
        let joined = Running::spawn(command);
        wait_for(&through, "it to vote", |members| votes(members, name));
        let put = || GrpcClient::new(&joined.address)?.put(name.as_bytes(), b"v");
        until("a put through it", PATIENCE, put).unwrap();
        (dir, joined)
    };
    let _four = join("n4", &members(&cluster, &["add", "n4", "--peer-urls", &free_url()]));
    if etcdctl_is_there() {
        let endpoint = format!("--endpoints={}", cluster.running().next().unwrap().endpoint());
        let urls = format!("--peer-urls={}", free_url());
        let said = run("etcdctl", [endpoint.as_str(), "member", "add", "n5", &urls], "");
        let _five = join("n5", &said);
        assert_eq!(through.get(b"n5").unwrap().unwrap().value, b"v".as_slice());
    }
}

#[test]
fn wrong_changes_are_refused_word_by_word() {
    let cluster = kit::started(3);
    let through = client(&cluster);
    let before = list(&through);
    let taken = before[0].peer_ur_ls[0].clone();
    let url = free_url();
    for bad in [&[][..], &["127.0.0.1:1"], &["http://127.0.0.1:1/x"], &["ftp://127.0.0.1:1"]] {
        refused(add(&through, bad, false), Code::InvalidArgument, "given member URLs are invalid");
    }
    refused(add(&through, &[&taken], false), Code::FailedPrecondition, "Peer URLs already exists");
    refused(remove(&through, 0), Code::NotFound, "member not found");
    refused(remove(&through, 7), Code::NotFound, "member not found");
    refused(promote(&through, 7), Code::NotFound, "member not found");
    let voter = before[0].id;
    refused(promote(&through, voter), Code::FailedPrecondition, "can only promote a learner member");
    let update = |id, url: &str| {
        let request = pb::MemberUpdateRequest { id, peer_ur_ls: vec![url.to_owned()] };
        through.cluster(async |cluster| cluster.member_update(request).await)
    };
    refused(update(7, &url), Code::NotFound, "member not found");
    refused(update(before[1].id, &taken), Code::FailedPrecondition, "Peer URLs already exists");
    refused(update(voter, "x"), Code::InvalidArgument, "given member URLs are invalid");

    let added = add(&through, &[&url], true).unwrap();
    let learner = added.member.unwrap();
    assert_eq!(added.members.len(), 4);
    refused(add(&through, &[&url], true), Code::FailedPrecondition, "Peer URLs already exists");
    let another = free_url();
    let too_many = "too many learner members in cluster";
    refused(add(&through, &[&another], false), Code::FailedPrecondition, too_many);
    let not_ready = "can only promote a learner member which is in sync with leader";
    refused(promote(&through, learner.id), Code::FailedPrecondition, not_ready);
    let members = update(learner.id, &another).unwrap().members;
    let updated = members.iter().find(|member| member.id == learner.id).unwrap();
    assert!(updated.peer_ur_ls == [another] && updated.is_learner, "{updated:?}");
    assert_eq!(remove(&through, learner.id).unwrap().members.len(), 3);
}

#[test]
fn a_member_that_finds_nobody_says_so() {
    let (own, other) = (free_url(), free_url());
    let cluster = format!("n1={own},n2={other}");
    let flags = [
        "--name",
        "n1",
        "--initial-advertise-peer-urls",
        &own,
        "--initial-cluster",
        &cluster,
        "--initial-cluster-state",
        "existing",
    ];
    let dir = tempfile::tempdir().unwrap();
    let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
    let url = format!("ask {other} for the members of the cluster");
    does_not_start(dir.path(), &flags, &["no member of the running cluster says who belongs to it", &url]);
}
