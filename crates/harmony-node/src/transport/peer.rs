//! One peer: a bounded queue towards it, and the task that keeps a connection and empties the queue.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use harmony_types::{Clock as _, Member, NodeId, PeerMessage, limits};
use prost::Message as _;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::bounds;
use crate::transport::address::Address;
use crate::transport::frame;
use crate::transport::handshake::{self, invalid, read_frame};
use crate::transport::liveness;
use crate::transport::stream::PeerStream;
use crate::transport::tcp::Wires;
use crate::transport::traffic::PeerMetrics;
use crate::transport::wire::{self, Content, Envelope, Pong, Purpose};

/// Waits between attempts to connect, milliseconds: the first are quick, as peers start together and come back fast.
const BACKOFF_MS: [u64; 7] = [10, 20, 50, 100, 200, 500, 1_000];

/// Time for a connection and its handshake.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The wait after so many failures in a row.
pub(super) fn backoff(failures: usize) -> Duration {
    Duration::from_millis(BACKOFF_MS[failures.min(BACKOFF_MS.len() - 1)])
}

/// Largest frame that answers a ping.
const PONG_BYTES_MAX: usize = 64;

/// Bytes encoded before they are written.
const WRITE_BYTES: usize = 256 << 10;

/// A peer that messages are queued for.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: NodeId,
    pub(super) metrics: Arc<PeerMetrics>,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    urls: Vec<String>,
    queue: Vec<PeerMessage>,
    bytes: usize,
    connected: bool,
    closed: bool,
}

impl Peer {
    pub(super) fn new(member: &Member, metrics: Arc<PeerMetrics>) -> Self {
        let state = State { urls: member.peer_urls.clone(), ..State::default() };
        Self { id: member.id, metrics, state: Mutex::new(state), wake: Notify::new() }
    }

    /// Where it is reached from now on.
    pub(super) fn set_urls(&self, urls: &[String]) {
        let mut state = self.lock();
        if state.urls != urls {
            state.urls = urls.to_vec();
        }
    }

    pub(super) fn urls(&self) -> Vec<String> {
        self.lock().urls.clone()
    }

    /// Queues messages; false when they were dropped instead: the peer is not there, or does not keep up.
    pub(super) fn push(&self, messages: Vec<PeerMessage>) -> bool {
        let bytes: usize = messages.iter().map(approximate_bytes).sum();
        let mut state = self.lock();
        if !state.connected || limits::PEER_QUEUE_BYTES_MAX < state.bytes.saturating_add(bytes) {
            return false;
        }
        state.bytes += bytes;
        let was_empty = state.queue.is_empty();
        state.queue.extend(messages);
        drop(state);
        if was_empty {
            self.wake.notify_one();
        }
        true
    }

    /// Ends its task.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    fn take(&self) -> Vec<PeerMessage> {
        let mut state = self.lock();
        state.bytes = 0;
        std::mem::take(&mut state.queue)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Notes the connection's state and forgets what was queued for the old one.
    fn set_connected(&self, connected: bool) {
        let mut state = self.lock();
        state.connected = connected;
        self.metrics.connected.set(connected.into());
        state.bytes = 0;
        state.queue.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a connection to the peer until it is closed.
pub(super) async fn run(peer: Arc<Peer>, wires: Arc<Wires>) {
    let mut failures = 0usize;
    let mut last_error = String::new();
    while !peer.is_closed() {
        match connect(&peer, &wires).await {
            Ok((stream, answers_pings)) => {
                tracing::info!(peer = %peer.id, "connected");
                wires.metrics.connects.add(1);
                (failures, last_error) = (0, String::new());
                peer.set_connected(true);
                let error = converse(&peer, &wires, stream, answers_pings).await;
                peer.set_connected(false);
                peer.metrics.disconnects.add(1);
                wires.unreachable(peer.id);
                match error {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(peer = %peer.id, %error, "connection lost"),
                }
            }
            Err(Failed { error, refused }) => {
                if refused {
                    wires.gone(peer.id);
                }
                // A peer that is away says the same thing for hours: it is logged once.
                let error = error.to_string();
                if error != last_error {
                    tracing::warn!(peer = %peer.id, urls = ?peer.urls(), error, "cannot connect");
                    last_error = error;
                }
                wires.unreachable(peer.id);
                sleep(backoff(failures)).await;
                failures += 1;
            }
        }
    }
}

/// Why there is no connection to a peer.
struct Failed {
    error: io::Error,
    /// Every address of it is there and refuses: no process of the peer takes connections.
    refused: bool,
}

async fn connect(peer: &Peer, wires: &Wires) -> Result<(PeerStream, bool), Failed> {
    let error = io::Error::new(io::ErrorKind::NotFound, "the member has no peer URL");
    let mut failed = Failed { error, refused: false };
    for (attempt, url) in peer.urls().iter().enumerate() {
        let error = match timeout(HANDSHAKE_TIMEOUT, connect_to(peer.id, url, wires)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error,
            Err(_) => io::Error::new(io::ErrorKind::TimedOut, format!("{url} does not answer")),
        };
        let refused = is_refusal(&error) && (attempt == 0 || failed.refused);
        failed = Failed { error, refused };
    }
    Err(failed)
}

/// A machine that is reached, and a process that is not: it refuses the connection, or, with a proxy between, ends it before
/// a word is said.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}

async fn connect_to(to: NodeId, url: &str, wires: &Wires) -> io::Result<(PeerStream, bool)> {
    let address = Address::of(url).map_err(invalid)?;
    let node = wires.node()?;
    let stream = TcpStream::connect(address.authority).await?;
    stream.set_nodelay(true)?;
    liveness::watch(&SockRef::from(&stream))?;
    let mut stream = PeerStream::dialed(stream, &address, wires.tls.as_ref()).await?;
    match handshake::dial(wires.own, &**node, to, Purpose::Messages, &mut stream).await {
        Ok(answers_pings) => Ok((stream, answers_pings)),
        Err(error) => {
            if handshake::is_refused_here(&error) {
                wires.doubt(to);
            }
            Err(error)
        }
    }
}

/// Uses a connection until the peer is closed, or it ends with an error.
async fn converse(peer: &Peer, wires: &Wires, stream: PeerStream, answers_pings: bool) -> io::Result<()> {
    let (from_peer, to_peer) = tokio::io::split(stream);
    tokio::select! {
        written = write_queue(peer, wires, to_peer, answers_pings) => written,
        error = read_pongs(peer, wires, from_peer) => Err(error),
    }
}

/// The peer says nothing on this connection but answers to pings; its end is how we learn at once that the peer is gone.
async fn read_pongs(peer: &Peer, wires: &Wires, mut from_peer: impl AsyncRead + Unpin) -> io::Error {
    loop {
        let frame = match read_frame(&mut from_peer, PONG_BYTES_MAX).await {
            Ok(frame) => frame,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return io::Error::new(io::ErrorKind::ConnectionReset, "closed by the peer");
            }
            Err(error) => return error,
        };
        peer.metrics.bytes_received.add(frame.len() as u64);
        let Ok(Pong { number }) = Pong::decode(frame) else {
            return invalid("data where the answer to a ping is expected");
        };
        let sent = Duration::from_micros(number);
        match wires.clock.now().checked_sub(sent) {
            Some(took) => peer.metrics.round_trips.record(took),
            None => return invalid("the answer to a ping that was never sent"),
        }
    }
}

/// Writes what is queued, as much as there is with one write, and a ping now and then.
async fn write_queue(
    peer: &Peer,
    wires: &Wires,
    mut to_peer: impl AsyncWrite + Unpin,
    pings: bool,
) -> io::Result<()> {
    let interval = Duration::from_millis(bounds::PING_INTERVAL_MS);
    let mut out = BytesMut::with_capacity(WRITE_BYTES);
    let mut next_ping = wires.clock.now();
    loop {
        let messages = peer.take();
        let now = wires.clock.now();
        let ping = pings && next_ping <= now;
        if messages.is_empty() && !ping {
            if peer.is_closed() {
                return Ok(());
            }
            tokio::select! {
                () = peer.wake.notified() => {}
                () = sleep(next_ping.saturating_sub(now)), if pings => {}
            }
            continue;
        }
        for message in messages {
            let envelope = wire::envelope(message);
            if let Err(error) = frame::encode(&envelope, limits::PEER_FRAME_BYTES_MAX, &mut out) {
                tracing::error!(peer = %peer.id, %error, "message not sent");
            }
            if WRITE_BYTES <= out.len() {
                flush(peer, &mut to_peer, &mut out, wires).await?;
            }
        }
        if ping {
            // The number is the time on our own clock: nothing needs to be remembered.
            let number = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
            let envelope = Envelope { content: Some(Content::Ping(number)) };
            frame::encode(&envelope, limits::PEER_FRAME_BYTES_MAX, &mut out).map_err(invalid)?;
            next_ping = now + interval;
        }
        flush(peer, &mut to_peer, &mut out, wires).await?;
    }
}

async fn flush(
    peer: &Peer,
    to_peer: &mut (impl AsyncWrite + Unpin),
    out: &mut BytesMut,
    wires: &Wires,
) -> io::Result<()> {
    to_peer.write_all(out).await?;
    to_peer.flush().await?;
    peer.metrics.bytes_sent.add(out.len() as u64);
    wires.metrics.bytes_sent.add(out.len() as u64);
    out.clear();
    // One large message must not keep its memory for ever.
    if 4 * WRITE_BYTES < out.capacity() {
        *out = BytesMut::with_capacity(WRITE_BYTES);
    }
    Ok(())
}

fn approximate_bytes(message: &PeerMessage) -> usize {
    const OVERHEAD: usize = 64;
    OVERHEAD
        + match message {
            PeerMessage::Raft(message) => {
                let entries: usize = message.entries.iter().map(|entry| entry.data.len() + OVERHEAD).sum();
                entries + message.context.len()
            }
            PeerMessage::Propose { data, .. } => data.len(),
            PeerMessage::ProposeReply { result, .. } => {
                result.as_ref().map_or(0, |forwarded| forwarded.outcome.len())
            }
            PeerMessage::Change { changes, .. } => changes.len() * OVERHEAD,
            PeerMessage::ChangeReply { .. }
            | PeerMessage::LeaseCall { .. }
            | PeerMessage::LeaseReply { .. } => 0,
            PeerMessage::Acknowledged { held } => held.len() * 16,
            PeerMessage::Hashes { hashes, .. } => hashes.len() * 16,
            PeerMessage::Diverged { .. } => 0,
        }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use harmony_types::Role;

    use super::*;

    /// Raft sends again what was lost; whoever queues without an end runs out of memory instead.
    #[test]
    fn a_peer_that_is_away_or_does_not_keep_up_is_sent_nothing() {
        let member = Member {
            id: NodeId::new(2).unwrap(),
            name: String::new(),
            peer_urls: Vec::new(),
            client_urls: Vec::new(),
            role: Role::Voter,
        };
        let peer = Peer::new(&member, Arc::default());
        let message = |bytes| vec![PeerMessage::Propose { request: 1, data: Bytes::from(vec![0; bytes]) }];
        assert!(!peer.push(message(1)), "away");
        peer.set_connected(true);
        let half = limits::PEER_QUEUE_BYTES_MAX / 2;
        assert!(peer.push(message(half)));
        assert!(!peer.push(message(half)), "the queue is full");
        assert!(peer.push(message(1)));
        assert_eq!(peer.take().len(), 2);
        assert!(peer.push(message(half)), "there is room again");
    }

    /// Only a machine that says so itself is evidence: silence may be the network's.
    #[test]
    fn a_refusal_is_no_silence() {
        for (kind, refused) in [
            (io::ErrorKind::ConnectionRefused, true),
            (io::ErrorKind::ConnectionReset, true),
            (io::ErrorKind::UnexpectedEof, true),
            (io::ErrorKind::TimedOut, false),
            (io::ErrorKind::HostUnreachable, false),
            (io::ErrorKind::NetworkUnreachable, false),
            (io::ErrorKind::PermissionDenied, false),
            (io::ErrorKind::NotFound, false),
        ] {
            assert_eq!(is_refusal(&kind.into()), refused, "{kind}");
        }
    }
}
