//! `harmony members`: who belongs to the cluster.

use std::process::ExitCode;

use clap::Args;

use crate::client::table::Table;
use crate::client::{self, ClientArgs, ClientError, json};
use crate::proto::etcdserverpb::{Member, MemberListRequest};

/// The command with its options.
#[derive(Args, Debug)]
pub(crate) struct MembersArgs {
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs the command.
///
/// # Errors
/// [`ClientError`].
pub(crate) fn run(args: MembersArgs, earlier: ClientArgs) -> Result<ExitCode, ClientError> {
    let options = args.client.or(earlier);
    let (client, output) = (options.client()?, options.output());
    let request = MemberListRequest { linearizable: true };
    let response =
        client::block_on(client.read(async |channel| client::cluster(channel).member_list(request).await))?;
    output.print(&json::Members::from(&response), |out| {
        let mut table = Table::new(&["ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"]);
        for member in &response.members {
            table.push(row(member));
        }
        table.write(out)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A member that never started has told nobody its name.
fn row(member: &Member) -> Vec<String> {
    vec![
        format!("{:x}", member.id),
        if member.name.is_empty() { "unstarted" } else { "started" }.to_owned(),
        member.name.clone(),
        member.peer_ur_ls.join(","),
        member.client_ur_ls.join(","),
        member.is_learner.to_string(),
    ]
}
