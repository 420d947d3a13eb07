//! Calls between keepers: a follower's clients ask the leader's keeper, each call once until its answer or its loss.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use harmony_types::lease::TimeToLive;
use harmony_types::transport::ForwardError;
use harmony_types::{LeaseId, NodeError, NodeId, PeerMessage};

use super::core::Actions;
use super::host::LeaseHost;
use super::keeper::CALLS_WAITING_MAX;
use crate::core::first_request;
use crate::waiter::{ReplySink, Waiter};

/// Who waits for an answer.
pub(super) enum Asker {
    Renewal(Waiter<i64>),
    Question(Waiter<Option<TimeToLive>>),
}

/// What a member that leads is asked.
struct Forward {
    to: NodeId,
    deadline: Duration,
    asker: Asker,
}

/// The calls at the leader. Each leaves with its one answer.
pub(super) struct Forwards {
    /// In the order in which they were asked, which is that of their deadlines.
    waiting: BTreeMap<u64, Forward>,
    last_request: u64,
}

impl Asker {
    pub(super) fn end(self, result: Result<Option<TimeToLive>, NodeError>, actions: &mut Actions) {
        match self {
            Self::Renewal(waiter) => {
                let ttl_s = |left: Option<TimeToLive>| left.map_or(0, |left| left.granted_s);
                actions.renewals.push(waiter, result.map(ttl_s));
            }
            Self::Question(waiter) => actions.questions.push(waiter, result),
        }
    }
}

impl Forwards {
    /// None yet. As with proposals, `boot_nonce` keeps an answer to an earlier life from ending a call of this one.
    pub(super) fn new(boot_nonce: u64) -> Self {
        Self { waiting: BTreeMap::new(), last_request: first_request(boot_nonce) }
    }

    /// Asks the leader.
    pub(super) fn ask(
        &mut self,
        to: NodeId,
        id: LeaseId,
        asker: Asker,
        deadline: Duration,
        actions: &mut Actions,
    ) {
        if CALLS_WAITING_MAX <= self.waiting.len() {
            asker.end(Err(NodeError::Busy), actions);
            return;
        }
        self.last_request += 1;
        let request = self.last_request;
        let renew = matches!(asker, Asker::Renewal(_));
        actions.send(to, PeerMessage::LeaseCall { request, id, renew });
        self.waiting.insert(request, Forward { to, deadline, asker });
    }

    /// The answer of whoever was asked.
    pub(super) fn answered(
        &mut self,
        from: NodeId,
        request: u64,
        result: Result<Option<TimeToLive>, ForwardError>,
        actions: &mut Actions,
    ) {
        // One that comes too late, or from somebody who was not asked, is nobody's.
        if self.waiting.get(&request).is_none_or(|forward| forward.to != from) {
            return;
        }
        let Some(forward) = self.waiting.remove(&request) else { return };
        let result = result.map_err(|error| match error {
            ForwardError::Busy => NodeError::Busy,
            _ => NodeError::LeaderChanged,
        });
        forward.asker.end(result, actions);
    }

    /// Ends calls at members that do not lead any more, or do not hear.
    pub(super) fn lost(&mut self, lost: impl Fn(NodeId) -> bool, actions: &mut Actions) {
        for (_, forward) in self.waiting.extract_if(.., |_, forward| lost(forward.to)) {
            forward.asker.end(Err(NodeError::LeaderChanged), actions);
        }
    }

    /// Ends calls of which nothing was heard: the question or its answer is lost, and may be asked again.
    pub(super) fn expire(&mut self, now: Duration, actions: &mut Actions) {
        while let Some(oldest) = self.waiting.first_entry()
            && oldest.get().deadline <= now
        {
            oldest.remove().asker.end(Err(NodeError::LeaderChanged), actions);
        }
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}

/// Answers the calls of one member; a token is the number of its call.
pub(super) struct PeerAnswers {
    pub(super) host: Arc<dyn LeaseHost>,
    pub(super) peer: NodeId,
}

impl PeerAnswers {
    fn send(&self, ends: impl Iterator<Item = (u64, Result<Option<TimeToLive>, NodeError>)>) {
        let reply = |(request, result): (u64, Result<_, _>)| {
            let result = result.map_err(|error| match error {
                NodeError::Busy => ForwardError::Busy,
                // Whatever else it is, asking again is right: nothing comes of being asked twice.
                _ => ForwardError::NotLeader,
            });
            PeerMessage::LeaseReply { request, result }
        };
        self.host.send(self.peer, ends.map(reply).collect());
    }
}

impl ReplySink<i64> for PeerAnswers {
    fn complete(&self, batch: Vec<(u64, Result<i64, NodeError>)>) {
        let all = |ttl_s| (ttl_s != 0).then_some(TimeToLive { granted_s: ttl_s, remaining_s: ttl_s });
        self.send(batch.into_iter().map(|(request, result)| (request, result.map(all))));
    }
}

impl ReplySink<Option<TimeToLive>> for PeerAnswers {
    fn complete(&self, batch: Vec<(u64, Result<Option<TimeToLive>, NodeError>)>) {
        self.send(batch.into_iter());
    }
}
