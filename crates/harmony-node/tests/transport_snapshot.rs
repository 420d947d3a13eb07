//! Snapshots between two transports over real sockets, with a link between them that breaks.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/peers.rs"]
mod support;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use harmony_node::{TcpTransport, TcpTransportConfig};
use harmony_types::{SnapshotData, Transport as _};
use support::{Inbox, MIB, content, member, send_until_heard, snapshot, start, until};

/// Passes connections on to `to`. What goes there is cut off once a connection has carried so many bytes, 0 for never; one
/// byte of it may be changed.
struct Link {
    address: SocketAddr,
    cut_after: AtomicU64,
    flip: AtomicBool,
    carried: AtomicU64,
}

impl Link {
    fn to(to: SocketAddr) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            cut_after: AtomicU64::new(0),
            flip: AtomicBool::new(false),
            carried: AtomicU64::new(0),
        });
        let own = Arc::clone(&link);
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let Ok(near) = near else { return };
                let Ok(far) = TcpStream::connect(to) else { continue };
                let (back, forth) = ((far.try_clone().unwrap(), near.try_clone().unwrap()), (near, far));
                std::thread::spawn(move || {
                    let (mut from, mut to) = back;
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
                let own = Arc::clone(&own);
                std::thread::spawn(move || own.carry(forth.0, forth.1));
            }
        });
        link
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream) {
        let (mut buffer, mut carried) = ([0; 4096], 0u64);
        while let Ok(read) = from.read(&mut buffer) {
            if read == 0 {
                break;
            }
            if MIB as u64 <= carried && self.flip.swap(false, Ordering::AcqRel) {
                buffer[read / 2] ^= 1;
            }
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
            carried += read as u64;
            self.carried.fetch_add(read as u64, Ordering::AcqRel);
            let limit = self.cut_after.load(Ordering::Acquire);
            if limit != 0 && limit <= carried {
                self.cut_after.store(0, Ordering::Release);
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}

struct Pair {
    one: Arc<TcpTransport>,
    two: Arc<TcpTransport>,
    inbox: Arc<Inbox>,
    own: Arc<Inbox>,
    link: Arc<Link>,
}

/// Member 2 dials member 1 over the link.
fn pair(bytes_per_second: u64) -> Pair {
    let one = start(TcpTransportConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        peers: vec![member(2, "http://127.0.0.1:1")],
        ..support::config(1)
    });
    let inbox = Inbox::attached();
    one.attach(inbox.clone());
    let link = Link::to(one.local_addresses()[0]);
    let two = start(TcpTransportConfig {
        peers: vec![member(1, &format!("http://{}", link.address))],
        snapshot_bytes_per_second: bytes_per_second,
        ..support::config(2)
    });
    let own = Inbox::attached();
    two.attach(own.clone());
    Pair { one, two, inbox, own, link }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.one.stop();
        self.two.stop();
    }
}

#[test]
fn an_interrupted_snapshot_goes_on_where_it_stopped() {
    let pair = pair(0);
    let whole = content(40 * MIB);
    pair.link.cut_after.store(30 * MIB as u64, Ordering::Release);
    let (announcement, sent) = snapshot(2, 1, whole.clone());
    pair.two.send_snapshot(announcement, sent);
    until("the snapshot", || pair.own.sent() == [true]);
    assert!(pair.inbox.snapshots() == [whole], "what arrived is what was sent");
    assert_eq!(pair.two.metrics().snapshots_resumed.get(), 1);
    // At most the window and what lay in the link went twice.
    let carried = pair.link.carried.load(Ordering::Acquire);
    assert!(carried < 56 * MIB as u64, "{carried} bytes for 40 MiB");
    let metrics = &pair.two.peer_metrics()[0].1;
    assert_eq!((metrics.snapshots_sent.get(), metrics.snapshots_failed.get()), (1, 0));
    until("the count", || pair.one.peer_metrics()[0].1.snapshots_received.get() == 1);
}

#[test]
fn a_byte_that_changes_on_the_way_is_sent_again() {
    let pair = pair(0);
    let whole = content(4 * MIB);
    pair.link.flip.store(true, Ordering::Release);
    let (announcement, sent) = snapshot(2, 1, whole.clone());
    pair.two.send_snapshot(announcement, sent);
    until("the snapshot", || pair.own.sent() == [true]);
    assert!(pair.inbox.snapshots() == [whole]);
    assert!(!pair.link.flip.load(Ordering::Acquire));
    assert_eq!(pair.two.metrics().snapshots_resumed.get(), 1);
}

#[test]
fn a_receiver_that_has_lost_its_half_gets_another_snapshot_not_a_part() {
    let pair = pair(16 * MIB as u64);
    let (announcement, sent) = snapshot(2, 1, content(24 * MIB));
    pair.two.send_snapshot(announcement, sent);
    // More than the sender keeps for a second time.
    until("a part", || 12 * MIB as u64 <= pair.link.carried.load(Ordering::Acquire));
    let address = pair.one.local_addresses()[0];
    pair.one.stop();
    let one = start(TcpTransportConfig { listen: vec![address], ..support::config(1) });
    let inbox = Inbox::attached();
    one.attach(inbox.clone());
    until("an end", || pair.own.sent() == [false]);
    assert!(inbox.snapshots().is_empty());
    let (announcement, sent) = snapshot(2, 1, content(MIB));
    pair.two.send_snapshot(announcement, sent);
    until("the other snapshot", || inbox.snapshots() == [content(MIB)]);
    one.stop();
}

#[test]
fn a_snapshot_is_no_faster_than_allowed_and_messages_pass_it() {
    let pair = pair(4 * MIB as u64);
    let clock = harmony_node::SystemClock::new();
    let start = harmony_types::Clock::now(&clock);
    let (announcement, sent) = snapshot(2, 1, content(4 * MIB));
    pair.two.send_snapshot(announcement, sent);
    send_until_heard(&pair.two, &pair.inbox);
    assert!(pair.own.sent().is_empty(), "the snapshot is still on its way");
    until("the snapshot", || pair.own.sent() == [true]);
    let took = harmony_types::Clock::now(&clock) - start;
    assert!(std::time::Duration::from_millis(700) < took, "{took:?}");
}

#[test]
fn a_snapshot_that_fails_to_read_is_reported_and_not_taken() {
    struct Broken(usize);
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let left = self.0.min(buffer.len());
            self.0 -= left;
            if left == 0 { Err(io::Error::other("a view that was ended")) } else { Ok(left) }
        }
    }
    let pair = pair(0);
    let (announcement, mut sent) = snapshot(2, 1, content(1));
    sent.data = SnapshotData::Stream(Box::new(Broken(2 * MIB)));
    pair.two.send_snapshot(announcement, sent);
    until("an end", || pair.own.sent() == [false]);
    assert!(pair.inbox.snapshots().is_empty());
    let (announcement, sent) = snapshot(2, 1, content(MIB));
    pair.two.send_snapshot(announcement, sent);
    until("the next one", || pair.own.sent() == [false, true]);
}

#[test]
fn a_peer_that_is_not_there_is_reported_at_once() {
    let two =
        start(TcpTransportConfig { peers: vec![member(1, "http://127.0.0.1:1")], ..support::config(2) });
    let own = Inbox::attached();
    two.attach(own.clone());
    let (announcement, sent) = snapshot(2, 1, content(1));
    two.send_snapshot(announcement, sent);
    until("an end", || own.sent() == [false]);
    // One that is no member is no reason to wait either.
    let (announcement, sent) = snapshot(2, 3, content(1));
    two.send_snapshot(announcement, sent);
    until("an end", || own.sent() == [false, false]);
    two.stop();
}
