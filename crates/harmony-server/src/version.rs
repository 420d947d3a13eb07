//! Versions that clients ask for.

/// This program's.
pub(crate) const PROGRAM: &str = env!("CARGO_PKG_VERSION");

/// The release of etcd whose API and behaviour this server has: clients decide by it what they may use.
pub(crate) const API: &str = "3.6.14";

/// The cluster's version of that API.
pub(crate) const CLUSTER: &str = "3.6.0";

/// The version of what is stored, in etcd's count.
pub(crate) const STORAGE: &str = "3.6.0";
