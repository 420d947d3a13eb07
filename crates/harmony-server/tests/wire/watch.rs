//! Watches over the wire: every kind of answer, in etcd's words.

use harmony_server::proto::authpb::permission::Type;
use harmony_server::proto::etcdserverpb as pb;
use harmony_testkit::wait::PATIENCE;
use harmony_types::EventType;
use harmony_types::fake::seed::{Seed, SeededRng};
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use pb::{WatchCreateRequest, WatchResponse};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::auth::{Admin, OPTIONS, with};
use crate::http::{request, with_body};
use crate::served::{Served, all, check_refusal};

/// A watch stream. Dropping `requests` closes the client's half of it.
struct Watching {
    requests: Option<mpsc::Sender<pb::WatchRequest>>,
    responses: Streaming<WatchResponse>,
}

impl Watching {
    async fn start(served: &Served) -> Self {
        Self::start_by(served, "").await
    }

    async fn start_by(served: &Served, token: &str) -> Self {
        let (requests, receiver) = mpsc::channel(100);
        let mut client = WatchClient::new(served.channel.clone()).max_decoding_message_size(usize::MAX);
        let responses = client.watch(with(token, ReceiverStream::new(receiver))).await.unwrap().into_inner();
        Self { requests: Some(requests), responses }
    }

    async fn ask(&self, request: RequestUnion) {
        let request = pb::WatchRequest { request_union: Some(request) };
        self.requests.as_ref().unwrap().send(request).await.unwrap();
    }

    async fn cancel(&self, watch_id: i64) {
        self.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id })).await;
    }

    async fn ask_progress(&self) {
        self.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    }

    /// The answer to a request for a watcher.
    async fn create(&mut self, request: WatchCreateRequest) -> WatchResponse {
        self.ask(RequestUnion::CreateRequest(request)).await;
        let response = self.next().await;
        assert!(response.created, "{response:?}");
        response
    }

    async fn next(&mut self) -> WatchResponse {
        self.end().await.expect("a response").expect("not the end")
    }

    async fn end(&mut self) -> Result<Option<WatchResponse>, Status> {
        timeout(PATIENCE, self.responses.message()).await.expect("something within a minute")
    }

    /// What follows, until `count` events are there.
    async fn events(&mut self, count: usize) -> Vec<(i64, String, i64)> {
        let mut events = Vec::new();
        while events.len() < count {
            let response = self.next().await;
            events.extend(response.events.iter().map(brief));
        }
        assert_eq!(events.len(), count, "{events:?}");
        events
    }
}

/// Revision, key, and version: 0 for a delete.
fn brief(event: &harmony_types::Event) -> (i64, String, i64) {
    let kv = event.kv.as_ref().unwrap();
    assert_eq!(event.event_type() == EventType::Delete, kv.version == 0);
    (kv.mod_revision, String::from_utf8(kv.key.to_vec()).unwrap(), kv.version)
}

fn key(key: &str) -> WatchCreateRequest {
    WatchCreateRequest { key: key.to_owned().into(), ..Default::default() }
}

fn everything() -> WatchCreateRequest {
    WatchCreateRequest { range_end: "\0".into(), ..Default::default() }
}

fn revision(response: &WatchResponse) -> i64 {
    response.header.unwrap().revision
}

#[track_caller]
fn check_refused(response: &WatchResponse, reason: &str) {
    let expected = WatchResponse {
        header: response.header,
        watch_id: -1,
        created: true,
        canceled: true,
        cancel_reason: reason.to_owned(),
        ..Default::default()
    };
    assert_eq!(*response, expected);
    assert!(revision(response) >= 1);
}

impl Served {
    async fn delete(&mut self, key: &str) -> i64 {
        let request = pb::DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
        self.kv.delete_range(request).await.unwrap().into_inner().header.unwrap().revision
    }

    async fn compact(&mut self, revision: i64) {
        self.kv.compact(pb::CompactionRequest { revision, physical: true }).await.unwrap();
    }

    /// Puts of so many keys at one revision.
    async fn put_at_once(&mut self, keys: usize, bytes: usize) -> i64 {
        let put = |number: usize| pb::RequestOp {
            request: Some(pb::request_op::Request::RequestPut(pb::PutRequest {
                key: format!("many{number:03}").into(),
                value: vec![b'v'; bytes].into(),
                ..Default::default()
            })),
        };
        let request = pb::TxnRequest { success: (0..keys).map(put).collect(), ..Default::default() };
        self.kv.txn(request).await.unwrap().into_inner().header.unwrap().revision
    }
}

#[tokio::test]
async fn changes_are_told_from_the_next_revision_on() {
    let mut served = Served::start("").await;
    served.put("a", "before").await;
    let mut watching = Watching::start(&served).await;
    let created = watching.create(key("a")).await;
    let expected = WatchResponse { header: created.header, created: true, ..Default::default() };
    assert_eq!((&created, revision(&created)), (&expected, 2));
    let header = served.get("a").await.header.unwrap();
    assert_eq!(created.header, Some(header), "the header is that of any answer");

    served.put("b", "another").await;
    served.put("a", "1").await;
    let response = watching.next().await;
    let kv = served.get("a").await.kvs[0].clone();
    let event = harmony_types::Event { kv: Some(kv), ..Default::default() };
    let expected = WatchResponse { header: response.header, events: vec![event], ..Default::default() };
    assert_eq!((&response, revision(&response)), (&expected, 4));

    served.delete("a").await;
    let response = watching.next().await;
    let gone = harmony_types::KeyValue { key: "a".into(), mod_revision: 5, ..Default::default() };
    assert_eq!(response.events[0].event_type(), EventType::Delete);
    assert_eq!((&response.events[0].kv, &response.events[0].prev_kv), (&Some(gone), &None));
    served.stop().await;
}

#[tokio::test]
async fn a_watch_begins_where_it_is_told_to() {
    let mut served = Served::start("").await;
    for value in ["1", "2", "3"] {
        served.put("a", value).await;
    }
    let mut watching = Watching::start(&served).await;
    watching.create(WatchCreateRequest { start_revision: 3, ..key("a") }).await;
    assert_eq!(watching.events(2).await, [(3, "a".into(), 2), (4, "a".into(), 3)]);
    watching.cancel(0).await;
    watching.next().await;

    watching.create(WatchCreateRequest { start_revision: 6, watch_id: 7, ..key("a") }).await;
    served.put("a", "5").await;
    served.put("a", "6").await;
    assert_eq!(watching.events(1).await, [(6, "a".into(), 5)], "nothing below the start");

    let refused = watching.create(WatchCreateRequest { start_revision: -1, ..key("a") }).await;
    check_refused(&refused, "etcdserver: mvcc: required revision has been compacted");
    served.stop().await;
}

#[tokio::test]
async fn a_start_below_the_compact_revision_is_canceled() {
    let mut served = Served::start("").await;
    for value in ["1", "2", "3"] {
        served.put("a", value).await;
    }
    served.compact(3).await;
    let mut watching = Watching::start(&served).await;
    let created = watching.create(WatchCreateRequest { start_revision: 2, ..key("a") }).await;
    assert!(!created.canceled);
    let canceled = watching.next().await;
    let expected =
        WatchResponse { header: canceled.header, canceled: true, compact_revision: 3, ..Default::default() };
    assert_eq!(canceled, expected, "without a reason");
    watching.create(WatchCreateRequest { start_revision: 3, watch_id: 9, ..key("a") }).await;
    assert_eq!(watching.events(2).await, [(3, "a".into(), 2), (4, "a".into(), 3)]);

    // One that runs is not touched.
    served.put("a", "4").await;
    served.compact(5).await;
    served.put("a", "5").await;
    assert_eq!(watching.events(2).await, [(5, "a".into(), 4), (6, "a".into(), 5)]);
    served.stop().await;
}

#[tokio::test]
async fn ids_are_the_clients_or_the_streams() {
    let served = Served::start("").await;
    let mut watching = Watching::start(&served).await;
    for (asked, given) in [(0, 0), (2, 2), (0, 1), (0, 3), (-5, -5)] {
        let created = watching.create(WatchCreateRequest { watch_id: asked, ..key("a") }).await;
        assert_eq!((created.watch_id, created.canceled), (given, false));
    }
    let refused = watching.create(WatchCreateRequest { watch_id: 2, ..key("a") }).await;
    check_refused(&refused, "mvcc: duplicate watch ID provided on the WatchStream");
    let refused = watching.create(WatchCreateRequest { range_end: "a".into(), ..key("b") }).await;
    check_refused(&refused, "mvcc: watcher range is empty");

    watching.cancel(77).await;
    watching.cancel(2).await;
    let canceled = watching.next().await;
    let expected =
        WatchResponse { header: canceled.header, watch_id: 2, canceled: true, ..Default::default() };
    assert_eq!(canceled, expected, "and nothing about the unknown one");
    // Requests that do not wait for each other's answers: what is said of the old one is not taken for the new one.
    for _ in 0..50 {
        watching.ask(RequestUnion::CreateRequest(WatchCreateRequest { watch_id: 2, ..key("a") })).await;
        watching.cancel(2).await;
        watching.ask(RequestUnion::CreateRequest(WatchCreateRequest { watch_id: 3, ..key("a") })).await;
    }
    for _ in 0..50 {
        assert!(watching.next().await.created);
        let (canceled, refused) = (watching.next().await, watching.next().await);
        assert_eq!((canceled.watch_id, canceled.canceled), (2, true));
        check_refused(&refused, "mvcc: duplicate watch ID provided on the WatchStream");
    }
    served.stop().await;
}

#[tokio::test]
async fn filters_and_previous_values() {
    let mut served = Served::start("").await;
    let mut watching = Watching::start(&served).await;
    for (watch_id, filters, prev_kv) in [(1, vec![0], false), (2, vec![1], true), (3, vec![0, 1], true)] {
        watching.create(WatchCreateRequest { watch_id, filters, prev_kv, ..key("a") }).await;
    }
    served.put("a", "1").await;
    served.put("a", "2").await;
    served.delete("a").await;
    let mut told = [Vec::new(), Vec::new(), Vec::new()];
    while told[0].is_empty() || told[1].len() < 2 {
        let response = watching.next().await;
        let previous = |event: &harmony_types::Event| event.prev_kv.as_ref().map(|kv| kv.value.clone());
        let events = response.events.iter().map(|event| (event.event_type(), previous(event)));
        told[usize::try_from(response.watch_id).unwrap() - 1].extend(events);
    }
    watching.ask_progress().await;
    assert_eq!(watching.next().await.watch_id, -1, "nothing was said of what is filtered out");
    assert_eq!(told[0], [(EventType::Delete, None)]);
    assert_eq!(told[1], [(EventType::Put, None), (EventType::Put, Some("1".into()))]);
    assert!(told[2].is_empty());
    served.stop().await;
}

#[tokio::test]
async fn one_revision_is_one_response_unless_it_may_be_split() {
    let mut served = Served::start("max-request-bytes = 100000").await;
    let mut watching = Watching::start(&served).await;
    watching.create(WatchCreateRequest { watch_id: 1, ..everything() }).await;
    watching.create(WatchCreateRequest { watch_id: 2, fragment: true, ..everything() }).await;
    // What was written does not count but what is told: with the values that were replaced it is twice as much.
    watching.create(WatchCreateRequest { watch_id: 3, fragment: true, prev_kv: true, ..everything() }).await;
    for _ in 0..2 {
        served.put_at_once(90, 1_000).await;
    }
    let mut told = [Vec::new(), Vec::new(), Vec::new()];
    while told.iter().any(|told: &Vec<WatchResponse>| {
        told.iter().map(|response| response.events.len()).sum::<usize>() < 180
    }) {
        let response = watching.next().await;
        assert!(!response.events.is_empty());
        told[usize::try_from(response.watch_id).unwrap() - 1].push(response);
    }
    use prost::Message as _;
    let [whole, split, larger] = told;
    assert!(whole.iter().all(|response| !response.fragment && response.events.len() % 90 == 0));
    for parts in [&split, &larger] {
        assert!(parts.iter().all(|part| part.encoded_len() <= 100_000));
        assert!(!parts.last().unwrap().fragment, "the last one says that it is");
        for (part, next) in parts.iter().zip(&parts[1..]) {
            let ends_within = brief(&part.events[part.events.len() - 1]).0 == brief(&next.events[0]).0;
            assert!(part.fragment || !ends_within, "a part that goes on says so");
        }
    }
    assert!(larger.iter().any(|part| part.fragment));
    served.stop().await;
}

#[tokio::test]
async fn progress_is_told_on_demand_and_at_intervals() {
    let mut served = Served::start("watch-progress-notify-interval = '100ms'").await;
    let mut watching = Watching::start(&served).await;
    watching.create(key("a")).await;
    watching.create(key("b")).await;
    let newest = served.put("c", "").await;
    watching.ask_progress().await;
    let progress = watching.next().await;
    let expected = WatchResponse { header: progress.header, watch_id: -1, ..Default::default() };
    assert_eq!((&progress, revision(&progress)), (&expected, newest));

    watching.create(WatchCreateRequest { progress_notify: true, ..key("c") }).await;
    for _ in 0..3 {
        let progress = watching.next().await;
        let expected = WatchResponse { header: progress.header, watch_id: 2, ..Default::default() };
        assert_eq!((&progress, revision(&progress)), (&expected, newest));
    }
    served.stop().await;
}

#[tokio::test]
async fn a_client_that_has_said_everything_goes_on_hearing() {
    let mut served = Served::start("").await;
    let mut watching = Watching::start(&served).await;
    watching.create(key("a")).await;
    watching.requests = None;
    for number in 0..3 {
        let revision = served.put("a", "").await;
        assert_eq!(watching.events(1).await, [(revision, "a".into(), number + 1)]);
    }
    // Without a watcher nothing can follow.
    let mut idle = Watching::start(&served).await;
    idle.requests = None;
    assert!(idle.end().await.unwrap().is_none());
    served.stop().await;
}

#[tokio::test]
async fn a_stop_ends_streams_at_once_and_a_watch_resumes() {
    let mut served = Served::start("").await;
    let mut watching = Watching::start(&served).await;
    watching.create(everything()).await;
    let first = served.put("a", "1").await;
    assert_eq!(watching.events(1).await, [(first, "a".into(), 1)]);
    let dir = served.stop().await;
    check_refusal(watching.end().await, Code::Unavailable, "etcdserver: server stopped");
    drop(watching);

    let mut served = Served::start_in(dir, "").await;
    served.put("a", "2").await;
    let mut watching = Watching::start(&served).await;
    watching.create(WatchCreateRequest { start_revision: first, prev_kv: true, ..everything() }).await;
    assert_eq!(watching.events(2).await, [(first, "a".into(), 1), (first + 1, "a".into(), 2)]);
    served.stop().await;
}

#[tokio::test]
async fn who_may_not_read_may_not_watch() {
    let mut served = Served::start(OPTIONS).await;
    let mut nobody = Watching::start(&served).await;
    nobody.create(key("a")).await;
    let mut admin = Admin::enable(&served).await;
    admin.add_role("r", Type::Read, "a", "c").await;
    admin.add_user("alice", "secret").await;
    admin.grant("alice", "r").await;
    let token = admin.login("alice", "secret").await.unwrap();

    let denied = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
    let mut alice = Watching::start_by(&served, &token).await;
    alice.create(key("a")).await;
    alice.create(WatchCreateRequest { range_end: "c".into(), ..key("a") }).await;
    check_refused(&alice.create(key("c")).await, denied);
    check_refused(&alice.create(everything()).await, denied);
    check_refused(&alice.create(WatchCreateRequest { range_end: "\0".into(), ..key("a") }).await, denied);
    let mut unknown = Watching::start_by(&served, "nonsense").await;
    let invalid = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
    check_refused(&unknown.create(key("a")).await, invalid);

    let put = |value: &'static str| {
        let request = pb::PutRequest { key: "a".into(), value: value.into(), ..Default::default() };
        with(&admin.token, request)
    };
    let revision = served.kv.put(put("1")).await.unwrap().into_inner().header.unwrap().revision;
    assert_eq!(alice.events(2).await, vec![(revision, "a".to_owned(), 1); 2]);
    let canceled = nobody.next().await;
    let reason = "rpc error: code = InvalidArgument desc = etcdserver: user name is empty";
    assert_eq!((canceled.canceled, &*canceled.cancel_reason), (true, reason), "{canceled:?}");

    // A right that is taken away ends the watch before the next event.
    let revoke = pb::AuthUserRevokeRoleRequest { name: "alice".into(), role: "r".into() };
    admin.auth.user_revoke_role(with(&admin.token, revoke)).await.unwrap();
    served.kv.put(put("2")).await.unwrap();
    for _ in 0..2 {
        let canceled = alice.next().await;
        assert_eq!((canceled.canceled, &*canceled.cancel_reason), (true, denied), "{canceled:?}");
        assert!(canceled.events.is_empty());
    }
    served.stop().await;
}

#[tokio::test]
async fn streams_and_watchers_are_counted() {
    let mut served = Served::start("").await;
    let mut watching = Watching::start(&served).await;
    watching.create(key("a")).await;
    watching.create(key("b")).await;
    served.put("a", "").await;
    watching.events(1).await;
    let (_, text) = request(&served, "GET", "/metrics").await;
    for line in [
        "etcd_debugging_mvcc_watch_stream_total 1",
        "etcd_debugging_mvcc_watcher_total 2",
        "etcd_debugging_mvcc_slow_watcher_total 0",
        "etcd_debugging_mvcc_events_total 1",
        "grpc_server_started_total{grpc_type=\"bidi_stream\",grpc_service=\"etcdserverpb.Watch\",grpc_method=\"Watch\"} 1",
    ] {
        assert!(text.lines().any(|text| text == line), "{line} in {text}");
    }
    served.stop().await;
}

#[tokio::test]
async fn a_watch_in_json_is_a_line_a_response() {
    let mut served = Served::start("").await;
    let mut stream = BufReader::new(TcpStream::connect(served.address).await.unwrap());
    let body = json!({"create_request": {"key": "YQ=="}}).to_string();
    let head = format!("POST /v3/watch HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut next = async || loop {
        let mut line = String::new();
        let read = timeout(PATIENCE, stream.read_line(&mut line)).await.unwrap().unwrap();
        assert_ne!(read, 0, "the answer ended");
        if line.starts_with('{') {
            return serde_json::from_str::<Value>(&line).unwrap();
        }
    };
    assert_eq!(next().await["result"]["created"], true);
    for value in ["1", "2"] {
        served.put("a", value).await;
        let line = next().await;
        assert_eq!(line["result"]["events"][0]["kv"]["key"], "YQ==", "{line}");
    }
    drop(stream);

    // What is no request is refused, though the answer has begun.
    let (_, body) = with_body(&served, "POST", "/v3/watch", "[1]").await;
    let refusal = body.lines().find(|line| line.starts_with('{')).unwrap();
    let refusal: Value = serde_json::from_str(refusal).unwrap();
    let error = refusal.get("error").unwrap_or(&refusal);
    assert_eq!(error["code"], 3, "{refusal}");
    served.stop().await;
}

#[tokio::test]
async fn every_stream_is_what_the_history_says() {
    let mut served = Served::start("").await;
    let mut seed = SeededRng::new(Seed(7));
    let mut streams = Vec::new();
    let mut expected: Vec<(i64, String, i64)> = Vec::new();
    let mut versions = [0_i64; 10];
    for step in 0..600_i64 {
        if step % 20 == 0 {
            // One that starts in the past, and one that starts now, of all keys or of a part of them.
            let first = seed.below(10);
            let end = first + 1 + seed.below(10 - first);
            let start_revision = if step % 40 == 0 { 2 } else { 0 };
            let mut watching = Watching::start(&served).await;
            let request = WatchCreateRequest {
                // Behind k9 comes l.
                range_end: if end == 10 { "l".into() } else { format!("k{end}").into() },
                start_revision,
                ..key(&format!("k{first}"))
            };
            let created = watching.create(request).await;
            let from = if start_revision == 0 { revision(&created) + 1 } else { 2 };
            streams.push((watching, from, first..end));
        }
        let number = usize::try_from(seed.below(10)).unwrap();
        let name = format!("k{number}");
        if seed.below(4) == 0 && versions[number] != 0 {
            versions[number] = 0;
            expected.push((served.delete(&name).await, name, 0));
        } else {
            versions[number] += 1;
            expected.push((served.put(&name, "v").await, name, versions[number]));
        }
    }
    for (mut watching, from, keys) in streams {
        let wanted: Vec<_> = expected
            .iter()
            .filter(|(revision, name, _)| {
                from <= *revision && keys.contains(&name[1..].parse::<u64>().unwrap())
            })
            .cloned()
            .collect();
        assert_eq!(watching.events(wanted.len()).await, wanted);
        watching.ask_progress().await;
        let progress = watching.next().await;
        assert_eq!((progress.watch_id, progress.events.len()), (-1, 0), "and nothing else");
    }
    let range = served.kv.range(all()).await.unwrap().into_inner();
    assert_eq!(range.kvs.len(), versions.iter().filter(|version| **version != 0).count());
    served.stop().await;
}
