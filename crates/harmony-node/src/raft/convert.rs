//! Between the contract's types and the `raft` crate's, field by field. Payloads are moved, never copied.

use harmony_types::raft::ReadState;
use harmony_types::{
    Entry, EntryType, HardState, LogIndex, Membership, Message, MessageType, NodeId, SnapshotMeta, Term,
};
use raft_proto::eraftpb;

/// The contract's form of an entry.
pub(crate) fn entry_from_raft(entry: eraftpb::Entry) -> Entry {
    Entry {
        term: Term(entry.term),
        index: LogIndex(entry.index),
        entry_type: match entry.entry_type {
            eraftpb::EntryType::EntryNormal => EntryType::Normal,
            eraftpb::EntryType::EntryConfChange => EntryType::ConfChange,
            eraftpb::EntryType::EntryConfChangeV2 => EntryType::ConfChangeV2,
        },
        data: entry.data,
    }
}

/// Raft's form of an entry.
pub(crate) fn entry_to_raft(entry: Entry) -> eraftpb::Entry {
    let mut raft = eraftpb::Entry::default();
    raft.term = entry.term.0;
    raft.index = entry.index.0;
    raft.entry_type = match entry.entry_type {
        EntryType::Normal => eraftpb::EntryType::EntryNormal,
        EntryType::ConfChange => eraftpb::EntryType::EntryConfChange,
        EntryType::ConfChangeV2 => eraftpb::EntryType::EntryConfChangeV2,
    };
    raft.data = entry.data;
    raft
}

/// The contract's form of a hard state.
pub(crate) fn hard_state_from_raft(state: &eraftpb::HardState) -> HardState {
    HardState { term: Term(state.term), vote: NodeId::new(state.vote), commit: LogIndex(state.commit) }
}

/// Raft's form of a hard state.
pub(crate) fn hard_state_to_raft(state: &HardState) -> eraftpb::HardState {
    let mut raft = eraftpb::HardState::default();
    raft.term = state.term.0;
    raft.vote = NodeId::or_zero(state.vote);
    raft.commit = state.commit.0;
    raft
}

/// Raft's form of the voter sets.
pub(crate) fn conf_state_to_raft(membership: &Membership) -> eraftpb::ConfState {
    let numbers = |ids: &std::collections::BTreeSet<NodeId>| ids.iter().map(|id| id.get()).collect();
    let mut raft = eraftpb::ConfState::default();
    raft.voters = numbers(&membership.voters);
    raft.learners = numbers(&membership.learners);
    raft.voters_outgoing = numbers(&membership.voters_outgoing);
    raft.learners_next = numbers(&membership.learners_next);
    raft.auto_leave = membership.auto_leave;
    raft
}

/// The voter sets as a membership that knows no addresses.
pub(crate) fn conf_state_from_raft(state: &eraftpb::ConfState) -> Membership {
    let ids = |numbers: &[u64]| numbers.iter().filter_map(|number| NodeId::new(*number)).collect();
    Membership {
        voters: ids(&state.voters),
        learners: ids(&state.learners),
        voters_outgoing: ids(&state.voters_outgoing),
        learners_next: ids(&state.learners_next),
        auto_leave: state.auto_leave,
        ..Membership::default()
    }
}

/// The contract's form of what a snapshot stands for.
pub(crate) fn snapshot_meta_from_raft(snapshot: &eraftpb::Snapshot) -> SnapshotMeta {
    let meta = snapshot.get_metadata();
    SnapshotMeta {
        index: LogIndex(meta.index),
        term: Term(meta.term),
        membership: conf_state_from_raft(meta.get_conf_state()),
    }
}

/// Raft's form of a snapshot: its content never passes through raft.
pub(crate) fn snapshot_meta_to_raft(meta: &SnapshotMeta) -> eraftpb::Snapshot {
    let mut metadata = eraftpb::SnapshotMetadata::default();
    metadata.index = meta.index.0;
    metadata.term = meta.term.0;
    metadata.set_conf_state(conf_state_to_raft(&meta.membership));
    let mut raft = eraftpb::Snapshot::default();
    raft.set_metadata(metadata);
    raft
}

/// The contract's form of a message to a peer; `None` for kinds that never leave a node.
pub(crate) fn message_from_raft(mut message: eraftpb::Message) -> Option<Message> {
    Some(Message {
        message_type: message_type_from_raft(message.msg_type)?,
        to: NodeId::new(message.to)?,
        from: NodeId::new(message.from)?,
        term: Term(message.term),
        log_term: Term(message.log_term),
        index: LogIndex(message.index),
        entries: message.take_entries().into_iter().map(entry_from_raft).collect(),
        commit: LogIndex(message.commit),
        commit_term: Term(message.commit_term),
        snapshot: message.snapshot.as_ref().map(|snapshot| Box::new(snapshot_meta_from_raft(snapshot))),
        request_snapshot: LogIndex(message.request_snapshot),
        reject: message.reject,
        reject_hint: LogIndex(message.reject_hint),
        context: message.context,
        priority: message.priority,
    })
}

/// Raft's form of a message from a peer.
pub(crate) fn message_to_raft(message: Message) -> eraftpb::Message {
    let mut raft = eraftpb::Message::default();
    raft.msg_type = message_type_to_raft(message.message_type);
    raft.to = message.to.get();
    raft.from = message.from.get();
    raft.term = message.term.0;
    raft.log_term = message.log_term.0;
    raft.index = message.index.0;
    raft.set_entries(message.entries.into_iter().map(entry_to_raft).collect());
    raft.commit = message.commit.0;
    raft.commit_term = message.commit_term.0;
    if let Some(meta) = message.snapshot {
        raft.set_snapshot(snapshot_meta_to_raft(&meta));
    }
    raft.request_snapshot = message.request_snapshot.0;
    raft.reject = message.reject;
    raft.reject_hint = message.reject_hint.0;
    raft.context = message.context;
    raft.priority = message.priority;
    raft
}

/// A confirmed read index.
pub(crate) fn read_state_from_raft(state: ::raft::ReadState) -> ReadState {
    ReadState { context: state.request_ctx.into(), index: LogIndex(state.index) }
}

fn message_type_from_raft(raft: eraftpb::MessageType) -> Option<MessageType> {
    use eraftpb::MessageType as Raft;
    Some(match raft {
        Raft::MsgAppend => MessageType::Append,
        Raft::MsgAppendResponse => MessageType::AppendResponse,
        Raft::MsgRequestVote => MessageType::RequestVote,
        Raft::MsgRequestVoteResponse => MessageType::RequestVoteResponse,
        Raft::MsgSnapshot => MessageType::Snapshot,
        Raft::MsgHeartbeat => MessageType::Heartbeat,
        Raft::MsgHeartbeatResponse => MessageType::HeartbeatResponse,
        Raft::MsgTimeoutNow => MessageType::TimeoutNow,
        Raft::MsgReadIndex => MessageType::ReadIndex,
        Raft::MsgReadIndexResp => MessageType::ReadIndexResponse,
        Raft::MsgRequestPreVote => MessageType::RequestPreVote,
        Raft::MsgRequestPreVoteResponse => MessageType::RequestPreVoteResponse,
        Raft::MsgTransferLeader => MessageType::TransferLeader,
        Raft::MsgHup
        | Raft::MsgBeat
        | Raft::MsgPropose
        | Raft::MsgUnreachable
        | Raft::MsgSnapStatus
        | Raft::MsgCheckQuorum => return None,
    })
}

fn message_type_to_raft(message_type: MessageType) -> eraftpb::MessageType {
    use eraftpb::MessageType as Raft;
    match message_type {
        MessageType::Append => Raft::MsgAppend,
        MessageType::AppendResponse => Raft::MsgAppendResponse,
        MessageType::RequestVote => Raft::MsgRequestVote,
        MessageType::RequestVoteResponse => Raft::MsgRequestVoteResponse,
        MessageType::Snapshot => Raft::MsgSnapshot,
        MessageType::Heartbeat => Raft::MsgHeartbeat,
        MessageType::HeartbeatResponse => Raft::MsgHeartbeatResponse,
        MessageType::TimeoutNow => Raft::MsgTimeoutNow,
        MessageType::ReadIndex => Raft::MsgReadIndex,
        MessageType::ReadIndexResponse => Raft::MsgReadIndexResp,
        MessageType::RequestPreVote => Raft::MsgRequestPreVote,
        MessageType::RequestPreVoteResponse => Raft::MsgRequestPreVoteResponse,
        MessageType::TransferLeader => Raft::MsgTransferLeader,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn every_message_survives_the_way_there_and_back() {
        let id = |number| NodeId::new(number).unwrap();
        for number in 1..=13 {
            let data = Bytes::from_static(b"payload");
            let message = Message {
                message_type: MessageType::from_u8(number).unwrap(),
                to: id(2),
                from: id(3),
                term: Term(4),
                log_term: Term(5),
                index: LogIndex(6),
                entries: vec![Entry {
                    term: Term(7),
                    index: LogIndex(8),
                    entry_type: EntryType::ConfChangeV2,
                    data: data.clone(),
                }],
                commit: LogIndex(9),
                commit_term: Term(10),
                snapshot: Some(Box::new(SnapshotMeta {
                    index: LogIndex(11),
                    term: Term(12),
                    membership: Membership {
                        voters: [id(1), id(2)].into(),
                        learners: [id(3)].into(),
                        voters_outgoing: [id(2), id(4)].into(),
                        learners_next: [id(4)].into(),
                        auto_leave: true,
                        ..Membership::default()
                    },
                })),
                request_snapshot: LogIndex(13),
                reject: true,
                reject_hint: LogIndex(14),
                context: Bytes::from_static(b"context"),
                priority: -1,
            };
            let back = message_from_raft(message_to_raft(message.clone())).unwrap();
            assert_eq!(back, message);
            assert_eq!(back.entries[0].data.as_ptr(), data.as_ptr(), "the payload was copied");
        }
    }

    #[test]
    fn kinds_that_a_node_only_tells_itself_do_not_leave_it() {
        let mut message = eraftpb::Message::default();
        message.to = 1;
        message.from = 2;
        message.msg_type = eraftpb::MessageType::MsgHup;
        assert!(message_from_raft(message).is_none());
    }
}
