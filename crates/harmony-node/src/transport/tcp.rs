//! The transport over TCP: one thread with a runtime of its own, one connection to each peer for what goes there.
//!
//! What arrives comes over the connections that peers dialed. Every connection opens with a handshake; every frame has a
//! checksum; every number is checked. Whatever fails a check closes the connection: Raft sends again what was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use harmony_types::config::Identity;
use harmony_types::transport::{Held, PeerSink};
use harmony_types::{
    Clock as _, LogIndex, Member, Membership, Message, MessageType, NodeId, PeerMessage, Snapshot, Transport,
    limits,
};
use harmony_wal::SystemClock;
use socket2::SockRef;
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::bounds;
use crate::metrics::Counter;
use crate::tls::{Tls, TlsConfig, TlsError};
use crate::transport::address::Address;
use crate::transport::frame;
use crate::transport::handshake::{self, Own, invalid, read_frame};
use crate::transport::liveness;
use crate::transport::peer::{self, HANDSHAKE_TIMEOUT, Peer};
use crate::transport::roster;
use crate::transport::snapshot::{self, Arrivals};
use crate::transport::stream::PeerStream;
use crate::transport::traffic::{PeerMetrics, Traffic};
use crate::transport::wire::{self, Frame, Pong, Purpose};

/// Read from a connection at once, bytes.
const READ_BYTES: usize = 64 << 10;

/// Options of a [`TcpTransport`].
#[derive(Clone, Debug, Default)]
pub struct TcpTransportConfig {
    /// Which member of which cluster this is; the member must be named.
    pub identity: Identity,
    /// Where to listen for peers; port 0 picks a free one.
    pub listen: Vec<SocketAddr>,
    /// Where to listen for peers that speak TLS; needs `tls`.
    pub listen_tls: Vec<SocketAddr>,
    /// With what to speak TLS: to whoever has a URL that begins with `https://`, and where `listen_tls` says so.
    pub tls: Option<TlsConfig>,
    /// The other members.
    pub peers: Vec<Member>,
    /// Directory for snapshots while they arrive; their files have no names and vanish with the process.
    pub spool_dir: PathBuf,
    /// Bytes a second of a snapshot that is sent, for each member that is sent one; 0: no limit.
    pub snapshot_bytes_per_second: u64,
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
    /// TLS cannot be used.
    #[error("TLS between members: {0}")]
    Tls(#[from] TlsError),
    /// TLS is asked for, but nothing says with what.
    #[error("{0} needs TLS: give a certificate, its key and a trusted CA for peers")]
    NoTls(String),
    /// The members were not told.
    #[error("ask {url} for the members of the cluster: {source}")]
    Roster {
        /// The URL of the member that was asked.
        url: String,
        /// What went wrong.
        #[source]
        source: io::Error,
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
    /// Bytes of snapshots written to peers.
    pub snapshot_bytes_sent: Counter,
    /// Snapshots that went on behind an interruption.
    pub snapshots_resumed: Counter,
    /// Bytes read from peers.
    pub bytes_received: Counter,
    /// Connections made to peers.
    pub connects: Counter,
    /// Connections refused or closed because of what came over them.
    pub refused: Counter,
    /// Messages dropped because their peer was away or its queue full.
    pub dropped: Counter,
}

/// Looks up who the members are.
type MembersOf = Box<dyn Fn() -> Membership + Send + Sync>;

/// What the transport's tasks and threads share.
pub(super) struct Wires {
    pub(super) own: Own,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) clock: SystemClock,
    pub(super) arrivals: Arrivals,
    pub(super) snapshot_bytes_per_second: u64,
    pub(super) metrics: TransportMetrics,
    pub(super) traffic: Traffic,
    transfers: AtomicU64,
    stopped: AtomicBool,
    sink: OnceLock<Arc<dyn PeerSink>>,
    roster: OnceLock<MembersOf>,
    /// Moves whenever the members change, or one is doubted: whoever was removed, or has to greet anew, is not heard any more.
    members: watch::Sender<()>,
    /// Peers that were refused when they were dialed, and have not been admitted since.
    doubted: Mutex<BTreeSet<NodeId>>,
    greetings: Semaphore,
    connections: Semaphore,
}

impl Wires {
    pub(super) fn sink(&self) -> Option<&Arc<dyn PeerSink>> {
        self.sink.get()
    }

    /// Who the members are, once somebody told where to look.
    pub(super) fn members(&self) -> Option<Membership> {
        self.roster.get().map(|members| members())
    }

    /// A number that no transfer of this member has had.
    pub(super) fn next_transfer(&self) -> u64 {
        self.transfers.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// The node behind this transport: it has to be there before anybody is greeted in its name.
    pub(super) fn node(&self) -> io::Result<&Arc<dyn PeerSink>> {
        self.sink().ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the node is still starting"))
    }

    /// Ends the connections that a peer has made, which were admitted when less was known of it: its next greeting is refused, and
    /// told so.
    pub(super) fn doubt(&self, peer: NodeId) {
        self.doubted().insert(peer);
        self.members.send_replace(());
    }

    fn doubted(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.doubted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn gone(&self, peer: NodeId) {
        if let Some(sink) = self.sink() {
            sink.gone(peer);
        }
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
        let tls = config.tls.map(Tls::open).transpose()?;
        for url in config.peers.iter().flat_map(|peer| &peer.peer_urls) {
            if Address::of(url)?.tls && tls.as_ref().is_none_or(|tls| tls.client().is_none()) {
                return Err(TransportError::NoTls(format!("peer URL {url}")));
            }
        }
        if let (Some(address), None) = (config.listen_tls.first(), &tls) {
            return Err(TransportError::NoTls(format!("listening for peers on {address}")));
        }
        let mut listeners = Vec::new();
        let mut local = Vec::new();
        let plain = config.listen.into_iter().map(|address| (address, None));
        for (address, tls) in plain.chain(config.listen_tls.into_iter().map(|address| (address, tls.clone())))
        {
            let failed = |source| TransportError::Listen { address, source };
            let listener = StdListener::bind(address).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            local.push(listener.local_addr().map_err(failed)?);
            listeners.push((listener, tls));
        }
        let failed = |source| TransportError::Thread { source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let clock = SystemClock::new();
        let wires = Arc::new(Wires {
            own,
            tls,
            // No two lives begin in the same millisecond, and none sends so many snapshots.
            transfers: AtomicU64::new(clock.unix_ms() << 20),
            clock,
            arrivals: Arrivals::new(config.spool_dir),
            snapshot_bytes_per_second: config.snapshot_bytes_per_second,
            metrics: TransportMetrics::default(),
            traffic: Traffic::default(),
            stopped: AtomicBool::new(false),
            sink: OnceLock::new(),
            roster: OnceLock::new(),
            members: watch::Sender::new(()),
            doubted: Mutex::default(),
            greetings: Semaphore::new(bounds::PEER_GREETINGS_MAX),
            connections: Semaphore::new(bounds::PEER_CONNECTIONS_MAX),
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

    /// Tells whoever is to become a member, and asks with [`ask_roster`](super::ask_roster), what `members` returns. The
    /// first one counts; without one nobody is told.
    pub fn tell_roster(&self, members: impl Fn() -> Membership + Send + Sync + 'static) {
        if self.wires.roster.set(Box::new(members)).is_err() {
            tracing::error!("a transport serves one node for life; the second is not asked");
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

    /// What it counts for each other member.
    #[must_use]
    pub fn peer_metrics(&self) -> Vec<(NodeId, Arc<PeerMetrics>)> {
        self.wires.traffic.all()
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for TcpTransport {
    fn send(&self, to: NodeId, messages: Vec<PeerMessage>) {
        let peer = self.peers().get(&to).cloned();
        let count = messages.len() as u64;
        if !peer.as_ref().is_some_and(|peer| peer.push(messages)) {
            self.wires.metrics.dropped.add(count);
            if let Some(peer) = peer {
                peer.metrics.send_failures.add(count);
            }
            self.wires.unreachable(to);
        }
    }

    fn send_snapshot(&self, announcement: Message, snapshot: Snapshot) {
        let to = announcement.to;
        let Some(peer) = self.peers().get(&to).cloned() else {
            if let Some(sink) = self.wires.sink() {
                sink.snapshot_sent(to, false);
            }
            return;
        };
        let wires = Arc::clone(&self.wires);
        let work = move || {
            // Reading the state must not hold up those who use it.
            harmony_wal::work_in_background();
            let began = wires.clock.now();
            peer.metrics.snapshots_begun.add(1);
            let result = snapshot::send(&wires, &peer, announcement, snapshot);
            match &result {
                Ok(()) => {
                    peer.metrics.snapshot_send_times.record(wires.clock.now().saturating_sub(began));
                    peer.metrics.snapshots_sent.add(1);
                    tracing::info!(%to, "snapshot sent");
                }
                Err(error) => {
                    peer.metrics.snapshots_failed.add(1);
                    tracing::warn!(%to, %error, "snapshot not sent");
                }
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
        self.wires.traffic.retain(|id| peers.contains_key(&id));
        for member in members.iter().filter(|member| member.id != self.wires.own.node) {
            match peers.get(&member.id) {
                Some(peer) => peer.set_urls(&member.peer_urls),
                None => {
                    let metrics = self.wires.traffic.add(member.id);
                    let peer = Arc::new(Peer::new(member, metrics));
                    // The thread ends only after this sender is gone.
                    let _ = spawn.send(Arc::clone(&peer));
                    peers.insert(member.id, peer);
                }
            }
        }
        self.wires.members.send_replace(());
    }

    fn stop(&self) {
        self.wires.stopped.store(true, Ordering::Release);
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

/// A listener, and TLS if it speaks that.
type Listening = (StdListener, Option<Arc<Tls>>);

/// The peer thread: ends when the transport stops, and every task with it.
async fn run(wires: Arc<Wires>, listeners: Vec<Listening>, mut peers: UnboundedReceiver<Arc<Peer>>) {
    for (listener, tls) in listeners {
        match TcpListener::from_std(listener) {
            Ok(listener) => drop(tokio::spawn(accept(listener, tls, Arc::clone(&wires)))),
            Err(error) => tracing::error!(%error, "peers cannot connect"),
        }
    }
    let mut looks = interval(snapshot::RESUME_PATIENCE / 4);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            peer = peers.recv() => match peer {
                Some(peer) => drop(tokio::spawn(peer::run(peer, Arc::clone(&wires)))),
                None => return,
            },
            _ = looks.tick() => wires.arrivals.expire(wires.clock.now()),
        }
    }
}

async fn accept(listener: TcpListener, tls: Option<Arc<Tls>>, wires: Arc<Wires>) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                drop(tokio::spawn(serve(stream, address, tls.clone(), Arc::clone(&wires))));
            }
            Err(error) => {
                // Out of file handles, most likely: those that exist go on.
                tracing::warn!(%error, "a peer's connection was not accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, address: SocketAddr, tls: Option<Arc<Tls>>, wires: Arc<Wires>) {
    // Small answers leave at once; a socket that refuses this is slower, not wrong. One that refuses to be watched may
    // stay open behind a dead network.
    let _ = stream.set_nodelay(true);
    let _ = liveness::watch(&SockRef::from(&stream));
    // Lives until its refusal is counted: who sees the connection end can rely on the number.
    let mut open = None;
    if let Err(error) = converse(stream, tls.as_ref(), &wires, &mut open).await {
        wires.metrics.refused.add(1);
        tracing::warn!(%address, %error, "peer connection closed");
    }
}

async fn converse(
    stream: TcpStream,
    tls: Option<&Arc<Tls>>,
    wires: &Arc<Wires>,
    open: &mut Option<PeerStream>,
) -> io::Result<()> {
    let full = |_| io::Error::new(io::ErrorKind::ResourceBusy, "too many connections from peers");
    let greeting = wires.greetings.try_acquire().map_err(full)?;
    let greeted = timeout(HANDSHAKE_TIMEOUT, async {
        let stream = open.insert(PeerStream::accepted(stream, tls).await?);
        handshake::accept(wires.own, &**wires.node()?, stream).await
    });
    let greeted = greeted.await;
    let greeted = greeted.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no handshake")))?;
    let Some((from, purpose)) = greeted else {
        let Some(stream) = open else { return Ok(()) };
        return timeout(HANDSHAKE_TIMEOUT, roster::tell(wires, stream)).await?;
    };
    drop(greeting);
    wires.doubted().remove(&from);
    let _connection = wires.connections.try_acquire().map_err(full)?;
    match purpose {
        Purpose::Snapshot => open.take().map_or(Ok(()), |stream| take_snapshot(from, stream, wires)),
        Purpose::Messages | Purpose::Unspecified | Purpose::Roster => match open {
            Some(stream) => read_messages(from, stream, wires).await,
            None => Ok(()),
        },
    }
}

/// Reads until the peer closes the connection, which is no error.
async fn read_messages(from: NodeId, stream: &mut PeerStream, wires: &Wires) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(READ_BYTES, stream);
    let mut metrics = wires.traffic.of(from);
    let mut members = wires.members.subscribe();
    loop {
        let read = {
            let read = pin!(read_frame(&mut stream, limits::PEER_FRAME_BYTES_MAX));
            unless_refused(from, &mut members, wires, read).await?
        };
        let frame = match read {
            Ok(frame) => frame,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error),
            Err(error) => {
                tracing::debug!(peer = %from, %error, "connection ended");
                return Ok(());
            }
        };
        wires.metrics.bytes_received.add(frame.len() as u64);
        metrics.bytes_received.add(frame.len() as u64);
        let message = match wire::decode(frame).map_err(invalid)? {
            Frame::Message(message) => message,
            Frame::Ping(number) => {
                answer_ping(stream.get_mut(), number).await?;
                // The caller may have become a member only after it called.
                metrics = wires.traffic.of(from);
                continue;
            }
        };
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

async fn answer_ping(stream: &mut PeerStream, number: u64) -> io::Result<()> {
    let mut out = bytes::BytesMut::new();
    frame::encode(&Pong { number }, limits::PEER_FRAME_BYTES_MAX, &mut out).map_err(invalid)?;
    stream.write_all(&out).await?;
    stream.flush().await
}

/// Waits for `read`, as long as the peer is not removed or doubted. Its next connection is refused and told so.
async fn unless_refused<T>(
    from: NodeId,
    members: &mut watch::Receiver<()>,
    wires: &Wires,
    mut read: Pin<&mut impl Future<Output = T>>,
) -> io::Result<T> {
    loop {
        tokio::select! {
            frame = &mut read => return Ok(frame),
            Ok(()) = members.changed() => {
                let whatever_it_holds = Held { last: LogIndex(u64::MAX), ..Held::default() };
                let doubted = wires.doubted().contains(&from);
                if doubted {
                    let reason = format!("member {from} was refused when it was dialed: it has to greet anew");
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
                }
                if wires.node()?.admit(from, whatever_it_holds).is_err() {
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("member {from} was removed")));
                }
            }
        }
    }
}

/// Gives the connection to a thread that may block.
fn take_snapshot(from: NodeId, stream: PeerStream, wires: &Arc<Wires>) -> io::Result<()> {
    let stream = stream.into_blocking(snapshot::STALL_TIMEOUT)?;
    let wires = Arc::clone(wires);
    let work = move || {
        let metrics = wires.traffic.of(from);
        let began = wires.clock.now();
        metrics.snapshots_arriving.add(1);
        match snapshot::receive(&wires, from, stream) {
            Ok(()) => {
                metrics.snapshot_receive_times.record(wires.clock.now().saturating_sub(began));
                metrics.snapshots_received.add(1);
                tracing::info!(%from, "snapshot received");
            }
            Err(error) => {
                metrics.snapshots_refused.add(1);
                tracing::warn!(%from, %error, "snapshot not received");
            }
        }
    };
    std::thread::Builder::new().name("harmony-snapshot-in".to_owned()).spawn(work).map(drop)
}
