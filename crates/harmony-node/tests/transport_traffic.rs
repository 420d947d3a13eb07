//! What a transport counts for each peer, and how many callers it puts up with.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/peers.rs"]
mod support;

use std::io::Read as _;
use std::net::TcpStream;

use harmony_node::TcpTransportConfig;
use harmony_types::Transport as _;
use support::{Inbox, id, member, propose, send_until_heard, start, until};

#[test]
fn round_trips_and_bytes_are_counted_by_peer() {
    let one = start(TcpTransportConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        peers: vec![member(2, "http://127.0.0.1:1")],
        ..support::config(1)
    });
    let inbox = Inbox::attached();
    one.attach(inbox.clone());
    let url = format!("http://{}", one.local_addresses()[0]);
    let two = start(TcpTransportConfig {
        peers: vec![member(1, &url), member(3, "http://127.0.0.1:1")],
        ..support::config(2)
    });
    two.attach(Inbox::attached());
    send_until_heard(&two, &inbox);
    let of = |number| two.peer_metrics().into_iter().find(|(peer, _)| *peer == id(number)).unwrap().1;
    // One at once, another a second later.
    until("two round trips", || 2 <= of(1).round_trips.buckets().iter().sum::<u64>());
    let sum_us = of(1).round_trips.sum_us();
    assert!((1..60_000_000).contains(&sum_us), "{sum_us}");
    assert_eq!(of(3).round_trips.buckets().iter().sum::<u64>(), 0);
    assert!(of(1).connected.get() == 1 && of(3).connected.get() == 0);
    assert!(0 < of(1).bytes_sent.get() && 0 < of(1).bytes_received.get(), "pings are answered");
    let received = one.peer_metrics()[0].1.bytes_received.get();
    assert!(0 < received && received <= of(1).bytes_sent.get());
    let before = of(3).send_failures.get();
    two.send(id(3), vec![propose(1), propose(2)]);
    assert_eq!(of(3).send_failures.get(), before + 2);

    // Who is no member any more is not counted any more, and a broken connection is.
    one.stop();
    until("the end", || of(1).connected.get() == 0 && of(1).disconnects.get() == 1);
    two.set_peers(&[]);
    assert!(two.peer_metrics().is_empty());
    two.stop();
}

#[test]
fn callers_that_say_nothing_do_not_keep_members_out() {
    let one =
        start(TcpTransportConfig { listen: vec!["127.0.0.1:0".parse().unwrap()], ..support::config(1) });
    let inbox = Inbox::attached();
    one.attach(inbox.clone());
    // More than may be in the middle of a handshake: those too many are closed at once, the rest by time.
    let mut silent: Vec<TcpStream> =
        (0..80).map(|_| TcpStream::connect(one.local_addresses()[0]).unwrap()).collect();
    until("those too many to be closed", || 16 <= one.metrics().refused.get());
    silent[0].set_nonblocking(true).unwrap();
    let still_open = silent[0].read(&mut [0]).unwrap_err();
    assert_eq!(still_open.kind(), std::io::ErrorKind::WouldBlock, "its time is not over");
    assert_eq!(one.metrics().refused.get(), 16);
    let url = format!("http://{}", one.local_addresses()[0]);
    let two = start(TcpTransportConfig { peers: vec![member(1, &url)], ..support::config(2) });
    two.attach(Inbox::attached());
    send_until_heard(&two, &inbox);
    one.stop();
    two.stop();
}
