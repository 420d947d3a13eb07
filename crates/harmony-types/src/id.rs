//! Identities: newtypes, so that a member id is never passed where a lease id is meant.

use std::fmt;
use std::num::NonZeroU64;

/// Identity of one cluster member. Never 0: Raft uses 0 for "nobody", which is `Option<NodeId>::None` here.
///
/// Derived from the member's peer URLs and the cluster token as etcd does (see `harmony-node`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(NonZeroU64);

impl NodeId {
    /// The id with this number, or `None` for 0.
    #[must_use]
    pub const fn new(id: u64) -> Option<Self> {
        match NonZeroU64::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The bare number, never 0.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The number of an optional id, 0 for nobody: Raft's wire form.
    #[must_use]
    pub const fn or_zero(id: Option<Self>) -> u64 {
        match id {
            Some(id) => id.get(),
            None => 0,
        }
    }
}

/// Hexadecimal without prefix, as etcd's tools print member ids.
impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{:x}", self.0)
    }
}

/// Identity of a cluster; files and connections of another cluster are refused by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClusterId(pub u64);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{:x}", self.0)
    }
}

/// Identity of a lease; 0 means "no lease" on a key and "pick one" in a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LeaseId(pub i64);

/// Identity of a watcher on one watch stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WatchId(pub i64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_nobody() {
        assert_eq!(NodeId::new(0), None);
        assert_eq!(NodeId::or_zero(None), 0);
        assert_eq!(NodeId::or_zero(NodeId::new(7)), 7);
    }

    #[test]
    fn ids_print_in_hexadecimal() {
        assert_eq!(NodeId::new(0x8e9e_05c5).unwrap().to_string(), "8e9e05c5");
        assert_eq!(ClusterId(0xcdf8).to_string(), "cdf8");
    }
}
