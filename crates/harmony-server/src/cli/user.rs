//! `harmony user`: who may log in, and with which roles.

use std::io;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::auth::done;
use crate::client::json::auth as json;
use crate::client::{self, ClientArgs, ClientError};
use crate::proto::authpb::UserAddOptions;
use crate::proto::etcdserverpb as pb;

/// The command with its options.
#[derive(Args, Debug)]
pub(crate) struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Add a user
    Add {
        /// The name; with a password behind a colon, or the password is the first line of standard input
        #[arg(value_name = "NAME[:PASSWORD]")]
        name: String,
        /// The user gets in by a certificate alone
        #[arg(long)]
        no_password: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show the roles of a user
    Get(Named),
    /// Show all users
    List(ClientArgs),
    /// Remove a user
    Delete(Named),
    /// Replace a password by the first line of standard input
    Passwd(Named),
    /// Give a role to a user
    GrantRole(UserAndRole),
    /// Take a role from a user
    RevokeRole(UserAndRole),
}

#[derive(Args, Debug)]
struct Named {
    /// The user's name
    name: String,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args, Debug)]
struct UserAndRole {
    /// The user's name
    name: String,
    /// The role's name
    role: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs the command.
///
/// # Errors
/// [`ClientError`].
pub(crate) fn run(args: UserArgs, earlier: ClientArgs) -> Result<ExitCode, ClientError> {
    match args.command {
        UserCommand::Add { name, no_password, client } => add(name, no_password, &client.or(earlier)),
        UserCommand::Get(args) => get(args.name, &args.client.or(earlier)),
        UserCommand::List(args) => list(&args.or(earlier)),
        UserCommand::Delete(args) => {
            let options = args.client.or(earlier);
            let request = pb::AuthUserDeleteRequest { name: args.name.clone() };
            let call = async |to| client::auth(to).user_delete(request).await;
            let answer = client::block_on(options.client()?.write(call))?;
            done(options.output(), answer.header.as_ref(), &format!("User {} deleted", args.name))
        }
        UserCommand::Passwd(args) => {
            let options = args.client.or(earlier);
            let (name, password) = (args.name, read_password()?);
            let request = pb::AuthUserChangePasswordRequest { name, password, ..Default::default() };
            let call = async |to| client::auth(to).user_change_password(request).await;
            let answer = client::block_on(options.client()?.write(call))?;
            done(options.output(), answer.header.as_ref(), "Password updated")
        }
        UserCommand::GrantRole(args) => {
            let options = args.client.or(earlier);
            let request = pb::AuthUserGrantRoleRequest { user: args.name.clone(), role: args.role.clone() };
            let call = async |to| client::auth(to).user_grant_role(request).await;
            let answer = client::block_on(options.client()?.write(call))?;
            let text = format!("Role {} is granted to user {}", args.role, args.name);
            done(options.output(), answer.header.as_ref(), &text)
        }
        UserCommand::RevokeRole(args) => {
            let options = args.client.or(earlier);
            let request = pb::AuthUserRevokeRoleRequest { name: args.name.clone(), role: args.role.clone() };
            let call = async |to| client::auth(to).user_revoke_role(request).await;
            let answer = client::block_on(options.client()?.write(call))?;
            let text = format!("Role {} is revoked from user {}", args.role, args.name);
            done(options.output(), answer.header.as_ref(), &text)
        }
    }
}

fn add(given: String, no_password: bool, options: &ClientArgs) -> Result<ExitCode, ClientError> {
    let (name, password) = match given.split_once(':') {
        _ if no_password => (given, String::new()),
        Some((name, password)) => (name.to_owned(), password.to_owned()),
        None => (given, read_password()?),
    };
    let text = format!("User {name} created");
    let request = pb::AuthUserAddRequest {
        name,
        password,
        options: Some(UserAddOptions { no_password }),
        ..pb::AuthUserAddRequest::default()
    };
    let call = async |to| client::auth(to).user_add(request).await;
    let answer = client::block_on(options.client()?.write(call))?;
    done(options.output(), answer.header.as_ref(), &text)
}

fn get(name: String, options: &ClientArgs) -> Result<ExitCode, ClientError> {
    let request = pb::AuthUserGetRequest { name: name.clone() };
    let call = async |to| client::auth(to).user_get(request.clone()).await;
    let answer = client::block_on(options.client()?.read(call))?;
    options.output().print(&json::Names::roles(answer.header.as_ref(), &answer.roles), |out| {
        writeln!(out, "User: {name}")?;
        writeln!(out, "Roles: {}", answer.roles.join(" "))
    })?;
    Ok(ExitCode::SUCCESS)
}

fn list(options: &ClientArgs) -> Result<ExitCode, ClientError> {
    let call = async |to| client::auth(to).user_list(pb::AuthUserListRequest {}).await;
    let answer = client::block_on(options.client()?.read(call))?;
    options.output().print(&json::Names::users(&answer), |out| {
        answer.users.iter().try_for_each(|user| writeln!(out, "{user}"))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A password on the command line would be seen by others on this machine.
fn read_password() -> Result<String, ClientError> {
    let mut line = String::new();
    let read = io::stdin().read_line(&mut line);
    read.map_err(|source| ClientError::Io { action: "read the password from standard input", source })?;
    let password = line.strip_suffix('\n').unwrap_or(&line);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        return Err(ClientError::Usage(
            "no password: give it as the first line of standard input".to_owned(),
        ));
    }
    Ok(password.to_owned())
}
