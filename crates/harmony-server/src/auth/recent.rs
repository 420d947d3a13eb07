//! A map that keeps what was used recently, within a bound.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// Two generations: what is used moves to the young one; when that is full it becomes the old one, whose rest is forgotten.
/// So it keeps the `entries_max` used last, and holds twice as many at most.
pub(super) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    entries_max: usize,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    pub(super) fn new(entries_max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), entries_max }
    }

    /// The value of a key; it counts as used.
    pub(super) fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.insert(key, value);
        }
        self.young.get_mut(key)
    }

    /// Puts a value in, in the place of an earlier one.
    pub(super) fn insert(&mut self, key: K, value: V) {
        if !self.young.contains_key(&key) {
            self.old.remove(&key);
            if self.entries_max <= self.young.len() {
                self.old = std::mem::take(&mut self.young);
            }
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_is_forgotten() {
        let mut recent = Recent::new(2);
        recent.insert("used", 0);
        for round in 1..100 {
            recent.insert(if round % 2 == 0 { "even" } else { "odd" }, round);
            recent.insert("other", round);
            assert_eq!(recent.get_mut("used").map(|value| std::mem::replace(value, round)), Some(round - 1));
            assert!(recent.young.len() + recent.old.len() <= 4);
        }
        for key in ["a", "b", "c", "d"] {
            recent.insert(key, 0);
        }
        assert_eq!(recent.get_mut("used"), None);
        assert_eq!(recent.get_mut("d"), Some(&mut 0));
    }

    #[test]
    fn the_last_value_counts_wherever_the_first_one_was() {
        let mut recent = Recent::new(1);
        recent.insert("a", 1);
        recent.insert("b", 1);
        recent.insert("a", 2);
        assert_eq!(recent.get_mut("a"), Some(&mut 2));
        recent.insert("a", 3);
        assert_eq!(recent.get_mut("a"), Some(&mut 3));
    }
}
