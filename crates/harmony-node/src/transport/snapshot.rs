//! Snapshots on a connection of their own, in checksummed chunks, on threads that may block.
//!
//! The receiving side collects the content in a file without a name: a half-arrived snapshot leaves nothing behind.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use harmony_types::{Message, NodeId, Snapshot, SnapshotData, limits};
use prost::Message as _;

use crate::transport::frame;
use crate::transport::handshake::{self, invalid, read_frame_blocking};
use crate::transport::peer::HANDSHAKE_TIMEOUT;
use crate::transport::tcp::{Wires, address_of};
use crate::transport::wire::{self, Purpose, WireMessage};

/// Content in one frame, bytes.
const CHUNK_BYTES: usize = 256 << 10;

/// Time without progress after which a transfer is given up. Installing may take a while, but only arrival is awaited.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Chunk {
    #[prost(bytes = "bytes", tag = "1")]
    data: Bytes,
    /// The last chunk: no data, but the size of all.
    #[prost(bool, tag = "2")]
    end: bool,
    #[prost(uint64, tag = "3")]
    total_bytes: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Arrival {
    /// Empty: it arrived whole and was taken.
    #[prost(string, tag = "1")]
    refusal: String,
}

/// Sends a snapshot to one of `urls`; returns once the other side has taken it.
///
/// # Errors
/// The connection, a refusal, or the content, which failed to read.
pub(super) fn send(
    wires: &Wires,
    urls: &[String],
    announcement: Message,
    snapshot: Snapshot,
) -> io::Result<()> {
    let mut stream = connect(wires, announcement.to, urls)?;
    let mut out = BytesMut::new();
    let put = |out: &mut BytesMut, stream: &mut TcpStream| {
        let written = stream.write_all(out);
        out.clear();
        written
    };
    frame::encode(&wire::message_to_wire(announcement), limits::PEER_FRAME_BYTES_MAX, &mut out)
        .map_err(invalid)?;
    put(&mut out, &mut stream)?;
    let mut reader = snapshot.data.into_reader();
    let mut total_bytes = 0;
    loop {
        let mut data = Vec::with_capacity(CHUNK_BYTES);
        reader.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut data)?;
        let end = data.is_empty();
        total_bytes += data.len() as u64;
        let chunk = Chunk { data: data.into(), end, total_bytes };
        frame::encode(&chunk, 2 * CHUNK_BYTES, &mut out).map_err(invalid)?;
        put(&mut out, &mut stream)?;
        if end {
            break;
        }
    }
    let answer = read_frame_blocking(&mut stream, CHUNK_BYTES)?;
    let refusal = Arrival::decode(answer).map_err(invalid)?.refusal;
    if refusal.is_empty() { Ok(()) } else { Err(io::Error::other(refusal)) }
}

fn connect(wires: &Wires, to: NodeId, urls: &[String]) -> io::Result<TcpStream> {
    let mut result = Err(io::Error::new(io::ErrorKind::NotFound, "the member has no peer URL"));
    for url in urls {
        let attempt = address_of(url).map_err(invalid).and_then(|address| {
            for address in address.to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, HANDSHAKE_TIMEOUT) {
                    Ok(stream) => return Ok(stream),
                    Err(error) => result = Err(error),
                }
            }
            Err(io::Error::new(io::ErrorKind::NotFound, format!("{url} cannot be reached")))
        });
        match attempt {
            Ok(mut stream) => {
                stream.set_read_timeout(Some(STALL_TIMEOUT))?;
                stream.set_write_timeout(Some(STALL_TIMEOUT))?;
                handshake::dial_blocking(wires.own, &**wires.node()?, to, Purpose::Snapshot, &mut stream)?;
                return Ok(stream);
            }
            Err(error) => result = Err(error),
        }
    }
    result
}

/// Takes a snapshot from a peer whose handshake is done, and tells it how that went.
///
/// # Errors
/// The connection, the content, or the node, which does not want it now.
pub(super) fn receive(wires: &Wires, from: NodeId, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(STALL_TIMEOUT))?;
    stream.set_write_timeout(Some(STALL_TIMEOUT))?;
    let result = take_in(wires, from, &mut stream);
    let refusal = result.as_ref().err().map(ToString::to_string).unwrap_or_default();
    let mut out = BytesMut::new();
    frame::encode(&Arrival { refusal }, CHUNK_BYTES, &mut out).map_err(invalid)?;
    stream.write_all(&out)?;
    result
}

fn take_in(wires: &Wires, from: NodeId, stream: &mut TcpStream) -> io::Result<()> {
    let announcement = read_frame_blocking(stream, limits::PEER_FRAME_BYTES_MAX)?;
    let announcement = WireMessage::decode(announcement).map_err(invalid)?;
    let announcement = wire::message_from_wire(announcement).map_err(invalid)?;
    if announcement.from != from || announcement.to != wires.own.node {
        return Err(invalid("a snapshot from or for another member"));
    }
    let Some(meta) = announcement.snapshot.clone() else {
        return Err(invalid("a snapshot that says nothing of itself"));
    };
    let mut file = spool(&wires.spool_dir, from)?;
    let mut total_bytes = 0u64;
    loop {
        let chunk = Chunk::decode(read_frame_blocking(stream, 2 * CHUNK_BYTES)?).map_err(invalid)?;
        total_bytes += chunk.data.len() as u64;
        wires.metrics.bytes_received.add(chunk.data.len() as u64);
        if chunk.total_bytes != total_bytes {
            return Err(invalid(format!("{total_bytes} bytes arrived of {}", chunk.total_bytes)));
        }
        if chunk.end {
            break;
        }
        file.write_all(&chunk.data)?;
    }
    file.rewind()?;
    let snapshot = Snapshot { meta: *meta, data: SnapshotData::Stream(Box::new(io::BufReader::new(file))) };
    wires.node()?.receive_snapshot(announcement, snapshot).map_err(io::Error::other)
}

/// A file for the content, nameless from here on: whatever happens, it vanishes when it is closed.
fn spool(dir: &Path, from: NodeId) -> io::Result<File> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join(format!("snapshot-from-{from}.part"));
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
