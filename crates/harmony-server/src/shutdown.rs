//! Why a server ends: a signal, a failure of its own, or a disk that does not come back.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use crate::serve::Server;

/// Time between two looks at the server's health.
const LOOK: Duration = Duration::from_millis(100);

/// How long each part of an end without the disk may take.
const PARTING: Duration = Duration::from_secs(3);

/// Exit code of that end.
const FAILURE: i32 = 1;

/// Why it ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It was told to.
    Signal(&'static str),
    /// It cannot go on.
    Failure(String),
    /// The log has been waiting for the disk for so long.
    DiskHangs(Duration),
}

/// Signals are taken from here on; one that comes before [`Signals::wait`] is not lost.
pub(crate) struct Signals {
    runtime: tokio::runtime::Runtime,
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    /// Takes SIGTERM and SIGINT over.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (terminate, interrupt) = {
            let _context = runtime.enter();
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
        };
        Ok(Self { runtime, terminate, interrupt })
    }

    /// Blocks until the server has to end.
    pub(crate) fn wait(mut self, server: &Server, disk_timeout: Option<Duration>) -> Reason {
        let mut disk = server.watch_disk();
        self.runtime.block_on(async {
            let mut look = tokio::time::interval(LOOK);
            // After a stall, one look and no more: the time in which nobody looked does not count.
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = self.terminate.recv() => return Reason::Signal("SIGTERM"),
                    _ = self.interrupt.recv() => return Reason::Signal("SIGINT"),
                    _ = look.tick() => {
                        if let Some(failure) = server.failure() {
                            return Reason::Failure(failure);
                        }
                        let waited = LOOK * disk.look();
                        if disk_timeout.is_some_and(|timeout| timeout <= waited) {
                            return Reason::DiskHangs(waited);
                        }
                    }
                }
            }
        })
    }
}

/// Ends the process without touching the disk, after `last_words` and when ports and connections are closed. Neither is waited for
/// without end: what the process says may go to the same disk.
pub(crate) fn end_without_disk(server: Server, last_words: impl FnOnce() + Send + 'static) -> ! {
    let (done, ended) = mpsc::channel();
    let disconnected = done.clone();
    let parts = [
        thread::Builder::new().name("harmony-last-words".to_owned()).spawn(move || {
            last_words();
            done.send(())
        }),
        thread::Builder::new().name("harmony-disconnect".to_owned()).spawn(move || {
            server.disconnect();
            disconnected.send(())
        }),
    ];
    for _ in parts.into_iter().flatten() {
        let _ended_or_late = ended.recv_timeout(PARTING);
    }
    std::process::exit(FAILURE)
}
