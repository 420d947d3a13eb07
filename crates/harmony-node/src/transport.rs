//! How nodes reach each other: in one process, or over TCP.
//!
//! A transport is made first, then the node on it, then the two are joined: `transport.attach(node.peer_sink())`. What
//! arrives in between is lost, as any message may be.

mod address;
mod caller;
mod frame;
mod handshake;
mod liveness;
mod memory;
mod pace;
mod peer;
mod roster;
mod snapshot;
mod stream;
mod tcp;
mod traffic;
pub(crate) mod wire;

pub use self::caller::{Caller, read_caller};
pub use self::memory::{MemoryNetwork, MemoryTransport};
pub use self::roster::{Roster, ask_roster};
pub use self::tcp::{TcpTransport, TcpTransportConfig, TransportError, TransportMetrics};
pub use self::traffic::PeerMetrics;
