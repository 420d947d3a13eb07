//! Membership changes as entries: our own encoding of raft's change, with the member's addresses beside it.
//!
//! The entry's data is protobuf in the `raft` crate's layout, because that crate reads it back when it is proposed. Every
//! other reader, of entries that came from peers, is the decoder here: raft's own parser never sees network bytes.

use bytes::Bytes;
use harmony_types::{ConfChange, ConfChangeType, Member, NodeId, Role};
use prost::Message as _;
use raft_proto::eraftpb;

#[derive(Clone, PartialEq, prost::Message)]
struct WireChange {
    #[prost(int32, tag = "1")]
    transition: i32,
    #[prost(message, repeated, tag = "2")]
    changes: Vec<WireSingle>,
    #[prost(bytes = "bytes", tag = "3")]
    context: Bytes,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct WireSingle {
    #[prost(int32, tag = "1")]
    change_type: i32,
    #[prost(uint64, tag = "2")]
    node: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireMember {
    #[prost(uint32, tag = "1")]
    change_type: u32,
    #[prost(uint64, tag = "2")]
    id: u64,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, repeated, tag = "4")]
    peer_urls: Vec<String>,
    #[prost(string, repeated, tag = "5")]
    client_urls: Vec<String>,
    #[prost(bool, tag = "6")]
    learner: bool,
}

/// The data of the entry that makes this change.
pub(crate) fn encode_change(change: &ConfChange) -> Bytes {
    // To raft an update is the addition of a member that is there already, in the role it has: nothing changes. No change
    // at all would mean "leave the joint configuration".
    let change_type = match (change.role_after(), change.change_type) {
        (None, _) => eraftpb::ConfChangeType::RemoveNode,
        (Some(Role::Voter), _) => eraftpb::ConfChangeType::AddNode,
        (Some(Role::Learner), _) => eraftpb::ConfChangeType::AddLearnerNode,
    };
    let member = WireMember {
        change_type: change.change_type as u32,
        id: change.member.id.get(),
        name: change.member.name.clone(),
        peer_urls: change.member.peer_urls.clone(),
        client_urls: change.member.client_urls.clone(),
        learner: change.member.role == Role::Learner,
    };
    let single = WireSingle { change_type: change_type as i32, node: change.member.id.get() };
    WireChange { transition: 0, changes: vec![single], context: member.encode_to_vec().into() }
        .encode_to_vec()
        .into()
}

/// Reads an entry's data back: raft's form, and the member's addresses unless raft made the change itself.
///
/// # Errors
/// The data makes no sense; in words.
pub(crate) fn decode_change(data: Bytes) -> Result<(eraftpb::ConfChangeV2, Option<ConfChange>), String> {
    let wire = WireChange::decode(data).map_err(|error| error.to_string())?;
    let mut raft = eraftpb::ConfChangeV2::default();
    raft.transition = match wire.transition {
        0 => eraftpb::ConfChangeTransition::Auto,
        1 => eraftpb::ConfChangeTransition::Implicit,
        2 => eraftpb::ConfChangeTransition::Explicit,
        other => return Err(format!("unknown transition {other}")),
    };
    for change in wire.changes {
        let mut single = eraftpb::ConfChangeSingle::default();
        single.node_id = NodeId::new(change.node).ok_or("a change of node 0")?.get();
        single.change_type = match change.change_type {
            0 => eraftpb::ConfChangeType::AddNode,
            1 => eraftpb::ConfChangeType::RemoveNode,
            2 => eraftpb::ConfChangeType::AddLearnerNode,
            other => return Err(format!("unknown change type {other}")),
        };
        raft.mut_changes().push(single);
    }
    let member = if wire.context.is_empty() { None } else { Some(decode_member(wire.context)?) };
    Ok((raft, member))
}

fn decode_member(context: Bytes) -> Result<ConfChange, String> {
    let wire = WireMember::decode(context).map_err(|error| error.to_string())?;
    let change_type = match wire.change_type {
        0 => ConfChangeType::AddVoter,
        1 => ConfChangeType::Remove,
        2 => ConfChangeType::AddLearner,
        3 => ConfChangeType::Update,
        other => return Err(format!("unknown change type {other}")),
    };
    let member = Member {
        id: NodeId::new(wire.id).ok_or("a change of member 0")?,
        name: wire.name,
        peer_urls: wire.peer_urls,
        client_urls: wire.client_urls,
        role: if wire.learner { Role::Learner } else { Role::Voter },
    };
    Ok(ConfChange { change_type, member })
}

#[cfg(test)]
mod tests {
    use protobuf::Message as _;

    use super::*;

    fn change(change_type: ConfChangeType, role: Role) -> ConfChange {
        let member = Member {
            id: NodeId::new(7).unwrap(),
            name: "seven".to_owned(),
            peer_urls: vec!["http://seven:2380".to_owned()],
            client_urls: Vec::new(),
            role,
        };
        ConfChange { change_type, member }
    }

    #[test]
    fn the_raft_crate_reads_what_we_encode() {
        let change = change(ConfChangeType::AddLearner, Role::Learner);
        let data = encode_change(&change);
        let mut parsed = eraftpb::ConfChangeV2::default();
        parsed.merge_from_bytes(&data).unwrap();
        let (decoded, member) = decode_change(data).unwrap();
        assert_eq!(parsed.get_changes(), decoded.get_changes());
        assert_eq!(parsed.transition, decoded.transition);
        assert_eq!(parsed.get_changes()[0].node_id, 7);
        assert_eq!(parsed.get_changes()[0].change_type, eraftpb::ConfChangeType::AddLearnerNode);
        assert_eq!(member, Some(change));
    }

    #[test]
    fn an_empty_entry_leaves_the_joint_configuration() {
        let (decoded, member) = decode_change(Bytes::new()).unwrap();
        assert!(decoded.leave_joint());
        assert_eq!(member, None);
    }

    #[test]
    fn an_update_changes_no_voter_set() {
        let (decoded, _) =
            decode_change(encode_change(&change(ConfChangeType::Update, Role::Voter))).unwrap();
        assert_eq!(decoded.get_changes()[0].change_type, eraftpb::ConfChangeType::AddNode);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(decode_change(Bytes::from_static(b"\xff")).is_err());
        let single = WireSingle { change_type: 9, node: 1 };
        let wire = WireChange { transition: 0, changes: vec![single], context: Bytes::new() };
        assert!(decode_change(wire.encode_to_vec().into()).unwrap_err().contains("change type 9"));
        let single = WireSingle { change_type: 0, node: 0 };
        let wire = WireChange { transition: 0, changes: vec![single], context: Bytes::new() };
        assert!(decode_change(wire.encode_to_vec().into()).unwrap_err().contains("node 0"));
        let wire = WireChange { transition: 3, changes: Vec::new(), context: Bytes::new() };
        assert!(decode_change(wire.encode_to_vec().into()).unwrap_err().contains("transition 3"));
    }
}
