//! How many connections the process has file descriptors for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors kept for the log, the tree, snapshots and peers: a flood of clients must not keep the log from its next
/// segment. As many as etcd keeps.
const RESERVED: u64 = 150;

/// Raises the process's limit on open files to what the system allows, and returns how many connections fit.
pub(crate) fn connections_max() -> usize {
    let found = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: found.maximum, maximum: found.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => found.maximum,
        Err(_) => found.current,
    };
    connections(current)
}

/// Connections under a limit of open files; `None` is no limit.
fn connections(files: Option<u64>) -> usize {
    let most = tokio::sync::Semaphore::MAX_PERMITS;
    let Some(files) = files else { return most };
    // With very few files half of them serve clients, whatever is reserved.
    let connections = files.saturating_sub(RESERVED).max(files / 2).max(1);
    usize::try_from(connections).map_or(most, |connections| connections.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_kept_back() {
        assert_eq!(connections(Some(1024)), 874);
        assert_eq!(connections(Some(200)), 100);
        assert_eq!(connections(Some(0)), 1);
        assert_eq!(connections(None), tokio::sync::Semaphore::MAX_PERMITS);
        assert_eq!(connections(Some(u64::MAX)), tokio::sync::Semaphore::MAX_PERMITS);
    }
}
