//! What every benchmark of this directory needs: where it ran and whether alone, a directory that goes away, random bytes
//! of a fixed seed, medians.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock and lets the disk rest")]

pub mod machine;
pub mod random;
pub mod record;
pub mod scratch;
pub mod stats;

/// What went wrong, in words.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
