//! Fault plans: what goes wrong, and when. Data that is generated from a seed, printed, parsed, replayed and cut down.
//!
//! A plan is text, one step a line: `2500 crash 2 torn` means that 2.5 s after the beginning the power of member 2 fails, and
//! un-synced writes are kept, lost or torn one by one.

mod generate;
mod text;

use harmony_types::NodeId;

pub use self::generate::Intensity;
use super::network::Links;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Plan {
    /// In the order of their times.
    pub steps: Vec<Step>,
}

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When, milliseconds after the beginning.
    pub at_ms: u64,
    /// What.
    pub fault: Fault,
}

/// What becomes of a disk whose process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The process was killed: the system keeps what it wrote.
    Nothing,
    /// The power failed: all that was not synced is gone.
    Unsynced,
    /// The power failed: of what was not synced each write is kept, lost or torn on its own.
    Torn,
}

/// A piece of work in the middle of which a process can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A sync of the log.
    Sync,
    /// Applying, or installing a snapshot.
    Apply,
    /// A checkpoint.
    Checkpoint,
    /// Making a snapshot for a peer.
    Snapshot,
}

/// What an operator does to users and roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthDeed {
    /// Adds every client as a user that may use all keys, and has permissions asked for.
    Enable,
    /// Leaves the clients half of the keys.
    Narrow,
    /// Gives them all keys again.
    Widen,
    /// Has permissions asked for no longer.
    Disable,
}

/// Something that goes wrong, or an operator's deed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A link loses everything.
    Cut {
        /// From here ...
        from: NodeId,
        /// ... to there.
        to: NodeId,
    },
    /// A member hears nobody and nobody hears it.
    Isolate(NodeId),
    /// Members up to and including this one are cut off from those above it. With `bridge`, that member still speaks with all.
    Split {
        /// The last one of the first part.
        at: NodeId,
        /// It belongs to both.
        bridge: bool,
    },
    /// A member and its clients do not hear each other for so many milliseconds.
    CutClients {
        /// Whose.
        member: NodeId,
        /// How long.
        ms: u64,
    },
    /// All cuts end, and links are calm.
    Heal,
    /// All links behave so.
    Links(Links),
    /// A process ends at once, whatever it was doing.
    Crash {
        /// Whose.
        member: NodeId,
        /// What its disk loses.
        loss: Loss,
    },
    /// A process ends in the middle of this, when it does it next.
    CrashIn {
        /// Whose.
        member: NodeId,
        /// In what.
        work: Work,
        /// What its disk loses.
        loss: Loss,
    },
    /// A process starts on what its disk holds.
    Start(NodeId),
    /// A process stands still for so many milliseconds.
    Pause {
        /// Whose.
        member: NodeId,
        /// How long.
        ms: u64,
    },
    /// A disk takes so many microseconds for a sync.
    SlowDisk {
        /// Whose.
        member: NodeId,
        /// How long.
        us: u64,
    },
    /// A disk completes nothing for so many milliseconds.
    HangDisk {
        /// Whose.
        member: NodeId,
        /// How long.
        ms: u64,
    },
    /// A disk completes nothing for so many milliseconds, not even what an apply reads.
    HangReads {
        /// Whose.
        member: NodeId,
        /// How long.
        ms: u64,
    },
    /// A disk has room for so many more bytes.
    FillDisk {
        /// Whose.
        member: NodeId,
        /// Bytes left.
        bytes: u64,
    },
    /// A disk has room again.
    EmptyDisk(NodeId),
    /// The n-th call from here on that changes the disk fails.
    FailDisk {
        /// Whose.
        member: NodeId,
        /// Which call, from 1.
        nth: u64,
    },
    /// A bit on a disk flips, or a block is written to a wrong place, while its process is down or behind its back.
    Rot(NodeId),
    /// A process ends, and its directory is gone.
    LoseDirectory(NodeId),
    /// Leadership is to go to this member.
    Transfer(NodeId),
    /// A member that was not there is added: it becomes a voter once it has caught up.
    Join(NodeId),
    /// A member is removed.
    Remove(NodeId),
    /// Users and roles change.
    Auth(AuthDeed),
    /// A member writes its tree anew, as an online defragmentation does.
    Rebuild(NodeId),
    /// More reads come to a member at once than it takes.
    Flood(NodeId),
    /// The history is compacted up to the newest revision.
    Compact,
    /// A member's clock runs fast by so many parts in a million; below 0, slow.
    Drift {
        /// Whose.
        member: NodeId,
        /// By how much.
        ppm: i64,
    },
    /// A member's calendar jumps by so many milliseconds.
    JumpCalendar {
        /// Whose.
        member: NodeId,
        /// By how much.
        ms: i64,
    },
}

impl Plan {
    /// The plan without these steps.
    #[must_use]
    pub fn without(&self, steps: std::ops::Range<usize>) -> Self {
        let mut left = self.steps.clone();
        left.drain(steps);
        Self { steps: left }
    }
}
