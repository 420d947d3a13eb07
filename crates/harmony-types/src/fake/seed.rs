//! Seeds that print themselves when a test fails, and the numbers drawn from them.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;
use std::thread;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};

use crate::clock::Rng;

/// The variable that replays one seed: hexadecimal with `0x`, or decimal.
pub const SEED_VARIABLE: &str = "HARMONY_SEED";

/// Where all chance of one test run comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seed(pub u64);

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl Seed {
    /// The seed of `HARMONY_SEED`, if it is set.
    ///
    /// # Panics
    /// The variable is set to something that is no number: a replay that silently ran another seed would mislead.
    pub fn from_env() -> Option<Self> {
        let text = std::env::var(SEED_VARIABLE).ok()?;
        Some(Self::parse(&text).unwrap_or_else(|| panic!("{SEED_VARIABLE}={text} is no number")))
    }

    /// A seed nobody has seen before.
    pub fn fresh() -> Self {
        Self(RandomState::new().build_hasher().finish())
    }

    /// Reads `0x2a` or `42`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().replace('_', "");
        match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(hex) => u64::from_str_radix(hex, 16).ok().map(Self),
            None => text.parse().ok().map(Self),
        }
    }

    /// What a test runs: `HARMONY_SEED` alone when it is set, otherwise `fixed` and then `fresh` new ones.
    pub fn choose(fixed: impl IntoIterator<Item = u64>, fresh: usize) -> Vec<Self> {
        Self::choose_unless(Self::from_env(), fixed, fresh)
    }

    fn choose_unless(given: Option<Self>, fixed: impl IntoIterator<Item = u64>, fresh: usize) -> Vec<Self> {
        match given {
            Some(seed) => vec![seed],
            None => fixed.into_iter().map(Self).chain((0..fresh).map(|_| Self::fresh())).collect(),
        }
    }

    /// The generator that starts from this seed.
    pub fn rng(self) -> SeededRng {
        SeededRng::new(self)
    }

    /// Prints how to replay this seed if the thread panics while the guard lives.
    #[must_use = "the guard speaks when it is dropped"]
    pub fn guard(self) -> SeedGuard {
        SeedGuard { seed: self }
    }
}

/// Runs `test` once for each seed that [`Seed::choose`] gives; a failure prints its seed.
pub fn for_each_seed(
    fixed: impl IntoIterator<Item = u64>,
    fresh: usize,
    mut test: impl FnMut(Seed, &mut SeededRng),
) {
    for seed in Seed::choose(fixed, fresh) {
        let _guard = seed.guard();
        test(seed, &mut seed.rng());
    }
}

/// See [`Seed::guard`].
#[derive(Debug)]
pub struct SeedGuard {
    seed: Seed,
}

impl SeedGuard {
    /// The line that is printed.
    pub fn message(&self) -> String {
        format!("replay with {SEED_VARIABLE}={}", self.seed)
    }
}

impl Drop for SeedGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.message());
        }
    }
}

/// Numbers from a seed: ChaCha8, so the same seed gives the same numbers on every machine and in every release.
#[derive(Clone, Debug)]
pub struct SeededRng(ChaCha8Rng);

impl SeededRng {
    /// Starts from `seed`.
    pub fn new(seed: Seed) -> Self {
        // The key is spelled out here: how the crate widens a u64 is its own affair and could change.
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.0.to_le_bytes());
        key[8..15].copy_from_slice(b"harmony");
        Self(ChaCha8Rng::from_seed(key))
    }

    /// A generator of its own for one part of a test: what that part draws shifts nothing for the others.
    pub fn split(&mut self) -> Self {
        Self::new(Seed(self.next_u64()))
    }

    /// A number in `0..bound`.
    ///
    /// # Panics
    /// `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound != 0, "no number is below 0");
        let wide = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("a product of two u64 shifted by 64")
    }

    /// A number in `range`.
    ///
    /// # Panics
    /// The range is empty.
    pub fn range(&mut self, range: Range<u64>) -> u64 {
        assert!(range.start < range.end, "nothing lies in {range:?}");
        range.start + self.below(range.end - range.start)
    }

    /// As [`SeededRng::range`], for sizes and slots.
    ///
    /// # Panics
    /// The range is empty.
    pub fn index(&mut self, range: Range<usize>) -> usize {
        let picked = self.range(range.start as u64..range.end as u64);
        usize::try_from(picked).expect("between two usize")
    }

    /// True in `numerator` of `denominator` cases.
    ///
    /// # Panics
    /// `denominator` is 0.
    pub fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        self.below(denominator) < numerator
    }

    /// One of `items`.
    ///
    /// # Panics
    /// There is none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(0..items.len())]
    }

    /// Puts `items` into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.index(0..last + 1);
            items.swap(last, other);
        }
    }

    /// `count` random bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}

impl Rng for SeededRng {
    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_read_in_hexadecimal_and_decimal() {
        assert_eq!(Seed::parse("0x5eed"), Some(Seed(0x5eed)));
        assert_eq!(Seed::parse(" 42\n"), Some(Seed(42)));
        assert_eq!(Seed::parse(&Seed(u64::MAX).to_string()), Some(Seed(u64::MAX)));
        for wrong in ["", "0x", "seed", "-1", "0x1ffffffffffffffff"] {
            assert_eq!(Seed::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn the_numbers_of_a_seed_never_change() {
        let mut rng = Seed(42).rng();
        let drawn: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        assert_eq!(drawn, GOLDEN);
        assert_ne!(Seed(43).rng().next_u64(), drawn[0]);
    }

    const GOLDEN: [u64; 3] =
        [4_938_982_143_323_343_220, 15_316_942_785_759_457_797, 5_574_409_666_888_749_711];

    #[test]
    fn drawn_numbers_stay_in_bounds_and_reach_them() {
        let mut rng = Seed(1).rng();
        let mut seen = [0u32; 5];
        for _ in 0..1_000 {
            let drawn = rng.range(10..15);
            assert!((10..15).contains(&drawn), "{drawn}");
            seen[usize::try_from(drawn - 10).unwrap()] += 1;
        }
        assert!(seen.iter().all(|&count| 100 < count), "{seen:?}");
        assert_eq!(rng.below(1), 0);
        assert!((0..100).all(|_| !rng.chance(0, 7) && rng.chance(7, 7)));
        assert_eq!(rng.bytes(9).len(), 9);

        let mut items: Vec<u32> = (0..50).collect();
        rng.shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
        assert!(items.contains(rng.pick(&items)));
    }

    #[test]
    fn a_split_generator_does_not_disturb_its_parent() {
        let (mut quiet, mut busy) = (Seed(7).rng(), Seed(7).rng());
        let _ = quiet.split();
        let mut child = busy.split();
        child.bytes(1_000);
        assert_eq!(quiet.next_u64(), busy.next_u64());
    }

    #[test]
    #[should_panic(expected = "nothing lies in 3..3")]
    fn an_empty_range_is_refused() {
        Seed(1).rng().range(3..3);
    }

    #[test]
    fn the_guard_says_how_to_replay() {
        assert_eq!(Seed(0x5eed).guard().message(), "replay with HARMONY_SEED=0x5eed");
    }

    #[test]
    fn fixed_seeds_come_first_and_fresh_ones_differ() {
        let seeds = Seed::choose_unless(None, [1, 2], 2);
        assert_eq!(seeds[..2], [Seed(1), Seed(2)]);
        assert_eq!(seeds.len(), 4);
        assert_ne!(seeds[2], seeds[3]);
        assert_eq!(Seed::choose_unless(Some(Seed(7)), [1, 2], 2), [Seed(7)], "a replay runs one seed alone");
    }
}
