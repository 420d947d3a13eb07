//! The transport over TCP: one thread with a runtime of its own, one connection to each peer for what goes there.
//!
//! What arrives comes over the connections that peers dialed. Every connection opens with a handshake; every frame has a
//! checksum; every number is checked. Whatever fails a check closes the connection: Raft sends again what was lost.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use harmony_types::config::Identity;
use harmony_types::transport::PeerSink;
use harmony_types::{Member, Message, MessageType, NodeId, PeerMessage, Snapshot, Transport, limits};
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout};

use crate::metrics::Counter;
use crate::transport::handshake::{self, Own, invalid, read_frame};
use crate::transport::liveness;
use crate::transport::peer::{self, HANDSHAKE_TIMEOUT, Peer};
use crate::transport::snapshot;
use crate::transport::wire::{self, Purpose};

/// Read from a connection at once, bytes.
const READ_BYTES: usize = 64 << 10;

/// Options of a [`TcpTransport`].
#[derive(Clone, Debug)]
pub struct TcpTransportConfig {
    /// Which member of which cluster this is; the member must be named.
    pub identity: Identity,
    /// Where to listen for peers; port 0 picks a free one.
    pub listen: Vec<SocketAddr>,
    /// The other members.
    pub peers: Vec<Member>,
    /// Directory for snapshots while they arrive; their files have no names and vanish with the process.
    pub spool_dir: PathBuf,
}

/// Why a transport did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The address cannot be listened on: in use, or not this machine's.
    #[error("listen for peers on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A URL that peers cannot be reached by.
    #[error("peer URL {url}: {reason}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The identity names no member.
    #[error("a transport needs the id of its own member")]
    NoIdentity,
    /// The system refuses a thread or a runtime.
    #[error("start the peer thread: {source}")]
    Thread {
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What a transport counts.
#[derive(Debug, Default)]
pub struct TransportMetrics {
    /// Bytes written to peers, snapshots apart.
    pub bytes_sent: Counter,
    /// Bytes read from peers.
    pub bytes_received: Counter,
    /// Connections made to peers.
    pub connects: Counter,
    /// Connections refused or closed because of what came over them.
    pub refused: Counter,
    /// Messages dropped because their peer was away or its queue full.
    pub dropped: Counter,
}

/// What the transport's tasks and threads share.
pub(super) struct Wires {
    pub(super) own: Own,
    pub(super) spool_dir: PathBuf,
    pub(super) metrics: TransportMetrics,
    sink: OnceLock<Arc<dyn PeerSink>>,
    /// One snapshot arrives at a time: the node installs only one, and the spool stays bounded.
    receiving_snapshot: AtomicBool,
}

impl Wires {
    pub(super) fn sink(&self) -> Option<&Arc<dyn PeerSink>> {
        self.sink.get()
    }

    pub(super) fn unreachable(&self, peer: NodeId) {
        if let Some(sink) = self.sink() {
            sink.unreachable(peer);
        }
    }
}

/// The transport between processes.
pub struct TcpTransport {
    wires: Arc<Wires>,
    peers: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
    local: Vec<SocketAddr>,
    /// Peers that need a task; closed to stop.
    spawn: Mutex<Option<UnboundedSender<Arc<Peer>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for TcpTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TcpTransport({} on {:?})", self.wires.own.node, self.local)
    }
}

impl TcpTransport {
    /// Listens, and starts to connect to the peers. What arrives is lost until [`TcpTransport::attach`].
    ///
    /// # Errors
    /// [`TransportError`]; nothing is left running then.
    pub fn start(config: TcpTransportConfig) -> Result<Arc<Self>, TransportError> {
        let own = Own::new(config.identity).ok_or(TransportError::NoIdentity)?;
        for url in config.peers.iter().flat_map(|peer| &peer.peer_urls) {
            address_of(url)?;
        }
        let mut listeners = Vec::new();
        let mut local = Vec::new();
        for address in config.listen {
            let failed = |source| TransportError::Listen { address, source };
            let listener = StdListener::bind(address).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            local.push(listener.local_addr().map_err(failed)?);
            listeners.push(listener);
        }
        let failed = |source| TransportError::Thread { source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let wires = Arc::new(Wires {
            own,
            spool_dir: config.spool_dir,
            metrics: TransportMetrics::default(),
            sink: OnceLock::new(),
            receiving_snapshot: AtomicBool::new(false),
        });
        let (spawn, peers) = unbounded_channel();
        let of_thread = Arc::clone(&wires);
        let thread = std::thread::Builder::new()
            .name("harmony-peer".to_owned())
            .spawn(move || {
                runtime.block_on(run(of_thread, listeners, peers));
                // A name that is still being looked up must not hold up the end.
                runtime.shutdown_background();
            })
            .map_err(failed)?;
        let transport = Arc::new(Self {
            wires,
            peers: Mutex::default(),
            local,
            spawn: Mutex::new(Some(spawn)),
            thread: Mutex::new(Some(thread)),
        });
        transport.set_peers(&config.peers);
        Ok(transport)
    }

    /// Hands over what arrives to `sink` from now on. The first one counts.
    pub fn attach(&self, sink: Arc<dyn PeerSink>) {
        if self.wires.sink.set(sink).is_err() {
            tracing::error!("a transport serves one node for life; the second is not heard");
        }
    }

    /// Where it listens, with the ports that the system picked.
    #[must_use]
    pub fn local_addresses(&self) -> &[SocketAddr] {
        &self.local
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> &TransportMetrics {
        &self.wires.metrics
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for TcpTransport {
    fn send(&self, to: NodeId, messages: Vec<PeerMessage>) {
        let peer = self.peers().get(&to).cloned();
        let count = messages.len() as u64;
        if !peer.is_some_and(|peer| peer.push(messages)) {
            self.wires.metrics.dropped.add(count);
            self.wires.unreachable(to);
        }
    }

    fn send_snapshot(&self, announcement: Message, snapshot: Snapshot) {
        let to = announcement.to;
        let urls = self.peers().get(&to).map(|peer| peer.urls()).unwrap_or_default();
        let wires = Arc::clone(&self.wires);
        let work = move || {
            // Reading the state must not hold up those who use it.
            harmony_wal::work_in_background();
            let result = snapshot::send(wires.own, &urls, announcement, snapshot);
            match &result {
                Ok(()) => tracing::info!(%to, "snapshot sent"),
                Err(error) => tracing::warn!(%to, %error, "snapshot not sent"),
            }
            if let Some(sink) = wires.sink() {
                sink.snapshot_sent(to, result.is_ok());
            }
        };
        let thread = std::thread::Builder::new().name("harmony-snapshot-out".to_owned()).spawn(work);
        if let Err(error) = thread {
            tracing::error!(%to, %error, "the system refuses a thread to send a snapshot");
            if let Some(sink) = self.wires.sink() {
                sink.snapshot_sent(to, false);
            }
        }
    }

    fn set_peers(&self, members: &[Member]) {
        let mut peers = self.peers();
        let spawn = self.spawn.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(spawn) = spawn.as_ref() else { return };
        peers.retain(|id, peer| {
            let stays = members.iter().any(|member| member.id == *id);
            if !stays {
                peer.close();
            }
            stays
        });
        for member in members.iter().filter(|member| member.id != self.wires.own.node) {
            match peers.get(&member.id) {
                Some(peer) => peer.set_urls(&member.peer_urls),
                None => {
                    let peer = Arc::new(Peer::new(member));
                    // The thread ends only after this sender is gone.
                    let _ = spawn.send(Arc::clone(&peer));
                    peers.insert(member.id, peer);
                }
            }
        }
    }

    fn stop(&self) {
        drop(self.spawn.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            // Its panic, if any, has been printed; there is nothing left to save.
            let _ = thread.join();
        }
    }
}

impl Drop for TcpTransport {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The peer thread: ends when the transport stops, and every task with it.
async fn run(wires: Arc<Wires>, listeners: Vec<StdListener>, mut peers: UnboundedReceiver<Arc<Peer>>) {
    for listener in listeners {
        match TcpListener::from_std(listener) {
            Ok(listener) => drop(tokio::spawn(accept(listener, Arc::clone(&wires)))),
            Err(error) => tracing::error!(%error, "peers cannot connect"),
        }
    }
    while let Some(peer) = peers.recv().await {
        tokio::spawn(peer::run(peer, Arc::clone(&wires)));
    }
}

async fn accept(listener: TcpListener, wires: Arc<Wires>) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => drop(tokio::spawn(serve(stream, address, Arc::clone(&wires)))),
            Err(error) => {
                // Out of file handles, most likely: those that exist go on.
                tracing::warn!(%error, "a peer's connection was not accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(mut stream: TcpStream, address: SocketAddr, wires: Arc<Wires>) {
    // Small answers leave at once; a socket that refuses this is slower, not wrong. One that refuses to be watched may
    // stay open behind a dead network.
    let _ = stream.set_nodelay(true);
    let _ = liveness::watch(&stream);
    let greeted = timeout(HANDSHAKE_TIMEOUT, handshake::accept(wires.own, &mut stream)).await;
    let greeted = greeted.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no handshake")));
    let result = match greeted {
        Ok((from, Purpose::Snapshot)) => take_snapshot(from, stream, &wires),
        Ok((from, _)) => read_messages(from, &mut stream, &wires).await,
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        wires.metrics.refused.add(1);
        tracing::warn!(%address, %error, "peer connection closed");
    }
}

/// Reads until the peer closes the connection, which is no error.
async fn read_messages(from: NodeId, stream: &mut TcpStream, wires: &Wires) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(READ_BYTES, stream);
    loop {
        let frame = match read_frame(&mut stream, limits::PEER_FRAME_BYTES_MAX).await {
            Ok(frame) => frame,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error),
            Err(error) => {
                tracing::debug!(peer = %from, %error, "connection ended");
                return Ok(());
            }
        };
        wires.metrics.bytes_received.add(frame.len() as u64);
        let message = wire::decode(frame).map_err(invalid)?;
        if let PeerMessage::Raft(message) = &message {
            // A transfer is passed on in the name of the member that is to lead.
            let own_name = message.from == from || message.message_type == MessageType::TransferLeader;
            if !own_name || message.to != wires.own.node {
                return Err(invalid(format!("a message from {} to {}", message.from, message.to)));
            }
            if message.message_type == MessageType::Snapshot {
                return Err(invalid("a snapshot without its content"));
            }
        }
        if let Some(sink) = wires.sink() {
            sink.receive(from, message);
        }
    }
}

/// Gives the connection to a thread that may block.
fn take_snapshot(from: NodeId, stream: TcpStream, wires: &Arc<Wires>) -> io::Result<()> {
    if wires.receiving_snapshot.swap(true, Ordering::AcqRel) {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another snapshot is arriving"));
    }
    let wires = Arc::clone(wires);
    let work = move |stream: std::net::TcpStream, wires: &Wires| match snapshot::receive(wires, from, stream)
    {
        Ok(()) => tracing::info!(%from, "snapshot received"),
        Err(error) => tracing::warn!(%from, %error, "snapshot not received"),
    };
    let of_thread = Arc::clone(&wires);
    let started = stream.into_std().and_then(|stream| {
        std::thread::Builder::new().name("harmony-snapshot-in".to_owned()).spawn(move || {
            work(stream, &of_thread);
            of_thread.receiving_snapshot.store(false, Ordering::Release);
        })
    });
    if started.is_err() {
        wires.receiving_snapshot.store(false, Ordering::Release);
    }
    started.map(drop)
}

/// `host:port` of a peer URL.
pub(super) fn address_of(url: &str) -> Result<&str, TransportError> {
    let wrong = |reason| TransportError::Url { url: url.to_owned(), reason };
    let rest = match url.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https", _)) => return Err(wrong("TLS between peers is not supported yet")),
        _ => return Err(wrong("it must begin with http://")),
    };
    let address = rest.strip_suffix('/').unwrap_or(rest);
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok() => {
            Ok(address)
        }
        _ => Err(wrong("it must have the form http://host:port")),
    }
}

#[cfg(test)]
mod tests;
