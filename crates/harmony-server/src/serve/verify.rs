//! The background verification of the tree: all of it is read from the disk once a day, at a pace that nobody notices.

use std::sync::Arc;
use std::time::Duration;

use crate::api::Api;

/// Pages of 4 KiB read in one step: a checkpoint waits for one.
const STEP_PAGES: u64 = 512;

/// Rest between two steps: some 2 MiB/s are read.
const STEP_PAUSE: Duration = Duration::from_secs(1);

/// Rest between two passes.
const PASS_PAUSE: Duration = Duration::from_hours(24);

/// Goes on until the server stops. What it finds is logged by storage and stands in the metrics.
pub(super) async fn run(api: Arc<Api>) {
    let mut passes = 0;
    loop {
        tokio::time::sleep(STEP_PAUSE).await;
        let seen = match api.blocking(|storage| storage.verify_step(STEP_PAGES)).await {
            Ok(Ok(seen)) => seen,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the tree's file is not verified any more");
                return;
            }
            // The server stops.
            Err(_) => return,
        };
        if passes != seen.passes {
            passes = seen.passes;
            tokio::time::sleep(PASS_PAUSE).await;
        }
    }
}
