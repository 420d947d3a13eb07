//! `harmony auth`: whether permissions are asked for.

use std::io;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::client::json::auth as json;
use crate::client::{self, ClientArgs, ClientError, Output};
use crate::proto::etcdserverpb::{AuthDisableRequest, AuthEnableRequest, AuthStatusRequest, ResponseHeader};

/// The command with its options.
#[derive(Args, Debug)]
pub(crate) struct AuthArgs {
    #[command(subcommand)]
    command: AuthCommand,
}

#[derive(Debug, Subcommand)]
enum AuthCommand {
    /// Ask for permissions from now on. Needs a user root with the role root
    Enable(ClientArgs),
    /// Ask for none any longer
    Disable(ClientArgs),
    /// Tell whether permissions are asked for
    Status(ClientArgs),
}

/// Runs the command.
///
/// # Errors
/// [`ClientError`].
pub(crate) fn run(args: AuthArgs, earlier: ClientArgs) -> Result<ExitCode, ClientError> {
    match args.command {
        AuthCommand::Enable(args) => {
            let options = args.or(earlier);
            let call = client::block_on(
                options.client()?.write(async |to| client::auth(to).auth_enable(AuthEnableRequest {}).await),
            )?;
            done(options.output(), call.header.as_ref(), "Authentication Enabled")
        }
        AuthCommand::Disable(args) => {
            let options = args.or(earlier);
            let call = client::block_on(
                options
                    .client()?
                    .write(async |to| client::auth(to).auth_disable(AuthDisableRequest {}).await),
            )?;
            done(options.output(), call.header.as_ref(), "Authentication Disabled")
        }
        AuthCommand::Status(args) => {
            let options = args.or(earlier);
            let call = client::block_on(
                options.client()?.read(async |to| client::auth(to).auth_status(AuthStatusRequest {}).await),
            )?;
            options.output().print(&json::Status::from(&call), |out| {
                writeln!(out, "Authentication Status: {}", call.enabled)?;
                writeln!(out, "AuthRevision: {}", call.auth_revision)
            })?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Ends a command whose answer says no more than that it was done.
///
/// # Errors
/// Standard output cannot be written.
pub(super) fn done(
    output: Output,
    header: Option<&ResponseHeader>,
    text: &str,
) -> Result<ExitCode, ClientError> {
    output.print(&json::Done::new(header), |out: &mut dyn io::Write| writeln!(out, "{text}"))?;
    Ok(ExitCode::SUCCESS)
}
