//! Hunts for planted bugs: seeds are run until one shows the bug. A bug that none shows is a hole in the simulator.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use harmony_types::fake::seed::Seed;
use harmony_types::planted::{self, Bug};

use super::{Options, World};

/// What shows a bug, by words of the violation that it reports; the first that fits.
const CHECKERS: [(&str, &str); 22] = [
    ("both lead term", "one leader a term"),
    ("voted for", "one vote a term"),
    ("acknowledged entries up to", "acknowledged entries stay"),
    ("<= checkpointed", "released <= checkpointed <= applied <= committed <= last"),
    ("went back", "nothing steps back in a life"),
    ("others had", "one rolling hash at an applied index"),
    ("committed in term", "committed entries never change"),
    ("cannot read its committed entries", "committed entries can be read"),
    ("survive a power failure", "a checkpoint survives a power failure"),
    ("ended, though", "no member ends by itself"),
    ("were not served", "clients are served after the faults"),
    ("do not come to the same state", "members come to one state"),
    ("states differ", "members come to one state"),
    ("acknowledged and not there", "acknowledged puts are there"),
    ("cannot tell its history", "history can be read"),
    ("not linearizable", "`check::linearizable`"),
    ("not serializable", "`check::serializable`"),
    ("not as acknowledged", "`check::log`"),
    ("not a lease that lives its time", "`check::lease`"),
    ("as a watch:", "`check::watch`"),
    ("not a log of events", "`check::log`"),
    ("watch", "watches are told all that happened"),
];

/// How a bug was caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catch {
    /// How many seeds it took, the last of which showed it.
    pub seeds: u64,
    /// That one.
    pub seed: Seed,
    /// The violation that it reported.
    pub what: String,
}

impl Catch {
    /// The checker or invariant that caught it.
    #[must_use]
    pub fn checker(&self) -> &'static str {
        let found = CHECKERS.iter().find(|(words, _)| self.what.contains(words));
        found.map_or("a panic", |(_, checker)| checker)
    }
}

impl fmt::Display for Catch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}, the {}. one: {}: {}", self.seed, self.seeds, self.checker(), self.what)
    }
}

/// Runs `seeds_max` seeds from `first` on with this bug, until one shows it.
#[must_use]
pub fn hunt(bug: Bug, options: Options, first: Seed, seeds_max: u64) -> Option<Catch> {
    planted::plant(Some(bug));
    let caught = (0..seeds_max).find_map(|past| {
        let seed = Seed(first.0.wrapping_add(past));
        let what = match catch_unwind(AssertUnwindSafe(|| World::new(seed, options).run())) {
            Ok(report) => report.violations.into_iter().next()?.what,
            Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_default(),
        };
        Some(Catch { seeds: past + 1, seed, what })
    });
    planted::plant(None);
    caught
}
