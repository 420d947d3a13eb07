//! `harmony del`.

use std::io;
use std::process::ExitCode;

use clap::Args;

use crate::client::{self, ClientArgs, ClientError, Output, json, output::Part};
use crate::proto::etcdserverpb::{DeleteRangeRequest, DeleteRangeResponse};

use super::KeyArgs;

/// The command with its options.
#[derive(Args, Debug)]
pub(crate) struct DelArgs {
    #[command(flatten)]
    del: DelOptions,
    #[command(flatten)]
    client: ClientArgs,
}

/// What one delete is, also as a line of a transaction.
#[derive(Args, Debug)]
pub(crate) struct DelOptions {
    #[command(flatten)]
    keys: KeyArgs,
    /// Print the keys with their values from before, too
    #[arg(long)]
    prev_kv: bool,
}

/// Runs the command.
///
/// # Errors
/// [`ClientError`].
pub(crate) fn run(args: DelArgs, earlier: ClientArgs) -> Result<ExitCode, ClientError> {
    let options = args.client.or(earlier);
    let (client, output) = (options.client()?, options.output());
    let request = args.del.into_request();
    let response =
        client::block_on(client.write(async |channel| client::kv(channel).delete_range(request).await))?;
    output.print(&json::Delete::from(&response), |out| write_text(output, out, &response))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the answer to a delete as lines: how many, then the previous keys and values if they were asked for.
///
/// # Errors
/// As the writer.
pub(super) fn write_text(
    output: Output,
    out: &mut dyn io::Write,
    response: &DeleteRangeResponse,
) -> io::Result<()> {
    writeln!(out, "{}", response.deleted)?;
    response.prev_kvs.iter().try_for_each(|kv| output.key_value(out, kv, Part::Both))
}

impl DelOptions {
    /// The request.
    pub(super) fn into_request(self) -> DeleteRangeRequest {
        let range = self.keys.into_range();
        DeleteRangeRequest { key: range.key, range_end: range.end, prev_kv: self.prev_kv }
    }
}
