//! `harmony wal repair`: tells what a repair would keep and lose, and does it when told to.

use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use harmony_types::{LogIndex, WalError};
use harmony_wal::{Cut, Lost, OsFileSystem, RepairOptions, RepairPlan};

use super::{LogArgs, entries, refused, state};
use crate::client::ClientError;

/// The command with its options.
#[derive(Args, Debug)]
pub(super) struct RepairArgs {
    #[command(flatten)]
    log: LogArgs,
    /// Do it; without, nothing is changed
    #[arg(long)]
    yes: bool,
    /// With --yes: go on though the log's first segments are lost, even if nothing of it is left
    #[arg(long)]
    accept_lost_beginning: bool,
}

/// Runs the command; damage that is not repaired is an error.
///
/// # Errors
/// [`ClientError`].
pub(super) fn run(args: &RepairArgs, out: &mut dyn Write) -> Result<(), ClientError> {
    let dir = args.log.find()?;
    let fs = &OsFileSystem;
    let Some(plan) = harmony_wal::plan_repair(fs, &dir)? else {
        return writeln!(out, "{}: no damage, nothing to repair", dir.display()).map_err(ClientError::output);
    };
    write_plan(out, &dir, &plan).and_then(|()| out.flush()).map_err(ClientError::output)?;
    let missing = match (args.yes, plan.beginning_lost && !args.accept_lost_beginning) {
        (true, false) => None,
        (true, true) => Some("--accept-lost-beginning"),
        (false, false) => Some("--yes"),
        (false, true) => Some("--yes --accept-lost-beginning"),
    };
    if let Some(missing) = missing {
        return Err(ClientError::Failed(format!(
            "nothing was changed; to repair the log as said, add {missing}"
        )));
    }
    let options = RepairOptions { accept_lost_beginning: args.accept_lost_beginning };
    let done = harmony_wal::repair(fs, &dir, options).map_err(|error| interrupted(&dir, error))?;
    let Some(done) = done else {
        return Err(ClientError::Failed(format!(
            "{}: somebody else repaired the log meanwhile",
            dir.display()
        )));
    };
    writeln!(out, "repaired; what was cut and moved is kept, whole files, in {}", done.kept_in.display())
        .map_err(ClientError::output)
}

/// A repair that failed on its way: nothing is lost, and it can be done again.
fn interrupted(dir: &Path, error: WalError) -> ClientError {
    match error {
        WalError::Io { .. } => ClientError::Failed(format!(
            "{error}; the repair was not finished and no byte is lost: what it had cut is in the newest directory \
             {}/repaired-*; remove the cause and repair again",
            dir.display()
        )),
        other => refused(dir, other),
    }
}

fn write_plan(out: &mut dyn Write, dir: &Path, plan: &RepairPlan) -> io::Result<()> {
    writeln!(out, "{}: damaged", dir.display())?;
    for damage in &plan.damage {
        writeln!(out, "  damage      {damage}")?;
    }
    match &plan.kept {
        Some(kept) => {
            writeln!(out, "  keeps       entries {}", entries(&kept.bounds))?;
            writeln!(
                out,
                "              {}, with {} records",
                count(kept.segments, "segment"),
                kept.records
            )?;
            writeln!(out, "              hard state {}", state(&kept.hard_state))?;
        }
        None => {
            writeln!(out, "  keeps       nothing: no segment opens, and the next start makes an empty log")?
        }
    }
    for cut in &plan.cut {
        write_cut(out, cut)?;
    }
    write_lost(out, plan)?;
    if plan.beginning_lost && plan.kept.is_some() {
        writeln!(
            out,
            "  beginning   lost: the kept log begins later, and no record says that what is missing was released"
        )?;
    }
    let (Some(cluster), Some(node)) = (plan.cluster, plan.node) else { return Ok(()) };
    writeln!(
        out,
        "  member      {node} of cluster {cluster}: it may have acknowledged or voted for what it will not know any more.\n\
         \x20             Do not start it on the repaired log beside members that have a majority: they could lose what\n\
         \x20             they committed. Replace it by a new member. Repair only the last copy there is."
    )
}

fn write_cut(out: &mut dyn Write, cut: &Cut) -> io::Result<()> {
    let Cut { path, offset, bytes, records, entries } = cut;
    let name = path.file_name().unwrap_or(path.as_os_str()).display();
    match offset {
        0 => write!(out, "  moves       {name}, {}", count(*bytes, "byte"))?,
        _ => write!(out, "  cuts        {name} from byte {offset} on, {}", count(*bytes, "byte"))?,
    }
    match records {
        0 => writeln!(out, ", without a whole record"),
        _ => writeln!(out, ", with {}{}", count(*records, "whole record"), range(*entries)),
    }
}

fn write_lost(out: &mut dyn Write, plan: &RepairPlan) -> io::Result<()> {
    let Lost { records, entries, synced, hard_state, stale_from } = &plan.lost;
    let behind = match &plan.kept {
        Some(kept) if !plan.beginning_lost => format!("everything behind index {}: ", kept.bounds.last),
        _ => String::new(),
    };
    write!(out, "  loses       {behind}{}{}", count(*records, "whole record"), range(*entries))?;
    writeln!(out, ", and what is damaged or missing itself")?;
    match synced {
        true => writeln!(out, "              some of it had certainly been synced, and so acknowledged")?,
        false => writeln!(out, "              nothing tells whether any of it had been synced")?,
    }
    if let Some(newest) = hard_state {
        writeln!(out, "              the newest hard state: {}", state(newest))?;
    }
    match (stale_from, &plan.kept) {
        (Some(from), Some(kept)) => writeln!(
            out,
            "  stale       entries {from} to {}: what is lost had replaced them",
            kept.bounds.last
        ),
        _ => Ok(()),
    }
}

fn range(entries: Option<(LogIndex, LogIndex)>) -> String {
    match entries {
        None => String::new(),
        Some((first, last)) if first == last => format!(", entry {first}"),
        Some((first, last)) => format!(", entries {first} to {last}"),
    }
}

fn count(number: impl TryInto<u64>, what: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
