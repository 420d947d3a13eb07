//! The checkpoint thread: makes the state machine durable from time to time and gives up the log behind it.

use std::time::Duration;

use harmony_types::{LogIndex, NodeError, RaftNode as _, Storage, StorageError};

use crate::bounds;
use crate::driver::Shared;
use crate::queue::Taken;

/// Checkpoints until the node stops.
pub(crate) fn run<S: Storage>(shared: &Shared<S>) -> Result<(), NodeError> {
    harmony_wal::work_in_background();
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
    let kept = LogIndex(applied.0.saturating_sub(shared.config.log_keep_entries));
    let upto = shared.retention.limit(kept.min(storage.durable_applied()), shared.clock.now());
    if storage.bounds().boundary < upto {
        match storage.release(upto) {
            // The log has no place to note it. Nothing changed, and the next interval tries again.
            Err(error) if error.is_disk_full() => {}
            released => released?,
        }
    }
    Ok(())
}
