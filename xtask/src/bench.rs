//! Our crates beside their peers. The peers are compiled by packages outside of the workspace, so that nobody who uses
//! our crates compiles, audits or downloads them.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the packages lie that know the peers.
const PACKAGES: &str = "bench";
/// That of the log's, and that of the storage's.
const WAL_PEERS: &str = "wal-peers";
const STORAGE_PEERS: &str = "storage-peers";

/// The workloads that wait for the disk, which a journal may slow down.
const SYNCED: &str = "w1,w64,gc16";

/// What is compared.
#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// The log beside raft-engine, okaywal and a raw file.
    Wal(WalBench),
    /// The storage beside redb used naively.
    Storage(StorageBench),
}

/// Options of every benchmark.
#[derive(clap::Args)]
pub(crate) struct Common {
    /// Where to write, on the disk that is to be measured. A directory is made in it, and removed.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How often everything is measured.
    #[arg(long)]
    rounds: Option<u32>,
    /// Short measurements, to see that it works: the figures mean little.
    #[arg(long)]
    quick: bool,
    /// Only these workloads.
    #[arg(long)]
    only: Option<String>,
    /// Write every sample here.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Options of `bench wal`.
#[derive(clap::Args)]
pub(crate) struct WalBench {
    #[command(flatten)]
    common: Common,
    /// Afterwards also on an ext4 with a journal, in an image file behind a loop device; needs root. Its samples go beside
    /// those of `--json`.
    #[arg(long)]
    ext4: bool,
    /// Only these peers, by a part of their names.
    #[arg(long)]
    peers: Option<String>,
}

/// Options of `bench storage`.
#[derive(clap::Args)]
pub(crate) struct StorageBench {
    #[command(flatten)]
    common: Common,
    /// Keys in a store, at least 100,000.
    #[arg(long)]
    keys: Option<u64>,
    /// Also with ten times as many keys in 512 MiB of memory: takes minutes, and 20 GiB of disk.
    #[arg(long)]
    large: bool,
    /// Cache of each store's tree, MiB.
    #[arg(long)]
    cache_mib: Option<u64>,
    /// Bytes applied before a checkpoint, MiB.
    #[arg(long)]
    memory_mib: Option<u64>,
    /// Segments of the log, MiB.
    #[arg(long)]
    segment_mib: Option<u64>,
}

/// Builds what is needed and runs it.
///
/// # Errors
/// A peer cannot be built, or a measurement failed.
pub(crate) fn run(bench: &Bench) -> Result<(), Box<dyn Error>> {
    match bench {
        Bench::Wal(options) => wal(options),
        Bench::Storage(options) => storage(options),
    }
}

fn wal(options: &WalBench) -> Result<(), Box<dyn Error>> {
    let common = &options.common;
    let built = Built::new(WAL_PEERS)?;
    let peers = options.peers.iter().flat_map(|peers| ["--peers", peers]);
    let dir = common.dir.as_ref().unwrap_or(&built.target);
    let mut bench = Command::new(&built.program);
    bench.arg("--dir").arg(dir).args(peers.clone());
    measure(bench, common, common.only.as_deref(), common.json.as_deref())?;
    if !options.ext4 {
        return Ok(());
    }
    println!();
    let mut bench = Command::new(built.package.join("on-ext4.sh"));
    bench.arg(dir).arg(&built.program).arg("--journaled").args(peers);
    let json = common.json.as_ref().map(|path| path.with_extension("ext4.json"));
    measure(bench, common, Some(SYNCED), json.as_deref())
}

fn storage(options: &StorageBench) -> Result<(), Box<dyn Error>> {
    let common = &options.common;
    let built = Built::new(STORAGE_PEERS)?;
    let mut bench = Command::new(&built.program);
    bench.arg("--dir").arg(common.dir.as_ref().unwrap_or(&built.target));
    let sizes = [
        ("--keys", options.keys),
        ("--cache-mib", options.cache_mib),
        ("--memory-mib", options.memory_mib),
        ("--segment-mib", options.segment_mib),
    ];
    for (flag, size) in sizes {
        if let Some(size) = size {
            bench.args([flag, &size.to_string()]);
        }
    }
    if options.large {
        bench.arg("--large");
    }
    measure(bench, common, common.only.as_deref(), common.json.as_deref())
}

/// A package of benchmarks.
struct Built {
    package: PathBuf,
    target: PathBuf,
    program: PathBuf,
}

impl Built {
    /// Builds it, into a directory of its own under the workspace's target.
    fn new(name: &str) -> Result<Self, Box<dyn Error>> {
        let target = cargo_metadata::MetadataCommand::new().current_dir(crate::root()?).no_deps().exec()?;
        let target = target.target_directory.into_std_path_buf().join(name);
        let package = crate::root()?.join(PACKAGES).join(name);
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--release", "--target-dir"]).arg(&target).current_dir(&package);
        execute(&mut cargo)?;
        Ok(Self { program: target.join("release").join(name), package, target })
    }
}

fn measure(
    mut bench: Command,
    common: &Common,
    only: Option<&str>,
    json: Option<&Path>,
) -> Result<(), Box<dyn Error>> {
    if let Some(rounds) = common.rounds {
        bench.args(["--rounds", &rounds.to_string()]);
    }
    if common.quick {
        bench.arg("--quick");
    }
    if let Some(only) = only {
        bench.args(["--only", only]);
    }
    if let Some(json) = json {
        bench.arg("--json").arg(json);
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    bench.env("BENCH_COMMAND", format!("cargo xtask {}", words.join(" ")));
    bench.env("BENCH_COMMIT", commit().unwrap_or_else(|| "unknown".to_owned()));
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
