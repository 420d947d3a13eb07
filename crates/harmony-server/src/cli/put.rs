//! `harmony put`.

use std::ffi::OsString;
use std::io::{self, Read};
use std::process::ExitCode;

use clap::Args;

use crate::client::{self, ClientArgs, ClientError, Output, json, output::Part};
use crate::proto::etcdserverpb::{PutRequest, PutResponse};

use super::bytes_of;

/// The command with its options.
#[derive(Args, Debug)]
pub(crate) struct PutArgs {
    #[command(flatten)]
    put: PutOptions,
    #[command(flatten)]
    client: ClientArgs,
}

/// What one put is, also as a line of a transaction.
#[derive(Args, Debug)]
pub(crate) struct PutOptions {
    /// The key
    key: OsString,
    /// The value; read from standard input when absent
    value: Option<OsString>,
    /// Attach the key to this lease (its id in hexadecimal)
    #[arg(long, value_name = "ID", value_parser = parse_lease)]
    lease: Option<i64>,
    /// Print the key with its value from before, too
    #[arg(long)]
    prev_kv: bool,
    /// Keep the value, only change the lease
    #[arg(long)]
    ignore_value: bool,
    /// Keep the lease
    #[arg(long, conflicts_with = "lease")]
    ignore_lease: bool,
}

/// Runs the command.
///
/// # Errors
/// [`ClientError`].
pub(crate) fn run(args: PutArgs, earlier: ClientArgs) -> Result<ExitCode, ClientError> {
    let options = args.client.or(earlier);
    let (client, output) = (options.client()?, options.output());
    let request = args.put.into_request(read_value)?;
    let response = client::block_on(client.write(async |channel| client::kv(channel).put(request).await))?;
    output.print(&json::Put::from(&response), |out| write_text(output, out, &response))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the answer to a put as lines: `OK`, then the previous key and value if there are any.
///
/// # Errors
/// As the writer.
pub(super) fn write_text(output: Output, out: &mut dyn io::Write, response: &PutResponse) -> io::Result<()> {
    writeln!(out, "OK")?;
    match &response.prev_kv {
        Some(kv) => output.key_value(out, kv, Part::Both),
        None => Ok(()),
    }
}

impl PutOptions {
    /// The request; asks `value` for a value that is needed and not given.
    ///
    /// # Errors
    /// [`ClientError::Usage`] for a value that must not be there, else as `value`.
    pub(super) fn into_request(
        self,
        value: impl FnOnce() -> Result<Vec<u8>, ClientError>,
    ) -> Result<PutRequest, ClientError> {
        let value = match (self.value, self.ignore_value) {
            (Some(_), true) => {
                return Err(ClientError::Usage(
                    "--ignore-value keeps the value: give the key alone".to_owned(),
                ));
            }
            (Some(value), false) => bytes_of(value),
            (None, true) => Vec::new(),
            (None, false) => value()?,
        };
        Ok(PutRequest {
            key: bytes_of(self.key).into(),
            value: value.into(),
            lease: self.lease.unwrap_or(0),
            prev_kv: self.prev_kv,
            ignore_value: self.ignore_value,
            ignore_lease: self.ignore_lease,
        })
    }
}

fn read_value() -> Result<Vec<u8>, ClientError> {
    let mut value = Vec::new();
    let read = io::stdin().lock().read_to_end(&mut value);
    read.map_err(|source| ClientError::Io { action: "read the value from standard input", source })?;
    Ok(value)
}

/// Reads a lease id as every command prints it: hexadecimal, with or without `0x`.
///
/// # Errors
/// Says what was expected.
pub(crate) fn parse_lease(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    i64::from_str_radix(digits, 16).map_err(|_| "a lease id is a hexadecimal number".to_owned())
}
