//! `harmony completion` and `harmony version`.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::client::ClientError;
use crate::version;

/// Which shell.
#[derive(Args, Debug)]
pub(crate) struct CompletionArgs {
    /// The shell, as in `source <(harmony completion bash)`
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// Standard output cannot be written.
pub(super) fn run(args: &CompletionArgs, mut command: Command) -> Result<ExitCode, ClientError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "harmony", &mut script);
    io::stdout().write_all(&script).map_err(ClientError::output)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the version of the program, and of the API that it speaks, as `etcdctl version` does.
///
/// # Errors
/// Standard output cannot be written.
pub(super) fn version() -> Result<ExitCode, ClientError> {
    writeln!(io::stdout(), "harmony version: {}\nAPI version: {}", version::PROGRAM, version::API_MINOR)
        .map_err(ClientError::output)?;
    Ok(ExitCode::SUCCESS)
}
