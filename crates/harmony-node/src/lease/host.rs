//! What the keeper needs of the node around it.

use bytes::Bytes;
use harmony_types::{NodeId, Outcome, Storage, Term};

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
}
