//! HarmonyDB's server: the etcd v3 API over [`harmony_node`] and [`harmony_storage`], and the `harmony` program.
//!
//! Reading order:
//! 1. [`cli`]: the command line.
//! 2. [`proto`]: the wire protocol.

pub mod cli;
pub mod proto;
