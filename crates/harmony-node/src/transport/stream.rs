//! A connection to a peer, plain or through TLS, for tasks and for threads that may block.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

use crate::tls::{MaybeTls, Tls};
use crate::transport::address::Address;
use crate::transport::handshake::invalid;

/// A connection of the peer thread.
pub(super) type PeerStream = MaybeTls<TcpStream>;

impl PeerStream {
    /// Goes on with a connection that was dialed, through TLS when the address says so.
    ///
    /// # Errors
    /// There is no TLS to dial with, or the other side is not who it should be.
    pub(in crate::transport) async fn dialed(
        stream: TcpStream,
        address: &Address<'_>,
        tls: Option<&Arc<Tls>>,
    ) -> io::Result<Self> {
        if !address.tls {
            return Ok(Self::Plain(stream));
        }
        let tls = tls.ok_or_else(no_tls)?;
        tls.refresh_soon().await;
        let connector = TlsConnector::from(tls.client().ok_or_else(no_tls)?);
        let stream = connector.connect(server_name(address)?, stream).await?;
        Ok(Self::Tls(Box::new(stream.into())))
    }

    /// Goes on with a connection that was accepted.
    ///
    /// # Errors
    /// The other side is not let in.
    pub(in crate::transport) async fn accepted(
        stream: TcpStream,
        tls: Option<&Arc<Tls>>,
    ) -> io::Result<Self> {
        let Some(tls) = tls else { return Ok(Self::Plain(stream)) };
        let stream = tls.accept(stream).await?;
        Ok(Self::Tls(Box::new(stream.into())))
    }

    /// The same connection for a thread that may block; each read and write waits up to `timeout`.
    ///
    /// # Errors
    /// The system refuses.
    pub(in crate::transport) fn into_blocking(self, timeout: Duration) -> io::Result<BlockingStream> {
        let plain = |stream: TcpStream| {
            let stream = stream.into_std()?;
            stream.set_nonblocking(false)?;
            set_timeouts(&stream, timeout)?;
            Ok::<_, io::Error>(stream)
        };
        Ok(match self {
            Self::Plain(stream) => BlockingStream::Plain(plain(stream)?),
            Self::Tls(stream) => match *stream {
                TlsStream::Client(stream) => {
                    let (stream, tls) = stream.into_inner();
                    BlockingStream::Dialed(Box::new(StreamOwned::new(tls, plain(stream)?)))
                }
                TlsStream::Server(stream) => {
                    let (stream, tls) = stream.into_inner();
                    BlockingStream::Accepted(Box::new(StreamOwned::new(tls, plain(stream)?)))
                }
            },
        })
    }
}

/// A connection of a thread that may block.
pub(super) enum BlockingStream {
    Plain(std::net::TcpStream),
    Dialed(Box<StreamOwned<ClientConnection, std::net::TcpStream>>),
    Accepted(Box<StreamOwned<ServerConnection, std::net::TcpStream>>),
}

impl BlockingStream {
    /// As [`PeerStream::dialed`]. The handshake happens with the first read or write.
    ///
    /// # Errors
    /// There is no TLS to dial with, or the system refuses.
    pub(super) fn dialed(
        stream: std::net::TcpStream,
        address: &Address<'_>,
        tls: Option<&Arc<Tls>>,
        timeout: Duration,
    ) -> io::Result<Self> {
        set_timeouts(&stream, timeout)?;
        if !address.tls {
            return Ok(Self::Plain(stream));
        }
        let tls = tls.ok_or_else(no_tls)?;
        tls.refresh();
        let client = tls.client().ok_or_else(no_tls)?;
        let connection = ClientConnection::new(client, server_name(address)?).map_err(invalid)?;
        Ok(Self::Dialed(Box::new(StreamOwned::new(connection, stream))))
    }

    /// The socket below.
    pub(super) fn socket(&self) -> &std::net::TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Dialed(stream) => stream.get_ref(),
            Self::Accepted(stream) => stream.get_ref(),
        }
    }
}

fn set_timeouts(stream: &std::net::TcpStream, timeout: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))
}

fn server_name(address: &Address<'_>) -> io::Result<ServerName<'static>> {
    ServerName::try_from(address.host().to_owned()).map_err(invalid)
}

fn no_tls() -> io::Error {
    let reason = "an https:// URL, but this member has no certificate, key and trusted CA for peers";
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

impl Read for BlockingStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buf),
            Self::Dialed(stream) => stream.read(buf),
            Self::Accepted(stream) => stream.read(buf),
        }
    }
}

impl Write for BlockingStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(buf),
            Self::Dialed(stream) => stream.write(buf),
            Self::Accepted(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Dialed(stream) => stream.flush(),
            Self::Accepted(stream) => stream.flush(),
        }
    }
}
