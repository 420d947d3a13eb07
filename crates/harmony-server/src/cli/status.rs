//! `harmony status`: what each endpoint says of itself.

use std::process::ExitCode;

use clap::Args;

use crate::client::table::{self, Table};
use crate::client::{self, Client, ClientArgs, ClientError, json};
use crate::proto::etcdserverpb::{StatusRequest, StatusResponse};

/// The command with its options.
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    client: ClientArgs,
}

/// What one endpoint answered.
type Answer = Result<StatusResponse, ClientError>;

/// Runs the command. An endpoint that does not answer has its line, too; the exit code is 1 then.
///
/// # Errors
/// [`ClientError`].
pub(crate) fn run(args: StatusArgs, earlier: ClientArgs) -> Result<ExitCode, ClientError> {
    let options = args.client.or(earlier);
    let (client, output) = (options.client()?, options.output());
    let answers = client::block_on(ask_all(&client))?;
    let lines = || client.endpoints().iter().zip(&answers);
    let json: Vec<_> = lines()
        .map(|(endpoint, answer)| {
            json::EndpointStatus::new(endpoint.to_string(), answer.as_ref().map_err(reason))
        })
        .collect();
    output.print(&json, |out| {
        let heading =
            ["ENDPOINT", "ID", "VERSION", "DB SIZE", "LEADER", "TERM", "INDEX", "APPLIED", "ERRORS"];
        let mut table = Table::new(&heading);
        for (endpoint, answer) in lines() {
            table.push(row(endpoint.to_string(), answer));
        }
        table.write(out)
    })?;
    Ok(if answers.iter().all(Result::is_ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Asks all endpoints at the same time; the answers are in the endpoints' order.
async fn ask_all(client: &Client) -> Result<Vec<Answer>, ClientError> {
    let ask = |one: Client| async move {
        one.read(async |channel| client::maintenance(channel).status(StatusRequest {}).await).await
    };
    let asked: Vec<_> =
        client.endpoints().iter().map(|endpoint| tokio::spawn(ask(client.only(endpoint)))).collect();
    let mut answers = Vec::with_capacity(asked.len());
    for answer in asked {
        answers.push(answer.await.expect("the task neither panics nor is cancelled"));
    }
    Ok(answers)
}

fn row(endpoint: String, answer: &Answer) -> Vec<String> {
    match answer {
        Ok(status) => vec![
            endpoint,
            status.header.as_ref().map_or_else(String::new, |header| format!("{:x}", header.member_id)),
            status.version.clone(),
            table::size(u64::try_from(status.db_size).unwrap_or(0)),
            leader(status),
            status.raft_term.to_string(),
            status.raft_index.to_string(),
            status.raft_applied_index.to_string(),
            status.errors.join("; "),
        ],
        Err(error) => {
            let mut row = vec![endpoint];
            row.resize(8, String::new());
            row.push(reason(error));
            row
        }
    }
}

/// Why an endpoint has no status; that it is the only one asked needs no words.
fn reason(error: &ClientError) -> String {
    match error {
        ClientError::Unreachable(reason) => reason.clone(),
        other => other.to_string(),
    }
}

/// The leader as this member sees it, and whether it is the member itself.
fn leader(status: &StatusResponse) -> String {
    let own = status.header.as_ref().is_some_and(|header| header.member_id == status.leader);
    match (status.leader, own) {
        (0, _) => "none".to_owned(),
        (_, true) => "self".to_owned(),
        (leader, false) if status.is_learner => format!("{leader:x} (learner here)"),
        (leader, false) => format!("{leader:x}"),
    }
}
