//! `harmony lock`: holds a lock while a command runs, or until it is interrupted.

use std::ffi::OsString;
use std::process::{Child, Command, ExitCode, ExitStatus};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};

use super::bytes_of;
use super::signals::{Signals, Stop};
use crate::client::session::Session;
use crate::client::{self, Client, ClientArgs, ClientError, Output, json, output::Part};
use crate::proto::etcdserverpb as pb;
use crate::proto::v3lockpb::{LockRequest, LockResponse};
use crate::telemetry;

/// Exit code for a command that a signal ended, as `etcdctl` has it.
const EXIT_SIGNAL: u8 = 255;

/// The command with its options.
#[derive(Args, Debug)]
pub(crate) struct LockArgs {
    /// The lock's name
    name: OsString,
    /// What to run while it is held; it finds the key in `ETCD_LOCK_KEY` and its revision in `ETCD_LOCK_REV`. Without one the
    /// key is printed and the lock held until an interrupt
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
    /// Seconds until others can have the lock when this process is gone without a word
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    ttl: i64,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs the command.
///
/// # Errors
/// [`ClientError`]; the lock is lost, or was not had before an interrupt. The exit code is the command's.
pub(crate) fn run(args: LockArgs, earlier: ClientArgs) -> Result<ExitCode, ClientError> {
    let options = args.client.or(earlier);
    let (client, output) = (options.client()?, options.output());
    client::block_on(async {
        // Before the lock: an interrupt releases it from here on.
        let mut signals = Signals::new()?;
        let mut session = Session::start(&client, args.ttl).await?;
        let done =
            hold(&client, output, &mut session, &mut signals, bytes_of(args.name), &args.command).await;
        // The key goes with its lease.
        let released = session.close().await;
        done.and_then(|code| released.map(|()| code))
    })
}

async fn hold(
    client: &Client,
    output: Output,
    session: &mut Session,
    signals: &mut Signals,
    name: Vec<u8>,
    command: &[OsString],
) -> Result<ExitCode, ClientError> {
    let request = LockRequest { name: name.into(), lease: session.lease() };
    // Whoever asks again with the same lease has the lock already, or its place in the line.
    let lock = client.wait(async |to| client::lock(to).lock(request.clone()).await);
    let locked = session.during(async {
        tokio::select! {
            locked = lock => locked,
            _ = signals.next() => Err(ClientError::Failed("interrupted before the lock was there".to_owned())),
        }
    });
    let locked = locked.await.ok_or_else(expired)??;
    if let [program, args @ ..] = command {
        return run_under(&locked, session, signals, program, args).await;
    }
    let request = pb::RangeRequest { key: locked.key, ..pb::RangeRequest::default() };
    let held = client.read(async |to| client::kv(to).range(request.clone()).await).await?;
    let Some(kv) = held.kvs.first() else {
        return Err(ClientError::Failed("lock lost on init".to_owned()));
    };
    output.print(&json::Range::from(&held), |out| output.key_value(out, kv, Part::Both))?;
    session.during(signals.next()).await.ok_or_else(expired)?;
    Ok(ExitCode::SUCCESS)
}

fn expired() -> ClientError {
    ClientError::Failed("session expired".to_owned())
}

/// Runs a program to its end, with or without the lock: it cannot be undone.
async fn run_under(
    locked: &LockResponse,
    session: &mut Session,
    signals: &mut Signals,
    program: &OsString,
    args: &[OsString],
) -> Result<ExitCode, ClientError> {
    use std::os::unix::ffi::OsStrExt as _;

    let revision = locked.header.as_ref().map_or(0, |header| header.revision);
    let child = Command::new(program)
        .args(args)
        .env("ETCD_LOCK_KEY", std::ffi::OsStr::from_bytes(&locked.key))
        .env("ETCD_LOCK_REV", revision.to_string())
        .spawn()
        .map_err(|error| ClientError::Failed(format!("{}: {error}", program.display())))?;
    let ended = wait(child, signals);
    tokio::pin!(ended);
    let (status, is_lost) = match session.during(&mut ended).await {
        Some(status) => (status?, false),
        None => {
            telemetry::say("the lock is lost: its lease is gone, and the command still runs");
            (ended.await?, true)
        }
    };
    let code = status.code().map_or(EXIT_SIGNAL, |code| u8::try_from(code).unwrap_or(EXIT_SIGNAL));
    if code == 0 && is_lost { Err(expired()) } else { Ok(ExitCode::from(code)) }
}

/// Waits for a program's end. A terminal interrupts it by itself; what is sent to this process alone is passed on to it.
async fn wait(mut child: Child, signals: &mut Signals) -> Result<ExitStatus, ClientError> {
    let failed = |source| ClientError::Io { action: "wait for the command", source };
    let pid = Pid::from_child(&child);
    let mut ended = tokio::task::spawn_blocking(move || child.wait());
    loop {
        tokio::select! {
            status = &mut ended => return status.map_err(std::io::Error::from).and_then(|status| status).map_err(failed),
            stop = signals.next() => {
                if stop == Stop::Terminate {
                    // It has just ended then.
                    let _gone = kill_process(pid, Signal::TERM);
                }
            }
        }
    }
}
