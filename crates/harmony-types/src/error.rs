//! Errors: one enum a layer, and one for requests that are wrong before any layer is asked.
//!
//! A variant exists when some caller acts on it; the rest is context in its fields. Messages name the file, the
//! offset and the index, so that an operator knows where to look.

mod membership;
mod node;
mod request;
mod storage;
mod wal;

pub use membership::MembershipError;
pub use node::NodeError;
pub use request::RequestError;
pub use storage::StorageError;
pub use wal::WalError;
