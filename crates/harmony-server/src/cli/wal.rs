//! `harmony wal`: a write-ahead log that nobody uses, looked at without changing it, or repaired.

mod repair;

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use harmony_types::{HardState, LogBounds, WalError};
use harmony_wal::{DumpOptions, OsFileSystem, VerifyReport};

use crate::client::ClientError;

/// Where a data directory has its log.
const WAL_IN_DATA_DIR: &str = "member/wal";

/// The command with its options.
#[derive(Args, Debug)]
pub(crate) struct WalArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print every record of a log, up to the end or the first damage; nothing is changed
    Dump {
        #[command(flatten)]
        log: LogArgs,
        /// Print so many bytes of each entry's data, in hexadecimal
        #[arg(long, default_value_t = 0, value_name = "BYTES")]
        data_bytes: usize,
    },
    /// Keep what stands before damage, move the rest aside
    ///
    /// Says where the log is damaged, what would be kept and what lost; with --yes does it. Every file that is cut or moved is
    /// kept, whole, in a new directory `repaired-1` (`-2`, ...) of the log. A torn tail is no damage: the next start cuts it.
    ///
    /// A repaired log lacks records that may have been acknowledged. Do not start a member of a cluster on it while the
    /// others have a majority: replace the member. Repair a log that is used alone, or the last copy there is.
    Repair(repair::RepairArgs),
    /// Read and check a whole log; nothing is changed
    Verify {
        #[command(flatten)]
        log: LogArgs,
    },
}

#[derive(Args, Debug)]
struct LogArgs {
    /// A data directory, or the directory of a log; no process may use it
    dir: PathBuf,
}

/// Runs the command. Damage is an error that names file, offset and index.
///
/// # Errors
/// [`ClientError`].
pub(crate) fn run(args: WalArgs) -> Result<ExitCode, ClientError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let result = match args.action {
        Action::Dump { log, data_bytes } => {
            let dir = log.find()?;
            let options = DumpOptions { data_bytes_max: data_bytes };
            harmony_wal::dump(&OsFileSystem, &dir, &mut out, options)
                .map(drop)
                .map_err(|error| refused(&dir, error))
        }
        Action::Repair(args) => repair::run(&args, &mut out),
        Action::Verify { log } => {
            let dir = log.find()?;
            let report = harmony_wal::verify(&OsFileSystem, &dir).map_err(|error| refused(&dir, error))?;
            write_report(&mut out, &dir, &report).map_err(ClientError::output)
        }
    };
    // What stands before the damage comes first.
    out.flush().map_err(ClientError::output)?;
    result.map(|()| ExitCode::SUCCESS)
}

impl LogArgs {
    /// The log's directory.
    fn find(&self) -> Result<PathBuf, ClientError> {
        let in_data_dir = self.dir.join(WAL_IN_DATA_DIR);
        for dir in [in_data_dir, self.dir.clone()] {
            match dir.metadata() {
                Ok(found) if found.is_dir() => return Ok(dir),
                _ => {}
            }
        }
        Err(ClientError::Failed(format!("{} is no directory", self.dir.display())))
    }
}

/// The error for a log that was refused; of a damaged one, with what can be done.
fn refused(dir: &Path, error: WalError) -> ClientError {
    match error {
        WalError::CrcMismatch { .. } | WalError::CorruptRecord { .. } | WalError::MissingSegment { .. } => {
            let dir = dir.display();
            ClientError::Failed(format!(
                "{error}; `harmony wal repair {dir}` shows what a repair would keep and lose"
            ))
        }
        other => other.into(),
    }
}

fn write_report(out: &mut dyn Write, dir: &Path, report: &VerifyReport) -> io::Result<()> {
    let VerifyReport { cluster, node, segments, records, bounds, hard_state, end, torn } = report;
    writeln!(out, "{}: no damage", dir.display())?;
    writeln!(out, "  segments    {segments}, with {records} records")?;
    match node {
        Some(node) => writeln!(out, "  cluster     {cluster}, member {node}")?,
        None => writeln!(out, "  cluster     {cluster}")?,
    }
    writeln!(out, "  entries     {}", entries(bounds))?;
    writeln!(out, "  hard state  {}", state(hard_state))?;
    writeln!(out, "  end         {end}")?;
    match torn {
        Some(torn) => writeln!(
            out,
            "  torn tail   {} bytes at {} of {}, never acknowledged: the next open keeps them aside in {}",
            torn.bytes,
            torn.offset,
            torn.path.display(),
            torn.kept.display()
        ),
        None => Ok(()),
    }
}

fn entries(bounds: &LogBounds) -> String {
    let behind = format!("behind index {} of term {}", bounds.boundary, bounds.boundary_term);
    if bounds.last == bounds.boundary {
        return format!("none, {behind}");
    }
    format!("{} to {}, {behind}", bounds.first(), bounds.last)
}

fn state(state: &HardState) -> String {
    let vote = state.vote.map_or_else(|| "nobody".to_owned(), |node| node.to_string());
    format!("term {}, vote {vote}, commit {}", state.term, state.commit)
}
