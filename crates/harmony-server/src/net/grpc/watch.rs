//! The Watch service.

use tokio::sync::mpsc;
use tonic::codegen::{BoxStream, async_trait};
use tonic::{Request, Response, Status, Streaming};

use super::{Grpc, forward, open, stream};
use crate::proto::etcdserverpb as pb;

/// The header by which a client asks for a stream that ends when the cluster has no leader.
const HAS_LEADER: &str = "hasleader";

#[async_trait]
impl pb::watch_server::Watch for Grpc {
    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<BoxStream<pb::WatchResponse>>, Status> {
        let needs_leader = request.metadata().get(HAS_LEADER).is_some_and(|value| value == "true");
        let (caller, requests) = open(request);
        let (sender, receiver) = mpsc::channel(1);
        let watched = self.0.watch(caller, needs_leader, receiver)?;
        tokio::spawn(forward(requests, sender));
        Ok(stream(watched))
    }
}
