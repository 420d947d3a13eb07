//! What a TCP transport refuses: other clusters, other members, other versions, damaged and oversized frames, nonsense.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;
use harmony_node::{TcpTransport, TcpTransportConfig, TransportError};
use harmony_types::config::Identity;
use harmony_types::transport::{Held, PeerRefusal, PeerSink};
use harmony_types::{
    ClusterId, LogIndex, Member, Message, NodeError, NodeId, PeerMessage, Role, Snapshot, Transport,
};

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

fn start(cluster: u64, node: u64, peers: Vec<Member>) -> Arc<TcpTransport> {
    TcpTransport::start(TcpTransportConfig {
        identity: Identity { cluster: ClusterId(cluster), node: Some(id(node)) },
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        peers,
        spool_dir: std::env::temp_dir(),
        ..TcpTransportConfig::default()
    })
    .unwrap()
}

fn member(number: u64, address: SocketAddr) -> Member {
    Member {
        id: id(number),
        name: String::new(),
        peer_urls: vec![format!("http://{address}")],
        client_urls: Vec::new(),
        role: Role::Voter,
    }
}

/// Notes what arrives.
#[derive(Default)]
struct Inbox {
    received: Mutex<Vec<(NodeId, PeerMessage)>>,
    changed: Condvar,
}

impl Inbox {
    fn wait(&self, count: usize) -> Vec<(NodeId, PeerMessage)> {
        let received = self.received.lock().unwrap();
        let (received, timeout) = self
            .changed
            .wait_timeout_while(received, std::time::Duration::from_secs(60), |all| all.len() < count)
            .unwrap();
        assert!(!timeout.timed_out(), "waited in vain for a message");
        received.clone()
    }
}

impl PeerSink for Inbox {
    fn receive(&self, from: NodeId, message: PeerMessage) {
        self.received.lock().unwrap().push((from, message));
        self.changed.notify_all();
    }

    fn receive_snapshot(&self, _: Message, _: Snapshot) -> Result<(), NodeError> {
        Ok(())
    }

    fn unreachable(&self, _: NodeId) {}

    fn snapshot_sent(&self, _: NodeId, _: bool) {}
}

fn propose(request: u64) -> PeerMessage {
    PeerMessage::Propose { request, data: Bytes::from_static(b"data") }
}

/// A frame as the transport writes it.
fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    let mut hash = crc32fast::Hasher::new();
    hash.update(&length);
    hash.update(payload);
    [length.as_slice(), &hash.finalize().to_le_bytes(), payload].concat()
}

/// A handshake, as protobuf by hand: the wire is what is tested, so its own encoder is not used.
fn hello(magic: u64, version: u8, cluster: u64, from: u64, to: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    for (tag, number) in [(1, magic), (3, cluster), (4, from), (5, to)] {
        payload.push(tag << 3 | 1);
        payload.extend_from_slice(&number.to_le_bytes());
    }
    payload.extend_from_slice(&[2 << 3, version, 6 << 3, 1]);
    frame(&payload)
}

const MAGIC: u64 = 0x4861_726d_6f6e_7944;

/// Sends bytes and returns everything that comes back until the other side closes the connection.
fn answer(transport: &TcpTransport, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(transport.local_addresses()[0]).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // A reset instead of an end is a close, too.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn whoever_is_no_peer_is_refused_and_told_why() {
    let transport = start(7, 1, Vec::new());
    let inbox = Arc::new(Inbox::default());
    transport.attach(Arc::clone(&inbox) as _);
    for (bytes, reason) in [
        (hello(MAGIC, 2, 8, 2, 1), "cluster 8, this member is of cluster 7"),
        (hello(MAGIC, 2, 7, 2, 3), "member 3 is wanted here, this is member 1"),
        (hello(MAGIC, 9, 7, 2, 1), "peer protocol version 9"),
        (hello(MAGIC + 1, 2, 7, 2, 1), "no peer of a harmony cluster"),
        (hello(MAGIC, 2, 7, 1, 1), "calls itself member 1"),
        (hello(MAGIC, 2, 7, 0, 1), "calls itself member 0"),
        (frame(b"\xff\xff\xff"), "no peer of a harmony cluster"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), ""),
        (vec![0xff; 64], ""),
    ] {
        let answer = answer(&transport, &bytes);
        assert!(answer.contains(reason), "{reason}: {answer}");
    }
    assert_eq!(transport.metrics().refused.get(), 9);
    assert!(inbox.received.lock().unwrap().is_empty());
    transport.stop();
}

#[test]
fn a_damaged_oversized_or_senseless_frame_closes_the_connection() {
    let transport = start(7, 1, Vec::new());
    let inbox = Arc::new(Inbox::default());
    transport.attach(Arc::clone(&inbox) as _);
    let mut damaged = frame(b"\x12\x02\x08\x05");
    *damaged.last_mut().unwrap() ^= 1;
    let oversized = [u32::MAX.to_le_bytes(), [0; 4]].concat();
    let unknown_kind = frame(b"");
    // A raft message of type 99.
    let unknown_type = frame(&[0x0a, 0x02, 0x08, 99]);
    for bytes in [damaged, oversized, unknown_kind, unknown_type] {
        let bytes = [hello(MAGIC, 2, 7, 2, 1), bytes].concat();
        // It is greeted, and then nothing more is heard of it.
        assert!(!answer(&transport, &bytes).is_empty());
    }
    assert_eq!(transport.metrics().refused.get(), 4);
    assert!(inbox.received.lock().unwrap().is_empty());
    transport.stop();
}

#[test]
fn peers_find_each_other_again_after_one_was_away() {
    let one = start(7, 1, Vec::new());
    let inbox = Arc::new(Inbox::default());
    one.attach(Arc::clone(&inbox) as _);
    let address = one.local_addresses()[0];
    let two = start(7, 2, vec![member(1, address)]);
    two.attach(Arc::new(Inbox::default()));
    // Messages before the connection stands are lost: it is the sender's business to repeat them.
    let send_until = |count: usize, inbox: &Inbox| {
        let clock = harmony_node::SystemClock::new();
        while inbox.received.lock().unwrap().len() < count {
            two.send(id(1), vec![propose(count as u64)]);
            harmony_types::Clock::sleep(&clock, std::time::Duration::from_millis(5));
            assert!(harmony_types::Clock::now(&clock) < std::time::Duration::from_secs(60), "never arrives");
        }
    };
    send_until(1, &inbox);
    assert_eq!(inbox.wait(1)[0], (id(2), propose(1)));
    one.stop();

    let again = TcpTransport::start(TcpTransportConfig {
        identity: Identity { cluster: ClusterId(7), node: Some(id(1)) },
        listen: vec![address],
        peers: Vec::new(),
        spool_dir: std::env::temp_dir(),
        ..TcpTransportConfig::default()
    })
    .unwrap();
    let inbox = Arc::new(Inbox::default());
    again.attach(Arc::clone(&inbox) as _);
    send_until(1, &inbox);
    again.stop();
    two.stop();
}

/// Knows up to where others held the log, and what it was told of itself.
#[derive(Default)]
struct Witness {
    inbox: Inbox,
    acknowledged: AtomicU64,
    told: Mutex<Vec<PeerRefusal>>,
    changed: Condvar,
}

impl PeerSink for Witness {
    fn receive(&self, from: NodeId, message: PeerMessage) {
        self.inbox.receive(from, message);
    }

    fn receive_snapshot(&self, _: Message, _: Snapshot) -> Result<(), NodeError> {
        Ok(())
    }

    fn unreachable(&self, _: NodeId) {}

    fn snapshot_sent(&self, _: NodeId, _: bool) {}

    fn admit(&self, _: NodeId, held: Held) -> Result<(), PeerRefusal> {
        let acknowledged = LogIndex(self.acknowledged.load(Ordering::SeqCst));
        if held.last < acknowledged { Err(PeerRefusal::Forgot { acknowledged }) } else { Ok(()) }
    }

    fn refused(&self, _: NodeId, refusal: PeerRefusal) {
        self.told.lock().unwrap().push(refusal);
        self.changed.notify_all();
    }
}

/// Its connection is older than what is known of it: it has to greet anew, or it would be heard for ever, and never be told.
#[test]
fn a_peer_that_was_admitted_before_it_was_known_to_have_forgotten_is_told() {
    let one = start(7, 1, Vec::new());
    let witness = Arc::new(Witness::default());
    one.attach(Arc::clone(&witness) as _);
    let two = start(7, 2, vec![member(1, one.local_addresses()[0])]);
    let forgetful = Arc::new(Witness::default());
    two.attach(Arc::clone(&forgetful) as _);
    let clock = harmony_node::SystemClock::new();
    while witness.inbox.received.lock().unwrap().is_empty() {
        two.send(id(1), vec![propose(1)]);
        harmony_types::Clock::sleep(&clock, std::time::Duration::from_millis(5));
        assert!(harmony_types::Clock::now(&clock) < std::time::Duration::from_secs(60), "never arrives");
    }

    witness.acknowledged.store(55, Ordering::SeqCst);
    one.set_peers(&[member(2, two.local_addresses()[0])]);
    let told = forgetful.told.lock().unwrap();
    let limit = std::time::Duration::from_secs(60);
    let (told, _) = forgetful.changed.wait_timeout_while(told, limit, |told| told.is_empty()).unwrap();
    assert_eq!(told.first(), Some(&PeerRefusal::Forgot { acknowledged: LogIndex(55) }));
    drop(told);
    one.stop();
    two.stop();
}

#[test]
fn an_address_in_use_and_a_bad_url_are_reported() {
    let one = start(7, 1, Vec::new());
    let config = TcpTransportConfig {
        identity: Identity { cluster: ClusterId(7), node: Some(id(2)) },
        listen: vec![one.local_addresses()[0]],
        peers: Vec::new(),
        spool_dir: std::env::temp_dir(),
        ..TcpTransportConfig::default()
    };
    let error = TcpTransport::start(config.clone()).unwrap_err();
    assert!(error.to_string().contains(&one.local_addresses()[0].to_string()), "{error}");
    assert!(matches!(error, TransportError::Listen { .. }));
    let mut bad = member(3, one.local_addresses()[0]);
    bad.peer_urls = vec!["ftp://x:1".to_owned()];
    let error =
        TcpTransport::start(TcpTransportConfig { listen: Vec::new(), peers: vec![bad], ..config.clone() });
    assert!(matches!(error, Err(TransportError::Url { .. })));
    let nobody = Identity { cluster: ClusterId(7), node: None };
    let error = TcpTransport::start(TcpTransportConfig { listen: Vec::new(), identity: nobody, ..config });
    assert!(matches!(error, Err(TransportError::NoIdentity)));
    one.stop();
}
