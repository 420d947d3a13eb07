//! Requests that are wrong in themselves: refused before the log, by the same check on every member.

/// Why a request is refused before it is proposed. The texts are etcd's, without its `etcdserver: ` prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The key is empty.
    #[error("key is not provided")]
    EmptyKey,
    /// `ignore_value` together with a value.
    #[error("value is provided")]
    ValueProvided,
    /// `ignore_lease` together with a lease.
    #[error("lease is provided")]
    LeaseProvided,
    /// More compares or operations than allowed in one transaction.
    #[error("too many operations in txn request")]
    TooManyOps,
    /// Two writes to one key in one branch.
    #[error("duplicate key given in txn request")]
    DuplicateKey,
    /// A sort order or target that does not exist.
    #[error("invalid sort option")]
    InvalidSortOption,
    /// A transaction's operation with nothing in it (etcd answers so).
    #[error("key not found")]
    EmptyOp,
    /// A request over the size limit.
    #[error("request is too large")]
    TooLarge,
}
