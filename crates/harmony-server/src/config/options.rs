//! What an operator can set, before defaults and checks: the same names as flags, as `HARMONY_*` environment variables and
//! as keys of the TOML file.

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;

use crate::client::args::parse_bool;

/// Declares the options once, for the command line, the environment, the file, and their precedence.
macro_rules! options {
    ($($(#[$meta:meta])* $name:ident: $type:ty, $env:literal;)*) => {
        /// Options of `harmony serve`. What is not set here gets its default in [`Config::new`](super::Config::new).
        #[derive(Clone, Debug, Default, PartialEq, Eq, Args, Deserialize)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
        pub struct Options {
            /// File with the same options, without the leading dashes: TOML if its name ends so, else YAML as etcd's; flags and
            /// environment win over it
            #[arg(long, env = "HARMONY_CONFIG_FILE", value_name = "FILE")]
            #[serde(skip)]
            pub config_file: Option<PathBuf>,
            $($(#[$meta])* #[arg(long, env = $env)] pub $name: Option<$type>,)*
        }

        impl Options {
            /// The names of those that are set, as flags have them.
            pub(crate) fn given(&self) -> Vec<String> {
                let mut given = Vec::new();
                $(if self.$name.is_some() {
                    given.push(stringify!($name).replace('_', "-"));
                })*
                given
            }

            /// These options, and those of `other` where these say nothing.
            #[must_use]
            pub fn or(self, other: Self) -> Self {
                Self {
                    config_file: self.config_file.or(other.config_file),
                    $($name: self.$name.or(other.$name),)*
                }
            }
        }
    };
}

options! {
    /// Name of this member, unique in the cluster [default: default]
    name: String, "HARMONY_NAME";
    /// Directory for all data [default: ./harmony.data]
    data_dir: PathBuf, "HARMONY_DATA_DIR";
    /// Where to listen for clients, separated by commas [default: http://127.0.0.1:2379]
    listen_client_urls: String, "HARMONY_LISTEN_CLIENT_URLS";
    /// Where clients reach this member [default: http://localhost:2379, or the URLs listened on]
    advertise_client_urls: String, "HARMONY_ADVERTISE_CLIENT_URLS";
    /// Where to listen for other members; a lone member listens only when this is set [default: the URLs advertised]
    listen_peer_urls: String, "HARMONY_LISTEN_PEER_URLS";
    /// Where other members reach this one [default: http://localhost:2380]
    initial_advertise_peer_urls: String, "HARMONY_INITIAL_ADVERTISE_PEER_URLS";
    /// All members, as name=URL pairs separated by commas [default: this member alone]
    initial_cluster: String, "HARMONY_INITIAL_CLUSTER";
    /// "new", or "existing" for a member that was added to a running cluster [default: new]
    initial_cluster_state: String, "HARMONY_INITIAL_CLUSTER_STATE";
    /// Text that keeps clusters of the same addresses apart [default: etcd-cluster]
    initial_cluster_token: String, "HARMONY_INITIAL_CLUSTER_TOKEN";
    /// Refuse membership changes behind which too few members would be there [default: true]
    #[arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = parse_bool)]
    strict_reconfig_check: bool, "HARMONY_STRICT_RECONFIG_CHECK";
    /// Members that may be learners at once, those among them that join as voters [default: 1]
    #[arg(value_name = "COUNT")]
    max_learners: u64, "HARMONY_MAX_LEARNERS";
    /// Time between heartbeats, milliseconds [default: 100]
    #[arg(value_name = "MS")]
    heartbeat_interval: u64, "HARMONY_HEARTBEAT_INTERVAL";
    /// Time without a leader before an election, milliseconds [default: 1000]
    #[arg(value_name = "MS")]
    election_timeout: u64, "HARMONY_ELECTION_TIMEOUT";
    /// Largest request of a client, bytes [default: 1572864]
    #[arg(value_name = "BYTES")]
    max_request_bytes: u64, "HARMONY_MAX_REQUEST_BYTES";
    /// Compares or operations in one transaction [default: 128]
    #[arg(value_name = "COUNT")]
    max_txn_ops: u64, "HARMONY_MAX_TXN_OPS";
    /// Size of the data at which writes are refused, bytes; 0 is the default of 2 GiB, negative is no quota [default: 0]
    #[arg(value_name = "BYTES", allow_negative_numbers = true)]
    quota_backend_bytes: i64, "HARMONY_QUOTA_BACKEND_BYTES";
    /// Entries of the log kept behind the newest, for members that lag; one that lags more gets a snapshot [default: 1000000]
    #[arg(value_name = "COUNT")]
    snapshot_catchup_entries: u64, "HARMONY_SNAPSHOT_CATCHUP_ENTRIES";
    /// The same in bytes; the smaller of the two counts [default: 67108864]
    #[arg(value_name = "BYTES")]
    snapshot_catchup_bytes: u64, "HARMONY_SNAPSHOT_CATCHUP_BYTES";
    /// Bytes of the log kept behind a snapshot that is on its way to a member [default: 2147483648]
    #[arg(value_name = "BYTES")]
    snapshot_hold_bytes: u64, "HARMONY_SNAPSHOT_HOLD_BYTES";
    /// How fast a snapshot is sent to a member, bytes a second; 0 is no limit [default: 0]
    #[arg(value_name = "BYTES")]
    snapshot_send_rate: u64, "HARMONY_SNAPSHOT_SEND_RATE";
    /// Where to serve /metrics and health only, separated by commas [default: none, they are on the client URLs, too]
    listen_metrics_urls: String, "HARMONY_LISTEN_METRICS_URLS";
    /// Where to serve the JSON gateway, health and metrics; the client URLs are for gRPC alone then [default: none]
    listen_client_http_urls: String, "HARMONY_LISTEN_CLIENT_HTTP_URLS";
    /// Certificate for clients, PEM; a replaced file counts for the next connection
    #[arg(value_name = "FILE")]
    cert_file: PathBuf, "HARMONY_CERT_FILE";
    /// Key of --cert-file, PEM
    #[arg(value_name = "FILE")]
    key_file: PathBuf, "HARMONY_KEY_FILE";
    /// Clients must have a certificate, whose common name is their user where they do not log in
    #[arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = parse_bool)]
    client_cert_auth: bool, "HARMONY_CLIENT_CERT_AUTH";
    /// Certificates of those who sign for clients, PEM; with it clients must have a certificate
    #[arg(value_name = "FILE")]
    trusted_ca_file: PathBuf, "HARMONY_TRUSTED_CA_FILE";
    /// Revoked certificates of clients, PEM or DER
    #[arg(value_name = "FILE")]
    client_crl_file: PathBuf, "HARMONY_CLIENT_CRL_FILE";
    /// Common name that clients' certificates must have; several are separated by commas
    #[arg(value_name = "NAME")]
    client_cert_allowed_cn: String, "HARMONY_CLIENT_CERT_ALLOWED_CN";
    /// Host name that clients' certificates must have; several are separated by commas
    #[arg(value_name = "NAME")]
    client_cert_allowed_hostname: String, "HARMONY_CLIENT_CERT_ALLOWED_HOSTNAME";
    /// Make a certificate for clients at start: hides what they say from listeners, and proves nobody's identity
    #[arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = parse_bool)]
    auto_tls: bool, "HARMONY_AUTO_TLS";
    /// Certificate for connections between members, PEM; a replaced file counts for the next connection
    #[arg(value_name = "FILE")]
    peer_cert_file: PathBuf, "HARMONY_PEER_CERT_FILE";
    /// Key of --peer-cert-file, PEM
    #[arg(value_name = "FILE")]
    peer_key_file: PathBuf, "HARMONY_PEER_KEY_FILE";
    /// Certificate to dial other members with [default: --peer-cert-file]
    #[arg(value_name = "FILE")]
    peer_client_cert_file: PathBuf, "HARMONY_PEER_CLIENT_CERT_FILE";
    /// Key of --peer-client-cert-file
    #[arg(value_name = "FILE")]
    peer_client_key_file: PathBuf, "HARMONY_PEER_CLIENT_KEY_FILE";
    /// Whoever connects as a member must have a certificate; implied by --peer-trusted-ca-file
    #[arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = parse_bool)]
    peer_client_cert_auth: bool, "HARMONY_PEER_CLIENT_CERT_AUTH";
    /// Certificates of those who sign for members, PEM
    #[arg(value_name = "FILE")]
    peer_trusted_ca_file: PathBuf, "HARMONY_PEER_TRUSTED_CA_FILE";
    /// Revoked certificates of members, PEM or DER
    #[arg(value_name = "FILE")]
    peer_crl_file: PathBuf, "HARMONY_PEER_CRL_FILE";
    /// Common name that members' certificates must have; several are separated by commas
    #[arg(value_name = "NAME")]
    peer_cert_allowed_cn: String, "HARMONY_PEER_CERT_ALLOWED_CN";
    /// Host name that members' certificates must have; several are separated by commas
    #[arg(value_name = "NAME")]
    peer_cert_allowed_hostname: String, "HARMONY_PEER_CERT_ALLOWED_HOSTNAME";
    /// Make a certificate for members at start: hides what they say from listeners, and proves nobody's identity
    #[arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = parse_bool)]
    peer_auto_tls: bool, "HARMONY_PEER_AUTO_TLS";
    /// Years that such a certificate is valid [default: 1]
    #[arg(value_name = "YEARS")]
    self_signed_cert_validity: u32, "HARMONY_SELF_SIGNED_CERT_VALIDITY";
    /// Oldest version of TLS, TLS1.2 or TLS1.3 [default: TLS1.2]
    #[arg(value_name = "VERSION")]
    tls_min_version: String, "HARMONY_TLS_MIN_VERSION";
    /// Newest version of TLS, TLS1.2 or TLS1.3 [default: TLS1.3]
    #[arg(value_name = "VERSION")]
    tls_max_version: String, "HARMONY_TLS_MAX_VERSION";
    /// Suites of TLS 1.2 that may be used, by their registered names, separated by commas [default: all that are safe]
    #[arg(value_name = "NAMES")]
    cipher_suites: String, "HARMONY_CIPHER_SUITES";
    /// Size of one file of the log, bytes; space is given up by whole files [default: 16777216]
    #[arg(value_name = "BYTES")]
    wal_segment_bytes: u64, "HARMONY_WAL_SEGMENT_BYTES";
    /// How long the log may wait for the disk before the process ends by itself, milliseconds; 0 is for ever
    /// [default: 30000, or two election timeouts]
    #[arg(value_name = "MS")]
    disk_timeout: u64, "HARMONY_DISK_TIMEOUT";
    /// Form of the tokens that clients get when they log in: simple, or jwt,sign-method=METHOD,pub-key=FILE,priv-key=FILE,ttl=TIME
    /// [default: simple]
    #[arg(value_name = "FORM")]
    auth_token: String, "HARMONY_AUTH_TOKEN";
    /// How long a simple token that is not used is good for, seconds [default: 300]
    #[arg(value_name = "SECONDS")]
    auth_token_ttl: u64, "HARMONY_AUTH_TOKEN_TTL";
    /// Work of hashing a password, 4 to 31: each step doubles it [default: 10]
    #[arg(value_name = "COST")]
    bcrypt_cost: u64, "HARMONY_BCRYPT_COST";
    /// How often a watch that asks for it and sees no event is told how far it is, 100ms at least [default: 10m]
    #[arg(value_name = "DURATION")]
    watch_progress_notify_interval: String, "HARMONY_WATCH_PROGRESS_NOTIFY_INTERVAL";
    /// What history is kept when it is compacted by itself: periodic, what was current in a time, or revision, so many revisions
    /// [default: periodic]
    #[arg(value_name = "MODE")]
    auto_compaction_mode: String, "HARMONY_AUTO_COMPACTION_MODE";
    /// How much of it: hours or a time such as 30m, or a number of revisions; 0 is no compaction by itself [default: 0]
    #[arg(value_name = "RETENTION", allow_hyphen_values = true)]
    auto_compaction_retention: String, "HARMONY_AUTO_COMPACTION_RETENTION";
    /// What /metrics tells: basic, or extensive: how long calls take, too [default: basic]
    #[arg(value_name = "KIND")]
    metrics: String, "HARMONY_METRICS";
    /// Serve the JSON gateway [default: true]
    #[arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = parse_bool)]
    enable_grpc_gateway: bool, "HARMONY_ENABLE_GRPC_GATEWAY";
    /// Requests under way on one connection [default: 100000]
    #[arg(value_name = "COUNT")]
    max_concurrent_streams: u64, "HARMONY_MAX_CONCURRENT_STREAMS";
    /// Without a sign of life for so long a connection is asked for one [default: 2h]
    #[arg(value_name = "DURATION")]
    grpc_keepalive_interval: String, "HARMONY_GRPC_KEEPALIVE_INTERVAL";
    /// How long a connection may take to answer that [default: 20s]
    #[arg(value_name = "DURATION")]
    grpc_keepalive_timeout: String, "HARMONY_GRPC_KEEPALIVE_TIMEOUT";
    /// What to log: error, warn, info, debug or trace [default: info]
    #[arg(value_name = "LEVEL")]
    log_level: String, "HARMONY_LOG_LEVEL";
    /// How to log: text or json [default: text]
    #[arg(value_name = "FORMAT")]
    log_format: String, "HARMONY_LOG_FORMAT";
}

impl Options {
    /// Reads the file's text.
    ///
    /// # Errors
    /// Where and why it is no valid TOML or names an unknown option.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_first_wins() {
        let flags = Options { name: Some("flag".into()), ..Options::default() };
        let file =
            Options::from_toml("name = 'file'\nelection-timeout = 2000\nquota-backend-bytes = -1").unwrap();
        let merged = flags.or(file);
        assert_eq!(merged.name.as_deref(), Some("flag"));
        assert_eq!(merged.election_timeout, Some(2000));
        assert_eq!(merged.quota_backend_bytes, Some(-1));
    }

    #[test]
    fn a_file_with_mistakes_is_refused_by_name() {
        let unknown = Options::from_toml("nmae = 'x'").unwrap_err();
        assert!(unknown.contains("nmae") && unknown.contains("`name`"), "{unknown}");
        let kind = Options::from_toml("election-timeout = 'x'").unwrap_err();
        assert!(kind.contains("election-timeout"), "{kind}");
        assert!(Options::from_toml("config-file = 'other'").is_err(), "a file does not name another");
        assert!(Options::from_toml("= 1").is_err());
    }
}
