//! Room on the disk: nothing is given to the tree that may not fit. redb takes no call any more behind a write that failed,
//! so a commit that met a full disk would be the last one until the storage is opened again.
//!
//! What a commit needs is known only afterwards, so it is bounded from above:
//!
//! | part | pages |
//! | --- | --- |
//! | leaves, copied and split | two a key, two for each page of the file at most |
//! | branches above them | three a key, an eighth of the file's pages at most |
//! | new rows | four times their bytes: a page is at least half full, and a version may stand in both tables |
//! | compaction | [`DROP_PAGES`], and five for each delete that is dropped: its tombstone is somewhere else |
//! | redb's lists of pages | a page for 2048 of the file's, and [`FIXED_PAGES`] |
//!
//! Commits that are not durable yet are counted until one is: redb keeps their pages in memory. Those for readers take a part
//! of the disk's room at most, [`READERS_SHARE`], as nothing but a checkpoint makes the sum small again. Most commits write a
//! third of the bound or less.
//!
//! What the log is about to take is not there for the tree: they have one disk, most of the time.
//!
//! When the disk has less, three more things are tried for a checkpoint, in this order: fewer dropped deletes; pages of the file
//! that are free, which it costs a read of the whole tree to count; and, when the checkpoint drops history, the
//! [`Reserve`]. Then it is refused, with nothing changed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use harmony_types::{Command, Entry, EntryType, FileSystem, StorageError, Wal, quota};
use prost::Message as _;

use crate::batch::Batch;
use crate::reserve::{Reserve, is_full};
use crate::tree::Durability;
use crate::tree::pages::PAGE_BYTES;
use crate::tree::redb::{RedbTree, Space, io_error};

const PAGE: u64 = PAGE_BYTES as u64;

/// Pages of redb's own tables that any commit may write.
const FIXED_PAGES: u64 = 48;

/// Pages of the file for one of its list of free pages: two bits each, in pieces that are rounded up, old and new.
const LISTED_PAGES: u64 = 2_048;

/// Pages of the file whose list fits into one page.
const LISTED_IN_PAGE: u64 = 8_192;

/// Pages from the root to a leaf.
const PATH_PAGES: u64 = 5;

/// Pages for dropping a part of the history: the way to its end, and notes of pages that it gave up.
const DROP_PAGES: u64 = 48;

/// Deletes that a checkpoint may drop at least.
const DELETES_MIN: usize = 16;

/// Rows above this size may take a leaf of more than one page.
const SMALL_ROW_BYTES: usize = 1 << 10;

/// What commits that are not durable may owe the disk before one of them should be: until then nothing that they gave up can be
/// used again, and each adds what it may need to what the next one asks for.
const UNDURABLE_BYTES_MAX: u64 = 16 << 20;

/// Part of the disk's room that commits for readers may need before the next durable one.
const READERS_SHARE: u64 = 4;

/// Memory above its limit that commands may take which free space, as a multiple of the limit.
pub(crate) const FREEING_FACTOR: u64 = 2;

/// What a commit may write to places that hold nothing yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Need {
    /// Single pages: any free page of the file will do.
    pages: u64,
    /// Bytes in pieces of several pages, for which the file may have to grow.
    bytes: u64,
}

impl Need {
    /// Of the commit of `batch` into a tree of `file_pages`.
    pub(crate) fn of(batch: &Batch, file_pages: u64) -> Self {
        let keys = batch.keys();
        let leaves = 2 * keys.min(file_pages);
        let branches = (3 * keys).min(file_pages / 8);
        let rows = 4 * batch.row_bytes();
        let (small, large) = if batch.largest_row() <= SMALL_ROW_BYTES { (rows, 0) } else { (0, rows) };
        let pages = leaves + branches + small.div_ceil(PAGE);
        // Pages that are given up are noted.
        Self { pages: pages + pages / 256, bytes: large }.and(Self::of_any(file_pages))
    }

    /// Of a commit of nothing.
    fn of_any(file_pages: u64) -> Self {
        let listed = file_pages.div_ceil(LISTED_PAGES);
        let (pages, bytes) = if file_pages <= LISTED_IN_PAGE { (listed, 0) } else { (0, listed * PAGE) };
        Self { pages: FIXED_PAGES + pages, bytes }
    }

    /// Of entries that are not applied yet, about.
    pub(crate) fn of_entries(entries: &[Entry]) -> Self {
        let bytes = entries.iter().map(|entry| 4 * entry.data.len() as u64).sum::<u64>();
        Self { pages: PATH_PAGES * entries.len() as u64 + bytes.div_ceil(PAGE), bytes: 0 }
    }

    /// Of dropping a part of the history with so many deletes in it.
    fn of_dropping(deletes: usize, file_pages: u64) -> Self {
        Self { pages: DROP_PAGES + (PATH_PAGES * deletes as u64).min(file_pages), bytes: 0 }
    }

    /// Both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { pages: self.pages + other.pages, bytes: self.bytes + other.bytes }
    }

    /// Bytes of the disk that it takes, whatever the file has free.
    fn of_disk(self) -> u64 {
        self.pages * PAGE + self.bytes
    }

    /// The same, where the file has free pages.
    fn beside(self, space: Space) -> u64 {
        let inside = self.pages.min(space.free_pages);
        // Nobody knows which free pages redb takes.
        let first_written = inside.min(space.unwritten_pages);
        (self.pages - inside + first_written) * PAGE + self.bytes
    }

    /// The same, when the unwritten ones are given their place first.
    fn in_place(self, space: Space) -> u64 {
        self.beside(Space { unwritten_pages: 0, ..space }) + space.unwritten_pages * PAGE
    }
}

/// Who wants to commit, and how much is done for it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Effort {
    /// Somebody reads, and can be served without.
    Reader,
    /// A checkpoint, which has so much more to commit behind this, and drops history, or not.
    Checkpoint { behind: Need, drops: bool },
}

/// What was admitted.
pub(crate) struct Admitted {
    need: Need,
    durability: Durability,
    /// Deletes that may be dropped with the history.
    pub(crate) deletes_max: usize,
}

/// See the module.
pub(crate) struct Room {
    fs: Arc<dyn FileSystem>,
    wal: Arc<dyn Wal>,
    dir: PathBuf,
    reserve: Reserve,
    /// What commits since the last durable one may still write.
    undurable: Mutex<Need>,
    /// What the tree has free, counted since the last commit.
    space: Mutex<Option<Space>>,
    /// The last checkpoint was refused: said once in the log.
    is_short: AtomicBool,
}

impl Room {
    /// That of the tree in `dir`. Holds the reserve back if there is room for it.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn open(
        fs: Arc<dyn FileSystem>,
        wal: Arc<dyn Wal>,
        dir: PathBuf,
        checkpoint_bytes: u64,
    ) -> Result<Self, StorageError> {
        let reserve = Reserve::new(Arc::clone(&fs), &dir, checkpoint_bytes);
        if !reserve.hold()? {
            tracing::warn!(dir = %dir.display(), "no room for the tree's reserve");
        }
        let (undurable, space) = (Mutex::default(), Mutex::default());
        Ok(Self { fs, wal, dir, reserve, undurable, space, is_short: AtomicBool::new(false) })
    }

    /// Whether the disk has room for a checkpoint that needs so much; asked before memory takes more.
    pub(crate) fn has(&self, need: Need) -> bool {
        let need = self.undurable().and(need);
        let space = *self.counted();
        space.map_or(need.of_disk(), |space| need.beside(space)) <= self.free()
    }

    /// Bytes of the disk that the log leaves for the tree. A file system that cannot tell shows it at the write.
    fn free(&self) -> u64 {
        let free = self.fs.free_bytes(&self.dir).unwrap_or(u64::MAX);
        free.saturating_sub(self.wal.unreserved_bytes())
    }

    /// Whether half of the reserve is enough for it, when the disk has no room: the other half is for the commands that free
    /// space.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn reserve_has(&self, tree: &RedbTree, need: Need) -> Result<bool, StorageError> {
        let needed = self.undurable().and(need).beside(self.space(tree)?);
        Ok(needed <= self.free().saturating_add(self.reserve.held_bytes()? / 2))
    }

    /// Counted once for each commit. Nobody may commit meanwhile.
    fn space(&self, tree: &RedbTree) -> Result<Space, StorageError> {
        let counted = *self.counted();
        if let Some(space) = counted {
            return Ok(space);
        }
        // Without the lock: it reads the whole tree, and others only want to know what was counted last.
        let space = tree.space()?;
        *self.counted() = Some(space);
        Ok(space)
    }

    /// Whether the next commit had better be durable, so that what the ones before may need counts no more.
    pub(crate) fn owes_much(&self) -> bool {
        UNDURABLE_BYTES_MAX < self.undurable().of_disk()
    }

    /// Admits the commit of `batch` to `tree`. `deletes`: how many may be dropped with the history beside it; `None` when none
    /// is dropped.
    ///
    /// # Errors
    /// [`StorageError::DiskFull`]; the system's.
    pub(crate) fn admit(
        &self,
        tree: &RedbTree,
        batch: &Batch,
        deletes: Option<usize>,
        durability: Durability,
        effort: Effort,
    ) -> Result<Admitted, StorageError> {
        let file_pages = tree.file_pages();
        let own = self.undurable().and(Need::of(batch, file_pages));
        let (behind, drops) = match effort {
            Effort::Reader => (Need::default(), false),
            Effort::Checkpoint { behind, drops } => (behind, drops),
        };
        let choices = choices(deletes, file_pages);
        let admitted = |(deletes_max, dropping): &(usize, Need)| Admitted {
            need: own.and(*dropping),
            durability,
            deletes_max: *deletes_max,
        };
        let first = |fits: &dyn Fn(Need) -> bool| {
            choices.iter().find(|(_, dropping)| fits(own.and(*dropping).and(behind))).map(admitted)
        };
        let free = self.free();
        let is_reader = matches!(effort, Effort::Reader);
        let share = if is_reader { free / READERS_SHARE } else { free };
        if let Some(admitted) = first(&|need| need.of_disk() <= share) {
            return Ok(admitted);
        }
        let least = choices.last().map_or(own, |(_, dropping)| own.and(*dropping)).and(behind);
        if is_reader {
            // A checkpoint may still have room.
            return Err(self.full(least.of_disk(), share));
        }
        let space = self.space(tree)?;
        if let Some(admitted) = first(&|need| need.beside(space) <= free) {
            return Ok(admitted);
        }
        let reserve = if drops { self.reserve.held_bytes()? } else { 0 };
        let all = free.saturating_add(reserve);
        // redb uses what a commit gave up only behind the next one, which is to have room, too.
        let next = Need::of_any(file_pages).and(Need::of_dropping(DELETES_MIN, file_pages));
        let admitted = match first(&|need| need.and(next).beside(space) <= all) {
            Some(admitted) => Some(admitted),
            // With all pages of the file in place, its free ones need no room.
            None => first(&|need| need.and(next).in_place(space) <= all),
        };
        let needed = least.and(next).beside(space).min(least.and(next).in_place(space));
        let Some(admitted) = admitted else { return Err(self.refused(needed, free)) };
        let need = admitted.need.and(behind);
        let least_of_disk = need.beside(space).min(need.in_place(space));
        if free < least_of_disk {
            tracing::warn!(dir = %self.dir.display(), needed, free, "the disk is full: a compaction uses the tree's reserve");
            self.reserve.give_up()?;
            // Not every file system held it, and somebody else may have been faster.
            let free = self.free();
            if free < least_of_disk {
                return Err(self.refused(needed, free));
            }
        }
        if all < need.and(next).beside(space) {
            *self.counted() = None;
            // Somebody else may have taken the room.
            if !tree.take_place()? {
                return Err(self.refused(needed, free));
            }
        }
        Ok(admitted)
    }

    /// The commit is done.
    pub(crate) fn committed(&self, admitted: &Admitted) {
        *self.undurable() = match admitted.durability {
            Durability::Visible => admitted.need,
            Durability::Durable => Need::default(),
        };
        if admitted.durability == Durability::Visible {
            return;
        }
        *self.counted() = None;
        if self.is_short.swap(false, Ordering::AcqRel) {
            tracing::info!(dir = %self.dir.display(), "checkpoints have room again");
        }
        self.hold_reserve();
    }

    /// Makes the reserve again, if it was given up and there is room.
    pub(crate) fn hold_reserve(&self) {
        if let Err(error) = self.reserve.hold() {
            tracing::warn!(dir = %self.dir.display(), %error, "the tree's reserve cannot be held");
        }
    }

    /// Whether the last checkpoint was refused.
    pub(crate) fn is_short(&self) -> bool {
        self.is_short.load(Ordering::Acquire)
    }

    fn refused(&self, needed: u64, free: u64) -> StorageError {
        if !self.is_short.swap(true, Ordering::AcqRel) {
            tracing::warn!(dir = %self.dir.display(), needed, free, "the disk has no room for a checkpoint: memory keeps what was applied");
        }
        self.full(needed, free)
    }

    fn full(&self, needed: u64, free: u64) -> StorageError {
        StorageError::DiskFull { dir: self.dir.clone(), needed, free }
    }

    fn counted(&self) -> MutexGuard<'_, Option<Space>> {
        self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn undurable(&self) -> MutexGuard<'_, Need> {
        self.undurable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many deletes may be dropped, most first, and what that needs.
fn choices(deletes: Option<usize>, file_pages: u64) -> Vec<(usize, Need)> {
    let Some(most) = deletes else { return vec![(0, Need::default())] };
    let least = most.min(DELETES_MIN);
    std::iter::successors(Some(most), |deletes| (least < *deletes).then(|| (deletes / 4).max(least)))
        .map(|deletes| (deletes, Need::of_dropping(deletes, file_pages)))
        .collect()
}

/// Refuses to write `bytes` of rows to a new tree file in `dir`, when the disk has too little room.
///
/// # Errors
/// [`StorageError::DiskFull`].
pub(crate) fn require(fs: &dyn FileSystem, dir: &Path, bytes: u64) -> Result<(), StorageError> {
    let needed = bytes.saturating_mul(2).saturating_add(2 * FIXED_PAGES * PAGE);
    match fs.free_bytes(dir) {
        Ok(free) if free < needed => Err(StorageError::DiskFull { dir: dir.to_owned(), needed, free }),
        _ => Ok(()),
    }
}

/// Makes a [`StorageError::DiskFull`] of an error that says so in the system's words: for a new tree file, whose writing can
/// begin again.
pub(crate) fn full_in_the_middle(fs: &dyn FileSystem, dir: &Path, error: StorageError) -> StorageError {
    let source = match &error {
        StorageError::Io { source, .. } => Some(source),
        StorageError::Tree { source, .. } => io_error(&**source),
        _ => None,
    };
    if !source.is_some_and(is_full) {
        return error;
    }
    let free = fs.free_bytes(dir).unwrap_or_default();
    StorageError::DiskFull { dir: dir.to_owned(), needed: free.saturating_add(PAGE), free }
}

/// Whether some of these entries make space free, now or at the next compaction, or add no data at least: they are applied when
/// memory is full, too, with those that came before them in the log.
pub(crate) fn free_space(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| entry.entry_type == EntryType::Normal && frees_space(&entry.data))
        || entries.iter().all(|entry| entry.data.is_empty() || entry.entry_type != EntryType::Normal)
}

/// Whether an encoded command adds no data, as etcd's `NOSPACE` has it: all but puts, transactions with a put in any branch, and
/// grants of leases.
pub(crate) fn frees_space(command: &Bytes) -> bool {
    Command::decode(command.clone())
        .is_ok_and(|command| command.kind.is_some_and(|kind| quota::cost(&kind) == 0))
}

#[cfg(test)]
mod tests;
