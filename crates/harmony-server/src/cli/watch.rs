//! `harmony watch`: prints changes as they come, in the lines of `etcdctl watch`, until it is interrupted.

use std::io;
use std::process::ExitCode;

use clap::Args;
use harmony_types::EventType;
use tonic::codegen::tokio_stream::{self, StreamExt as _};
use tonic::{Code, Status};

use crate::client::{self, Client, ClientArgs, ClientError, Output, RESUME_PAUSE, json, output::Part};
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use crate::telemetry;

use super::KeyArgs;

/// The command with its options.
#[derive(Args, Debug)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    keys: KeyArgs,
    /// The first revision to print, past or future; 0 for the next one
    #[arg(long, value_name = "REVISION", default_value_t = 0)]
    rev: i64,
    /// Print what was replaced, too
    #[arg(long)]
    prev_kv: bool,
    /// Be told by the server now and then how far it is
    #[arg(long)]
    progress_notify: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs the command. When an endpoint goes away the watch goes on at the next one where it was.
///
/// # Errors
/// [`ClientError`]; no endpoint can be connected any more, or the server canceled the watch.
pub(crate) fn run(args: WatchArgs, earlier: ClientArgs) -> Result<ExitCode, ClientError> {
    let options = args.client.or(earlier);
    let (client, output) = (options.client()?, options.output());
    let range = args.keys.into_range();
    let request = WatchCreateRequest {
        key: range.key,
        range_end: range.end,
        start_revision: args.rev,
        prev_kv: args.prev_kv,
        progress_notify: args.progress_notify,
        ..WatchCreateRequest::default()
    };
    client::block_on(watch(&client, output, request))?;
    Ok(ExitCode::FAILURE)
}

async fn watch(client: &Client, output: Output, mut request: WatchCreateRequest) -> Result<(), ClientError> {
    loop {
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(request.clone())) };
        let mut responses = client
            .read(async |connection| {
                let requests = tokio_stream::once(create.clone()).chain(tokio_stream::pending());
                client::watch(connection).watch(requests).await
            })
            .await?;
        loop {
            match responses.message().await {
                Ok(Some(response)) => {
                    print(output, &response)?;
                    if response.canceled {
                        return Err(ClientError::Failed("watch is canceled by the server".to_owned()));
                    }
                    request.start_revision = next_revision(request.start_revision, &response);
                }
                Ok(None) => break,
                Err(status) if may_resume(&status) => break,
                Err(status) => {
                    return Err(ClientError::Refused {
                        code: status.code(),
                        message: status.message().to_owned(),
                    });
                }
            }
        }
        tokio::time::sleep(RESUME_PAUSE).await;
    }
}

/// Where to go on after a response: behind all that was told.
fn next_revision(next: i64, response: &WatchResponse) -> i64 {
    let told = response.events.last().and_then(|event| event.kv.as_ref()).map(|kv| kv.mod_revision);
    let newest = response.header.as_ref().map_or(0, |header| header.revision);
    match told {
        Some(told) => told + 1,
        // Nothing is missing up to here: a progress notice, or the beginning of a watch of what is to come.
        None if !response.created || next == 0 => next.max(newest + 1),
        None => next,
    }
}

/// As etcd's client: the connection broke, or the server says that another may serve.
pub(super) fn may_resume(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Internal) || std::error::Error::source(status).is_some()
}

fn print(output: Output, response: &WatchResponse) -> Result<(), ClientError> {
    let is_progress = response.events.is_empty() && !response.created && !response.canceled;
    if response.canceled {
        telemetry::say(format_args!("watch was canceled ({})", reason(response)));
    }
    if output.json && response.created && !response.canceled {
        return Ok(());
    }
    output.print(&json::Watch::from(response), |out| {
        if is_progress {
            let revision = response.header.as_ref().map_or(0, |header| header.revision);
            writeln!(out, "progress notify: {revision}")?;
        }
        response.events.iter().try_for_each(|event| write_event(output, out, event))
    })
}

/// Why a watch was canceled, in the words of etcd's client.
fn reason(response: &WatchResponse) -> &str {
    if response.compact_revision != 0 {
        "etcdserver: mvcc: required revision has been compacted"
    } else if response.cancel_reason.is_empty() {
        "etcdserver: mvcc: required revision is a future revision"
    } else {
        &response.cancel_reason
    }
}

fn write_event(output: Output, out: &mut dyn io::Write, event: &harmony_types::Event) -> io::Result<()> {
    out.write_all(match event.event_type() {
        EventType::Put => b"PUT\n",
        EventType::Delete => b"DELETE\n",
    })?;
    event.prev_kv.iter().chain(&event.kv).try_for_each(|kv| output.key_value(out, kv, Part::Both))
}

#[cfg(test)]
mod tests {
    use harmony_types::{Event, KeyValue};

    use super::*;
    use crate::proto::etcdserverpb::ResponseHeader;

    #[test]
    fn a_watch_goes_on_behind_what_was_told() {
        let header = Some(ResponseHeader { revision: 9, ..ResponseHeader::default() });
        let created = WatchResponse { header, created: true, ..WatchResponse::default() };
        assert_eq!(next_revision(0, &created), 10);
        assert_eq!(next_revision(3, &created), 3, "what is older is still to come");
        let kv = KeyValue { mod_revision: 5, ..KeyValue::default() };
        let event = Event { kv: Some(kv), ..Event::default() };
        let events = WatchResponse { header, events: vec![event], ..WatchResponse::default() };
        assert_eq!(next_revision(3, &events), 6);
        let progress = WatchResponse { header, ..WatchResponse::default() };
        assert_eq!((next_revision(6, &progress), next_revision(20, &progress)), (10, 20));
    }
}
