//! The mailbox between two of the node's threads: pushes never block, the reader takes everything at once.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Something that is filled by many and taken whole by one.
#[derive(Debug, Default)]
pub(crate) struct Mailbox<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct State<T> {
    content: T,
    filled: bool,
    closed: bool,
}

/// What the reader woke up to.
pub(crate) enum Taken<T> {
    /// Somebody put something in.
    Content(T),
    /// Nobody did in time.
    TimedOut,
    /// The mailbox was closed and is empty.
    Closed,
}

impl<T: Default> Mailbox<T> {
    /// Changes the content and wakes the reader, if it was empty. Returns `None`, without the change, once closed.
    pub(crate) fn put<R>(&self, change: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        let result = change(&mut state.content);
        let was_filled = std::mem::replace(&mut state.filled, true);
        drop(state);
        if !was_filled {
            self.filled.notify_one();
        }
        Some(result)
    }

    /// Takes the content, waiting up to `timeout` (or without end) for some.
    pub(crate) fn take(&self, timeout: Option<Duration>) -> Taken<T> {
        let mut state = self.lock();
        if !state.filled && !state.closed {
            state = match timeout {
                // A wake without content ends as `TimedOut`: the caller looks at its clock and comes again.
                Some(timeout) => {
                    self.filled.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self
                    .filled
                    .wait_while(state, |state| !state.filled && !state.closed)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
        if std::mem::take(&mut state.filled) {
            Taken::Content(std::mem::take(&mut state.content))
        } else if state.closed {
            Taken::Closed
        } else {
            Taken::TimedOut
        }
    }

    /// Takes the content, if there is some.
    pub(crate) fn try_take(&self) -> Option<T> {
        let mut state = self.lock();
        std::mem::take(&mut state.filled).then(|| std::mem::take(&mut state.content))
    }

    /// Somebody put something in.
    pub(crate) fn is_filled(&self) -> bool {
        self.lock().filled
    }

    /// Refuses everything from now on; what is in there can still be taken.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code of ours panics while it holds the lock; if one did, the content is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_taken_at_once_and_a_closed_mailbox_is_emptied_first() {
        let mailbox = Mailbox::<Vec<u8>>::default();
        assert!(matches!(mailbox.take(Some(Duration::ZERO)), Taken::TimedOut));
        mailbox.put(|content| content.push(1));
        mailbox.put(|content| content.push(2));
        mailbox.close();
        assert!(mailbox.put(|content| content.push(3)).is_none());
        assert!(matches!(mailbox.take(None), Taken::Content(content) if content == [1, 2]));
        assert!(matches!(mailbox.take(None), Taken::Closed));
    }
}
