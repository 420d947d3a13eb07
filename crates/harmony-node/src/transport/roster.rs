//! The list of members, for somebody who is to become one: one question, one answer, then the end of the connection.

use std::io::{self, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};

use bytes::BytesMut;
use harmony_types::{ClusterId, LogIndex, Membership, NodeId, SnapshotMeta, Term, limits};
use prost::Message as _;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::tls::{Tls, TlsConfig};
use crate::transport::TransportError;
use crate::transport::address::Address;
use crate::transport::frame;
use crate::transport::handshake::{self, HELLO_BYTES_MAX, invalid, read_frame_blocking};
use crate::transport::peer::HANDSHAKE_TIMEOUT;
use crate::transport::stream::BlockingStream;
use crate::transport::tcp::Wires;
use crate::transport::wire::{self, WireRoster};

/// Which cluster it is, and who belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its members, as the member that was asked has them applied.
    pub membership: Membership,
}

/// Asks the member at a peer URL who the members are, on a thread that may block. The caller is no member yet: it calls
/// itself `from`, which nobody checks.
///
/// # Errors
/// TLS that cannot be used; else [`TransportError::Roster`]: nobody answers there, or not as a member does.
pub fn ask_roster(url: &str, from: NodeId, tls: Option<&TlsConfig>) -> Result<Roster, TransportError> {
    let tls = tls.cloned().map(Tls::open).transpose()?;
    let address = Address::of(url)?;
    let ask = || -> io::Result<Roster> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for socket_address in address.authority.to_socket_addrs()? {
            let stream = match TcpStream::connect_timeout(&socket_address, HANDSHAKE_TIMEOUT) {
                Ok(stream) => stream,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            let mut stream = BlockingStream::dialed(stream, &address, tls.as_ref(), HANDSHAKE_TIMEOUT)?;
            let mut out = BytesMut::new();
            frame::encode(&handshake::stranger(from), HELLO_BYTES_MAX, &mut out).map_err(invalid)?;
            stream.write_all(&out)?;
            stream.flush()?;
            let answer = read_frame_blocking(&mut stream, limits::PEER_FRAME_BYTES_MAX)?;
            let wire = WireRoster::decode(answer)?;
            let members = wire.members.ok_or_else(|| invalid("an answer without members"))?;
            let membership = wire::snapshot_from_wire(members).map_err(invalid)?.membership;
            return Ok(Roster { cluster: ClusterId(wire.cluster), membership });
        }
        Err(last)
    };
    ask().map_err(|source| TransportError::Roster { url: url.to_owned(), source })
}

/// Answers somebody who asked.
///
/// # Errors
/// The connection; [`io::ErrorKind::NotConnected`] while this member is still starting.
pub(super) async fn tell(wires: &Wires, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let starting = || io::Error::new(io::ErrorKind::NotConnected, "the node is still starting");
    let membership = wires.members().ok_or_else(starting)?;
    let meta = SnapshotMeta { index: LogIndex::ZERO, term: Term(0), membership };
    let roster = WireRoster { cluster: wires.own.cluster.0, members: Some(wire::snapshot_to_wire(&meta)) };
    let mut out = BytesMut::new();
    frame::encode(&roster, limits::PEER_FRAME_BYTES_MAX, &mut out).map_err(invalid)?;
    stream.write_all(&out).await?;
    stream.flush().await?;
    stream.shutdown().await
}
