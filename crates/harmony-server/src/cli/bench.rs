//! `harmony bench`: how fast an etcd-compatible endpoint is, and what it costs the server.
//!
//! A closed loop: each client sends its next request when the former was answered. The load generator often shares a
//! machine with the server, so it is built to cost little: one thread, HTTP/2 without a gRPC stack on top, requests
//! patched from a template.

mod clients;
mod connection;
mod process;
mod report;
mod workload;

use std::process::ExitCode;
use std::rc::Rc;

use bytes::Bytes;
use clap::{Args, Subcommand};

use crate::client::{self, Client, ClientArgs, ClientError};
use crate::proto::etcdserverpb::RangeRequest;

use clients::{Plan, Tally};
use process::Processes;
use report::Report;
use workload::{Kind, Shape, Workload};

/// The command with its options.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    kind: KindArgs,
}

#[derive(Debug, Subcommand)]
enum KindArgs {
    /// Write keys
    Put(PutArgs),
    /// Read single keys
    Get(GetArgs),
    /// Read ranges of neighbouring keys
    Range(RangeArgs),
    /// Run transactions: if the key exists read it and write it, else write it
    Txn(PutArgs),
}

/// Options of every benchmark.
#[derive(Args, Debug)]
struct LoadArgs {
    /// Requests in all
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    total: u64,
    /// Clients, each with one request under way
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: u32,
    /// Connections that the clients share, spread over the endpoints
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Size of a key in bytes
    #[arg(long, default_value_t = 32, value_name = "BYTES")]
    key_size: usize,
    /// Size of a value in bytes
    #[arg(long, default_value_t = 256, value_name = "BYTES")]
    value_size: usize,
    /// How many different keys
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    keys: u64,
    /// Take the keys in order instead of at random
    #[arg(long)]
    sequential: bool,
    /// Decides the random order and the values: the same seed, the same requests
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Process of the server on this machine, to measure its CPU time and memory; repeat it for several
    #[arg(long, value_name = "PROCESS ID")]
    pid: Vec<u32>,
}

#[derive(Args, Debug)]
struct PutArgs {
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// Options of the benchmarks that read.
#[derive(Args, Debug)]
struct ReadArgs {
    /// Let the server answer from what it knows, without a quorum
    #[arg(long)]
    serializable: bool,
    /// Do not write missing keys first
    #[arg(long)]
    no_load: bool,
}

#[derive(Args, Debug)]
struct GetArgs {
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args, Debug)]
struct RangeArgs {
    /// Keys in a range
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    range_size: u64,
    /// At most so many keys in an answer; 0 for all
    #[arg(long, default_value_t = 0)]
    limit: i64,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs the command. Ctrl-C ends it early and prints what was measured so far.
///
/// # Errors
/// [`ClientError`]; failed requests are counted, not errors of the command.
pub(crate) fn run(args: BenchArgs, earlier: ClientArgs) -> Result<ExitCode, ClientError> {
    let (kind, load_first, load, client) = match args.kind {
        KindArgs::Put(PutArgs { load, client }) => (Kind::Put, false, load, client),
        KindArgs::Txn(PutArgs { load, client }) => (Kind::Txn, false, load, client),
        KindArgs::Get(GetArgs { read, load, client }) => {
            (Kind::Get { serializable: read.serializable }, !read.no_load, load, client)
        }
        KindArgs::Range(RangeArgs { range_size, limit, read, load, client }) => {
            let kind = Kind::Range { serializable: read.serializable, size: range_size, limit };
            (kind, !read.no_load, load, client)
        }
    };
    let options = client.or(earlier);
    let client = options.client()?;
    let shape = load.shape()?;
    let processes = Processes::new(load.pid.clone())?;
    let workload = Workload::new(kind, shape)?;
    let report = client::block_on(tokio::task::LocalSet::new().run_until(async {
        if load_first {
            preload(&client, &load, shape).await?;
        }
        measure(&client, &load, workload, &processes).await
    }))?;
    options.output().print(&report, |out| report.write(out))?;
    Ok(if report.all_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl LoadArgs {
    fn shape(&self) -> Result<Shape, ClientError> {
        let shape =
            Shape { key_size: self.key_size, value_size: self.value_size, keys: self.keys, seed: self.seed };
        shape.check().map_err(ClientError::Usage)?;
        Ok(shape)
    }

    fn plan(&self, client: &Client, total: u64, sequential: bool) -> Plan {
        Plan {
            endpoints: client.endpoints().to_vec(),
            connections: self.connections.min(self.clients) as usize,
            clients: self.clients as usize,
            total,
            keys: self.keys,
            sequential,
            seed: self.seed,
            dial_timeout: client.dial_timeout(),
            request_timeout: client.command_timeout(),
        }
    }
}

/// Writes all keys of the key space unless they are there.
async fn preload(client: &Client, load: &LoadArgs, shape: Shape) -> Result<(), ClientError> {
    let request = RangeRequest {
        key: shape.key(0),
        range_end: shape.key(shape.keys),
        count_only: true,
        ..RangeRequest::default()
    };
    let answer = client.read(async |channel| client::kv(channel).range(request.clone()).await).await?;
    if answer.count.unsigned_abs() >= shape.keys {
        return Ok(());
    }
    let workload = Rc::new(Workload::new(Kind::Put, shape)?);
    let tally = clients::run(&load.plan(client, shape.keys, true), workload, "loading").await?;
    match (tally.first_error(), tally.interrupted) {
        (Some(error), _) => Err(ClientError::Failed(format!("loading the keys: {error}"))),
        (None, true) => Err(ClientError::Failed("interrupted while loading the keys".to_owned())),
        (None, false) => Ok(()),
    }
}

async fn measure(
    client: &Client,
    load: &LoadArgs,
    workload: Workload,
    processes: &Processes,
) -> Result<Report, ClientError> {
    let (name, plan) = (workload.name(), load.plan(client, load.total, load.sequential));
    let before = processes.sample()?;
    let tally: Tally = clients::run(&plan, Rc::new(workload), name).await?;
    // A server that died meanwhile has no figures; the measured requests stay interesting.
    let servers = processes.sample().map(|after| before.until(&after)).unwrap_or_default();
    Ok(Report::new(name, &plan, load.key_size, load.value_size, &tally, servers))
}

/// A frame of a gRPC message: not compressed, its length, the message.
fn frame(message: &impl prost::Message) -> Bytes {
    let length = u32::try_from(message.encoded_len()).expect("a request is smaller than 4 GiB");
    let mut frame = Vec::with_capacity(5 + message.encoded_len());
    frame.push(0);
    frame.extend_from_slice(&length.to_be_bytes());
    message.encode(&mut frame).expect("a vector grows");
    frame.into()
}
