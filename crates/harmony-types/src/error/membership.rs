//! Why a membership change is refused.

/// Why a membership change is refused. The texts are etcd's where etcd has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u8)]
#[non_exhaustive]
pub enum MembershipError {
    /// A change is under way, or the leader has not committed anything in its term yet: two changes could overlap without
    /// a common quorum. Try again.
    #[error("another membership change is under way")]
    Pending = 1,
    /// The member to add is there already.
    #[error("member ID already exist")]
    Exists = 2,
    /// Another member has one of these peer URLs.
    #[error("Peer URLs already exists")]
    UrlExists = 3,
    /// There is no such member.
    #[error("member not found")]
    NotFound = 4,
    /// A removed member does not come back under its old id.
    #[error("member was removed and cannot come back under its old id")]
    WasRemoved = 5,
    /// Only a learner can be promoted.
    #[error("can only promote a learner member")]
    NotLearner = 6,
    /// The learner has not caught up yet: it must hold 90 % of the leader's log.
    #[error("can only promote a learner member which is in sync with leader")]
    LearnerNotReady = 7,
    /// The cluster has as many learners as it may.
    #[error("too many learner members in cluster")]
    TooManyLearners = 8,
    /// Behind the change, the members that have ever started would be no quorum.
    #[error("re-configuration failed due to not enough started members")]
    NotEnoughStarted = 9,
    /// Behind the change, the members that are heard of would be no quorum.
    #[error("unhealthy cluster")]
    Unhealthy = 10,
    /// The last voter cannot go.
    #[error("the last voter cannot be removed")]
    LastVoter = 11,
    /// The change contradicts itself or the member's role.
    #[error("the change makes no sense in this configuration")]
    Impossible = 12,
}

impl MembershipError {
    /// The error with this number on the wire, or `None`.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Pending,
            2 => Self::Exists,
            3 => Self::UrlExists,
            4 => Self::NotFound,
            5 => Self::WasRemoved,
            6 => Self::NotLearner,
            7 => Self::LearnerNotReady,
            8 => Self::TooManyLearners,
            9 => Self::NotEnoughStarted,
            10 => Self::Unhealthy,
            11 => Self::LastVoter,
            12 => Self::Impossible,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_errors_match() {
        for number in 1..=12 {
            assert_eq!(MembershipError::from_u8(number).unwrap() as u8, number);
        }
        assert_eq!(MembershipError::from_u8(0), None);
        assert_eq!(MembershipError::from_u8(13), None);
    }
}
