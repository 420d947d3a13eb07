use super::*;

fn vars(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn flag(name: &str, value: &str) -> Flags {
    Flags::read(name, value).unwrap().unwrap()
}

#[track_caller]
fn check_mistake(result: Result<Config, ConfigError>, parts: &[&str]) {
    let mistakes = result.unwrap_err().mistakes;
    assert_eq!(mistakes.len(), parts.len(), "{mistakes:#?}");
    for (mistake, part) in mistakes.iter().zip(parts) {
        assert!(mistake.contains(part), "{part:?} is not in {mistake:?}");
    }
}

#[test]
fn what_member_add_prints_is_understood() {
    let printed = vars(&[
        ("ETCD_NAME", "n4"),
        ("ETCD_INITIAL_CLUSTER", "n4=http://h4:2380,n1=http://h1:2380"),
        ("ETCD_INITIAL_ADVERTISE_PEER_URLS", "http://h4:2380"),
        ("ETCD_INITIAL_CLUSTER_STATE", "existing"),
    ]);
    let config = Flags::default().configure(printed).unwrap();
    assert_eq!((config.name.as_str(), config.existing, config.cluster.len()), ("n4", true, 2));
    assert_eq!(config.notices, Vec::<String>::new());
}

#[test]
fn flags_win_over_the_environment_and_both_over_the_file() {
    let temp = tempfile::tempdir().unwrap();
    for (file, text) in [
        ("harmony.toml", "name = 'file'\nmax-txn-ops = 7\nmax-learners = 3\n"),
        ("etcd.conf.yml", "name: file\nmax-txn-ops: 7\nmax-learners: 3\n"),
    ] {
        let path = temp.path().join(file);
        fs::write(&path, text).unwrap();
        let environment = vars(&[
            ("ETCD_NAME", "environment"),
            ("ETCD_MAX_TXN_OPS", "8"),
            ("ETCD_CONFIG_FILE", path.to_str().unwrap()),
            ("ETCD_CLIENT_CERT_AUTH", ""),
            ("ETCDCTL_API", "3"),
        ]);
        let config = flag("name", "flag").configure(environment).unwrap();
        assert_eq!((config.name.as_str(), config.txn_ops_max, config.learners_max), ("flag", 8, 3));
        let notices =
            ["environment variable ETCD_NAME does not count: --name or its HARMONY_ variable is set"];
        assert_eq!(config.notices, notices);
    }
}

#[test]
fn variables_that_are_no_flags_are_named_and_wrong_values_refused() {
    let config = Flags::default().configure(vars(&[("ETCD_NMAE", "x"), ("ETCD_VERSION", "3")])).unwrap();
    let unknown =
        ["ETCD_NMAE", "ETCD_VERSION"].map(|name| format!("unrecognized environment variable {name}"));
    assert_eq!(config.notices, unknown);
    check_mistake(
        Flags::default()
            .configure(vars(&[("ETCD_HEARTBEAT_INTERVAL", "x"), ("ETCD_STRICT_RECONFIG_CHECK", "yes")])),
        &["ETCD_HEARTBEAT_INTERVAL: invalid value 'x'", "ETCD_STRICT_RECONFIG_CHECK: invalid value 'yes'"],
    );
}

#[test]
fn etcds_own_flags_have_no_effect_or_are_refused() {
    let environment = vars(&[("ETCD_EXPERIMENTAL_COMPACT_HASH_CHECK_TIME", "1m"), ("ETCD_LOGGER", "zap")]);
    let flags = flag("snapshot-count", "5").or(flag("experimental-initial-corrupt-check", "true"));
    let config = flags.or(flag("logger", "zap")).configure(environment).unwrap();
    let named = ["snapshot-count", "initial-corrupt-check", "logger", "compact-hash-check-time"];
    assert_eq!(config.notices.len(), named.len(), "each once: {:?}", config.notices);
    for (notice, name) in config.notices.iter().zip(named) {
        assert!(notice.starts_with(&format!("--{name} has no effect: ")), "{notice}");
    }
    check_mistake(
        flag("discovery", "http://h/token").or(flag("name", "")).configure([]),
        &["--discovery is not supported: name the members with --initial-cluster", "--name"],
    );
    assert!(flag("force-new-cluster", "false").configure([]).is_ok());
    check_mistake(flag("force-new-cluster", "true").configure([]), &["harmony snapshot save"]);
}

#[test]
fn a_file_of_etcds_is_read() {
    let text = "
# This is the configuration file for the etcd server.
name: 'n1'
wal-dir:
snapshot-count: 10000
listen-client-urls: https://127.0.0.1:2379
cors:
discovery-fallback: 'proxy'
strict-reconfig-check: false
enable-pprof: true
proxy: 'off'
client-transport-security:
  cert-file: c
  key-file: k
  client-cert-auth: true
  trusted-ca-file: ca
  auto-tls: false
peer-transport-security:
  cert-file:
log-level: debug
log-outputs: [stderr]
cipher-suites: [
  TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
  TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
]
force-new-cluster: false
auto-compaction-retention: \"0\"
";
    let found = from_yaml(text).unwrap();
    assert_eq!(found.options.name.as_deref(), Some("n1"));
    assert_eq!(found.options.strict_reconfig_check, Some(false));
    assert_eq!(found.options.cert_file.as_deref(), Some(Path::new("c")));
    let suites = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384";
    assert_eq!(found.options.cipher_suites.as_deref(), Some(suites));
    let config = found.configure([]).unwrap();
    assert!(config.client_tls.unwrap().client_cert_auth);
    assert_eq!(config.log_level, tracing::Level::DEBUG);
}

#[test]
fn a_file_with_mistakes_is_named() {
    let temp = tempfile::tempdir().unwrap();
    for (file, text, part) in [
        ("a.toml", "nmae = 'x'", "nmae"),
        ("a.yml", "nmae: x", "nmae is no option; did you mean name?"),
        ("a.yml", "name: {a: b}", "name is neither a value nor a list"),
        ("a.yml", "- x", "no map of options"),
        ("a.yml", "'", "no valid YAML"),
        ("a.yml", "heartbeat-interval: x", "heartbeat-interval: invalid value 'x'"),
        ("a.yml", "peer-transport-security: {x: y}", "peer-transport-security has no option \"x\""),
    ] {
        let path = temp.path().join(file);
        fs::write(&path, text).unwrap();
        let config_file = path.to_str().unwrap();
        check_mistake(flag("config-file", config_file).configure([]), &[part]);
    }
    let missing = temp.path().join("none.yml");
    check_mistake(flag("config-file", missing.to_str().unwrap()).configure([]), &["--config-file"]);
}

#[test]
fn arguments_of_a_go_program_are_understood() {
    for (given, taken) in [
        ("-name", "--name"),
        ("-name=x", "--name=x"),
        ("--experimental-max-learners=2", "--max-learners=2"),
        ("-experimental-initial-corrupt-check", "--initial-corrupt-check"),
        ("--name", "--name"),
        ("--nmae", "--nmae"),
        ("-h", "-h"),
        ("x=-name", "x=-name"),
    ] {
        assert_eq!(argument(given), taken);
    }
}
