//! `harmony members`: who belongs to the cluster, and changes of that.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::client::table::Table;
use crate::client::{self, ClientArgs, ClientError, json};
use crate::proto::etcdserverpb as pb;

/// The command with its options.
#[derive(Args, Debug)]
pub(crate) struct MembersArgs {
    #[command(subcommand)]
    command: Option<MembersCommand>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Subcommand)]
enum MembersCommand {
    /// Show the members: what the command does without another word
    List(ClientArgs),
    /// Add a member, which is to be started then with what this prints
    ///
    /// It begins as a learner and votes once it has caught up; with --learner it stays a learner.
    Add {
        /// The name that it will be started with
        name: String,
        /// Where the others reach it, separated by commas
        #[arg(long, value_delimiter = ',', required = true, value_name = "URLS")]
        peer_urls: Vec<String>,
        /// It does not vote until it is promoted
        #[arg(long)]
        learner: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Remove a member; its id does not come back
    Remove(Named),
    /// Tell where a member is reached from now on
    Update {
        /// The member's id, as the list shows it
        #[arg(value_parser = parse_id)]
        id: u64,
        /// Where the others reach it, separated by commas
        #[arg(long, value_delimiter = ',', required = true, value_name = "URLS")]
        peer_urls: Vec<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Let a learner vote
    Promote(Named),
}

#[derive(Args, Debug)]
struct Named {
    /// The member's id, as the list shows it
    #[arg(value_parser = parse_id)]
    id: u64,
    #[command(flatten)]
    client: ClientArgs,
}

fn parse_id(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16)
        .map_err(|_| "an id has up to 16 hexadecimal digits, as the list shows it".to_owned())
}

/// Runs the command.
///
/// # Errors
/// [`ClientError`].
pub(crate) fn run(args: MembersArgs, earlier: ClientArgs) -> Result<ExitCode, ClientError> {
    let earlier = args.client.or(earlier);
    match args.command {
        None => list(&earlier),
        Some(MembersCommand::List(client)) => list(&client.or(earlier)),
        Some(MembersCommand::Add { name, peer_urls, learner, client }) => {
            add(&name, peer_urls, learner, &client.or(earlier))
        }
        Some(MembersCommand::Remove(Named { id, client })) => {
            let options = client.or(earlier);
            let request = pb::MemberRemoveRequest { id };
            let call = async |channel| client::cluster(channel).member_remove(request).await;
            let answer = client::block_on(options.client()?.write(call))?;
            let members = json::Members::new(answer.header.as_ref(), None, &answer.members);
            done(&options, &members, id, "removed from", answer.header.as_ref())
        }
        Some(MembersCommand::Update { id, peer_urls, client }) => {
            let options = client.or(earlier);
            let request = pb::MemberUpdateRequest { id, peer_ur_ls: peer_urls };
            let call = async |channel| client::cluster(channel).member_update(request).await;
            let answer = client::block_on(options.client()?.write(call))?;
            let members = json::Members::new(answer.header.as_ref(), None, &answer.members);
            done(&options, &members, id, "updated in", answer.header.as_ref())
        }
        Some(MembersCommand::Promote(Named { id, client })) => {
            let options = client.or(earlier);
            let request = pb::MemberPromoteRequest { id };
            let call = async |channel| client::cluster(channel).member_promote(request).await;
            let answer = client::block_on(options.client()?.write(call))?;
            let members = json::Members::new(answer.header.as_ref(), None, &answer.members);
            done(&options, &members, id, "promoted in", answer.header.as_ref())
        }
    }
}

fn list(options: &ClientArgs) -> Result<ExitCode, ClientError> {
    let (client, output) = (options.client()?, options.output());
    let request = pb::MemberListRequest { linearizable: true };
    let response =
        client::block_on(client.read(async |channel| client::cluster(channel).member_list(request).await))?;
    output.print(&json::Members::new(response.header.as_ref(), None, &response.members), |out| {
        let mut table = Table::new(&["ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"]);
        for member in &response.members {
            table.push(row(member));
        }
        table.write(out)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn add(
    name: &str,
    peer_urls: Vec<String>,
    learner: bool,
    options: &ClientArgs,
) -> Result<ExitCode, ClientError> {
    let request = pb::MemberAddRequest { peer_ur_ls: peer_urls, is_learner: learner };
    let call = async |channel| client::cluster(channel).member_add(request).await;
    let answer = client::block_on(options.client()?.write(call))?;
    let added = answer.member.clone().unwrap_or_default();
    let members = json::Members::new(answer.header.as_ref(), answer.member.as_ref(), &answer.members);
    options.output().print(&members, |out| {
        writeln!(out, "{}\n", line(added.id, "added to", answer.header.as_ref()))?;
        let pairs = |member: &pb::Member| {
            let name = match member.name.as_str() {
                _ if member.id == added.id => name.to_owned(),
                // It has told nobody yet; any name does, as long as it is one.
                "" => format!("{:x}", member.id),
                known => known.to_owned(),
            };
            member.peer_ur_ls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>()
        };
        let cluster: Vec<String> = answer.members.iter().flat_map(pairs).collect();
        writeln!(out, "ETCD_NAME=\"{name}\"")?;
        writeln!(out, "ETCD_INITIAL_CLUSTER=\"{}\"", cluster.join(","))?;
        writeln!(out, "ETCD_INITIAL_ADVERTISE_PEER_URLS=\"{}\"", added.peer_ur_ls.join(","))?;
        writeln!(out, "ETCD_INITIAL_CLUSTER_STATE=\"existing\"")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Ends a command that changed one member.
fn done(
    options: &ClientArgs,
    members: &json::Members<'_>,
    id: u64,
    what: &str,
    header: Option<&pb::ResponseHeader>,
) -> Result<ExitCode, ClientError> {
    options.output().print(members, |out| writeln!(out, "{}", line(id, what, header)))?;
    Ok(ExitCode::SUCCESS)
}

/// What `etcdctl` says.
fn line(id: u64, what: &str, header: Option<&pb::ResponseHeader>) -> String {
    let cluster = header.map_or(0, |header| header.cluster_id);
    format!("Member {id:>16x} {what} cluster {cluster:>16x}")
}

/// A member that never started has told nobody its name.
fn row(member: &pb::Member) -> Vec<String> {
    vec![
        format!("{:x}", member.id),
        if member.name.is_empty() { "unstarted" } else { "started" }.to_owned(),
        member.name.clone(),
        member.peer_ur_ls.join(","),
        member.client_ur_ls.join(","),
        member.is_learner.to_string(),
    ]
}
