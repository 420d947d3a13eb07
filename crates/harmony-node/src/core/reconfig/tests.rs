use super::*;

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

fn member(number: u64, role: Role) -> Member {
    Member {
        id: id(number),
        name: String::new(),
        peer_urls: vec![format!("http://n{number}:2380")],
        client_urls: Vec::new(),
        role,
    }
}

/// A cluster led by n1: voters `1..=voters`, a learner behind them, and what the leader knows of them.
struct Case {
    voters: u64,
    learner: bool,
    /// Voters that never ran.
    unstarted: &'static [u64],
    /// Members that are away.
    away: &'static [u64],
    /// What the leader and the learner have.
    matched: (u64, u64),
}

impl Case {
    const fn of(voters: u64) -> Self {
        Self { voters, learner: false, unstarted: &[], away: &[], matched: (100, 100) }
    }

    fn check(&self, strict: bool, changes: &[(ConfChangeType, u64)]) -> Result<(), MembershipError> {
        let learner = self.voters + 1;
        let mut members: Vec<Member> = (1..=self.voters).map(|number| member(number, Role::Voter)).collect();
        members.extend(self.learner.then(|| member(learner, Role::Learner)));
        let mut membership = Membership::from_members(members);
        membership.removed.insert(id(9));
        let there = |number: &u64| !self.away.contains(number);
        let known = || 1..=self.voters + u64::from(self.learner);
        let matched = known()
            .filter(|number| !self.unstarted.contains(number))
            .map(|number| {
                (id(number), LogIndex(if number == learner { self.matched.1 } else { self.matched.0 }))
            })
            .collect();
        let standing = Standing {
            membership: &membership,
            me: id(1),
            matched,
            heard: known().filter(there).map(id).collect(),
            strict,
            learners_max: 1,
        };
        let changes: Vec<ConfChange> = changes
            .iter()
            .map(|(change_type, number)| {
                let role = if *number == learner && self.learner { Role::Learner } else { Role::Voter };
                ConfChange { change_type: *change_type, member: member(*number, role) }
            })
            .collect();
        check(&standing, &changes)
    }
}

use ConfChangeType::{AddLearner, AddVoter, Join, Promote, Remove, Update};
use MembershipError as E;

/// etcd's `mayAddMember`, `mayRemoveMember` and `PromoteMember`, case by case.
#[test]
fn a_change_that_would_lose_the_quorum_is_refused() {
    let one = Case::of(1);
    let three = Case::of(3);
    let one_away = Case { away: &[3], ..Case::of(3) };
    let two_of_which_one_never_ran = Case { unstarted: &[2], away: &[2], ..Case::of(2) };
    let three_of_which_one_never_ran = Case { unstarted: &[3], away: &[3], ..Case::of(3) };
    for (case, change, expected) in [
        (&one, (AddVoter, 2), Ok(())),
        (&three, (AddVoter, 4), Ok(())),
        (&one_away, (AddVoter, 4), Err(E::Unhealthy)),
        (&two_of_which_one_never_ran, (AddVoter, 3), Err(E::NotEnoughStarted)),
        // Learners count for nothing.
        (&one_away, (AddLearner, 4), Ok(())),
        (&two_of_which_one_never_ran, (Join, 3), Ok(())),
        (&three, (Remove, 3), Ok(())),
        (&three, (Remove, 1), Ok(())),
        // The one that is away may go, the others may not.
        (&one_away, (Remove, 3), Ok(())),
        (&one_away, (Remove, 2), Err(E::Unhealthy)),
        (&two_of_which_one_never_ran, (Remove, 2), Ok(())),
        (&two_of_which_one_never_ran, (Remove, 1), Err(E::NotEnoughStarted)),
        (&three_of_which_one_never_ran, (Remove, 2), Err(E::NotEnoughStarted)),
        (&three_of_which_one_never_ran, (Remove, 3), Ok(())),
        (&one, (Remove, 1), Err(E::LastVoter)),
    ] {
        assert_eq!(case.check(true, &[change]), expected, "{change:?} of {} voters", case.voters);
    }
    assert_eq!(one_away.check(false, &[(AddVoter, 4)]), Ok(()), "checks that are switched off");
    assert_eq!(one.check(false, &[(Remove, 1)]), Err(E::LastVoter), "this one cannot be");
}

#[test]
fn a_learner_is_promoted_once_it_holds_nine_tenths_of_the_leaders_log() {
    for (leader, learner, ready) in [
        (100, 90, true),
        (100, 89, false),
        (1_000_000, 900_000, true),
        (1_000_000, 899_999, false),
        (5, 5, true),
    ] {
        let case = Case { learner: true, matched: (leader, learner), ..Case::of(3) };
        let expected = if ready { Ok(()) } else { Err(E::LearnerNotReady) };
        assert_eq!(case.check(true, &[(Promote, 4)]), expected, "{learner} of {leader}");
    }
    let away = Case { learner: true, away: &[2, 3], ..Case::of(3) };
    assert_eq!(away.check(true, &[(Promote, 4)]), Err(E::Unhealthy));
}

#[test]
fn what_makes_no_sense_is_named() {
    let case = Case { learner: true, ..Case::of(3) };
    for (changes, expected) in [
        (vec![(AddVoter, 2)], E::Exists),
        (vec![(AddVoter, 4)], E::Exists),
        (vec![(Join, 4)], E::Exists),
        (vec![(AddVoter, 9)], E::WasRemoved),
        (vec![(AddLearner, 5)], E::TooManyLearners),
        (vec![(Promote, 2)], E::NotLearner),
        (vec![(Promote, 7)], E::NotFound),
        (vec![(Remove, 7)], E::NotFound),
        (vec![(Remove, 9)], E::NotFound),
        (vec![(Update, 7)], E::NotFound),
        (vec![], E::Impossible),
        (vec![(Remove, 2), (Remove, 2)], E::Impossible),
        (vec![(Remove, 1), (Remove, 2), (Remove, 3)], E::LastVoter),
    ] {
        assert_eq!(case.check(true, &changes), Err(expected), "{changes:?}");
    }
    assert_eq!(case.check(true, &[(Update, 4)]), Ok(()));
    assert_eq!(Case { matched: (9, 0), ..case }.check(true, &[(Remove, 4)]), Ok(()));
}

#[test]
fn an_address_belongs_to_one_member() {
    let membership = Membership::from_members((1..=2).map(|number| member(number, Role::Voter)));
    let heard: BTreeSet<NodeId> = [id(1), id(2)].into();
    let matched = heard.iter().map(|id| (*id, LogIndex(1))).collect();
    let standing =
        Standing { membership: &membership, me: id(1), matched, heard, strict: true, learners_max: 1 };
    let of = |number, url: &str| Member { peer_urls: vec![url.to_owned()], ..member(number, Role::Voter) };
    for (change_type, member, expected) in [
        (AddVoter, of(3, "http://n2:2380"), Err(E::UrlExists)),
        (Update, of(1, "http://n2:2380"), Err(E::UrlExists)),
        (Update, of(2, "http://n2:2380"), Ok(())),
        (Update, of(2, "http://elsewhere:2380"), Ok(())),
    ] {
        assert_eq!(check(&standing, &[ConfChange { change_type, member }]), expected, "{change_type:?}");
    }
}

/// Several changes in one step are judged by the voters behind them; new ones are not there yet.
#[test]
fn several_changes_are_judged_together() {
    let three = Case::of(3);
    let learner = Case { learner: true, ..Case::of(3) };
    assert_eq!(learner.check(true, &[(Promote, 4), (Remove, 3)]), Ok(()));
    assert_eq!(three.check(true, &[(AddVoter, 4), (Remove, 3)]), Ok(()), "two of three are there");
    assert_eq!(three.check(true, &[(AddVoter, 4), (AddVoter, 5), (Remove, 3)]), Err(E::NotEnoughStarted));
    let one_away = Case { away: &[2], ..Case::of(3) };
    assert_eq!(one_away.check(true, &[(AddVoter, 4), (Remove, 3)]), Err(E::Unhealthy));
    let joint = Membership {
        voters_outgoing: [id(1)].into(),
        ..Membership::from_members([member(1, Role::Voter), member(2, Role::Voter)])
    };
    let standing = Standing {
        membership: &joint,
        me: id(1),
        matched: BTreeMap::new(),
        heard: BTreeSet::new(),
        strict: false,
        learners_max: 1,
    };
    let remove = ConfChange { change_type: Remove, member: member(2, Role::Voter) };
    assert_eq!(check(&standing, &[remove]), Err(E::Pending));
}
