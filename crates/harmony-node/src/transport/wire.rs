//! What peers say to each other, as protobuf of our own with frozen tags. Every number is checked on its way in.

use bytes::Bytes;
use harmony_types::lease::TimeToLive;
use harmony_types::transport::{ChangeError, ForwardError, Forwarded};
use harmony_types::{
    Entry, EntryType, LeaseId, LogIndex, Member, Membership, MembershipError, Message, MessageType, NodeId,
    PeerMessage, Role, SnapshotMeta, Term,
};
use prost::Message as _;

use crate::raft::{decode_changes, encode_changes};

/// First field of every handshake: what is not this is no peer.
pub(super) const MAGIC: u64 = 0x4861_726d_6f6e_7944;

/// Version of everything that peers exchange.
pub(super) const PROTOCOL_VERSION: u32 = 2;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Purpose {
    /// Never sent.
    Unspecified = 0,
    /// Messages, from the dialing side to the other.
    Messages = 1,
    /// One snapshot, or the rest of one, then the end. 2 was a form that could not go on after an interruption.
    Snapshot = 3,
    /// Somebody who is no member yet asks who the members are; the answer is one [`WireRoster`], whatever cluster and
    /// member the hello names.
    Roster = 4,
}

/// The first frame in each direction of a connection.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Hello {
    #[prost(fixed64, tag = "1")]
    pub(super) magic: u64,
    #[prost(uint32, tag = "2")]
    pub(super) version: u32,
    #[prost(fixed64, tag = "3")]
    pub(super) cluster: u64,
    #[prost(fixed64, tag = "4")]
    pub(super) from: u64,
    #[prost(fixed64, tag = "5")]
    pub(super) to: u64,
    #[prost(enumeration = "Purpose", tag = "6")]
    pub(super) purpose: i32,
    /// In an answer: why the connection is refused; empty when it is not.
    #[prost(string, tag = "7")]
    pub(super) refusal: String,
    /// Last index of the sender's log.
    #[prost(uint64, tag = "8")]
    pub(super) last: u64,
    /// In an answer: the member that dialed was removed.
    #[prost(bool, tag = "9")]
    pub(super) removed: bool,
    /// In an answer: the index that the member that dialed had acknowledged, when it does not hold it any more; else 0.
    #[prost(uint64, tag = "10")]
    pub(super) acknowledged: u64,
    /// Number of the sender's data directory; 0 when it has none.
    #[prost(fixed64, tag = "11")]
    pub(super) incarnation: u64,
    /// In an answer: the member that dialed runs on another data directory than it had.
    #[prost(bool, tag = "12")]
    pub(super) replaced: bool,
    /// In an answer: pings on a connection for messages are answered.
    #[prost(bool, tag = "15")]
    pub(super) answers_pings: bool,
}

/// A frame of a connection for messages.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Envelope {
    #[prost(oneof = "Content", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15")]
    pub(super) content: Option<Content>,
}

#[allow(clippy::large_enum_variant, reason = "nearly every frame carries the large one")]
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Content {
    #[prost(message, tag = "1")]
    Raft(WireMessage),
    #[prost(message, tag = "2")]
    Propose(WirePropose),
    #[prost(message, tag = "3")]
    Reply(WireReply),
    #[prost(message, tag = "4")]
    Change(WireChangeRequest),
    #[prost(message, tag = "5")]
    ChangeReply(WireChangeReply),
    #[prost(message, tag = "6")]
    Acknowledged(WireAcknowledged),
    #[prost(message, tag = "7")]
    Hashes(WireHashes),
    #[prost(message, tag = "8")]
    Diverged(WireDiverged),
    #[prost(message, tag = "9")]
    LeaseCall(WireLeaseCall),
    #[prost(message, tag = "10")]
    LeaseReply(WireLeaseReply),
    /// Asks the other side's transport for an answer with the same number, on the same connection.
    #[prost(fixed64, tag = "15")]
    Ping(u64),
}

/// The changes as the entry has them.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct WireChangeRequest {
    #[prost(uint64, tag = "1")]
    request: u64,
    #[prost(bytes = "bytes", tag = "2")]
    changes: Bytes,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct WireChangeReply {
    #[prost(uint64, tag = "1")]
    request: u64,
    /// Place of the entry; 0 when nothing changed.
    #[prost(uint64, tag = "2")]
    index: u64,
    /// As in `WireReply`.
    #[prost(uint32, tag = "3")]
    error: u32,
    /// Why the change is not allowed; 0: it is.
    #[prost(uint32, tag = "4")]
    refusal: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct WireAcknowledged {
    #[prost(fixed64, repeated, tag = "1")]
    members: Vec<u64>,
    #[prost(uint64, repeated, tag = "2")]
    indexes: Vec<u64>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct WireHashes {
    #[prost(uint64, repeated, tag = "1")]
    indexes: Vec<u64>,
    #[prost(fixed32, repeated, tag = "2")]
    hashes: Vec<u32>,
    #[prost(bool, tag = "3")]
    corrupt: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct WireDiverged {
    #[prost(uint64, tag = "1")]
    index: u64,
    #[prost(fixed32, tag = "2")]
    hash: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct WireLeaseCall {
    #[prost(uint64, tag = "1")]
    request: u64,
    #[prost(int64, tag = "2")]
    id: i64,
    #[prost(bool, tag = "3")]
    renew: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct WireLeaseReply {
    #[prost(uint64, tag = "1")]
    request: u64,
    /// As in `WireReply`.
    #[prost(uint32, tag = "2")]
    error: u32,
    /// Seconds granted; 0: there is no such lease.
    #[prost(int64, tag = "3")]
    granted_s: i64,
    #[prost(int64, tag = "4")]
    remaining_s: i64,
}

/// The answer to a ping, the only frame that goes against a connection's direction.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Pong {
    #[prost(fixed64, tag = "1")]
    pub(super) number: u64,
}

/// A frame that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Message(PeerMessage),
    Ping(u64),
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct WirePropose {
    #[prost(uint64, tag = "1")]
    request: u64,
    #[prost(bytes = "bytes", tag = "2")]
    data: Bytes,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct WireReply {
    #[prost(uint64, tag = "1")]
    request: u64,
    #[prost(bytes = "bytes", tag = "2")]
    outcome: Bytes,
    /// 0: there is an outcome.
    #[prost(uint32, tag = "3")]
    error: u32,
    /// Place of the entry; 0 without an outcome.
    #[prost(uint64, tag = "4")]
    index: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireMessage {
    #[prost(uint32, tag = "1")]
    message_type: u32,
    #[prost(fixed64, tag = "2")]
    to: u64,
    #[prost(fixed64, tag = "3")]
    from: u64,
    #[prost(uint64, tag = "4")]
    term: u64,
    #[prost(uint64, tag = "5")]
    log_term: u64,
    #[prost(uint64, tag = "6")]
    index: u64,
    #[prost(message, repeated, tag = "7")]
    entries: Vec<WireEntry>,
    #[prost(uint64, tag = "8")]
    commit: u64,
    #[prost(uint64, tag = "9")]
    commit_term: u64,
    #[prost(message, optional, tag = "10")]
    snapshot: Option<WireSnapshot>,
    #[prost(uint64, tag = "11")]
    request_snapshot: u64,
    #[prost(bool, tag = "12")]
    reject: bool,
    #[prost(uint64, tag = "13")]
    reject_hint: u64,
    #[prost(bytes = "bytes", tag = "14")]
    context: Bytes,
    #[prost(sint64, tag = "15")]
    priority: i64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct WireEntry {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    index: u64,
    #[prost(uint32, tag = "3")]
    entry_type: u32,
    #[prost(bytes = "bytes", tag = "4")]
    data: Bytes,
}

/// Who the members of a cluster are.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireRoster {
    #[prost(fixed64, tag = "1")]
    pub(super) cluster: u64,
    /// Of which only the membership counts.
    #[prost(message, optional, tag = "2")]
    pub(super) members: Option<WireSnapshot>,
}

/// What a snapshot stands for; also the head of a snapshot file.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WireSnapshot {
    #[prost(uint64, tag = "1")]
    index: u64,
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(message, repeated, tag = "3")]
    members: Vec<WireMember>,
    #[prost(fixed64, repeated, tag = "4")]
    voters: Vec<u64>,
    #[prost(fixed64, repeated, tag = "5")]
    learners: Vec<u64>,
    #[prost(fixed64, repeated, tag = "6")]
    voters_outgoing: Vec<u64>,
    #[prost(fixed64, repeated, tag = "7")]
    learners_next: Vec<u64>,
    #[prost(bool, tag = "8")]
    auto_leave: bool,
    #[prost(fixed64, repeated, tag = "9")]
    removed: Vec<u64>,
    #[prost(fixed64, repeated, tag = "10")]
    joining: Vec<u64>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct WireMember {
    #[prost(fixed64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, repeated, tag = "3")]
    peer_urls: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    client_urls: Vec<String>,
    #[prost(bool, tag = "5")]
    learner: bool,
}

/// The wire's form of a message; payloads are shared.
pub(super) fn envelope(message: PeerMessage) -> Envelope {
    Envelope {
        content: Some(match message {
            PeerMessage::Raft(message) => Content::Raft(message_to_wire(*message)),
            PeerMessage::Propose { request, data } => Content::Propose(WirePropose { request, data }),
            PeerMessage::ProposeReply { request, result } => {
                let (index, outcome, error) = match result {
                    Ok(Forwarded { index, outcome }) => (index.0, outcome, 0),
                    Err(error) => (0, Bytes::new(), error as u32),
                };
                Content::Reply(WireReply { request, outcome, error, index })
            }
            PeerMessage::Change { request, changes } => {
                Content::Change(WireChangeRequest { request, changes: encode_changes(&changes) })
            }
            PeerMessage::ChangeReply { request, result } => Content::ChangeReply(match result {
                Ok(index) => WireChangeReply { request, index: index.0, ..WireChangeReply::default() },
                Err(ChangeError::Forward(error)) => {
                    WireChangeReply { request, error: error as u32, ..WireChangeReply::default() }
                }
                Err(ChangeError::Refused(error)) => {
                    WireChangeReply { request, refusal: error as u32, ..WireChangeReply::default() }
                }
            }),
            PeerMessage::LeaseCall { request, id, renew } => {
                Content::LeaseCall(WireLeaseCall { request, id: id.0, renew })
            }
            PeerMessage::LeaseReply { request, result } => Content::LeaseReply(match result {
                Ok(Some(TimeToLive { granted_s, remaining_s })) => {
                    WireLeaseReply { request, granted_s, remaining_s, ..WireLeaseReply::default() }
                }
                Ok(None) => WireLeaseReply { request, ..WireLeaseReply::default() },
                Err(error) => WireLeaseReply { request, error: error as u32, ..WireLeaseReply::default() },
            }),
            PeerMessage::Acknowledged { held } => Content::Acknowledged(WireAcknowledged {
                members: held.iter().map(|(id, _)| id.get()).collect(),
                indexes: held.iter().map(|(_, index)| index.0).collect(),
            }),
            PeerMessage::Hashes { hashes, corrupt } => {
                let (indexes, hashes) = hashes.into_iter().map(|(index, hash)| (index.0, hash)).unzip();
                Content::Hashes(WireHashes { indexes, hashes, corrupt })
            }
            PeerMessage::Diverged { index, hash } => Content::Diverged(WireDiverged { index: index.0, hash }),
        }),
    }
}

/// Reads one frame of a connection for messages.
///
/// # Errors
/// It makes no sense; in words.
pub(super) fn decode(frame: Bytes) -> Result<Frame, String> {
    let envelope = Envelope::decode(frame).map_err(|error| error.to_string())?;
    let message = match envelope.content.ok_or("a message of an unknown kind")? {
        Content::Ping(number) => return Ok(Frame::Ping(number)),
        Content::Raft(message) => PeerMessage::Raft(Box::new(message_from_wire(message)?)),
        Content::Propose(WirePropose { request, data }) => PeerMessage::Propose { request, data },
        Content::Reply(WireReply { request, outcome, error, index }) => {
            let result = match error {
                0 => Ok(Forwarded { index: LogIndex(index), outcome }),
                error => Err(forward_error(error)?),
            };
            PeerMessage::ProposeReply { request, result }
        }
        Content::Change(WireChangeRequest { request, changes }) => {
            let (_, changes) = decode_changes(changes)?;
            PeerMessage::Change { request, changes }
        }
        Content::ChangeReply(WireChangeReply { request, index, error, refusal }) => {
            let result = match (error, refusal) {
                (0, 0) => Ok(LogIndex(index)),
                (0, refusal) => {
                    let refusal = u8::try_from(refusal).ok().and_then(MembershipError::from_u8);
                    // A newer release may have reasons of which this one has not heard.
                    Err(ChangeError::Refused(refusal.unwrap_or(MembershipError::Impossible)))
                }
                (error, _) => Err(ChangeError::Forward(forward_error(error)?)),
            };
            PeerMessage::ChangeReply { request, result }
        }
        Content::LeaseCall(WireLeaseCall { request, id, renew }) => {
            PeerMessage::LeaseCall { request, id: LeaseId(id), renew }
        }
        Content::LeaseReply(WireLeaseReply { request, error, granted_s, remaining_s }) => {
            let result = match error {
                0 => Ok((granted_s != 0).then_some(TimeToLive { granted_s, remaining_s })),
                error => Err(forward_error(error)?),
            };
            PeerMessage::LeaseReply { request, result }
        }
        Content::Acknowledged(WireAcknowledged { members, indexes }) => {
            if members.len() != indexes.len() {
                return Err(format!("{} members with {} indexes", members.len(), indexes.len()));
            }
            let held = members
                .into_iter()
                .zip(indexes)
                .map(|(id, index)| Ok((NodeId::new(id).ok_or("member 0 holds something")?, LogIndex(index))));
            PeerMessage::Acknowledged { held: held.collect::<Result<_, String>>()? }
        }
        Content::Hashes(WireHashes { indexes, hashes, corrupt }) => {
            if indexes.len() != hashes.len() {
                return Err(format!("{} indexes with {} hashes", indexes.len(), hashes.len()));
            }
            let hashes = indexes.into_iter().map(LogIndex).zip(hashes).collect();
            PeerMessage::Hashes { hashes, corrupt }
        }
        Content::Diverged(WireDiverged { index, hash }) => {
            PeerMessage::Diverged { index: LogIndex(index), hash }
        }
    };
    Ok(Frame::Message(message))
}

fn forward_error(number: u32) -> Result<ForwardError, String> {
    Ok(match number {
        1 => ForwardError::NotLeader,
        2 => ForwardError::Busy,
        3 => ForwardError::TooLarge,
        4 => ForwardError::Unknown,
        5 => ForwardError::NoSpace,
        other => return Err(format!("unknown answer {other}")),
    })
}

/// The wire's form of a message to raft.
pub(super) fn message_to_wire(message: Message) -> WireMessage {
    WireMessage {
        message_type: message.message_type as u32,
        to: message.to.get(),
        from: message.from.get(),
        term: message.term.0,
        log_term: message.log_term.0,
        index: message.index.0,
        entries: message
            .entries
            .into_iter()
            .map(|entry| WireEntry {
                term: entry.term.0,
                index: entry.index.0,
                entry_type: entry.entry_type as u32,
                data: entry.data,
            })
            .collect(),
        commit: message.commit.0,
        commit_term: message.commit_term.0,
        snapshot: message.snapshot.map(|meta| snapshot_to_wire(&meta)),
        request_snapshot: message.request_snapshot.0,
        reject: message.reject,
        reject_hint: message.reject_hint.0,
        context: message.context,
        priority: message.priority,
    }
}

/// Checks and takes in a message to raft.
///
/// # Errors
/// What is wrong with it.
pub(super) fn message_from_wire(wire: WireMessage) -> Result<Message, String> {
    let message_type = u8::try_from(wire.message_type)
        .ok()
        .and_then(MessageType::from_u8)
        .ok_or_else(|| format!("unknown message type {}", wire.message_type))?;
    let entries = wire.entries.into_iter().map(|entry| {
        let entry_type = u8::try_from(entry.entry_type)
            .ok()
            .and_then(EntryType::from_u8)
            .ok_or_else(|| format!("unknown entry type {}", entry.entry_type))?;
        Ok(Entry { term: Term(entry.term), index: LogIndex(entry.index), entry_type, data: entry.data })
    });
    Ok(Message {
        message_type,
        to: NodeId::new(wire.to).ok_or("a message to member 0")?,
        from: NodeId::new(wire.from).ok_or("a message from member 0")?,
        term: Term(wire.term),
        log_term: Term(wire.log_term),
        index: LogIndex(wire.index),
        entries: entries.collect::<Result<_, String>>()?,
        commit: LogIndex(wire.commit),
        commit_term: Term(wire.commit_term),
        snapshot: wire.snapshot.map(|snapshot| snapshot_from_wire(snapshot).map(Box::new)).transpose()?,
        request_snapshot: LogIndex(wire.request_snapshot),
        reject: wire.reject,
        reject_hint: LogIndex(wire.reject_hint),
        context: wire.context,
        priority: wire.priority,
    })
}

/// The wire's form of what a snapshot stands for.
pub(crate) fn snapshot_to_wire(meta: &SnapshotMeta) -> WireSnapshot {
    let numbers = |ids: &std::collections::BTreeSet<NodeId>| ids.iter().map(|id| id.get()).collect();
    let membership = &meta.membership;
    let members = membership.members.values().map(|member| WireMember {
        id: member.id.get(),
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        client_urls: member.client_urls.clone(),
        learner: member.role == Role::Learner,
    });
    WireSnapshot {
        index: meta.index.0,
        term: meta.term.0,
        members: members.collect(),
        voters: numbers(&membership.voters),
        learners: numbers(&membership.learners),
        voters_outgoing: numbers(&membership.voters_outgoing),
        learners_next: numbers(&membership.learners_next),
        auto_leave: membership.auto_leave,
        removed: numbers(&membership.removed),
        joining: numbers(&membership.joining),
    }
}

/// Checks and takes in what a snapshot stands for.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn snapshot_from_wire(wire: WireSnapshot) -> Result<SnapshotMeta, String> {
    fn id(number: u64) -> Result<NodeId, String> {
        NodeId::new(number).ok_or_else(|| "member 0".to_owned())
    }
    fn ids(numbers: Vec<u64>) -> Result<std::collections::BTreeSet<NodeId>, String> {
        numbers.into_iter().map(id).collect()
    }
    let members = wire.members.into_iter().map(|member| {
        let id = id(member.id)?;
        let member = Member {
            id,
            name: member.name,
            peer_urls: member.peer_urls,
            client_urls: member.client_urls,
            role: if member.learner { Role::Learner } else { Role::Voter },
        };
        Ok((id, member))
    });
    let membership = Membership {
        members: members.collect::<Result<_, String>>()?,
        voters: ids(wire.voters)?,
        learners: ids(wire.learners)?,
        voters_outgoing: ids(wire.voters_outgoing)?,
        learners_next: ids(wire.learners_next)?,
        auto_leave: wire.auto_leave,
        removed: ids(wire.removed)?,
        joining: ids(wire.joining)?,
    };
    membership.check()?;
    Ok(SnapshotMeta { index: LogIndex(wire.index), term: Term(wire.term), membership })
}

#[cfg(test)]
mod tests;
