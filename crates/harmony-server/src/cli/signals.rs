//! What ends a command that goes on until it is told to stop, and then still has something to do.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::client::ClientError;

/// Which signal came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// SIGINT: a terminal sends it to all that run in it.
    Interrupt,
    /// SIGTERM: sent to this process.
    Terminate,
}

/// SIGINT and SIGTERM, which no longer end the process by themselves.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes them over.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn new() -> Result<Self, ClientError> {
        let take = || -> io::Result<Self> {
            Ok(Self {
                interrupt: signal(SignalKind::interrupt())?,
                terminate: signal(SignalKind::terminate())?,
            })
        };
        take().map_err(|source| ClientError::Io { action: "take signals over", source })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Interrupt,
            _ = self.terminate.recv() => Stop::Terminate,
        }
    }
}
