//! A lease as the keeper tracks it.

use std::time::Duration;

use harmony_types::NodeError;

use crate::waiter::{ReplyBatch, Waiter};

/// Renewals that wait for the end of one lease.
const WAITING_FOR_END_MAX: usize = 16;

/// A lease and its time.
pub(super) struct Tracked {
    pub(super) serial: u64,
    pub(super) ttl_s: i64,
    /// As the log says; 0: all of it.
    pub(super) remaining_ttl_s: i64,
    /// When its time is over.
    pub(super) over_at: Duration,
    /// How much longer it is left alone.
    pub(super) grace: Duration,
    pub(super) phase: Phase,
    /// Somebody renewed it in this reign, or got it.
    pub(super) is_renewed: bool,
    /// The last proposal by which the log says, or will say, that less than all of it is left.
    pub(super) less_told: Option<u64>,
    /// Renewals that came too late.
    pub(super) waiting: Vec<Waiter<i64>>,
}

/// How far its end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Counting,
    /// To be revoked.
    Over,
    /// Its revocation is in the log of this term, or on its way there.
    Revoking,
}

impl Tracked {
    pub(super) fn end(&self) -> Duration {
        self.over_at + self.grace
    }

    pub(super) fn ttl(&self) -> Duration {
        seconds(self.ttl_s)
    }

    /// What the log says is left, seconds.
    pub(super) fn known_s(&self) -> i64 {
        if self.remaining_ttl_s == 0 { self.ttl_s } else { self.remaining_ttl_s }
    }

    /// Has a renewal that came too late wait until the lease is gone.
    pub(super) fn wait_for_end(&mut self, waiter: Waiter<i64>, replies: &mut ReplyBatch<i64>) {
        if WAITING_FOR_END_MAX <= self.waiting.len() {
            replies.push(waiter, Err(NodeError::Busy));
        } else {
            self.waiting.push(waiter);
        }
    }
}

/// A duration of so many seconds; none below 0.
pub(super) fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
