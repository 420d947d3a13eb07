//! Between accepting a connection and speaking HTTP on it: TLS, where a listener has it, and whom the certificate names.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use harmony_node::tls::{MaybeTls, Tls, client_name};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::auth::caller::CertificateUser;

/// How long a client may take for its part of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The first byte of a TLS connection: a record of a handshake.
const TLS_HANDSHAKE: u8 = 22;

/// What a listener speaks.
#[derive(Clone)]
pub(crate) enum Entrance {
    /// HTTP without TLS.
    Plain,
    /// TLS only.
    Tls(ClientTls),
    /// Either: the first byte tells.
    Both(ClientTls),
}

/// TLS of a listener for clients.
#[derive(Clone)]
pub(crate) struct ClientTls {
    pub(crate) tls: Arc<Tls>,
    /// Whether the common name of a certificate is a user's.
    pub(crate) names_users: bool,
}

/// A connection that came in, and the user of its certificate.
pub(crate) type Entered = (MaybeTls<TcpStream>, Option<CertificateUser>);

impl Entrance {
    /// Lets a connection in; `None` when it is not, which the log tells. Never waits longer than the time limit of a handshake.
    /// `places` bounds the handshakes under way: those that stall must leave room for connections that do not.
    pub(crate) async fn enter(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        places: &Semaphore,
    ) -> Option<Entered> {
        if let Self::Plain = self {
            return Some((MaybeTls::Plain(stream), None));
        }
        let entered = async {
            let _place = places.acquire().await.expect("the semaphore is never closed");
            self.shake_hands(stream).await
        };
        match timeout(HANDSHAKE_TIMEOUT, entered).await {
            Ok(Ok(entered)) => return Some(entered),
            // A probe that only looks whether the port is open.
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                tracing::debug!(%peer, %error, "a client left in the TLS handshake");
            }
            Ok(Err(error)) => tracing::warn!(%peer, %error, "a client was refused in the TLS handshake"),
            Err(_) => tracing::warn!(%peer, "a client did not finish the TLS handshake in time"),
        }
        None
    }

    async fn shake_hands(&self, stream: TcpStream) -> io::Result<Entered> {
        let client_tls = match self {
            Self::Plain => return Ok((MaybeTls::Plain(stream), None)),
            Self::Tls(client_tls) => client_tls,
            Self::Both(client_tls) => {
                let mut first = [0];
                if stream.peek(&mut first).await? == 0 || first != [TLS_HANDSHAKE] {
                    return Ok((MaybeTls::Plain(stream), None));
                }
                client_tls
            }
        };
        let stream = client_tls.tls.accept(stream).await?;
        // A certificate without a name is nobody's.
        let name = client_name(&stream).filter(|name| client_tls.names_users && !name.is_empty());
        Ok((MaybeTls::Tls(Box::new(stream.into())), name.map(CertificateUser)))
    }
}
