//! Connections that end without taking from their client what it was told.
//!
//! A socket that is closed while bytes from the other side wait in it, or arrive later, answers with a reset. A client that still
//! sends when a server goes away (HTTP/2 allows it, and the server's last word says which requests were not looked at) would
//! then find its connection broken, perhaps before it reads that word, and not know what became of its request. So the
//! server says that nothing more comes, and reads on, to no purpose, until its client has closed, too.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a client may take to close: the way there and back, and a bit more.
const LINGER: Duration = Duration::from_millis(500);

/// Bytes read at once, to no purpose.
const DISCARD_BYTES: usize = 4 << 10;

/// An I/O object that waits for the other side when it is shut down.
pub(crate) struct Linger<T> {
    inner: T,
    /// Nothing more is written; when that ends.
    closing: Option<Pin<Box<Sleep>>>,
}

impl<T> Linger<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, closing: None }
    }
}

impl<T: AsyncRead + Unpin> Linger<T> {
    /// Reads until the other side has closed.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [0; DISCARD_BYTES];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Linger<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Linger<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
        }
        let mut closing = self.closing.take().unwrap_or_else(|| Box::pin(sleep(LINGER)));
        if self.poll_discard(cx).is_ready() || closing.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        self.closing = Some(closing);
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_when_its_client_has_closed() {
        let (mut client, server) = duplex(64);
        let mut server = Linger::new(server);
        server.write_all(b"last word").await.unwrap();
        let end = tokio::spawn(async move { server.shutdown().await });
        // More than fits: the server takes it all the same.
        client.write_all(&[0; 10_000]).await.unwrap();
        assert!(!end.is_finished());
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "last word");
        drop(client);
        timeout(LINGER / 2, end).await.unwrap().unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_close_is_waited_for_once() {
        let (_client, server) = duplex(64);
        let mut server = Linger::new(server);
        timeout(LINGER / 2, server.shutdown()).await.unwrap_err();
        timeout(LINGER, server.shutdown()).await.unwrap().unwrap();
    }
}
