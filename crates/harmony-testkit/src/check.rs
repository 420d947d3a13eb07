//! Judges of a history, which know nothing of the workload and of what the cluster went through.
//!
//! Reading order: [`linearizable`] (keys, transactions, leases and compactions as one object, in real time) and below it
//! `store` (etcd's data model), `calls`, `order`, `replay`, [`search`] (Wing and Gong's), `window` (the smallest part that is
//! wrong); [`register`] (single keys without revisions); [`serializable`] (reads of one member's own state); [`watch`] against
//! [`log`] (what happened); [`lease`]; [`members`].

mod calls;
mod kv;
pub mod lease;
pub mod linearizable;
pub mod log;
pub mod members;
mod order;
#[cfg(test)]
pub(crate) mod random;
pub mod register;
mod replay;
pub mod search;
pub mod serializable;
mod store;
pub mod watch;
mod window;

use std::fmt;

use harmony_types::testing::TestError;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub property: &'static str,
    /// What contradicts it.
    pub reason: String,
    /// The part of the history that shows it, in its text form.
    pub window: Vec<String>,
}

impl Violation {
    pub(crate) fn new(property: &'static str, reason: impl Into<String>) -> Self {
        Self { property, reason: reason.into(), window: Vec::new() }
    }

    pub(crate) fn with_window(self, window: Vec<String>) -> Self {
        Self { window, ..self }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not {}: {}", self.property, self.reason)?;
        for line in &self.window {
            write!(f, "\n  {line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Violation {}

/// What a check that may take too long says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The promise was kept.
    Holds,
    /// It was broken.
    Violated(Violation),
    /// A limit was met before either was shown; how far it came.
    Undecided(String),
}

impl Verdict {
    /// Whether the promise was broken for certain.
    #[must_use]
    pub const fn is_violated(&self) -> bool {
        matches!(self, Self::Violated(_))
    }

    /// For a test: whatever is not known to hold is an error.
    ///
    /// # Errors
    /// The violation, or that the check gave up.
    pub fn into_result(self) -> Result<(), TestError> {
        match self {
            Self::Holds => Ok(()),
            Self::Violated(violation) => Err(violation.into()),
            Self::Undecided(why) => Err(format!("undecided: {why}").into()),
        }
    }
}
