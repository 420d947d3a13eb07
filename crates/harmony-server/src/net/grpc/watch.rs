//! The Watch service.

use tokio::sync::mpsc;
use tonic::codegen::{BoxStream, async_trait};
use tonic::{Request, Response, Status, Streaming};

use super::{Grpc, forward, needs_leader, open, stream};
use crate::proto::etcdserverpb as pb;

#[async_trait]
impl pb::watch_server::Watch for Grpc {
    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<BoxStream<pb::WatchResponse>>, Status> {
        let needs_leader = needs_leader(request.metadata().as_ref());
        let (caller, requests) = open(request);
        let (sender, receiver) = mpsc::channel(1);
        let watched = self.0.watch(caller, needs_leader, receiver)?;
        tokio::spawn(forward(requests, sender));
        Ok(stream(watched))
    }
}
