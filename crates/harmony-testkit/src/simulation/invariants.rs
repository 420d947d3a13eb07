//! What must hold after every step, cheap enough to be looked at each time.

use std::collections::BTreeMap;

use harmony_storage::UnifiedStorage;
use harmony_types::raft::RaftState;
use harmony_types::{LogIndex, Message, MessageType, NodeId, Status, Storage};

use super::trace::Digest;

/// What all members together have shown so far.
#[derive(Default)]
pub(super) struct Invariants {
    /// Who led, by term.
    leaders: BTreeMap<u64, NodeId>,
    /// Term and content of each committed entry.
    committed: BTreeMap<u64, (u64, u64)>,
    /// Hash and revision of the state at each applied index that was seen.
    states: BTreeMap<u64, (u32, u64)>,
    /// Whom each member gave its vote, by member and term.
    votes: BTreeMap<(NodeId, u64), NodeId>,
    /// The newest term in which a member acknowledged entries of the leader, and up to which.
    acknowledged: BTreeMap<NodeId, (u64, u64)>,
}

/// What one process has shown so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) term: u64,
    pub(super) leads: bool,
    pub(super) commit: u64,
    /// Entries that were compared with what is known to be committed.
    checked: u64,
    applied: u64,
    revision: u64,
    pub(super) last: u64,
}

impl Invariants {
    /// Looks at one process; the first thing that is wrong is told. `saves`: its disk has room, so that its log has all that raft
    /// speaks of.
    pub(super) fn look(
        &mut self,
        id: NodeId,
        status: &Status,
        storage: &UnifiedStorage,
        saves: bool,
        seen: &mut Seen,
    ) -> Result<(), String> {
        let (term, commit) = (status.term.0, status.commit.0);
        let bounds = storage.bounds();
        let applied_hash = storage.applied_hash();
        let (applied, durable) = (applied_hash.index.0, storage.durable_applied().0);
        let revision = storage.revision().0;
        if term < seen.term {
            return Err(format!("n{id} went back from term {} to {term}", seen.term));
        }
        let leads = status.state == RaftState::Leader;
        if leads && *self.leaders.entry(term).or_insert(id) != id {
            return Err(format!("n{id} and n{} both lead term {term}", self.leaders[&term]));
        }
        if let Some((of, index)) = self.acknowledged.get(&id)
            && *of == term
            && status.last.0 < *index
        {
            return Err(format!(
                "n{id} acknowledged entries up to {index} in term {term}, and has them up to {}",
                status.last
            ));
        }
        let boundary = bounds.boundary.0;
        if !(boundary <= durable && durable <= applied && applied <= commit && commit <= status.last.0) {
            return Err(format!(
                "n{id}: released {boundary} <= checkpointed {durable} <= applied {applied} <= committed {commit} <= last {}",
                status.last
            ));
        }
        if commit < seen.commit || applied < seen.applied || revision < seen.revision {
            return Err(format!(
                "n{id} went back: committed {} to {commit}, applied {} to {applied}, revision {} to {revision}",
                seen.commit, seen.applied, seen.revision
            ));
        }
        // While a snapshot is being installed, or a full disk refuses entries, the log is behind raft.
        let logged = if saves && status.last == bounds.last { commit } else { applied };
        let checked = seen.checked.max(logged);
        if seen.checked < checked {
            self.check_committed(id, storage, seen.checked + 1, checked)?;
        }
        if seen.applied < applied {
            let state = (applied_hash.hash, revision);
            let known = *self.states.entry(applied).or_insert(state);
            if known != state {
                return Err(format!(
                    "n{id} at applied index {applied}: hash {:#x} at revision {}, others had {:#x} at {}",
                    state.0, state.1, known.0, known.1
                ));
            }
        }
        *seen = Seen { term, leads, commit, checked, applied, revision, last: bounds.last.0 };
        Ok(())
    }

    /// A member speaks: what it gives its word for, it keeps through all crashes.
    pub(super) fn hear(&mut self, from: NodeId, message: &Message) -> Result<(), String> {
        let term = message.term.0;
        let candidate = match message.message_type {
            MessageType::RequestVote => from,
            MessageType::RequestVoteResponse if !message.reject => message.to,
            MessageType::AppendResponse if !message.reject => {
                let newest = self.acknowledged.entry(from).or_default();
                *newest = (*newest).max((term, message.index.0));
                return Ok(());
            }
            _ => return Ok(()),
        };
        let known = *self.votes.entry((from, term)).or_insert(candidate);
        if known == candidate {
            return Ok(());
        }
        Err(format!("n{from} voted for n{known} and for n{candidate} in term {term}"))
    }

    /// This member's disk may have lost what it gave its word for.
    pub(super) fn forgive(&mut self, id: NodeId) {
        self.votes.retain(|(member, _), _| *member != id);
        self.acknowledged.remove(&id);
    }

    /// What is committed is the same everywhere, for ever.
    fn check_committed(
        &mut self,
        id: NodeId,
        storage: &UnifiedStorage,
        from: u64,
        upto: u64,
    ) -> Result<(), String> {
        let first = LogIndex(from).max(storage.bounds().first());
        if LogIndex(upto) < first {
            return Ok(());
        }
        let entries = storage
            .entries(first..LogIndex(upto + 1), u64::MAX)
            .map_err(|error| format!("n{id} cannot read its committed entries {first}..={upto}: {error}"))?;
        for entry in entries {
            let mut content = Digest::EMPTY;
            content.number(entry.entry_type as u64);
            content.bytes(&entry.data);
            let found = (entry.term.0, content.0);
            let known = *self.committed.entry(entry.index.0).or_insert(found);
            if known != found {
                return Err(format!(
                    "n{id} has entry {} committed in term {}, another one was in term {}",
                    entry.index, found.0, known.0
                ));
            }
        }
        Ok(())
    }
}
