//! Repair of a damaged log: keeps what stands before the damage, moves everything else aside, and says what that costs.
//!
//! Opening never does this: a log that lost what it had acknowledged is no longer the log that its owner relies on, and
//! whether to go on with it is not for the log to decide. [`plan_repair`] looks and changes nothing; [`repair`] does it.
//!
//! A member of several whose log still tells what it had promised can go on without forgetting: `repair/salvage.rs`.
//!
//! What is kept is what an open reads before it refuses, to the byte (`repair/prefix.rs`). What stands behind is read
//! frame by frame, each checked by its own checksum, to say what is lost (`repair/loss.rs`). All files that change or go
//! are in a new directory `repaired-{n}` before the log changes, byte for byte (`repair/execute.rs`).

mod execute;
mod loss;
mod prefix;
mod remains;
mod salvage;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harmony_types::{
    ClusterId, File, FileSystem, HardState, LogBounds, LogIndex, NodeId, WalError, WalOffset,
};

use crate::directory;
use crate::recovery;
use crate::segment::SegmentName;
use loss::Survey;
pub use prefix::is_damage;
use prefix::{Prefix, Walk};
pub use salvage::{Salvage, plan_salvage, salvage};

/// What a repair keeps, cuts and loses.
#[derive(Debug)]
pub struct RepairPlan {
    /// Whose log it is; `None` when no segment tells.
    pub cluster: Option<ClusterId>,
    /// Of which member; `None` for a log used alone.
    pub node: Option<NodeId>,
    /// What is damaged, in the order of the log, at least one: each names its place and the last good index before.
    /// Damage behind the one that ends the kept part is not listed.
    pub damage: Vec<WalError>,
    /// True when the first segments are missing or damaged, and no record proves that the log had released them: what
    /// is kept begins later than the log did. Needs [`RepairOptions::accept_lost_beginning`].
    pub beginning_lost: bool,
    /// The log afterwards; `None` when nothing can be kept.
    pub kept: Option<Kept>,
    /// What goes aside, in the order of the log.
    pub cut: Vec<Cut>,
    /// What is lost with it.
    pub lost: Lost,
}

/// A log after its repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Segments.
    pub segments: usize,
    /// Records, those that the log writes for itself included.
    pub records: u64,
    /// Entries held.
    pub bounds: LogBounds,
    /// Newest hard state.
    pub hard_state: HardState,
    /// Where the kept part ends.
    pub end: WalOffset,
}

/// Bytes of one file that go aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Segment file.
    pub path: PathBuf,
    /// First byte cut; 0 when the whole file is moved.
    pub offset: u64,
    /// How many, without the free space behind what was written.
    pub bytes: u64,
    /// Whole good records among them.
    pub records: u64,
    /// First and last index of the entries among those.
    pub entries: Option<(LogIndex, LogIndex)>,
}

/// What a repair gives up. Counted are whole records that are good by their own checksum; what is damaged itself, or in a
/// file that is missing, cannot be counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Good records that are cut, without those that the log writes for itself.
    pub records: u64,
    /// First and last index of the entries among them.
    pub entries: Option<(LogIndex, LogIndex)>,
    /// True when a record proves that something of what is cut or missing had been synced. When false, it may have been.
    pub synced: bool,
    /// The newest hard state in what is cut, when it is another than the one that is kept.
    pub hard_state: Option<HardState>,
    /// What is cut had replaced the kept entries from this index on: they are stale.
    pub stale_from: Option<LogIndex>,
}

/// How far a repair may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairOptions {
    /// Accepts a log that begins later than it did, or one without any segment: see [`RepairPlan::beginning_lost`].
    pub accept_lost_beginning: bool,
}

/// A repair that was done.
#[derive(Debug)]
pub struct Repaired {
    /// What was kept and cut.
    pub plan: RepairPlan,
    /// Directory that holds every file that was cut or moved, whole and as it was.
    pub kept_in: PathBuf,
}

/// A plan with what carrying it out needs.
struct Draft {
    plan: RepairPlan,
    prefix: Option<Prefix>,
    /// Whether the last segment kept gets a new file.
    rewrite: bool,
    /// Oldest segment, to be noted in the kept log: its own records do not say that those before were released.
    release: Option<u32>,
    /// Segments moved aside: those behind the kept ones, and those before.
    behind: Vec<SegmentName>,
    before: Vec<SegmentName>,
    lock: Option<Arc<dyn File>>,
}

/// Says what [`repair`] would do; `None` when the log opens as it is. Changes nothing.
///
/// # Errors
/// [`WalError::Locked`] while a process uses the log; [`WalError::UnsupportedVersion`] when a newer release wrote a segment;
/// [`WalError::Foreign`] when segments of two members are mixed; [`WalError::CorruptRecord`] when two files claim to be the
/// same segment or a `.wal` file has another name than a segment's; [`WalError::Io`] of kind `NotFound` when there is no
/// log, of another kind when the disk cannot be read.
pub fn plan_repair(fs: &dyn FileSystem, dir: &Path) -> Result<Option<RepairPlan>, WalError> {
    Ok(draft(fs, dir)?.map(|draft| draft.plan))
}

/// Cuts a damaged log where the damage begins; `None`, with nothing changed, when it opens as it is.
///
/// First every file that changes or goes is put into a new directory beside the segments, durably; then the log changes.
/// After a crash at any point the log is refused as before, or opens with exactly what the plan keeps, and no byte is
/// lost; repairing again finishes it. The repaired log lacks records that may have been acknowledged: **a member of a
/// cluster must not go on with it under its old identity**, since it may have voted for, or counted towards a majority of,
/// what it no longer knows.
///
/// # Errors
/// As [`plan_repair`]; the first damage itself when the beginning is lost and `options` do not accept that, with nothing
/// changed; [`WalError::Io`].
pub fn repair(fs: &dyn FileSystem, dir: &Path, options: RepairOptions) -> Result<Option<Repaired>, WalError> {
    let Some(mut draft) = draft(fs, dir)? else { return Ok(None) };
    if draft.plan.beginning_lost && !options.accept_lost_beginning {
        return Err(draft.plan.damage.swap_remove(0));
    }
    if draft.lock.is_none() {
        draft.lock = Some(directory::lock(fs, dir)?);
    }
    let kept_in = execute::execute(fs, dir, &draft)?;
    Ok(Some(Repaired { plan: draft.plan, kept_in }))
}

fn draft(fs: &dyn FileSystem, dir: &Path) -> Result<Option<Draft>, WalError> {
    let lock = directory::lock_existing(fs, dir)?;
    let refusal = match recovery::scan(fs, dir, None, None) {
        Ok(Some(_)) => return Ok(None),
        Ok(None) => {
            let error = io::Error::new(io::ErrorKind::NotFound, "the directory has no segment");
            return Err(WalError::io("read the log in", dir)(error));
        }
        // A newer version may be a damaged number; the check of the heads tells.
        Err(error @ WalError::UnsupportedVersion { .. }) => error,
        Err(error) if prefix::is_damage(&error) => error,
        Err(error) => return Err(error),
    };
    let (names, _) = recovery::list(fs, dir)?;
    let owner = prefix::check_heads(fs, dir, &names)?;

    let (start, first_damage, Walk { prefix, damage: end_damage }) = first_good(fs, dir, &names)?;
    let (before, rest) = names.split_at(start);
    let behind = &rest[prefix.as_ref().map_or(0, |prefix| prefix.segments.len())..];
    let tail = prefix.as_ref().map(|prefix| loss::survey_tail(fs, prefix)).transpose()?;
    let before_surveys = survey_all(fs, dir, before)?;
    let behind_surveys = survey_all(fs, dir, behind)?;

    let mut damage: Vec<WalError> = first_damage.into_iter().collect();
    let mut beginning_lost = prefix.is_none();
    let mut release = None;
    if let Some(prefix) = &prefix {
        let first = prefix.segments[0].name.sequence;
        let noted = behind_surveys.iter().chain(&tail).map(|survey| survey.oldest).max();
        beginning_lost = prefix.replay.oldest.max(noted.unwrap_or(0)) < first;
        release = Some(first).filter(|first| prefix.replay.oldest < *first);
        if beginning_lost && damage.is_empty() {
            let sequence = u64::from(first) - 1;
            damage.push(WalError::MissingSegment { dir: dir.to_owned(), sequence, index: LogIndex::ZERO });
        }
    }
    let missing = matches!(end_damage, Some(WalError::MissingSegment { .. }));
    damage.extend(end_damage);
    if damage.is_empty() {
        damage.push(refusal);
    }

    let mut cut: Vec<Cut> = before_surveys.iter().map(Survey::cut).collect();
    cut.extend(tail.iter().filter(|survey| survey.bytes != 0).map(Survey::cut));
    cut.extend(behind_surveys.iter().map(Survey::cut));
    let rewrite = release.is_some() || tail.as_ref().is_some_and(|tail| tail.bytes != 0);
    let needed_before = if beginning_lost { &before_surveys[..] } else { &[] };
    let lost = loss::sum(prefix.as_ref(), needed_before, tail.as_ref(), &behind_surveys, missing);
    let kept = prefix.as_ref().map(Prefix::kept);
    let (cluster, node) = owner.map_or((None, None), |(cluster, node)| (Some(cluster), node));
    let plan = RepairPlan { cluster, node, damage, beginning_lost, kept, cut, lost };
    let (behind, before) = (behind.to_vec(), before.to_vec());
    Ok(Some(Draft { plan, prefix, rewrite, release, behind, before, lock }))
}

/// The slot of the first segment that counts and opens, the damage of those before it, and the reading from there on.
fn first_good(
    fs: &dyn FileSystem,
    dir: &Path,
    names: &[SegmentName],
) -> Result<(usize, Option<WalError>, Walk), WalError> {
    let mut start = prefix::start(fs, dir, names)?;
    let mut damage = None;
    loop {
        let walk = prefix::walk(fs, dir, &names[start..])?;
        if walk.prefix.is_some() || start == names.len() {
            return Ok((start, damage, walk));
        }
        // One is enough to say that the beginning is damaged.
        damage = damage.or(walk.damage);
        start += 1;
    }
}

fn survey_all(fs: &dyn FileSystem, dir: &Path, names: &[SegmentName]) -> Result<Vec<Survey>, WalError> {
    names.iter().map(|name| loss::survey_whole(fs, dir, *name)).collect()
}
