//! Compaction by itself (`--auto-compaction-mode`; ETCD API, section 6): the leader proposes what an operator would.
//!
//! Every member notes revisions, so that a new leader knows those of before. [`Plan`] decides from a time and a state that it is
//! given; one task of the network thread looks and proposes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use harmony_types::command::Compact;
use harmony_types::{Author, CommandKind};
use tokio::time::{Instant, sleep};

use super::Api;
use super::status::ApiError;
use crate::config::AutoCompaction;

/// Longest time between two compactions of a period, as in etcd.
const COMPACTION_PAUSE_MAX: Duration = Duration::from_hours(1);

/// Looks in that time.
const LOOKS: u32 = 10;

/// Time between two looks where revisions are counted, as in etcd.
const COUNT_PAUSE: Duration = Duration::from_mins(5);

/// Least time between two looks.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(10);

/// What a look sees.
#[derive(Clone, Copy, Debug)]
struct Seen {
    is_leader: bool,
    revision: i64,
    compacted: i64,
}

/// What to compact, and when.
#[derive(Debug)]
struct Plan {
    keep: AutoCompaction,
    /// When each revision was the newest, oldest first; those that are too young to be compacted, and one that is not.
    noted: VecDeque<(Duration, i64)>,
    /// When it was compacted last.
    last: Option<Duration>,
}

impl Plan {
    fn new(keep: AutoCompaction) -> Self {
        Self { keep, noted: VecDeque::new(), last: None }
    }

    /// Time until the next look.
    fn pause(&self) -> Duration {
        match self.keep {
            AutoCompaction::Period(period) => (period.min(COMPACTION_PAUSE_MAX) / LOOKS).max(LOOK_PAUSE_MIN),
            AutoCompaction::Revisions(_) => COUNT_PAUSE,
        }
    }

    /// Looks: the revision to compact at now, if there is one.
    fn look(&mut self, now: Duration, seen: Seen) -> Option<i64> {
        let revision = match self.keep {
            AutoCompaction::Revisions(count) => Some(seen.revision.saturating_sub_unsigned(count)),
            AutoCompaction::Period(period) => {
                self.noted.push_back((now, seen.revision));
                let is_old = |(at, _): &(Duration, i64)| *at + period <= now;
                while self.noted.get(1).is_some_and(is_old) {
                    self.noted.pop_front();
                }
                let pause = period.min(COMPACTION_PAUSE_MAX);
                let is_due = self.last.is_none_or(|last| last + pause <= now);
                self.noted.front().filter(|noted| is_due && is_old(noted)).map(|(_, revision)| *revision)
            }
        };
        revision.filter(|revision| seen.is_leader && seen.compacted < *revision && 0 < *revision)
    }

    /// What the last look found is compacted.
    fn done(&mut self, now: Duration) {
        self.last = Some(now);
    }
}

impl Api {
    /// Compacts by itself, for ever: a task of the network thread.
    pub(crate) async fn compact_by_itself(self: Arc<Self>, keep: AutoCompaction) {
        let began = Instant::now();
        let mut plan = Plan::new(keep);
        loop {
            let now = began.elapsed();
            let seen = Seen {
                is_leader: self.node.is_leader(),
                revision: self.storage.revision().as_i64(),
                compacted: self.storage.compact_revision().as_i64(),
            };
            if let Some(revision) = plan.look(now, seen) {
                // Nobody is logged in.
                let own = Author { by_member: true, ..Author::default() };
                match self.propose(Some(own), CommandKind::Compact(Compact { revision })).await {
                    Ok(_) => {
                        tracing::info!(revision, "compacted");
                        plan.done(now);
                    }
                    Err(error) if error == ApiError::COMPACTED => plan.done(now),
                    // The next look tries again.
                    Err(error) => tracing::warn!(revision, %error, "not compacted"),
                }
            }
            sleep(plan.pause()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn leads(revision: i64, compacted: i64) -> Seen {
        Seen { is_leader: true, revision, compacted }
    }

    /// Looks as often as the plan wants to, each time 100 revisions later, as the leader or not; what was compacted when.
    fn run(keep: AutoCompaction, looks: u32, is_leader: impl Fn(u32) -> bool) -> Vec<(Duration, i64)> {
        let (mut plan, mut compacted, mut done) = (Plan::new(keep), 0, Vec::new());
        for look in 0..looks {
            let now = plan.pause() * look;
            let seen = Seen { is_leader: is_leader(look), ..leads(1 + 100 * i64::from(look), compacted) };
            if let Some(revision) = plan.look(now, seen) {
                done.push((now, revision));
                compacted = revision;
                plan.done(now);
            }
        }
        done
    }

    #[test]
    fn a_period_is_kept_and_compacted_behind_once_an_hour() {
        let done = run(AutoCompaction::Period(2 * HOUR), 45, |_| true);
        // Ten looks an hour; at the 20th the first revision is two hours old, and nothing lies before it.
        assert_eq!(done, [(2 * HOUR, 1), (3 * HOUR, 1001), (4 * HOUR, 2001)]);
        let minutes = Duration::from_mins(10);
        let done = run(AutoCompaction::Period(minutes), 31, |_| true);
        assert_eq!(done, [(minutes, 1), (2 * minutes, 1001), (3 * minutes, 2001)]);
    }

    #[test]
    fn only_a_leader_compacts_and_a_new_one_knows_the_revisions_of_before() {
        assert_eq!(run(AutoCompaction::Period(HOUR), 100, |_| false), []);
        let done = run(AutoCompaction::Period(HOUR), 30, |look| look == 25);
        assert_eq!(done, [(HOUR * 5 / 2, 1501)], "an hour before");
        let mut plan = Plan::new(AutoCompaction::Revisions(10));
        assert_eq!(plan.look(Duration::ZERO, Seen { is_leader: false, ..leads(100, 0) }), None);
    }

    #[test]
    fn so_many_revisions_are_kept() {
        let mut plan = Plan::new(AutoCompaction::Revisions(10));
        assert_eq!(plan.pause(), Duration::from_mins(5));
        for (revision, compacted, expected) in [
            (5, 0, None),
            (10, 0, None),
            (11, 0, Some(1)),
            (100, 1, Some(90)),
            (100, 90, None),
            (99, 95, None),
        ] {
            assert_eq!(
                plan.look(Duration::ZERO, leads(revision, compacted)),
                expected,
                "{revision} {compacted}"
            );
        }
        assert_eq!(Plan::new(AutoCompaction::Revisions(u64::MAX)).look(HOUR, leads(100, 0)), None);
    }

    #[test]
    fn a_compaction_that_failed_is_tried_again_at_the_next_look() {
        let mut plan = Plan::new(AutoCompaction::Period(HOUR));
        let pause = plan.pause();
        assert_eq!(plan.look(Duration::ZERO, leads(5, 0)), None);
        assert_eq!(plan.look(HOUR, leads(9, 0)), Some(5));
        assert_eq!(plan.look(HOUR + pause, leads(9, 0)), Some(5));
        plan.done(HOUR + pause);
        assert_eq!(plan.look(HOUR + 2 * pause, leads(9, 5)), None);
    }

    #[test]
    fn nothing_is_noted_that_is_not_needed() {
        let mut plan = Plan::new(AutoCompaction::Period(HOUR));
        for look in 0..1_000 {
            plan.look(plan.pause() * look, leads(7, 0));
        }
        assert!(plan.noted.len() <= 12, "{}", plan.noted.len());
    }
}
