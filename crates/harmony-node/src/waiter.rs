//! How a caller hears the end of its call: exactly once, many at a time.

use std::fmt;
use std::sync::Arc;

use harmony_types::NodeError;

/// Takes the ends of calls. A server has one for each network thread: it is called once for each batch, so that the
/// thread behind it is woken once for each batch and not once for each call.
///
/// Called from the node's threads: it must not block.
pub trait ReplySink<T>: Send + Sync {
    /// The calls that ended, by token.
    fn complete(&self, batch: Vec<(u64, Result<T, NodeError>)>);
}

/// The right to hear how one call ended. Ends exactly once: dropped unanswered it says [`NodeError::Stopped`].
pub struct Waiter<T> {
    sink: Option<Arc<dyn ReplySink<T>>>,
    token: u64,
}

impl<T> Waiter<T> {
    /// A waiter that answers to `sink` under `token`.
    #[must_use]
    pub fn new(sink: Arc<dyn ReplySink<T>>, token: u64) -> Self {
        Self { sink: Some(sink), token }
    }

    /// Ends this one call.
    pub fn complete(mut self, result: Result<T, NodeError>) {
        if let Some(sink) = self.sink.take() {
            sink.complete(vec![(self.token, result)]);
        }
    }
}

impl<T> Drop for Waiter<T> {
    fn drop(&mut self) {
        if let Some(sink) = self.sink.take() {
            sink.complete(vec![(self.token, Err(NodeError::Stopped))]);
        }
    }
}

impl<T> fmt::Debug for Waiter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Waiter({})", self.token)
    }
}

/// The calls that ended for one sink.
type SinkBatch<T> = (Arc<dyn ReplySink<T>>, Vec<(u64, Result<T, NodeError>)>);

/// Collects ends of calls and hands them over with one call for each sink.
pub struct ReplyBatch<T> {
    sinks: Vec<SinkBatch<T>>,
    errors: u64,
}

impl<T> Default for ReplyBatch<T> {
    fn default() -> Self {
        Self { sinks: Vec::new(), errors: 0 }
    }
}

impl<T> ReplyBatch<T> {
    /// Adds the end of one call.
    pub fn push(&mut self, mut waiter: Waiter<T>, result: Result<T, NodeError>) {
        let Some(sink) = waiter.sink.take() else { return };
        self.errors += u64::from(result.is_err());
        // The newest sinks are last and there are as many as network threads: a search from behind is short.
        match self.sinks.iter_mut().rev().find(|(known, _)| Arc::ptr_eq(known, &sink)) {
            Some((_, batch)) => batch.push((waiter.token, result)),
            None => self.sinks.push((sink, vec![(waiter.token, result)])),
        }
    }

    /// How many of them ended with an error.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// Hands everything over.
    pub fn flush(&mut self) {
        for (sink, batch) in self.sinks.drain(..) {
            sink.complete(batch);
        }
    }
}

impl<T> fmt::Debug for ReplyBatch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = self.sinks.iter().flat_map(|(_, batch)| batch.iter().map(|(token, _)| token));
        f.debug_list().entries(tokens).finish()
    }
}

impl<T> Drop for ReplyBatch<T> {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Recorder(Mutex<Vec<Vec<(u64, bool)>>>);

    impl ReplySink<u64> for Recorder {
        fn complete(&self, batch: Vec<(u64, Result<u64, NodeError>)>) {
            let batch = batch.into_iter().map(|(token, result)| (token, result.is_ok())).collect();
            self.0.lock().unwrap().push(batch);
        }
    }

    #[test]
    fn a_dropped_waiter_ends_as_stopped_and_an_answered_one_only_once() {
        let sink = Arc::new(Recorder::default());
        drop(Waiter::new(Arc::clone(&sink) as _, 1));
        Waiter::new(Arc::clone(&sink) as _, 2).complete(Ok(9u64));
        assert_eq!(*sink.0.lock().unwrap(), [vec![(1, false)], vec![(2, true)]]);
    }

    #[test]
    fn a_batch_calls_each_sink_once() {
        let (one, two) = (Arc::new(Recorder::default()), Arc::new(Recorder::default()));
        let mut batch = ReplyBatch::default();
        for token in 0..3 {
            batch.push(Waiter::new(Arc::clone(&one) as _, token), Ok(token));
            batch.push(Waiter::new(Arc::clone(&two) as _, token), Ok(token));
        }
        batch.flush();
        for sink in [one, two] {
            assert_eq!(*sink.0.lock().unwrap(), [vec![(0, true), (1, true), (2, true)]]);
        }
    }
}
