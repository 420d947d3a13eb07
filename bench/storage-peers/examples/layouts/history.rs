//! What the log is for: events with the values before, and versions at old revisions.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use bench_harness::Result;
use redb::{ReadOnlyTable, ReadableDatabase};

use crate::form::{self, Form, Replaced, Row};
use crate::tree::{LATEST, LOG, Tree, revision_of};

/// About the values of an answer of a MiB.
const LOOKED_UP_AT_ONCE: usize = 4_096;

type Table = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// Hands the newest `events` to nobody, in order, each with key, value and value before, which are compared with what was
/// written. Events a second.
pub fn replay(tree: &Tree, events: u64) -> Result<f64> {
    let transaction = tree.database.begin_read()?;
    let (latest, log) = (transaction.open_table(LATEST)?, transaction.open_table(LOG)?);
    let from = tree.revision() - events + 1;
    // The second time counts: the page cache is warm.
    let mut rate = 0.0;
    for _ in 0..2 {
        let start = Instant::now();
        let seen = match tree.form {
            Form::Undo => replay_undo(&latest, &log, from)?,
            Form::Both | Form::Pointer | Form::Created => replay_forward(&log, from)?,
        };
        assert_eq!(seen, events, "the log has a row for each revision");
        rate = events as f64 / start.elapsed().as_secs_f64();
    }
    Ok(rate)
}

fn replay_forward(log: &Table, from: u64) -> Result<u64> {
    let mut seen = 0;
    for row in log.range::<&[u8]>(&from.to_be_bytes()[..]..)? {
        let (log_key, row) = row?;
        let event = Row::decode(log_key.value(), row.value());
        check(revision_of(log_key.value()), event.value.unwrap_or_default());
        match event.replaced {
            Replaced::None => {}
            Replaced::Here(version) => check(version.revision, version.value),
            Replaced::At(revision) => {
                let key = revision.to_be_bytes();
                let row = log.get(&key[..])?.ok_or("the row pointed at is gone")?;
                check(revision, Row::decode(&key, row.value()).value.unwrap_or_default());
            }
        }
        seen += 1;
    }
    Ok(seen)
}

/// Hands the oldest `events`, which created their keys, to nobody, in order, each with key and value. Values that the log
/// leaves out are looked up together, in key order, those of some thousand events at a time. Events a second.
pub fn replay_created(tree: &Tree, events: u64) -> Result<f64> {
    let transaction = tree.database.begin_read()?;
    let (latest, log) = (transaction.open_table(LATEST)?, transaction.open_table(LOG)?);
    let mut rate = 0.0;
    for _ in 0..2 {
        let start = Instant::now();
        let mut left_out: Vec<(form::Key, u64)> = Vec::new();
        for row in log.range::<&[u8]>(..=&events.to_be_bytes()[..])? {
            let (log_key, row) = row?;
            let (revision, event) = (revision_of(log_key.value()), Row::decode(log_key.value(), row.value()));
            match event.value {
                Some(value) => check(revision, value),
                None => left_out.push((event.key.try_into()?, revision)),
            }
            if left_out.len() == LOOKED_UP_AT_ONCE || revision == events {
                left_out.sort_unstable();
                for (key, revision) in left_out.drain(..) {
                    read_at(&latest, &log, &key, revision)?;
                }
            }
        }
        rate = events as f64 / start.elapsed().as_secs_f64();
    }
    Ok(rate)
}

/// Backward from the newest: the value that a write made is what the key's next write replaced, or what stands in `latest`.
fn replay_undo(latest: &Table, log: &Table, from: u64) -> Result<u64> {
    let mut next: HashMap<form::Key, Vec<u8>> = HashMap::new();
    let mut events: Vec<(u64, form::Key, Vec<u8>)> = Vec::new();
    for row in log.range::<&[u8]>(&from.to_be_bytes()[..]..)?.rev() {
        let (log_key, row) = row?;
        let event = Row::decode(log_key.value(), row.value());
        let key: form::Key = event.key.try_into()?;
        let before = match event.replaced {
            Replaced::Here(version) => version.value.to_vec(),
            Replaced::None | Replaced::At(_) => Vec::new(),
        };
        let value = match next.insert(key, before) {
            Some(value) => value,
            None => {
                let row = latest.get(&key[..])?.ok_or("a key is missing")?;
                form::decode_latest(&key, row.value()).value.to_vec()
            }
        };
        events.push((revision_of(log_key.value()), key, value));
    }
    for (revision, _, value) in events.iter().rev() {
        check(*revision, value);
    }
    Ok(events.len() as u64)
}

fn check(revision: u64, value: &[u8]) {
    assert_eq!(value, form::value(revision), "another value than was written at {revision}");
}

/// Reads keys that were written since, at the revision so far back. Reads a second.
pub fn old_reads(tree: &Tree, back: u64, reads: usize) -> Result<f64> {
    let transaction = tree.database.begin_read()?;
    let (latest, log) = (transaction.open_table(LATEST)?, transaction.open_table(LOG)?);
    let at = tree.revision() - back;
    let mut keys: HashSet<form::Key> = HashSet::new();
    for row in log.range::<&[u8]>(&(at + 1).to_be_bytes()[..]..)? {
        let (log_key, row) = row?;
        keys.insert(Row::decode(log_key.value(), row.value()).key.try_into()?);
        if keys.len() == reads {
            break;
        }
    }
    // In no order: that of a hash.
    let mut rate = 0.0;
    for _ in 0..2 {
        let start = Instant::now();
        for key in &keys {
            read_at(&latest, &log, key, at)?;
        }
        rate = keys.len() as f64 / start.elapsed().as_secs_f64();
    }
    Ok(rate)
}

fn read_at(latest: &Table, log: &Table, key: &form::Key, at: u64) -> Result<()> {
    let row = latest.get(&key[..])?.ok_or("a key is missing")?;
    let newest = form::decode_latest(key, row.value());
    let mut written = newest.revision;
    if written <= at {
        check(written, newest.value);
        return Ok(());
    }
    loop {
        let log_key = written.to_be_bytes();
        let row = log.get(&log_key[..])?.ok_or("a row of the log is missing")?;
        match Row::decode(&log_key, row.value()).replaced {
            Replaced::None => return Ok(()),
            Replaced::Here(version) if version.revision <= at => {
                check(version.revision, version.value);
                return Ok(());
            }
            Replaced::Here(version) => written = version.revision,
            Replaced::At(revision) if revision <= at => {
                let log_key = revision.to_be_bytes();
                let row = log.get(&log_key[..])?.ok_or("the row pointed at is gone")?;
                check(revision, Row::decode(&log_key, row.value()).value.unwrap_or_default());
                return Ok(());
            }
            Replaced::At(revision) => written = revision,
        }
    }
}
