//! The table in `docs/flags.md`, made from the flags themselves: `HARMONY_BLESS=1` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Args as _, Command};

use super::foreign::{FOREIGN, Fate};
use super::sources::Flags;

/// All flags of etcd 3.6, by the sections of its own help; without `experimental-` in front.
const ETCD: [(&str, &[&str]); 8] = [
    (
        "Member",
        &[
            "name",
            "data-dir",
            "wal-dir",
            "snapshot-count",
            "heartbeat-interval",
            "election-timeout",
            "initial-election-tick-advance",
            "listen-peer-urls",
            "listen-client-urls",
            "listen-client-http-urls",
            "max-snapshots",
            "max-wals",
            "memory-mlock",
            "quota-backend-bytes",
            "backend-bbolt-freelist-type",
            "backend-batch-interval",
            "backend-batch-limit",
            "max-txn-ops",
            "max-request-bytes",
            "max-concurrent-streams",
            "enable-grpc-gateway",
            "grpc-keepalive-min-time",
            "grpc-keepalive-interval",
            "grpc-keepalive-timeout",
            "socket-reuse-port",
            "socket-reuse-address",
            "raft-read-timeout",
            "raft-write-timeout",
            "config-file",
        ],
    ),
    (
        "Clustering",
        &[
            "initial-advertise-peer-urls",
            "initial-cluster",
            "initial-cluster-state",
            "initial-cluster-token",
            "advertise-client-urls",
            "discovery",
            "discovery-token",
            "discovery-endpoints",
            "discovery-dial-timeout",
            "discovery-request-timeout",
            "discovery-keepalive-time",
            "discovery-keepalive-timeout",
            "discovery-insecure-transport",
            "discovery-insecure-skip-tls-verify",
            "discovery-cert",
            "discovery-key",
            "discovery-cacert",
            "discovery-user",
            "discovery-password",
            "discovery-fallback",
            "discovery-proxy",
            "discovery-srv",
            "discovery-srv-name",
            "strict-reconfig-check",
            "pre-vote",
            "auto-compaction-mode",
            "auto-compaction-retention",
            "v2-deprecation",
            "max-learners",
            "snapshot-catchup-entries",
        ],
    ),
    (
        "Security",
        &[
            "cert-file",
            "key-file",
            "client-cert-file",
            "client-key-file",
            "client-cert-auth",
            "client-crl-file",
            "client-cert-allowed-cn",
            "client-cert-allowed-hostname",
            "trusted-ca-file",
            "auto-tls",
            "peer-cert-file",
            "peer-key-file",
            "peer-client-cert-file",
            "peer-client-key-file",
            "peer-client-cert-auth",
            "peer-trusted-ca-file",
            "peer-cert-allowed-cn",
            "peer-cert-allowed-hostname",
            "peer-auto-tls",
            "peer-crl-file",
            "peer-skip-client-san-verification",
            "self-signed-cert-validity",
            "cipher-suites",
            "tls-min-version",
            "tls-max-version",
            "cors",
            "host-whitelist",
        ],
    ),
    ("Auth", &["auth-token", "auth-token-ttl", "bcrypt-cost"]),
    ("Profiling and monitoring", &["enable-pprof", "metrics", "listen-metrics-urls"]),
    (
        "Logging and tracing",
        &[
            "logger",
            "log-outputs",
            "log-level",
            "log-format",
            "enable-log-rotation",
            "log-rotation-config-json",
            "warning-unary-request-duration",
            "warning-apply-duration",
            "enable-distributed-tracing",
            "distributed-tracing-address",
            "distributed-tracing-service-name",
            "distributed-tracing-instance-id",
            "distributed-tracing-sampling-rate",
        ],
    ),
    (
        "Features",
        &[
            "corrupt-check-time",
            "initial-corrupt-check",
            "compact-hash-check-enabled",
            "compact-hash-check-time",
            "compaction-batch-limit",
            "compaction-sleep-interval",
            "watch-progress-notify-interval",
            "bootstrap-defrag-threshold-megabytes",
            "downgrade-check-time",
            "stop-grpc-service-on-defrag",
            "enable-lease-checkpoint",
            "enable-lease-checkpoint-persist",
            "txn-mode-write-with-shared-buffer",
            "feature-gates",
        ],
    ),
    ("Unsafe", &["force-new-cluster", "unsafe-no-fsync"]),
];

fn etcds() -> impl Iterator<Item = &'static str> {
    ETCD.iter().flat_map(|(_, names)| names.iter().copied())
}

fn options() -> Command {
    super::Options::augment_args(Command::new("serve").disable_help_flag(true))
}

/// The first sentence of what the help says.
fn help(flag: &str) -> Option<String> {
    let command = options();
    let arg = command.get_arguments().find(|arg| arg.get_long() == Some(flag))?;
    Some(arg.get_help().map(ToString::to_string).unwrap_or_default())
}

fn row(text: &mut String, flag: &str) {
    let foreign = FOREIGN.iter().find(|foreign| foreign.name == flag);
    let (state, what) = match (help(flag), foreign.map(|foreign| foreign.fate)) {
        (Some(help), None) => ("supported", help),
        (None, Some(Fate::NoEffect(why))) => ("no effect", why.to_owned()),
        (None, Some(Fate::Refused([], instead))) => ("refused", instead.to_owned()),
        (None, Some(Fate::Refused(but, instead))) => {
            ("refused", format!("{instead} (accepted as {})", but.join(", ")))
        }
        (None, None) => ("not known", String::new()),
        (Some(_), Some(_)) => panic!("--{flag} is an option and foreign"),
    };
    writeln!(text, "| `--{flag}` | {state} | {} |", what.replace('|', "\\|")).unwrap();
}

fn table() -> String {
    let mut text = String::from(
        "# Flags\n\nEvery flag of etcd 3.6, and those that only `harmony serve` has. This file is written by a test from the flags \
         themselves\n(`HARMONY_BLESS=1 cargo test -p harmony-server flag_table`).\n\n\
         Each flag is also an environment variable, `HARMONY_FLAG_NAME` or as in etcd `ETCD_FLAG_NAME`, and a key of the file that\n\
         `--config-file` names: TOML if its name ends with `.toml`, else YAML with etcd's keys. A flag wins over `HARMONY_`, that over \
         `ETCD_`, that over\nthe file; etcd refuses a flag whose variable is set, too, and here the log says that the variable does not \
         count. Names may have\n`experimental-` in front, and one dash is enough. What has *no effect* is accepted and named in the log once. \
         What is *refused* keeps the\nserver from starting: to ignore it would be a surprise.\n",
    );
    for (section, flags) in ETCD {
        write!(text, "\n## {section}\n\n| flag | | |\n| --- | --- | --- |\n").unwrap();
        flags.iter().for_each(|flag| row(&mut text, flag));
    }
    text.push_str("\n## Only here\n\n| flag | | |\n| --- | --- | --- |\n");
    let command = options();
    let own = command.get_arguments().filter_map(clap::Arg::get_long);
    own.filter(|flag| etcds().all(|etcds| etcds != *flag)).for_each(|flag| row(&mut text, flag));
    text.push_str("\n## Of older releases of etcd\n\n| flag | | |\n| --- | --- | --- |\n");
    let old = FOREIGN.iter().map(|foreign| foreign.name);
    old.filter(|flag| etcds().all(|etcds| etcds != *flag)).for_each(|flag| row(&mut text, flag));
    text
}

#[test]
fn the_table_of_flags_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/flags.md");
    let text = table();
    if std::env::var_os("HARMONY_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    // The package alone has no documents.
    let Ok(found) = std::fs::read_to_string(&path) else { return };
    assert!(found == text, "docs/flags.md is old: HARMONY_BLESS=1 cargo test -p harmony-server flag_table");
}

#[test]
fn every_flag_of_etcd_is_known() {
    for flag in etcds() {
        let is_option = help(flag).is_some();
        let is_foreign = FOREIGN.iter().any(|foreign| foreign.name == flag);
        assert!(is_option != is_foreign, "--{flag}: option {is_option}, foreign {is_foreign}");
        assert!(Flags::read(flag, "").is_some(), "--{flag}");
    }
}
