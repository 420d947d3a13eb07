//! A network that can be cut, stand still, lose, delay, and change bytes: every member is reached through a proxy of its own, which learns from
//! the first bytes of a connection (the peers' handshake) who is calling and passes it on or not.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use harmony_node::transport::read_caller;
use harmony_types::NodeId;
use harmony_types::fake::seed::SeededRng;

use crate::wait::pause;

/// Bytes copied at once.
const CHUNK_BYTES: usize = 64 << 10;

/// What happens on the directed links, shared by all proxies of a cluster.
#[derive(Clone, Default)]
pub struct Links {
    state: Arc<Mutex<LinksState>>,
    /// A link goes on.
    released: Arc<Condvar>,
}

/// A bad link: what TCP makes of loss, delay and reordering. Bytes of one connection keep their order; those of an old connection
/// may arrive behind those of the one that replaced it.
#[derive(Debug)]
pub struct Storm {
    /// Of a hundred pieces, how many end their connection instead of arriving.
    pub lost_percent: u64,
    /// Longest time that a piece, and all behind it, is late.
    pub delay_max: Duration,
    /// What chance is drawn from.
    pub rng: SeededRng,
}

#[derive(Default)]
struct LinksState {
    cut: BTreeSet<(NodeId, NodeId)>,
    held: BTreeSet<(NodeId, NodeId)>,
    flipping: BTreeSet<(NodeId, NodeId)>,
    passed: BTreeMap<(NodeId, NodeId), u64>,
    storms: BTreeMap<(NodeId, NodeId), Storm>,
    lost: usize,
    open: Vec<Connection>,
}

/// One connection that passes through a proxy.
struct Connection {
    from: NodeId,
    to: NodeId,
    caller: TcpStream,
    called: TcpStream,
}

impl Links {
    fn lock(&self) -> MutexGuard<'_, LinksState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts the link: connections on it end, new ones are refused. Both ways, as one TCP connection carries answers back.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        let mut state = self.lock();
        state.cut.insert((from, to));
        state.open.retain(|connection| {
            let on_link = connection.from == from && connection.to == to;
            if on_link {
                // An error means that the connection has ended by itself.
                let _ = connection.caller.shutdown(Shutdown::Both);
                let _ = connection.called.shutdown(Shutdown::Both);
            }
            !on_link
        });
    }

    /// Heals the link.
    pub fn heal(&self, from: NodeId, to: NodeId) {
        self.lock().cut.remove(&(from, to));
    }

    /// Stops all bytes from one member to another, in silence: no connection ends, nobody is refused, as when a cable is pulled.
    /// The other direction goes on.
    pub fn hold(&self, from: NodeId, to: NodeId) {
        self.lock().held.insert((from, to));
    }

    /// Lets them go on, the oldest first: what is left of a connection that one side gave up meanwhile arrives late.
    pub fn release(&self, from: NodeId, to: NodeId) {
        self.lock().held.remove(&(from, to));
        self.released.notify_all();
    }

    /// Flips one bit of what passes next from one member to another.
    pub fn flip_next(&self, from: NodeId, to: NodeId) {
        self.lock().flipping.insert((from, to));
    }

    /// True until that bit was flipped.
    #[must_use]
    pub fn is_flipping(&self, from: NodeId, to: NodeId) -> bool {
        self.lock().flipping.contains(&(from, to))
    }

    /// Bytes that have passed from one member to another, on all connections.
    #[must_use]
    pub fn passed(&self, from: NodeId, to: NodeId) -> u64 {
        self.lock().passed.get(&(from, to)).copied().unwrap_or(0)
    }

    /// Makes the link bad, one way.
    pub fn disturb(&self, from: NodeId, to: NodeId, storm: Storm) {
        self.lock().storms.insert((from, to), storm);
    }

    /// Ends all storms. What is late still arrives late.
    pub fn calm(&self) {
        self.lock().storms.clear();
    }

    /// How many connections storms have ended.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.lock().lost
    }

    /// What the link's storm does to the next piece: it is lost (`None`), or late.
    fn weather(&self, link: (NodeId, NodeId)) -> Option<Duration> {
        let mut state = self.lock();
        let Some(storm) = state.storms.get_mut(&link) else { return Some(Duration::ZERO) };
        if storm.rng.chance(storm.lost_percent, 100) {
            state.lost += 1;
            return None;
        }
        // Most pieces are only a little late: were all of them by half of the most, nobody would be heard at all.
        let longest = u64::try_from(storm.delay_max.as_micros()).unwrap_or(u64::from(u32::MAX));
        let longest = if storm.rng.chance(1, 20) { longest } else { longest / 100 };
        Some(Duration::from_micros(storm.rng.below(longest + 1)))
    }

    /// Does to bytes on their way what the link does. False: they are lost, and the connection with them.
    fn pass(&self, link: (NodeId, NodeId), bytes: &mut [u8]) -> bool {
        match self.weather(link) {
            None => return false,
            Some(Duration::ZERO) => {}
            Some(late) => pause(late),
        }
        let mut state = self.lock();
        while state.held.contains(&link) {
            state = self.released.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        *state.passed.entry(link).or_default() += bytes.len() as u64;
        if state.flipping.remove(&link) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        true
    }

    /// Takes a connection in unless its link is cut.
    fn admit(&self, connection: Connection) -> bool {
        let mut state = self.lock();
        let admitted = !state.cut.contains(&(connection.from, connection.to));
        if admitted {
            state.open.push(connection);
        }
        admitted
    }
}

/// Listens in front of one member.
pub struct Proxy {
    address: SocketAddr,
}

impl Proxy {
    /// Starts a proxy in front of member `to`, which listens at `target`. It runs until the process ends.
    ///
    /// # Errors
    /// No port is free.
    pub fn start(listener: TcpListener, to: NodeId, target: SocketAddr, links: Links) -> io::Result<Self> {
        let address = listener.local_addr()?;
        thread::Builder::new().name("test-proxy".to_owned()).spawn(move || {
            for caller in listener.incoming().flatten() {
                let links = links.clone();
                // A connection that cannot be served is dropped: to its caller that is a network error.
                let _ = thread::Builder::new()
                    .name("test-proxy-connection".to_owned())
                    .spawn(move || pass_on(caller, to, target, &links));
            }
        })?;
        Ok(Self { address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Reads the handshake, connects to the member, and copies both ways until either side ends.
fn pass_on(mut caller: TcpStream, to: NodeId, target: SocketAddr, links: &Links) -> io::Result<()> {
    caller.set_nodelay(true)?;
    let first = read_caller(&mut caller)?;
    let from = first.from;
    let mut called = TcpStream::connect(target)?;
    called.set_nodelay(true)?;
    let connection = Connection { from, to, caller: caller.try_clone()?, called: called.try_clone()? };
    if !links.admit(connection) {
        return Ok(());
    }
    called.write_all(&first.bytes)?;
    let (caller_reader, called_writer) = (caller.try_clone()?, called.try_clone()?);
    let forth = thread::Builder::new().name("test-proxy-copy".to_owned()).spawn({
        let links = links.clone();
        move || copy_until_end(caller_reader, called_writer, &links, (from, to))
    })?;
    copy_until_end(called, caller, links, (to, from));
    // A panic there has been printed; the connection is over either way.
    let _ = forth.join();
    Ok(())
}

/// Copies one direction, then ends both, so that the other direction ends too.
fn copy_until_end(mut from: TcpStream, mut to: TcpStream, links: &Links, link: (NodeId, NodeId)) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let bytes = &mut buffer[..read];
        if !links.pass(link, bytes) || to.write_all(bytes).is_err() {
            break;
        }
    }
    // An error means that it has ended by itself.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
