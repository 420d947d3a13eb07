//! Bytes on disk.

use std::path::Path;
use std::time::Instant;

use harmony_types::CommandKind;
use harmony_types::command::Compact;

use crate::node::{BATCH, Node};
use crate::report::Figures;
use crate::row::{JUST_WRITTEN, OVERWRITTEN};
use crate::{Plan, Result};

const OVERWRITES: u32 = 5;
const MIB: f64 = (1 << 20) as f64;

/// Every key once, as clients write them.
pub fn written(plan: &Plan, dir: &Path) -> Result<Figures> {
    write(&mut Node::open(dir, plan.config.clone())?, plan)
}

fn write(node: &mut Node, plan: &Plan) -> Result<Figures> {
    node.start_checkpoints();
    for first in (0..plan.keys).step_by(BATCH as usize) {
        let entries = node.puts((first..plan.keys.min(first + BATCH)).map(|number| (number, 0)));
        node.write(&entries)?;
    }
    let mut figures = Figures::new();
    let (tree, log) = node.disk_bytes()?;
    figures.push((JUST_WRITTEN, (tree + log) as f64 / MIB));
    figures.push(("of these, MiB of the log, just written", log as f64 / MIB));
    node.settle()?;
    let (tree, log) = node.disk_bytes()?;
    figures.push(("MiB of tree and log, after the next checkpoint", (tree + log) as f64 / MIB));
    figures.push(("of these, MiB of the log", log as f64 / MIB));
    figures.push(("MiB live in the tree, history included", node.storage.live_bytes() as f64 / MIB));
    Ok(figures)
}

/// Every key once; then five times more, compaction, rebuild.
pub fn measure(plan: &Plan, dir: &Path) -> Result<Figures> {
    let mut node = Node::open(dir, plan.config.clone())?;
    let mut figures = write(&mut node, plan)?;
    node.start_checkpoints();
    for generation in 1..=OVERWRITES {
        node.overwrite(plan.keys, generation)?;
    }
    node.settle()?;
    figures.push(("MiB of the tree after 5 overwrites", node.disk_bytes()?.0 as f64 / MIB));
    let revision = node.storage.revision().as_i64();
    let entry = node.command(CommandKind::Compact(Compact { revision }));
    node.write(&[entry])?;
    while node.storage.drop_compacted()? {}
    node.settle()?;
    figures.push(("MiB of the tree after compaction", node.disk_bytes()?.0 as f64 / MIB));
    let start = Instant::now();
    node.storage.rebuild()?;
    figures.push(("seconds of the rebuild", start.elapsed().as_secs_f64()));
    node.settle()?;
    let (tree, log) = node.disk_bytes()?;
    let live = node.storage.live_bytes() as f64;
    figures.push((OVERWRITTEN, tree as f64 / live));
    figures.push(("tree's and log's bytes over live bytes, at the end", (tree + log) as f64 / live));
    figures.push(("MiB live at the end", live / MIB));
    Ok(figures)
}
