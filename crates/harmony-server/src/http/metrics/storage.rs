//! The storage: what ran on it, and its maintenance.

use std::fmt;
use std::sync::Arc;

use harmony_wal::FileWal;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::{counter, gauge, histogram};
use crate::api::Api;

/// Collects them.
pub(super) struct Storage {
    api: Arc<Api>,
    wal: Arc<FileWal>,
}

impl Storage {
    pub(super) fn new(api: Arc<Api>, wal: Arc<FileWal>) -> Self {
        Self { api, wal }
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Storage")
    }
}

impl Collector for Storage {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let ops = self.api.storage.op_counts();
        for (name, help, count) in [
            ("etcd_mvcc_range", "Ranges that were read here", ops.ranges),
            ("etcd_mvcc_put", "Puts that were applied here", ops.puts),
            ("etcd_mvcc_delete", "Deletes that were applied here", ops.deletes),
            ("etcd_mvcc_txn", "Commands of more than one of these", ops.txns),
        ] {
            counter(encoder, name, help, count)?;
        }
        // A gauge in etcd, too.
        gauge(
            encoder,
            "etcd_disk_wal_write_bytes_total",
            "Bytes written to the log since the start",
            self.wal.written_bytes(),
        )?;
        let maintenance = &self.api.maintenance;
        let running = u64::from(maintenance.defrags_running() != 0);
        gauge(encoder, "etcd_disk_defrag_inflight", "1 while the tree is being rebuilt", running)?;
        histogram(
            encoder,
            "etcd_disk_backend_defrag_duration_seconds",
            "How long rebuilds of the tree took",
            &maintenance.defrags,
        )?;
        histogram(
            encoder,
            "etcd_disk_backend_snapshot_duration_seconds",
            "How long backups took",
            &maintenance.backups,
        )
    }
}
