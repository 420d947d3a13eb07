//! `harmony serve`.

use std::process::ExitCode;

use clap::Args;

/// Options of the server.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Name of this member, unique in the cluster.
    #[arg(long)]
    name: Option<String>,
}

/// Runs the server until it is told to stop.
pub(crate) fn run(args: ServeArgs) -> ExitCode {
    drop(args.name);
    ExitCode::FAILURE
}
