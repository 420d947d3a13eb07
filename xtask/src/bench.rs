//! Our crates beside their peers. The peers are compiled by packages outside of the workspace, so that nobody who uses
//! our crates compiles, audits or downloads them.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the package lies that knows the log's peers.
const WAL_PEERS: &str = "bench/wal-peers";

/// The workloads that wait for the disk, which a journal may slow down.
const SYNCED: &str = "w1,w64,gc16";

/// What is compared.
#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// The log beside raft-engine, okaywal and a raw file.
    Wal(WalBench),
}

/// Options of `bench wal`.
#[derive(clap::Args)]
pub(crate) struct WalBench {
    /// Where to write, on the disk that is to be measured. A directory is made in it, and removed.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How often everything is measured.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Short measurements, to see that it works: the figures mean little.
    #[arg(long)]
    quick: bool,
    /// Afterwards also on an ext4 with a journal, in an image file behind a loop device; needs root.
    #[arg(long)]
    ext4: bool,
    /// Only these workloads.
    #[arg(long)]
    only: Option<String>,
    /// Only these peers, by a part of their names.
    #[arg(long)]
    peers: Option<String>,
    /// Write every sample here, and those of `--ext4` beside it.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Builds what is needed and runs it.
///
/// # Errors
/// A peer cannot be built, or a measurement failed.
pub(crate) fn run(bench: &Bench) -> Result<(), Box<dyn Error>> {
    match bench {
        Bench::Wal(options) => wal(options),
    }
}

fn wal(options: &WalBench) -> Result<(), Box<dyn Error>> {
    let target = cargo_metadata::MetadataCommand::new().current_dir(crate::root()?).no_deps().exec()?;
    let target = target.target_directory.into_std_path_buf().join("wal-peers");
    let package = crate::root()?.join(WAL_PEERS);
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--target-dir"]).arg(&target).current_dir(&package);
    execute(&mut cargo)?;

    let program = target.join("release/wal-peers");
    let dir = options.dir.clone().unwrap_or(target);
    let mut bench = Command::new(&program);
    bench.arg("--dir").arg(&dir);
    measure(bench, options, options.only.as_deref(), options.json.as_deref())?;
    if !options.ext4 {
        return Ok(());
    }
    println!();
    let mut bench = Command::new(package.join("on-ext4.sh"));
    bench.arg(&dir).arg(&program).arg("--journaled");
    let json = options.json.as_ref().map(|path| path.with_extension("ext4.json"));
    measure(bench, options, Some(SYNCED), json.as_deref())
}

fn measure(
    mut bench: Command,
    options: &WalBench,
    only: Option<&str>,
    json: Option<&Path>,
) -> Result<(), Box<dyn Error>> {
    bench.args(["--rounds", &options.rounds.to_string()]);
    if options.quick {
        bench.arg("--quick");
    }
    for (flag, value) in [("--only", only), ("--peers", options.peers.as_deref())] {
        bench.args(value.iter().flat_map(|value| [flag, value]));
    }
    if let Some(json) = json {
        bench.arg("--json").arg(json);
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    bench.env("WAL_PEERS_COMMAND", format!("cargo xtask {}", words.join(" ")));
    bench.env("WAL_PEERS_COMMIT", commit().unwrap_or_else(|| "unknown".to_owned()));
    execute(&mut bench)
}

/// The commit that is checked out, and whether the files differ from it.
fn commit() -> Option<String> {
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .current_dir(crate::root().ok()?)
        .output();
    let text = String::from_utf8(output.ok()?.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn execute(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|error| format!("{name}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name}: {status}").into()) }
}
