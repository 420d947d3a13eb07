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
    /// In the first of several: the others.
    #[prost(message, repeated, tag = "7")]
    others: Vec<WireMember>,
}

/// The data of the entry that makes these changes.
pub(crate) fn encode_changes(changes: &[ConfChange]) -> Bytes {
    // To raft an update is the addition of a member that is there already, in the role it has: nothing changes.
    let change_type = |change: &ConfChange| match change.role_after() {
        None => eraftpb::ConfChangeType::RemoveNode,
        Some(Role::Voter) => eraftpb::ConfChangeType::AddNode,
        Some(Role::Learner) => eraftpb::ConfChangeType::AddLearnerNode,
    };
    let singles = changes
        .iter()
        .map(|change| WireSingle { change_type: change_type(change) as i32, node: change.member.id.get() });
    let mut members = changes.iter().map(member_to_wire);
    let context = members.next().map(|first| WireMember { others: members.collect(), ..first });
    WireChange {
        transition: 0,
        changes: singles.collect(),
        context: context.map(|member| member.encode_to_vec().into()).unwrap_or_default(),
    }
    .encode_to_vec()
    .into()
}

fn member_to_wire(change: &ConfChange) -> WireMember {
    WireMember {
        change_type: change.change_type as u32,
        id: change.member.id.get(),
        name: change.member.name.clone(),
        peer_urls: change.member.peer_urls.clone(),
        client_urls: change.member.client_urls.clone(),
        learner: change.member.role == Role::Learner,
        others: Vec::new(),
    }
}

/// Reads an entry's data back: raft's form, and the members' addresses; none when raft made the change itself.
///
/// # Errors
/// The data makes no sense; in words.
pub(crate) fn decode_changes(data: Bytes) -> Result<(eraftpb::ConfChangeV2, Vec<ConfChange>), String> {
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
    if wire.context.is_empty() {
        return Ok((raft, Vec::new()));
    }
    let mut first = WireMember::decode(wire.context).map_err(|error| error.to_string())?;
    let others = std::mem::take(&mut first.others);
    let changes = std::iter::once(first).chain(others).map(change_from_wire).collect::<Result<_, _>>()?;
    Ok((raft, changes))
}

fn change_from_wire(wire: WireMember) -> Result<ConfChange, String> {
    let change_type = u8::try_from(wire.change_type)
        .ok()
        .and_then(ConfChangeType::from_u8)
        .ok_or_else(|| format!("unknown change type {}", wire.change_type))?;
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
        let other = ConfChange {
            change_type: ConfChangeType::Remove,
            member: Member { id: NodeId::new(8).unwrap(), ..change.member.clone() },
        };
        let data = encode_changes(&[change.clone(), other.clone()]);
        let mut parsed = eraftpb::ConfChangeV2::default();
        parsed.merge_from_bytes(&data).unwrap();
        let (decoded, members) = decode_changes(data).unwrap();
        assert_eq!(parsed.get_changes(), decoded.get_changes());
        assert_eq!(parsed.transition, decoded.transition);
        assert_eq!(parsed.get_changes()[0].node_id, 7);
        assert_eq!(parsed.get_changes()[0].change_type, eraftpb::ConfChangeType::AddLearnerNode);
        assert_eq!(parsed.get_changes()[1].change_type, eraftpb::ConfChangeType::RemoveNode);
        assert_eq!(members, [change, other]);
    }

    #[test]
    fn an_empty_entry_leaves_the_joint_configuration() {
        let (decoded, members) = decode_changes(Bytes::new()).unwrap();
        assert!(decoded.leave_joint());
        assert_eq!(members, []);
    }

    #[test]
    fn an_update_changes_no_voter_set() {
        let (decoded, _) =
            decode_changes(encode_changes(&[change(ConfChangeType::Update, Role::Voter)])).unwrap();
        assert_eq!(decoded.get_changes()[0].change_type, eraftpb::ConfChangeType::AddNode);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(decode_changes(Bytes::from_static(b"\xff")).is_err());
        let single = WireSingle { change_type: 9, node: 1 };
        let wire = WireChange { transition: 0, changes: vec![single], context: Bytes::new() };
        assert!(decode_changes(wire.encode_to_vec().into()).unwrap_err().contains("change type 9"));
        let single = WireSingle { change_type: 0, node: 0 };
        let wire = WireChange { transition: 0, changes: vec![single], context: Bytes::new() };
        assert!(decode_changes(wire.encode_to_vec().into()).unwrap_err().contains("node 0"));
        let wire = WireChange { transition: 3, changes: Vec::new(), context: Bytes::new() };
        assert!(decode_changes(wire.encode_to_vec().into()).unwrap_err().contains("transition 3"));
    }
}
