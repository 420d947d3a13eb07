//! Options of each layer, with defaults that serve and a check that names every mistake at once.

use crate::id::{ClusterId, NodeId};
use crate::limits;

/// Every mistake in a configuration, each with what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", mistakes.join("; "))]
pub struct ConfigError {
    /// In words, never empty.
    pub mistakes: Vec<String>,
}

impl ConfigError {
    /// `Ok` when there are none.
    ///
    /// # Errors
    /// All of them.
    pub fn check(mistakes: Vec<String>) -> Result<(), Self> {
        if mistakes.is_empty() { Ok(()) } else { Err(Self { mistakes }) }
    }
}

/// Whose directory it is: written into new files, compared in old ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member; `None` for a log or storage used alone.
    pub node: Option<NodeId>,
}

/// Options of a write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalConfig {
    /// Whose log it is.
    pub identity: Identity,
    /// Size of a segment, bytes.
    pub segment_bytes: u64,
    /// Recent entries kept in memory, bytes of data and 64 more for each entry.
    pub cache_bytes: u64,
    /// Total bytes that the log may take on disk; `None`: no limit.
    pub quota_bytes: Option<u64>,
}

impl Default for WalConfig {
    fn default() -> Self {
        Self {
            identity: Identity::default(),
            segment_bytes: limits::SEGMENT_BYTES,
            cache_bytes: limits::LOG_CACHE_BYTES,
            quota_bytes: None,
        }
    }
}

impl WalConfig {
    /// Checks the options.
    ///
    /// # Errors
    /// Every mistake.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut mistakes = Vec::new();
        if self.segment_bytes < limits::SEGMENT_BYTES_MIN || u64::from(u32::MAX) < self.segment_bytes {
            mistakes.push(format!(
                "segment size {} is outside of {}..={} bytes",
                self.segment_bytes,
                limits::SEGMENT_BYTES_MIN,
                u32::MAX
            ));
        }
        if let Some(quota) = self.quota_bytes
            && quota < 2 * self.segment_bytes
        {
            mistakes.push(format!("log quota {quota} is below two segments of {} bytes", self.segment_bytes));
        }
        ConfigError::check(mistakes)
    }
}

/// Options of storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageConfig {
    /// The log under it; its identity is storage's, too.
    pub wal: WalConfig,
    /// Cache of the B-tree, bytes.
    pub tree_cache_bytes: usize,
    /// Bytes applied before the state machine is made durable.
    pub checkpoint_bytes: u64,
    /// Bytes written to the tree since a view was taken, a snapshot's too, that end it: so much the file may grow for it.
    pub view_bytes_max: u64,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            wal: WalConfig::default(),
            tree_cache_bytes: limits::TREE_CACHE_BYTES,
            checkpoint_bytes: limits::CHECKPOINT_BYTES,
            view_bytes_max: limits::VIEW_BYTES_MAX,
        }
    }
}

impl StorageConfig {
    /// Checks the options.
    ///
    /// # Errors
    /// Every mistake.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut mistakes = self.wal.validate().err().map_or_else(Vec::new, |error| error.mistakes);
        if self.tree_cache_bytes < 1 << 20 {
            mistakes.push(format!("tree cache of {} bytes is below 1 MiB", self.tree_cache_bytes));
        }
        if self.checkpoint_bytes == 0 {
            mistakes.push("checkpoint size must be above 0 bytes".to_owned());
        }
        if self.view_bytes_max == 0 {
            mistakes.push("views need room: their limit must be above 0 bytes".to_owned());
        }
        ConfigError::check(mistakes)
    }
}

/// Options of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Which member it is.
    pub id: NodeId,
    /// Of which cluster.
    pub cluster: ClusterId,
    /// Time between heartbeats, milliseconds; also one tick.
    pub heartbeat_interval_ms: u64,
    /// Time without a leader before an election, milliseconds.
    pub election_timeout_ms: u64,
    /// Largest command, bytes.
    pub command_bytes_max: usize,
    /// Entry data proposed and not yet committed, bytes.
    pub uncommitted_bytes_max: u64,
    /// Longest time between two checkpoints, milliseconds; what waits to be dropped from the state machine goes with them.
    pub checkpoint_interval_ms: u64,
    /// Entries kept behind the applied index for slow followers, at most.
    pub log_keep_entries: u64,
    /// Bytes of log kept behind the applied index for slow followers, at most. Space is given up by whole segments.
    pub log_keep_bytes: u64,
    /// Bytes of log kept behind a snapshot that is on its way to a member, at most; below `log_keep_bytes` it is that.
    pub log_hold_bytes_max: u64,
    /// Refuse membership changes behind which the members that have started, or are heard of, would be no quorum.
    pub strict_reconfig: bool,
    /// Learners in the cluster.
    pub learners_max: usize,
}

impl NodeConfig {
    /// The defaults for this member.
    #[must_use]
    pub const fn new(id: NodeId, cluster: ClusterId) -> Self {
        Self {
            id,
            cluster,
            heartbeat_interval_ms: limits::HEARTBEAT_INTERVAL_MS,
            election_timeout_ms: limits::ELECTION_TIMEOUT_MS,
            command_bytes_max: limits::REQUEST_BYTES_MAX,
            uncommitted_bytes_max: limits::UNCOMMITTED_BYTES_MAX,
            checkpoint_interval_ms: limits::CHECKPOINT_INTERVAL_MS,
            log_keep_entries: limits::LOG_KEEP_ENTRIES,
            log_keep_bytes: limits::LOG_KEEP_BYTES,
            log_hold_bytes_max: limits::LOG_HOLD_BYTES_MAX,
            strict_reconfig: true,
            learners_max: limits::LEARNERS_MAX,
        }
    }

    /// Ticks without a leader before an election.
    #[must_use]
    pub const fn election_ticks(&self) -> u64 {
        self.election_timeout_ms / self.heartbeat_interval_ms
    }

    /// Checks the options.
    ///
    /// # Errors
    /// Every mistake.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut mistakes = Vec::new();
        if self.heartbeat_interval_ms == 0 {
            mistakes.push("heartbeat interval must be above 0 ms".to_owned());
        }
        if self.election_timeout_ms < limits::ELECTION_HEARTBEATS_MIN * self.heartbeat_interval_ms {
            mistakes.push(format!(
                "election timeout of {} ms must be at least {} heartbeat intervals of {} ms",
                self.election_timeout_ms,
                limits::ELECTION_HEARTBEATS_MIN,
                self.heartbeat_interval_ms
            ));
        }
        if limits::ELECTION_TIMEOUT_MS_MAX < self.election_timeout_ms {
            mistakes.push(format!(
                "election timeout of {} ms is over {} ms",
                self.election_timeout_ms,
                limits::ELECTION_TIMEOUT_MS_MAX
            ));
        }
        if self.checkpoint_interval_ms == 0 {
            mistakes.push("checkpoint interval must be above 0 ms".to_owned());
        }
        if self.command_bytes_max == 0 || limits::RECORD_BYTES_MAX / 2 < self.command_bytes_max {
            mistakes.push(format!(
                "request limit of {} bytes is outside of 1..={}",
                self.command_bytes_max,
                limits::RECORD_BYTES_MAX / 2
            ));
        }
        ConfigError::check(mistakes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(WalConfig::default().validate(), Ok(()));
        assert_eq!(StorageConfig::default().validate(), Ok(()));
        assert_eq!(NodeConfig::new(NodeId::new(1).unwrap(), ClusterId(1)).validate(), Ok(()));
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let wal = WalConfig { segment_bytes: 1, quota_bytes: Some(1), ..WalConfig::default() };
        let storage = StorageConfig { wal, tree_cache_bytes: 0, checkpoint_bytes: 0, view_bytes_max: 0 };
        assert_eq!(storage.validate().unwrap_err().mistakes.len(), 5);
        let node = NodeConfig {
            heartbeat_interval_ms: 20_000,
            election_timeout_ms: 60_000,
            command_bytes_max: 0,
            checkpoint_interval_ms: 0,
            ..NodeConfig::new(NodeId::new(1).unwrap(), ClusterId(1))
        };
        assert_eq!(node.validate().unwrap_err().mistakes.len(), 4);
    }
}
