//! Rolling hashes of the state machine, compared between members.
//!
//! Every member notes its hash at each beat, and where a batch of its applied entries ended at a multiple of
//! [`bounds::HASH_STEP`], as batches do: so members which never stand still have indexes in common, too. Followers tell the
//! leader their newest ones beside its heartbeats, and it compares at equal indexes. A hash goes on from its last value, so
//! members that differed once differ at every later index: to look at the newest is enough.
//!
//! Who is right is a question of a majority of the voters, the leader's own hash among them. Without one, as between two
//! voters, nobody can tell who is wrong: it is logged and counted, and nobody is repaired.

use std::collections::{BTreeMap, BTreeSet};

use harmony_types::{LogIndex, NodeId, Term};

use crate::bounds;

/// What one member knows of hashes: its own, and, when it leads, what the others told.
#[derive(Debug, Default)]
pub(super) struct Hashes {
    own: BTreeMap<LogIndex, u32>,
    told: BTreeMap<NodeId, Told>,
    /// Whom the others' last comparison found odd.
    odd: BTreeSet<NodeId>,
    /// What was told last, to whom in which term.
    last: Option<(NodeId, Term, Newest)>,
}

/// What another member told.
#[derive(Debug)]
struct Told {
    hashes: BTreeMap<LogIndex, u32>,
    corrupt: bool,
}

/// How far what a member has to tell goes, and whether its state is corrupt.
type Newest = (Option<LogIndex>, bool);

/// What a comparison found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Members whose hash is not the majority's, with an index and the majority's hash there.
    pub(super) odd: Vec<(NodeId, LogIndex, u32)>,
    /// Hashes differ at this index, and none is a majority's.
    pub(super) undecided: Option<LogIndex>,
}

impl Hashes {
    /// This member's state machine has this hash at this index.
    pub(super) fn note(&mut self, index: LogIndex, hash: u32) {
        self.own.insert(index, hash);
        while bounds::HASHES_KEPT < self.own.len() {
            self.own.pop_first();
        }
    }

    /// The state machine was replaced: what it was before counts no more.
    pub(super) fn replaced(&mut self, now: Option<(LogIndex, u32)>) {
        self.own.clear();
        self.own.extend(now);
    }

    /// Forgets what the others told: a former leader's knowledge is old when it leads again.
    pub(super) fn forget_told(&mut self) {
        self.told.clear();
        self.odd.clear();
    }

    /// Whether this leader was not told yet what there is to tell. It is noted as told.
    pub(super) fn is_news(&mut self, leader: NodeId, term: Term, corrupt: bool) -> bool {
        let newest = self.own.last_key_value().map(|(index, _)| *index);
        let now = Some((leader, term, (newest, corrupt)));
        std::mem::replace(&mut self.last, now) != now
    }

    /// Whether a member's state is known to be corrupt: it says so, or it was found odd.
    pub(super) fn is_corrupt(&self, member: NodeId) -> bool {
        self.odd.contains(&member) || self.told.get(&member).is_some_and(|told| told.corrupt)
    }

    /// Whether a member said since this one leads that its state is well, and nothing speaks against it.
    pub(super) fn is_well(&self, member: NodeId) -> bool {
        self.told.contains_key(&member) && !self.is_corrupt(member)
    }

    /// The members whose state is known to be corrupt.
    pub(super) fn corrupt(&self) -> impl Iterator<Item = NodeId> {
        self.told.keys().copied().filter(|id| self.is_corrupt(*id))
    }

    /// Whether this member noted another hash at this index.
    pub(super) fn differs(&self, index: LogIndex, hash: u32) -> bool {
        self.own.get(&index).is_some_and(|own| *own != hash)
    }

    /// What to tell the leader: the newest, and the newest at multiples of the step.
    pub(super) fn newest(&self) -> Vec<(LogIndex, u32)> {
        let tail = self.own.iter().rev().take(bounds::HASHES_TOLD);
        let stepped = self.own.iter().rev().filter(|(index, _)| index.0.is_multiple_of(bounds::HASH_STEP));
        let newest: BTreeMap<LogIndex, u32> =
            tail.chain(stepped.take(bounds::HASHES_TOLD)).map(|(index, hash)| (*index, *hash)).collect();
        newest.into_iter().collect()
    }

    /// A member told its hashes.
    pub(super) fn told(&mut self, member: NodeId, hashes: Vec<(LogIndex, u32)>, corrupt: bool) {
        let hashes = hashes.into_iter().take(2 * bounds::HASHES_TOLD).collect();
        self.told.insert(member, Told { hashes, corrupt });
    }

    /// Compares what is known, with `me` as the leader.
    pub(super) fn compare(&mut self, me: NodeId, voters: &BTreeSet<NodeId>) -> Comparison {
        let mut found = Comparison::default();
        let indexes: BTreeSet<LogIndex> =
            self.told.values().flat_map(|told| told.hashes.keys()).copied().collect();
        for index in indexes.into_iter().rev() {
            let told = self.told.iter().filter_map(|(id, told)| Some((*id, *told.hashes.get(&index)?)));
            let own = self.own.get(&index).map(|hash| (me, *hash));
            let known: Vec<(NodeId, u32)> = told.filter(|(id, _)| *id != me).chain(own).collect();
            let votes =
                |hash: u32| known.iter().filter(|(id, other)| *other == hash && voters.contains(id)).count();
            let right = known.iter().map(|(_, hash)| *hash).find(|hash| voters.len() / 2 < votes(*hash));
            match right {
                Some(right) => {
                    for (id, _) in known.iter().filter(|(_, hash)| *hash != right) {
                        if found.odd.iter().all(|(known, _, _)| known != id) {
                            found.odd.push((*id, index, right));
                        }
                    }
                }
                None if known.windows(2).any(|pair| pair[0].1 != pair[1].1) => {
                    found.undecided = found.undecided.max(Some(index));
                }
                None => {}
            }
        }
        self.odd = found.odd.iter().map(|(id, _, _)| *id).collect();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn leader(own: &[(u64, u32)], told: &[(u64, &[(u64, u32)])]) -> Hashes {
        let mut hashes = Hashes::default();
        for (index, hash) in own {
            hashes.note(LogIndex(*index), *hash);
        }
        for (member, said) in told {
            let said = said.iter().map(|(index, hash)| (LogIndex(*index), *hash)).collect();
            hashes.told(id(*member), said, false);
        }
        hashes
    }

    fn voters(count: u64) -> BTreeSet<NodeId> {
        (1..=count).map(id).collect()
    }

    #[test]
    fn the_minority_is_odd_even_when_it_leads() {
        let mut same = leader(&[(5, 1)], &[(2, &[(5, 1)]), (3, &[(5, 1)])]);
        assert_eq!(same.compare(id(1), &voters(3)), Comparison::default());
        let mut follower = leader(&[(5, 1)], &[(2, &[(5, 2)]), (3, &[(5, 1)])]);
        assert_eq!(follower.compare(id(1), &voters(3)).odd, [(id(2), LogIndex(5), 1)]);
        let mut own = leader(&[(5, 9)], &[(2, &[(5, 1)]), (3, &[(5, 1)])]);
        assert_eq!(own.compare(id(1), &voters(3)).odd, [(id(1), LogIndex(5), 1)]);
        // Learners are judged and do not vote.
        let mut learner = leader(&[(5, 1)], &[(2, &[(5, 1)]), (4, &[(5, 3)]), (5, &[(5, 3)])]);
        let odd = learner.compare(id(1), &voters(3)).odd;
        assert_eq!(odd, [(id(4), LogIndex(5), 1), (id(5), LogIndex(5), 1)]);
    }

    #[test]
    fn only_equal_indexes_are_compared() {
        let mut apart = leader(&[(6, 1)], &[(2, &[(5, 2)]), (3, &[(7, 3)])]);
        assert_eq!(apart.compare(id(1), &voters(3)), Comparison::default());
    }

    #[test]
    fn without_a_majority_nobody_is_odd() {
        let mut two = leader(&[(5, 1)], &[(2, &[(5, 2)])]);
        for count in [2, 3] {
            let found = two.compare(id(1), &voters(count));
            assert_eq!(found, Comparison { odd: Vec::new(), undecided: Some(LogIndex(5)) });
        }
        // Two of five are alike, and that is no majority.
        let mut five = leader(&[(5, 1)], &[(2, &[(5, 1)]), (3, &[(5, 2)])]);
        assert_eq!(five.compare(id(1), &voters(5)).odd, []);
    }

    #[test]
    fn who_is_odd_or_says_that_it_is_corrupt_is_not_well_and_neither_is_who_said_nothing() {
        let mut hashes = leader(&[(5, 1)], &[(2, &[(5, 2)]), (3, &[(5, 1)])]);
        hashes.compare(id(1), &voters(3));
        assert_eq!([2, 3, 4].map(|member| hashes.is_well(id(member))), [false, true, false]);
        assert_eq!([2, 3, 4].map(|member| hashes.is_corrupt(id(member))), [true, false, false]);
        hashes.told(id(3), Vec::new(), true);
        assert_eq!(hashes.corrupt().collect::<Vec<_>>(), [id(2), id(3)]);
        hashes.forget_told();
        assert_eq!(hashes.corrupt().count(), 0);
    }

    #[test]
    fn the_same_is_told_once_to_each_leader_in_each_term() {
        let mut hashes = leader(&[(5, 1)], &[]);
        let told =
            |hashes: &mut Hashes, leader, term, corrupt| hashes.is_news(id(leader), Term(term), corrupt);
        assert!(told(&mut hashes, 2, 1, false));
        assert!(!told(&mut hashes, 2, 1, false));
        assert!(
            told(&mut hashes, 3, 1, false) && told(&mut hashes, 3, 2, false) && told(&mut hashes, 3, 2, true)
        );
        hashes.note(LogIndex(6), 1);
        assert!(told(&mut hashes, 3, 2, true));
    }

    #[test]
    fn memory_is_bounded_and_steps_outlive_a_flood() {
        let mut hashes = Hashes::default();
        for index in 1..=4 * bounds::HASH_STEP {
            hashes.note(LogIndex(index), 1);
        }
        assert_eq!(hashes.own.len(), bounds::HASHES_KEPT);
        let told = hashes.newest();
        assert!(told.len() <= 2 * bounds::HASHES_TOLD);
        assert!(told.contains(&(LogIndex(4 * bounds::HASH_STEP), 1)));
        assert!(told.contains(&(LogIndex(3 * bounds::HASH_STEP), 1)));
        hashes.replaced(Some((LogIndex(9), 2)));
        assert_eq!(hashes.newest(), [(LogIndex(9), 2)]);
    }
}
