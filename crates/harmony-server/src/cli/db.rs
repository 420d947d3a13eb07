//! `harmony db`: the data of a member that does not run. Its tree is looked at without changing it; [`recover`] makes a new member of it.

mod recover;

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use harmony_storage::{CheckReport, DumpOptions, TreeStats, TreeTable};
use harmony_wal::OsFileSystem;

use crate::client::ClientError;

/// Where a data directory has its tree.
const TREE_IN_DATA_DIR: &str = "member/tree";

/// The command with its options.
#[derive(Args, Debug)]
pub(crate) struct DbArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Read and check a whole tree: pages, records, and that its tables agree; nothing is changed
    Check {
        #[command(flatten)]
        tree: TreeArgs,
    },
    /// Count what a tree holds; nothing is changed
    Stats {
        #[command(flatten)]
        tree: TreeArgs,
    },
    /// Print the rows of a tree, up to the limits or the first damage; nothing is changed
    Dump {
        #[command(flatten)]
        tree: TreeArgs,
        /// Print this table; all of them if not given
        #[arg(long, value_name = "TABLE")]
        table: Option<DumpedTable>,
        /// Print so many rows of each table
        #[arg(long, default_value_t = 1_000)]
        rows: u64,
        /// Print so many bytes of each value
        #[arg(long, default_value_t = 0, value_name = "BYTES")]
        value_bytes: usize,
    },
    /// Make a new cluster of one member out of what one member of a lost majority has; what only the others had is lost
    UnsafeRecover(Box<recover::RecoverArgs>),
}

#[derive(Args, Debug)]
struct TreeArgs {
    /// A data directory, or the directory of a tree; no process may use it
    dir: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DumpedTable {
    /// The newest version of each key
    Latest,
    /// The events, by revision
    Log,
    /// What else belongs to the state machine, by name
    State,
}

/// Runs the command. Damage is an error that names file and page, or table and row.
///
/// # Errors
/// [`ClientError`].
pub(crate) fn run(args: DbArgs) -> Result<ExitCode, ClientError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let result = match args.action {
        Action::Check { tree } => {
            let dir = tree.find()?;
            let report = harmony_storage::check(&OsFileSystem, &dir)?;
            write_report(&mut out, &dir, &report).map_err(ClientError::output)
        }
        Action::Stats { tree } => {
            let dir = tree.find()?;
            let stats = harmony_storage::stats(&OsFileSystem, &dir)?;
            writeln!(out, "{}", dir.display())
                .and_then(|()| write_stats(&mut out, &stats))
                .map_err(ClientError::output)
        }
        Action::Dump { tree, table, rows, value_bytes } => {
            let dir = tree.find()?;
            let tables = table.map_or_else(|| TreeTable::ALL.to_vec(), |table| vec![table.into()]);
            let options = DumpOptions { tables, rows_max: rows, value_bytes_max: value_bytes };
            harmony_storage::dump(&OsFileSystem, &dir, &mut out, &options).map_err(ClientError::from)
        }
        Action::UnsafeRecover(args) => recover::run(*args, &mut out),
    };
    // What stands before the damage comes first.
    out.flush().map_err(ClientError::output)?;
    result.map(|()| ExitCode::SUCCESS)
}

impl From<DumpedTable> for TreeTable {
    fn from(table: DumpedTable) -> Self {
        match table {
            DumpedTable::Latest => Self::Latest,
            DumpedTable::Log => Self::Log,
            DumpedTable::State => Self::State,
        }
    }
}

impl TreeArgs {
    /// The tree's directory.
    fn find(&self) -> Result<PathBuf, ClientError> {
        let in_data_dir = self.dir.join(TREE_IN_DATA_DIR);
        for dir in [in_data_dir, self.dir.clone()] {
            match dir.metadata() {
                Ok(found) if found.is_dir() => return Ok(dir),
                _ => {}
            }
        }
        Err(ClientError::Failed(format!("{} is no directory", self.dir.display())))
    }
}

fn write_report(out: &mut dyn Write, dir: &Path, report: &CheckReport) -> io::Result<()> {
    let CheckReport { stats, used_pages, torn_pages } = report;
    writeln!(out, "{}: no damage", dir.display())?;
    write_stats(out, stats)?;
    write!(out, "  checked     {used_pages} pages in use")?;
    match torn_pages {
        0 => writeln!(out),
        torn => writeln!(out, "; {torn} free ones were cut by a crash, which is no damage"),
    }
}

fn write_stats(out: &mut dyn Write, stats: &TreeStats) -> io::Result<()> {
    let TreeStats { cluster, applied, revision, compacted, .. } = stats;
    match stats.node {
        Some(node) => writeln!(out, "  cluster     {cluster}, member {node}")?,
        None => writeln!(out, "  cluster     {cluster}")?,
    }
    writeln!(out, "  applied     index {} of term {}", applied.index, applied.term)?;
    match compacted.0 {
        0 => writeln!(out, "  revision    {revision}, never compacted")?,
        _ => writeln!(out, "  revision    {revision}, compacted at {compacted}")?,
    }
    writeln!(out, "  keys        {}, and {} deleted ones in the history", stats.keys, stats.tombstones)?;
    writeln!(out, "  history     {} events", stats.events)?;
    writeln!(out, "  state       {} rows of leases, users, roles and alarms", stats.state_rows)?;
    writeln!(out, "  live bytes  {}", stats.live_bytes)?;
    writeln!(
        out,
        "  file bytes  {}, {} pages of which {} are free",
        stats.file_bytes, stats.pages, stats.free_pages
    )
}
