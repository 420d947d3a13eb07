//! Encoded messages through the services, as a gRPC client in the same process would send them.

use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use prost_reflect::MethodDescriptor;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Status, Streaming};

use crate::net::services::Services;

/// One RPC of the services.
pub(super) struct Through {
    grpc: Grpc<Services>,
    path: PathAndQuery,
}

impl Through {
    pub(super) fn new(services: Services, method: &MethodDescriptor) -> Self {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        Self {
            // An answer was made in this process: it is as large as it is.
            grpc: Grpc::new(services).max_decoding_message_size(usize::MAX),
            path: path.parse().expect("names of protobuf are paths"),
        }
    }

    pub(super) async fn unary(mut self, message: Bytes, metadata: MetadataMap) -> Result<Bytes, Status> {
        let request = Request::from_parts(metadata, Extensions::default(), message);
        Ok(self.grpc.unary(request, self.path, Whole).await?.into_inner())
    }

    pub(super) async fn streaming(
        mut self,
        messages: impl Stream<Item = Bytes> + Send + 'static,
        metadata: MetadataMap,
    ) -> Result<Streaming<Bytes>, Status> {
        let request = Request::from_parts(metadata, Extensions::default(), messages);
        Ok(self.grpc.streaming(request, self.path, Whole).await?.into_inner())
    }
}

/// Messages that stay encoded.
struct Whole;

impl Codec for Whole {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Whole {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(message);
        Ok(())
    }
}

impl Decoder for Whole {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
