use harmony_node::tls::{AllowedName, CipherSuite, TlsIdentity, TlsVersion};

use super::*;

fn options(toml: &str) -> Options {
    Options::from_toml(toml).unwrap()
}

/// Each part must be in a mistake of its own, in this order, and there are no others.
#[track_caller]
fn check_mistakes(toml: &str, parts: &[&str]) {
    let mistakes = Config::new(options(toml)).expect_err(toml).mistakes;
    assert_eq!(mistakes.len(), parts.len(), "{toml}: {mistakes:#?}");
    for (mistake, part) in mistakes.iter().zip(parts) {
        assert!(mistake.contains(part), "{toml}: {part:?} is not in {mistake:?}");
    }
}

#[test]
fn no_option_is_a_lone_member_on_loopback() {
    let config = Config::new(Options::default()).unwrap();
    assert_eq!(config.name, "default");
    assert_eq!(config.data_dir, PathBuf::from("harmony.data"));
    assert_eq!(join(&config.listen_client), "http://127.0.0.1:2379");
    assert_eq!(join(&config.advertise_client), "http://localhost:2379");
    assert_eq!(config.listen_peer, [], "a lone member does not listen for peers");
    assert_eq!(join(&config.own().peer_urls), "http://localhost:2380");
    assert!(config.is_lone());
    assert_eq!(config.quota_bytes, Some(limits::QUOTA_BYTES));
    assert_eq!(config.request_bytes_max, 1_572_864);
}

#[test]
fn the_interval_of_progress_has_a_unit_and_a_least_value() {
    let interval = |toml: &str| Config::new(options(toml)).unwrap().watch_progress_interval;
    assert_eq!(interval(""), Duration::from_secs(600));
    assert_eq!(interval("watch-progress-notify-interval = '100ms'"), Duration::from_millis(100));
    let least = "--watch-progress-notify-interval is 99ms: use 100ms or more";
    check_mistakes("watch-progress-notify-interval = '99ms'", &[least]);
    check_mistakes("watch-progress-notify-interval = '5'", &["\"5\" is no duration"]);
}

#[test]
fn a_lone_member_listens_for_peers_when_told() {
    let config = Config::new(options("listen-peer-urls = 'http://127.0.0.1:7'")).unwrap();
    assert_eq!(join(&config.listen_peer), "http://127.0.0.1:7");
}

#[test]
fn three_members_listen_where_they_advertise() {
    let config = Config::new(options(
        "name = 'b'\ninitial-advertise-peer-urls = 'http://h2:2'\n\
         initial-cluster = 'b=http://h2:2,a=http://h1:1,c=http://h3:3'",
    ))
    .unwrap();
    let names: Vec<_> = config.cluster.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(join(&config.listen_peer), "http://h2:2");
    assert_eq!(join(&config.own().peer_urls), "http://h2:2");
}

#[test]
fn the_client_urls_advertised_follow_those_listened_on() {
    let config = Config::new(options("listen-client-urls = 'http://10.0.0.1:5'")).unwrap();
    assert_eq!(join(&config.advertise_client), "http://10.0.0.1:5");
    check_mistakes("listen-client-urls = 'http://0.0.0.0:5'", &["--advertise-client-urls must be set"]);
}

#[test]
fn tls_for_clients_is_read_from_etcds_flags() {
    let https = "listen-client-urls = 'https://h:1,http://h:2'\n";
    let config = Config::new(options(&format!(
        "{https}cert-file = 'c'\nkey-file = 'k'\ntrusted-ca-file = 'ca'\nclient-cert-auth = true\n\
         client-crl-file = 'crl'\nclient-cert-allowed-hostname = 'x'\ntls-max-version = 'TLS1.2'\n\
         cipher-suites = 'TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_RSA_WITH_AES_256_GCM_SHA384,TLS_AES_128_GCM_SHA256'"
    )))
    .unwrap();
    let identity = TlsIdentity::Files { cert_file: "c".into(), key_file: "k".into(), dial_with: None };
    let suite = CipherSuite::parse("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256").unwrap();
    let expected = TlsConfig {
        trusted_ca_file: Some("ca".into()),
        client_cert_auth: true,
        crl_file: Some("crl".into()),
        allowed: vec![AllowedName::Hostname("x".to_owned())],
        max_version: TlsVersion::V12,
        cipher_suites: vec![suite],
        protocols: vec!["h2", "http/1.1"],
        ..TlsConfig::new(identity)
    };
    assert_eq!(config.client_tls, Some(expected));
    let notices = ["TLS_RSA_WITH_AES_256_GCM_SHA384 is too weak", "http://h:2 is served without TLS"];
    assert!(
        config.notices.iter().zip(notices).all(|(notice, part)| notice.contains(part)),
        "{:?}",
        config.notices
    );
    let auto = Config::new(options("listen-metrics-urls = 'https://m:1'\nauto-tls = true")).unwrap();
    let hosts = ["127.0.0.1", "m"].map(str::to_owned).to_vec();
    assert_eq!(auto.client_tls.unwrap().identity, TlsIdentity::SelfSigned { hosts, valid_years: 1 });
    // TLS may end before this server.
    let proxied = Config::new(options("advertise-client-urls = 'https://h:1'")).unwrap();
    assert_eq!((proxied.client_tls, join(&proxied.advertise_client)), (None, "https://h:1".to_owned()));
    check_mistakes(
        https,
        &["--cert-file is missing and https://h:1 needs TLS: give it with --key-file, or --auto-tls"],
    );
    check_mistakes(
        &format!(
            "{https}cert-file = 'c'\nclient-cert-auth = true\ncipher-suites = 'X'\ntls-min-version = 'x'"
        ),
        &[
            "--tls-min-version is \"x\"",
            "--cipher-suites names \"X\": use TLS_",
            "--key-file is missing: --cert-file needs it",
            "--client-cert-auth says nothing without --trusted-ca-file",
        ],
    );
}

/// A member of three that listens over TLS.
const TLS: &str = "name = 'a'\ninitial-advertise-peer-urls = 'https://h1:1'\ninitial-cluster = 'a=https://h1:1,b=https://h2:1'\n";

#[test]
fn tls_between_members_is_read_from_etcds_flags() {
    let config = Config::new(options(&format!(
        "{TLS}peer-cert-file = 'c'\npeer-key-file = 'k'\npeer-trusted-ca-file = 'ca'\npeer-client-cert-auth = true\n\
         peer-crl-file = 'crl'\npeer-cert-allowed-cn = 'x, y'\ntls-min-version = 'TLS1.3'\npeer-auto-tls = true\n\
         peer-client-cert-file = 'c2'\npeer-client-key-file = 'k2'"
    )))
    .unwrap();
    let identity = TlsIdentity::Files {
        cert_file: "c".into(),
        key_file: "k".into(),
        dial_with: Some(("c2".into(), "k2".into())),
    };
    let expected = TlsConfig {
        trusted_ca_file: Some("ca".into()),
        client_cert_auth: true,
        crl_file: Some("crl".into()),
        allowed: ["x", "y"].map(|name| AllowedName::CommonName(name.to_owned())).to_vec(),
        min_version: TlsVersion::V13,
        ..TlsConfig::new(identity)
    };
    assert_eq!(config.peer_tls, Some(expected));
    let auto =
        Config::new(options(&format!("{TLS}peer-auto-tls = true\nself-signed-cert-validity = 3"))).unwrap();
    let identity = TlsIdentity::SelfSigned { hosts: vec!["h1".to_owned()], valid_years: 3 };
    assert_eq!(auto.peer_tls, Some(TlsConfig::new(identity)));
    assert_eq!(Config::new(Options::default()).unwrap().peer_tls, None);
}

#[test]
fn tls_flags_that_do_not_fit_together_are_named() {
    for (toml, parts) in [
        ("", &["--peer-cert-file is missing and https://h1:1 needs TLS"][..]),
        ("peer-cert-file = 'c'", &["--peer-key-file is missing: --peer-cert-file needs it"]),
        ("peer-key-file = 'k'", &["--peer-cert-file is missing: --peer-key-file needs it"]),
        ("peer-cert-file = 'c'\npeer-key-file = 'k'", &["--peer-trusted-ca-file is missing"]),
        (
            "peer-auto-tls = true\npeer-client-cert-auth = true\npeer-crl-file = 'crl'\npeer-cert-allowed-cn = 'x'",
            &[
                "--peer-client-cert-auth says nothing",
                "--peer-crl-file says nothing",
                "--peer-cert-allowed-cn",
            ],
        ),
        ("peer-auto-tls = true\npeer-trusted-ca-file = 'ca'", &["--peer-auto-tls cannot be used"]),
        (
            "peer-cert-file = 'c'\npeer-key-file = 'k'\npeer-trusted-ca-file = 'ca'\npeer-client-cert-file = 'c'\n\
             peer-cert-allowed-cn = 'x'\npeer-cert-allowed-hostname = 'y'\ntls-min-version = 'TLS1.3'\n\
             tls-max-version = 'TLS1.2'",
            &[
                "--peer-client-key-file is missing",
                "--peer-cert-allowed-hostname cannot",
                "--tls-max-version is older",
            ],
        ),
        ("peer-auto-tls = true\ntls-min-version = 'TLS1.1'", &["--tls-min-version is \"TLS1.1\""]),
    ] {
        check_mistakes(&format!("{TLS}{toml}"), parts);
    }
}

#[test]
fn quota_follows_etcds_rules() {
    for (given, quota) in [(0, Some(2 << 30)), (-1, None), (5, Some(5))] {
        let config = Config::new(Options { quota_backend_bytes: Some(given), ..Options::default() }).unwrap();
        assert_eq!(config.quota_bytes, quota);
    }
}

#[test]
fn every_mistake_is_named_at_once() {
    check_mistakes(
        "name = ''\nlisten-client-urls = 'localhost:2379'\ninitial-cluster-state = 'old'\nelection-timeout = 400\n\
         max-request-bytes = 0\nmax-txn-ops = 0\nlog-level = 'loud'\nlog-format = 'xml'",
        &[
            "--name",
            "--listen-client-urls localhost:2379 has no scheme",
            "--initial-cluster-state is \"old\"",
            "--election-timeout is 400 ms and must be at least 5 heartbeat intervals of 100 ms: use 500",
            "--max-request-bytes is 0",
            "--max-txn-ops is 0",
            "--log-level is \"loud\"",
            "--log-format is \"xml\"",
        ],
    );
}

#[test]
fn times_have_bounds() {
    check_mistakes("heartbeat-interval = 0", &["--heartbeat-interval must be at least 1"]);
    check_mistakes("election-timeout = 50001", &["use 50000 or less"]);
    check_mistakes("heartbeat-interval = 18446744073709551615", &["heartbeat intervals"]);
    check_mistakes("max-request-bytes = 99999999999", &["--max-request-bytes"]);
    check_mistakes("wal-segment-bytes = 4095", &["--wal-segment-bytes is 4095: use 4096 to 4294967295"]);
}

#[test]
fn a_disk_has_half_a_minute_or_what_it_is_given() {
    let timeout = |toml: &str| Config::new(options(toml)).unwrap().disk_timeout;
    assert_eq!(timeout(""), Some(Duration::from_secs(30)));
    assert_eq!(timeout("heartbeat-interval = 1000\nelection-timeout = 20000"), Some(Duration::from_secs(40)));
    assert_eq!(timeout("disk-timeout = 2000"), Some(Duration::from_secs(2)));
    assert_eq!(timeout("disk-timeout = 0"), None);
    check_mistakes(
        "disk-timeout = 1999",
        &["two election timeouts of 1000 ms: use 2000 or more, or 0 for none"],
    );
}

#[test]
fn the_cluster_must_fit_this_member() {
    let peers = "initial-advertise-peer-urls = 'http://h1:1'\n";
    check_mistakes(
        &format!("{peers}name = 'x'\ninitial-cluster = 'a=http://h1:1,b=http://h2:1'"),
        &["does not name this member \"x\" (it names a, b)"],
    );
    check_mistakes(
        &format!("{peers}name = 'a'\ninitial-cluster = 'a=http://h9:1'"),
        &["--initial-advertise-peer-urls http://h1:1 differs from http://h9:1"],
    );
    check_mistakes(
        &format!("{peers}name = 'a'\ninitial-cluster = 'a=http://h1:1,b=http://h1:1'"),
        &["names http://h1:1 twice, for a and b"],
    );
    check_mistakes(
        &format!("{peers}name = 'a'\ninitial-cluster = 'a,b=h:1'"),
        &["\"a\" is no pair", "h:1 has no scheme"],
    );
    check_mistakes("initial-cluster = ''", &["does not name this member"]);
    check_mistakes("listen-peer-urls = ''", &["--listen-peer-urls is empty"]);
}
