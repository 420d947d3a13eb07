//! What a power loss may leave of the changes that were not synced.

use std::path::PathBuf;

use bytes::Bytes;

use super::content::Content;
use crate::fake::seed::{Seed, SeededRng};

/// What a disk writes whole or not at all, bytes. Pieces of a write that is torn are these, counted from the start of
/// the file, not of the write.
pub const SECTOR_BYTES: u64 = 512;

/// One change that no sync has made durable yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Bytes of a file were overwritten or appended.
    Write {
        /// The file's name at that time.
        path: PathBuf,
        /// First byte.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// A file was cut or extended.
    SetLen {
        /// The file's name at that time.
        path: PathBuf,
        /// New length, bytes.
        bytes: u64,
    },
    /// Space was reserved, and the file extended to it.
    Allocate {
        /// The file's name at that time.
        path: PathBuf,
        /// Length that it has at least, bytes.
        bytes: u64,
    },
    /// A file got its name.
    Create {
        /// The name.
        path: PathBuf,
    },
    /// A directory was made.
    CreateDir {
        /// Its name.
        path: PathBuf,
    },
    /// A file changed its name, perhaps in place of another.
    Rename {
        /// Old name.
        from: PathBuf,
        /// New name.
        to: PathBuf,
    },
    /// A name was removed.
    Remove {
        /// The name.
        path: PathBuf,
    },
}

/// What becomes of one un-synced change. Only a [`Change::Write`] can be torn: everything else that is not kept whole
/// is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It reached the disk.
    Keep,
    /// It did not.
    Lose,
    /// Of a write, this many bytes from its start reached the disk: for tests that cut at every byte.
    KeepBytes(usize),
    /// Of a write, the sectors marked true reached the disk, the first that it touches first; missing marks are false.
    KeepSectors(Vec<bool>),
}

/// How the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Only what was synced is there.
    LoseUnsynced,
    /// Everything reached the disk just in time. This is also what a killed process leaves behind.
    KeepAll,
    /// The first `whole` un-synced changes in the order of the calls are there, and of the next, if it is a write, its
    /// first `torn_bytes` bytes.
    Prefix {
        /// Changes kept whole.
        whole: usize,
        /// Bytes of the one behind them.
        torn_bytes: usize,
    },
    /// Each un-synced change is kept, lost or torn at sector borders on its own, so that later ones may be there
    /// without earlier ones.
    Seeded(Seed),
}

impl Crash {
    /// The decision about each change, in the order of the calls.
    pub(super) fn fates(self) -> impl FnMut(usize, &Change) -> Fate {
        let mut dice = match self {
            Self::Seeded(seed) => Some(Dice::new(seed.rng())),
            _ => None,
        };
        move |position, change| match self {
            Self::LoseUnsynced => Fate::Lose,
            Self::KeepAll => Fate::Keep,
            Self::Prefix { whole, .. } if position < whole => Fate::Keep,
            Self::Prefix { whole, torn_bytes } if position == whole => Fate::KeepBytes(torn_bytes),
            Self::Prefix { .. } => Fate::Lose,
            Self::Seeded(_) => dice.as_mut().expect("made for this variant").fate(change),
        }
    }
}

/// The weights of one seeded crash. They are drawn too: a disk that lost nearly all and one that lost nearly nothing
/// are the interesting ones, and even odds would almost never give them.
struct Dice {
    rng: SeededRng,
    keep: u64,
    tear: u64,
}

impl Dice {
    fn new(mut rng: SeededRng) -> Self {
        let keep = *rng.pick(&[5, 30, 50, 70, 95]);
        let tear = *rng.pick(&[0, 20, 60, 100]);
        Self { rng, keep, tear }
    }

    fn fate(&mut self, change: &Change) -> Fate {
        let kept = self.rng.chance(self.keep, 100);
        let Change::Write { offset, bytes, .. } = change else {
            return if kept { Fate::Keep } else { Fate::Lose };
        };
        if !self.rng.chance(self.tear, 100) {
            return if kept { Fate::Keep } else { Fate::Lose };
        }
        let sectors = sectors(*offset, bytes.len()).count();
        Fate::KeepSectors((0..sectors).map(|_| self.rng.chance(self.keep, 100)).collect())
    }
}

impl Change {
    /// Does to `content` what a crash left of this change to a file.
    pub(super) fn apply(&self, fate: &Fate, content: &mut Content) {
        match (self, fate) {
            (_, Fate::Lose) => {}
            (Self::Write { offset, bytes, .. }, Fate::Keep) => content.write(bytes, *offset),
            (Self::Write { offset, bytes, .. }, Fate::KeepBytes(count)) => {
                content.write(&bytes[..bytes.len().min(*count)], *offset);
            }
            (Self::Write { offset, bytes, .. }, Fate::KeepSectors(marks)) => {
                for (range, _) in sectors(*offset, bytes.len()).zip(marks).filter(|(_, kept)| **kept) {
                    let start = range.start as u64;
                    content.write(&bytes[range], offset + start);
                }
            }
            (Self::SetLen { bytes, .. }, Fate::Keep) => content.set_len(*bytes),
            (Self::Allocate { bytes, .. }, Fate::Keep) => content.allocate(*bytes),
            _ => {}
        }
    }
}

/// The parts of a write of `count` bytes at `offset` that lie in one sector each, as ranges of the written bytes.
fn sectors(offset: u64, count: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let sector = usize::try_from(SECTOR_BYTES).expect("a small constant");
    let mut start = 0;
    // The first piece ends at the file's next border, all others are whole sectors.
    let mut next = sector - usize::try_from(offset % SECTOR_BYTES).expect("less than a sector");
    std::iter::from_fn(move || {
        let range = start..count.min(next);
        start = range.end;
        next += sector;
        (!range.is_empty()).then_some(range)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_lie_on_the_files_borders() {
        let cut = |offset, count| sectors(offset, count).collect::<Vec<_>>();
        assert_eq!(cut(0, 1024), [0..512, 512..1024]);
        assert_eq!(cut(500, 600), [0..12, 12..524, 524..600]);
        assert_eq!(cut(1023, 2), [0..1, 1..2]);
        assert_eq!(cut(7, 0), []);
    }

    #[test]
    fn a_torn_write_keeps_what_is_marked() {
        let write = Change::Write { path: "/f".into(), offset: 510, bytes: Bytes::from(vec![7; 600]) };
        let left = |fate| {
            let mut content = Content::default();
            write.apply(&fate, &mut content);
            content.to_vec()
        };
        assert_eq!(left(Fate::Lose), []);
        assert_eq!(left(Fate::KeepBytes(1)), [vec![0; 510], vec![7]].concat());
        assert_eq!(left(Fate::KeepBytes(10_000)), left(Fate::Keep));
        let middle = left(Fate::KeepSectors(vec![false, true]));
        assert_eq!(middle, [vec![0; 512], vec![7; 512]].concat());
        assert_eq!(left(Fate::KeepSectors(vec![true; 9])), left(Fate::Keep));
    }
}
