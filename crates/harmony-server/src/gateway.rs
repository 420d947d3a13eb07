//! The JSON gateway (ETCD API, section 15): each RPC as a POST of JSON, streams as a line of JSON a message.
//!
//! A request is turned into protobuf by its descriptor, goes through the same services as one that came over gRPC, and its
//! answer is turned back. So nothing is decided here: what an RPC does, refuses and counts is the same on both ways.
//!
//! Reading order: [`paths`] (which path is which RPC), [`schema`] (JSON to protobuf and back), [`codec`] (protobuf through the
//! services), [`answer`] (what a client sees), this file (one request).

mod answer;
mod codec;
mod paths;
mod schema;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use axum::routing::any;
use bytes::{Bytes, BytesMut};
use prost_reflect::MethodDescriptor;
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::tokio_stream::{self, StreamExt as _};
use tonic::metadata::{MetadataKey, MetadataMap};
use tonic::{Code, Status};

use crate::net::services::Services;
use codec::Through;
use schema::Schema;

/// JSON and base64 take more bytes than what they stand for.
const JSON_EXPANSION: usize = 4;

/// Messages of a stream that are read ahead.
const MESSAGES_AHEAD: usize = 16;

/// Headers that begin so go on as metadata, without it.
const METADATA_PREFIX: &str = "grpc-metadata-";

/// The gateway in front of the services.
#[derive(Clone)]
pub(crate) struct Gateway {
    services: Services,
    schema: Arc<Schema>,
    body_bytes_max: usize,
}

impl Gateway {
    /// A gateway to these services, for messages of at most so many bytes.
    pub(crate) fn new(services: Services, message_bytes_max: usize) -> Self {
        Self {
            services,
            schema: Arc::new(Schema::new()),
            body_bytes_max: message_bytes_max.saturating_mul(JSON_EXPANSION),
        }
    }

    /// All its paths.
    pub(crate) fn router(self) -> Router {
        Router::new().route("/v3/{*path}", any(serve)).with_state(self)
    }

    async fn unary(&self, method: &MethodDescriptor, request: Request) -> Result<Response, Status> {
        let metadata = metadata(request.headers());
        let body = to_bytes(request.into_body(), self.body_bytes_max).await;
        let body = body.map_err(|error| Status::resource_exhausted(format!("request body: {error}")))?;
        let message = schema::encode(&method.input(), &body)?;
        let through = Through::new(self.services.clone(), method);
        let message = through.unary(message, metadata).await?;
        Ok(answer::one(schema::decode(&method.output(), message)?))
    }

    /// An answer whose messages come one after the other.
    async fn stream(&self, method: &MethodDescriptor, request: Request) -> Result<Response, Status> {
        let metadata = metadata(request.headers());
        let (sender, requests) = mpsc::channel(MESSAGES_AHEAD);
        let reader = Reader { method: method.clone(), sender, bytes_max: self.body_bytes_max };
        tokio::spawn(reader.run(request.into_body()));
        let through = Through::new(self.services.clone(), method);
        // What is wrong with a message ends the requests, and is told in place of an answer.
        let (wrong, mut is_wrong) = mpsc::channel::<Status>(1);
        let requests = ReceiverStream::new(requests).map_while(move |message| match message {
            Ok(message) => Some(message),
            Err(status) => {
                // It has room for the only one.
                let _full = wrong.try_send(status);
                None
            }
        });
        let messages = through.streaming(requests, metadata).await;
        if let Ok(status) = is_wrong.try_recv() {
            return Err(status);
        }
        let output = method.output();
        let messages = messages?.map(move |message| schema::decode(&output, message?));
        // Or behind it, when it began before.
        let wrong = std::iter::from_fn(move || is_wrong.try_recv().ok());
        Ok(answer::lines(messages.chain(tokio_stream::iter(wrong).map(Err))))
    }
}

/// Takes messages out of a request's body as they arrive.
struct Reader {
    method: MethodDescriptor,
    sender: mpsc::Sender<Result<Bytes, Status>>,
    bytes_max: usize,
}

impl Reader {
    async fn run(self, body: Body) {
        if let Err(status) = self.read(body).await {
            // Nobody listens when the answer has ended.
            let _gone = self.sender.send(Err(status)).await;
        }
    }

    async fn read(&self, body: Body) -> Result<(), Status> {
        let mut pieces = body.into_data_stream();
        let mut buffer = BytesMut::new();
        let mut is_empty = true;
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| Status::cancelled(format!("request body: {error}")))?;
            buffer.extend_from_slice(&piece);
            while let Some(message) = schema::take(&self.method.input(), &mut buffer)? {
                is_empty = false;
                if self.sender.send(Ok(message)).await.is_err() {
                    return Ok(());
                }
            }
            if self.bytes_max < buffer.len() {
                return Err(Status::resource_exhausted("request body: a message is too large"));
            }
        }
        if buffer.iter().any(|byte| !byte.is_ascii_whitespace()) {
            // Says what is wrong with it.
            schema::encode(&self.method.input(), &buffer)?;
        }
        // No body at all is an empty message, as for any other RPC.
        if is_empty {
            let _gone = self.sender.send(Ok(Bytes::new())).await;
        }
        Ok(())
    }
}

async fn serve(State(gateway): State<Gateway>, request: Request) -> Response {
    let Some(method) = gateway.schema.method(request.uri().path()) else {
        return answer::refused(&Status::not_found("Not Found"));
    };
    if request.method() != Method::POST {
        return answer::refused(&Status::unimplemented("Method Not Allowed"));
    }
    let answered = if method.is_server_streaming() {
        gateway.stream(method, request).await
    } else {
        gateway.unary(method, request).await
    };
    answered.unwrap_or_else(|status| answer::refused(&status))
}

/// What a request says of itself besides its message: the token, and what is to go on to the services.
fn metadata(headers: &HeaderMap) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    for (name, value) in headers {
        let name = match name.as_str() {
            "authorization" => "authorization",
            name => match name.strip_prefix(METADATA_PREFIX) {
                Some(name) => name,
                None => continue,
            },
        };
        // Names that gRPC keeps for itself, and bytes that are no text, are not passed on.
        let name = MetadataKey::from_bytes(name.as_bytes()).ok().filter(|_| !name.starts_with("grpc-"));
        let value = value.to_str().ok().and_then(|value| value.parse().ok());
        if let (Some(name), Some(value)) = (name, value) {
            metadata.append(name, value);
        }
    }
    metadata
}

/// What a status is in HTTP.
const fn http_status(code: Code) -> u16 {
    match code {
        Code::Ok => 200,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::ResourceExhausted => 429,
        Code::Cancelled => 499,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_and_marked_headers_go_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "token"),
            ("grpc-metadata-hasleader", "true"),
            ("grpc-metadata-grpc-timeout", "1S"),
            ("content-type", "application/json"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let metadata = metadata(&headers);
        assert_eq!(metadata.get("authorization").unwrap(), "token");
        assert_eq!(metadata.get("hasleader").unwrap(), "true");
        assert_eq!(metadata.len(), 2);
    }
}
