//! Leases as replicated state: what grants, revokes and checkpoints them. Time stays outside: whoever leads counts it, and
//! proposes what follows from it.

use std::sync::Arc;

use crate::command::Refusal;
use crate::error::StorageError;
use crate::id::LeaseId;
use crate::limits::LEASE_TTL_S_MAX;

/// A lease, as far as it is replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its identity, never 0.
    pub id: LeaseId,
    /// Seconds granted, above 0.
    pub ttl_s: i64,
    /// Seconds left when the leader last made them known: where the next leader begins to count. 0: all of the TTL.
    pub remaining_ttl_s: i64,
}

/// What is left of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeToLive {
    /// Seconds granted.
    pub granted_s: i64,
    /// Whole seconds left; 0 when it is over and about to go.
    pub remaining_s: i64,
}

/// Grants a lease.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LeaseGrant {
    /// Its identity. Whoever proposes picks one for a client that gave none, so it is never 0 here.
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// Seconds to live, raised to the least that the cluster grants before it is proposed.
    #[prost(int64, tag = "2")]
    pub ttl: i64,
}

impl LeaseGrant {
    /// Checks what must hold whatever the state.
    ///
    /// # Errors
    /// [`Refusal::LeaseTtlTooLarge`]; [`Refusal::Invalid`] for an id or a TTL that the proposer had to replace.
    pub fn validate(&self) -> Result<(), Refusal> {
        if LEASE_TTL_S_MAX < self.ttl {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if self.id == 0 || self.ttl <= 0 { Err(Refusal::Invalid) } else { Ok(()) }
    }
}

/// Ends a lease and deletes the keys attached to it.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LeaseRevoke {
    /// Which one.
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// Makes known how much of some leases is left, so that a new leader does not begin anew.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LeaseCheckpoint {
    /// Each lease, with what is left.
    #[prost(message, repeated, tag = "1")]
    pub leases: Vec<LeaseRemaining>,
}

/// How much of a lease is left.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LeaseRemaining {
    /// Which lease.
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// Seconds; 0: all of its TTL.
    #[prost(int64, tag = "2")]
    pub remaining_ttl: i64,
}

/// What a grant did.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LeaseGrantOutcome {
    /// The lease.
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// Its TTL, seconds.
    #[prost(int64, tag = "2")]
    pub ttl: i64,
}

/// What a revoke did.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LeaseRevokeOutcome {
    /// How many keys went.
    #[prost(int64, tag = "1")]
    pub deleted: i64,
}

/// What a checkpoint of leases did.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LeaseCheckpointOutcome {
    /// How many of the leases exist; the others were revoked meanwhile.
    #[prost(int64, tag = "1")]
    pub known: i64,
}

/// A state machine that holds leases.
pub trait Leases: Send + Sync + 'static {
    /// All leases.
    ///
    /// # Errors
    /// [`StorageError::CrcMismatch`] and the like: nothing damaged is handed out.
    fn leases(&self) -> Result<Vec<Lease>, StorageError>;

    /// Tells `observer` of every change of leases from now on, in place of whoever was told before. The first call of
    /// [`LeaseObserver::replaced`] comes before this returns.
    fn observe_leases(&self, observer: Arc<dyn LeaseObserver>);
}

/// What an applied command did to a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// It was granted.
    Granted {
        /// Its identity.
        id: LeaseId,
        /// Its TTL, seconds.
        ttl_s: i64,
    },
    /// It is gone.
    Revoked {
        /// Its identity.
        id: LeaseId,
    },
    /// What is left of it was made known. It may be gone already.
    Remaining {
        /// Its identity.
        id: LeaseId,
        /// As [`Lease::remaining_ttl_s`].
        remaining_ttl_s: i64,
    },
}

/// Hears of changes of leases as they are applied.
///
/// Called by whoever applies, in order, after readers can see the change and before anybody is answered: it must not
/// block.
pub trait LeaseObserver: Send + Sync {
    /// These changes were applied, in this order.
    fn changed(&self, changes: Vec<LeaseChange>);

    /// A snapshot took the place of the state: [`Leases::leases`] says which leases there are.
    fn replaced(&self);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_names_a_lease_and_a_ttl_within_bounds() {
        let check = |id, ttl| LeaseGrant { id, ttl }.validate();
        assert_eq!(check(1, 1), Ok(()));
        assert_eq!(check(-1, LEASE_TTL_S_MAX), Ok(()));
        assert_eq!(check(1, LEASE_TTL_S_MAX + 1), Err(Refusal::LeaseTtlTooLarge));
        assert_eq!(check(0, 1), Err(Refusal::Invalid));
        assert_eq!(check(1, 0), Err(Refusal::Invalid));
    }
}
