//! Linearizable reads share rounds: all that arrive while one read index is under way get the next one together.
//!
//! A read may never use a round that began before it arrived: what was acknowledged in between would be missing.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use harmony_node::Node;
use harmony_node::metrics::Counter;
use harmony_storage::UnifiedStorage;
use harmony_types::NodeError;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::status::ApiError;
use crate::net::replies::Replies;

type Reader = oneshot::Sender<Result<(), ApiError>>;

/// The reads that wait for the next round.
pub(crate) struct Reads {
    node: Node<UnifiedStorage>,
    replies: Arc<Replies<()>>,
    next: Mutex<Vec<Reader>>,
    wake: Notify,
    timeout: Duration,
    /// Rounds that nobody answered in time.
    pub(crate) slow: Counter,
    /// Rounds that were refused: there is no leader, or another.
    pub(crate) failed: Counter,
}

impl Reads {
    pub(crate) fn new(node: Node<UnifiedStorage>, timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            node,
            replies: Replies::new(),
            next: Mutex::default(),
            wake: Notify::new(),
            timeout,
            slow: Counter::default(),
            failed: Counter::default(),
        })
    }

    /// Waits for a round that begins after this call.
    pub(crate) async fn wait(&self) -> Result<(), ApiError> {
        let (sender, receiver) = oneshot::channel();
        self.next.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        self.wake.notify_one();
        match timeout(self.timeout, receiver).await {
            Ok(result) => result.unwrap_or(Err(ApiError::STOPPED)),
            Err(_) => Err(ApiError::TIMEOUT),
        }
    }

    /// One round after the other, for ever: a task of the network thread.
    pub(crate) async fn run(self: Arc<Self>) {
        tokio::spawn(Arc::clone(&self.replies).deliver());
        loop {
            self.wake.notified().await;
            let readers = mem::take(&mut *self.next.lock().unwrap_or_else(PoisonError::into_inner));
            if readers.is_empty() {
                continue;
            }
            let (waiter, receiver) = self.replies.waiter();
            self.node.read_index(waiter);
            let result = receiver.answer(self.timeout).await;
            match &result {
                Ok(()) | Err(NodeError::Stopped) => {}
                Err(NodeError::Timeout) => self.slow.add(1),
                Err(_) => self.failed.add(1),
            }
            let result = result.map_err(ApiError::from);
            for reader in readers {
                // The receiver is gone when the client went away.
                let _gone = reader.send(result.clone());
            }
        }
    }
}
