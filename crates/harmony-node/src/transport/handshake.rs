//! The first frame in each direction: who dials, whom, of which cluster, in which version, for what.

use std::io::{self, Read, Write};

use bytes::{Bytes, BytesMut};
use harmony_types::config::Identity;
use harmony_types::transport::{Held, PeerRefusal, PeerSink};
use harmony_types::{ClusterId, LogIndex, NodeId};
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::transport::frame::{self, HEAD_BYTES, Head};
use crate::transport::wire::{Hello, MAGIC, PROTOCOL_VERSION, Purpose};

/// Largest frame before a connection is known to be a peer's, bytes.
pub(super) const HELLO_BYTES_MAX: usize = 4 << 10;

/// This side of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub(super) cluster: ClusterId,
    pub(super) node: NodeId,
}

impl Own {
    pub(super) fn new(identity: Identity) -> Option<Self> {
        Some(Self { cluster: identity.cluster, node: identity.node? })
    }

    fn hello(self, to: u64, purpose: Purpose, held: Held) -> Hello {
        Hello {
            last: held.last.0,
            incarnation: held.incarnation,
            magic: MAGIC,
            version: PROTOCOL_VERSION,
            cluster: self.cluster.0,
            from: self.node.get(),
            to,
            purpose: purpose as i32,
            answers_pings: true,
            ..Hello::default()
        }
    }

    /// What both sides check of the other.
    fn check(self, hello: &Hello) -> Result<NodeId, String> {
        if hello.magic != MAGIC {
            return Err("this is no peer of a harmony cluster".to_owned());
        }
        if hello.version != PROTOCOL_VERSION {
            return Err(format!(
                "peer protocol version {}, this release speaks {PROTOCOL_VERSION}",
                hello.version
            ));
        }
        if hello.cluster != self.cluster.0 {
            return Err(format!("cluster {:x}, this member is of cluster {}", hello.cluster, self.cluster));
        }
        if hello.to != self.node.get() {
            return Err(format!("member {:x} is wanted here, this is member {}", hello.to, self.node));
        }
        NodeId::new(hello.from)
            .filter(|from| *from != self.node)
            .ok_or_else(|| format!("a peer that calls itself member {:x}", hello.from))
    }

    /// The accepting side: who dialed and for what, and the answer to send either way.
    fn accept(self, sink: &dyn PeerSink, frame: Bytes) -> (Result<(NodeId, Purpose), String>, BytesMut) {
        let hello = Hello::decode(frame).unwrap_or_default();
        let mut answer = self.hello(hello.from, hello.purpose(), sink.held());
        let result = self.check(&hello).and_then(|from| {
            sink.admit(from, held_by(&hello)).map_err(|refusal| {
                match refusal {
                    PeerRefusal::Removed => answer.removed = true,
                    PeerRefusal::Forgot { acknowledged } => answer.acknowledged = acknowledged.0,
                    PeerRefusal::Replaced => answer.replaced = true,
                    PeerRefusal::NotNow => {}
                }
                words(from, hello.last, refusal)
            })?;
            match hello.purpose() {
                Purpose::Unspecified | Purpose::Roster => {
                    Err("a connection for an unknown purpose".to_owned())
                }
                purpose => Ok((from, purpose)),
            }
        });
        answer.refusal = result.as_ref().err().cloned().unwrap_or_default();
        (result, encode(&answer))
    }

    /// The dialing side: whether the answer is the expected member's consent.
    fn accepted(self, sink: &dyn PeerSink, expected: NodeId, frame: Bytes) -> io::Result<Hello> {
        let hello = Hello::decode(frame).map_err(refused)?;
        if hello.magic == MAGIC && !hello.refusal.is_empty() {
            // Only a member of the same cluster, at this place, knows what this one is.
            if hello.cluster == self.cluster.0 && hello.from == expected.get() && hello.to == self.node.get()
            {
                if hello.removed {
                    sink.refused(expected, PeerRefusal::Removed);
                } else if hello.replaced {
                    sink.refused(expected, PeerRefusal::Replaced);
                } else if hello.acknowledged != 0 {
                    sink.refused(
                        expected,
                        PeerRefusal::Forgot { acknowledged: LogIndex(hello.acknowledged) },
                    );
                }
            }
            return Err(refused(format!("refused by the other side: {}", hello.refusal)));
        }
        let from = self.check(&hello).map_err(refused)?;
        if from != expected {
            return Err(refused(format!("member {from} answers, {expected} is expected")));
        }
        match sink.admit(from, held_by(&hello)) {
            Ok(()) => Ok(hello),
            Err(refusal) => {
                let reason = words(from, hello.last, refusal);
                Err(io::Error::new(io::ErrorKind::PermissionDenied, RefusedHere(reason)))
            }
        }
    }
}

/// A member that was dialed was refused by who dialed it: it does not hear of that by this connection.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct RefusedHere(String);

/// Whether a dial ended because this side refuses the other.
pub(super) fn is_refused_here(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|reason| reason.is::<RefusedHere>())
}

fn words(peer: NodeId, last: u64, refusal: PeerRefusal) -> String {
    match refusal {
        PeerRefusal::Removed => format!("member {peer} was removed from the cluster"),
        PeerRefusal::Forgot { acknowledged } => {
            format!("member {peer} had acknowledged index {acknowledged}, but its log ends at {last}")
        }
        PeerRefusal::Replaced => {
            format!("member {peer} runs on another data directory than the one that it was met with")
        }
        PeerRefusal::NotNow => format!("that member {peer} was met cannot be noted: the disk refuses"),
    }
}

fn held_by(hello: &Hello) -> Held {
    Held { last: LogIndex(hello.last), incarnation: hello.incarnation }
}

fn encode(hello: &Hello) -> BytesMut {
    let mut out = BytesMut::new();
    frame::encode(hello, HELLO_BYTES_MAX, &mut out).expect("a hello is small");
    out
}

/// Greets the member that was dialed; true when it answers pings.
///
/// # Errors
/// The connection, or a refusal by either side, in words.
pub(super) async fn dial(
    own: Own,
    sink: &dyn PeerSink,
    to: NodeId,
    purpose: Purpose,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> io::Result<bool> {
    stream.write_all(&encode(&own.hello(to.get(), purpose, sink.held()))).await?;
    stream.flush().await?;
    let answer = read_frame(stream, HELLO_BYTES_MAX).await?;
    own.accepted(sink, to, answer).map(|hello| hello.answers_pings)
}

/// As [`dial`], on a thread that may block.
pub(super) fn dial_blocking(
    own: Own,
    sink: &dyn PeerSink,
    to: NodeId,
    purpose: Purpose,
    stream: &mut (impl Read + Write),
) -> io::Result<()> {
    stream.write_all(&encode(&own.hello(to.get(), purpose, sink.held())))?;
    stream.flush()?;
    let answer = read_frame_blocking(stream, HELLO_BYTES_MAX)?;
    own.accepted(sink, to, answer).map(drop)
}

/// The first frame of somebody who is no member yet.
pub(super) fn stranger(from: NodeId) -> Hello {
    Hello {
        magic: MAGIC,
        version: PROTOCOL_VERSION,
        from: from.get(),
        purpose: Purpose::Roster as i32,
        ..Hello::default()
    }
}

fn is_stranger(frame: &Bytes) -> bool {
    Hello::decode(frame.clone()).is_ok_and(|hello| {
        hello.magic == MAGIC && hello.version == PROTOCOL_VERSION && hello.purpose() == Purpose::Roster
    })
}

/// Answers whoever dialed; `None` for one who is no member and waits for the list of them.
///
/// # Errors
/// The connection, or why it was refused.
pub(super) async fn accept(
    own: Own,
    sink: &dyn PeerSink,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> io::Result<Option<(NodeId, Purpose)>> {
    let hello = read_frame(stream, HELLO_BYTES_MAX).await?;
    if is_stranger(&hello) {
        return Ok(None);
    }
    let (result, answer) = own.accept(sink, hello);
    stream.write_all(&answer).await?;
    stream.flush().await?;
    result.map(Some).map_err(refused)
}

/// Reads one frame and checks it.
///
/// # Errors
/// The connection; [`io::ErrorKind::InvalidData`] for a frame that is damaged or over `limit`.
pub(super) async fn read_frame(stream: &mut (impl AsyncRead + Unpin), limit: usize) -> io::Result<Bytes> {
    let mut head = [0; HEAD_BYTES];
    stream.read_exact(&mut head).await?;
    let head = Head::decode(head, limit).map_err(invalid)?;
    let mut payload = BytesMut::zeroed(head.payload_bytes);
    stream.read_exact(&mut payload).await?;
    head.check(&payload).map_err(invalid)?;
    Ok(payload.freeze())
}

/// As [`read_frame`], on a thread that may block.
pub(super) fn read_frame_blocking(stream: &mut impl Read, limit: usize) -> io::Result<Bytes> {
    let mut head = [0; HEAD_BYTES];
    stream.read_exact(&mut head)?;
    let head = Head::decode(head, limit).map_err(invalid)?;
    let mut payload = BytesMut::zeroed(head.payload_bytes);
    stream.read_exact(&mut payload)?;
    head.check(&payload).map_err(invalid)?;
    Ok(payload.freeze())
}

fn refused(reason: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, reason.to_string())
}

/// An error for what a peer should not have sent.
pub(super) fn invalid(reason: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_string())
}
