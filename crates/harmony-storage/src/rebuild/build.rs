//! The copying: rows of a view into a new tree, and then what later views have more.
//!
//! The new tree is at all times what a member would have that had applied as much and dropped other parts of what compaction
//! gave up: its counts of bytes are its own.

use std::collections::BTreeMap;
use std::ops::Bound;

use harmony_types::{Revision, StorageError};

use crate::canonical;
use crate::mvcc::compact;
use crate::new_tree::NewTree;
use crate::tree::record::{EventRef, WrittenAt, check_crc};
use crate::tree::{NEXT, STOP, Table, counted, rows};
use crate::view::View;

/// See the module.
pub(super) struct Build {
    /// What is being read.
    pub(super) source: View,
    pub(super) new: NewTree,
    /// Rounds begun, the copy not counted.
    pub(super) rounds: u32,
    /// Bytes of events that the present round has repeated.
    pub(super) round_bytes: u64,
    phase: Phase,
    held: Rows,
}

/// What the next step does. `after` is the last key that is done.
enum Phase {
    /// Copies rows of the table with this place in [`canonical::TABLES`].
    Copy { table: usize, after: Option<Vec<u8>> },
    /// Repeats events.
    Events { after: Vec<u8> },
    /// Sets and removes rows of `state` that differ.
    State { after: Option<Vec<u8>> },
    /// Drops what compaction gave up since the copy.
    Compact,
    /// The new tree says what the source says.
    Level,
}

impl Build {
    /// Nothing of `source` is in `new` yet.
    pub(super) fn new(source: View, mut new: NewTree) -> Self {
        let compact = source.progress.compact;
        new.progress.dropped = compact;
        let phase = Phase::Copy { table: 0, after: None };
        Self { source, new, rounds: 0, round_bytes: 0, phase, held: Rows::default() }
    }

    /// Goes on with a later view; the new tree says what the one before says.
    pub(super) fn next_round(&mut self, source: View) {
        assert!(matches!(self.phase, Phase::Level), "a round begins before the one before has ended");
        let after = last_event_until(self.source.progress.revision);
        assert!(
            self.source.progress.applied.index <= source.progress.applied.index,
            "a view of {}, behind {}",
            source.progress.applied.index,
            self.source.progress.applied.index
        );
        self.source = source;
        self.rounds += 1;
        self.round_bytes = 0;
        self.phase = Phase::Events { after };
    }

    /// Reads and writes some `bytes_max` bytes, or one row; false when nothing of the round was left to do.
    pub(super) fn step(&mut self, bytes_max: usize) -> Result<bool, StorageError> {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Level) {
            Phase::Copy { table, after } => self.copy(table, after, bytes_max)?,
            Phase::Events { after } => self.repeat(after, bytes_max)?,
            Phase::State { after } => self.align(after, bytes_max)?,
            Phase::Compact => self.drop_compacted()?,
            Phase::Level => return Ok(false),
        };
        Ok(true)
    }

    /// Ends the round, and makes a tree of its own of the new one. What compaction gave up in this round is left to the
    /// checkpoints to come.
    pub(super) fn finish(&mut self, bytes_max: usize) -> Result<(), StorageError> {
        while !matches!(self.phase, Phase::Compact | Phase::Level) {
            self.step(bytes_max)?;
        }
        self.take_progress();
        self.new.finish(&self.source.settings.membership)
    }

    /// The new tree stands for what the source stands for, in rows of its own.
    fn take_progress(&mut self) {
        let mut progress = self.source.progress;
        progress.take_counts(&self.new.progress);
        self.new.progress = progress;
    }

    fn copy(&mut self, slot: usize, after: Option<Vec<u8>>, bytes_max: usize) -> Result<Phase, StorageError> {
        let Some(table) = canonical::TABLES.get(slot).copied() else { return Ok(Phase::Level) };
        let Self { source, new, held, .. } = self;
        held.clear();
        canonical::rows(source, table, after.as_deref(), &mut |key, row| {
            held.push(key, row);
            Ok(if held.bytes.len() < bytes_max { NEXT } else { STOP })
        })?;
        let Some((last, _)) = held.iter().next_back() else {
            return Ok(Phase::Copy { table: slot + 1, after: None });
        };
        let after = Some(last.to_vec());
        new.append(table, held.bytes.len() as u64, &mut held.filling())?;
        Ok(Phase::Copy { table: slot, after })
    }

    /// Events hold whole versions: they say what each key is now.
    fn repeat(&mut self, after: Vec<u8>, bytes_max: usize) -> Result<Phase, StorageError> {
        let Self { source, new, held, .. } = self;
        held.clear();
        let mut newest: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        source.tree.scan(Table::Log, (Bound::Excluded(&after), Bound::Unbounded), &mut |log_key, row| {
            let event = EventRef::decode(log_key, row)?;
            let mut latest = Vec::new();
            event.version.encode_latest(event.key, &mut latest);
            newest.insert(event.key.to_vec(), latest);
            held.push(log_key, row);
            Ok(if held.bytes.len() < bytes_max { NEXT } else { STOP })
        })?;
        let Some((last, _)) = held.iter().next_back() else { return Ok(Phase::State { after: None }) };
        let after = last.to_vec();
        let bytes = held.bytes.len() as u64;
        self.round_bytes += bytes;
        new.write(2 * bytes, &mut |writer, progress| {
            for (key, row) in &newest {
                counted::put_latest(writer, progress, key, row, &mut |_| Ok(()))?;
            }
            counted::append(writer, progress, Table::Log, &mut held.filling())
        })?;
        Ok(Phase::Events { after })
    }

    /// Nothing says which rows of `state` changed, so a part of both trees is compared.
    fn align(&mut self, after: Option<Vec<u8>>, bytes_max: usize) -> Result<Phase, StorageError> {
        let mut changes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        let mut end = None;
        let mut bytes = 0;
        canonical::rows(&self.source, Table::State, after.as_deref(), &mut |name, row| {
            let body = check_crc(Table::State, name, row)?;
            changes.insert(name.to_vec(), Some(body.to_vec()));
            bytes += name.len() + row.len();
            if bytes < bytes_max {
                return Ok(NEXT);
            }
            end = Some(name.to_vec());
            Ok(STOP)
        })?;
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let upto = end.clone();
        let upto = upto.as_deref().map_or(Bound::Unbounded, Bound::Included);
        bytes = 0;
        self.new.view()?.scan(Table::State, (from, upto), &mut |name, row| {
            if !rows::is_replicated(name) {
                return Ok(NEXT);
            }
            match changes.get(name) {
                Some(Some(body)) if check_crc(Table::State, name, row)? == &body[..] => {
                    changes.remove(name);
                }
                Some(_) => {}
                None => {
                    changes.insert(name.to_vec(), None);
                    bytes += name.len();
                }
            }
            if bytes < bytes_max {
                return Ok(NEXT);
            }
            end = Some(name.to_vec());
            Ok(STOP)
        })?;
        if let Some(end) = &end {
            // What is behind it was not compared.
            changes.retain(|name, _| name <= end);
        }
        if !changes.is_empty() {
            self.new.write(bytes_max as u64, &mut |writer, progress| {
                changes
                    .iter()
                    .try_for_each(|(name, row)| counted::set_state(writer, progress, name, row.as_deref()))
            })?;
        }
        Ok(match end {
            Some(end) => Phase::State { after: Some(end) },
            None => Phase::Compact,
        })
    }

    fn drop_compacted(&mut self) -> Result<Phase, StorageError> {
        self.take_progress();
        if !compact::is_due(&self.new.progress, compact::KEEP_NONE) {
            return Ok(Phase::Level);
        }
        self.new.write(0, &mut |writer, progress| {
            compact::step(writer, progress, compact::KEEP_NONE, compact::Pace::ALONE)
        })?;
        Ok(Phase::Compact)
    }
}

/// The last place in the log that a state at `revision` can have.
fn last_event_until(revision: Revision) -> Vec<u8> {
    WrittenAt { revision, sub: u32::MAX }.log_key().to_vec()
}

/// Rows that were read and not yet written, in one piece of memory.
#[derive(Default)]
struct Rows {
    bytes: Vec<u8>,
    /// Where each key and each row ends.
    ends: Vec<(usize, usize)>,
}

impl Rows {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn push(&mut self, key: &[u8], row: &[u8]) {
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(row);
        self.ends.push((key_end, self.bytes.len()));
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> {
        (0..self.ends.len()).map(|at| {
            let start = if at == 0 { 0 } else { self.ends[at - 1].1 };
            let (key_end, end) = self.ends[at];
            (&self.bytes[start..key_end], &self.bytes[key_end..end])
        })
    }

    /// Hands the rows out as [`crate::tree::KvWriter::append`] takes them.
    fn filling(&self) -> impl FnMut(&mut Vec<u8>, &mut Vec<u8>) -> Result<bool, StorageError> {
        let mut rows = self.iter();
        move |key, row| {
            let Some((next_key, next_row)) = rows.next() else { return Ok(false) };
            for (out, bytes) in [(key, next_key), (row, next_row)] {
                out.clear();
                out.extend_from_slice(bytes);
            }
            Ok(true)
        }
    }
}

#[cfg(test)]
mod tests;
