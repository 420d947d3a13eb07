//! What a client of the gateway sees.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde::Serialize;
use tonic::Status;
use tonic::codegen::tokio_stream::{Stream, StreamExt as _};

use super::http_status;

const JSON: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];

/// A refusal, as etcd 3.6 writes it.
#[derive(Serialize)]
struct Refusal<'a> {
    code: i32,
    message: &'a str,
    details: [(); 0],
}

impl<'a> Refusal<'a> {
    fn of(status: &'a Status) -> Self {
        Self { code: status.code() as i32, message: status.message(), details: [] }
    }
}

/// The last line of a stream that ended with a refusal.
#[derive(Serialize)]
struct LastLine<'a> {
    error: Refusal<'a>,
}

/// An answer of one message.
pub(super) fn one(json: Vec<u8>) -> Response {
    (JSON, json).into_response()
}

/// A refusal in place of an answer.
pub(super) fn refused(status: &Status) -> Response {
    let code = StatusCode::from_u16(http_status(status.code())).expect("the table has codes of HTTP");
    (code, JSON, text(&Refusal::of(status))).into_response()
}

/// An answer of a line a message.
pub(super) fn lines(messages: impl Stream<Item = Result<Vec<u8>, Status>> + Send + 'static) -> Response {
    let lines = messages.map(|message| {
        let mut line = match message {
            Ok(json) => [&br#"{"result":"#[..], &json, b"}"].concat(),
            Err(status) => text(&LastLine { error: Refusal::of(&status) }),
        };
        line.push(b'\n');
        Ok::<_, Infallible>(Bytes::from(line))
    });
    (JSON, Body::from_stream(lines)).into_response()
}

fn text(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("it has only text and numbers")
}
