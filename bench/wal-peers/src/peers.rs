//! The peers behind one interface.

pub mod harmony;
pub mod okay;
pub mod raft;
pub mod raw;
