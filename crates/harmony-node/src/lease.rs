//! The lease keeper: counts the time of leases on the leader, and ends those whose time is over.
//!
//! It lives here, and not in the storage, because time and leadership are no part of the state machine: what is replicated
//! are grants, revocations and what is left of a lease ([`harmony_types::Leases`]); the keeper proposes what follows from
//! time. It needs a state machine whose commands are [`harmony_types::Command`]; a node without a keeper has no leases.
//!
//! Rules, each with its reason:
//! - **Only a leader counts**, on its monotonic clock. It begins a reign when a read index of its own term has come back: what
//!   earlier leaders decided is applied then. Every lease gets what is left of it as the log says; one of which it says
//!   nothing all of its TTL and an election timeout more, for an answer of the last leader that was under way.
//! - **Nothing is answered, renewed or revoked on a belief.** Each of these waits for a round of a quorum's heartbeats that
//!   began after it was asked for, so a process that was stopped for a while first learns whether it still leads. A round
//!   that took longer than an election timeout is asked for again.
//! - **A follower's keeper asks the leader's**, over the transport: each call once, until its answer, until the leader is
//!   another or does not hear, or for three election timeouts. Whoever called may call again: nothing comes of being
//!   asked twice. Nobody passes on what was passed on to it.
//! - **What it proposes counts in its term only** ([`crate::Node::propose_in_term`]): a revocation of a leader that was replaced is
//!   never passed on to its successor.
//! - **A lease that is over stays over**: from the moment its time is over, renewals wait for the revocation and are
//!   answered with 0. A TTL above 0 is answered only when the lease lives for that long.
//! - **What is left goes through the log**, an election timeout into a reign, then at doubling intervals up to five
//!   minutes: for leases that nobody renewed in this reign, and for those that live longer than the interval. The next
//!   leader goes on from there: at least half of each reign counts. Before a renewal of such a lease is answered, the log
//!   says again that all of its TTL is left.
//! - **Revocations are paced**: so many a second, so many under way, each lease once. One that was refused comes again; one
//!   whose end is unknown stays with the log of this term, in which it commits, or goes with it.

mod checkpoint;
mod core;
mod deadlines;
mod forward;
mod host;
mod keeper;
mod reign;
#[cfg(test)]
mod tests;
mod tracked;

pub use harmony_types::lease::TimeToLive;
pub use host::{Leadership, LeaseHost, LeasePeers};
pub use keeper::{LeaseKeeper, LeaseMetrics, LeaseOptions};
