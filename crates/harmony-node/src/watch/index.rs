//! Which watchers a key concerns: found in time that grows with the logarithm of how many ranges are watched, and with how
//! many of them hold the key.
//!
//! Watchers of the same range are one group. Groups of single keys stand in a map; those of longer ranges in a treap by
//! their first key, where each node knows the largest end below it.

use std::collections::BTreeMap;

use bytes::Bytes;
use harmony_types::KeyRange;
use slab::Slab;

/// Where a member stands: its group, and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    group: usize,
    place: usize,
}

/// See the module. `M` is what a watcher is known by.
#[derive(Debug)]
pub(super) struct Index<M> {
    groups: Slab<Group<M>>,
    keys: BTreeMap<Bytes, usize>,
    ranges: BTreeMap<(Bytes, End), usize>,
    tree: Slab<Node>,
    root: Option<usize>,
    chance: u64,
}

#[derive(Debug)]
struct Group<M> {
    keys: KeyRange,
    members: Vec<M>,
}

/// Behind the last key of a range.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Before(Bytes),
    Never,
}

impl End {
    fn of(keys: &KeyRange) -> Self {
        if *keys.end == [0] { Self::Never } else { Self::Before(keys.end.clone()) }
    }

    fn is_behind(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < &end[..],
            Self::Never => true,
        }
    }
}

/// Ordered by `first` and `end`; a node's priority is not below its children's.
#[derive(Debug)]
struct Node {
    first: Bytes,
    end: End,
    /// The largest end of this node and those below it.
    end_max: End,
    group: usize,
    priority: u64,
    left: Option<usize>,
    right: Option<usize>,
}

impl<M> Default for Index<M> {
    fn default() -> Self {
        Self {
            groups: Slab::new(),
            keys: BTreeMap::new(),
            ranges: BTreeMap::new(),
            tree: Slab::new(),
            root: None,
            chance: 0x9e37_79b9_7f4a_7c15,
        }
    }
}

impl<M: Copy> Index<M> {
    /// Adds a member that watches `keys`, which hold at least one key.
    pub(super) fn add(&mut self, keys: &KeyRange, member: M) -> Place {
        let known = if keys.is_single() {
            self.keys.get(&keys.key)
        } else {
            self.ranges.get(&(keys.key.clone(), End::of(keys)))
        };
        let group = match known {
            Some(group) => *group,
            None => self.add_group(keys),
        };
        let members = &mut self.groups[group].members;
        members.push(member);
        Place { group, place: members.len() - 1 }
    }

    /// Removes a member; returns the one that stands in its place now, which is to be told so.
    pub(super) fn remove(&mut self, at: Place) -> Option<M> {
        let Place { group, place } = at;
        let members = &mut self.groups[group].members;
        members.swap_remove(place);
        let moved = members.get(place).copied();
        if members.is_empty() {
            self.remove_group(group);
        } else if members.len() * 4 < members.capacity() {
            members.shrink_to(members.len() * 2);
        }
        moved
    }

    /// The range that a member watches.
    pub(super) fn keys(&self, at: Place) -> &KeyRange {
        &self.groups[at.group].keys
    }

    /// All members that watch `key`.
    pub(super) fn find(&self, key: &[u8], found: &mut impl FnMut(M)) {
        if let Some(group) = self.keys.get(key) {
            self.groups[*group].members.iter().copied().for_each(&mut *found);
        }
        self.descend(self.root, key, found);
    }

    fn descend(&self, at: Option<usize>, key: &[u8], found: &mut impl FnMut(M)) {
        let Some(node) = at.map(|at| &self.tree[at]) else { return };
        if !node.end_max.is_behind(key) {
            return;
        }
        self.descend(node.left, key, found);
        if &node.first[..] <= key {
            if node.end.is_behind(key) {
                self.groups[node.group].members.iter().copied().for_each(&mut *found);
            }
            self.descend(node.right, key, found);
        }
    }

    fn add_group(&mut self, keys: &KeyRange) -> usize {
        // What arrives in a request shares its buffer; an index that lives for long must not keep that.
        let keys =
            KeyRange { key: Bytes::copy_from_slice(&keys.key), end: Bytes::copy_from_slice(&keys.end) };
        let group = self.groups.insert(Group { keys: keys.clone(), members: Vec::new() });
        if keys.is_single() {
            self.keys.insert(keys.key, group);
            return group;
        }
        let end = End::of(&keys);
        self.ranges.insert((keys.key.clone(), end.clone()), group);
        let node = Node {
            first: keys.key,
            end_max: end.clone(),
            end,
            group,
            priority: self.draw(),
            left: None,
            right: None,
        };
        let node = self.tree.insert(node);
        self.root = Some(self.insert(self.root, node));
        group
    }

    fn remove_group(&mut self, group: usize) {
        let keys = self.groups.remove(group).keys;
        if keys.is_single() {
            self.keys.remove(&keys.key);
            return;
        }
        let name = (keys.key.clone(), End::of(&keys));
        self.ranges.remove(&name);
        self.root = self.take_out(self.root, &name);
    }

    /// Puts a new node below `at`; returns who stands there then.
    fn insert(&mut self, at: Option<usize>, new: usize) -> usize {
        let Some(at) = at else { return new };
        if self.is_before(new, at) {
            let left = self.insert(self.tree[at].left, new);
            self.tree[at].left = Some(left);
            if self.tree[at].priority < self.tree[left].priority {
                self.tree[at].left = self.tree[left].right;
                self.tree[left].right = Some(at);
                self.measure(at);
                self.measure(left);
                return left;
            }
        } else {
            let right = self.insert(self.tree[at].right, new);
            self.tree[at].right = Some(right);
            if self.tree[at].priority < self.tree[right].priority {
                self.tree[at].right = self.tree[right].left;
                self.tree[right].left = Some(at);
                self.measure(at);
                self.measure(right);
                return right;
            }
        }
        self.measure(at);
        at
    }

    /// Takes the node of this range out from below `at`; returns who stands there then.
    fn take_out(&mut self, at: Option<usize>, name: &(Bytes, End)) -> Option<usize> {
        let at = at?;
        let node = &self.tree[at];
        match (&name.0, &name.1).cmp(&(&node.first, &node.end)) {
            std::cmp::Ordering::Less => self.tree[at].left = self.take_out(node.left, name),
            std::cmp::Ordering::Greater => self.tree[at].right = self.take_out(node.right, name),
            std::cmp::Ordering::Equal => {
                let Node { left, right, .. } = self.tree.remove(at);
                return self.join(left, right);
            }
        }
        self.measure(at);
        Some(at)
    }

    /// One tree of two, all of the first before all of the second.
    fn join(&mut self, left: Option<usize>, right: Option<usize>) -> Option<usize> {
        let (Some(one), Some(other)) = (left, right) else { return left.or(right) };
        let top = if self.tree[one].priority < self.tree[other].priority {
            self.tree[other].left = self.join(left, self.tree[other].left);
            other
        } else {
            self.tree[one].right = self.join(self.tree[one].right, right);
            one
        };
        self.measure(top);
        Some(top)
    }

    fn is_before(&self, one: usize, other: usize) -> bool {
        let (one, other) = (&self.tree[one], &self.tree[other]);
        (&one.first, &one.end) < (&other.first, &other.end)
    }

    fn measure(&mut self, at: usize) {
        let node = &self.tree[at];
        let below = [node.left, node.right].into_iter().flatten().map(|child| &self.tree[child].end_max);
        let end_max = below.fold(&node.end, |most, end| most.max(end)).clone();
        self.tree[at].end_max = end_max;
    }

    /// The next number of a xorshift: depths stay short whatever the order of keys, and the same run gives the same tree.
    fn draw(&mut self) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance
    }
}

#[cfg(test)]
mod tests {
    use harmony_types::fake::seed::{SeededRng, for_each_seed};

    use super::*;

    fn key(rng: &mut SeededRng) -> Bytes {
        let letters = rng.index(1..4);
        (0..letters).map(|_| *rng.pick(b"\0abc\xff")).collect()
    }

    fn keys(rng: &mut SeededRng) -> KeyRange {
        loop {
            let end = match rng.below(4) {
                0 => Bytes::new(),
                1 => Bytes::from_static(&[0]),
                _ => key(rng),
            };
            let keys = KeyRange { key: key(rng), end };
            if !keys.is_empty() {
                return keys;
            }
        }
    }

    #[test]
    fn it_finds_what_a_look_at_every_range_finds() {
        for_each_seed(1..60, 5, |_, rng| {
            let mut index = Index::default();
            let mut all: BTreeMap<u64, (KeyRange, Place)> = BTreeMap::new();
            for number in 0..300 {
                if rng.chance(2, 5) && !all.is_empty() {
                    let gone = *rng.pick(&all.keys().copied().collect::<Vec<_>>());
                    let (keys, place) = all.remove(&gone).unwrap();
                    assert_eq!(*index.keys(place), keys);
                    if let Some(moved) = index.remove(place) {
                        all.get_mut(&moved).unwrap().1 = place;
                    }
                } else {
                    let keys = keys(rng);
                    let place = index.add(&keys, number);
                    all.insert(number, (keys, place));
                }
                let key = key(rng);
                let mut found = Vec::new();
                index.find(&key, &mut |member| found.push(member));
                found.sort_unstable();
                let expected: Vec<u64> = all
                    .iter()
                    .filter(|(_, (keys, _))| keys.contains(&key))
                    .map(|(number, _)| *number)
                    .collect();
                assert_eq!(found, expected, "of {key:?}");
            }
            while let Some((_, (_, place))) = all.pop_first() {
                if let Some(moved) = index.remove(place) {
                    all.get_mut(&moved).unwrap().1 = place;
                }
            }
            assert!(index.root.is_none() && index.tree.is_empty() && index.groups.is_empty());
        });
    }

    #[test]
    fn a_long_row_of_ranges_makes_no_deep_tree() {
        let mut index = Index::default();
        let mut places = Vec::new();
        for number in 0..20_000u32 {
            let key = Bytes::from(format!("{number:08}"));
            places.push(index.add(&KeyRange::prefix(&key), number));
        }
        let depth = |index: &Index<u32>| {
            let (mut deepest, mut open) = (0, vec![(index.root, 1)]);
            while let Some((at, depth)) = open.pop() {
                if let Some(node) = at.map(|at| &index.tree[at]) {
                    deepest = deepest.max(depth);
                    open.extend([(node.left, depth + 1), (node.right, depth + 1)]);
                }
            }
            deepest
        };
        assert!(depth(&index) < 60, "{}", depth(&index));
        for place in places {
            assert_eq!(index.remove(place), None);
        }
        assert!(index.root.is_none() && index.tree.is_empty() && index.groups.is_empty());
    }
}
