//! The life of a store as data, so that it can be lived again and again, each time with something else going wrong; and what
//! its state is at each applied index.

use std::io::Read as _;
use std::sync::OnceLock;

use harmony_storage::{AppliedHash, HashKv, RebuildStep, StorageConfig, StorageError};
use harmony_types::command::Compact;
use harmony_types::fake::fs::MemoryFileSystem;
use harmony_types::fake::seed::{Seed, SeededRng};
use harmony_types::{
    Author, Command, CommandKind, LogIndex, OutcomeKind, Snapshot, SnapshotData, SnapshotMeta, Storage,
};

use super::Store;
use super::generate::{Generate, switch_auth_on};
use super::model::Model;

/// What a store does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Saves the next entries in one go, syncs them, applies them.
    Apply(usize),
    Checkpoint,
    /// A bounded part of what compaction gave up.
    DropCompacted,
    /// Gives up the log up to the last checkpoint.
    Release,
    /// Opens again, with a clean end before or without.
    Reopen {
        clean: bool,
    },
    /// Takes a snapshot in that is so many entries ahead.
    Install(usize),
    /// Hands a snapshot out.
    Send,
    /// Writes the tree into a new file, and exchanges the two.
    Rebuild,
}

/// Commands, and how they get into a store.
pub struct Life {
    pub commands: Vec<Command>,
    pub steps: Vec<Step>,
    states: Vec<OnceLock<State>>,
}

/// What every store must say that has applied so many of the commands, whatever happened to it.
pub struct State {
    pub model: Model,
    pub contents: Contents,
    /// The whole state as another member would get it.
    snapshot: SnapshotMeta,
}

/// All that members have in common at one applied index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    pub stream: Vec<u8>,
    pub hash: u32,
    pub applied_hash: AppliedHash,
    pub hash_kv: HashKv,
}

impl Contents {
    pub fn of(store: &Store) -> Result<Self, StorageError> {
        let storage = store.storage();
        let mut stream = Vec::new();
        let snapshot = storage.create_snapshot()?;
        snapshot.data.into_reader().read_to_end(&mut stream).map_err(StorageError::io("read", "snapshot"))?;
        Ok(Self {
            stream,
            hash: storage.hash()?,
            applied_hash: storage.applied_hash(),
            hash_kv: storage.hash_kv(0)?,
        })
    }
}

pub fn config() -> StorageConfig {
    let mut config = StorageConfig { checkpoint_bytes: 3_000, ..super::config() };
    config.wal.segment_bytes = 8 << 10;
    config
}

/// Users and permissions, then commands that mostly are no refusals; one of eight compacts.
pub fn commands(rng: &mut SeededRng, count: usize) -> Vec<Command> {
    let mut model = Model::new();
    let mut commands = switch_auth_on();
    commands.iter().for_each(|command| drop(model.apply(command)));
    while commands.len() < count {
        let (revision, auth_revision) = (model.revision, model.auth.revision);
        let command = match commands.len() % 8 {
            7 => Command {
                author: Some(Author { user: "root".to_owned(), auth_revision, by_member: false }),
                kind: Some(CommandKind::Compact(Compact { revision: revision - 2 })),
            },
            _ => Generate { rng, revision, auth_revision }.command(),
        };
        let before = model.clone();
        let refused = matches!(model.apply(&command).kind, Some(OutcomeKind::Refused(_)));
        // One of ten may be refused: it is an entry all the same.
        if refused && !rng.chance(1, 10) {
            model = before;
        } else {
            commands.push(command);
        }
    }
    commands
}

impl Life {
    /// Steps of chance, one of them a snapshot that comes in and one at least a rebuild, ending with all commands applied and a checkpoint.
    pub fn new(seed: Seed, entries: usize) -> Self {
        let mut rng = seed.rng();
        let commands = commands(&mut rng, entries);
        let mut steps = vec![Step::Apply(5), Step::Checkpoint];
        let mut left = commands.len() - 5;
        let install_at = rng.index(5..left / 2);
        let (mut is_installed, mut is_rebuilt) = (false, false);
        while left != 0 {
            let ahead = left.min(1 + rng.index(0..4));
            let step = match rng.below(15) {
                _ if !is_installed && left <= install_at => Step::Install(ahead),
                _ if is_installed && !is_rebuilt => Step::Rebuild,
                0 => Step::Checkpoint,
                1 => Step::DropCompacted,
                2 => Step::Release,
                3 => Step::Reopen { clean: rng.chance(1, 2) },
                4 => Step::Send,
                5 => Step::Rebuild,
                _ => Step::Apply(ahead),
            };
            if let Step::Apply(count) | Step::Install(count) = step {
                left -= count;
            }
            is_installed |= matches!(step, Step::Install(_));
            is_rebuilt |= step == Step::Rebuild;
            steps.push(step);
        }
        steps.extend([Step::Checkpoint, Step::DropCompacted, Step::Checkpoint, Step::Release]);
        Self::of(commands, steps)
    }

    pub fn of(commands: Vec<Command>, steps: Vec<Step>) -> Self {
        let states = (0..=commands.len()).map(|_| OnceLock::new()).collect();
        Self { commands, steps, states }
    }

    /// The state behind so many entries, by a replay into an empty store that nothing happens to.
    pub fn state(&self, applied: LogIndex) -> &State {
        let count = usize::try_from(applied.0).unwrap();
        self.states[count].get_or_init(|| {
            let mut store = Store::new();
            let mut model = Model::new();
            self.commands[..count].iter().for_each(|command| drop(model.apply(command)));
            if count != 0 {
                store.run_all(self.commands[..count].to_vec());
            }
            let contents = Contents::of(&store).unwrap();
            State { model, contents, snapshot: store.storage().create_snapshot().unwrap().meta }
        })
    }

    /// The state behind so many entries as a snapshot.
    pub fn snapshot(&self, applied: LogIndex) -> Snapshot {
        let state = self.state(applied);
        let data = SnapshotData::Bytes(state.contents.stream.clone().into());
        Snapshot { meta: state.snapshot.clone(), data }
    }

    /// Lives on `disk` until a step fails. Says what happened, whether or not it failed.
    pub fn live(&self, disk: &MemoryFileSystem) -> Lived {
        let mut lived = Lived { acknowledged: LogIndex(0), failed: None };
        let opened = Store::with(disk.clone(), config());
        let mut store = match opened {
            Ok(store) => store,
            Err(error) => {
                lived.failed = Some(error);
                return lived;
            }
        };
        for step in &self.steps {
            if let Err(error) = self.step(&mut store, *step, &mut lived.acknowledged) {
                lived.failed = Some(error);
                break;
            }
        }
        lived
    }

    /// Takes one step; moves `acknowledged` on with what is durable from then on.
    pub fn step(
        &self,
        store: &mut Store,
        step: Step,
        acknowledged: &mut LogIndex,
    ) -> Result<(), StorageError> {
        match step {
            Step::Apply(count) => {
                let first = usize::try_from(store.next.prev().0).unwrap();
                let end = self.commands.len().min(first + count);
                let entries: Vec<_> =
                    self.commands[first..end].iter().map(|command| store.entry(command.clone())).collect();
                store.try_save(&entries)?;
                *acknowledged = store.next.prev();
                store.storage().apply(&entries).map(drop)
            }
            Step::Checkpoint => store.storage().checkpoint().map(drop),
            Step::DropCompacted => store.storage().drop_compacted().map(drop),
            Step::Release => store.storage().release(store.storage().durable_applied()),
            Step::Reopen { clean } => {
                if clean {
                    store.storage().close()?;
                }
                store.restart(false)
            }
            Step::Install(ahead) => {
                let applied = store.storage().applied().index.0 + ahead as u64;
                let applied = LogIndex(applied.min(self.commands.len() as u64));
                store.storage().save_snapshot(self.snapshot(applied))?;
                store.next = applied.next();
                *acknowledged = applied;
                Ok(())
            }
            Step::Rebuild => {
                let mut rebuild = store.storage().start_rebuild()?;
                while rebuild.step(2_000)? == RebuildStep::More {}
                Ok(())
            }
            Step::Send => {
                let snapshot = store.storage().create_snapshot()?;
                let mut stream = Vec::new();
                let read = snapshot.data.into_reader().read_to_end(&mut stream);
                read.map_err(StorageError::io("read", "snapshot"))?;
                let state = self.state(store.storage().applied().index);
                assert!(stream == state.contents.stream, "a wrong snapshot");
                Ok(())
            }
        }
    }
}

/// How a life went.
pub struct Lived {
    /// The last entry that was said to be durable.
    pub acknowledged: LogIndex,
    /// What ended it before its last step.
    pub failed: Option<StorageError>,
}
