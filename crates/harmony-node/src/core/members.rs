//! The membership that follows from a committed change.

use harmony_types::{ConfChange, ConfChangeType, Membership, Role};

/// The membership after a change: raft's voter sets, and our addresses.
#[must_use]
pub fn membership_after(
    before: &Membership,
    change: Option<ConfChange>,
    voter_sets: Membership,
) -> Membership {
    let mut after = voter_sets;
    after.members.clone_from(&before.members);
    after.removed.clone_from(&before.removed);
    match change {
        Some(ConfChange { change_type: ConfChangeType::Remove, member }) => {
            after.members.remove(&member.id);
            after.removed.insert(member.id);
        }
        Some(ConfChange { change_type, mut member }) => {
            // A promotion or an update names new peer addresses only; what the member told of itself stays.
            if let Some(known) = before.members.get(&member.id) {
                if member.name.is_empty() {
                    member.name.clone_from(&known.name);
                }
                if member.client_urls.is_empty() {
                    member.client_urls.clone_from(&known.client_urls);
                }
                if member.peer_urls.is_empty() || change_type == ConfChangeType::AddVoter {
                    member.peer_urls.clone_from(&known.peer_urls);
                }
            }
            after.members.insert(member.id, member);
        }
        None => {}
    }
    for member in after.members.values_mut() {
        member.role = if after.learners.contains(&member.id) { Role::Learner } else { Role::Voter };
    }
    after
}

#[cfg(test)]
mod tests {
    use harmony_types::{Member, NodeId};

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
    fn a_removed_id_is_remembered_and_a_known_name_stays() {
        let seven = NodeId::new(7).unwrap();
        let before = Membership::from_members([change(ConfChangeType::AddVoter, Role::Voter).member]);
        let sets =
            |number| Membership { voters: [NodeId::new(number).unwrap()].into(), ..Membership::default() };
        let mut update = change(ConfChangeType::Update, Role::Voter);
        update.member.name.clear();
        update.member.peer_urls = vec!["http://new:1".to_owned()];
        let after = membership_after(&before, Some(update), sets(7));
        assert_eq!(after.members[&seven].name, "seven");
        assert_eq!(after.members[&seven].peer_urls, ["http://new:1"]);
        let gone = membership_after(&after, Some(change(ConfChangeType::Remove, Role::Voter)), sets(8));
        assert!(!gone.members.contains_key(&seven));
        assert!(gone.removed.contains(&seven));
    }
}
