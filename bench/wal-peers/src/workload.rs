//! What is done to each peer, and timed.

use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use bench_harness::random::Random;

use crate::Result;
use crate::payload::Payloads;
use crate::peer::{Log, Peer, Purpose, Writer};
use crate::stats::Sample;

/// Threads of group commit.
const THREADS: u64 = 16;

/// Un-synced calls between two looks at the clock.
const CALLS_A_LOOK: u64 = 64;

/// Written between two releases where files are recycled.
const RELEASE_BYTES: u64 = 16 << 20;

/// Written before the first release, so that there are files to recycle.
const USED_BYTES: u64 = 320 << 20;

/// Entries of a batch where a log is filled to be read.
const FILL_BATCH: usize = 64;

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Workload {
    W1,
    W64,
    Gc16,
    Un256,
    Un4k,
    Recover,
    Random,
    Recover1,
    Random1,
    RecycledW1,
    RecycledW64,
    RecycledGc16,
}

impl Workload {
    pub const ALL: [Self; 12] = [
        Self::W1,
        Self::W64,
        Self::Gc16,
        Self::Un256,
        Self::Un4k,
        Self::Recover,
        Self::Random,
        Self::Recover1,
        Self::Random1,
        Self::RecycledW1,
        Self::RecycledW64,
        Self::RecycledGc16,
    ];

    /// As given to `--only`.
    pub fn key(self) -> &'static str {
        match self {
            Self::W1 => "w1",
            Self::W64 => "w64",
            Self::Gc16 => "gc16",
            Self::Un256 => "un256",
            Self::Un4k => "un4k",
            Self::Recover => "recover",
            Self::Random => "random",
            Self::Recover1 => "recover1",
            Self::Random1 => "random1",
            Self::RecycledW1 => "recycled-w1",
            Self::RecycledW64 => "recycled-w64",
            Self::RecycledGc16 => "recycled-gc16",
        }
    }

    pub fn describe(self) -> &'static str {
        match self {
            Self::W1 => "one thread, 256 B + sync",
            Self::W64 => "one thread, 64 x 256 B + one sync",
            Self::Gc16 => "16 threads, each 256 B + sync",
            Self::Un256 => "one thread, 256 B a call, no sync (the sync at the end is not in entries/s)",
            Self::Un4k => "one thread, 4 KiB a call, no sync (the sync at the end is not in entries/s)",
            Self::Recover => "open and read all in order, 256 B entries written 64 a call, page cache warm",
            Self::Random => "read by index in random order over that log",
            Self::Recover1 => "as recover, entries written one a call",
            Self::Random1 => "read by index in random order over that log",
            Self::RecycledW1 => "w1 after release (purge), files recycled",
            Self::RecycledW64 => "w64 after release (purge), files recycled, releasing every 16 MiB",
            Self::RecycledGc16 => "gc16 after release (purge), files recycled",
        }
    }

    /// Who can do it at all.
    pub fn fits(self, peer: Peer) -> bool {
        match (self, peer) {
            (_, Peer::Harmony | Peer::RaftEngine) => true,
            // Batches below 8 KiB are not compressed either way.
            (Self::W64 | Self::RecycledW64 | Self::Recover | Self::Random, Peer::RaftEngineNoLz4) => true,
            // It would sync a million times to write that log.
            (Self::Recover1 | Self::Random1, Peer::OkayWal) => false,
            (_, Peer::RaftEngineNoLz4) => false,
            (Self::Un256 | Self::Un4k, Peer::OkayWal) => false,
            (_, Peer::OkayWal) => true,
            (Self::W1 | Self::W64 | Self::Gc16 | Self::Un256 | Self::Un4k, Peer::Raw) => true,
            (_, Peer::Raw) => false,
        }
    }

    /// Entries a call in the log that is there before; `None` where each measurement makes its own.
    pub fn filled_by(self) -> Option<usize> {
        match self {
            Self::Recover | Self::Random => Some(FILL_BATCH),
            Self::Recover1 | Self::Random1 => Some(1),
            _ => None,
        }
    }

    fn recycles(self) -> bool {
        matches!(self, Self::RecycledW1 | Self::RecycledW64 | Self::RecycledGc16)
    }

    /// What is measured in one opening of a log.
    pub fn groups() -> [&'static [Self]; 8] {
        [
            &[Self::W1],
            &[Self::W64],
            &[Self::Gc16],
            &[Self::Un256],
            &[Self::Un4k],
            &[Self::Recover, Self::Random],
            &[Self::Recover1, Self::Random1],
            &[Self::RecycledW1, Self::RecycledW64, Self::RecycledGc16],
        ]
    }
}

/// How much.
pub struct Plan {
    /// Of each measurement; a tenth of it goes before, unmeasured.
    pub time: Duration,
    /// In the log that is recovered; a multiple of what is written in a call.
    pub entries: u64,
    pub small: Payloads,
    pub large: Payloads,
}

/// Measures `workloads` in one opening of `peer`'s log in `dir`; a log to recover lies there already.
pub fn measure(
    plan: &Plan,
    peer: Peer,
    workloads: &[Workload],
    dir: &Path,
) -> Result<Vec<(Workload, Sample)>> {
    let mut samples = Vec::new();
    let first = workloads[0];
    if first.filled_by().is_some() {
        let (log, sample) = recover(plan, peer, dir)?;
        for workload in workloads {
            let reads = matches!(workload, Workload::Random | Workload::Random1);
            samples.push((*workload, if reads { random_reads(plan, &*log)? } else { sample.clone() }));
        }
    } else {
        let log = if first.recycles() { used(plan, peer, dir)? } else { peer.open(dir, Purpose::Keep)? };
        for workload in workloads {
            rustix::fs::sync();
            samples.push((*workload, append(plan, peer, &*log, *workload)?));
        }
    }
    Ok(samples)
}

/// Writes the log that is recovered later.
pub fn fill(plan: &Plan, peer: Peer, batch: usize, dir: &Path) -> Result<()> {
    let log = peer.open(dir, Purpose::Fill)?;
    let mut writer = log.writer(0, &plan.small, batch)?;
    for _ in 0..plan.entries / batch as u64 {
        writer.append(peer == Peer::OkayWal)?;
    }
    log.sync()
}

/// A log that has given up many entries and writes to a file that it had used before.
fn used(plan: &Plan, peer: Peer, dir: &Path) -> Result<Box<dyn Log>> {
    let log = peer.open(dir, Purpose::Recycle)?;
    let write = |bytes: u64| {
        let mut writer = log.writer(0, &plan.large, FILL_BATCH)?;
        for _ in 0..bytes / (FILL_BATCH as u64 * 4096) {
            writer.append(peer == Peer::OkayWal)?;
        }
        log.sync()
    };
    // okaywal, which syncs each time, has files of 1 MiB.
    write(if peer == Peer::OkayWal { USED_BYTES / 10 } else { USED_BYTES })?;
    log.release()?;
    // To the end of the file that was begun before.
    write(log.file_bytes())?;
    Ok(log)
}

fn append(plan: &Plan, peer: Peer, log: &dyn Log, workload: Workload) -> Result<Sample> {
    let sample = match workload {
        Workload::W1 => synced(plan, log, 1, false),
        Workload::W64 => synced(plan, log, 64, false),
        Workload::RecycledW1 => synced(plan, log, 1, true),
        Workload::RecycledW64 => synced(plan, log, 64, true),
        Workload::Gc16 | Workload::RecycledGc16 => group_commit(plan, log),
        Workload::Un256 => unsynced(plan, log, &plan.small),
        Workload::Un4k => unsynced(plan, log, &plan.large),
        _ => Err("nothing is appended here".into()),
    }?;
    // Not for show: an entry that cannot be read back was not logged.
    let keeps = !matches!(peer, Peer::Raw) && (peer != Peer::OkayWal || !workload.recycles());
    if keeps {
        let payloads = if workload == Workload::Un4k { &plan.large } else { &plan.small };
        log.read(0, log.last(0), &mut |data| payloads.slot_of(data).map(drop))?;
    }
    Ok(sample)
}

/// One thread; each call is timed.
fn synced(plan: &Plan, log: &dyn Log, batch: usize, releases: bool) -> Result<Sample> {
    let mut writer = log.writer(0, &plan.small, batch)?;
    let mut nanos = Vec::with_capacity(1 << 20);
    let mut since_release = 0;
    let warm = Instant::now() + plan.time / 10;
    while Instant::now() < warm {
        writer.append(true)?;
    }
    let start = Instant::now();
    let mut last = start;
    while last - start < plan.time {
        writer.append(true)?;
        since_release += batch as u64 * 256;
        if releases && RELEASE_BYTES <= since_release {
            log.release()?;
            since_release = 0;
        }
        let now = Instant::now();
        nanos.push((now - last).as_nanos() as u64);
        last = now;
    }
    let entries = (nanos.len() * batch) as f64;
    Ok(Sample::new(entries / (last - start).as_secs_f64()).with_latencies(nanos))
}

/// One thread that never waits for the disk unless the peer makes it.
fn unsynced(plan: &Plan, log: &dyn Log, payloads: &Payloads) -> Result<Sample> {
    let mut writer = log.writer(0, payloads, 1)?;
    let warm = Instant::now() + plan.time / 10;
    while Instant::now() < warm {
        writer.append(false)?;
    }
    let start = Instant::now();
    let mut entries = 0;
    let took = loop {
        for _ in 0..CALLS_A_LOOK {
            writer.append(false)?;
        }
        entries += CALLS_A_LOOK;
        let took = start.elapsed();
        if plan.time <= took {
            break took;
        }
    };
    let end = Instant::now();
    log.sync()?;
    Ok(Sample::new(entries as f64 / took.as_secs_f64()).with_last_sync(end.elapsed()))
}

/// Threads that append one entry each and wait for it to be durable.
fn group_commit(plan: &Plan, log: &dyn Log) -> Result<Sample> {
    let barrier = Barrier::new(THREADS as usize);
    // In the recycled run the first lane has a past with other entries.
    let hands = (0..THREADS).map(|lane| log.writer(lane, &plan.small, 1)).collect::<Result<Vec<_>>>()?;
    let nanos: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = hands
            .into_iter()
            .map(|writer| scope.spawn(|| commit_in_a_loop(plan.time, writer, &barrier)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "a thread panicked")?)
            .collect::<Result<_>>()
    })?;
    let nanos: Vec<u64> = nanos.into_iter().flatten().collect();
    Ok(Sample::new(nanos.len() as f64 / plan.time.as_secs_f64()).with_latencies(nanos))
}

/// The latencies of the commits that ended within the measured time, the same for all threads.
fn commit_in_a_loop(time: Duration, mut writer: Box<dyn Writer + '_>, barrier: &Barrier) -> Result<Vec<u64>> {
    let mut nanos = Vec::with_capacity(1 << 16);
    barrier.wait();
    let start = Instant::now();
    let warm = time / 10;
    let mut last = Duration::ZERO;
    loop {
        writer.append(true)?;
        let now = start.elapsed();
        if warm + time <= now {
            return Ok(nanos);
        }
        if warm <= now {
            nanos.push((now - last).as_nanos() as u64);
        }
        last = now;
    }
}

/// Opens and reads until the time is over; each time is complete. The last opening is returned.
fn recover(plan: &Plan, peer: Peer, dir: &Path) -> Result<(Box<dyn Log>, Sample)> {
    let entries = plan.entries;
    let once = || -> Result<Box<dyn Log>> {
        let (mut next, mut bytes) = (1, 0);
        let log = peer.recover(dir, &mut |index, data| {
            if index != next {
                return Err(format!("read entry {index} instead of {next}").into());
            }
            next += 1;
            // One byte of each cache line would do; a user looks at the data.
            bytes += data.len() as u64;
            std::hint::black_box(data);
            Ok(())
        })?;
        if (next - 1, bytes) != (entries, entries * 256) {
            return Err(format!("recovered {} entries of {bytes} bytes, not {entries}", next - 1).into());
        }
        Ok(log)
    };
    let warm = once()?;
    let mut random = Random::new(1);
    for _ in 0..1000 {
        let index = 1 + random.next() % entries;
        warm.read(0, index, &mut |data| plan.small.check(index, data))?;
    }
    drop(warm);
    let start = Instant::now();
    let mut runs = 0;
    loop {
        let log = once()?;
        runs += 1;
        let took = start.elapsed();
        if plan.time <= took {
            return Ok((log, Sample::new((runs * entries) as f64 / took.as_secs_f64())));
        }
    }
}

fn random_reads(plan: &Plan, log: &dyn Log) -> Result<Sample> {
    let mut random = Random::new(2);
    let start = Instant::now();
    let mut reads = 0;
    loop {
        for _ in 0..CALLS_A_LOOK {
            let index = 1 + random.next() % plan.entries;
            log.read(0, index, &mut |data| {
                std::hint::black_box(data);
                Ok(())
            })?;
        }
        reads += CALLS_A_LOOK;
        let took = start.elapsed();
        if plan.time <= took {
            return Ok(Sample::new(reads as f64 / took.as_secs_f64()));
        }
    }
}
