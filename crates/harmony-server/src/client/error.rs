//! What can go wrong with a client command, in one line each.

use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use harmony_types::{StorageError, WalError};
use tonic::{Code, Status};

use super::Endpoint;
use crate::telemetry;

/// Exit code for a wrong command line, as the argument parser uses it.
const EXIT_USAGE: u8 = 2;

/// A failed command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The command line, or what was read from standard input, makes no sense.
    #[error("{0}")]
    Usage(String),
    /// No endpoint could be connected; each with its reason.
    #[error("no endpoint answers: {0}")]
    Unreachable(String),
    /// Connected and sent, but not answered in time.
    #[error("{endpoint}: no answer within {after:?}{}", unknown(*write))]
    Timeout { endpoint: String, after: Duration, write: bool },
    /// The connection broke before the answer.
    #[error("{endpoint}: connection lost: {reason}{}", unknown(*write))]
    Lost { endpoint: String, reason: String, write: bool },
    /// The server's answer is an error.
    #[error("{message}")]
    Refused { code: Code, message: String },
    /// The command's work cannot be done.
    #[error("{0}")]
    Failed(String),
    /// A log that is damaged, or that cannot be read.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// A tree that is damaged, or that cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A local file, terminal or pipe.
    #[error("{action}: {source}")]
    Io { action: &'static str, source: io::Error },
}

/// What a user must know about a write that was not answered.
fn unknown(write: bool) -> &'static str {
    if write { " (it may have been applied all the same)" } else { "" }
}

impl ClientError {
    /// The error for a status that a server, or the connection in its place, answered with.
    pub(crate) fn from_status(endpoint: &Endpoint, write: bool, status: &Status) -> Self {
        match status.source() {
            // Made by our own transport: the server said nothing.
            Some(source) => Self::Lost { endpoint: endpoint.to_string(), reason: innermost(source), write },
            None if status.message().is_empty() => {
                Self::Refused { code: status.code(), message: format!("{endpoint}: {}", status.code()) }
            }
            None => Self::Refused { code: status.code(), message: status.message().to_owned() },
        }
    }

    /// Writing the answer failed.
    pub(crate) fn output(source: io::Error) -> Self {
        Self::Io { action: "write the answer", source }
    }
}

/// The message at the end of an error's chain of sources: the one that says what happened.
pub(crate) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Ends a command: 0, or one line on standard error and 1 (2 for a wrong command line). A reader that closed our output
/// (`harmony get … | head`) is not an error.
pub(crate) fn finish(result: Result<ExitCode, ClientError>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(
            ClientError::Io { source, .. }
            | ClientError::Wal(WalError::Io { source, .. })
            | ClientError::Storage(StorageError::Io { source, .. }),
        ) if source.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::say(format_args!("error: {error}"));
            match error {
                ClientError::Usage(_) => ExitCode::from(EXIT_USAGE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_without_an_answer_says_that_it_may_have_happened() {
        let after = Duration::from_secs(5);
        let lost = |write| ClientError::Timeout { endpoint: "h:1".into(), after, write }.to_string();
        assert_eq!(lost(true), "h:1: no answer within 5s (it may have been applied all the same)");
        assert_eq!(lost(false), "h:1: no answer within 5s");
    }

    #[test]
    fn a_server_error_is_told_in_its_own_words() {
        let endpoint = Endpoint::parse("h:1").unwrap();
        let status = Status::invalid_argument("etcdserver: key is not provided");
        let error = ClientError::from_status(&endpoint, true, &status);
        assert_eq!(error.to_string(), "etcdserver: key is not provided");
        let silent = ClientError::from_status(&endpoint, false, &Status::new(Code::Internal, ""));
        assert_eq!(silent.to_string(), "h:1: Internal error");
    }
}
