use harmony_types::{ConfChange, ConfChangeType};

use super::*;

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

fn raft_message(message_type: MessageType) -> Message {
    let member = Member {
        id: id(1),
        name: "one".to_owned(),
        peer_urls: vec!["http://one:2380".to_owned()],
        client_urls: vec!["http://one:2379".to_owned()],
        role: Role::Voter,
    };
    let mut membership = Membership::from_members([member]);
    membership.learners.insert(id(4));
    membership.voters_outgoing.insert(id(5));
    membership.learners_next.insert(id(5));
    membership.removed.insert(id(9));
    membership.joining.insert(id(4));
    membership.auto_leave = true;
    let entry = Entry {
        term: Term(3),
        index: LogIndex(8),
        entry_type: EntryType::ConfChangeV2,
        data: Bytes::from_static(b"data"),
    };
    Message {
        message_type,
        to: id(1),
        from: id(2),
        term: Term(3),
        log_term: Term(4),
        index: LogIndex(7),
        entries: vec![entry],
        commit: LogIndex(6),
        commit_term: Term(5),
        snapshot: Some(Box::new(SnapshotMeta { index: LogIndex(10), term: Term(2), membership })),
        request_snapshot: LogIndex(11),
        reject: true,
        reject_hint: LogIndex(12),
        context: Bytes::from_static(b"context"),
        priority: -3,
    }
}

fn check_round_trip(message: PeerMessage) {
    let frame = envelope(message.clone()).encode_to_vec();
    assert_eq!(decode(frame.into()), Ok(Frame::Message(message)));
}

#[test]
fn every_message_survives_the_wire() {
    for number in 1..=13 {
        check_round_trip(PeerMessage::Raft(Box::new(raft_message(MessageType::from_u8(number).unwrap()))));
    }
    let member = raft_message(MessageType::Snapshot).snapshot.unwrap().membership.members[&id(1)].clone();
    let change = |change_type| ConfChange { change_type, member: member.clone() };
    let changes = vec![change(ConfChangeType::Join), change(ConfChangeType::Remove)];
    check_round_trip(PeerMessage::Change { request: 7, changes });
    for result in [
        Ok(LogIndex(5)),
        Err(ChangeError::Forward(ForwardError::NotLeader)),
        Err(ChangeError::Refused(MembershipError::Unhealthy)),
    ] {
        check_round_trip(PeerMessage::ChangeReply { request: 8, result });
    }
    for renew in [false, true] {
        check_round_trip(PeerMessage::LeaseCall { request: 9, id: LeaseId(-7), renew });
    }
    let left = TimeToLive { granted_s: 60, remaining_s: 0 };
    for result in [Ok(None), Ok(Some(left)), Err(ForwardError::NotLeader)] {
        check_round_trip(PeerMessage::LeaseReply { request: 9, result });
    }
    check_round_trip(PeerMessage::Acknowledged {
        held: vec![(id(1), LogIndex(4)), (id(2), LogIndex(1 << 40))],
    });
    let hashes = vec![(LogIndex(4), u32::MAX), (LogIndex(1 << 40), 0)];
    check_round_trip(PeerMessage::Hashes { hashes, corrupt: false });
    check_round_trip(PeerMessage::Hashes { hashes: Vec::new(), corrupt: true });
    check_round_trip(PeerMessage::Diverged { index: LogIndex(9), hash: 7 });
    check_round_trip(PeerMessage::Propose { request: 7, data: Bytes::from_static(b"x") });
    let forwarded = Forwarded { index: LogIndex(9), outcome: Bytes::from_static(b"y") };
    check_round_trip(PeerMessage::ProposeReply { request: 7, result: Ok(forwarded) });
    for error in [
        ForwardError::NotLeader,
        ForwardError::Busy,
        ForwardError::TooLarge,
        ForwardError::Unknown,
        ForwardError::NoSpace,
    ] {
        check_round_trip(PeerMessage::ProposeReply { request: 8, result: Err(error) });
    }
}

#[test]
fn payloads_share_the_frame_they_came_in() {
    let frame: Bytes =
        envelope(PeerMessage::Propose { request: 1, data: vec![5; 100].into() }).encode_to_vec().into();
    let Frame::Message(PeerMessage::Propose { data, .. }) = decode(frame.clone()).unwrap() else {
        panic!("another kind")
    };
    assert!(frame.as_ptr_range().contains(&data.as_ptr()), "the payload was copied");
}

#[test]
fn numbers_that_nobody_knows_are_refused() {
    let good = || message_to_wire(raft_message(MessageType::Append));
    let check = |wire: WireMessage, reason: &str| {
        let frame = Envelope { content: Some(Content::Raft(wire)) }.encode_to_vec();
        let error = decode(frame.into()).unwrap_err();
        assert!(error.contains(reason), "{error}");
    };
    check(WireMessage { message_type: 0, ..good() }, "message type 0");
    check(WireMessage { message_type: 14, ..good() }, "message type 14");
    check(WireMessage { message_type: 257, ..good() }, "message type 257");
    check(WireMessage { to: 0, ..good() }, "to member 0");
    check(WireMessage { from: 0, ..good() }, "from member 0");
    let mut wire = good();
    wire.entries[0].entry_type = 3;
    check(wire, "entry type 3");
    let mut wire = good();
    wire.snapshot.as_mut().unwrap().learners.push(1);
    check(wire, "both voter and learner");
    let mut wire = good();
    wire.snapshot.as_mut().unwrap().voters.push(0);
    check(wire, "member 0");
    let frame = Envelope { content: Some(Content::Reply(WireReply { error: 6, ..WireReply::default() })) };
    assert!(decode(frame.encode_to_vec().into()).unwrap_err().contains("unknown answer 6"));
    assert!(decode(Bytes::new()).unwrap_err().contains("unknown kind"));
    assert!(decode(Bytes::from_static(b"\xff\xff\xff")).is_err());
}
