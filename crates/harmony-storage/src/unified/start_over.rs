//! Opening for a member of several: damage that is found then is no reason to stay away, as the others have what is lost.
//!
//! | found | what is done |
//! | --- | --- |
//! | the tree is damaged where opening needs it, or is missing beside a log with entries | it is set aside; a tree without a state takes its place, with the members that somebody else knows; its log stays as it is |
//! | the log is damaged, but its newest vote and its end are certain, and all that is damaged is in the tree | the log is made to begin behind what the tree has: nothing is lost |
//! | the same, and the tree does not have it | the tree is set aside as above; then the log is made to begin at what is committed |
//! | the log is damaged, and what it had acknowledged is not certain | refused: a member that may forget must not go on |
//!
//! The tree without a state carries the note of it, and a snapshot takes its place in one step, so that the note lives exactly
//! as long as the state is missing, whatever crashes in between. It comes first, the log second: a log that stands for entries
//! that it cannot give is never beside a tree that would ask for them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harmony_types::config::StorageConfig;
use harmony_types::{Applied, FileSystem, Membership, StorageError, Wal, WalError};
use harmony_wal::{FileWal, Salvage};

use super::{TREE_FILE, UnifiedStorage};
use crate::new_tree::NewTree;
use crate::tree::KvEngine;
use crate::tree::meta::{self, Progress};
use crate::tree::redb::Unchanged;

/// What a storage without a state says of it.
pub(super) const NO_STATE: &str = "the state was damaged when this member started: there is none until a snapshot of another member takes its place";

/// What could be learned of a tree.
struct Seen {
    progress: Progress,
    membership: Membership,
}

impl UnifiedStorage {
    /// As [`UnifiedStorage::open`], and returns the log, too. With damage that other members can heal, a member of several opens
    /// all the same: [`UnifiedStorage::is_lost`] says whether it has a state.
    ///
    /// `members` is asked for the cluster's members when the tree cannot tell; `None` when nobody knows any. A member that
    /// is the only voter is refused as by [`UnifiedStorage::open`], with nothing changed.
    ///
    /// # Errors
    /// As [`UnifiedStorage::open`].
    pub fn open_member(
        fs: &Arc<dyn FileSystem>,
        wal_dir: &Path,
        tree_dir: &Path,
        config: &StorageConfig,
        members: &dyn Fn() -> Option<Membership>,
    ) -> Result<(Arc<FileWal>, Self), StorageError> {
        let me = Opening { fs, wal_dir, tree_dir, config, members };
        let wal = match FileWal::open(Arc::clone(fs), wal_dir, config.wal.clone()) {
            Err(error) if harmony_wal::is_damage(&error) => {
                me.mend_log(error)?;
                FileWal::open(Arc::clone(fs), wal_dir, config.wal.clone())?
            }
            opened => opened?,
        };
        let wal = Arc::new(wal);
        let storage = me.open_tree(&wal)?;
        Ok((wal, storage))
    }
}

struct Opening<'a> {
    fs: &'a Arc<dyn FileSystem>,
    wal_dir: &'a Path,
    tree_dir: &'a Path,
    config: &'a StorageConfig,
    members: &'a dyn Fn() -> Option<Membership>,
}

impl Opening<'_> {
    fn open_tree(&self, wal: &Arc<FileWal>) -> Result<UnifiedStorage, StorageError> {
        let boundary = boundary_of(&**wal)?;
        if let Some(Seen { progress, membership }) = self.look().ok().flatten()
            && progress.lost
            && progress.applied != boundary
        {
            // A crash between the two steps, or the log was damaged again.
            self.replace_tree(&membership, boundary)?;
        }
        let open = || {
            UnifiedStorage::with_wal(
                Arc::clone(self.fs),
                Arc::clone(wal) as _,
                self.tree_dir,
                self.config.clone(),
            )
        };
        let path = self.tree_dir.join(TREE_FILE);
        let is_missing = !self.fs.exists(&path).map_err(StorageError::io("look for", &path))?
            && wal.bounds().last != boundary.index;
        let refusal = if is_missing {
            StorageError::NotFound { what: format!("{} beside a log", path.display()) }
        } else {
            match open() {
                Err(error) if is_tree_damage(&error, &path) => error,
                opened => return opened,
            }
        };
        let Some(members) = self.others(None) else {
            return if is_missing { open() } else { Err(refusal) };
        };
        tracing::error!(
            error = %refusal,
            "the tree is damaged: it is set aside, and this member takes the state of the others"
        );
        self.replace_tree(&members, boundary)?;
        open()
    }

    /// Makes a log that opens of one that does not, and keeps all that the member had acknowledged and voted.
    fn mend_log(&self, refusal: WalError) -> Result<(), StorageError> {
        let seen = self.look().ok().flatten();
        let known = seen.as_ref().map(|seen| seen.membership.clone());
        let Some(members) = self.others(known) else { return Err(refusal.into()) };
        let salvage = match harmony_wal::plan_salvage(&**self.fs, self.wal_dir, self.config.wal.identity) {
            Ok(salvage) => salvage,
            Err(why) => {
                tracing::error!(error = %why, "what the damaged log had acknowledged is not certain: it is left as it is");
                return Err(refusal.into());
            }
        };
        let boundary = match seen.as_ref().and_then(|seen| covered(&seen.progress, &salvage)) {
            Some(applied) => {
                tracing::error!(error = %refusal, applied = %applied.index, "the log is damaged: it begins behind what the tree has from now on");
                applied
            }
            None => {
                let boundary = salvage.committed();
                tracing::error!(
                    error = %refusal,
                    boundary = %boundary.index,
                    "the log is damaged: this member keeps what it acknowledged, and takes the state of the others"
                );
                self.replace_tree(&members, boundary)?;
                boundary
            }
        };
        let kept_in = harmony_wal::salvage(&**self.fs, self.wal_dir, &self.config.wal, boundary)?;
        tracing::warn!(kept_in = %kept_in.display(), "the damaged log was set aside");
        Ok(())
    }

    /// The members, if somebody besides this one votes. Those that the tree knows, if it knows any.
    fn others(&self, known: Option<Membership>) -> Option<Membership> {
        let me = self.config.wal.identity.node?;
        let known = known.filter(|known| *known != Membership::default());
        let members = known.or_else(|| (self.members)())?;
        members.voters.iter().any(|voter| *voter != me).then_some(members)
    }

    /// What the tree says of itself; `None` when there is none.
    fn look(&self) -> Result<Option<Seen>, StorageError> {
        let path = self.tree_dir.join(TREE_FILE);
        if !self.fs.exists(&path).map_err(StorageError::io("look for", &path))? {
            return Ok(None);
        }
        // A start that is refused changes nothing.
        let view = Unchanged::open(&**self.fs, &path)?.tree.view()?;
        Ok(Some(Seen { progress: Progress::read(&*view)?, membership: meta::read_membership(&*view)? }))
    }

    /// Puts a tree without a state in the tree's place, and keeps that one under another name.
    fn replace_tree(&self, members: &Membership, boundary: Applied) -> Result<(), StorageError> {
        let fs = &**self.fs;
        fs.create_dir_all(self.tree_dir).map_err(StorageError::io("create", self.tree_dir))?;
        let mut new = NewTree::create(self.fs, self.tree_dir, self.config)?;
        new.progress.applied = boundary;
        new.progress.lost = true;
        new.finish(members)?;
        let path = self.tree_dir.join(TREE_FILE);
        let is_worthless = self.look().is_ok_and(|seen| seen.is_none_or(|seen| seen.progress.lost));
        if !is_worthless {
            let aside = self.free_name()?;
            fs.rename(&path, &aside).map_err(StorageError::io("set aside", &path))?;
            fs.sync_dir(self.tree_dir).map_err(StorageError::io("sync", self.tree_dir))?;
            tracing::warn!(kept = %aside.display(), "the tree was set aside");
        }
        // All of it is durable.
        new.take_place()?.abandon();
        Ok(())
    }

    fn free_name(&self) -> Result<PathBuf, StorageError> {
        let mut number = 1u64;
        loop {
            let name = self.tree_dir.join(format!("{TREE_FILE}.damaged-{number}"));
            if !self.fs.exists(&name).map_err(StorageError::io("look for", &name))? {
                return Ok(name);
            }
            number += 1;
        }
    }
}

/// Where the tree ends, if the log can go on from there and all that is damaged lies before.
fn covered(progress: &Progress, salvage: &Salvage) -> Option<Applied> {
    let applied = progress.applied;
    let goes_on = !progress.lost && salvage.term(applied.index) == Some(applied.term);
    (goes_on && salvage.last_damaged() <= applied.index).then_some(applied)
}

fn boundary_of(wal: &dyn Wal) -> Result<Applied, StorageError> {
    let index = wal.bounds().boundary;
    Ok(Applied { index, term: wal.term(index)? })
}

/// Whether an error of opening says that the tree cannot be read, and not that it is somebody else's, in use, of a newer
/// release, or that the disk is full.
fn is_tree_damage(error: &StorageError, path: &Path) -> bool {
    match error {
        StorageError::CrcMismatch { .. } | StorageError::CorruptRecord { .. } => true,
        StorageError::Io { action: "read", path: found, .. } => found == path,
        // The tree passes on what the system said as text.
        StorageError::Tree { .. } => !says_of_system(error),
        _ => false,
    }
}

/// Whether the system refused something: a full disk, say.
fn says_of_system(error: &StorageError) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<io::Error>().is_some() || error.to_string().contains("(os error ") {
            return true;
        }
        next = error.source();
    }
    false
}
