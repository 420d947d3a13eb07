//! The history: replayed, and compacted.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use harmony_storage::{DumpOptions, EventsRequest, TreeTable, UnifiedStorage};
use harmony_types::command::Compact;
use harmony_types::{CommandKind, Revision, Storage};
use harmony_wal::OsFileSystem;

use crate::clocks::thread_cpu;
use crate::files::{Counts, counting};
use crate::node::{self, BATCH, Node};
use crate::report::Figures;
use crate::row::{COMPACT_CPU, COMPACT_SYNCS, EVENTS};
use crate::rows::reads;
use crate::{Plan, Result};

/// All events of a store, as a watch from revision 1 takes them.
pub fn watch(plan: &Plan, scratch: &Path) -> Result<Figures> {
    let (dir, keys) = reads::aged(plan, scratch)?;
    let node = Node::open(&dir, plan.config.clone())?;
    let written = (1 + u64::from(reads::OVERWRITES)) * keys;
    let mut figures = Figures::new();
    // Once before, for the page cache.
    replay(&node.storage)?;
    let start = Instant::now();
    let events = replay(&node.storage)?;
    if events < written {
        return Err(format!("watch: {events} events of {written}").into());
    }
    figures.push((EVENTS, events as f64 / start.elapsed().as_secs_f64()));
    node.storage.close()?;
    drop(node);
    figures.push(("events/s of a dump, as text", dump(&dir)?));
    Ok(figures)
}

/// Events of the whole history, read through the public API with the version before each.
fn replay(storage: &UnifiedStorage) -> Result<u64> {
    let mut request = EventsRequest { first: Revision(2).into(), prev_kv: true, ..EventsRequest::default() };
    let mut count = 0;
    loop {
        let found = storage.events(&request)?;
        count += found.events.len() as u64;
        for event in &found.events {
            std::hint::black_box(event.prev_kv.as_ref().map(|before| &before.value));
        }
        if found.is_complete() {
            return Ok(count);
        }
        request.first = found.next;
    }
}

/// What reads every event with what it replaced, checksums and all, and then makes a line of text of it.
fn dump(dir: &Path) -> Result<f64> {
    let options = DumpOptions { tables: vec![TreeTable::Log], ..DumpOptions::default() };
    let mut lines = Lines(0);
    let start = Instant::now();
    {
        let mut out = BufWriter::with_capacity(64 << 10, &mut lines);
        harmony_storage::dump(&OsFileSystem, &node::tree_dir(dir), &mut out, &options)?;
        out.flush()?;
    }
    Ok(lines.0 as f64 / start.elapsed().as_secs_f64())
}

/// Counts lines.
struct Lines(u64);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compacts as many superseded records as the plan has keys: every key of a fifth of them was overwritten five times. What
/// it costs is what checkpoints cost with it, less what they cost without.
pub fn compact(plan: &Plan, dir: &Path) -> Result<Figures> {
    const OVERWRITES: u32 = 5;
    let keys = plan.keys / u64::from(OVERWRITES);
    let (fs, counts) = counting();
    let mut node = Node::open_on(fs, dir, plan.config.clone())?;
    node.fill(0..keys)?;
    node.start_checkpoints();
    for generation in 1..=OVERWRITES {
        node.overwrite(keys, generation)?;
    }
    node.settle()?;

    let mut without = Vec::new();
    for _ in 0..20 {
        without.push(checkpoint(&mut node, &counts)?);
    }
    let revision = node.storage.revision().as_i64();
    let records = u64::from(OVERWRITES) * keys;
    let before = node.storage.live_bytes();
    let entry = node.command(CommandKind::Compact(Compact { revision }));
    node.write(&[entry])?;
    let mut with = Vec::new();
    loop {
        let live = node.storage.live_bytes();
        with.push(checkpoint(&mut node, &counts)?);
        // The checkpoint behind the last step takes more in than it gives up.
        if live <= node.storage.live_bytes() {
            break;
        }
    }
    let dropped = before.saturating_sub(node.storage.live_bytes());
    if dropped < records * 256 {
        return Err(format!("compaction gave up {dropped} bytes of {records} records").into());
    }
    let sum = |all: &[Checkpoint], of: fn(&Checkpoint) -> f64| all.iter().map(of).sum::<f64>();
    let each = |all: &[Checkpoint], of: fn(&Checkpoint) -> f64| sum(all, of) / all.len() as f64;
    let more = |of: fn(&Checkpoint) -> f64| sum(&with, of) - each(&without, of) * with.len() as f64;
    let longest =
        |all: &[Checkpoint]| all.iter().map(|one| one.took).max().unwrap_or_default().as_secs_f64() * 1e3;
    Ok(vec![
        (COMPACT_CPU, more(|one| one.cpu.as_secs_f64()) * 1e6 / records as f64),
        (COMPACT_SYNCS, each(&with, |one| one.syncs) - each(&without, |one| one.syncs)),
        ("MiB written for it", more(|one| one.written) / f64::from(1 << 20)),
        ("checkpoints that it is spread over", with.len() as f64),
        ("longest of these checkpoints, ms", longest(&with)),
        ("longest without, ms", longest(&without)),
    ])
}

struct Checkpoint {
    took: Duration,
    cpu: Duration,
    syncs: f64,
    written: f64,
}

/// One checkpoint, of one batch.
fn checkpoint(node: &mut Node, counts: &Counts) -> Result<Checkpoint> {
    let entries = node.puts((0..BATCH).map(|number| (number, 9)));
    node.write(&entries)?;
    let (start, cpu, syncs, written) = (Instant::now(), thread_cpu(), counts.syncs(), counts.written());
    node.storage.checkpoint()?;
    Ok(Checkpoint {
        took: start.elapsed(),
        cpu: thread_cpu() - cpu,
        syncs: (counts.syncs() - syncs) as f64,
        written: (counts.written() - written) as f64,
    })
}
