//! Why a server ends: a signal, or a failure of its own.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::serve::Server;

/// Time between two looks at the server's health.
const LOOK: Duration = Duration::from_millis(100);

/// Why it ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It was told to.
    Signal(&'static str),
    /// It cannot go on.
    Failure(String),
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
    pub(crate) fn wait(mut self, server: &Server) -> Reason {
        self.runtime.block_on(async {
            let mut look = tokio::time::interval(LOOK);
            loop {
                tokio::select! {
                    _ = self.terminate.recv() => return Reason::Signal("SIGTERM"),
                    _ = self.interrupt.recv() => return Reason::Signal("SIGINT"),
                    _ = look.tick() => {
                        if let Some(failure) = server.failure() {
                            return Reason::Failure(failure);
                        }
                    }
                }
            }
        })
    }
}
