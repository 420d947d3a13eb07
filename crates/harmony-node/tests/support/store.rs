//! A small key-value state machine: a command is `key=value`, its outcome the number of commands before it.
#![allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "shared by tests, each of which uses a part"
)]

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Mutex;

use bytes::Bytes;
use harmony_types::application::ApplicationError;
use harmony_types::{Application, Entry, SnapshotData};

#[derive(Default)]
pub struct Store {
    state: Mutex<State>,
    /// Members compare the hashes of their states.
    hashes: bool,
    faults: Mutex<Faults>,
}

#[derive(Clone, Default)]
struct State {
    commands: u64,
    values: BTreeMap<String, String>,
    hash: u32,
}

/// What goes wrong with the next command.
#[derive(Default)]
struct Faults {
    differs: bool,
    panics: bool,
}

impl Store {
    /// One that has a hash for the others to compare.
    pub fn hashing() -> Self {
        Self { hashes: true, ..Self::default() }
    }

    /// The next command sets another value than it says.
    pub fn apply_differently(&self) {
        self.faults.lock().unwrap().differs = true;
    }

    /// The next command panics.
    pub fn panic_next(&self) {
        self.faults.lock().unwrap().panics = true;
    }

    /// All values, as one line.
    pub fn print(&self) -> String {
        let state = self.state.lock().unwrap();
        let values: Vec<String> = state.values.iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!("{}: {}", state.commands, values.join(" "))
    }
}

impl Application for Store {
    type Outcome = u64;

    fn apply(&self, entries: &[Entry]) -> Result<Vec<u64>, ApplicationError> {
        let faults = std::mem::take(&mut *self.faults.lock().unwrap());
        assert!(!faults.panics, "a poisoned command");
        let mut state = self.state.lock().unwrap();
        let mut outcomes = Vec::new();
        for entry in entries {
            if entry.data.is_empty() {
                outcomes.push(0);
                continue;
            }
            let command = String::from_utf8(entry.data.to_vec())?;
            let (key, value) = command.split_once('=').ok_or("a command without =")?;
            outcomes.push(state.commands);
            state.commands += 1;
            let value = if faults.differs { "wrong" } else { value };
            state.values.insert(key.to_owned(), value.to_owned());
            state.hash = mix(state.hash, &format!("{key}={value}"));
        }
        Ok(outcomes)
    }

    fn snapshot(&self) -> Result<SnapshotData, ApplicationError> {
        let state = self.state.lock().unwrap();
        let mut text = format!("{} {}\n", state.commands, state.hash);
        for (key, value) in &state.values {
            text.push_str(&format!("{key}={value}\n"));
        }
        Ok(SnapshotData::Bytes(text.into()))
    }

    fn restore(&self, snapshot: SnapshotData) -> Result<(), ApplicationError> {
        let mut text = String::new();
        snapshot.into_reader().read_to_string(&mut text)?;
        let mut lines = text.lines();
        let first = lines.next().ok_or("an empty snapshot")?;
        let (commands, hash) = first.split_once(' ').ok_or("a snapshot without a hash")?;
        let (commands, hash) = (commands.parse()?, hash.parse()?);
        let values = lines
            .map(|line| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())))
            .collect::<Option<_>>()
            .ok_or("a line without =")?;
        *self.state.lock().unwrap() = State { commands, values, hash };
        Ok(())
    }

    fn query(&self, key: &[u8]) -> Result<Option<Bytes>, ApplicationError> {
        let state = self.state.lock().unwrap();
        Ok(state.values.get(std::str::from_utf8(key)?).map(|value| Bytes::from(value.clone())))
    }

    fn state_hash(&self) -> Option<u32> {
        self.hashes.then(|| self.state.lock().unwrap().hash)
    }
}

fn mix(hash: u32, command: &str) -> u32 {
    command.bytes().fold(hash, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)))
}
