//! 100,000 watchers on 1,000 keys, 1,000 writes a second: what they take in memory, and how long until each hears of a
//! write; first with readers that all read, then with 1 % of them stalled.
//!
//! Run it: `cargo run --release -p harmony-node --example watchers`
#![allow(clippy::print_stdout, reason = "it shows what it measures")]

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use harmony_node::watch::{WatchMessage, WatchRequest, WatchWake};
use harmony_node::{SystemClock, WatchHub, WatchOptions, WatchStream};
use harmony_storage::{StorageConfig, UnifiedStorage};
use harmony_types::txn::Put;
use harmony_types::{
    Clock, Command, CommandKind, Entry, EntryType, Event, HardState, KeyRange, LogIndex, Storage, Term,
};
use harmony_wal::OsFileSystem;

const STREAMS: usize = 100;
const WATCHERS_EACH: usize = 1_000;
const KEYS: usize = 1_000;
const WRITES: usize = 10_000;
const WRITES_A_SECOND: u64 = 1_000;
/// Of so many events one is timed.
const TIMED: usize = 16;

/// Puts its stream's number into the line of those to be polled.
struct Wake(usize, Mutex<Sender<usize>>);

impl WatchWake for Wake {
    fn wake(&self) {
        let _ = self.1.lock().unwrap_or_else(PoisonError::into_inner).send(self.0);
    }
}

/// What the readers heard.
#[derive(Default)]
struct Heard {
    events: usize,
    waits: Vec<Duration>,
}

impl Heard {
    fn add(&mut self, event: &Event, now: Duration) {
        self.events += 1;
        let value = event.kv.as_ref().and_then(|kv| kv.value.get(..8)?.try_into().ok());
        if let Some(written) = value
            && self.events.is_multiple_of(TIMED)
        {
            self.waits.push(now.saturating_sub(Duration::from_nanos(u64::from_le_bytes(written))));
        }
    }
}

/// Polls the streams that are woken, but for the first `stalled` of them, until `done`.
fn read(
    streams: &[WatchStream],
    stalled: usize,
    woken: &Receiver<usize>,
    clock: &SystemClock,
    done: &AtomicBool,
) -> Heard {
    let mut heard = Heard::default();
    loop {
        let number = match woken.recv_timeout(Duration::from_millis(200)) {
            Ok(number) if number < stalled => continue,
            Ok(number) => number,
            Err(RecvTimeoutError::Timeout) if !done.load(Ordering::Acquire) => continue,
            Err(_) => return heard,
        };
        loop {
            let messages = streams[number].poll(1 << 20);
            if messages.is_empty() {
                break;
            }
            let now = clock.now();
            for message in messages {
                if let WatchMessage::Events { events, .. } = message {
                    events.iter().for_each(|event| heard.add(event, now));
                }
            }
        }
    }
}

fn key(number: usize) -> Bytes {
    Bytes::from(format!("/registry/pods/{:06}", number % KEYS))
}

/// Writes at an even pace. A value begins with when it was written.
fn write(storage: &UnifiedStorage, clock: &SystemClock) -> Result<(), Box<dyn Error>> {
    let began = clock.now();
    for (number, index) in (0..WRITES).zip(1..) {
        let due = began + Duration::from_nanos(1_000_000_000 / WRITES_A_SECOND * index);
        clock.sleep(due.saturating_sub(clock.now()));
        let mut value = vec![0; 256];
        value[..8].copy_from_slice(&u64::try_from(clock.now().as_nanos())?.to_le_bytes());
        let put = Put { key: key(number * 7_919), value: value.into(), ..Put::default() };
        let data = Command::from(CommandKind::Put(put)).encode_to_bytes();
        let index = LogIndex(index);
        let entry = Entry { term: Term(1), index, entry_type: EntryType::Normal, data };
        let hard_state = HardState { term: Term(1), vote: None, commit: index };
        storage.save(Some(&hard_state), std::slice::from_ref(&entry))?;
        storage.apply(&[entry])?;
    }
    println!("{WRITES} writes in {:.2?}", clock.now() - began);
    Ok(())
}

/// Memory of this process now, MiB.
fn memory() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse::<u64>()? >> 10)
}

fn run(dir: &Path, stalled: usize) -> Result<(), Box<dyn Error>> {
    let config = StorageConfig { checkpoint_bytes: 16 << 20, ..StorageConfig::default() };
    let storage = UnifiedStorage::open(Arc::new(OsFileSystem), &dir.join("wal"), &dir.join("tree"), config)?;
    let (storage, clock) = (Arc::new(storage), SystemClock::new());
    let before = memory()?;
    let hub = WatchHub::start(Arc::clone(&storage) as _, WatchOptions::default())?;
    let (sender, woken) = channel();
    let mut streams = Vec::new();
    for number in 0..STREAMS {
        let stream = hub.stream(Arc::new(Wake(number, Mutex::new(sender.clone()))));
        for watcher in 0..WATCHERS_EACH {
            let keys = KeyRange::single(key(number * WATCHERS_EACH + watcher));
            stream.create(&WatchRequest { keys, prev_kv: watcher % 2 == 0, ..WatchRequest::default() })?;
        }
        while !stream.poll(u64::MAX).is_empty() {}
        streams.push(stream);
    }
    println!("{stalled} of {STREAMS} streams stalled; MiB before {before}, with watchers {}", memory()?);

    let done = AtomicBool::new(false);
    let mut heard = std::thread::scope(|scope| {
        let (streams, clock, done) = (&streams, &clock, &done);
        let reader = scope.spawn(move || read(streams, stalled, &woken, clock, done));
        let written = write(&storage, clock);
        done.store(true, Ordering::Release);
        let heard = reader.join().map_err(|_| "the reader panicked")?;
        written.map(|()| heard)
    })?;
    let expected = WRITES * (STREAMS - stalled) * WATCHERS_EACH / KEYS;
    assert_eq!(heard.events, expected, "each watcher hears of each write of its key");
    heard.waits.sort_unstable();
    let at = |part: usize| heard.waits[(heard.waits.len() - 1) * part / 1_000];
    println!(
        "{} events, p50 {:.2?}, p99 {:.2?}, p99.9 {:.2?}, at most {:.2?}; MiB at the end {}; {:?}",
        heard.events,
        at(500),
        at(990),
        at(999),
        at(1_000),
        memory()?,
        hub.metrics()
    );
    hub.close();
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("watchers-{}", std::process::id()));
    for stalled in [0, STREAMS / 100] {
        run(&dir.join(stalled.to_string()), stalled)?;
    }
    std::fs::remove_dir_all(dir)?;
    Ok(())
}
