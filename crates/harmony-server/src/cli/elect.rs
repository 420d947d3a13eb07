//! `harmony elect`: leads until it is interrupted, or tells who does.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use harmony_types::KeyValue;
use tonic::Streaming;

use super::bytes_of;
use super::signals::Signals;
use super::watch::may_resume;
use crate::client::session::Session;
use crate::client::{self, Client, ClientArgs, ClientError, Output, RESUME_PAUSE, json, output::Part};
use crate::proto::etcdserverpb as pb;
use crate::proto::v3electionpb::{CampaignRequest, LeaderRequest, LeaderResponse};

/// Seconds until others can lead when this process is gone without a word, as `etcdctl` has it.
const TTL_S: i64 = 60;

/// The command with its options.
#[derive(Args, Debug)]
pub(crate) struct ElectArgs {
    /// The election's name
    name: OsString,
    /// What the others are told of this leader
    #[arg(required_unless_present = "listen")]
    value: Option<OsString>,
    /// Only tell who leads, each leader as it comes
    #[arg(long, short)]
    listen: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs the command.
///
/// # Errors
/// [`ClientError`]; leadership is lost.
pub(crate) fn run(args: ElectArgs, earlier: ClientArgs) -> Result<ExitCode, ClientError> {
    let options = args.client.or(earlier);
    let (client, output) = (options.client()?, options.output());
    let name = bytes_of(args.name);
    client::block_on(async {
        let mut signals = Signals::new()?;
        match args.value {
            Some(value) if !args.listen => {
                let mut session = Session::start(&client, TTL_S).await?;
                let request = CampaignRequest {
                    name: name.into(),
                    lease: session.lease(),
                    value: bytes_of(value).into(),
                };
                let led = lead(&client, output, &mut session, &mut signals, request).await;
                // Leadership goes with its lease.
                let resigned = session.close().await;
                led.and(resigned)?;
            }
            _ => tokio::select! {
                ended = observe(&client, output, LeaderRequest { name: name.into() }) => ended?,
                _ = signals.next() => {}
            },
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn lead(
    client: &Client,
    output: Output,
    session: &mut Session,
    signals: &mut Signals,
    request: CampaignRequest,
) -> Result<(), ClientError> {
    // Whoever asks again with the same lease leads already, or has its place in the line.
    let campaign = client.wait(async |to| client::election(to).campaign(request.clone()).await);
    let elected = session.during(async {
        tokio::select! {
            elected = campaign => elected,
            _ = signals.next() => Err(ClientError::Failed("interrupted before it led".to_owned())),
        }
    });
    let elected = elected.await.ok_or_else(expired)??;
    let key = elected.leader.unwrap_or_default().key;
    let request = pb::RangeRequest { key, ..pb::RangeRequest::default() };
    let found = client.read(async |to| client::kv(to).range(request.clone()).await).await?;
    print(output, &found)?;
    session.during(signals.next()).await.ok_or_else(expired)?;
    Ok(())
}

fn expired() -> ClientError {
    ClientError::Failed("elect: session expired".to_owned())
}

fn print(output: Output, found: &pb::RangeResponse) -> Result<(), ClientError> {
    output.print(&json::Range::from(found), |out| {
        found.kvs.iter().try_for_each(|kv| output.key_value(out, kv, Part::Both))
    })
}

/// Prints every leader, and every value of each. When an endpoint goes away the next one is asked.
async fn observe(client: &Client, output: Output, request: LeaderRequest) -> Result<(), ClientError> {
    let mut told: Option<KeyValue> = None;
    loop {
        let mut leaders: Streaming<LeaderResponse> =
            client.wait(async |to| client::election(to).observe(request.clone()).await).await?;
        loop {
            match leaders.message().await {
                // An endpoint that is asked anew begins with who leads now.
                Ok(Some(leader)) if leader.kv == told => {}
                Ok(Some(leader)) => {
                    let kvs = leader.kv.iter().cloned().collect();
                    told = leader.kv;
                    let found =
                        pb::RangeResponse { header: leader.header, kvs, ..pb::RangeResponse::default() };
                    print(output, &found)?;
                }
                Ok(None) => break,
                Err(status) if may_resume(&status) => break,
                Err(status) => {
                    let message = status.message().to_owned();
                    return Err(ClientError::Refused { code: status.code(), message });
                }
            }
        }
        tokio::time::sleep(RESUME_PAUSE).await;
    }
}
