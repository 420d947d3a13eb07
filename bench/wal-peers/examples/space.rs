//! Which space a synced write should go into: the measurement behind the log's zeros ahead and its filler.
//!
//! `cargo run --release --example space -- DIRECTORY [GROUP_BYTES] [MIB] [ROUNDS]` writes groups, each with one write
//! and one `fdatasync`, into segments of 64 MiB whose space was prepared in different ways, in turn.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock and lets the disk rest")]

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const SEGMENT: u64 = 64 << 20;

#[derive(Clone, Copy, Debug)]
enum Space {
    /// Zeros were written and synced before: the best there can be, its cost left out.
    Zeroed,
    /// Reserved and never written.
    Reserved,
    /// Reserved; a group that runs out of settled space writes so many KiB of zeros behind itself.
    Ahead(u64),
    /// As `Ahead`, in files that were written and then emptied.
    EmptiedAhead(u64),
    /// A thread always fills the next file, so many KiB at a time.
    Filler(u64),
}

const SPACES: [Space; 7] = [
    Space::Zeroed,
    Space::Reserved,
    Space::Ahead(256),
    Space::Ahead(1024),
    Space::EmptiedAhead(1024),
    Space::Filler(256),
    Space::Filler(1024),
];

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("which directory?")?).join("space");
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (group, bytes, rounds) = (number(19_456)?, number(128)? << 20, number(3)?);
    let mut samples = vec![Vec::new(); SPACES.len()];
    for _ in 0..rounds {
        for (space, samples) in SPACES.iter().zip(&mut samples) {
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir)?;
            samples.push(measure(*space, &dir, usize::try_from(group)?, bytes)?);
        }
    }
    fs::remove_dir_all(&dir)?;
    println!("| space | groups/s | p50 us | p99 us | p999 us |\n| --- | --- | --- | --- | --- |");
    for (space, samples) in SPACES.iter().zip(&mut samples) {
        samples.sort_by(|a, b| a[0].total_cmp(&b[0]));
        let [per_s, p50, p99, p999] = samples[samples.len() / 2];
        println!("| {space:?} | {per_s:.0} | {p50:.0} | {p99:.0} | {p999:.0} |");
    }
    Ok(())
}

/// Groups a second, and percentiles of the time that one takes.
fn measure(space: Space, dir: &Path, group: usize, bytes: u64) -> Result<[f64; 4]> {
    let mut ready = Vec::new();
    for slot in 0..bytes / SEGMENT {
        match space {
            Space::Zeroed => ready.push(zeroed(&dir.join(format!("ready{slot}")))?),
            Space::EmptiedAhead(_) => {
                let file = zeroed(&dir.join(format!("ready{slot}")))?;
                fallocate(&file, FallocateFlags::ZERO_RANGE, 0, SEGMENT)?;
                file.sync_all()?;
                ready.push(file);
            }
            _ => {}
        }
    }
    let ready = Arc::new(Mutex::new(ready));
    let stop = Arc::new(AtomicBool::new(false));
    let filler = match space {
        Space::Filler(kib) => {
            take(&ready, Some(zeroed(&dir.join("first"))?));
            let (dir, ready, stop) = (dir.to_owned(), Arc::clone(&ready), Arc::clone(&stop));
            Some(thread::spawn(move || fill(&dir, kib << 10, &ready, &stop)))
        }
        _ => None,
    };
    rustix::fs::sync();
    thread::sleep(Duration::from_millis(300));
    let ahead = match space {
        Space::Ahead(kib) | Space::EmptiedAhead(kib) => kib << 10,
        _ => 0,
    };
    let result = write(dir, group, bytes, ahead, &ready);
    stop.store(true, Ordering::Relaxed);
    if let Some(filler) = filler {
        filler.join().map_err(|_| "the filler panicked")??;
    }
    result
}

fn write(dir: &Path, group: usize, bytes: u64, ahead: u64, ready: &Mutex<Vec<File>>) -> Result<[f64; 4]> {
    let mut buffer = vec![7; group];
    buffer.resize(group + usize::try_from(ahead)?, 0);
    let (mut nanos, begin) = (Vec::new(), Instant::now());
    for slot in 0..bytes / SEGMENT {
        let file = match take(ready, None) {
            Some(file) => file,
            None => reserved(&dir.join(format!("segment{slot}")))?,
        };
        let (mut at, mut settled) = (0, 0);
        while at + group as u64 <= SEGMENT {
            let (start, end) = (Instant::now(), at + group as u64);
            let mut written = group;
            if ahead != 0 && settled < end {
                settled = (end + ahead).min(SEGMENT);
                written = usize::try_from(settled - at)?;
            }
            file.write_all_at(&buffer[..written], at)?;
            file.sync_data()?;
            nanos.push(start.elapsed().as_nanos() as f64);
            at = end;
        }
    }
    let per_s = nanos.len() as f64 / begin.elapsed().as_secs_f64();
    nanos.sort_by(f64::total_cmp);
    let at = |share: f64| nanos[(nanos.len() as f64 * share) as usize] / 1e3;
    Ok([per_s, at(0.5), at(0.99), at(0.999)])
}

/// Puts a file in, or takes one out.
fn take(ready: &Mutex<Vec<File>>, put: Option<File>) -> Option<File> {
    let mut ready = ready.lock().unwrap_or_else(PoisonError::into_inner);
    match put {
        Some(file) => {
            ready.push(file);
            None
        }
        None => ready.pop(),
    }
}

fn fill(dir: &Path, piece: u64, ready: &Mutex<Vec<File>>, stop: &AtomicBool) -> Result<()> {
    let zeros = vec![0; usize::try_from(piece)?];
    for slot in 0.. {
        while !stop.load(Ordering::Relaxed)
            && !ready.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
        {
            thread::sleep(Duration::from_millis(1));
        }
        let file = reserved(&dir.join(format!("filled{slot}")))?;
        for at in (0..SEGMENT).step_by(zeros.len()) {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            file.write_all_at(&zeros, at)?;
            file.sync_data()?;
        }
        take(ready, Some(file));
    }
    Ok(())
}

fn reserved(path: &Path) -> Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, SEGMENT)?;
    file.sync_all()?;
    Ok(file)
}

fn zeroed(path: &Path) -> Result<File> {
    let file = reserved(path)?;
    let zeros = vec![0; 1 << 20];
    for at in (0..SEGMENT).step_by(zeros.len()) {
        file.write_all_at(&zeros, at)?;
    }
    file.sync_all()?;
    Ok(file)
}
