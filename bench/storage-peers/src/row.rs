//! The rows: what is measured, and what is asked of it.

/// A group of figures that are measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    Apply,
    Get,
    List,
    Watch,
    Compact,
    Open,
    Space,
    Written,
    Tails,
    Large,
}

impl Row {
    pub const ALL: [Self; 10] = [
        Self::Apply,
        Self::Get,
        Self::List,
        Self::Watch,
        Self::Compact,
        Self::Open,
        Self::Space,
        Self::Written,
        Self::Tails,
        Self::Large,
    ];

    /// As given to `--only`.
    pub fn key(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Compact => "compact",
            Self::Open => "open",
            Self::Space => "space",
            Self::Written => "written",
            Self::Tails => "tails",
            Self::Large => "large",
        }
    }

    pub fn describe(self) -> &'static str {
        match self {
            Self::Apply => "random puts over all keys, 64 a batch, checkpoints on the other core",
            Self::Get => "gets of random keys at their newest version",
            Self::List => "lists of 100,000 keys with values under a prefix",
            Self::Watch => "events out of the tree's history, with the values before",
            Self::Compact => "compaction of as many superseded records as there are keys, inside checkpoints",
            Self::Open => "open after kill -9",
            Self::Space => "bytes on disk",
            Self::Written => "the first part of `space` alone",
            Self::Tails => "gets and applies at a steady pace, alone and beside everything else; p99 in us",
            Self::Large => {
                "10 times as many keys, memory for 512 MiB, in a process of its own (takes minutes)"
            }
        }
    }

    /// Not measured unless it is asked for.
    pub fn is_special(self) -> bool {
        matches!(self, Self::Written | Self::Large)
    }

    /// In one round only: it takes long, and comes out the same.
    pub fn is_once(self) -> bool {
        matches!(self, Self::Space | Self::Large)
    }
}

/// Where a figure has to be.
#[derive(Clone, Copy)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    pub fn holds(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(bound) => bound <= figure,
            Self::AtMost(bound) => figure <= bound,
        }
    }
}

/// What the storage must reach.
pub struct Asked {
    pub row: Row,
    /// In words.
    pub asked: &'static str,
    /// Figure of the row.
    pub figure: &'static str,
    /// The best of these figures of the row divides it; none: it stands for itself.
    pub over: &'static [&'static str],
    pub bound: Bound,
    pub unit: &'static str,
}

const fn asked(
    row: Row,
    asked: &'static str,
    figure: &'static str,
    bound: Bound,
    unit: &'static str,
) -> Asked {
    Asked { row, asked, figure, over: &[], bound, unit }
}

const fn ratio(
    row: Row,
    asked: &'static str,
    figure: &'static str,
    over: &'static [&'static str],
    bound: f64,
) -> Asked {
    Asked { row, asked, figure, over, bound: Bound::AtLeast(bound), unit: "x" }
}

/// The table of what is asked.
pub fn requirements() -> Vec<Asked> {
    use Bound::{AtLeast, AtMost};
    vec![
        ratio(Row::Apply, "sustained >= 3 x naive redb", APPLY, &[NAIVE, NAIVE_LARGE], 3.0),
        asked(Row::Apply, "memtable insert <= 2 us", APPLY_HOT_US, AtMost(2.0), "us"),
        asked(Row::Apply, "no stall over 20 ms short of back-pressure", STALL_MS, AtMost(20.0), "ms"),
        ratio(Row::Get, ">= 0.7 x raw redb, same cache", GETS, &[RAW_GETS], 0.7),
        ratio(Row::Get, ">= 0.7 x raw redb, all in the cache", GETS_CACHED, &[RAW_GETS_CACHED], 0.7),
        asked(Row::List, ">= 3M rows/s", LIST, AtLeast(3e6), "rows/s"),
        asked(Row::List, ">= 3M rows/s after 3 overwrites", LIST_AGED, AtLeast(3e6), "rows/s"),
        asked(Row::Watch, ">= 1M events/s", EVENTS, AtLeast(1e6), "events/s"),
        asked(Row::Compact, "<= 1 CPU-second for 1M records", COMPACT_CPU, AtMost(1.0), "s"),
        asked(Row::Compact, "no commit of its own", COMPACT_SYNCS, AtMost(0.0), "syncs"),
        asked(Row::Open, "<= 300 ms, one memory of tail", OPEN_MS, AtMost(300.0), "ms"),
        asked(Row::Open, "<= 300 ms, killed within a checkpoint", OPEN_FULL_MS, AtMost(300.0), "ms"),
        asked(
            Row::Space,
            "tree and log just after 1M keys <= 0.75 x 761 MiB",
            JUST_WRITTEN,
            AtMost(570.75),
            "MiB",
        ),
        asked(
            Row::Space,
            "after 5 overwrites, compaction, rebuild <= 1.6 x live",
            OVERWRITTEN,
            AtMost(1.6),
            "x",
        ),
        asked(Row::Tails, "p99 of gets <= 2 x idle", GETS_BUSY, AtMost(2.0), "x"),
        asked(Row::Tails, "p99 of applies <= 2 x idle", APPLIES_BUSY, AtMost(2.0), "x"),
        asked(Row::Large, "sustained >= 20 k puts/s", APPLY, AtLeast(20e3), "puts/s"),
        asked(Row::Large, "memory under 512 MiB", RSS_MIB, AtMost(512.0), "MiB"),
        asked(Row::Large, "open <= 500 ms, one memory of tail", OPEN_MS, AtMost(500.0), "ms"),
    ]
}

// Figures that something is asked of.
pub const APPLY: &str = "puts/s until all is in the tree";
pub const NAIVE: &str = "naive redb, our cache, puts/s";
pub const NAIVE_LARGE: &str = "naive redb, cache 1 GiB, puts/s";
pub const APPLY_HOT_US: &str = "CPU us a put in apply, keys in memory (insert and all around it)";
pub const STALL_MS: &str = "longest apply at half that rate, ms";
pub const GETS: &str = "gets/s";
pub const RAW_GETS: &str = "raw redb, gets/s";
pub const GETS_CACHED: &str = "gets/s, cache 1 GiB";
pub const RAW_GETS_CACHED: &str = "raw redb, gets/s, cache 1 GiB";
pub const LIST: &str = "rows/s, just written";
pub const LIST_AGED: &str = "rows/s, after 3 overwrites of every key";
pub const EVENTS: &str = "events/s";
pub const COMPACT_CPU: &str = "CPU s for the compaction of 1M records";
pub const COMPACT_SYNCS: &str = "syncs a checkpoint more than without compaction";
pub const OPEN_MS: &str = "open ms, one memory of log tail";
pub const OPEN_FULL_MS: &str = "open ms, two memories of log tail";
pub const JUST_WRITTEN: &str = "MiB of tree and log, just written";
pub const OVERWRITTEN: &str = "tree's bytes over live bytes, at the end";
pub const GETS_BUSY: &str = "p99 of gets, busy over idle";
pub const APPLIES_BUSY: &str = "p99 of applies, busy over idle";
pub const RSS_MIB: &str = "peak memory, MiB";
