//! A client of a whole cluster that tries another member where nothing can have happened.

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use harmony_testkit::client::StateHash;
use harmony_testkit::wait::pause;
use harmony_testkit::{Client, NodeStatus, TestError};
use harmony_types::{KeyValue, Revision};

use super::GrpcClient;

/// Members tried before a call is given up, each many times.
const TRIES: usize = 3_000;

/// Rest before a member is tried that may be one that does not run.
const PAUSE: Duration = Duration::from_millis(1);

/// Does what gRPC's own clients do for any call: a call that was never sent, or that the server never looked at, goes to the
/// next member. Every other error is one that the caller would see.
pub(crate) struct Retrying {
    clients: Vec<GrpcClient>,
    /// The one that answered last.
    current: AtomicUsize,
    errors: Mutex<Vec<String>>,
    retried: AtomicUsize,
}

impl Retrying {
    /// A client of these members that begins with the one at `first`.
    pub(crate) fn new(endpoints: &[String], first: usize) -> Result<Self, TestError> {
        let clients = endpoints.iter().map(|endpoint| GrpcClient::new(endpoint)).collect::<Result<_, _>>()?;
        Ok(Self { clients, current: first.into(), errors: Mutex::default(), retried: AtomicUsize::default() })
    }

    /// The errors that callers saw.
    pub(crate) fn errors(&self) -> MutexGuard<'_, Vec<String>> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls that went to another member.
    pub(crate) fn retried(&self) -> usize {
        self.retried.load(Ordering::Relaxed)
    }

    fn call<T>(&self, call: impl Fn(&GrpcClient) -> Result<T, TestError>) -> Result<T, TestError> {
        let mut result = Err("not tried".into());
        for _ in 0..TRIES {
            let current = self.current.load(Ordering::Relaxed);
            result = call(&self.clients[current % self.clients.len()]);
            match &result {
                Err(error) if was_never_sent(&**error) => {
                    self.retried.fetch_add(1, Ordering::Relaxed);
                    self.current.store(current + 1, Ordering::Relaxed);
                    pause(PAUSE);
                }
                _ => break,
            }
        }
        if let Err(error) = &result {
            self.errors().push(chain(&**error));
        }
        result
    }
}

/// Whether an error says that no server began with the call.
fn was_never_sent(error: &(dyn Error + 'static)) -> bool {
    sources(error).any(|error| {
        let refused = error.downcast_ref::<io::Error>();
        let closed = error.downcast_ref::<hyper::Error>();
        let gone = error.downcast_ref::<h2::Error>();
        refused.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
            || closed.is_some_and(hyper::Error::is_canceled)
            // Streams above the last one that the server took up.
            || gone.is_some_and(|error| error.is_go_away() && error.is_remote())
    })
}

fn chain(error: &(dyn Error + 'static)) -> String {
    sources(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The error and what is behind it.
fn sources<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

impl Client for Retrying {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<Revision, TestError> {
        self.call(|client| client.put(key, value))
    }

    fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, TestError> {
        self.call(|client| client.get(key))
    }

    fn delete(&self, key: &[u8]) -> Result<Revision, TestError> {
        self.call(|client| client.delete(key))
    }

    fn status(&self) -> Result<NodeStatus, TestError> {
        self.call(GrpcClient::status)
    }

    fn state_hash(&self, revision: Revision) -> Result<StateHash, TestError> {
        self.call(|client| client.state_hash(revision))
    }
}
