//! Fewer, larger writes: what an HTTP connection writes is gathered and goes out with one system call at its flush.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::methods::Counters;

/// Bytes that a client must send before it counts as one: as long as what opens an HTTP/2 connection.
const GREETING_BYTES: usize = 24;

/// Bytes gathered before they go out without waiting for a flush.
const BUFFER_BYTES: usize = 64 << 10;

/// An I/O object whose writes are gathered until it is flushed.
///
/// `is_write_vectored` stays false: the HTTP/2 layer then hands over frame head and payload as one write.
pub(crate) struct Co<T> {
    inner: T,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that went out already.
    written: usize,
    /// Bytes of the greeting that are still missing.
    missing: usize,
    heard: Arc<AtomicBool>,
    /// Where its bytes are counted.
    counters: Option<Arc<Counters>>,
}

impl<T> Co<T> {
    pub(crate) fn new(inner: T, counters: Option<Arc<Counters>>) -> Self {
        let heard = Arc::new(AtomicBool::new(false));
        Self { inner, buffer: Vec::new(), written: 0, missing: GREETING_BYTES, heard, counters }
    }

    /// Becomes true when the other side has said enough to be a client.
    pub(crate) fn heard(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.heard)
    }
}

impl<T: AsyncWrite + Unpin> Co<T> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.buffer.len() {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, &self.buffer[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => {
                    self.written += bytes;
                    if let Some(counters) = &self.counters {
                        counters.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
                    }
                }
            }
        }
        self.written = 0;
        self.buffer.clear();
        // An idle connection should not hold what one large answer needed.
        if BUFFER_BYTES < self.buffer.capacity() {
            self.buffer.shrink_to(BUFFER_BYTES);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Co<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let bytes = buffer.filled().len() - before;
        if let Some(counters) = self.counters.as_ref().filter(|_| 0 < bytes) {
            counters.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        if 0 < self.missing {
            self.missing = self.missing.saturating_sub(bytes);
            if self.missing == 0 {
                self.heard.store(true, Ordering::Relaxed);
            }
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Co<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if BUFFER_BYTES <= self.buffer.len() {
            ready!(self.poll_drain(cx))?;
        }
        let taken = bytes.len().min(BUFFER_BYTES);
        self.buffer.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Counts writes and takes at most so many bytes in one.
    struct Slow {
        calls: usize,
        step: usize,
        bytes: Vec<u8>,
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.calls += 1;
            let taken = bytes.len().min(self.step);
            self.bytes.extend_from_slice(&bytes[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn small_writes_become_one() {
        let mut co = Co::new(Slow { calls: 0, step: usize::MAX, bytes: Vec::new() }, None);
        for _ in 0..100 {
            co.write_all(b"0123456789").await.unwrap();
        }
        assert_eq!(co.inner.calls, 0, "nothing leaves before the flush");
        co.flush().await.unwrap();
        assert_eq!(co.inner.calls, 1);
        assert_eq!(co.inner.bytes.len(), 1000);
    }

    #[tokio::test]
    async fn partial_writes_lose_and_repeat_nothing() {
        let mut co = Co::new(Slow { calls: 0, step: 7, bytes: Vec::new() }, None);
        let sent: Vec<u8> = (0..200_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        co.write_all(&sent).await.unwrap();
        assert!(co.buffer.len() <= 2 * BUFFER_BYTES, "the buffer is bounded");
        co.shutdown().await.unwrap();
        assert_eq!(co.inner.bytes, sent);
    }

    #[tokio::test]
    async fn reads_pass_through() {
        let (mut near, far) = tokio::io::duplex(64);
        near.write_all(b"hello").await.unwrap();
        let mut read = [0; 5];
        Co::new(far, None).read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"hello");
    }

    #[tokio::test]
    async fn a_client_is_heard_once_its_greeting_is_whole() {
        let (mut near, far) = tokio::io::duplex(64);
        let mut co = Co::new(far, None);
        let heard = co.heard();
        for (bytes, whole) in [(10, false), (13, false), (1, true), (5, true)] {
            near.write_all(&vec![b'x'; bytes]).await.unwrap();
            co.read_exact(&mut vec![0; bytes]).await.unwrap();
            assert_eq!(heard.load(Ordering::Relaxed), whole, "after {bytes} bytes more");
        }
    }
}
