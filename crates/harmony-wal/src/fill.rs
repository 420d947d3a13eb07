//! Fills the next segment with zeros while there is time, so that its syncs change nothing but data.
//!
//! A piece at a time, with a pause behind each while the log is slow: the disk belongs to the log. When synced groups come
//! faster, the filler keeps pace with them, so that the next segment is full when the open one is. A log that outruns it
//! takes the spare as far as it is filled, and settles the rest as it goes (`writer.rs`), or reserves space for a new
//! segment: only the step to the next segment waits for the filler, for one piece at most. The filler works through a file handle of its own, as the system reports a failed write to each handle
//! once: the log must learn of its own.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use harmony_types::{Clock, File, OpenMode, WalError};

use crate::preallocate::SegmentFile;
use crate::spare::Spares;
use crate::wal::FileWal;

/// Written at once.
const PIECE_BYTES: usize = 256 << 10;
/// Between two pieces that nobody waits for: some 60 MB/s at most.
const PAUSE: Duration = Duration::from_millis(3);
/// A new spare is made only while the disk has room for so many: the last of it is for the log itself.
const SEGMENTS_FREE_MIN: u64 = 8;

static ZEROS: Piece = Piece([0; PIECE_BYTES]);

/// Aligned to every block.
#[repr(align(4096))]
struct Piece([u8; PIECE_BYTES]);

/// A thread that keeps one spare segment filled; see [`FileWal::fill_ahead`]. Dropping it ends the thread.
pub struct Filler {
    spares: Arc<Spares>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FileWal {
    /// Starts a thread that makes and fills the next segment ahead of need, paced by `clock`, once a quarter of the open
    /// one is used.
    ///
    /// Without it the log does everything in its callers' threads, which costs a sync in some dozens a write of at most
    /// a MiB more. A log with a quota fills released segments and makes no new ones.
    ///
    /// # Errors
    /// [`WalError::Io`] when the system gives no thread.
    pub fn fill_ahead(&self, clock: Arc<dyn Clock>) -> Result<Filler, WalError> {
        let stopped = Arc::new(AtomicBool::new(false));
        let mut work = Work::new(self, Arc::clone(&stopped));
        let thread = thread::Builder::new()
            .name("wal-fill".to_owned())
            .spawn(move || work.run(&*clock))
            .map_err(WalError::io("start the thread that fills", &self.dir))?;
        Ok(Filler { spares: Arc::clone(&self.spares), stopped, thread: Some(thread) })
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        self.spares.wake();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported, and spares may be in any state.
            let _ = thread.join();
        }
    }
}

/// The thread's own.
struct Work {
    spares: Arc<Spares>,
    stopped: Arc<AtomicBool>,
    makes_new: bool,
    /// Spares made so far.
    made: u64,
    /// The spare that is being filled.
    open: Option<(PathBuf, Arc<dyn File>)>,
}

/// What there is to do.
enum Task {
    /// Fill this spare from this byte on.
    Fill(PathBuf, u64),
    /// Make a spare.
    Make,
}

impl Work {
    fn new(wal: &FileWal, stopped: Arc<AtomicBool>) -> Self {
        let (spares, makes_new) = (Arc::clone(&wal.spares), wal.config.quota_bytes.is_none());
        Self { spares, stopped, makes_new, made: 0, open: None }
    }

    fn run(&mut self, clock: &dyn Clock) {
        while let Some(task) = self.next() {
            let done = match &task {
                Task::Fill(path, filled) => self.fill(path, *filled),
                Task::Make => self.make(),
            };
            if let Err(error) = done {
                let dir = self.spares.dir.display();
                tracing::warn!(%dir, %error, "no segments are filled ahead any more");
                if let Task::Fill(path, _) = task {
                    self.spares.give_up(&path);
                }
                return;
            }
            if !self.is_behind() {
                clock.sleep(PAUSE);
            }
        }
    }

    /// Whether the log is about to catch up.
    fn is_behind(&self) -> bool {
        let filled = self.spares.ready().iter().map(|spare| spare.filled).max();
        filled.unwrap_or(0) < self.spares.wanted()
    }

    /// Waits for something to do; `None` at the end.
    fn next(&self) -> Option<Task> {
        let mut ready = self.spares.ready();
        loop {
            if self.stopped.load(Ordering::Acquire) || self.spares.is_closed() {
                return None;
            }
            match ready.iter().max_by_key(|spare| spare.filled) {
                _ if self.spares.wanted() == 0 => {}
                // By another filler.
                Some(spare) if spare.filling => {}
                Some(spare) if spare.filled < self.spares.segment_bytes => {
                    return Some(Task::Fill(spare.segment.path.to_path_buf(), spare.filled));
                }
                None if self.makes_new && self.has_room() => return Some(Task::Make),
                _ => {}
            }
            ready = self.spares.wait(ready);
        }
    }

    fn has_room(&self) -> bool {
        let needed = SEGMENTS_FREE_MIN * self.spares.segment_bytes;
        self.spares.fs.free_bytes(&self.spares.dir).is_ok_and(|free| needed <= free)
    }

    fn make(&mut self) -> io::Result<()> {
        let Spares { fs, dir, segment_bytes, .. } = &*self.spares;
        let _changing = self.spares.changing();
        // While this thread waited, the log may have been closed, or released segments may have come.
        if self.spares.is_closed() || !self.spares.ready().is_empty() {
            return Ok(());
        }
        // Beyond the sequence numbers of segments, after which released ones are named.
        let path = loop {
            self.made += 1;
            let path = dir.join(format!("{:016x}.free", (1 << 32) + self.made));
            if !fs.exists(&path)? {
                break path;
            }
        };
        let file = fs.open(&path, OpenMode::CreateNew)?;
        if let Err(error) = file.allocate(*segment_bytes).and_then(|()| file.sync_all()) {
            fs.remove_file(&path)?;
            return Err(error);
        }
        self.spares.add(SegmentFile { file, path: path.into(), bytes: *segment_bytes });
        Ok(())
    }

    /// Fills a piece of a spare. Nothing happens to a file that is in use by then.
    fn fill(&mut self, path: &PathBuf, filled: u64) -> io::Result<()> {
        let file = match &self.open {
            Some((open, file)) if open == path => Arc::clone(file),
            _ => match self.spares.fs.open(path, OpenMode::ReadWrite) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            },
        };
        self.open = Some((path.clone(), Arc::clone(&file)));
        let bytes = (self.spares.segment_bytes - filled).min(PIECE_BYTES as u64);
        let piece = &ZEROS.0[..usize::try_from(bytes).expect("bounded by a constant")];
        let Some(mut filling) = self.spares.begin_filling(path, filled) else { return Ok(()) };
        let blocks = file.block_bytes().is_some_and(|block_bytes| piece.len().is_multiple_of(block_bytes));
        let written = if blocks {
            // Past the cache nothing piles up that the log's syncs would have to carry along. The sync that makes the
            // spare a segment settles all pieces at once.
            file.write_blocks(piece, filled, false)
        } else {
            file.write_at(piece, filled).and_then(|()| file.sync_data())
        };
        if written.is_ok() {
            filling.filled = filled + bytes;
        }
        if filling.filled == self.spares.segment_bytes {
            // A handle would keep the space of the segment that it becomes.
            self.open = None;
        }
        drop(filling);
        written
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;
    use harmony_types::config::WalConfig;
    use harmony_types::fake::clock::VirtualClock;
    use harmony_types::fake::fs::{CallKind, Crash, Fault, MemoryFileSystem};
    use harmony_types::{Entry, LogIndex, Term, Wal};

    use super::*;

    const SEGMENT: u64 = 4 * PIECE_BYTES as u64;

    fn open(disk: &MemoryFileSystem, quota_bytes: Option<u64>) -> FileWal {
        let config =
            WalConfig { segment_bytes: SEGMENT, cache_bytes: 0, quota_bytes, ..WalConfig::default() };
        FileWal::open(Arc::new(disk.clone()), Path::new("/wal"), config).unwrap()
    }

    fn append(wal: &FileWal, entries: u64) {
        for _ in 0..entries {
            let index = wal.bounds().last.next();
            let data = Bytes::from(vec![7; 100_000]);
            wal.append_many(None, &[Entry { term: Term(1), index, data, ..Entry::default() }]).unwrap();
            wal.sync().unwrap();
        }
    }

    fn filled(wal: &FileWal) -> Vec<u64> {
        wal.spares.ready().iter().map(|spare| spare.filled).collect()
    }

    /// Lets the filler work until the spare that is furthest is filled so far.
    fn fill(clock: &VirtualClock, wal: &FileWal, upto: u64) {
        for _ in 0..1_000_000 {
            if Some(&upto) <= filled(wal).iter().max() {
                return;
            }
            clock.advance(PAUSE);
            thread::yield_now();
        }
        panic!("filled {:?}, not {upto}", filled(wal));
    }

    #[test]
    fn a_spare_is_made_and_filled_piece_by_piece_and_the_log_takes_it() {
        let (disk, clock) = (MemoryFileSystem::new(), VirtualClock::new());
        let wal = open(&disk, None);
        let filler = wal.fill_ahead(Arc::new(clock.clone())).unwrap();
        append(&wal, 2);
        assert_eq!(disk.calls(CallKind::Allocate), 2, "the first segment and the reserve: the log is small");
        append(&wal, 1);
        fill(&clock, &wal, SEGMENT);
        assert_eq!(filled(&wal), [SEGMENT]);
        assert_eq!(wal.disk_bytes(), 2 * SEGMENT);
        disk.start_trace([CallKind::Write]);
        append(&wal, 9);
        let writes = disk.take_trace();
        let in_second: Vec<_> = writes.iter().filter(|line| line.contains("0000000000000002-")).collect();
        assert_eq!(in_second.len(), 2, "records alone, no zeros: {writes:?}");
        clock.stop();
        drop(filler);
        let wal = open(&disk.crash_image(Crash::LoseUnsynced), None);
        assert_eq!(wal.bounds().last, LogIndex(12));
    }

    #[test]
    fn a_log_that_outruns_the_filler_takes_what_there_is() {
        let (disk, clock) = (MemoryFileSystem::new(), VirtualClock::new());
        let wal = open(&disk, None);
        let filler = wal.fill_ahead(Arc::new(clock.clone())).unwrap();
        append(&wal, 3);
        fill(&clock, &wal, PIECE_BYTES as u64);
        append(&wal, 33);
        clock.stop();
        drop(filler);
        let wal = open(&disk.crash_image(Crash::LoseUnsynced), None);
        let held = wal.entries(LogIndex(1)..LogIndex(37), u64::MAX).unwrap();
        assert!(held.iter().all(|entry| entry.data == vec![7; 100_000]));
    }

    /// Nobody advances the clock: pieces that the log is about to need come without a pause.
    #[test]
    fn the_filler_keeps_pace_with_synced_groups() {
        let (disk, clock) = (MemoryFileSystem::new(), VirtualClock::new());
        let wal = open(&disk, None);
        append(&wal, 10);
        let filler = wal.fill_ahead(Arc::new(clock.clone())).unwrap();
        clock.wait_for_sleepers(1);
        assert_eq!(filled(&wal), [SEGMENT]);
        clock.stop();
        drop(filler);
    }

    #[test]
    fn nobody_but_who_takes_a_spare_waits_for_a_piece() {
        let (disk, clock) = (MemoryFileSystem::new(), VirtualClock::new());
        let wal = open(&disk, None);
        append(&wal, 3);
        let filler = wal.fill_ahead(Arc::new(clock.clone())).unwrap();
        fill(&clock, &wal, PIECE_BYTES as u64);
        let path = wal.spares.ready()[0].segment.path.clone();
        let hold = disk.hold([CallKind::Write]);
        thread::scope(|scope| {
            // The filler writes, or will before it does anything else.
            for _ in 0..4 {
                clock.advance(PAUSE);
            }
            hold.wait_for(1);
            assert!(wal.spares.ready().iter().any(|spare| spare.filling && spare.segment.path == path));
            assert_eq!(wal.disk_bytes(), 2 * SEGMENT);
            wal.append_many(None, &[]).unwrap();
            let taken = scope.spawn(|| wal.spares.take(SEGMENT).map(|spare| spare.filling));
            for _ in 0..10_000 {
                assert!(!taken.is_finished(), "its bytes are not at rest");
                thread::yield_now();
            }
            drop(hold);
            assert_eq!(taken.join().unwrap(), Some(false));
        });
        clock.stop();
        drop(filler);
    }

    /// With two of them, one that has finished its piece says nothing about the other's.
    #[test]
    fn two_fillers_do_not_write_to_one_spare() {
        let disk = MemoryFileSystem::new();
        let wal = open(&disk, None);
        let mut works = [(); 2].map(|()| Work::new(&wal, Arc::default()));
        works[0].make().unwrap();
        let path = wal.spares.ready()[0].segment.path.to_path_buf();
        let _first = wal.spares.begin_filling(&path, 0).expect("the first is about to write");
        works[1].fill(&path, 0).unwrap();
        assert!(
            wal.spares.ready()[0].filling,
            "the first has not written yet, and anybody may take the spare"
        );
    }

    #[test]
    fn released_segments_are_filled_and_a_quota_makes_no_new_ones() {
        let (disk, clock) = (MemoryFileSystem::new(), VirtualClock::new());
        let wal = open(&disk, Some(4 * SEGMENT));
        let filler = wal.fill_ahead(Arc::new(clock.clone())).unwrap();
        append(&wal, 34);
        wal.release(wal.bounds().last).unwrap();
        append(&wal, 3);
        fill(&clock, &wal, SEGMENT);
        assert!(wal.disk_bytes() <= 4 * SEGMENT);
        clock.stop();
        drop(filler);
    }

    /// Once a log is closed its files may be another process's: nothing of the first one may write to them.
    #[test]
    fn a_closed_log_is_left_alone() {
        let (disk, clock) = (MemoryFileSystem::new(), VirtualClock::new());
        let wal = open(&disk, None);
        let filler = wal.fill_ahead(Arc::new(clock.clone())).unwrap();
        append(&wal, 3);
        fill(&clock, &wal, PIECE_BYTES as u64);
        wal.close().unwrap();
        let next = open(&disk, None);
        append(&next, 12);
        let calls = disk.call_counts();
        clock.stop();
        drop(filler);
        assert_eq!(disk.call_counts(), calls);
        let held = next.entries(LogIndex(1)..LogIndex(16), u64::MAX).unwrap();
        assert!(held.iter().all(|entry| entry.data == vec![7; 100_000]));
    }

    #[test]
    fn closing_waits_for_a_spare_in_the_making() {
        let (disk, clock) = (MemoryFileSystem::new(), VirtualClock::new());
        let wal = open(&disk, None);
        append(&wal, 3);
        let hold = disk.hold([CallKind::Allocate]);
        let filler = wal.fill_ahead(Arc::new(clock.clone())).unwrap();
        hold.wait_for(1);
        thread::scope(|scope| {
            let close = scope.spawn(|| {
                wal.close().unwrap();
                disk.call_counts()
            });
            // A close that does not wait has every chance to end before the call goes on.
            for _ in 0..10_000 {
                if close.is_finished() {
                    break;
                }
                thread::yield_now();
            }
            drop(hold);
            let calls = close.join().unwrap();
            clock.stop();
            drop(filler);
            assert_eq!(disk.call_counts(), calls);
        });
    }

    #[test]
    fn a_disk_that_fails_the_filler_costs_the_log_nothing() {
        for call in [CallKind::Write, CallKind::Sync, CallKind::Open, CallKind::Allocate] {
            let (disk, clock) = (MemoryFileSystem::new(), VirtualClock::new());
            let wal = open(&disk, None);
            disk.inject(Fault::on([call]).on_path(".free"));
            append(&wal, 3);
            let mut filler = wal.fill_ahead(Arc::new(clock.clone())).unwrap();
            clock.stop();
            filler.thread.take().unwrap().join().unwrap();
            assert_eq!((disk.faults_struck(), filled(&wal)), (1, Vec::new()), "{call:?}");
            append(&wal, 9);
            assert_eq!(open(&disk.crash_image(Crash::LoseUnsynced), None).bounds().last, LogIndex(12));
        }
    }

    #[test]
    fn a_nearly_full_disk_is_left_to_the_log() {
        let disk = MemoryFileSystem::new();
        let wal = open(&disk, None);
        let work = Work::new(&wal, Arc::default());
        for (free, has_room) in
            [(SEGMENTS_FREE_MIN * SEGMENT - 1, false), (SEGMENTS_FREE_MIN * SEGMENT, true)]
        {
            disk.set_capacity(Some(disk.used_bytes() + free));
            assert_eq!(work.has_room(), has_room, "{free}");
        }
    }
}
