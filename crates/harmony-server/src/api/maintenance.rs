//! The Maintenance service (ETCD API, section 11), as far as it only looks.

use super::Api;
use super::status::{ApiError, Code};
use crate::proto::etcdserverpb as pb;
use crate::version;
use harmony_storage::UnifiedStorage;
use harmony_types::{NodeId, Storage};

impl Api {
    /// This member's own view; waits for nobody.
    pub(crate) async fn status(&self) -> Result<pb::StatusResponse, ApiError> {
        let disk_bytes = self.blocking(UnifiedStorage::disk_bytes).await??;
        let status = self.node.status();
        let errors = match status.leader {
            Some(_) => Vec::new(),
            None => vec![ApiError::NO_LEADER.message.into_owned()],
        };
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
            db_size_quota: self.limits.quota_bytes.map_or(0, to_i64),
            downgrade_info: Some(pb::DowngradeInfo::default()),
        })
    }

    /// Alarms that are raised. None can be yet: a full quota and damage refuse by themselves.
    pub(crate) fn alarm(&self, request: &pb::AlarmRequest) -> Result<pb::AlarmResponse, ApiError> {
        if request.action != i32::from(pb::alarm_request::AlarmAction::Get) {
            return Err(ApiError {
                code: Code::Unimplemented,
                message: "etcdserver: alarms cannot be set yet".into(),
            });
        }
        Ok(pb::AlarmResponse { header: Some(self.header_now()), alarms: Vec::new() })
    }

    /// Over everything stored on this member.
    pub(crate) async fn hash(&self) -> Result<pb::HashResponse, ApiError> {
        let hash = self.blocking(|storage| storage.hash()).await??;
        Ok(pb::HashResponse { header: Some(self.header_now()), hash })
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
