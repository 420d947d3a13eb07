//! Threads that work in the background: long work that nobody waits for at the moment, as making a checkpoint, beside threads
//! that answer somebody.
//!
//! A lower priority alone is not enough where processors are scarce: a thread that runs keeps its processor for some
//! milliseconds, whoever wakes meanwhile. So long work also gives way between its pieces.

use std::cell::Cell;
use std::thread;

/// Weight of a background thread: about a third of the others', so that those who wait for it in the end, as apply does for
/// a checkpoint when memory is full, do not wait for long.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

/// Calls of [`give_way`] for one time that it does: a piece of work is some microseconds long.
const PIECES: u32 = 8;

thread_local! {
    /// Pieces done since this thread gave way; nothing in a thread that works in the foreground.
    static DONE: Cell<Option<u32>> = const { Cell::new(None) };
}

/// From here on, the calling thread lets the others go first: it has a lower priority, and [`give_way`] gives way. There is no
/// way back; a thread that it starts has the priority, and does not give way until it calls this.
///
/// Where the system has one priority for a whole process, or does not allow to lower it, that stays as it is.
pub fn work_in_background() {
    DONE.set(Some(0));
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{getpriority_process, setpriority_process};
        // Of the thread, whatever the names say.
        let lower = getpriority_process(None).map(|nice| nice.max(NICE));
        if let Err(error) = lower.and_then(|nice| setpriority_process(None, nice)) {
            tracing::debug!(%error, "the system refuses a lower priority");
        }
    }
}

/// Lets waiting threads run, now and then, when the calling one works in the background. To be called between pieces of work of
/// some microseconds; costs next to nothing elsewhere.
pub fn give_way() {
    if let Some(done) = DONE.get() {
        DONE.set(Some((done + 1) % PIECES));
        if done == 0 {
            thread::yield_now();
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_the_thread_that_asks_works_in_the_background() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let lowered = thread::spawn(move || {
            work_in_background();
            work_in_background();
            (nice(), DONE.get())
        });
        assert_eq!(lowered.join().unwrap(), (before.max(NICE), Some(0)));
        give_way();
        assert_eq!((nice(), DONE.get()), (before, None));
    }
}
