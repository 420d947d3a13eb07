//! Alarms, backups, rebuilding, moving leadership: what is no look at the member.

use harmony_server::proto::etcdserverpb as pb;
use pb::alarm_request::AlarmAction;
use pb::downgrade_request::DowngradeAction;
use sha2::{Digest as _, Sha256};
use tonic::Code;

use crate::http::request;
use crate::served::{Served, all, check_refusal, range};

const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";

fn alarm(action: AlarmAction, member_id: u64, alarm: pb::AlarmType) -> pb::AlarmRequest {
    pb::AlarmRequest { action: action.into(), member_id, alarm: alarm.into() }
}

impl Served {
    async fn alarms(&mut self, request: pb::AlarmRequest) -> Vec<(u64, i32)> {
        let answer = self.maintenance.alarm(request).await.unwrap().into_inner();
        answer.alarms.iter().map(|alarm| (alarm.member_id, alarm.alarm)).collect()
    }

    async fn backup(&mut self) -> Vec<pb::SnapshotResponse> {
        let mut stream = self.maintenance.snapshot(pb::SnapshotRequest {}).await.unwrap().into_inner();
        let mut blobs = Vec::new();
        while let Some(blob) = stream.message().await.unwrap() {
            blobs.push(blob);
        }
        blobs
    }

    async fn put_bytes(&mut self, key: &str, bytes: usize) -> Result<(), tonic::Status> {
        let request =
            pb::PutRequest { key: key.to_owned().into(), value: vec![7; bytes].into(), ..Default::default() };
        self.kv.put(request).await.map(drop)
    }
}

#[tokio::test]
async fn an_alarm_is_raised_listed_and_cleared() {
    use AlarmAction::{Activate, Deactivate, Get};
    use pb::AlarmType::{Corrupt, None, Nospace};
    let mut served = Served::start("").await;
    assert_eq!(served.alarms(alarm(Get, 0, None)).await, []);
    assert_eq!(served.alarms(alarm(Activate, 7, Nospace)).await, [(7, 1)]);
    check_refusal(
        served.kv.put(pb::PutRequest { key: "a".into(), ..Default::default() }).await,
        Code::ResourceExhausted,
        NO_SPACE,
    );
    served.kv.delete_range(pb::DeleteRangeRequest { key: "a".into(), ..Default::default() }).await.unwrap();
    assert_eq!(served.alarms(alarm(Activate, 8, Corrupt)).await, [(8, 2)]);
    check_refusal(
        served.kv.delete_range(pb::DeleteRangeRequest { key: "a".into(), ..Default::default() }).await,
        Code::DataLoss,
        "etcdserver: corrupt cluster",
    );
    assert_eq!(served.alarms(alarm(Get, 0, None)).await, [(7, 1), (8, 2)]);
    assert_eq!(served.alarms(alarm(Get, 9, Corrupt)).await, [(8, 2)], "a list does not look at the member");
    let status = served.maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.errors, ["memberID:7 alarm:NOSPACE ", "memberID:8 alarm:CORRUPT "]);
    let health = async |query: &str| request(&served, "GET", &format!("/health{query}")).await;
    let unavailable = "HTTP/1.1 503 Service Unavailable".to_owned();
    let body = r#"{"health":"false","reason":"ALARM NOSPACE"}"#.to_owned();
    assert_eq!(health("").await, (unavailable.clone(), body));
    let body = r#"{"health":"false","reason":"ALARM CORRUPT"}"#.to_owned();
    assert_eq!(health("?exclude=NOSPACE").await, (unavailable.clone(), body));
    assert_eq!(health("?exclude=NOSPACE&exclude=CORRUPT").await.0, "HTTP/1.1 200 OK");
    let (line, body) = request(&served, "GET", "/readyz").await;
    assert_eq!(line, unavailable);
    assert!(body.contains("[-]data_corruption failed: alarm activated: CORRUPT"), "{body}");

    assert_eq!(served.alarms(alarm(Deactivate, 0, Corrupt)).await, [], "member 0 is not all of them");
    assert_eq!(served.alarms(alarm(Deactivate, 8, Corrupt)).await, [(8, 2)]);
    assert_eq!(served.alarms(alarm(Deactivate, 7, Nospace)).await, [(7, 1)]);
    served.put("a", "1").await;
    let senseless = served.maintenance.alarm(alarm(Activate, 7, None)).await;
    check_refusal(senseless, Code::InvalidArgument, "etcdserver: unknown alarm action or type");
    served.stop().await;
}

#[tokio::test]
async fn a_full_quota_raises_the_alarm_and_room_clears_it() {
    let mut served = Served::start("quota-backend-bytes = 100000").await;
    served.put("other", "").await;
    let mut written = 0;
    let refused = loop {
        match served.put_bytes(&format!("key{written}"), 10_000).await {
            Ok(()) => written += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, NO_SPACE));
    assert!((5..10).contains(&written), "{written}");
    let list = || alarm(AlarmAction::Get, 0, pb::AlarmType::None);
    let member = served.maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner().leader;
    while served.alarms(list()).await != [(member, 1)] {
        tokio::task::yield_now().await;
    }
    // A small one would fit, but the alarm refuses it on every member.
    check_refusal(served.put_bytes("small", 1).await, Code::ResourceExhausted, NO_SPACE);
    // What the last deletes replaced is history at the compact revision, which stays.
    let mut revision = 0;
    for (key, range_end) in [("key", "kez"), ("other", "")] {
        let delete = pb::DeleteRangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            ..pb::DeleteRangeRequest::default()
        };
        revision = served.kv.delete_range(delete).await.unwrap().into_inner().header.unwrap().revision;
    }
    served.kv.compact(pb::CompactionRequest { revision, physical: true }).await.unwrap();
    while !served.alarms(list()).await.is_empty() {
        tokio::task::yield_now().await;
    }
    served.put_bytes("small", 1).await.unwrap();
    served.stop().await;
}

#[tokio::test]
async fn a_backup_is_whole_and_says_so() {
    let mut served = Served::start("").await;
    for number in 0..40 {
        served.put_bytes(&format!("key{number}"), 5_000).await.unwrap();
    }
    let blobs = served.backup().await;
    let (last, rest) = blobs.split_last().unwrap();
    assert_eq!(last.blob.len(), 32);
    assert!(rest.iter().all(|blob| blob.blob.len() <= 32 << 10) && 5 < rest.len());
    let payload: Vec<u8> = rest.iter().flat_map(|blob| blob.blob.clone()).collect();
    assert_eq!(payload.len() % 512, 0);
    assert!(payload.starts_with(b"hmnysnap"));
    assert_eq!(Sha256::digest(&payload)[..], last.blob[..]);
    assert_eq!(last.remaining_bytes, 0);
    assert!(rest[..rest.len() - 1].iter().all(|blob| 0 < blob.remaining_bytes));
    assert_eq!(last.header.unwrap().revision, 41);
    // Nothing was written in between.
    let again = served.backup().await;
    assert!(again.iter().map(|blob| &blob.blob).eq(blobs.iter().map(|blob| &blob.blob)));
    served.stop().await;
}

#[tokio::test]
async fn clients_that_leave_their_backups_do_not_use_up_the_places() {
    let mut served = Served::start("").await;
    for number in 0..40 {
        served.put_bytes(&format!("key{number}"), 100_000).await.unwrap();
    }
    for _ in 0..20 {
        let mut stream = loop {
            match served.maintenance.snapshot(pb::SnapshotRequest {}).await {
                Ok(stream) => break stream.into_inner(),
                // The server has not noticed yet that one left.
                Err(busy) => assert_eq!(busy.message(), "etcdserver: too many requests"),
            }
        };
        assert!(stream.message().await.unwrap().unwrap().blob.starts_with(b"hmnysnap"));
    }
    served.put("a", "1").await;
    served.stop().await;
}

#[tokio::test]
async fn defragmenting_gives_space_back_and_changes_nothing() {
    let mut served = Served::start("").await;
    for round in 0..30 {
        for key in ["a", "b", "c"] {
            served.put_bytes(key, 50_000 + round).await.unwrap();
        }
    }
    let revision = served.put("a", "last").await;
    served.kv.compact(pb::CompactionRequest { revision, physical: true }).await.unwrap();
    let size = async |served: &mut Served| {
        served.maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner().db_size
    };
    let before = (served.kv.range(all()).await.unwrap().into_inner().kvs, size(&mut served).await);
    served.maintenance.defragment(pb::DefragmentRequest {}).await.unwrap();
    let after = (served.kv.range(all()).await.unwrap().into_inner().kvs, size(&mut served).await);
    assert_eq!(before.0, after.0);
    assert!(after.1 < before.1 / 2, "{} bytes before, {} after", before.1, after.1);
    assert_eq!(served.put("d", "").await, revision + 1);
    let dir = served.stop().await;
    let mut served = Served::start_in(dir, "").await;
    assert_eq!(served.kv.range(range("a")).await.unwrap().into_inner().kvs[0].value, "last");
    served.stop().await;
}

#[tokio::test]
async fn leadership_moves_to_voters_only() {
    let mut served = Served::start("").await;
    served.put("a", "1").await;
    let own = served.maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner().leader;
    let request = |target_id| pb::MoveLeaderRequest { target_id };
    served.maintenance.move_leader(request(own)).await.unwrap();
    for nobody in [0, own + 1] {
        let moved = served.maintenance.move_leader(request(nobody)).await;
        check_refusal(moved, Code::FailedPrecondition, "etcdserver: bad leader transferee");
    }
    served.stop().await;
}

#[tokio::test]
async fn there_is_no_version_to_go_down_to() {
    let mut served = Served::start("").await;
    let mut ask = async |action: DowngradeAction, version: &str| {
        let request = pb::DowngradeRequest { action: action.into(), version: version.to_owned() };
        let refused = served.maintenance.downgrade(request).await.unwrap_err();
        (refused.code(), refused.message().to_owned())
    };
    let refused = |code, text: &str| (code, format!("etcdserver: {text}"));
    use DowngradeAction::{Cancel, Enable, Validate};
    assert_eq!(
        ask(Validate, "three").await,
        refused(Code::InvalidArgument, "wrong downgrade target version format")
    );
    assert_eq!(
        ask(Validate, "3.4.0").await,
        refused(Code::InvalidArgument, "invalid downgrade target version")
    );
    assert_eq!(ask(Enable, "3.5.0").await, refused(Code::FailedPrecondition, "not capable"));
    assert_eq!(ask(Cancel, "").await, refused(Code::FailedPrecondition, "no inflight downgrade job"));
    served.stop().await;
}
