//! Bugs that are planted on purpose, to see whether a simulator finds them: a test of the tests.
//!
//! With the feature `planted` one bug at a time can be switched on for a thread. Without it [`is`] is constant and false, the
//! places where it is asked are compiled to what they are without it, and `harmony-server` does not build with it. Where a bug can
//! be put around the product, it is: the simulator loses the write, or repeats the message. The product asks only where
//! nothing around it could do the same.

/// Whether bugs can be planted in this build.
pub const BUILT_IN: bool = cfg!(feature = "planted");

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Bug {
    /// The log's sync returns without a sync. In the simulator's storage, as are the next ones.
    SkipSync,
    /// Votes are not written.
    ForgetVote,
    /// Terms and votes are written with entries only.
    ForgetTerm,
    /// A restart brings back the suffix of the log that another leader's entries had replaced last.
    ResurrectSuffix,
    /// The second of several entries that are applied at once has no effect.
    SkipEntry,
    /// The first two outcomes of entries that are applied at once are swapped.
    SwapOutcomes,
    /// The previous version that a put answers with has another version number.
    PrevKvWrong,
    /// A proposal that is passed on to the leader arrives twice. In the simulator's network, as are the next two.
    DuplicateForward,
    /// Whoever refuses its vote grants it.
    GrantRefusedVote,
    /// Whoever refuses entries accepts them.
    AcceptRefusedEntries,
    /// A proposal whose outcome is unknown is proposed again. In the simulator's clients, as is the next one.
    RetryUnknown,
    /// A linearizable read is answered without a read index.
    ReadLocally,
    /// Votes and acknowledgements leave before what they promise is on disk.
    SendBeforeSync,
    /// A waiter of an earlier reign is answered with what stands at its place of the log.
    DropTermCheck,
    /// All rounds of linearizable reads have one context.
    ReuseReadContext,
    /// Reads that wait are answered when the leader changes.
    ReadAcrossLeaders,
    /// Reads do not wait until what they must see is applied.
    ReadBeforeApplied,
    /// A follower hands out the leader's answers before it has applied what they are about.
    AnswerBeforeApplied,
    /// A member goes on when it was removed.
    StayWhenRemoved,
    /// The log is released up to the applied index, whatever the tree has on disk.
    ReleaseTooEarly,
    /// A command is run twice.
    ApplyTwice,
    /// A checkpoint notes an applied index that is one too low.
    AppliedIndexBehind,
    /// A checkpoint does not wait for the log: the tree may be ahead of it.
    CheckpointUnsynced,
    /// A checkpoint leaves out the newest version of the first key.
    CheckpointLosesWrite,
    /// The log learns of a snapshot before the tree is in its place.
    BoundaryBeforeTree,
    /// A snapshot is installed without its history.
    HalfSnapshot,
    /// A snapshot says that it is of the next index.
    SnapshotSaysMore,
    /// Compaction drops a key that was deleted and written again with its old tombstone.
    DropRecreated,
    /// Compaction drops the events of the compact revision, too.
    CompactOneMore,
    /// A transaction takes the other branch.
    TxnWrongBranch,
    /// The version of a key that is written again after its delete does not begin at 1.
    VersionNotReset,
    /// A key that is deleted stays attached to its lease.
    KeepLeaseAtDelete,
    /// A renewal is answered and changes nothing.
    IgnoreRenewal,
    /// A watcher whose next events are compacted is not told so, and goes on behind them.
    WatchPastCompaction,
    /// After a restart the newest revision is given out again.
    RevisionBack,
    /// The rolling hash leaves out the first write after a checkpoint.
    HashMissesWrite,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 36] = [
        Self::SkipSync,
        Self::ForgetVote,
        Self::ForgetTerm,
        Self::ResurrectSuffix,
        Self::SkipEntry,
        Self::SwapOutcomes,
        Self::PrevKvWrong,
        Self::DuplicateForward,
        Self::GrantRefusedVote,
        Self::AcceptRefusedEntries,
        Self::RetryUnknown,
        Self::ReadLocally,
        Self::SendBeforeSync,
        Self::DropTermCheck,
        Self::ReuseReadContext,
        Self::ReadAcrossLeaders,
        Self::ReadBeforeApplied,
        Self::AnswerBeforeApplied,
        Self::StayWhenRemoved,
        Self::ReleaseTooEarly,
        Self::ApplyTwice,
        Self::AppliedIndexBehind,
        Self::CheckpointUnsynced,
        Self::CheckpointLosesWrite,
        Self::BoundaryBeforeTree,
        Self::HalfSnapshot,
        Self::SnapshotSaysMore,
        Self::DropRecreated,
        Self::CompactOneMore,
        Self::TxnWrongBranch,
        Self::VersionNotReset,
        Self::KeepLeaseAtDelete,
        Self::IgnoreRenewal,
        Self::WatchPastCompaction,
        Self::RevisionBack,
        Self::HashMissesWrite,
    ];
}

impl std::str::FromStr for Bug {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|bug| format!("{bug:?}") == name);
        found.ok_or_else(|| format!("no bug is named {name:?}; there are {:?}", Self::ALL))
    }
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in whatever this thread runs from here on, in the place of the one before; none: no bug.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this thread runs with this bug.
#[cfg(feature = "planted")]
#[must_use]
pub fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether this thread runs with this bug: not in this build.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn is(_: Bug) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_has_its_name() {
        for bug in Bug::ALL {
            assert_eq!(format!("{bug:?}").parse(), Ok(bug));
        }
        "None".parse::<Bug>().unwrap_err();
    }
}
