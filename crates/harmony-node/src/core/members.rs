//! The membership that follows from committed changes.

use harmony_types::{ConfChange, ConfChangeType, Membership, Role};

/// The membership after changes: raft's voter sets, and our addresses.
#[must_use]
pub fn membership_after(before: &Membership, changes: Vec<ConfChange>, voter_sets: Membership) -> Membership {
    let mut after = voter_sets;
    after.members.clone_from(&before.members);
    after.removed.clone_from(&before.removed);
    after.joining.clone_from(&before.joining);
    for change in changes {
        change_one(&mut after, before, change);
    }
    // In a joint configuration one that is to go still votes, and is still reached, until it ends.
    let counted = before.voters.iter().chain(&before.voters_outgoing).chain(&before.learners);
    for id in counted {
        if !after.contains(*id) {
            after.members.remove(id);
            after.removed.insert(*id);
        }
    }
    let Membership { members, joining, learners, .. } = &mut after;
    joining.retain(|id| learners.contains(id));
    for member in members.values_mut() {
        member.role = if learners.contains(&member.id) { Role::Learner } else { Role::Voter };
    }
    after
}

fn change_one(after: &mut Membership, before: &Membership, change: ConfChange) {
    let ConfChange { change_type, mut member } = change;
    match change_type {
        ConfChangeType::Remove => return,
        ConfChangeType::Join => drop(after.joining.insert(member.id)),
        ConfChangeType::AddVoter
        | ConfChangeType::AddLearner
        | ConfChangeType::Promote
        | ConfChangeType::Update => {}
    }
    // A promotion names the member only, an update new addresses; what the member told of itself stays.
    if let Some(known) = before.members.get(&member.id) {
        if member.name.is_empty() {
            member.name.clone_from(&known.name);
        }
        if member.client_urls.is_empty() {
            member.client_urls.clone_from(&known.client_urls);
        }
        if member.peer_urls.is_empty() || change_type == ConfChangeType::Promote {
            member.peer_urls.clone_from(&known.peer_urls);
        }
    }
    after.members.insert(member.id, member);
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
        let after = membership_after(&before, vec![update], sets(7));
        assert_eq!(after.members[&seven].name, "seven");
        assert_eq!(after.members[&seven].peer_urls, ["http://new:1"]);
        let gone = membership_after(&after, vec![change(ConfChangeType::Remove, Role::Voter)], sets(8));
        assert!(!gone.members.contains_key(&seven));
        assert!(gone.removed.contains(&seven));
    }

    #[test]
    fn a_member_that_is_to_go_is_counted_until_the_joint_configuration_ends() {
        let (seven, eight) = (NodeId::new(7).unwrap(), NodeId::new(8).unwrap());
        let before = Membership::from_members([change(ConfChangeType::AddVoter, Role::Voter).member]);
        let joint = Membership {
            voters: [eight].into(),
            voters_outgoing: [seven].into(),
            auto_leave: true,
            ..Membership::default()
        };
        let during = membership_after(&before, vec![change(ConfChangeType::Remove, Role::Voter)], joint);
        assert_eq!(during.check(), Ok(()));
        assert!(during.members.contains_key(&seven), "it is reached");
        let after =
            membership_after(&during, vec![], Membership { voters: [eight].into(), ..Membership::default() });
        assert_eq!(after.check(), Ok(()));
        assert!(after.removed.contains(&seven) && !after.members.contains_key(&seven));
    }
}
