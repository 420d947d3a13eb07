//! What the keeper needs of the node around it.

use std::sync::Weak;

use bytes::Bytes;
use harmony_types::{NodeId, Outcome, PeerMessage, Storage, Term};

use crate::node::Node;
use crate::waiter::Waiter;

/// Who leads, as this node believes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader.
    pub leader: Option<NodeId>,
    /// This node leads, in this term.
    pub own_term: Option<Term>,
}

/// The node around a keeper. Nothing here blocks.
pub trait LeaseHost: Send + Sync {
    /// What it believes. Whoever leads in a term before and after a call led in between.
    fn leadership(&self) -> Leadership;

    /// As [`Node::read_index`].
    fn confirm(&self, waiter: Waiter<()>);

    /// As [`Node::propose_in_term`].
    fn propose(&self, term: Term, data: Bytes, waiter: Waiter<Outcome>);

    /// Sends to another member's keeper. Messages may be lost.
    fn send(&self, to: NodeId, messages: Vec<PeerMessage>);

    /// From now on, what other members' keepers send is taken here.
    fn attach(&self, door: Weak<dyn LeasePeers>);
}

/// The keeper's door for other members. Nothing here blocks.
pub trait LeasePeers: Send + Sync {
    /// A [`PeerMessage::LeaseCall`] or [`PeerMessage::LeaseReply`]; nothing else is looked at.
    fn receive(&self, from: NodeId, message: PeerMessage);

    /// What was sent to this member may be lost.
    fn unreachable(&self, peer: NodeId);
}

impl<S: Storage<Outcome = Outcome>> LeaseHost for Node<S> {
    fn leadership(&self) -> Leadership {
        Self::leadership(self)
    }

    fn confirm(&self, waiter: Waiter<()>) {
        self.read_index(waiter);
    }

    fn propose(&self, term: Term, data: Bytes, waiter: Waiter<Outcome>) {
        self.propose_in_term(term, data, waiter);
    }

    fn send(&self, to: NodeId, messages: Vec<PeerMessage>) {
        Self::send(self, to, messages);
    }

    fn attach(&self, door: Weak<dyn LeasePeers>) {
        self.attach_leases(door);
    }
}
