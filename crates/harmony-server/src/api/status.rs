//! Refusals: etcd's texts and codes. Clients match on the text, so a changed letter breaks them.

use std::borrow::Cow;

use harmony_types::{MembershipError, NodeError, Refusal, RequestError, StorageError};

/// gRPC's status codes, as far as they are used, with their numbers on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Code {
    /// Anything without a better code.
    Unknown = 2,
    /// The request is wrong in itself.
    InvalidArgument = 3,
    /// What it names does not exist.
    NotFound = 5,
    /// Whoever asks may not.
    PermissionDenied = 7,
    /// Something is used up.
    ResourceExhausted = 8,
    /// The state forbids it.
    FailedPrecondition = 9,
    /// A revision that is not there.
    OutOfRange = 11,
    /// Not served.
    Unimplemented = 12,
    /// May succeed later or elsewhere.
    Unavailable = 14,
    /// Data is damaged.
    DataLoss = 15,
    /// The token proves nothing.
    Unauthenticated = 16,
}

/// A refusal as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The code.
    pub code: Code,
    /// The text.
    pub message: Cow<'static, str>,
}

impl ApiError {
    /// The error as Go's gRPC prints it: what etcd writes where a refusal is a text in an answer.
    pub(crate) fn as_grpc_text(&self) -> String {
        format!("rpc error: code = {:?} desc = {}", self.code, self.message)
    }

    pub(super) const fn new(code: Code, message: &'static str) -> Self {
        Self { code, message: Cow::Borrowed(message) }
    }

    const fn failed_precondition(message: &'static str) -> Self {
        Self::new(Code::FailedPrecondition, message)
    }

    const fn invalid_argument(message: &'static str) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// The request is over the limit.
    pub const TOO_LARGE: Self = Self::new(Code::InvalidArgument, "etcdserver: request is too large");
    /// The quota is used up.
    pub const NO_SPACE: Self =
        Self::new(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
    /// The time ran out; a write may have been applied or not.
    pub const TIMEOUT: Self = Self::new(Code::Unavailable, "etcdserver: request timed out");
    /// The revision is gone.
    pub const COMPACTED: Self =
        Self::new(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
    /// The revision is not there yet.
    pub const FUTURE_REVISION: Self =
        Self::new(Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision");
    /// Damaged data was found and not handed out.
    pub const CORRUPT: Self = Self::new(Code::DataLoss, "etcdserver: corrupt cluster");
    /// The server stops.
    pub const STOPPED: Self = Self::new(Code::Unavailable, "etcdserver: server stopped");
    /// More of it at once than one server takes.
    pub const TOO_MANY_REQUESTS: Self = Self::new(Code::ResourceExhausted, "etcdserver: too many requests");
    /// Only the leader does that.
    pub const NOT_LEADER: Self = Self::failed_precondition("etcdserver: not leader");
    /// Who is to lead does not exist, or does not vote.
    pub const BAD_TRANSFEREE: Self = Self::failed_precondition("etcdserver: bad leader transferee");
    /// Who is to lead did not.
    pub const TRANSFER_TIMEOUT: Self =
        Self::new(Code::Unknown, "etcdserver: request timed out, leader transfer took too long");
    /// No alarm, or no action, that this release knows.
    pub const UNKNOWN_ALARM: Self = Self::invalid_argument("etcdserver: unknown alarm action or type");
    /// Not a version number.
    pub const DOWNGRADE_VERSION_FORMAT: Self =
        Self::invalid_argument("etcdserver: wrong downgrade target version format");
    /// Not the minor version before this one.
    pub const DOWNGRADE_VERSION: Self =
        Self::invalid_argument("etcdserver: invalid downgrade target version");
    /// This server cannot do that.
    pub const NOT_CAPABLE: Self = Self::failed_precondition("etcdserver: not capable");
    /// There is none to cancel.
    pub const NO_DOWNGRADE: Self = Self::failed_precondition("etcdserver: no inflight downgrade job");
    /// An action that this release does not know.
    pub const UNKNOWN_METHOD: Self = Self::invalid_argument("etcdserver: unknown method");
    /// The token is none of ours, or no longer.
    pub const INVALID_TOKEN: Self = Self::new(Code::Unauthenticated, "etcdserver: invalid auth token");
    /// No such user, or not its password: which one is nobody's business.
    pub const LOGIN_FAILED: Self =
        Self::invalid_argument("etcdserver: authentication failed, invalid user ID or password");
    /// Users or roles changed since the caller proved who it is.
    pub const AUTH_REVISION_OLD: Self = Self::invalid_argument("etcdserver: revision of auth store is old");
    /// Nobody can log in while permissions are not asked for.
    pub const AUTH_NOT_ENABLED: Self = Self::failed_precondition("etcdserver: authentication is not enabled");
    /// The user gets in by a certificate alone.
    pub const NO_PASSWORD_USER: Self =
        Self::new(Code::Unknown, "auth: authentication failed, password was given for no password user");
    /// This member has only the public key of JWTs.
    pub const VERIFY_ONLY: Self =
        Self::new(Code::Unknown, "auth: token signing attempted with verify-only key");
    /// bcrypt's limit.
    pub const PASSWORD_TOO_LONG: Self = Self::new(Code::Unknown, "bcrypt: password length exceeds 72 bytes");
    /// Peer URLs that are none.
    pub const BAD_MEMBER_URLS: Self = Self::invalid_argument("etcdserver: given member URLs are invalid");
    /// Nobody could join: who joins asks first who is there, and is then sent the log.
    pub const NO_PEERS_HEARD: Self = Self::failed_precondition(
        "etcdserver: this member does not listen for peers: restart it with --listen-peer-urls and tell where it is \
         reached with `harmony members update`, then add the member",
    );
    /// A header that is no text.
    pub const INVALID_CLIENT_API_VERSION: Self =
        Self::invalid_argument("etcdserver: invalid client api version");
    /// A member without a vote answers for itself only.
    pub const LEARNER: Self = Self::failed_precondition("etcdserver: rpc not supported for learner");
    /// Too few members would be left that are there.
    pub const UNHEALTHY: Self = Self::new(Code::Unavailable, "etcdserver: unhealthy cluster");
    /// Nobody leads.
    pub const NO_LEADER: Self = Self::new(Code::Unavailable, "etcdserver: no leader");
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        Self { code: Code::InvalidArgument, message: format!("etcdserver: {error}").into() }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::KeyNotFound => Self::new(Code::InvalidArgument, "etcdserver: key not found"),
            Refusal::LeaseNotFound => Self::new(Code::NotFound, "etcdserver: requested lease not found"),
            Refusal::Compacted => Self::COMPACTED,
            Refusal::FutureRevision => Self::FUTURE_REVISION,
            Refusal::NoSpace => Self::NO_SPACE,
            Refusal::Corrupt => Self::CORRUPT,
            Refusal::LeaseExists => Self::new(Code::FailedPrecondition, "etcdserver: lease already exists"),
            Refusal::RootUserMissing => Self::failed_precondition("etcdserver: root user does not exist"),
            Refusal::RootRoleMissing => {
                Self::failed_precondition("etcdserver: root user does not have root role")
            }
            Refusal::UserExists => Self::failed_precondition("etcdserver: user name already exists"),
            Refusal::UserNotFound => Self::failed_precondition("etcdserver: user name not found"),
            Refusal::RoleExists => Self::failed_precondition("etcdserver: role name already exists"),
            Refusal::RoleNotFound => Self::failed_precondition("etcdserver: role name not found"),
            Refusal::RoleNotGranted => {
                Self::failed_precondition("etcdserver: role is not granted to the user")
            }
            Refusal::PermissionNotGranted => {
                Self::failed_precondition("etcdserver: permission is not granted to the role")
            }
            Refusal::PermissionNotGiven => Self::invalid_argument("etcdserver: permission not given"),
            Refusal::InvalidAuthManagement => Self::invalid_argument("etcdserver: invalid auth management"),
            Refusal::UserNameEmpty => Self::invalid_argument("etcdserver: user name is empty"),
            Refusal::RoleNameEmpty => Self::invalid_argument("etcdserver: role name is empty"),
            Refusal::AuthRevisionOld => Self::AUTH_REVISION_OLD,
            Refusal::PermissionDenied => Self::new(Code::PermissionDenied, "etcdserver: permission denied"),
            Refusal::LeaseTtlTooLarge => Self::new(Code::OutOfRange, "etcdserver: too large lease TTL"),
            Refusal::Unspecified | Refusal::Invalid => {
                Self::new(Code::InvalidArgument, "etcdserver: request is not valid on every member")
            }
        }
    }
}

impl From<NodeError> for ApiError {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::NoLeader => Self::NO_LEADER,
            // Leadership moved between two looks at it: nothing was proposed, and a retry finds the new leader.
            NodeError::NotLeader { .. } | NodeError::LeaderChanged => {
                Self::new(Code::Unavailable, "etcdserver: leader changed")
            }
            NodeError::Timeout => Self::TIMEOUT,
            NodeError::Busy => Self::TOO_MANY_REQUESTS,
            NodeError::NoSpace => Self::NO_SPACE,
            NodeError::Corrupt { .. } => Self::CORRUPT,
            NodeError::TooLarge { .. } => Self::TOO_LARGE,
            NodeError::Stopped => Self::STOPPED,
            NodeError::BadTransferee { .. } => Self::BAD_TRANSFEREE,
            NodeError::Storage(error) => error.into(),
            NodeError::Membership(error) => error.into(),
            NodeError::NoSuccessor => Self::UNHEALTHY,
            other => Self { code: Code::Unknown, message: format!("etcdserver: {other}").into() },
        }
    }
}

impl From<MembershipError> for ApiError {
    fn from(error: MembershipError) -> Self {
        match error {
            MembershipError::Exists => Self::failed_precondition("etcdserver: member ID already exist"),
            MembershipError::UrlExists => Self::failed_precondition("etcdserver: Peer URLs already exists"),
            MembershipError::NotFound | MembershipError::WasRemoved => {
                Self::new(Code::NotFound, "etcdserver: member not found")
            }
            MembershipError::NotLearner => {
                Self::failed_precondition("etcdserver: can only promote a learner member")
            }
            MembershipError::LearnerNotReady => Self::failed_precondition(
                "etcdserver: can only promote a learner member which is in sync with leader",
            ),
            MembershipError::TooManyLearners => {
                Self::failed_precondition("etcdserver: too many learner members in cluster")
            }
            // etcd sends this one without its code.
            MembershipError::NotEnoughStarted | MembershipError::LastVoter => Self::new(
                Code::Unknown,
                "etcdserver: re-configuration failed due to not enough started members",
            ),
            MembershipError::Unhealthy => Self::UNHEALTHY,
            MembershipError::Pending => Self::TIMEOUT,
            other => Self { code: Code::Unknown, message: format!("etcdserver: {other}").into() },
        }
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Compacted { .. } => Self::COMPACTED,
            StorageError::FutureRevision { .. } => Self::FUTURE_REVISION,
            StorageError::Closed => Self::STOPPED,
            error if error.is_disk_full() => Self::NO_SPACE,
            // A retry begins a new view.
            StorageError::ViewExpired { .. } => {
                Self { code: Code::Unavailable, message: format!("etcdserver: {error}").into() }
            }
            StorageError::CrcMismatch { .. } | StorageError::CorruptRecord { .. } => {
                tracing::error!(%error, "damaged data was found and not handed out");
                Self::CORRUPT
            }
            other => {
                tracing::error!(error = %other, "storage failed");
                Self { code: Code::Unknown, message: format!("etcdserver: {other}").into() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use harmony_types::{NodeId, Revision};

    use super::*;

    #[track_caller]
    fn check(error: impl Into<ApiError>, code: Code, message: &str) {
        let error = error.into();
        assert_eq!((error.code, &*error.message), (code, message));
    }

    #[test]
    fn requests_are_refused_in_etcds_words() {
        for (error, message) in [
            (RequestError::EmptyKey, "etcdserver: key is not provided"),
            (RequestError::ValueProvided, "etcdserver: value is provided"),
            (RequestError::LeaseProvided, "etcdserver: lease is provided"),
            (RequestError::TooManyOps, "etcdserver: too many operations in txn request"),
            (RequestError::DuplicateKey, "etcdserver: duplicate key given in txn request"),
            (RequestError::InvalidSortOption, "etcdserver: invalid sort option"),
            (RequestError::EmptyOp, "etcdserver: key not found"),
            (RequestError::TooLarge, "etcdserver: request is too large"),
        ] {
            check(error, Code::InvalidArgument, message);
        }
    }

    #[test]
    fn commands_are_refused_in_etcds_words() {
        check(Refusal::KeyNotFound, Code::InvalidArgument, "etcdserver: key not found");
        check(Refusal::LeaseNotFound, Code::NotFound, "etcdserver: requested lease not found");
        check(Refusal::Compacted, Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
        check(
            Refusal::FutureRevision,
            Code::OutOfRange,
            "etcdserver: mvcc: required revision is a future revision",
        );
        check(Refusal::NoSpace, Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
        check(Refusal::Corrupt, Code::DataLoss, "etcdserver: corrupt cluster");
        check(Refusal::LeaseExists, Code::FailedPrecondition, "etcdserver: lease already exists");
        check(Refusal::LeaseTtlTooLarge, Code::OutOfRange, "etcdserver: too large lease TTL");
    }

    #[test]
    fn changes_of_users_are_refused_in_etcds_words() {
        for (refusal, message) in [
            (Refusal::RootUserMissing, "root user does not exist"),
            (Refusal::RootRoleMissing, "root user does not have root role"),
            (Refusal::UserExists, "user name already exists"),
            (Refusal::UserNotFound, "user name not found"),
            (Refusal::RoleExists, "role name already exists"),
            (Refusal::RoleNotFound, "role name not found"),
            (Refusal::RoleNotGranted, "role is not granted to the user"),
            (Refusal::PermissionNotGranted, "permission is not granted to the role"),
        ] {
            check(refusal, Code::FailedPrecondition, &format!("etcdserver: {message}"));
        }
        for (refusal, message) in [
            (Refusal::PermissionNotGiven, "permission not given"),
            (Refusal::InvalidAuthManagement, "invalid auth management"),
            (Refusal::UserNameEmpty, "user name is empty"),
            (Refusal::RoleNameEmpty, "role name is empty"),
            (Refusal::AuthRevisionOld, "revision of auth store is old"),
        ] {
            check(refusal, Code::InvalidArgument, &format!("etcdserver: {message}"));
        }
        check(Refusal::PermissionDenied, Code::PermissionDenied, "etcdserver: permission denied");
    }

    #[test]
    fn a_node_that_cannot_serve_says_so_in_etcds_words() {
        check(NodeError::NoLeader, Code::Unavailable, "etcdserver: no leader");
        check(NodeError::LeaderChanged, Code::Unavailable, "etcdserver: leader changed");
        check(
            NodeError::NotLeader { leader: NodeId::new(1) },
            Code::Unavailable,
            "etcdserver: leader changed",
        );
        check(NodeError::Timeout, Code::Unavailable, "etcdserver: request timed out");
        check(NodeError::Busy, Code::ResourceExhausted, "etcdserver: too many requests");
        let no_space = "etcdserver: mvcc: database space exceeded";
        check(NodeError::NoSpace, Code::ResourceExhausted, no_space);
        let full = StorageError::DiskFull { dir: "/d".into(), needed: 2, free: 1 };
        check(full, Code::ResourceExhausted, no_space);
        check(NodeError::Stopped, Code::Unavailable, "etcdserver: server stopped");
        let (bytes, limit) = (2, 1);
        check(
            NodeError::TooLarge { bytes, limit },
            Code::InvalidArgument,
            "etcdserver: request is too large",
        );
    }

    #[test]
    fn changes_of_members_are_refused_in_etcds_words() {
        use MembershipError as Error;
        for (error, code, message) in [
            (Error::Pending, Code::Unavailable, "request timed out"),
            (Error::Exists, Code::FailedPrecondition, "member ID already exist"),
            (Error::UrlExists, Code::FailedPrecondition, "Peer URLs already exists"),
            (Error::NotFound, Code::NotFound, "member not found"),
            (Error::WasRemoved, Code::NotFound, "member not found"),
            (Error::NotLearner, Code::FailedPrecondition, "can only promote a learner member"),
            (
                Error::LearnerNotReady,
                Code::FailedPrecondition,
                "can only promote a learner member which is in sync with leader",
            ),
            (Error::TooManyLearners, Code::FailedPrecondition, "too many learner members in cluster"),
            (
                Error::NotEnoughStarted,
                Code::Unknown,
                "re-configuration failed due to not enough started members",
            ),
            (Error::LastVoter, Code::Unknown, "re-configuration failed due to not enough started members"),
            (Error::Unhealthy, Code::Unavailable, "unhealthy cluster"),
        ] {
            check(NodeError::Membership(error), code, &format!("etcdserver: {message}"));
        }
        check(NodeError::NoSuccessor, Code::Unavailable, "etcdserver: unhealthy cluster");
    }

    #[test]
    fn storage_refuses_in_etcds_words_and_hands_out_no_damage() {
        let (requested, compacted, current) = (Revision(1), Revision(5), Revision(9));
        check(
            StorageError::Compacted { requested, compacted },
            Code::OutOfRange,
            "etcdserver: mvcc: required revision has been compacted",
        );
        check(
            StorageError::FutureRevision { requested, current },
            Code::OutOfRange,
            "etcdserver: mvcc: required revision is a future revision",
        );
        let damaged = StorageError::CrcMismatch { place: "latest".into(), expected: 1, found: 2 };
        check(NodeError::from(damaged), Code::DataLoss, "etcdserver: corrupt cluster");
    }
}
