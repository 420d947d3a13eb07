//! A process that writes a store and kills itself, so that its memory can be measured and its end is a crash.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use harmony_storage::StorageConfig;
use rustix::process::{Signal, getpid, kill_process};
use serde_json::{Value, json};

use crate::node::{BATCH, Node};
use crate::rows::apply;
use crate::{Plan, Result};

/// The environment variable that tells a child what to do.
const TASK: &str = "STORAGE_PEERS_CHILD";

/// Bytes that the storage counts for one put in memory: key, value, half of the value before, and about 113 around them.
const MEMORY_BYTES: u64 = 113 + 32 + 256 + 256 / 2;

/// What a child does.
pub struct Task {
    pub dir: PathBuf,
    pub keys: u64,
    /// To write random puts for, as fast as it can; nothing: none.
    pub time: Duration,
    /// Within 512 MiB.
    pub small: bool,
    /// Limits of memory and of the tree's cache, bytes.
    pub checkpoint_bytes: u64,
    pub tree_cache_bytes: usize,
    /// How much it leaves in the log for the next open: memories full of puts.
    pub memories: u64,
}

/// What a child tells.
pub struct Told {
    pub rate: f64,
    pub waited: f64,
    pub longest_apply_ms: f64,
    pub peak_rss: u64,
    pub entries: u64,
}

/// This process's task, when it is a child.
pub fn task() -> Option<Result<Task>> {
    let text = std::env::var(TASK).ok()?;
    Some(Task::parse(&text))
}

impl Task {
    fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)?;
        let number = |name: &str| value[name].as_u64().ok_or_else(|| format!("{TASK}: no {name}"));
        Ok(Self {
            dir: value["dir"].as_str().ok_or("no directory")?.into(),
            keys: number("keys")?,
            time: Duration::from_millis(number("ms")?),
            small: number("small")? != 0,
            checkpoint_bytes: number("checkpoint_bytes")?,
            tree_cache_bytes: usize::try_from(number("tree_cache_bytes")?)?,
            memories: number("memories")?,
        })
    }

    /// Runs it in a child, to the end by SIGKILL.
    pub fn spawn(&self) -> Result<Told> {
        let text = json!({
            "dir": self.dir, "keys": self.keys, "ms": self.time.as_millis() as u64,
            "small": u64::from(self.small), "memories": self.memories,
            "checkpoint_bytes": self.checkpoint_bytes, "tree_cache_bytes": self.tree_cache_bytes,
        });
        let mut child = Command::new(std::env::current_exe()?);
        let mut child = child.env(TASK, text.to_string()).stdout(Stdio::piped()).spawn()?;
        let mut told = String::new();
        child.stdout.take().ok_or("no output")?.read_to_string(&mut told)?;
        let status = child.wait()?;
        if std::os::unix::process::ExitStatusExt::signal(&status) != Some(Signal::KILL.as_raw()) {
            return Err(format!("the child ended with {status}").into());
        }
        let value: Value = serde_json::from_str(&told)?;
        let number = |name: &str| value[name].as_f64().ok_or_else(|| format!("the child told no {name}"));
        Ok(Told {
            rate: number("rate")?,
            waited: number("waited")?,
            longest_apply_ms: number("longest")?,
            peak_rss: number("rss")? as u64,
            entries: number("entries")? as u64,
        })
    }

    /// The settings of the child, and of those who open what it left.
    pub fn config(&self) -> StorageConfig {
        let Self { checkpoint_bytes, tree_cache_bytes, .. } = *self;
        let mut config = StorageConfig { checkpoint_bytes, tree_cache_bytes, ..StorageConfig::default() };
        if self.small {
            config.wal.cache_bytes = 16 << 20;
        }
        config
    }

    /// Does it, and does not return but with an error.
    pub fn run(&self) -> Result<()> {
        let config = self.config();
        let memory_bytes = config.checkpoint_bytes;
        let mut node = Node::open(&self.dir, config.clone())?;
        node.fill(0..self.keys)?;
        let (mut rate, mut waited, mut longest) = (0.0, 0.0, 0.0);
        if !self.time.is_zero() {
            let plan = Plan { keys: self.keys, time: self.time, config: config.clone() };
            let run = apply::run(&mut node, &plan, None)?;
            (rate, waited, longest) = (run.rate(), run.waited(), run.longest_apply_ms());
        }
        let entries = self.leave_tail(&mut node, memory_bytes)?;
        let rss = crate::clocks::peak_rss();
        println!(
            "{}",
            json!({ "rate": rate, "waited": waited, "longest": longest, "rss": rss, "entries": entries })
        );
        kill_process(getpid(), Signal::KILL)?;
        Err("survived SIGKILL".into())
    }

    /// Leaves entries in the log that no checkpoint covers: applied, as far as one memory goes, and committed.
    fn leave_tail(&self, node: &mut Node, memory_bytes: u64) -> Result<u64> {
        let batches = memory_bytes / MEMORY_BYTES / BATCH - 1;
        for turn in 0..self.memories * batches {
            let keys =
                (turn * BATCH..(turn + 1) * BATCH).map(|turn| (crate::load::shuffled(turn, self.keys), 2));
            let entries = node.puts(keys);
            if turn < batches {
                node.write(&entries)?;
            } else {
                node.save(&entries)?;
            }
        }
        harmony_types::Storage::sync(&*node.storage)?;
        Ok(self.memories * batches * BATCH)
    }
}

/// Whether what lies in `dir` has all that its child wrote.
pub fn check(node: &Node, keys: u64) -> Result<()> {
    for number in [0, keys / 2, keys - 1] {
        let found = node.storage.get(&crate::load::key(number))?.ok_or("a key is missing after the kill")?;
        let known = (0..=2).any(|generation| node.values.of(number, generation) == found.value);
        if !known {
            return Err("a value is wrong after the kill".into());
        }
    }
    Ok(())
}
