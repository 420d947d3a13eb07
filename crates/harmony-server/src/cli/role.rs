//! `harmony role`: roles, and what they permit.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use harmony_types::KeyRange;

use super::KeyArgs;
use super::auth::done;
use crate::client::json::auth as json;
use crate::client::{self, ClientArgs, ClientError};
use crate::proto::authpb::{Permission, permission::Type};
use crate::proto::etcdserverpb as pb;

/// The command with its options.
#[derive(Args, Debug)]
pub(crate) struct RoleArgs {
    #[command(subcommand)]
    command: RoleCommand,
}

#[derive(Debug, Subcommand)]
enum RoleCommand {
    /// Add a role, which permits nothing yet
    Add(Named),
    /// Show what a role permits
    Get(Named),
    /// Show all roles
    List(ClientArgs),
    /// Remove a role, from all users too
    Delete(Named),
    /// Permit something to a role
    GrantPermission {
        /// The role's name
        name: String,
        /// What for
        #[arg(value_name = "TYPE")]
        kind: Kind,
        #[command(flatten)]
        keys: KeyArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Permit it no longer: the keys must be those of one permission
    RevokePermission {
        /// The role's name
        name: String,
        #[command(flatten)]
        keys: KeyArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Read,
    Write,
    Readwrite,
}

#[derive(Args, Debug)]
struct Named {
    /// The role's name
    name: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs the command.
///
/// # Errors
/// [`ClientError`].
pub(crate) fn run(args: RoleArgs, earlier: ClientArgs) -> Result<ExitCode, ClientError> {
    match args.command {
        RoleCommand::Add(args) => {
            let options = args.client.or(earlier);
            let request = pb::AuthRoleAddRequest { name: args.name.clone() };
            let call = async |to| client::auth(to).role_add(request).await;
            let answer = client::block_on(options.client()?.write(call))?;
            done(options.output(), answer.header.as_ref(), &format!("Role {} created", args.name))
        }
        RoleCommand::Get(args) => get(args.name, &args.client.or(earlier)),
        RoleCommand::List(args) => list(&args.or(earlier)),
        RoleCommand::Delete(args) => {
            let options = args.client.or(earlier);
            let request = pb::AuthRoleDeleteRequest { role: args.name.clone() };
            let call = async |to| client::auth(to).role_delete(request).await;
            let answer = client::block_on(options.client()?.write(call))?;
            done(options.output(), answer.header.as_ref(), &format!("Role {} deleted", args.name))
        }
        RoleCommand::GrantPermission { name, kind, keys, client } => {
            let options = client.or(earlier);
            let KeyRange { key, end } = keys.into_range();
            let kind = match kind {
                Kind::Read => Type::Read,
                Kind::Write => Type::Write,
                Kind::Readwrite => Type::Readwrite,
            };
            let text = format!("Role {name} updated");
            let perm = Permission { perm_type: kind.into(), key, range_end: end };
            let request = pb::AuthRoleGrantPermissionRequest { name, perm: Some(perm) };
            let call = async |to| client::auth(to).role_grant_permission(request).await;
            let answer = client::block_on(options.client()?.write(call))?;
            done(options.output(), answer.header.as_ref(), &text)
        }
        RoleCommand::RevokePermission { name, keys, client } => {
            let options = client.or(earlier);
            let range = keys.into_range();
            let what = if range.end.is_empty() { "key" } else { "range" };
            let text = format!("Permission of {what} {} is revoked from role {name}", shown(&range));
            let request =
                pb::AuthRoleRevokePermissionRequest { role: name, key: range.key, range_end: range.end };
            let call = async |to| client::auth(to).role_revoke_permission(request).await;
            let answer = client::block_on(options.client()?.write(call))?;
            done(options.output(), answer.header.as_ref(), &text)
        }
    }
}

fn get(name: String, options: &ClientArgs) -> Result<ExitCode, ClientError> {
    let request = pb::AuthRoleGetRequest { role: name.clone() };
    let call = async |to| client::auth(to).role_get(request.clone()).await;
    let answer = client::block_on(options.client()?.read(call))?;
    options.output().print(&json::Role::from(&answer), |out| {
        writeln!(out, "Role {name}")?;
        for (heading, other) in [("KV Read:", Type::Write), ("KV Write:", Type::Read)] {
            writeln!(out, "{heading}")?;
            let permits = answer.perm.iter().filter(|perm| perm.perm_type != i32::from(other));
            permits.into_iter().try_for_each(|perm| line(out, perm))?;
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn line(out: &mut dyn Write, perm: &Permission) -> io::Result<()> {
    let range = KeyRange { key: perm.key.clone(), end: perm.range_end.clone() };
    write!(out, "\t{}", shown(&range))?;
    if !range.key.is_empty() && range == KeyRange::prefix(&range.key) {
        write!(out, " (prefix {})", String::from_utf8_lossy(&range.key))?;
    }
    writeln!(out)
}

/// A range as `etcdctl` shows it.
fn shown(range: &KeyRange) -> String {
    let text = String::from_utf8_lossy;
    match &range.end[..] {
        [] => text(&range.key).into_owned(),
        [0] => format!("[{}, <open ended>", text(&range.key)),
        end => format!("[{}, {})", text(&range.key), text(end)),
    }
}

fn list(options: &ClientArgs) -> Result<ExitCode, ClientError> {
    let call = async |to| client::auth(to).role_list(pb::AuthRoleListRequest {}).await;
    let answer = client::block_on(options.client()?.read(call))?;
    options.output().print(&json::Names::roles(answer.header.as_ref(), &answer.roles), |out| {
        answer.roles.iter().try_for_each(|role| writeln!(out, "{role}"))
    })?;
    Ok(ExitCode::SUCCESS)
}
