use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};

use super::*;

/// An authority and the files of one member under it.
struct Kit {
    dir: tempfile::TempDir,
    ca: Issuer<'static, KeyPair>,
}

impl Kit {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        fs::write(dir.path().join("ca"), params.self_signed(&key).unwrap().pem()).unwrap();
        let kit = Self { dir, ca: Issuer::new(params, key) };
        kit.issue("member", 1);
        kit
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Replaces the member's certificate and key.
    fn issue(&self, common_name: &str, serial: u64) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        fs::write(self.path("cert"), params.signed_by(&key, &self.ca).unwrap().pem()).unwrap();
        fs::write(self.path("key"), key.serialize_pem()).unwrap();
    }

    fn revoke(&self, serial: u64) {
        let day = |number| rcgen::date_time_ymd(2024, 1, number);
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: day(1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: day(1),
            next_update: day(2),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        fs::write(self.path("crl"), list.signed_by(&self.ca).unwrap().pem().unwrap()).unwrap();
    }

    fn config(&self) -> TlsConfig {
        let (cert_file, key_file) = (self.path("cert"), self.path("key"));
        TlsConfig {
            trusted_ca_file: Some(self.path("ca")),
            client_cert_auth: true,
            ..TlsConfig::new(TlsIdentity::Files { cert_file, key_file, dial_with: None })
        }
    }
}

/// Lets both sides talk until they agree, or says why they do not.
fn shake_hands(dialing: &Tls, accepting: &Tls, host: &'static str) -> Result<(), rustls::Error> {
    let client = dialing.client().expect("somebody is trusted");
    let mut client = rustls::ClientConnection::new(client, host.try_into().unwrap()).unwrap();
    let mut server = rustls::ServerConnection::new(accepting.server()).unwrap();
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read_tls(&mut &bytes[..]).unwrap();
        server.process_new_packets()?;
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        client.read_tls(&mut &bytes[..]).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

#[track_caller]
fn check_refused(result: Result<(), rustls::Error>, part: &str) {
    let error = result.expect_err(part).to_string();
    assert!(error.contains(part), "{part:?} is not in {error:?}");
}

fn allowed(kit: &Kit, name: AllowedName) -> Arc<Tls> {
    Tls::open(TlsConfig { allowed: vec![name], ..kit.config() }).unwrap()
}

#[test]
fn members_of_one_authority_agree_and_strangers_do_not() {
    let (kit, other) = (Kit::new(), Kit::new());
    let (tls, stranger) = (Tls::open(kit.config()).unwrap(), Tls::open(other.config()).unwrap());
    shake_hands(&tls, &tls, "localhost").unwrap();
    check_refused(shake_hands(&tls, &tls, "elsewhere"), "elsewhere");
    check_refused(shake_hands(&stranger, &tls, "localhost"), "invalid peer certificate");
    // One that trusts our authority, too, gets to show its own certificate.
    let trusting = TlsConfig { trusted_ca_file: Some(kit.path("ca")), ..other.config() };
    check_refused(shake_hands(&Tls::open(trusting).unwrap(), &tls, "localhost"), "invalid peer certificate");
}

#[test]
fn a_name_may_be_asked_for_in_both_directions() {
    let kit = Kit::new();
    let anybody = Tls::open(kit.config()).unwrap();
    for name in [AllowedName::CommonName("member".to_owned()), AllowedName::Hostname("localhost".to_owned())]
    {
        let tls = allowed(&kit, name);
        shake_hands(&anybody, &tls, "localhost").unwrap();
        shake_hands(&tls, &anybody, "localhost").unwrap();
    }
    for name in [AllowedName::CommonName("localhost".to_owned()), AllowedName::Hostname("member".to_owned())]
    {
        let tls = allowed(&kit, name);
        check_refused(shake_hands(&anybody, &tls, "localhost"), "ApplicationVerificationFailure");
        check_refused(shake_hands(&tls, &anybody, "localhost"), "ApplicationVerificationFailure");
    }
}

#[test]
fn a_revoked_certificate_is_refused_in_both_directions() {
    let kit = Kit::new();
    kit.revoke(2);
    let anybody = Tls::open(kit.config()).unwrap();
    let tls = Tls::open(TlsConfig { crl_file: Some(kit.path("crl")), ..kit.config() }).unwrap();
    shake_hands(&anybody, &tls, "localhost").unwrap();
    // The list changes under both.
    kit.revoke(1);
    tls.refresh();
    check_refused(shake_hands(&anybody, &tls, "localhost"), "Revoked");
    check_refused(shake_hands(&tls, &anybody, "localhost"), "Revoked");
}

#[test]
fn versions_have_bounds() {
    let kit = Kit::new();
    let only = |version| TlsConfig { min_version: version, max_version: version, ..kit.config() };
    let (old, new) = (Tls::open(only(TlsVersion::V12)).unwrap(), Tls::open(only(TlsVersion::V13)).unwrap());
    for tls in [&old, &new] {
        shake_hands(tls, tls, "localhost").unwrap();
    }
    check_refused(shake_hands(&new, &old, "localhost"), "Tls12NotOffered");
    let none = TlsConfig { min_version: TlsVersion::V13, max_version: TlsVersion::V12, ..kit.config() };
    assert!(Tls::open(none).unwrap_err().to_string().contains("older than the oldest"));
}

#[test]
fn what_cannot_be_used_is_not_taken_over_and_what_can_be_is() {
    let kit = Kit::new();
    let tls = Tls::open(kit.config()).unwrap();
    let asking = allowed(&kit, AllowedName::CommonName("new".to_owned()));
    let is_new = || {
        tls.refresh();
        shake_hands(&tls, &asking, "localhost").is_ok()
    };
    let good = fs::read(kit.path("key")).unwrap();
    assert!(!is_new());
    kit.issue("new", 2);
    let (cert, key) = (fs::read(kit.path("cert")).unwrap(), fs::read(kit.path("key")).unwrap());
    // Half of the replacement is there: the other half is still the old one, cut short, or gone.
    for half in [&good[..], &key[..key.len() / 2], b""] {
        fs::write(kit.path("key"), half).unwrap();
        assert!(!is_new(), "the old pair stays");
        shake_hands(&tls, &tls, "localhost").unwrap();
    }
    fs::remove_file(kit.path("key")).unwrap();
    assert!(!is_new());
    fs::write(kit.path("key"), &key).unwrap();
    assert!(is_new());
    fs::write(kit.path("cert"), [&cert[..], b"\n"].concat()).unwrap();
    assert!(is_new());
}

#[test]
fn a_self_signed_identity_talks_to_its_like_only() {
    let identity = || TlsIdentity::SelfSigned { hosts: vec!["127.0.0.1".to_owned()], valid_years: 1 };
    let one = Tls::open(TlsConfig::new(identity())).unwrap();
    let two = Tls::open(TlsConfig::new(identity())).unwrap();
    shake_hands(&one, &two, "localhost").unwrap();
    let kit = Kit::new();
    let checking = Tls::open(kit.config()).unwrap();
    check_refused(shake_hands(&one, &checking, "localhost"), "invalid peer certificate");
    check_refused(shake_hands(&checking, &one, "localhost"), "invalid peer certificate");
    let mixed = TlsConfig { trusted_ca_file: Some(kit.path("ca")), ..TlsConfig::new(identity()) };
    assert!(Tls::open(mixed).unwrap_err().to_string().contains("self-signed"));
}

#[test]
fn without_a_trusted_ca_anybody_may_connect_and_nobody_can_be_dialed() {
    let kit = Kit::new();
    let config = TlsConfig { trusted_ca_file: None, client_cert_auth: false, ..kit.config() };
    let open = Tls::open(config.clone()).unwrap();
    assert!(open.client().is_none());
    shake_hands(&Tls::open(kit.config()).unwrap(), &open, "localhost").unwrap();
    let error = Tls::open(TlsConfig { client_cert_auth: true, ..config }).unwrap_err();
    assert!(error.to_string().contains("no trusted CA"), "{error}");
}

#[test]
fn another_pair_may_be_used_to_dial() {
    let kit = Kit::new();
    fs::rename(kit.path("cert"), kit.path("cert-1")).unwrap();
    fs::rename(kit.path("key"), kit.path("key-1")).unwrap();
    kit.issue("dials", 2);
    let identity = TlsIdentity::Files {
        cert_file: kit.path("cert-1"),
        key_file: kit.path("key-1"),
        dial_with: Some((kit.path("cert"), kit.path("key"))),
    };
    let tls = Tls::open(TlsConfig { identity, ..kit.config() }).unwrap();
    shake_hands(&tls, &allowed(&kit, AllowedName::CommonName("dials".to_owned())), "localhost").unwrap();
    shake_hands(&allowed(&kit, AllowedName::CommonName("member".to_owned())), &tls, "localhost").unwrap();
}

#[test]
fn every_file_that_is_wrong_is_named_with_what_should_be_there() {
    let kit = Kit::new();
    let (cert, key) = (fs::read(kit.path("cert")).unwrap(), fs::read(kit.path("key")).unwrap());
    kit.revoke(9);
    let crl = fs::read(kit.path("crl")).unwrap();
    let ca = fs::read(kit.path("ca")).unwrap();
    let stranger = fs::read(Kit::new().path("key")).unwrap();
    let config = || TlsConfig { crl_file: Some(kit.path("crl")), ..kit.config() };
    let restore = || {
        for (name, bytes) in [("cert", &cert), ("key", &key), ("crl", &crl), ("ca", &ca)] {
            let _ = fs::remove_dir(kit.path(name));
            fs::write(kit.path(name), bytes).unwrap();
        }
        Tls::open(config()).unwrap();
    };
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (name, bytes, part) in [
        ("cert", &b""[..], "BEGIN CERTIFICATE"),
        ("cert", &key, "BEGIN CERTIFICATE"),
        ("cert", &cert[..cert.len() / 2], "PEM"),
        ("cert", damaged.as_bytes(), "damaged"),
        ("key", &cert, "BEGIN PRIVATE KEY"),
        ("key", b"", "BEGIN PRIVATE KEY"),
        ("key", &stranger, "not the key of the first certificate"),
        ("ca", b"nothing", "BEGIN CERTIFICATE"),
        ("ca", damaged.as_bytes(), "certificate 1 in it"),
        ("crl", b"nothing", "BEGIN X509 CRL"),
    ] {
        restore();
        fs::write(kit.path(name), bytes).unwrap();
        let error = Tls::open(config()).expect_err(part).to_string();
        assert!(
            error.contains(part) && error.contains(kit.path(name).to_str().unwrap()),
            "{part:?}: {error}"
        );
    }
    for name in ["cert", "key", "ca", "crl"] {
        restore();
        fs::remove_file(kit.path(name)).unwrap();
        check_unreadable(&kit.path(name), config());
        fs::create_dir(kit.path(name)).unwrap();
        check_unreadable(&kit.path(name), config());
    }
}

#[track_caller]
fn check_unreadable(path: &Path, config: TlsConfig) {
    let error = Tls::open(config).unwrap_err().to_string();
    assert!(error.contains(path.to_str().unwrap()) && error.contains("check the path"), "{error}");
}

/// Dials and accepts on one pipe; the server's word on who dialed, or the first refusal.
async fn dial(config: DialConfig, tls: &Arc<Tls>, host: &str) -> Result<Option<String>, String> {
    let dialer = Dialer::open(&config).map_err(|error| error.to_string())?;
    let (near, far) = tokio::io::duplex(1 << 16);
    let dialing = async {
        let mut stream = dialer.connect(host, near).await.map_err(|error| error.to_string())?;
        // In TLS 1.3 a server's refusal comes behind what the one who dials takes for the end of the handshake.
        tokio::io::AsyncReadExt::read_u8(&mut stream).await.map_err(|error| error.to_string())
    };
    let accepting = async {
        let mut stream = tls.accept(far).await.map_err(|error| error.to_string())?;
        tokio::io::AsyncWriteExt::write_u8(&mut stream, 7).await.map_err(|error| error.to_string())?;
        Ok(client_name(&stream))
    };
    let (dialed, accepted) = tokio::join!(dialing, accepting);
    dialed.and(accepted)
}

#[tokio::test]
async fn a_program_dials_whom_it_trusts_and_shows_its_certificate() {
    let (kit, other) = (Kit::new(), Kit::new());
    let tls = Tls::open(kit.config()).unwrap();
    let with = |trusted, identity: bool| DialConfig {
        trusted,
        identity: identity.then(|| (kit.path("cert"), kit.path("key"))),
        protocols: vec!["h2"],
    };
    let by_file = || Trusted::File(kit.path("ca"));
    let member = Ok(Some("member".to_owned()));
    assert_eq!(dial(with(by_file(), true), &tls, "localhost").await, member);
    assert_eq!(dial(with(Trusted::System(kit.path("ca")), true), &tls, "localhost").await, member);
    assert_eq!(dial(with(Trusted::Anybody, true), &tls, "elsewhere").await, member);
    let anybody =
        Tls::open(TlsConfig { trusted_ca_file: None, client_cert_auth: false, ..kit.config() }).unwrap();
    assert_eq!(dial(with(by_file(), false), &anybody, "localhost").await, Ok(None));
    for (config, host, part) in [
        (with(by_file(), false), "localhost", "CertificateRequired"),
        (with(by_file(), true), "elsewhere", "not valid for name"),
        (with(Trusted::File(other.path("ca")), true), "localhost", "invalid peer certificate"),
        (with(Trusted::File(kit.path("none")), true), "localhost", "check the path"),
        (with(Trusted::File(kit.path("key")), true), "localhost", "BEGIN CERTIFICATE"),
    ] {
        let error = dial(config, &tls, host).await.unwrap_err();
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[tokio::test]
async fn both_sides_agree_on_what_is_spoken_inside() {
    let kit = Kit::new();
    let tls = Tls::open(TlsConfig { protocols: vec!["h2", "http/1.1"], ..kit.config() }).unwrap();
    for (protocols, agreed) in
        [(vec!["http/1.1"], Ok("http/1.1")), (vec!["http/1.1", "h2"], Ok("h2")), (vec!["x"], Err(()))]
    {
        let config = DialConfig {
            trusted: Trusted::File(kit.path("ca")),
            identity: Some((kit.path("cert"), kit.path("key"))),
            protocols,
        };
        let dialer = Dialer::open(&config).unwrap();
        let (near, far) = tokio::io::duplex(1 << 16);
        let (dialed, _accepted) = tokio::join!(dialer.connect("localhost", near), tls.accept(far));
        let found = dialed.map_err(drop).map(|stream| stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec));
        assert_eq!(found, agreed.map(|name| Some(name.as_bytes().to_vec())));
    }
}

#[test]
fn suites_of_tls_1_2_may_be_chosen() {
    let kit = Kit::new();
    let only = |name: &str| {
        let suites = vec![CipherSuite::parse(name).unwrap()];
        let config = TlsConfig { cipher_suites: suites, max_version: TlsVersion::V12, ..kit.config() };
        Tls::open(config).unwrap()
    };
    // The kit's keys are of ECDSA.
    let (small, large) =
        ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384");
    shake_hands(&only(small), &only(small), "localhost").unwrap();
    check_refused(shake_hands(&only(small), &only(large), "localhost"), "NoCipherSuitesInCommon");
}
