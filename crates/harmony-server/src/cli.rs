//! The command line: one subcommand a file. `serve` is the server; the others are clients of any etcd-compatible
//! endpoint, or tools that work on files.

mod auth;
mod bench;
mod completion;
mod db;
mod del;
mod elect;
mod get;
mod keys;
mod lease;
mod lock;
mod members;
mod put;
mod role;
pub(crate) mod serve;
mod signals;
mod snapshot;
mod status;
mod txn;
mod user;
mod wal;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::client::{ClientArgs, ClientError, error};
use crate::config::sources;

use keys::{KeyArgs, bytes_of};

/// A replicated, linearizable, transactional key-value database with the etcd v3 API.
#[derive(Debug, Parser)]
#[command(name = "harmony", version, about, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server.
    Serve(Box<serve::ServeArgs>),
    /// Write a key.
    Put(put::PutArgs),
    /// Read a key or a range of keys.
    Get(get::GetArgs),
    /// Delete a key or a range of keys.
    Del(del::DelArgs),
    /// Print changes of a key or a range of keys as they come.
    Watch(watch::WatchArgs),
    /// Run a transaction from standard input.
    Txn(txn::TxnArgs),
    /// Manage leases: keys that go by themselves.
    Lease(lease::LeaseArgs),
    /// Hold a lock, while a command runs or until interrupted.
    Lock(lock::LockArgs),
    /// Take part in an election, or tell who leads.
    Elect(elect::ElectArgs),
    /// Show what each endpoint says of itself.
    Status(status::StatusArgs),
    /// Show the members of the cluster, or change them.
    #[command(alias = "member")]
    Members(members::MembersArgs),
    /// Switch permissions on or off.
    Auth(auth::AuthArgs),
    /// Manage users.
    User(user::UserArgs),
    /// Manage roles, and what they permit.
    Role(role::RoleArgs),
    /// Save a backup, look at one, or make a new cluster out of one.
    Snapshot(snapshot::SnapshotArgs),
    /// Measure an endpoint.
    Bench(bench::BenchArgs),
    /// Look at the write-ahead log of a member that does not run, or repair it.
    Wal(wal::WalArgs),
    /// Look at the tree of a member that does not run, or make a new cluster of it.
    Db(db::DbArgs),
    /// Print a script that completes commands and options in a shell.
    Completion(completion::CompletionArgs),
    /// Print the version.
    Version,
}

impl Cli {
    /// Reads the process's own arguments; ends the process where they make no sense, or ask for help.
    #[must_use]
    pub fn of_process() -> Self {
        Self::parse_from(arguments(std::env::args_os()))
    }

    /// Runs the command; what it returns is the process's exit code. Results go to standard output, everything else to
    /// standard error.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let early = self.client;
        let result = match self.command {
            Command::Serve(args) => match early.first_given() {
                None => return serve::run(*args),
                Some(flag) => {
                    Err(ClientError::Usage(format!("{flag} is an option of clients, not of serve")))
                }
            },
            Command::Put(args) => put::run(args, early),
            Command::Get(args) => get::run(args, early),
            Command::Del(args) => del::run(args, early),
            Command::Watch(args) => watch::run(args, early),
            Command::Txn(args) => txn::run(args, early),
            Command::Lease(args) => lease::run(args, early),
            Command::Lock(args) => lock::run(args, early),
            Command::Elect(args) => elect::run(args, early),
            Command::Status(args) => status::run(args, early),
            Command::Members(args) => members::run(args, early),
            Command::Auth(args) => auth::run(args, early),
            Command::User(args) => user::run(args, early),
            Command::Role(args) => role::run(args, early),
            Command::Snapshot(args) => snapshot::run(args, early),
            Command::Bench(args) => bench::run(args, early),
            Command::Wal(args) => no_client(&early, "wal").and_then(|()| wal::run(args)),
            Command::Db(args) => no_client(&early, "db").and_then(|()| db::run(args)),
            Command::Completion(args) => completion::run(&args, Self::command()),
            Command::Version => completion::version(),
        };
        error::finish(result)
    }
}

/// Arguments as clap takes them: behind `serve`, those of a Go program are understood.
fn arguments(given: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut is_serve = false;
    let rewrite = |argument: OsString| match argument.to_str() {
        Some(text) if is_serve => sources::argument(text).into(),
        Some("serve") => {
            is_serve = true;
            argument
        }
        _ => argument,
    };
    given.into_iter().map(rewrite).collect()
}

/// Refuses options of clients before a command that is none.
fn no_client(early: &ClientArgs, command: &str) -> Result<(), ClientError> {
    match early.first_given() {
        None => Ok(()),
        Some(flag) => Err(ClientError::Usage(format!("{flag} is an option of clients, not of {command}"))),
    }
}
