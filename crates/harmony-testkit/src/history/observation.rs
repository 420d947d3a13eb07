//! What was seen of the members themselves, beside what clients saw.

use harmony_types::{LogIndex, NodeId, Revision, Term};

use super::Moment;

/// A look at one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// When.
    pub at: Moment,
    /// At whom.
    pub member: NodeId,
    /// How often it had been started again before.
    pub life: u32,
    /// Its term.
    pub term: Term,
    /// Whether it leads in that term.
    pub is_leader: bool,
    /// How far it knows the log to be committed.
    pub committed: LogIndex,
    /// How far it has applied the log.
    pub applied: LogIndex,
    /// The revision of its state.
    pub revision: Revision,
    /// Over its whole state behind `applied`, where it was asked for.
    pub state_hash: Option<u64>,
}

/// One entry that a member knew to be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedEntry {
    /// Who knew it.
    pub member: NodeId,
    /// Its place in the log.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// Over its bytes.
    pub hash: u64,
}
