//! A network that can be cut: every member is reached through a proxy of its own, which learns from the first bytes of a
//! connection (the peers' handshake) who is calling and passes it on or not.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use harmony_node::transport::read_caller;
use harmony_types::NodeId;

/// Which directed links are cut, shared by all proxies of a cluster.
#[derive(Clone, Default)]
pub struct Links {
    state: Arc<Mutex<LinksState>>,
}

#[derive(Default)]
struct LinksState {
    cut: BTreeSet<(NodeId, NodeId)>,
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
    let forth = thread::Builder::new()
        .name("test-proxy-copy".to_owned())
        .spawn(move || copy_until_end(caller_reader, called_writer))?;
    copy_until_end(called, caller);
    // A panic there has been printed; the connection is over either way.
    let _ = forth.join();
    Ok(())
}

/// Copies one direction, then ends both, so that the other direction ends too.
fn copy_until_end(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
