//! Revisions: the store-wide count of writes.

use std::fmt;

/// The store-wide write counter: an empty store is at 1, each command that changes something adds 1.
///
/// Not a log index: reads, refusals and membership changes take an index and no revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// Revision of a store in which nothing was ever written.
    pub const EMPTY: Self = Self(1);

    /// The revision of the next write.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// As the API's signed number.
    ///
    /// # Panics
    /// Past 2^63 - 1 writes: at a million a second, in 292,000 years.
    #[must_use]
    pub fn as_i64(self) -> i64 {
        i64::try_from(self.0).expect("revisions stay below 2^63")
    }
}

impl Default for Revision {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
