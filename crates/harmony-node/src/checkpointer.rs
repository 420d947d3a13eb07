//! The checkpoint thread: makes the state machine durable from time to time and gives up the log behind it.

use std::time::Duration;

use harmony_types::{LogIndex, NodeError, RaftNode as _, Storage, StorageError};

use crate::bounds;
use crate::driver::Shared;
use crate::queue::Taken;

/// Checkpoints until the node stops.
pub(crate) fn run<S: Storage>(shared: &Shared<S>) -> Result<(), NodeError> {
    let interval = Duration::from_millis(bounds::CHECKPOINT_INTERVAL_MS);
    loop {
        match shared.checkpoint.take(Some(interval)) {
            Taken::Closed => return Ok(()),
            Taken::Content(()) | Taken::TimedOut => checkpoint(shared)?,
        }
    }
}

fn checkpoint<S: Storage>(shared: &Shared<S>) -> Result<(), NodeError> {
    let storage = &shared.storage;
    let membership = storage.membership();
    shared.witness.retain(|id| !membership.removed.contains(&id));
    if let Err(error) = shared.witness.save() {
        // It is a second line: what it says is kept in memory, and written the next time.
        tracing::warn!(%error, "what members hold was not written");
    }
    if storage.durable_applied() < storage.applied().index {
        match storage.checkpoint() {
            Ok(_) => shared.metrics.checkpoints.add(1),
            // The storage says so once in the log; nothing is lost, and the next interval tries again.
            Err(StorageError::DiskFull { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // Raft looks at the entries behind its own applied index, which runs behind the storage's.
    let applied = shared.raft.status().applied;
    let wanted = releasable(applied, storage.durable_applied(), shared.config.log_keep_entries);
    let upto = shared.retention.limit(wanted, shared.clock.now());
    if storage.bounds().boundary < upto {
        storage.release(upto)?;
    }
    Ok(())
}

/// The last entry that this member itself does not need: it is in the durable state machine, and far enough behind for
/// members that are a little late.
fn releasable(applied: LogIndex, durable: LogIndex, keep_entries: u64) -> LogIndex {
    LogIndex(applied.0.saturating_sub(keep_entries)).min(durable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_keeps_what_is_not_durable_and_a_tail_for_members_that_are_late() {
        let upto = |applied, durable, keep| releasable(LogIndex(applied), LogIndex(durable), keep).0;
        assert_eq!(upto(100, 100, 30), 70);
        assert_eq!(upto(100, 20, 30), 20);
        assert_eq!(upto(100, 100, 0), 100);
        assert_eq!(upto(20, 20, 30), 0);
    }
}
