//! A Raft node for any state machine: ordered handling of Raft's ready states, pipelined log writes, linearizable reads,
//! and the transport between members.
//!
//! The loop in ten lines:
//! 1. Whoever has something to say puts it into the node's mailbox: clients, peers, the disk, the clock.
//! 2. The raft thread takes everything at once: all proposals become one step, all reads one read index round.
//! 3. Raft says what is to be done, and [`core`] puts it in order:
//! 4. a snapshot first, then hard state and entries into the log (in memory), readable from there on;
//! 5. a leader's messages leave now, beside the disk; everybody else's wait for it;
//! 6. the WAL thread syncs once for everything that waits and reports back; held messages leave;
//! 7. a quorum has it: committed entries go to the apply thread, in order;
//! 8. it applies them in batches, answers whoever waits for exactly that index and term, one call for each sink,
//! 9. and reports back, which lets waiting reads go.
//! 10. Meanwhile the raft thread never waited: not for the disk, not for the state machine, not for the network.
//!
//! A put crosses between threads five times on a leader: network → raft → WAL → raft → apply → network. A read that finds
//! its index applied crosses twice: network → raft → network.
//!
//! What it promises: a waiter ends exactly once, with an outcome, a refusal after which nothing happened, or "unknown"
//! ([`harmony_types::NodeError::may_have_been_applied`]). An outcome means that the entry is on the disks of a quorum.
//! After a failed write or sync the node stops and acknowledges nothing more.
//!
//! Reading order: [`node`] (the handle), [`waiter`] (how calls end), [`core`] (events in, actions out), then the private
//! `ready_handler` (the order rule), `driver`, `persist`, `applier` (threads), `disk_watch`, [`stepped`] (the same without threads, for
//! simulations), `raft` (the only module that names the
//! `raft` crate), [`transport`], [`tls`]. [`watch`] and [`lease`] stand beside the loop: who watches keys, and how the time of leases
//! is counted. [`application`] makes a [`harmony_types::Storage`] of a state machine and a log.

pub mod application;
mod applier;
mod bounds;
mod checkpointer;

pub mod core;
mod disk_watch;
mod driver;
pub mod identity;
pub mod lease;
pub mod metrics;
pub mod node;
mod persist;
mod queue;
mod raft;
mod ready_handler;
mod retention;
pub mod stepped;
pub mod tls;
pub mod transport;
pub mod waiter;
pub mod watch;
pub mod witness;

pub use application::ApplicationStorage;
pub use disk_watch::DiskWatch;
pub use harmony_wal::SystemClock;
pub use identity::{added_member_id, cluster_id, member_id};
pub use lease::{LeaseKeeper, LeaseOptions};
pub use metrics::NodeMetrics;
pub use node::Node;
pub use stepped::SteppedNode;
pub use tls::{Tls, TlsConfig, TlsError, TlsIdentity};
pub use transport::{
    MemoryNetwork, MemoryTransport, Roster, TcpTransport, TcpTransportConfig, TransportError, ask_roster,
};
pub use waiter::{ReplySink, Waiter};
pub use watch::{WatchHub, WatchOptions, WatchStream};
pub use witness::Witness;
