//! The receiving side of a snapshot.

use std::io::{self, Seek, Write};
use std::sync::Arc;

use bytes::BytesMut;
use harmony_types::{Clock as _, NodeId, Snapshot, SnapshotData, limits};
use prost::Message as _;

use super::arrivals::{Arriving, Occupied, Transfer};
use super::{Answer, FRAME_BYTES_MAX, Head, Piece};
use crate::transport::frame;
use crate::transport::handshake::{invalid, read_frame_blocking};
use crate::transport::stream::BlockingStream;
use crate::transport::tcp::Wires;
use crate::transport::wire;

/// How one connection ended.
enum Failure {
    /// The connection: another may go on where it stopped.
    Lost(io::Error),
    /// This transfer is worth nothing.
    Final(io::Error),
}

/// Takes a snapshot from a peer whose handshake is done, and tells it how that went.
///
/// # Errors
/// The connection, the content, or the node, which does not want it now.
pub(in crate::transport) fn receive(
    wires: &Wires,
    from: NodeId,
    mut stream: BlockingStream,
) -> io::Result<()> {
    let head = read_frame_blocking(&mut stream, limits::PEER_FRAME_BYTES_MAX)?;
    let head = Head::decode(head).map_err(invalid)?;
    let announcement = head.announcement.ok_or_else(|| invalid("a snapshot without its message"))?;
    let announcement = wire::message_from_wire(announcement).map_err(invalid)?;
    if announcement.from != from || announcement.to != wires.own.node {
        return refuse(&mut stream, false, invalid("a snapshot from or for another member"));
    }
    let Some(meta) = announcement.snapshot.clone() else {
        return refuse(&mut stream, false, invalid("a snapshot that says nothing of itself"));
    };
    let transfer = Transfer { from, number: head.transfer };
    let socket = stream.socket().try_clone()?;
    let mut arriving = match wires.arrivals.begin(transfer, announcement.term, socket) {
        Ok(Ok(arriving)) => arriving,
        Ok(Err(Occupied::Done)) => return answer(&mut stream, &Answer { done: true, ..Answer::default() }),
        Ok(Err(occupied)) => {
            let busy = io::Error::new(io::ErrorKind::ResourceBusy, "another snapshot is arriving");
            return refuse(&mut stream, occupied == Occupied::BySelf, busy);
        }
        Err(error) => return refuse(&mut stream, false, error),
    };
    let checksum = match take_in(wires, from, &mut stream, &mut arriving) {
        Ok(checksum) => checksum,
        Err(Failure::Lost(error)) => {
            arriving.interrupted(wires.clock.now());
            return Err(error);
        }
        Err(Failure::Final(error)) => return refuse(&mut stream, false, error),
    };
    let handed_over = arriving.whole(checksum).and_then(|file| {
        let data = SnapshotData::Kept(Arc::new(move || {
            // Readers share the place in the file: there is one at a time.
            let mut file = file.try_clone()?;
            file.rewind()?;
            Ok(Box::new(io::BufReader::new(file)) as _)
        }));
        wires.node()?.receive_snapshot(announcement, Snapshot { meta: *meta, data }).map_err(io::Error::other)
    });
    match handed_over {
        Ok(()) => {
            arriving.taken();
            answer(&mut stream, &Answer { done: true, ..Answer::default() })
        }
        Err(error) => refuse(&mut stream, false, error),
    }
}

/// Collects the content; returns the checksum that it should have.
fn take_in(
    wires: &Wires,
    from: NodeId,
    stream: &mut BlockingStream,
    arriving: &mut Arriving<'_>,
) -> Result<u32, Failure> {
    let metrics = wires.traffic.of(from);
    loop {
        let bytes = arriving.content().bytes;
        answer(stream, &Answer { bytes, ..Answer::default() }).map_err(Failure::Lost)?;
        // A frame that was damaged on its way is lost like any other: nothing of it was taken.
        let frame = read_frame_blocking(stream, FRAME_BYTES_MAX).map_err(Failure::Lost)?;
        metrics.bytes_received.add(frame.len() as u64);
        wires.metrics.bytes_received.add(frame.len() as u64);
        if wires.is_stopped() {
            return Err(Failure::Final(io::Error::other("this member stops")));
        }
        let piece = Piece::decode(frame).map_err(|error| Failure::Final(invalid(error)))?;
        let expected = bytes + piece.data.len() as u64;
        if piece.total_bytes != expected || (piece.end && !piece.data.is_empty()) {
            let reason = format!("{expected} bytes have arrived of {}", piece.total_bytes);
            return Err(Failure::Final(invalid(reason)));
        }
        if piece.end {
            return Ok(piece.checksum);
        }
        arriving.content().append(&piece.data).map_err(Failure::Final)?;
    }
}

/// Says why nothing comes of it, and ends with that.
fn refuse(stream: &mut BlockingStream, again: bool, error: io::Error) -> io::Result<()> {
    // The reason counts, not whether the other side still hears it.
    let _ = answer(stream, &Answer { refusal: error.to_string(), again, ..Answer::default() });
    Err(error)
}

fn answer(stream: &mut BlockingStream, answer: &Answer) -> io::Result<()> {
    let mut out = BytesMut::new();
    frame::encode(answer, FRAME_BYTES_MAX, &mut out).map_err(invalid)?;
    stream.write_all(&out)?;
    stream.flush()
}
