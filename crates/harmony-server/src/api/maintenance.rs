//! The Maintenance service (ETCD API, section 11); alarms and backups have files of their own.

use std::sync::Arc;
use std::time::Duration;

use super::status::ApiError;
use super::{Api, alarms};
use crate::proto::etcdserverpb as pb;
use crate::version;
use harmony_node::SystemClock;
use harmony_node::metrics::{Counter, Histogram};
use harmony_storage::UnifiedStorage;
use harmony_types::{Clock as _, NodeId, Storage};
use tokio::time::{sleep, timeout};

/// Rest between two looks at who leads.
const TRANSFER_PAUSE: Duration = Duration::from_millis(5);

/// Upper bounds of the buckets for rebuilds, microseconds, as etcd's.
const DEFRAG_BUCKETS_US: [u64; 13] = doubled(100_000);

/// Upper bounds of the buckets for backups, microseconds, as etcd's.
const BACKUP_BUCKETS_US: [u64; 17] = doubled(10_000);

const fn doubled<const N: usize>(first: u64) -> [u64; N] {
    let mut bounds = [first; N];
    let mut at = 1;
    while at < N {
        bounds[at] = 2 * bounds[at - 1];
        at += 1;
    }
    bounds
}

/// What maintenance takes.
#[derive(Debug)]
pub(crate) struct MaintenanceMetrics {
    /// Rebuilds that were asked for; those that ended are in `defrags`.
    pub(crate) defrags_begun: Counter,
    /// How long they took.
    pub(crate) defrags: Histogram,
    /// How long backups took that their client read to the end.
    pub(crate) backups: Histogram,
}

impl Default for MaintenanceMetrics {
    fn default() -> Self {
        Self {
            defrags_begun: Counter::default(),
            defrags: Histogram::new(&DEFRAG_BUCKETS_US),
            backups: Histogram::new(&BACKUP_BUCKETS_US),
        }
    }
}

impl MaintenanceMetrics {
    /// Rebuilds under way.
    pub(crate) fn defrags_running(&self) -> u64 {
        let ended: u64 = self.defrags.buckets().iter().sum();
        self.defrags_begun.get().saturating_sub(ended)
    }
}

impl Api {
    /// This member's own view; waits for nobody.
    pub(crate) async fn status(&self) -> Result<pb::StatusResponse, ApiError> {
        let disk_bytes = self.blocking(UnifiedStorage::disk_bytes).await??;
        let status = self.node.status();
        let mut errors: Vec<String> = self.all_alarms().iter().map(alarms::text).collect();
        if status.leader.is_none() {
            errors.push(ApiError::NO_LEADER.message.into_owned());
        }
        Ok(pb::StatusResponse {
            header: Some(self.header_now()),
            version: version::API.to_owned(),
            db_size: to_i64(disk_bytes),
            leader: NodeId::or_zero(status.leader),
            raft_index: status.commit.0,
            raft_term: status.term.0,
            raft_applied_index: self.storage.applied().index.0,
            errors,
            db_size_in_use: to_i64(self.storage.live_bytes()),
            is_learner: status.is_learner,
            storage_version: version::STORAGE.to_owned(),
            db_size_quota: self.limits.quota.map_or(0, |quota| to_i64(quota.bytes)),
            downgrade_info: Some(pb::DowngradeInfo::default()),
        })
    }

    /// Over everything stored on this member.
    pub(crate) async fn hash(&self) -> Result<pb::HashResponse, ApiError> {
        let hash = self.blocking(|storage| storage.hash()).await??;
        Ok(pb::HashResponse { header: Some(self.header_now()), hash })
    }

    /// Writes this member's tree into a new file without gaps while everything else goes on; returns when it is in place.
    pub(crate) async fn defragment(&self) -> Result<pb::DefragmentResponse, ApiError> {
        let metrics = Arc::clone(&self.maintenance);
        let rebuild = move |storage: &UnifiedStorage| {
            let clock = SystemClock::new();
            metrics.defrags_begun.add(1);
            let rebuilt = storage.rebuild();
            metrics.defrags.record(clock.now());
            rebuilt
        };
        if let Some(rebuilt) = self.blocking(rebuild).await?? {
            tracing::info!(before = rebuilt.bytes_before, after = rebuilt.bytes_after, "tree rebuilt");
        }
        Ok(pb::DefragmentResponse { header: Some(self.header_now()) })
    }

    /// Hands leadership to a voter; returns when it leads.
    pub(crate) async fn move_leader(
        &self,
        request: pb::MoveLeaderRequest,
    ) -> Result<pb::MoveLeaderResponse, ApiError> {
        if !self.node.is_leader() {
            return Err(ApiError::NOT_LEADER);
        }
        let target = NodeId::new(request.target_id)
            .filter(|target| self.storage.membership().voters.contains(target))
            .ok_or(ApiError::BAD_TRANSFEREE)?;
        self.node.transfer_leader(target);
        let limit = 2 * Duration::from_millis(self.node.config().election_timeout_ms);
        let moved = async {
            while self.node.leader() != Some(target) {
                sleep(TRANSFER_PAUSE).await;
            }
        };
        timeout(limit, moved).await.map_err(|_| ApiError::TRANSFER_TIMEOUT)?;
        Ok(pb::MoveLeaderResponse { header: Some(self.header_now()) })
    }

    /// What is stored has one form, which no earlier release of etcd reads: there is no version to go down to. Requests are
    /// checked as etcd checks them, and those that it would take are refused in its words.
    pub(crate) fn downgrade(
        &self,
        request: &pb::DowngradeRequest,
    ) -> Result<pb::DowngradeResponse, ApiError> {
        use pb::downgrade_request::DowngradeAction;
        match DowngradeAction::try_from(request.action) {
            Ok(DowngradeAction::Validate | DowngradeAction::Enable) => {
                let target = version::parse(&request.version).ok_or(ApiError::DOWNGRADE_VERSION_FORMAT)?;
                let is_one_below = version::one_below(target);
                Err(if is_one_below { ApiError::NOT_CAPABLE } else { ApiError::DOWNGRADE_VERSION })
            }
            Ok(DowngradeAction::Cancel) => Err(ApiError::NO_DOWNGRADE),
            Err(_) => Err(ApiError::UNKNOWN_METHOD),
        }
    }

    /// Over the keys and their history at a revision: the same on every member with the same compact revision.
    pub(crate) async fn hash_kv(&self, request: pb::HashKvRequest) -> Result<pb::HashKvResponse, ApiError> {
        let result = self.blocking(move |storage| storage.hash_kv(request.revision)).await??;
        Ok(pb::HashKvResponse {
            header: Some(self.header_now()),
            hash: result.hash,
            compact_revision: result.compact_revision,
            hash_revision: result.hash_revision,
        })
    }
}

fn to_i64(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
