//! What happened, for [`crate::trace`]: kept when somebody wants to see it.

use harmony_types::{LogIndex, NodeId, PeerMessage, Term};

use super::invariants::Seen;
use super::trace::Words;
use crate::history::Moment;
use crate::trace::{Mark, MarkKind, Trace, TraceMessage};

/// See the module.
pub(super) struct Picture(Option<Trace>);

/// A message that is on its way, or was.
pub(super) struct Sent<'a> {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) at: u64,
    pub(super) message: &'a PeerMessage,
}

impl Picture {
    pub(super) fn new(keep: bool) -> Self {
        Self(keep.then(Trace::default))
    }

    /// A message came at that time, or never.
    pub(super) fn message(&mut self, sent: &Sent<'_>, received: Option<u64>) {
        let Some(trace) = &mut self.0 else { return };
        let Sent { from, to, at, message } = *sent;
        let term = match message {
            PeerMessage::Raft(message) => message.term,
            _ => Term(0),
        };
        let text = Words(message).to_string();
        let (sent, received) = (Moment(at), received.map(Moment));
        trace.messages.push(TraceMessage { from, to, sent, received, term, text });
    }

    /// A snapshot came.
    pub(super) fn snapshot(&mut self, from: NodeId, to: NodeId, at: u64, index: LogIndex) {
        self.note(at, to, || format!("snapshot at {index} of n{from}"));
    }

    /// What a process shows now, after it showed something else.
    pub(super) fn seen(&mut self, at: u64, node: NodeId, before: &Seen, after: &Seen) {
        if self.0.is_none() {
            return;
        }
        if (before.term, before.leads) != (after.term, after.leads) {
            self.mark(at, node, MarkKind::Term { term: Term(after.term), is_leader: after.leads });
        }
        if before.commit < after.commit {
            self.mark(at, node, MarkKind::Commit(LogIndex(after.commit)));
        }
        if after.last < before.last {
            self.note(at, node, || format!("log truncated from {} to {}", before.last, after.last));
        }
    }

    pub(super) fn mark(&mut self, at: u64, node: NodeId, kind: MarkKind) {
        if let Some(trace) = &mut self.0 {
            trace.marks.push(Mark { node, at: Moment(at), kind });
        }
    }

    pub(super) fn note(&mut self, at: u64, node: NodeId, words: impl FnOnce() -> String) {
        if self.0.is_some() {
            self.mark(at, node, MarkKind::Note(words()));
        }
    }

    /// Something that concerns all: a step of the plan, a violation.
    pub(super) fn event(&mut self, at: u64, words: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.0 {
            trace.events.push((Moment(at), words()));
        }
    }

    pub(super) fn into_trace(self) -> Option<Trace> {
        self.0
    }
}
