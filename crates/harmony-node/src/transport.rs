//! How nodes reach each other: in one process, or over TCP.
//!
//! A transport is made first, then the node on it, then the two are joined: `transport.attach(node.peer_sink())`. What
//! arrives in between is lost, as any message may be.

mod caller;
mod frame;
mod handshake;
mod liveness;
mod memory;
mod peer;
mod snapshot;
mod tcp;
pub(crate) mod wire;

pub use self::caller::{Caller, read_caller};
pub use self::memory::{MemoryNetwork, MemoryTransport};
pub use self::tcp::{TcpTransport, TcpTransportConfig, TransportError, TransportMetrics};
