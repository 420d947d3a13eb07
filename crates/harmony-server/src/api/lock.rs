//! The Lock service (ETCD API, section 9).

use std::sync::Arc;

use bytes::Bytes;

use super::Api;
use super::status::{ApiError, Code};
use crate::auth::caller::Caller;
use crate::proto::{etcdserverpb as pb, v3lockpb};

/// etcd's words for a lock whose lease ended while its client waited.
const SESSION_EXPIRED: ApiError = ApiError::new(Code::Unknown, "mutex: session is expired");

impl Api {
    /// Waits until the client holds the lock. A client that goes away meanwhile leaves nothing behind.
    pub(crate) async fn lock(
        self: &Arc<Self>,
        caller: Caller,
        request: v3lockpb::LockRequest,
    ) -> Result<v3lockpb::LockResponse, ApiError> {
        let mut candidate = self.candidate(caller, &request.name, request.lease, Bytes::new()).await?;
        if !candidate.turn().await? {
            return Err(SESSION_EXPIRED);
        }
        let (key, _, _, header) = candidate.keep();
        Ok(v3lockpb::LockResponse { header, key })
    }

    /// Whoever may delete the key may do this, and it succeeds when the key is gone already.
    pub(crate) async fn unlock(
        &self,
        caller: &Caller,
        request: v3lockpb::UnlockRequest,
    ) -> Result<v3lockpb::UnlockResponse, ApiError> {
        let delete = pb::DeleteRangeRequest { key: request.key, ..pb::DeleteRangeRequest::default() };
        let header = self.delete_range(caller, delete).await?.header;
        Ok(v3lockpb::UnlockResponse { header })
    }
}
