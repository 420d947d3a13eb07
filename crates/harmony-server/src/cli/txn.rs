//! `harmony txn`: a transaction from standard input, in `etcdctl`'s syntax.

pub(crate) mod syntax;
mod words;

use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use clap::Args;

use crate::client::{self, ClientArgs, ClientError, Output, json, output::Part};
use crate::proto::etcdserverpb::{TxnResponse, response_op::Response};
use crate::telemetry;

use super::{del, get, put};

/// The command with its options.
#[derive(Args, Debug)]
#[command(after_help = "\
Standard input has three blocks, each ended by an empty line: comparisons, which must all hold; what to do then; what \
to do otherwise.

  mod(\"key\") > \"0\"            targets: mod, create, version, value, lease (hexadecimal)
  value(\"key\") = \"text\"       comparisons: = != < >

  put key \"a value\"           put, get and del with the same options as the commands

  get key")]
pub(crate) struct TxnArgs {
    /// Ask for each block
    #[arg(short, long)]
    interactive: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs the command.
///
/// # Errors
/// [`ClientError`]; [`ClientError::Usage`] names the line that cannot be read.
pub(crate) fn run(args: TxnArgs, earlier: ClientArgs) -> Result<ExitCode, ClientError> {
    let options = args.client.or(earlier);
    let (client, output) = (options.client()?, options.output());
    let text = read_blocks(&mut io::stdin().lock(), args.interactive)?;
    let request = syntax::parse(&text).map_err(|error| ClientError::Usage(error.to_string()))?;
    let response = client::block_on(client.write(async |channel| client::kv(channel).txn(request).await))?;
    output.print(&json::Txn::from(&response), |out| write_text(output, out, &response))?;
    Ok(ExitCode::SUCCESS)
}

/// Reads lines up to the empty line that ends the third block, or to the end of the input.
fn read_blocks(input: &mut dyn BufRead, prompt: bool) -> Result<String, ClientError> {
    const PROMPTS: [&str; 3] =
        ["compares:", "success requests (get, put, del):", "failure requests (get, put, del):"];
    let mut text = String::new();
    for title in PROMPTS {
        if prompt {
            telemetry::say(title);
        }
        loop {
            let start = text.len();
            let read = input.read_line(&mut text);
            read.map_err(|source| ClientError::Io {
                action: "read the transaction from standard input",
                source,
            })?;
            if text[start..].trim().is_empty() {
                break;
            }
        }
    }
    Ok(text)
}

/// Writes which branch was taken and each operation's answer, with an empty line before each.
fn write_text(output: Output, out: &mut dyn Write, response: &TxnResponse) -> io::Result<()> {
    writeln!(out, "{}", if response.succeeded { "SUCCESS" } else { "FAILURE" })?;
    for answer in &response.responses {
        writeln!(out)?;
        match &answer.response {
            Some(Response::ResponsePut(response)) => put::write_text(output, out, response)?,
            Some(Response::ResponseRange(response)) => get::write_text(output, out, response, Part::Both)?,
            Some(Response::ResponseDeleteRange(response)) => del::write_text(output, out, response)?,
            Some(Response::ResponseTxn(response)) => write_text(output, out, response)?,
            None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_stops_behind_the_third_block() {
        let mut input = &b"a\nb\n\nc\n\n\nrest\n"[..];
        assert_eq!(read_blocks(&mut input, false).unwrap(), "a\nb\n\nc\n\n\n");
        assert_eq!(input, b"rest\n");
    }

    #[test]
    fn the_end_of_the_input_ends_every_block() {
        assert_eq!(read_blocks(&mut &b"a\n\nc"[..], false).unwrap(), "a\n\nc");
        assert_eq!(read_blocks(&mut &b""[..], false).unwrap(), "");
    }
}
