//! Answers from the node's threads to requests that wait on the network thread, with one wake for a whole batch.
//!
//! A oneshot completed from another thread may cost a system call each; so the node's thread only appends to a vector and
//! wakes one task of the network thread, which completes the oneshots where their receivers run.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use harmony_node::{ReplySink, Waiter};
use harmony_types::NodeError;
use slab::Slab;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

/// What a request gets: the node's answer.
pub(crate) type Reply<T> = Result<T, NodeError>;

/// Where one answer arrives.
pub(crate) struct Receiver<T>(oneshot::Receiver<Reply<T>>);

impl<T> Receiver<T> {
    /// Waits for it, for as long as a request may take.
    pub(crate) async fn answer(self, limit: Duration) -> Reply<T> {
        match timeout(limit, self.0).await {
            // Nobody is left to answer when the network thread ends.
            Ok(answer) => answer.unwrap_or(Err(NodeError::Stopped)),
            Err(_) => Err(NodeError::Timeout),
        }
    }
}

/// The requests that wait, and the answers on their way.
pub(crate) struct Replies<T> {
    arrived: Mutex<Vec<(u64, Reply<T>)>>,
    /// Only the network thread locks it, so it never waits.
    waiting: Mutex<Slab<oneshot::Sender<Reply<T>>>>,
    wake: Notify,
}

/// A poisoned lock means that a thread panicked in between two steps that cannot panic: the data is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Send + 'static> Replies<T> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { arrived: Mutex::default(), waiting: Mutex::new(Slab::new()), wake: Notify::new() })
    }

    /// A waiter for one call to the node, and where its answer arrives. A caller that goes away before the answer frees
    /// nothing early: the node ends each waiter exactly once, and only then is its number used again.
    pub(crate) fn waiter(self: &Arc<Self>) -> (Waiter<T>, Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        let token = lock(&self.waiting).insert(sender);
        let sink: Arc<dyn ReplySink<T>> = Arc::clone(self) as _;
        (Waiter::new(sink, token as u64), Receiver(receiver))
    }

    /// Completes what arrives, for ever: one task of the network thread.
    pub(crate) async fn deliver(self: Arc<Self>) {
        let mut batch = Vec::new();
        loop {
            self.wake.notified().await;
            mem::swap(&mut batch, &mut *lock(&self.arrived));
            let mut waiting = lock(&self.waiting);
            for (token, reply) in batch.drain(..) {
                let token = usize::try_from(token).expect("the token was a slot");
                // The receiver is gone when the client went away.
                let _gone = waiting.remove(token).send(reply);
            }
        }
    }

    #[cfg(test)]
    fn waiting(&self) -> usize {
        lock(&self.waiting).len()
    }
}

impl<T: Send + 'static> ReplySink<T> for Replies<T> {
    fn complete(&self, batch: Vec<(u64, Reply<T>)>) {
        let mut arrived = lock(&self.arrived);
        let wake = arrived.is_empty() && !batch.is_empty();
        arrived.extend(batch);
        drop(arrived);
        if wake {
            self.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn each_request_gets_its_own_answer() {
        let replies = Replies::<u64>::new();
        tokio::spawn(Arc::clone(&replies).deliver());
        let ((first, first_answer), (second, second_answer)) = (replies.waiter(), replies.waiter());
        std::thread::spawn(move || {
            second.complete(Ok(10));
            first.complete(Err(NodeError::Busy));
        });
        assert_eq!(second_answer.answer(LONG).await.unwrap(), 10);
        assert!(matches!(first_answer.answer(LONG).await, Err(NodeError::Busy)));
        assert_eq!(replies.waiting(), 0);
    }

    #[tokio::test]
    async fn a_client_that_went_away_disturbs_nobody() {
        let replies = Replies::<u64>::new();
        tokio::spawn(Arc::clone(&replies).deliver());
        let (gone, answer) = replies.waiter();
        drop(answer);
        let (waiter, answer) = replies.waiter();
        assert_eq!(replies.waiting(), 2, "a number is not used again before its answer");
        gone.complete(Ok(1));
        waiter.complete(Ok(2));
        assert_eq!(answer.answer(LONG).await.unwrap(), 2);
        assert_eq!(replies.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_times_out() {
        let replies = Replies::<u64>::new();
        let (waiter, answer) = replies.waiter();
        assert!(matches!(answer.answer(LONG).await, Err(NodeError::Timeout)));
        drop(waiter);
    }

    #[tokio::test]
    async fn a_waiter_dropped_by_the_node_ends_as_stopped() {
        let replies = Replies::<u64>::new();
        tokio::spawn(Arc::clone(&replies).deliver());
        let (waiter, answer) = replies.waiter();
        drop(waiter);
        assert!(matches!(answer.answer(LONG).await, Err(NodeError::Stopped)));
    }
}
