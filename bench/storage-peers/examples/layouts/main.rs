//! Which form the record of the log should have: the measurement behind the storage's layout.
//!
//! `cargo run --release --example layouts -- DIRECTORY [--keys N] [--rounds N] [--forms L4,L4u,L4p,L4c]`, on bare redb. Two
//! tables, as in the storage: `latest`, key to newest version, overwritten in place; and `log`, revision to what was written
//! then. The forms differ in what a row of the log holds, see `form.rs`. Reading order: `form`, `tree`, `history`.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod form;
mod history;
mod tree;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use bench_harness::Result;
use bench_harness::machine::Machine;
use bench_harness::random::Random;
use bench_harness::scratch::Scratch;
use bench_harness::stats::Spread;
use clap::Parser;
use form::{Form, Put};
use tree::{Cost, Tree};

/// The server's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Puts of one checkpoint.
const PUTS: u64 = 200_000;
/// Keys that a skewed load is about.
const HOT_KEYS: u64 = 10_000;
/// Old revisions are read so far back.
const BACK: u64 = 300_000;
const OLD_READS: usize = 50_000;

#[derive(Parser)]
struct Arguments {
    /// Where to write. A directory is made in it, and removed.
    dir: PathBuf,
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Checkpoints of each kind.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[arg(long, value_delimiter = ',', default_value = "L4,L4u,L4p,L4c")]
    forms: Vec<String>,
    /// Cache of redb, MiB.
    #[arg(long, default_value_t = 256)]
    cache_mib: usize,
}

/// All figures of one form, in the order in which they are shown.
type Figures = Vec<(&'static str, Spread)>;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let scratch = Scratch::new(&arguments.dir, "layouts")?;
    println!("- machine: {}", Machine::of(scratch.path()).describe());
    println!("- {} keys of 32 B, values of 256 B, cache {} MiB", arguments.keys, arguments.cache_mib);
    let mut columns = BTreeMap::new();
    for form in Form::ALL {
        if arguments.forms.iter().any(|name| name == form.name()) {
            let path = scratch.path().join(form.name());
            let figures = measure(&arguments, form, &path)?;
            for (name, spread) in &figures {
                eprintln!("{}: {name}: {}", form.name(), cell(*spread));
            }
            columns.insert(form, figures);
            std::fs::remove_file(&path)?;
        }
    }
    let forms: Vec<&str> = columns.keys().map(|form| form.name()).collect();
    println!("\n| | {} |\n| --- {}|", forms.join(" | "), "| --- ".repeat(forms.len()));
    let rows = columns.values().next().map_or(0, Vec::len);
    for row in 0..rows {
        let cells = columns.values().map(|figures| cell(figures[row].1)).collect::<Vec<_>>().join(" | ");
        let name = columns.values().next().map_or("", |figures| figures[row].0);
        println!("| {name} | {cells} |");
    }
    Ok(())
}

fn cell(Spread { median, min, max }: Spread) -> String {
    let text = |figure: f64| if figure < 100.0 { format!("{figure:.2}") } else { format!("{figure:.0}") };
    if min < max { format!("{} ({} to {})", text(median), text(min), text(max)) } else { text(median) }
}

fn measure(arguments: &Arguments, form: Form, path: &std::path::Path) -> Result<Figures> {
    let start = Instant::now();
    let mut tree = Tree::create(form, path, arguments.cache_mib << 20)?;
    tree.load(arguments.keys)?;
    eprintln!("{}: loaded after {} s", form.name(), start.elapsed().as_secs());
    let mut figures = Figures::new();
    let one = |figure: f64| Spread { median: figure, min: figure, max: figure };
    figures.push(("live MiB, keys written once", one(tree.live_mib()?)));

    let created = 2 * PUTS.min(arguments.keys / 2);
    figures.push((
        "replay of 400k creations, keys not written since, events/s",
        one(history::replay_created(&tree, created)?),
    ));

    let mut random = Random::new(3);
    let uniform = checkpoints(arguments, &mut tree, || random.below(arguments.keys))?;
    push(&mut figures, &uniform, ["checkpoint of 200k random puts, CPU s", "MiB dirtied", "MiB written"]);
    figures.push(("live MiB behind them", one(tree.live_mib()?)));
    eprintln!("{}: random puts after {} s", form.name(), start.elapsed().as_secs());
    figures
        .push(("replay of 400k events with values before, events/s", one(history::replay(&tree, 2 * PUTS)?)));
    figures.push((
        "replay of 400k creations, behind them, events/s",
        one(history::replay_created(&tree, created)?),
    ));
    figures.push((
        "reads at an old revision, one write back, 1/s",
        one(history::old_reads(&tree, BACK, OLD_READS)?),
    ));

    let hot = checkpoints(arguments, &mut tree, || random.below(HOT_KEYS.min(arguments.keys)))?;
    push(
        &mut figures,
        &hot,
        ["checkpoint of 200k puts of 10k keys, CPU s", "MiB dirtied, hot", "MiB written, hot"],
    );
    figures.push(("live MiB behind these", one(tree.live_mib()?)));
    figures.push(("replay of these, events/s", one(history::replay(&tree, 2 * PUTS)?)));
    figures.push((
        "reads of hot keys, up to 30 writes back, 1/s",
        one(history::old_reads(&tree, BACK, OLD_READS / 10)?),
    ));

    let (dropped, cost) = tree.compact(tree.revision() - PUTS)?;
    figures.push(("compaction, CPU s for 1M log rows", one(cost.cpu.as_secs_f64() * 1e6 / dropped as f64)));
    figures.push(("MiB written by it, for 1M", one(cost.written_mib * 1e6 / dropped as f64)));
    figures.push(("log rows it had to keep", one(tree.log_rows()? as f64 - PUTS as f64)));
    figures.push(("live MiB behind it", one(tree.live_mib()?)));
    eprintln!("{}: done after {} s", form.name(), start.elapsed().as_secs());
    Ok(figures)
}

fn checkpoints(arguments: &Arguments, tree: &mut Tree, mut key: impl FnMut() -> u64) -> Result<Vec<Cost>> {
    let costs = (0..arguments.rounds).map(|_| {
        let first = tree.revision() + 1;
        let puts: Vec<Put> = (first..first + PUTS).map(|revision| Put { key: key(), revision }).collect();
        tree.checkpoint(&puts)
    });
    costs.collect()
}

fn push(figures: &mut Figures, costs: &[Cost], names: [&'static str; 3]) {
    let of: [fn(&Cost) -> f64; 3] =
        [|cost| cost.cpu.as_secs_f64(), |cost| cost.dirtied_mib, |cost| cost.written_mib];
    for (name, of) in names.into_iter().zip(of) {
        figures.extend(Spread::of(costs.iter().map(of)).map(|spread| (name, spread)));
    }
}
