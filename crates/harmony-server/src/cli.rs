//! The command line: one subcommand a file. `serve` is the server; the others are clients of any etcd-compatible
//! endpoint, or tools that work on files.

pub(crate) mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A replicated, linearizable, transactional key-value database with the etcd v3 API.
#[derive(Debug, Parser)]
#[command(name = "harmony", version, about, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server.
    Serve(Box<serve::ServeArgs>),
    // Client commands follow: one variant each, its arguments and `run` in `cli/NAME.rs`.
}

impl Cli {
    /// Runs the command; what it returns is the process's exit code. Results go to standard output, everything else to
    /// standard error.
    #[must_use]
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Serve(args) => serve::run(*args),
        }
    }
}
