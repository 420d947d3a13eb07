//! `harmony lease`: leases, in the words of `etcdctl lease`.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use tonic::Code;

use super::auth::done;
use super::put::parse_lease;
use crate::client::json::lease as json;
use crate::client::session::Renewals;
use crate::client::{self, ClientArgs, ClientError};
use crate::proto::etcdserverpb as pb;

/// The command with its options.
#[derive(Args, Debug)]
pub(crate) struct LeaseArgs {
    #[command(subcommand)]
    command: LeaseCommand,
}

#[derive(Debug, Subcommand)]
enum LeaseCommand {
    /// Make a lease
    Grant {
        /// Seconds to live; a server raises it to its least
        #[arg(allow_negative_numbers = true)]
        ttl: i64,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// End a lease, and delete the keys that it holds
    Revoke(Named),
    /// Show what is left of a lease
    Timetolive {
        #[command(flatten)]
        lease: Named,
        /// Show the keys that it holds, too
        #[arg(long)]
        keys: bool,
    },
    /// Show all leases
    List(ClientArgs),
    /// Renew a lease, again and again until it is gone
    KeepAlive {
        #[command(flatten)]
        lease: Named,
        /// Renew it once
        #[arg(long)]
        once: bool,
    },
}

#[derive(Args, Debug)]
struct Named {
    /// The lease's id, hexadecimal
    #[arg(value_name = "LEASE", value_parser = parse_lease, allow_hyphen_values = true)]
    id: i64,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs the command.
///
/// # Errors
/// [`ClientError`].
pub(crate) fn run(args: LeaseArgs, earlier: ClientArgs) -> Result<ExitCode, ClientError> {
    match args.command {
        LeaseCommand::Grant { ttl, client } => grant(ttl, &client.or(earlier)),
        LeaseCommand::Revoke(lease) => {
            let options = lease.client.or(earlier);
            let request = pb::LeaseRevokeRequest { id: lease.id };
            let call = async |to| client::lease(to).lease_revoke(request).await;
            let answer = client::block_on(options.client()?.write(call))?;
            done(options.output(), answer.header.as_ref(), &format!("lease {} revoked", id(lease.id)))
        }
        LeaseCommand::Timetolive { lease, keys } => time_to_live(lease.id, keys, &lease.client.or(earlier)),
        LeaseCommand::List(client) => list(&client.or(earlier)),
        LeaseCommand::KeepAlive { lease, once } => {
            let options = lease.client.or(earlier);
            client::block_on(keep_alive(lease.id, once, &options))
        }
    }
}

/// An id as Go prints it: 16 digits, a sign among them.
fn id(lease: i64) -> String {
    match lease {
        0.. => format!("{lease:016x}"),
        _ => format!("-{:015x}", lease.unsigned_abs()),
    }
}

fn grant(ttl: i64, options: &ClientArgs) -> Result<ExitCode, ClientError> {
    let request = pb::LeaseGrantRequest { id: 0, ttl };
    let call = async |to| client::lease(to).lease_grant(request).await;
    let answer = client::block_on(options.client()?.write(call))?;
    options.output().print(&json::Granted::from(&answer), |out| {
        writeln!(out, "lease {} granted with TTL({}s)", id(answer.id), answer.ttl)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn time_to_live(lease: i64, keys: bool, options: &ClientArgs) -> Result<ExitCode, ClientError> {
    let request = pb::LeaseTimeToLiveRequest { id: lease, keys };
    let call = async |to| client::lease(to).lease_time_to_live(request).await;
    let answer = client::block_on(options.client()?.read(call))?;
    options.output().print(&json::TimeToLive::from(&answer), |out| {
        let lease = id(answer.id);
        if answer.granted_ttl == 0 && answer.ttl == -1 {
            return writeln!(out, "lease {lease} already expired");
        }
        let (granted, left) = (answer.granted_ttl, answer.ttl);
        write!(out, "lease {lease} granted with TTL({granted}s), remaining({left}s)")?;
        if keys {
            let held: Vec<&[u8]> = answer.keys.iter().map(|key| &key[..]).collect();
            out.write_all(b", attached keys([")?;
            out.write_all(&held.join(&b' '))?;
            out.write_all(b"])")?;
        }
        writeln!(out)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn list(options: &ClientArgs) -> Result<ExitCode, ClientError> {
    let call = async |to| client::lease(to).lease_leases(pb::LeaseLeasesRequest {}).await;
    let answer = client::block_on(options.client()?.read(call))?;
    options.output().print(&json::Leases::from(&answer), |out| {
        writeln!(out, "found {} leases", answer.leases.len())?;
        answer.leases.iter().try_for_each(|lease| writeln!(out, "{}", id(lease.id)))
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn keep_alive(lease: i64, once: bool, options: &ClientArgs) -> Result<ExitCode, ClientError> {
    let output = options.output();
    let mut renewals = Renewals::new(options.client()?, lease);
    let tell = |answer: &pb::LeaseKeepAliveResponse| {
        output.print(&json::Renewed::from(answer), |out| {
            writeln!(out, "lease {} keepalived with TTL({})", id(answer.id), answer.ttl)
        })
    };
    if !once {
        renewals.keep(tell).await?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "lease {} expired or revoked.", id(lease)).map_err(ClientError::output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let answer = renewals.renew().await?;
    if answer.ttl <= 0 {
        let message = "etcdserver: requested lease not found".to_owned();
        return Err(ClientError::Refused { code: Code::NotFound, message });
    }
    tell(&answer)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_printed_as_it_is_read() {
        for (lease, text) in
            [(7, "0000000000000007"), (i64::MAX, "7fffffffffffffff"), (-1, "-000000000000001")]
        {
            assert_eq!(id(lease), text);
            assert_eq!(parse_lease(text), Ok(lease));
        }
    }
}
