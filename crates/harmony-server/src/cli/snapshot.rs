//! `harmony snapshot`: backups, and new clusters out of them.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use harmony_storage::{SnapshotSummary, inspect_snapshot};
use serde::Serialize;

use crate::backup::Backup;
use crate::client::table::{self, Table};
use crate::client::{self, Client, ClientArgs, ClientError, Output};
use crate::config::{Config, Options};
use crate::proto::etcdserverpb::SnapshotRequest;
use crate::serve::restore::{self, Changes};

/// The command with its options.
#[derive(Args, Debug)]
pub(crate) struct SnapshotArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Save what a member has applied in a file; the cluster goes on meanwhile
    Save {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Check a backup and say what is in it
    Status {
        /// The file
        file: PathBuf,
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Make the data directory of one member of a new cluster out of a backup; do it for each member, with the same file
    Restore(Box<RestoreArgs>),
}

#[derive(Args, Debug)]
struct RestoreArgs {
    /// The file
    file: PathBuf,
    /// Name of this member, unique in the cluster
    #[arg(long, default_value = "default")]
    name: String,
    /// Directory to make [default: ./harmony.data]
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// All members, as name=URL pairs separated by commas [default: this member alone]
    #[arg(long)]
    initial_cluster: Option<String>,
    /// Text that keeps clusters of the same addresses apart; give a new one
    #[arg(long)]
    initial_cluster_token: Option<String>,
    /// Where other members reach this one [default: http://localhost:2380]
    #[arg(long)]
    initial_advertise_peer_urls: Option<String>,
    /// Take a file whose hash is wrong, or that is a copy of a snapshot without one
    #[arg(long)]
    skip_hash_check: bool,
    /// Add so much to the revision, so that clients of the old cluster meet no revision twice
    #[arg(long, value_name = "COUNT", default_value_t = 0, requires = "mark_compacted")]
    bump_revision: u64,
    /// Give up all history, so that watches of the old cluster's clients end and begin again
    #[arg(long, requires = "bump_revision")]
    mark_compacted: bool,
}

/// Runs the command.
///
/// # Errors
/// [`ClientError`].
pub(crate) fn run(args: SnapshotArgs, earlier: ClientArgs) -> Result<ExitCode, ClientError> {
    match args.action {
        Action::Save { file, client } => save(&client.or(earlier).client()?, &file),
        Action::Status { file, json } => {
            super::no_client(&earlier, "snapshot status").and_then(|()| status(&file, json))
        }
        Action::Restore(args) => {
            super::no_client(&earlier, "snapshot restore").and_then(|()| restore_member(*args))
        }
    }
    .map(|()| ExitCode::SUCCESS)
}

fn save(client: &Client, file: &Path) -> Result<(), ClientError> {
    if client.endpoints().len() != 1 {
        return Err(ClientError::Usage("a snapshot is of one member: give one endpoint".to_owned()));
    }
    let mut unfinished = file.to_owned().into_os_string();
    unfinished.push(".part");
    let unfinished = PathBuf::from(unfinished);
    let saved = client::block_on(receive(client, &unfinished))
        // What arrived is what was sent: the hash that came with it says so.
        .and_then(|()| Backup::open(&unfinished, true).map_err(failed))
        .and_then(|backup| {
            fs::rename(&unfinished, file)
                .map_err(|source| ClientError::Io { action: "name the backup", source })?;
            Ok(backup)
        });
    match saved {
        Ok(backup) => {
            let line = format!("saved {} in {}", table::size(backup.bytes), file.display());
            writeln!(io::stdout(), "{line}").map_err(ClientError::output)
        }
        Err(error) => {
            let _second = fs::remove_file(&unfinished);
            Err(error)
        }
    }
}

async fn receive(client: &Client, file: &Path) -> Result<(), ClientError> {
    let failed = |source| ClientError::Io { action: "write the backup", source };
    let mut stream =
        client.read(async |channel| client::maintenance(channel).snapshot(SnapshotRequest {}).await).await?;
    let endpoint = &client.endpoints()[0];
    let mut out = BufWriter::new(File::create(file).map_err(failed)?);
    while let Some(part) =
        stream.message().await.map_err(|status| ClientError::from_status(endpoint, false, &status))?
    {
        out.write_all(&part.blob).map_err(failed)?;
    }
    out.into_inner().map_err(|error| failed(error.into_error()))?.sync_all().map_err(failed)
}

/// As `etcdutl snapshot status` names it, and what there is more.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    hash: String,
    revision: u64,
    compact_revision: u64,
    total_key: u64,
    total_size: u64,
    events: u64,
    cluster: String,
    raft_index: u64,
    raft_term: u64,
}

impl Status {
    fn new(hash: String, bytes: u64, summary: &SnapshotSummary) -> Self {
        Self {
            hash,
            revision: summary.revision.0,
            compact_revision: summary.compact_revision.0,
            total_key: summary.keys,
            total_size: bytes,
            events: summary.events,
            cluster: summary.cluster.to_string(),
            raft_index: summary.index.0,
            raft_term: summary.term.0,
        }
    }
}

fn status(file: &Path, json: bool) -> Result<(), ClientError> {
    let backup = Backup::open(file, true).map_err(failed)?;
    let (hash, bytes) = (backup.hash.clone(), backup.bytes);
    let summary = inspect_snapshot(backup.into_stream())?;
    let status = Status::new(hash, bytes, &summary);
    Output { json, hex: false }.print(&status, |out| {
        let mut table = Table::new(&["HASH", "REVISION", "COMPACTED", "KEYS", "EVENTS", "SIZE", "CLUSTER"]);
        table.push(vec![
            status.hash[..8].to_owned(),
            status.revision.to_string(),
            status.compact_revision.to_string(),
            status.total_key.to_string(),
            status.events.to_string(),
            table::size(bytes),
            status.cluster.clone(),
        ]);
        table.write(out)
    })
}

fn restore_member(args: RestoreArgs) -> Result<(), ClientError> {
    let options = Options {
        name: Some(args.name),
        data_dir: args.data_dir,
        initial_cluster: args.initial_cluster,
        initial_cluster_token: args.initial_cluster_token,
        initial_advertise_peer_urls: args.initial_advertise_peer_urls,
        ..Options::default()
    };
    let config = Config::new(options).map_err(|error| ClientError::Usage(error.mistakes.join("; ")))?;
    let stream: Box<dyn io::Read + Send> = if args.skip_hash_check {
        let open = File::open(&args.file);
        Box::new(io::BufReader::new(
            open.map_err(|source| ClientError::Io { action: "open the backup", source })?,
        ))
    } else {
        Backup::open(&args.file, true).map_err(failed)?.into_stream()
    };
    let changes = Changes { bump_revision: args.bump_revision, mark_compacted: args.mark_compacted };
    let revision = restore::restore(&config, stream, changes).map_err(failed)?;
    let line = format!(
        "restored member {} of {} at revision {} in {}",
        config.name,
        config.cluster.len(),
        revision.0,
        config.data_dir.display()
    );
    writeln!(io::stdout(), "{line}").map_err(ClientError::output)
}

fn failed(error: impl std::error::Error) -> ClientError {
    ClientError::Failed(error.to_string())
}
