//! The Lock and Election services as tonic wants them.

use tonic::codegen::{BoxStream, async_trait};
use tonic::{Request, Response, Status};

use super::{Grpc, open, pack, stream};
use crate::proto::{v3electionpb as election, v3lockpb as lock};

#[async_trait]
impl lock::lock_server::Lock for Grpc {
    async fn lock(
        &self,
        request: Request<lock::LockRequest>,
    ) -> Result<Response<lock::LockResponse>, Status> {
        let (caller, request) = open(request);
        pack(self.0.lock(caller, request).await)
    }

    async fn unlock(
        &self,
        request: Request<lock::UnlockRequest>,
    ) -> Result<Response<lock::UnlockResponse>, Status> {
        let (caller, request) = open(request);
        pack(self.0.unlock(&caller, request).await)
    }
}

#[async_trait]
impl election::election_server::Election for Grpc {
    async fn campaign(
        &self,
        request: Request<election::CampaignRequest>,
    ) -> Result<Response<election::CampaignResponse>, Status> {
        let (caller, request) = open(request);
        pack(self.0.campaign(caller, request).await)
    }

    async fn proclaim(
        &self,
        request: Request<election::ProclaimRequest>,
    ) -> Result<Response<election::ProclaimResponse>, Status> {
        let (caller, request) = open(request);
        pack(self.0.proclaim(&caller, request).await)
    }

    async fn leader(
        &self,
        request: Request<election::LeaderRequest>,
    ) -> Result<Response<election::LeaderResponse>, Status> {
        let (caller, request) = open(request);
        pack(self.0.leader(&caller, request).await)
    }

    async fn observe(
        &self,
        request: Request<election::LeaderRequest>,
    ) -> Result<Response<BoxStream<election::LeaderResponse>>, Status> {
        let (caller, request) = open(request);
        Ok(stream(self.0.observe(caller, request).await?))
    }

    async fn resign(
        &self,
        request: Request<election::ResignRequest>,
    ) -> Result<Response<election::ResignResponse>, Status> {
        let (caller, request) = open(request);
        pack(self.0.resign(&caller, request).await)
    }
}
