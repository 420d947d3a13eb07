//! HarmonyDB's server: the etcd v3 API over [`harmony_node`] and [`harmony_storage`], and the `harmony` program.
//!
//! Reading order:
//! 1. [`cli`]: the command line.
//! 2. [`proto`]: the wire protocol.
//! 3. `client`: the client that the command line uses.

pub mod cli;
mod client;
pub mod proto;
