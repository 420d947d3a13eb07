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
pub struct Store(Mutex<State>);

#[derive(Clone, Default)]
struct State {
    commands: u64,
    values: BTreeMap<String, String>,
}

impl Store {
    /// All values, as one line.
    pub fn print(&self) -> String {
        let state = self.0.lock().unwrap();
        let values: Vec<String> = state.values.iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!("{}: {}", state.commands, values.join(" "))
    }
}

impl Application for Store {
    type Outcome = u64;

    fn apply(&self, entries: &[Entry]) -> Result<Vec<u64>, ApplicationError> {
        let mut state = self.0.lock().unwrap();
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
            state.values.insert(key.to_owned(), value.to_owned());
        }
        Ok(outcomes)
    }

    fn snapshot(&self) -> Result<SnapshotData, ApplicationError> {
        let state = self.0.lock().unwrap();
        let mut text = format!("{}\n", state.commands);
        for (key, value) in &state.values {
            text.push_str(&format!("{key}={value}\n"));
        }
        Ok(SnapshotData::Bytes(text.into()))
    }

    fn restore(&self, snapshot: SnapshotData) -> Result<(), ApplicationError> {
        let mut text = String::new();
        snapshot.into_reader().read_to_string(&mut text)?;
        let mut lines = text.lines();
        let commands = lines.next().ok_or("an empty snapshot")?.parse()?;
        let values = lines
            .map(|line| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())))
            .collect::<Option<_>>()
            .ok_or("a line without =")?;
        *self.0.lock().unwrap() = State { commands, values };
        Ok(())
    }

    fn query(&self, key: &[u8]) -> Result<Option<Bytes>, ApplicationError> {
        let state = self.0.lock().unwrap();
        Ok(state.values.get(std::str::from_utf8(key)?).map(|value| Bytes::from(value.clone())))
    }
}
