//! The Lease service as tonic wants it.

use tokio::sync::mpsc;
use tonic::codegen::{BoxStream, async_trait};
use tonic::{Request, Response, Status, Streaming};

use super::{Grpc, forward, open, pack, stream};
use crate::proto::etcdserverpb as pb;

#[async_trait]
impl pb::lease_server::Lease for Grpc {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let (caller, request) = open(request);
        pack(self.0.lease_grant(&caller, request).await)
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let (caller, request) = open(request);
        pack(self.0.lease_revoke(&caller, request).await)
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<BoxStream<pb::LeaseKeepAliveResponse>>, Status> {
        let (caller, requests) = open(request);
        let (sender, receiver) = mpsc::channel(1);
        let kept = self.0.lease_keep_alive(&caller, receiver).await?;
        tokio::spawn(forward(requests, sender));
        Ok(stream(kept))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let (caller, request) = open(request);
        pack(self.0.lease_time_to_live(&caller, request).await)
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let (caller, _) = open(request);
        pack(self.0.lease_leases(&caller).await)
    }
}
