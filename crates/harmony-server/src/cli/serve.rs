//! `harmony serve`.

use std::env;
use std::process::ExitCode;

use clap::Args;

use crate::config::Config;
use crate::config::sources::Flags;
use crate::serve::Server;
use crate::shutdown::{self, Reason, Signals};
use crate::telemetry;

/// Exit code for a mistake in flags, environment or file, as clap's.
const USAGE: u8 = 2;

/// Options of the server.
#[derive(Debug, Args)]
// As in Go's programs, the last of a flag that is repeated counts.
#[command(args_override_self = true)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    flags: Flags,
}

/// Runs the server until it is told to stop.
pub(crate) fn run(args: ServeArgs) -> ExitCode {
    let config = match args.flags.configure(environment()) {
        Ok(config) => config,
        Err(error) => {
            for mistake in error.mistakes {
                telemetry::say(format_args!("error: {mistake}"));
            }
            telemetry::say("\nFor all options, try 'harmony serve --help'.");
            return ExitCode::from(USAGE);
        }
    };
    telemetry::init(config.log_level, config.log_format);
    match serve(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::say(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// The variables that are text.
fn environment() -> impl Iterator<Item = (String, String)> {
    env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn serve(config: &Config) -> Result<(), Box<dyn std::error::Error>> {
    let signals = Signals::new()?;
    let server = Server::start(config)?;
    match signals.wait(&server, config.disk_timeout) {
        Reason::Signal(name) => {
            tracing::info!(signal = name, "stopping");
            server.stop()?;
            tracing::info!("stopped");
            Ok(())
        }
        Reason::Failure(failure) => {
            tracing::error!(%failure, "the server cannot go on");
            // What is on disk is in doubt: nothing more is written, not even to close in order. Recovery sorts it out.
            std::mem::forget(server);
            Err(format!("{failure}; nothing was acknowledged after that: remove the cause and start again")
                .into())
        }
        Reason::DiskHangs(waited) => {
            let failure = format!(
                "the log has been waiting for the disk of {} for {} s: it hangs",
                config.data_dir.display(),
                waited.as_secs()
            );
            shutdown::end_without_disk(server, move || {
                tracing::error!(%failure, "the server cannot go on");
                telemetry::say(format_args!(
                    "error: {failure}; nothing was acknowledged meanwhile: see to the disk and start again (--disk-timeout)"
                ));
            })
        }
    }
}
