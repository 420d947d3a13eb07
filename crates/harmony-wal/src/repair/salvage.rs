//! A log made of what is certain of a damaged one: for a member whose peers can give it the content that is lost.
//!
//! A member may go on only with all that it had promised: its newest term and vote, and the entries that it said it holds, at
//! least by index and term. `remains.rs` says what is certain of that. What is made of it is one segment behind a hole in the
//! sequence, which says that it is the oldest one needed: it takes the log's place by getting its name.

use std::path::{Path, PathBuf};

use harmony_types::config::{Identity, WalConfig};
use harmony_types::{Applied, EntryType, FileSystem, HardState, LogIndex, NodeId, RecordType, Term};
use harmony_types::{WalError, WalOffset};

use super::execute::make_home;
use super::remains::{self, Remains};
use crate::directory;
use crate::frame::{self, Kind, Meta};
use crate::preallocate;
use crate::recovery::corrupt;
use crate::segment::{self, Head, SEAL_BYTES};

/// What is certain of a damaged log.
#[derive(Debug)]
pub struct Salvage(Remains);

impl Salvage {
    /// The last entry, or the boundary.
    #[must_use]
    pub fn last(&self) -> LogIndex {
        self.0.index.last()
    }

    /// The newest term and vote, and how far entries are known to be committed.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.0.state
    }

    /// The last entry whose content may be lost.
    #[must_use]
    pub fn last_damaged(&self) -> LogIndex {
        self.0.last_damaged
    }

    /// The term of an entry or of the boundary, its content lost or not.
    #[must_use]
    pub fn term(&self, index: LogIndex) -> Option<Term> {
        self.0.index.term(index)
    }

    /// The last entry that is known to be committed.
    #[must_use]
    pub fn committed(&self) -> Applied {
        let bounds = self.0.index.bounds();
        let index = self.0.state.commit.max(bounds.boundary);
        Applied { index, term: self.term(index).unwrap_or(bounds.boundary_term) }
    }
}

/// Reads a damaged log to its end. Changes nothing.
///
/// # Errors
/// [`WalError::CorruptRecord`] and its like: why it is not certain what the log had promised. [`WalError::Foreign`],
/// [`WalError::Locked`], [`WalError::Io`].
pub fn plan_salvage(fs: &dyn FileSystem, dir: &Path, identity: Identity) -> Result<Salvage, WalError> {
    let _lock = directory::lock_existing(fs, dir)?;
    remains::read(fs, dir, identity, None).map(Salvage)
}

/// Puts a log in the damaged one's place that begins behind `boundary`, a committed entry, and has all that is behind it:
/// entries whose content is lost as empty ones, which nobody must ever apply or hand on. The old segments are moved into a
/// new directory beside it, whose name is returned.
///
/// After a crash the log is the damaged one or the new one; old segments that were not moved by then go at the next open.
///
/// # Errors
/// As [`plan_salvage`]; nothing was changed then. [`WalError::Io`].
pub fn salvage(
    fs: &dyn FileSystem,
    dir: &Path,
    config: &WalConfig,
    boundary: Applied,
) -> Result<PathBuf, WalError> {
    let _lock = directory::lock(fs, dir)?;
    let mut remains = remains::read(fs, dir, config.identity, Some(boundary.index))?;
    let refused = |reason: &str| corrupt(dir, 0, boundary.index, reason.to_owned());
    if remains.index.term(boundary.index) != Some(boundary.term) {
        return Err(refused("the log does not hold the entry that it is to begin behind"));
    }
    let newest = remains.names.last().map_or(0, |name| name.sequence);
    // One number is left out: what is before it does not belong to the run that counts.
    let sequence = newest.checked_add(2).ok_or_else(|| refused("there is no number for another segment"))?;
    let head = Head {
        sequence,
        oldest: sequence,
        cluster: config.identity.cluster.0,
        node: NodeId::or_zero(config.identity.node),
        boundary: boundary.index,
        boundary_term: boundary.term,
    };
    let state = HardState { commit: remains.state.commit.max(boundary.index), ..remains.state };
    let mut bytes = Vec::new();
    let mut chain = segment::encode_opening(&mut bytes, &head, 0, &state);
    for index in (boundary.index.next().0..=remains.index.last().0).map(LogIndex) {
        let term = remains.index.term(index).expect("within the log");
        let entry = remains.entries.remove(&index);
        let (entry_type, data) = entry
            .map_or_else(|| (EntryType::Normal, Default::default()), |entry| (entry.entry_type, entry.data));
        let byte = u32::try_from(bytes.len())
            .map_err(|_| refused("what is not committed is more than a segment can hold"))?;
        // The segment has its name only once all of it is synced.
        let meta = Meta { kind: Kind::Record(RecordType::Entry), index, term, durable: byte };
        let at = WalOffset::new(sequence, byte);
        chain = frame::encode(&mut bytes, at, chain, &meta, &[entry_type as u8], &data);
    }
    let unfinished = head.name().unfinished_path(dir);
    if fs.exists(&unfinished).map_err(WalError::io("look for", &unfinished))? {
        fs.remove_file(&unfinished).map_err(WalError::io("remove", &unfinished))?;
    }
    let home = make_home(fs, dir)?;
    let room = config.segment_bytes.max((bytes.len() + SEAL_BYTES) as u64);
    preallocate::create_filled(fs, dir, &head, &bytes, room)?;
    for name in &remains.names {
        let (from, to) = (name.path(dir), name.path(&home));
        fs.rename(&from, &to).map_err(WalError::io("move aside", &from))?;
    }
    fs.sync_dir(&home).map_err(WalError::io("sync", &home))?;
    fs.sync_dir(dir).map_err(WalError::io("sync", dir))?;
    Ok(home)
}
