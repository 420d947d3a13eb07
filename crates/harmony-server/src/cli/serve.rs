//! `harmony serve`.

use std::fs;
use std::process::ExitCode;

use clap::Args;
use harmony_types::config::ConfigError;

use crate::config::{Config, Options};
use crate::serve::Server;
use crate::shutdown::{self, Reason, Signals};
use crate::telemetry;

/// Exit code for a mistake in flags, environment or file, as clap's.
const USAGE: u8 = 2;

/// Options of the server.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    options: Options,
}

/// Runs the server until it is told to stop.
pub(crate) fn run(args: ServeArgs) -> ExitCode {
    let config = match configure(args.options) {
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

/// Flags and environment, then the file, then the defaults.
fn configure(options: Options) -> Result<Config, ConfigError> {
    let Some(path) = options.config_file.clone() else {
        return Config::new(options);
    };
    let mistake =
        |text: String| ConfigError { mistakes: vec![format!("--config-file {}: {text}", path.display())] };
    let text = fs::read_to_string(&path).map_err(|error| mistake(error.to_string()))?;
    let file = Options::from_toml(&text).map_err(mistake)?;
    Config::new(options.or(file))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_gives_way_to_flags() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("harmony.toml");
        fs::write(&path, "name = 'file'\nmax-txn-ops = 7\n").unwrap();
        let options = Options { config_file: Some(path), name: Some("flag".into()), ..Options::default() };
        let config = configure(options).unwrap();
        assert_eq!((config.name.as_str(), config.txn_ops_max), ("flag", 7));
    }

    #[test]
    fn a_file_that_is_missing_or_wrong_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("harmony.toml");
        let options = Options { config_file: Some(path.clone()), ..Options::default() };
        let missing = configure(options.clone()).unwrap_err().to_string();
        assert!(missing.contains("--config-file") && missing.contains("harmony.toml"), "{missing}");
        fs::write(&path, "nmae = 'x'").unwrap();
        let wrong = configure(options).unwrap_err().to_string();
        assert!(wrong.contains("nmae"), "{wrong}");
    }
}
