//! The sending side of a snapshot.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::BytesMut;
use harmony_types::{Clock as _, Message, Snapshot, limits};
use prost::Message as _;
use socket2::SockRef;

use super::{
    Answer, FRAME_BYTES_MAX, Head, PIECE_BYTES, Piece, RESUME_PATIENCE, STALL_TIMEOUT, WINDOW_BYTES,
};
use crate::transport::address::Address;
use crate::transport::frame;
use crate::transport::handshake::{self, invalid, read_frame_blocking};
use crate::transport::liveness;
use crate::transport::pace::Pace;
use crate::transport::peer::{HANDSHAKE_TIMEOUT, Peer, backoff};
use crate::transport::stream::BlockingStream;
use crate::transport::tcp::Wires;
use crate::transport::wire::{self, Purpose};

/// How one connection ended.
enum Failure {
    /// Another may go on where it stopped.
    Lost(io::Error),
    /// Nothing comes of this transfer.
    Final(io::Error),
}

/// Sends a snapshot to a peer; returns once the other side has taken it.
///
/// # Errors
/// The connection, which did not come back, a refusal, or the content, which failed to read.
pub(in crate::transport) fn send(
    wires: &Wires,
    peer: &Peer,
    announcement: Message,
    snapshot: Snapshot,
) -> io::Result<()> {
    let head =
        Head { transfer: wires.next_transfer(), announcement: Some(wire::message_to_wire(announcement)) };
    let mut outgoing = Outgoing::new(snapshot.data.into_reader(), wires.snapshot_bytes_per_second);
    let mut last_progress = wires.clock.now();
    let mut failures = 0;
    loop {
        let before = outgoing.confirmed;
        let error = match outgoing.attempt(wires, peer, &head) {
            Ok(()) => return Ok(()),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Lost(error)) => error,
        };
        if before < outgoing.confirmed {
            (last_progress, failures) = (wires.clock.now(), 0);
        }
        // Before it has begun there is nothing to save: Raft asks again when the peer is there.
        let hopeless = !outgoing.begun
            || peer.is_closed()
            || wires.is_stopped()
            || last_progress + RESUME_PATIENCE <= wires.clock.now();
        if hopeless {
            return Err(error);
        }
        tracing::info!(to = %peer.id, %error, at = outgoing.confirmed, "snapshot interrupted");
        wires.clock.sleep(backoff(failures));
        failures += 1;
    }
}

/// A snapshot on its way out.
struct Outgoing {
    reader: Box<dyn Read + Send>,
    pace: Pace,
    checksum: crc32fast::Hasher,
    /// The other side has begun to take it.
    begun: bool,
    /// Bytes read from the reader.
    read: u64,
    /// Bytes that the other side has.
    confirmed: u64,
    /// Pieces behind them, in order.
    waiting: VecDeque<Piece>,
}

impl Outgoing {
    fn new(reader: Box<dyn Read + Send>, bytes_per_second: u64) -> Self {
        Self {
            reader,
            pace: Pace::new(bytes_per_second),
            checksum: crc32fast::Hasher::new(),
            begun: false,
            read: 0,
            confirmed: 0,
            waiting: VecDeque::new(),
        }
    }

    /// One connection, from where the one before it ended.
    fn attempt(&mut self, wires: &Wires, peer: &Peer, head: &Head) -> Result<(), Failure> {
        let mut stream = connect(wires, peer)?;
        let mut out = BytesMut::new();
        put(wires, peer, &mut stream, &mut out, head, limits::PEER_FRAME_BYTES_MAX)?;
        let answer = read_answer(&mut stream)?;
        if answer.done {
            return Ok(());
        }
        self.resume_at(answer.bytes)?;
        if std::mem::replace(&mut self.begun, true) {
            wires.metrics.snapshots_resumed.add(1);
            tracing::info!(to = %peer.id, at = answer.bytes, "snapshot resumed");
        }
        let mut next = 0;
        loop {
            if next == self.waiting.len() {
                self.read_piece()?;
            }
            let piece = &self.waiting[next];
            wires.clock.sleep(self.pace.wait(wires.clock.now(), piece.data.len()));
            if wires.is_stopped() || peer.is_closed() {
                return Err(Failure::Final(io::Error::other("the sender stops, or the member was removed")));
            }
            put(wires, peer, &mut stream, &mut out, piece, FRAME_BYTES_MAX)?;
            let (end, sent) = (piece.end, piece.total_bytes);
            next += 1;
            // At the end every answer is awaited; before, only as many as keep the window.
            while end || WINDOW_BYTES < sent - self.confirmed {
                let answer = read_answer(&mut stream)?;
                if answer.done {
                    return Ok(());
                }
                next -= self.confirm(answer.bytes)?;
            }
        }
    }

    /// Reads one piece more, the end when nothing is left.
    fn read_piece(&mut self) -> Result<(), Failure> {
        let bytes = self.pace.piece_bytes(PIECE_BYTES);
        let mut data = Vec::with_capacity(bytes);
        self.reader.by_ref().take(bytes as u64).read_to_end(&mut data).map_err(Failure::Final)?;
        self.checksum.update(&data);
        self.read += data.len() as u64;
        let end = data.is_empty();
        let checksum = if end { self.checksum.clone().finalize() } else { 0 };
        self.waiting.push_back(Piece { data: data.into(), end, total_bytes: self.read, checksum });
        Ok(())
    }

    /// The other side has so much; returns how many pieces need not be kept any more.
    fn confirm(&mut self, bytes: u64) -> Result<usize, Failure> {
        if bytes < self.confirmed || self.read < bytes {
            return Err(Failure::Final(invalid(format!("{bytes} bytes are said to have arrived"))));
        }
        self.confirmed = bytes;
        let mut dropped = 0;
        while self.waiting.front().is_some_and(|piece| !piece.end && piece.total_bytes <= bytes) {
            self.waiting.pop_front();
            dropped += 1;
        }
        Ok(dropped)
    }

    fn resume_at(&mut self, bytes: u64) -> Result<(), Failure> {
        if bytes < self.confirmed {
            let reason = "the receiver has lost what had arrived";
            return Err(Failure::Final(io::Error::other(reason)));
        }
        self.confirm(bytes).map(drop)
    }
}

fn put(
    wires: &Wires,
    peer: &Peer,
    stream: &mut BlockingStream,
    out: &mut BytesMut,
    message: &impl prost::Message,
    limit: usize,
) -> Result<(), Failure> {
    out.clear();
    frame::encode(message, limit, out).map_err(|error| Failure::Final(invalid(error)))?;
    stream.write_all(out).and_then(|()| stream.flush()).map_err(Failure::Lost)?;
    peer.metrics.bytes_sent.add(out.len() as u64);
    wires.metrics.snapshot_bytes_sent.add(out.len() as u64);
    Ok(())
}

fn read_answer(stream: &mut BlockingStream) -> Result<Answer, Failure> {
    let frame = read_frame_blocking(stream, FRAME_BYTES_MAX).map_err(Failure::Lost)?;
    let answer = Answer::decode(frame).map_err(|error| Failure::Final(invalid(error)))?;
    match (answer.refusal.is_empty(), answer.again) {
        (true, _) => Ok(answer),
        (false, true) => Err(Failure::Lost(io::Error::other(answer.refusal))),
        (false, false) => Err(Failure::Final(io::Error::other(answer.refusal))),
    }
}

fn connect(wires: &Wires, peer: &Peer) -> Result<BlockingStream, Failure> {
    let mut result = Err(io::Error::new(io::ErrorKind::NotFound, "the member has no peer URL"));
    for url in peer.urls() {
        match connect_to(wires, &url, HANDSHAKE_TIMEOUT) {
            Ok(mut stream) => {
                let node = wires.node().map_err(Failure::Final)?;
                let greeted =
                    handshake::dial_blocking(wires.own, &**node, peer.id, Purpose::Snapshot, &mut stream);
                return match greeted {
                    Ok(()) => Ok(stream),
                    // Another cluster or member answers there: it will not change its mind.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        Err(Failure::Final(error))
                    }
                    Err(error) => Err(Failure::Lost(error)),
                };
            }
            Err(error) => result = Err(error),
        }
    }
    result.map_err(Failure::Lost)
}

fn connect_to(wires: &Wires, url: &str, timeout: Duration) -> io::Result<BlockingStream> {
    let address = Address::of(url).map_err(invalid)?;
    let mut result = Err(io::Error::new(io::ErrorKind::NotFound, format!("{url} has no address")));
    for socket_address in address.authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&socket_address, timeout) {
            Ok(stream) => {
                liveness::watch(&SockRef::from(&stream))?;
                stream.set_nodelay(true)?;
                return BlockingStream::dialed(stream, &address, wires.tls.as_ref(), STALL_TIMEOUT);
            }
            Err(error) => result = Err(error),
        }
    }
    result
}
