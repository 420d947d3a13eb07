//! Group commit: one thread at a time carries to the disk what all have appended, in one write and one sync.
//!
//! Whoever finds the writer gone waits, in one of two queues: those whom the flush under way will serve, and those of
//! the next. When it ends, all of the first are woken and one of the second, who flushes for the rest of them: nobody is
//! woken to find that it must wait again.
//!
//! Whoever flushes gives way first, for moments, to those whom the last flush let go: they most often come back with
//! more, and two groups that take turns would share a disk that one group could have alone. A thread that syncs alone
//! never gives way.

use std::sync::{Condvar, MutexGuard, PoisonError};
use std::thread;

use harmony_types::{LogIndex, Term, WalError, WalOffset};

use crate::frame::Kind;
use crate::wal::{FileWal, State};

/// Past so many bytes, an append writes what is pending (without a sync) if nobody else is writing: pieces that the
/// processor's cache holds are copied to the system's fastest.
const PIECE_BYTES: usize = 128 << 10;
/// Past so many bytes, it waits for its turn: memory stays bounded.
const PENDING_BYTES_MAX: usize = 4 << 20;

/// How often a flush gives way to threads that are expected: some 20 us, if they do not come.
const YIELDS_MAX: usize = 64;

/// The two queues; a flush serves the one of its parity.
#[derive(Default)]
pub(crate) struct Queues([Condvar; 2]);

/// Whose turn it is.
#[derive(Default)]
pub(crate) struct Turns {
    /// Flushes begun so far.
    flushes: usize,
    /// How far the sync under way goes; to the end of all, as long as it gives way.
    syncing: Option<WalOffset>,
    /// Threads that the last sync let go or left waiting.
    expected: usize,
    /// Threads in each queue.
    waiting: [usize; 2],
}

impl Turns {
    /// The queue of those whom the flush under way serves, then that of the others.
    fn queues(&self) -> (usize, usize) {
        (self.flushes % 2, (self.flushes + 1) % 2)
    }
}

impl FileWal {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // No code under the lock leaves the state half changed; a panic there is a broken invariant already reported.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the flush under way ends; with a target that its sync does not reach, until the next one may begin.
    fn wait<'a>(&self, mut state: MutexGuard<'a, State>, target: Option<WalOffset>) -> MutexGuard<'a, State> {
        let (served, next) = state.turns.queues();
        let reached = target.is_none_or(|target| state.turns.syncing.is_some_and(|upto| target <= upto));
        let queue = if reached { served } else { next };
        state.turns.waiting[queue] += 1;
        let mut state = self.queues.0[queue].wait(state).unwrap_or_else(PoisonError::into_inner);
        state.turns.waiting[queue] -= 1;
        state
    }

    /// Wakes those whose flush has ended, and one of the next.
    fn wake(&self, state: &State) {
        let (served, next) = state.turns.queues();
        if state.turns.waiting[served] != 0 {
            self.queues.0[served].notify_all();
        }
        if state.turns.waiting[next] != 0 {
            self.queues.0[next].notify_one();
        }
    }

    /// Writes what is pending, and syncs it if asked to. The writer must be here. The lock is not held meanwhile.
    fn flush<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        sync: bool,
    ) -> (MutexGuard<'a, State>, Result<(), WalError>) {
        let mut writer = state.writer.take().expect("the caller saw it");
        state.turns.flushes = state.turns.flushes.wrapping_add(1);
        if sync {
            state.turns.syncing = Some(WalOffset(u64::MAX));
            state = self.gather(state);
        }
        let spare = std::mem::take(&mut state.spare);
        let mut batch = std::mem::replace(&mut state.encoder.pending, spare);
        let upto = state.encoder.end();
        state.turns.syncing = sync.then_some(upto);
        drop(state);

        let result = writer.write(&batch, upto, sync);
        let bytes = batch.bytes.len() as u64;
        batch.clear(2 * PENDING_BYTES_MAX);

        let mut state = self.state();
        state.spare = batch;
        state.writer = Some(writer);
        state.turns.syncing = None;
        if sync {
            state.turns.expected = 1 + state.turns.waiting.iter().sum::<usize>();
        }
        let result = match result {
            Ok(made) => {
                state.segments.extend(made);
                state.written = upto;
                state.written_bytes += bytes;
                if sync {
                    state.encoder.durable = upto;
                }
                state.cache.trim(upto);
                Ok(())
            }
            Err(error) => {
                state.poisoned = Some(error.to_string());
                Err(error)
            }
        };
        self.wake(&state);
        (state, result)
    }

    /// Gives way until as many threads wait for this flush as took part lately.
    fn gather<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        for _ in 0..YIELDS_MAX {
            let (served, _) = state.turns.queues();
            if state.turns.expected <= 1 + state.turns.waiting[served] {
                break;
            }
            drop(state);
            thread::yield_now();
            state = self.state();
        }
        state
    }

    /// Returns when everything before `target` is durable: by this thread's sync, or by another's.
    pub(crate) fn sync_to<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        target: WalOffset,
    ) -> (MutexGuard<'a, State>, Result<(), WalError>) {
        loop {
            if target <= state.encoder.durable {
                return (state, Ok(()));
            }
            if let Err(error) = state.check_healthy() {
                // Whoever was woken in the same queue's stead must learn of it too.
                self.wake(&state);
                return (state, Err(error));
            }
            if state.writer.is_none() {
                state = self.wait(state, Some(target));
                continue;
            }
            let result;
            (state, result) = self.flush(state, true);
            if result.is_err() {
                return (state, result);
            }
        }
    }

    /// Writes what is pending when it is more than memory should hold.
    pub(crate) fn bound_memory<'a>(&'a self, mut state: MutexGuard<'a, State>) -> Result<(), WalError> {
        while PENDING_BYTES_MAX < state.encoder.pending.bytes.len() && state.writer.is_none() {
            state.check_healthy()?;
            state = self.wait(state, None);
        }
        if PIECE_BYTES < state.encoder.pending.bytes.len() && state.writer.is_some() {
            state.check_healthy()?;
            return self.flush(state, false).1;
        }
        Ok(())
    }

    /// Brings everything appended into the files, for a reader; a poisoned log reads what is there.
    pub(crate) fn state_for_reading(&self) -> Result<MutexGuard<'_, State>, WalError> {
        let mut state = self.state();
        let target = state.encoder.end();
        loop {
            state.check_readable()?;
            if target <= state.written || state.poisoned.is_some() {
                return Ok(state);
            }
            if state.writer.is_none() {
                state = self.wait(state, None);
                continue;
            }
            let result;
            (state, result) = self.flush(state, false);
            result?;
        }
    }

    /// Waits until no thread writes, whatever became of the log.
    pub(crate) fn wait_for_writer<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while state.writer.is_none() {
            state = self.wait(state, None);
        }
        state
    }

    /// Appends a note of the log to itself and syncs. Not held back by a quota: it is what frees space. Each segment has
    /// room for one; the next may need a segment, and then a disk that has none leaves the log as it was.
    pub(crate) fn push_release(&self, oldest: u32) -> Result<(), WalError> {
        let mut state = self.state();
        state.check_writable()?;
        let needed = state.encoder.new_segment_bytes_for_note();
        if needed != 0 {
            self.check_disk(&state, needed)?;
        }
        let oldest = oldest.max(state.encoder.oldest);
        state.encoder.oldest = oldest;
        state.push(Kind::Release, LogIndex(u64::from(oldest)), Term(0), &[], &[]);
        let target = state.encoder.end();
        self.sync_to(state, target).1
    }

    /// Poisons the log after a failure outside of the writer.
    pub(crate) fn poison(&self, error: &WalError) {
        let mut state = self.state();
        state.poisoned = Some(error.to_string());
        self.wake(&state);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::thread;

    use harmony_types::config::WalConfig;
    use harmony_types::fake::fs::{CallKind, MemoryFileSystem};
    use harmony_types::{Entry, Wal};

    use super::*;

    fn open(disk: &MemoryFileSystem) -> Result<FileWal, WalError> {
        FileWal::open(Arc::new(disk.clone()), Path::new("/wal"), WalConfig::default())
    }

    /// Another process may have the directory once a log is closed: what a thread still writes must be over by then.
    #[test]
    fn closing_a_poisoned_log_waits_for_the_write_under_way() {
        let disk = MemoryFileSystem::new();
        let wal = open(&disk).unwrap();
        let hold = disk.hold([CallKind::Write]);
        thread::scope(|scope| {
            let entry = Entry { term: Term(1), index: LogIndex(1), ..Entry::default() };
            wal.append_many(None, &[entry]).unwrap();
            let sync = scope.spawn(|| wal.sync());
            hold.wait_for(1);
            wal.poison(&WalError::Closed);
            let close = scope.spawn(|| wal.close());
            while !close.is_finished() && wal.state().turns.waiting.iter().sum::<usize>() == 0 {
                thread::yield_now();
            }
            let other = open(&disk).map(drop);
            assert!(matches!(other, Err(WalError::Locked { .. })), "{other:?}");
            drop(hold);
            sync.join().unwrap().unwrap();
            assert!(matches!(close.join().unwrap(), Err(WalError::Poisoned { .. })));
        });
        open(&disk).map(drop).unwrap();
    }
}
