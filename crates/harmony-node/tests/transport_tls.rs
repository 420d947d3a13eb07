//! Two transports that speak TLS, over real sockets: who is let in, and what changes when a file does.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/peers.rs"]
mod support;

use std::io::Read as _;
use std::sync::Arc;

use harmony_node::tls::{AllowedName, TlsIdentity};
use harmony_node::{TcpTransport, TcpTransportConfig, TlsConfig, TransportError};
use harmony_types::Transport as _;
use support::{Authority, Inbox, MIB, content, member, send_until_heard, snapshot, start, until};

fn listening(tls: &TlsConfig) -> Arc<TcpTransport> {
    start(TcpTransportConfig {
        listen_tls: vec!["127.0.0.1:0".parse().unwrap()],
        tls: Some(tls.clone()),
        ..support::config(1)
    })
}

fn dialing(to: &TcpTransport, tls: &TlsConfig) -> Arc<TcpTransport> {
    let peer = member(1, &format!("https://{}", to.local_addresses()[0]));
    start(TcpTransportConfig { peers: vec![peer], tls: Some(tls.clone()), ..support::config(2) })
}

#[test]
fn messages_and_snapshots_travel_through_tls() {
    let authority = Authority::new();
    let tls = authority.member("one");
    let (one, inbox) = (listening(&tls), Inbox::attached());
    one.attach(inbox.clone());
    let two = dialing(&one, &authority.member("two"));
    let own = Inbox::attached();
    two.attach(own.clone());
    send_until_heard(&two, &inbox);
    let (announcement, sent) = snapshot(2, 1, content(3 * MIB));
    two.send_snapshot(announcement, sent);
    until("the snapshot", || inbox.snapshots() == [content(3 * MIB)] && own.sent() == [true]);
    // Nothing of it went over the wire as it is.
    let mut stream = std::net::TcpStream::connect(one.local_addresses()[0]).unwrap();
    support::greet(&mut stream);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.len() < 20, "an alert at most: {answer:?}");
    until("a refusal", || one.metrics().refused.get() == 1);
    one.stop();
    two.stop();
}

#[test]
fn strangers_are_not_let_in_and_not_dialed() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (one, inbox) = (listening(&authority.member("one")), Inbox::attached());
    one.attach(inbox.clone());
    // It trusts our authority but is signed by another.
    let stranger =
        TlsConfig { trusted_ca_file: authority.member("x").trusted_ca_file, ..other.member("two") };
    for (tls, dialed) in [(stranger, false), (other.member("three"), true)] {
        let before = one.metrics().refused.get();
        let two = dialing(&one, &tls);
        two.attach(Inbox::attached());
        until("a refusal", || before < one.metrics().refused.get());
        assert_eq!(two.metrics().connects.get(), 0, "{dialed}");
        two.stop();
    }
    assert_eq!(inbox.count(), 0);
    one.stop();
}

#[test]
fn a_name_that_is_not_allowed_is_refused_until_the_certificate_is_replaced() {
    let authority = Authority::new();
    let allowed = vec![AllowedName::CommonName("two".to_owned()), AllowedName::CommonName("one".to_owned())];
    let (one, inbox) = (listening(&TlsConfig { allowed, ..authority.member("one") }), Inbox::attached());
    one.attach(inbox.clone());
    let tls = authority.named("two", "nobody");
    let two = dialing(&one, &tls);
    two.attach(Inbox::attached());
    until("a refusal", || 2 <= one.metrics().refused.get());
    assert_eq!(two.metrics().connects.get(), 0);
    // The files change under both; nobody restarts.
    authority.named("two", "two");
    send_until_heard(&two, &inbox);
    one.stop();
    two.stop();
}

#[test]
fn a_revoked_member_is_not_let_in_again() {
    let authority = Authority::new();
    let tls = TlsConfig { crl_file: Some(authority.revoke(999)), ..authority.member("one") };
    let (one, inbox) = (listening(&tls), Inbox::attached());
    one.attach(inbox.clone());
    let revoked = authority.member("two");
    let two = dialing(&one, &revoked);
    two.attach(Inbox::attached());
    send_until_heard(&two, &inbox);
    two.stop();
    authority.revoke(authority.last_serial());
    let before = one.metrics().refused.get();
    let two = dialing(&one, &revoked);
    two.attach(Inbox::attached());
    until("a refusal", || before < one.metrics().refused.get());
    assert_eq!(two.metrics().connects.get(), 0);
    one.stop();
    two.stop();
}

#[test]
fn self_signed_members_talk() {
    let identity = || TlsIdentity::SelfSigned { hosts: vec!["127.0.0.1".to_owned()], valid_years: 1 };
    let (one, inbox) = (listening(&TlsConfig::new(identity())), Inbox::attached());
    one.attach(inbox.clone());
    let two = dialing(&one, &TlsConfig::new(identity()));
    two.attach(Inbox::attached());
    send_until_heard(&two, &inbox);
    one.stop();
    two.stop();
}

#[test]
fn one_side_without_tls_is_told_so() {
    let authority = Authority::new();
    let one = listening(&authority.member("one"));
    one.attach(Inbox::attached());
    let plain = member(1, &format!("http://{}", one.local_addresses()[0]));
    let two = start(TcpTransportConfig { peers: vec![plain], ..support::config(2) });
    two.attach(Inbox::attached());
    until("a refusal", || 0 < one.metrics().refused.get());
    assert_eq!(two.metrics().connects.get(), 0);
    one.stop();
    two.stop();
}

#[test]
fn tls_without_files_is_refused_at_start() {
    let https = member(1, "https://127.0.0.1:1");
    let error = TcpTransport::start(TcpTransportConfig { peers: vec![https.clone()], ..support::config(2) });
    assert!(matches!(&error, Err(TransportError::NoTls(what)) if what.contains("https://127.0.0.1:1")));
    let listen_tls = vec!["127.0.0.1:0".parse().unwrap()];
    let error = TcpTransport::start(TcpTransportConfig { listen_tls, ..support::config(2) });
    assert!(matches!(error, Err(TransportError::NoTls(_))));
    // A certificate alone says who this is, not whom to trust.
    let authority = Authority::new();
    let tls = TlsConfig { trusted_ca_file: None, client_cert_auth: false, ..authority.member("two") };
    let config = TcpTransportConfig { peers: vec![https], tls: Some(tls), ..support::config(2) };
    assert!(matches!(TcpTransport::start(config), Err(TransportError::NoTls(_))));
}
