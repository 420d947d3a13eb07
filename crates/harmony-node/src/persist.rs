//! The WAL thread: one sync for everything that waits.

use std::time::Duration;

use harmony_types::{NodeError, Storage};

use crate::core::event::Event;
use crate::driver::Shared;
use crate::queue::Taken;

/// Syncs until the node stops. An error is the end of the node: nobody knows what is on disk, and a second sync would
/// prove nothing.
pub(crate) fn run<S: Storage>(shared: &Shared<S>) -> Result<(), NodeError> {
    loop {
        let highest = match shared.persist.take(None) {
            Taken::Content(highest) => highest,
            Taken::TimedOut => continue,
            Taken::Closed => return Ok(()),
        };
        let Some(number) = highest else { continue };
        sync(shared, number, shared.clock.now())?;
    }
}

/// Syncs everything that was saved before, and reports it as `number`; whoever asked has waited since `began`.
pub(crate) fn sync<S: Storage>(shared: &Shared<S>, number: u64, began: Duration) -> Result<(), NodeError> {
    shared.disk_calls.syncs.during(|| shared.storage.sync())?;
    shared.metrics.syncs.record(shared.clock.now().saturating_sub(began));
    shared.inbox.put(|inbox| inbox.push(Event::Persisted { number }));
    Ok(())
}
