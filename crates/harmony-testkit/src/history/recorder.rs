//! Writes a history down while many threads make it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use harmony_types::{NodeId, Refusal, Revision};

use super::{Answer, ClientId, History, Moment, Operation, OperationOutcome, Reply, Request, Watch};

/// A history that grows. Every operation stands in it before it is sent, as one of unknown outcome: whatever happens then, it
/// is not taken for one that never was.
pub struct Recorder {
    history: Mutex<History>,
    now: Box<dyn Fn() -> Moment + Send + Sync>,
}

/// An operation that was sent: its place in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent(usize);

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// One that counts calls and answers instead of reading a clock: right in order, and without a meaning in seconds, which only
    /// leases need.
    #[must_use]
    pub fn new() -> Self {
        let ticks = AtomicU64::new(0);
        Self::with_clock(move || Moment(ticks.fetch_add(1, Ordering::SeqCst)))
    }

    /// One that reads the time from `now`, in nanoseconds, never back.
    pub fn with_clock(now: impl Fn() -> Moment + Send + Sync + 'static) -> Self {
        Self { history: Mutex::default(), now: Box::new(now) }
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called just before a request is sent.
    pub fn send(&self, client: ClientId, member: Option<NodeId>, request: Request) -> Sent {
        let mut history = self.lock();
        let place = history.operations.len();
        let operation = Operation { member, ..Operation::sent(client, (self.now)(), request) };
        history.operations.push(operation);
        Sent(place)
    }

    /// To be called once its answer is there. `revision`: the one of the header, if the client was told.
    pub fn answered(&self, sent: Sent, revision: Option<Revision>, reply: Reply) {
        self.end(sent, OperationOutcome::Answered(Answer { revision, reply }));
    }

    /// To be called when it was refused, and changed nothing for certain.
    pub fn refused(&self, sent: Sent, refusal: Refusal) {
        self.end(sent, OperationOutcome::Refused(refusal));
    }

    fn end(&self, sent: Sent, outcome: OperationOutcome) {
        let mut history = self.lock();
        let now = (self.now)();
        let operation = &mut history.operations[sent.0];
        operation.returned = Some(now);
        operation.outcome = outcome;
    }

    /// Adds a watch, once it has ended; its place.
    pub fn watched(&self, watch: Watch) -> usize {
        let mut history = self.lock();
        history.watches.push(watch);
        history.watches.len() - 1
    }

    /// What happened so far.
    #[must_use]
    pub fn history(&self) -> History {
        self.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{put, read};

    #[test]
    fn what_was_sent_is_unknown_until_it_is_answered() {
        let recorder = Recorder::new();
        let lost = recorder.send(ClientId(1), None, put("k", "1"));
        let answered = recorder.send(ClientId(2), None, put("k", "2"));
        recorder.answered(answered, Some(Revision(2)), Reply::Put(Default::default()));
        let refused = recorder.send(ClientId(2), NodeId::new(3), read("k", ""));
        recorder.refused(refused, Refusal::Compacted);
        assert_eq!(lost, Sent(0));
        let text = "op c1 n? 0.. put \"k\" \"1\" -> unknown\n\
                    op c2 n? 1..2 put \"k\" \"2\" -> @2 put []\n\
                    op c2 n3 3..4 range \"k\" -> refused Compacted\n";
        assert_eq!(recorder.history().to_string(), text);
    }
}
