//! `harmony get`.

use std::io;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::client::{self, ClientArgs, ClientError, Output, json, output::Part};
use crate::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::proto::etcdserverpb::{RangeRequest, RangeResponse};

use super::KeyArgs;

/// The command with its options.
#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    get: GetOptions,
    #[command(flatten)]
    client: ClientArgs,
}

/// What one get is, also as a line of a transaction.
#[derive(Args, Debug)]
pub(crate) struct GetOptions {
    #[command(flatten)]
    keys: KeyArgs,
    /// Read at this revision instead of the newest
    #[arg(long, value_name = "REVISION", default_value_t = 0)]
    rev: i64,
    /// At most so many keys; 0 for all
    #[arg(long, default_value_t = 0)]
    limit: i64,
    /// Order of the keys
    #[arg(long, value_enum, ignore_case = true)]
    order: Option<Order>,
    /// What to sort by
    #[arg(long, value_enum, ignore_case = true)]
    sort_by: Option<SortBy>,
    /// Leave the values out
    #[arg(long, conflicts_with = "print_value_only")]
    keys_only: bool,
    /// Only count the keys
    #[arg(long, conflicts_with_all = ["print_value_only", "keys_only"])]
    count_only: bool,
    /// Print values without their keys
    #[arg(long)]
    print_value_only: bool,
    /// l: linearizable, the newest state; s: serializable, what the server asked knows, without a quorum
    #[arg(long, value_enum, default_value = "l")]
    consistency: Consistency,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
enum Order {
    Ascend,
    Descend,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
enum SortBy {
    Key,
    Version,
    Create,
    Modify,
    Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Consistency {
    L,
    S,
}

/// Runs the command.
///
/// # Errors
/// [`ClientError`].
pub(crate) fn run(args: GetArgs, earlier: ClientArgs) -> Result<ExitCode, ClientError> {
    let options = args.client.or(earlier);
    let (client, output) = (options.client()?, options.output());
    let (part, count_only) = (args.get.part(), args.get.count_only);
    let request = args.get.into_request();
    let response =
        client::block_on(client.read(async |channel| client::kv(channel).range(request.clone()).await))?;
    output.print(&json::Range::from(&response), |out| {
        if count_only {
            writeln!(out, "{}", response.count)
        } else {
            write_text(output, out, &response, part)
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the keys and values of an answer as lines.
///
/// # Errors
/// As the writer.
pub(super) fn write_text(
    output: Output,
    out: &mut dyn io::Write,
    response: &RangeResponse,
    part: Part,
) -> io::Result<()> {
    response.kvs.iter().try_for_each(|kv| output.key_value(out, kv, part))
}

impl GetOptions {
    fn part(&self) -> Part {
        match (self.print_value_only, self.keys_only) {
            (true, _) => Part::Value,
            (false, true) => Part::Key,
            (false, false) => Part::Both,
        }
    }

    /// The request. Asking for an order without saying of what orders by key; asking to sort without an order sorts
    /// ascending.
    pub(super) fn into_request(self) -> RangeRequest {
        let order = match (self.order, self.sort_by) {
            (None, None) => SortOrder::None,
            (Some(Order::Descend), _) => SortOrder::Descend,
            (Some(Order::Ascend), _) | (None, Some(_)) => SortOrder::Ascend,
        };
        let target = match self.sort_by {
            None | Some(SortBy::Key) => SortTarget::Key,
            Some(SortBy::Version) => SortTarget::Version,
            Some(SortBy::Create) => SortTarget::Create,
            Some(SortBy::Modify) => SortTarget::Mod,
            Some(SortBy::Value) => SortTarget::Value,
        };
        let range = self.keys.into_range();
        RangeRequest {
            key: range.key,
            range_end: range.end,
            limit: self.limit,
            revision: self.rev,
            sort_order: order.into(),
            sort_target: target.into(),
            serializable: self.consistency == Consistency::S,
            keys_only: self.keys_only,
            count_only: self.count_only,
            ..RangeRequest::default()
        }
    }
}
