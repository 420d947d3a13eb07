//! The checkpoint thread: makes the state machine durable from time to time and gives up the log behind it.

use std::time::Duration;

use harmony_types::{NodeError, RaftNode as _, Storage, StorageError};

use crate::bounds;
use crate::driver::Shared;
use crate::queue::Taken;
use crate::retention::Pieces;

/// Checkpoints until the node stops.
pub(crate) fn run<S: Storage>(shared: &Shared<S>) -> Result<(), NodeError> {
    harmony_wal::work_in_background();
    let interval = Duration::from_millis(shared.config.checkpoint_interval_ms);
    measure(shared);
    loop {
        match shared.checkpoint.take(Some(interval)) {
            Taken::Closed => return Ok(()),
            Taken::Content(()) | Taken::TimedOut => checkpoint(shared)?,
        }
    }
}

/// Learns how large the part of the log is that earlier lives have left.
pub(crate) fn measure<S: Storage>(shared: &Shared<S>) {
    let mut earlier = Pieces::default();
    let mut next = shared.storage.bounds().first();
    while next <= shared.applied_at_start && !shared.is_stopped() {
        let read = shared.storage.entries(next..shared.applied_at_start.next(), bounds::MEASURE_BYTES);
        // A snapshot may have taken the log's place meanwhile.
        let Ok(entries) = read else { break };
        let Some(last) = entries.last() else { break };
        next = last.index.next();
        earlier.add(shared.retention.piece_bytes(), &entries);
    }
    shared.retention.found(earlier);
}

/// Makes what was applied durable, and gives up the log that nobody needs any more.
pub(crate) fn checkpoint<S: Storage>(shared: &Shared<S>) -> Result<(), NodeError> {
    let storage = &shared.storage;
    let membership = storage.membership();
    if shared.witness.retain(|id| !membership.removed.contains(&id)) {
        shared.witnessed.put(|()| ());
    }
    let (durable, began) = (storage.durable_applied(), shared.clock.now());
    // When nothing was applied, too: there may be history that waits to be dropped.
    match storage.checkpoint() {
        Ok(index) if durable < index => {
            shared.metrics.checkpoints.add(1);
            shared.metrics.checkpoint_times.record(shared.clock.now().saturating_sub(began));
        }
        Ok(_) => {}
        // The storage says so once in the log; nothing is lost, and the next interval tries again.
        Err(StorageError::DiskFull { .. }) => {}
        // Nothing is lost: the log keeps what the tree cannot take, until a snapshot replaces it.
        Err(error) if shared.is_repairable(&error) => tracing::warn!(%error, "no checkpoint"),
        Err(error) => return Err(error.into()),
    }
    // Raft looks at the entries behind its own applied index, which runs behind the storage's.
    let status = shared.raft.status();
    let now = shared.clock.now();
    for one in status.progress.iter().filter(|one| one.recent_active) {
        shared.retention.heard(one.id, one.matched, now);
    }
    let upto = shared.retention.limit(status.applied, storage.durable_applied(), now);
    if storage.bounds().boundary < upto {
        match storage.release(upto) {
            // The log has no place to note it. Nothing changed, and the next interval tries again.
            Err(error) if error.is_disk_full() => {}
            released => released?,
        }
    }
    Ok(())
}
