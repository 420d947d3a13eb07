//! Transports under test, what they deliver, and certificates for them.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use harmony_node::tls::{TlsConfig, TlsIdentity};
use harmony_node::{SystemClock, TcpTransport, TcpTransportConfig};
use harmony_types::config::Identity;
use harmony_types::transport::PeerSink;
use harmony_types::{
    Clock as _, ClusterId, LogIndex, Member, Membership, Message, MessageType, NodeError, NodeId,
    PeerMessage, Role, Snapshot, SnapshotData, SnapshotMeta, Term, Transport as _,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};

pub const MIB: usize = 1 << 20;

pub fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

/// A member of cluster 7 that listens nowhere and knows nobody.
pub fn config(node: u64) -> TcpTransportConfig {
    TcpTransportConfig {
        identity: Identity { cluster: ClusterId(7), node: Some(id(node)) },
        spool_dir: std::env::temp_dir().join("harmony-spool"),
        ..TcpTransportConfig::default()
    }
}

pub fn start(config: TcpTransportConfig) -> Arc<TcpTransport> {
    TcpTransport::start(config).unwrap()
}

pub fn member(number: u64, url: &str) -> Member {
    Member {
        id: id(number),
        name: String::new(),
        peer_urls: vec![url.to_owned()],
        client_urls: Vec::new(),
        role: Role::Voter,
    }
}

/// Waits until something holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let clock = SystemClock::new();
    while !holds() {
        clock.sleep(Duration::from_millis(2));
        assert!(clock.now() < Duration::from_secs(60), "waited in vain for {what}");
    }
}

pub fn propose(request: u64) -> PeerMessage {
    PeerMessage::Propose { request, data: Bytes::from_static(b"data") }
}

/// Messages are lost until the connection stands.
#[track_caller]
pub fn send_until_heard(from: &TcpTransport, inbox: &Inbox) {
    until("a message", || {
        from.send(id(1), vec![propose(1)]);
        inbox.count() != 0
    });
}

/// Bytes that repeat nowhere nearby.
pub fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|place| place.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect()
}

/// A snapshot with the message in front of it.
pub fn snapshot(from: u64, to: u64, content: Vec<u8>) -> (Message, Snapshot) {
    let membership = Membership::from_members([member(1, "http://a:1"), member(2, "http://a:2")]);
    let meta = SnapshotMeta { index: LogIndex(5), term: Term(1), membership };
    let message = Message {
        message_type: MessageType::Snapshot,
        from: id(from),
        to: id(to),
        term: Term(1),
        log_term: Term(0),
        index: LogIndex(0),
        entries: Vec::new(),
        commit: LogIndex(0),
        commit_term: Term(0),
        snapshot: Some(Box::new(meta.clone())),
        request_snapshot: LogIndex(0),
        reject: false,
        reject_hint: LogIndex(0),
        context: Bytes::new(),
        priority: 0,
    };
    (message, Snapshot { meta, data: SnapshotData::Bytes(content.into()) })
}

/// Begins a connection as a peer without TLS does.
pub fn greet(stream: &mut TcpStream) {
    stream.write_all(&[0x20, 0, 0, 0, 1, 2, 3, 4]).unwrap();
    let _ = stream.write_all(&[0; 32]);
}

/// Notes what arrives.
#[derive(Default)]
pub struct Inbox {
    messages: AtomicU64,
    snapshots: Mutex<Vec<Vec<u8>>>,
    sent: Mutex<Vec<bool>>,
}

impl Inbox {
    pub fn attached() -> Arc<Self> {
        Arc::default()
    }

    pub fn count(&self) -> u64 {
        self.messages.load(Ordering::Acquire)
    }

    pub fn snapshots(&self) -> Vec<Vec<u8>> {
        self.snapshots.lock().unwrap().clone()
    }

    pub fn sent(&self) -> Vec<bool> {
        self.sent.lock().unwrap().clone()
    }
}

impl PeerSink for Inbox {
    fn receive(&self, _: NodeId, _: PeerMessage) {
        self.messages.fetch_add(1, Ordering::AcqRel);
    }

    fn receive_snapshot(&self, _: Message, snapshot: Snapshot) -> Result<(), NodeError> {
        let mut content = Vec::new();
        snapshot.data.into_reader().read_to_end(&mut content).unwrap();
        self.snapshots.lock().unwrap().push(content);
        Ok(())
    }

    fn unreachable(&self, _: NodeId) {}

    fn snapshot_sent(&self, _: NodeId, arrived: bool) {
        self.sent.lock().unwrap().push(arrived);
    }
}

/// Signs certificates for members.
pub struct Authority {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    serial: AtomicU64,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { dir, issuer: Issuer::new(params, key), serial: AtomicU64::new(0) }
    }

    pub fn member(&self, name: &str) -> TlsConfig {
        self.named(name, name)
    }

    pub fn last_serial(&self) -> u64 {
        self.serial.load(Ordering::Acquire)
    }

    /// Makes or replaces the files of a member.
    pub fn named(&self, files: &str, common_name: &str) -> TlsConfig {
        let mut params =
            CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serial_number = Some(SerialNumber::from(self.serial.fetch_add(1, Ordering::AcqRel) + 1));
        let key = KeyPair::generate().unwrap();
        let path = |end: &str| self.dir.path().join(format!("{files}.{end}"));
        let (cert_file, key_file) = (path("crt"), path("key"));
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        std::fs::write(&cert_file, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        TlsConfig {
            trusted_ca_file: Some(self.dir.path().join("ca")),
            client_cert_auth: true,
            ..TlsConfig::new(TlsIdentity::Files { cert_file, key_file, dial_with: None })
        }
    }

    /// Replaces the list of revoked certificates by one.
    pub fn revoke(&self, serial: u64) -> PathBuf {
        let day = |number| rcgen::date_time_ymd(2024, 1, number);
        let list = CertificateRevocationListParams {
            this_update: day(1),
            next_update: day(2),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: day(1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.dir.path().join("crl");
        std::fs::write(&path, list.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
        path
    }
}
