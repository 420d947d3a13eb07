//! Rare branches by name, and how often a run went through them. A campaign that never visited one has not tested it.

use std::collections::BTreeMap;
use std::fmt;

/// A rare branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Probe {
    /// A member won an election.
    LeaderElected,
    /// A leader lost its part while proposals of its clients were under way.
    LeaderLostWithProposals,
    /// A member that was asked for a pre-vote refused it.
    PreVoteRefused,
    /// A member that was asked for its vote refused it.
    VoteRefused,
    /// A member asked for votes early, as its leader's process was gone.
    EarlyElection,
    /// A suffix of a log was replaced: another leader's entries were there.
    LogTruncated,
    /// Opening a log cut what a crash had left of a write.
    TornTailCut,
    /// A snapshot left.
    SnapshotSent,
    /// A snapshot was put in place of a member's state.
    SnapshotInstalled,
    /// A log gave up its beginning.
    LogReleased,
    /// A checkpoint ended.
    Checkpoint,
    /// A process died in the middle of a sync.
    CrashInSync,
    /// A process died in the middle of a checkpoint.
    CrashInCheckpoint,
    /// A process died in the middle of applying, or of installing a snapshot.
    CrashInApply,
    /// A round of a linearizable read was asked for again, as the leader changed or the request was lost.
    ReadRestarted,
    /// A proposal was passed on by a follower.
    ProposalForwarded,
    /// A call ended without an answer that says whether it happened.
    Unknown,
    /// A call was given up by its client.
    TimedOut,
    /// A call was refused as too much waited.
    Busy,
    /// A message was delivered twice.
    Duplicated,
    /// A message overtook an earlier one.
    Reordered,
    /// A message came seconds late.
    Stale,
    /// A message was lost.
    Lost,
    /// A leader whose disk hung handed over.
    DiskStall,
    /// A disk call failed as planned.
    DiskCallFailed,
    /// A full disk made a member refuse a proposal.
    NoSpace,
    /// A full disk made a state machine wait.
    ApplyWaited,
    /// A member ended because its disk failed.
    DiskEndedMember,
    /// A member that had lost what it acknowledged was sent away.
    Forgot,
    /// A removed member ended.
    Removed,
    /// A member joined.
    Joined,
    /// A learner became a voter.
    Promoted,
    /// History was compacted.
    Compacted,
    /// Damage on a disk was found when it was opened.
    DamageFound,
    /// A process died in the middle of making a snapshot.
    CrashInSnapshot,
    /// A process died in the middle of writing its tree anew.
    CrashInRebuild,
    /// A tree was written anew.
    Rebuilt,
    /// A watcher fell behind, and history was read for it.
    WatchReadHistory,
    /// A watch that was broken went on elsewhere.
    WatchResumed,
    /// A watch ended, as what it was to be told next was compacted.
    WatchCompacted,
    /// A lease was granted.
    LeaseGranted,
    /// A lease was renewed.
    LeaseRenewed,
    /// The time of a lease was over.
    LeaseExpired,
    /// The log was told what is left of a lease.
    LeaseCheckpointed,
    /// A command was refused, as its author may not do this.
    PermissionDenied,
    /// A command was refused, as users or roles had changed since it was proposed.
    AuthRevisionOld,
}

impl Probe {
    /// All of them.
    pub const ALL: [Self; 46] = [
        Self::LeaderElected,
        Self::LeaderLostWithProposals,
        Self::PreVoteRefused,
        Self::VoteRefused,
        Self::EarlyElection,
        Self::LogTruncated,
        Self::TornTailCut,
        Self::SnapshotSent,
        Self::SnapshotInstalled,
        Self::LogReleased,
        Self::Checkpoint,
        Self::CrashInSync,
        Self::CrashInCheckpoint,
        Self::CrashInApply,
        Self::ReadRestarted,
        Self::ProposalForwarded,
        Self::Unknown,
        Self::TimedOut,
        Self::Busy,
        Self::Duplicated,
        Self::Reordered,
        Self::Stale,
        Self::Lost,
        Self::DiskStall,
        Self::DiskCallFailed,
        Self::NoSpace,
        Self::ApplyWaited,
        Self::DiskEndedMember,
        Self::Forgot,
        Self::Removed,
        Self::Joined,
        Self::Promoted,
        Self::Compacted,
        Self::DamageFound,
        Self::CrashInSnapshot,
        Self::CrashInRebuild,
        Self::Rebuilt,
        Self::WatchReadHistory,
        Self::WatchResumed,
        Self::WatchCompacted,
        Self::LeaseGranted,
        Self::LeaseRenewed,
        Self::LeaseExpired,
        Self::LeaseCheckpointed,
        Self::PermissionDenied,
        Self::AuthRevisionOld,
    ];

    /// Whether a campaign of some hundred runs of each size and intensity that did not visit it has become blind.
    #[must_use]
    pub const fn is_common(self) -> bool {
        !matches!(self, Self::ApplyWaited | Self::CrashInRebuild | Self::CrashInSnapshot | Self::TornTailCut)
    }
}

/// How often each was visited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probes(BTreeMap<Probe, u64>);

impl Probes {
    /// Visits a branch so many more times.
    pub fn add(&mut self, probe: Probe, times: u64) {
        if times != 0 {
            *self.0.entry(probe).or_default() += times;
        }
    }

    /// How often it was visited.
    #[must_use]
    pub fn count(&self, probe: Probe) -> u64 {
        self.0.get(&probe).copied().unwrap_or_default()
    }

    /// Adds another run's.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(probe, times)| self.add(*probe, *times));
    }

    /// Those that were never visited.
    pub fn unvisited(&self) -> impl Iterator<Item = Probe> {
        Probe::ALL.into_iter().filter(|probe| self.count(*probe) == 0)
    }
}

impl fmt::Display for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for probe in Probe::ALL {
            writeln!(f, "{:>12} {probe:?}", self.count(probe))?;
        }
        Ok(())
    }
}
