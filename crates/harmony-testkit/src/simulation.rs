//! A world with a seed: whole clusters in one thread, the real node and the real storage on disks that crash, a network that
//! loses, and a clock that jumps to the next event.
//!
//! What is real: everything between a client's call and the calls of the file system ([`harmony_node::SteppedNode`],
//! [`harmony_storage::UnifiedStorage`], the log, the tree). What is not: threads (their work is done in steps, each of which takes
//! simulated time), sockets (messages are handed over whole), and the disk (in memory; it knows what was synced).
//!
//! The same seed and options give the same run, to the last byte: [`Report::trace_hash`] is a hash over every event with its
//! time. A failure prints its seed and its plan; [`World::with_plan`] runs them again, and [`shrink()`] cuts the plan down.
//!
//! ```
//! use harmony_testkit::simulation::{Intensity, Options, World};
//! use harmony_types::fake::seed::Seed;
//!
//! let options = Options { length_ms: 5_000, intensity: Intensity::Calm, ..Options::default() };
//! let report = World::new(Seed(42), options).run();
//! assert_eq!(report.violations, []);
//! assert_eq!(report.trace_hash, World::new(Seed(42), options).run().trace_hash);
//! ```
//!
//! Reading order: [`plan`] (what goes wrong), `world` (the loop), `member` (a process and its disk), `network`, `client`,
//! `invariants` (what must hold after each step), [`probes`] (which rare branches were visited), [`shrink()`].

mod client;
#[cfg(feature = "planted")]
pub mod hunt;
mod invariants;
mod member;
mod network;
mod picture;
pub mod plan;
#[cfg(feature = "planted")]
mod planted;
pub mod probes;
pub mod shrink;
mod time;
mod told;
mod trace;
mod watcher;
mod world;

use std::fmt;

use harmony_types::fake::seed::Seed;

pub use self::network::Links;
pub use self::plan::{AuthDeed, Fault, Intensity, Loss, Plan, Work};
pub use self::probes::{Probe, Probes};
pub use self::shrink::shrink;
pub use self::world::World;
use crate::history::History;
use crate::trace::Trace;

/// What a run is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Members at the beginning, all of them voters.
    pub members: u64,
    /// Clients; 63 at most.
    pub clients: u32,
    /// Clients that watch.
    pub watchers: u32,
    /// The longest time that a client thinks between two calls, milliseconds.
    pub think_ms: u64,
    /// How long faults happen, simulated milliseconds.
    pub length_ms: u64,
    /// How many.
    pub intensity: Intensity,
    /// Judge the history at the end.
    pub judge: bool,
    /// Keep every event as a line.
    pub keep_trace: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            members: 3,
            clients: 4,
            watchers: 2,
            think_ms: 500,
            length_ms: 30_000,
            intensity: Intensity::Moderate,
            judge: true,
            keep_trace: false,
        }
    }
}

/// What went against the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When, simulated milliseconds.
    pub at_ms: u64,
    /// What.
    pub what: String,
}

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Of which seed.
    pub seed: Seed,
    /// A hash over every event with its time.
    pub trace_hash: u64,
    /// How many events.
    pub events: u64,
    /// How long, in the world's time.
    pub simulated_ms: u64,
    /// What went wrong on purpose.
    pub plan: Plan,
    /// What clients saw.
    pub history: History,
    /// Why nobody knows whether the history is linearizable, when that took too long to find out.
    pub undecided: Option<String>,
    /// Rare branches that were visited.
    pub probes: Probes,
    /// What must not be: the run ended at the first one.
    pub violations: Vec<Violation>,
    /// Every event, if asked for.
    pub trace: Vec<String>,
    /// The same as a picture, if asked for.
    pub picture: Option<Trace>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: {} events in {} ms, trace {:#018x}",
            self.seed, self.events, self.simulated_ms, self.trace_hash
        )?;
        for Violation { at_ms, what } in &self.violations {
            writeln!(f, "at {at_ms} ms: {what}")?;
        }
        write!(f, "{}", self.plan)
    }
}
