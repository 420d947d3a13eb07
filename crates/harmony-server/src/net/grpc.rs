//! tonic's generated services over the handlers: nothing but unpacking and packing. What is not here is answered as
//! unimplemented by the generated code.

mod auth;
mod election;
mod lease;
mod watch;

use std::sync::Arc;

use http::HeaderMap;
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::tokio_stream::{self, StreamExt};
use tonic::codegen::{BoxStream, async_trait};
use tonic::{Request, Response, Status, Streaming};

use crate::api::Api;
use crate::api::status::ApiError;
use crate::auth::caller::Caller;
use crate::proto::etcdserverpb as pb;
use crate::proto::health as health_pb;
use health_pb::health_check_response::ServingStatus;

/// The API as tonic wants it.
#[derive(Clone)]
pub(crate) struct Grpc(pub(crate) Arc<Api>);

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        Self::new(tonic::Code::from_i32((error.code as u8).into()), error.message)
    }
}

/// The header by which a client asks for an answer only while the cluster has a leader; a watch ends when it has none.
const HAS_LEADER: &str = "hasleader";

/// Whether a client asks for a leader.
pub(super) fn needs_leader(headers: &HeaderMap) -> bool {
    headers.get(HAS_LEADER).is_some_and(|value| value == "true")
}

/// Who sends a request, and the request.
fn open<T>(request: Request<T>) -> (Caller, T) {
    let (metadata, extensions, message) = request.into_parts();
    (Caller::of(metadata.as_ref(), &extensions), message)
}

fn pack<T>(result: Result<T, ApiError>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(Status::from)
}

/// An answer whose messages arrive one after the other.
fn stream<T: Send + 'static>(messages: mpsc::Receiver<Result<T, ApiError>>) -> Response<BoxStream<T>> {
    Response::new(Box::pin(ReceiverStream::new(messages).map(|message| message.map_err(Status::from))))
}

/// Hands the requests of a stream on until either side ends.
async fn forward<T>(mut requests: Streaming<T>, sender: mpsc::Sender<T>) {
    loop {
        let request = tokio::select! {
            request = requests.next() => request,
            () = sender.closed() => return,
        };
        let Some(Ok(request)) = request else { return };
        // The answers have ended.
        if sender.send(request).await.is_err() {
            return;
        }
    }
}

#[async_trait]
impl pb::kv_server::Kv for Grpc {
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let (caller, request) = open(request);
        pack(self.0.range(&caller, request).await)
    }

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<BoxStream<pb::RangeStreamResponse>>, Status> {
        let (caller, request) = open(request);
        Ok(stream(self.0.range_stream(&caller, request).await?))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let (caller, request) = open(request);
        pack(self.0.put(&caller, request).await)
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let (caller, request) = open(request);
        pack(self.0.delete_range(&caller, request).await)
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        let (caller, request) = open(request);
        pack(self.0.txn(&caller, request).await)
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let (caller, request) = open(request);
        pack(self.0.compact(&caller, request).await)
    }
}

#[async_trait]
impl pb::cluster_server::Cluster for Grpc {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        pack(self.0.member_list(request.into_inner()).await)
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        pack(self.0.member_add(request.into_inner()).await)
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        pack(self.0.member_remove(request.into_inner()).await)
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        pack(self.0.member_update(request.into_inner()).await)
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        pack(self.0.member_promote(request.into_inner()).await)
    }
}

#[async_trait]
impl pb::maintenance_server::Maintenance for Grpc {
    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        pack(self.0.status().await)
    }

    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        let (caller, request) = open(request);
        pack(self.0.alarm(&caller, request).await)
    }

    async fn defragment(
        &self,
        _: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        pack(self.0.defragment().await)
    }

    async fn snapshot(
        &self,
        _: Request<pb::SnapshotRequest>,
    ) -> Result<Response<BoxStream<pb::SnapshotResponse>>, Status> {
        Ok(stream(self.0.snapshot().await?))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        pack(self.0.move_leader(request.into_inner()).await)
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        pack(self.0.downgrade(request.get_ref()))
    }

    async fn hash(&self, _: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        pack(self.0.hash().await)
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        pack(self.0.hash_kv(request.into_inner()).await)
    }
}

fn serving(status: ServingStatus) -> health_pb::HealthCheckResponse {
    health_pb::HealthCheckResponse { status: status.into() }
}

/// As etcd's: the whole server under the empty name, serving for as long as it answers at all.
#[async_trait]
impl health_pb::health_server::Health for Grpc {
    async fn check(
        &self,
        request: Request<health_pb::HealthCheckRequest>,
    ) -> Result<Response<health_pb::HealthCheckResponse>, Status> {
        if request.get_ref().service.is_empty() {
            Ok(Response::new(serving(ServingStatus::Serving)))
        } else {
            Err(Status::not_found("unknown service"))
        }
    }

    async fn watch(
        &self,
        request: Request<health_pb::HealthCheckRequest>,
    ) -> Result<Response<BoxStream<health_pb::HealthCheckResponse>>, Status> {
        let status = if request.get_ref().service.is_empty() {
            ServingStatus::Serving
        } else {
            ServingStatus::ServiceUnknown
        };
        let stream = tokio_stream::once(Ok(serving(status))).chain(tokio_stream::pending());
        Ok(Response::new(Box::pin(stream)))
    }
}
