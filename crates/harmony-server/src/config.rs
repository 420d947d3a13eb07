//! The server's configuration: options with defaults filled in and every rule checked, before anything is touched.

mod auth;
mod compaction;
#[cfg(test)]
mod flag_table;
pub(crate) mod foreign;
mod options;
pub(crate) mod sources;
pub(crate) mod tls;
mod url;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use harmony_node::tls::TlsConfig;
use harmony_types::config::ConfigError;
use harmony_types::limits;

pub use auth::{AuthConfig, JwtConfig, TokenConfig};
pub use compaction::AutoCompaction;
pub use options::Options;
pub use url::Url;

/// A member as `--initial-cluster` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialMember {
    /// Its name.
    pub name: String,
    /// Where peers reach it, sorted.
    pub peer_urls: Vec<Url>,
}

/// Detail of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of this member.
    pub name: String,
    /// Directory for all data.
    pub data_dir: PathBuf,
    /// Where to listen for clients; not empty.
    pub listen_client: Vec<Url>,
    /// Where clients reach this member; not empty.
    pub advertise_client: Vec<Url>,
    /// Where to listen for peers; empty for a lone member that was not told to.
    pub listen_peer: Vec<Url>,
    /// All members in order of their names, this one among them.
    pub cluster: Vec<InitialMember>,
    /// True when the cluster runs already: the member has its data, or was added to the cluster.
    pub existing: bool,
    /// Refuse membership changes behind which too few members would be there.
    pub strict_reconfig: bool,
    /// Learners that the cluster may have.
    pub learners_max: usize,
    /// Keeps clusters of the same addresses apart.
    pub token: String,
    /// Time between heartbeats, milliseconds.
    pub heartbeat_interval_ms: u64,
    /// Time without a leader before an election, milliseconds.
    pub election_timeout_ms: u64,
    /// Largest request, bytes.
    pub request_bytes_max: usize,
    /// Compares or operations in one transaction.
    pub txn_ops_max: usize,
    /// Bytes at which writes are refused; `None`: never.
    pub quota_bytes: Option<u64>,
    /// Entries of the log kept for members that lag.
    pub log_keep_entries: u64,
    /// Bytes of the log kept for members that lag.
    pub log_keep_bytes: u64,
    /// Bytes of the log kept behind a snapshot that is on its way.
    pub log_hold_bytes_max: u64,
    /// Bytes a second of a snapshot that is sent to a member; 0: no limit.
    pub snapshot_bytes_per_second: u64,
    /// Where to serve health and metrics alone.
    pub listen_metrics: Vec<Url>,
    /// Where to serve HTTP without gRPC; when it is not empty, `listen_client` serves gRPC alone.
    pub listen_client_http: Vec<Url>,
    /// TLS for clients.
    pub client_tls: Option<TlsConfig>,
    /// TLS between members.
    pub peer_tls: Option<TlsConfig>,
    /// Size of one file of the log, bytes.
    pub segment_bytes: u64,
    /// How long the log may wait for the disk before the process ends; `None`: for ever.
    pub disk_timeout: Option<Duration>,
    /// How clients log in.
    pub auth: AuthConfig,
    /// Between two notices of progress to a watch that sees no event.
    pub watch_progress_interval: Duration,
    /// What is kept when history is compacted without being asked; `None`: it is not.
    pub auto_compaction: Option<AutoCompaction>,
    /// Count how long calls take.
    pub extensive_metrics: bool,
    /// Serve the JSON gateway.
    pub json_gateway: bool,
    /// Requests under way on one connection.
    pub streams_max: u32,
    /// A connection without a sign of life for so long is asked for one.
    pub keep_alive_interval: Duration,
    /// How long a connection may take to answer that.
    pub keep_alive_timeout: Duration,
    /// What to log.
    pub log_level: tracing::Level,
    /// How to log it.
    pub log_format: LogFormat,
    /// What an operator should know of these options, for the log.
    pub notices: Vec<String>,
}

impl Config {
    /// Fills in the defaults and checks everything.
    ///
    /// # Errors
    /// Every mistake at once, each with its flag and what to do.
    pub fn new(options: Options) -> Result<Self, ConfigError> {
        let mut check = Check::default();
        let name = options.name.clone().unwrap_or_else(|| "default".to_owned());
        if name.is_empty() || name.contains(['=', ',']) {
            check.mistake("name", format!("{name:?} must not be empty and hold no '=' or ','"));
        }
        let listen_client =
            check.urls("listen-client-urls", options.listen_client_urls.as_deref(), "http://127.0.0.1:2379");
        let advertise_client = match (&options.advertise_client_urls, &options.listen_client_urls) {
            (None, Some(_)) => {
                if listen_client.iter().any(Url::is_unspecified) {
                    check.mistake(
                        "advertise-client-urls",
                        "must be set when the server listens on every address: clients cannot use 0.0.0.0"
                            .to_owned(),
                    );
                }
                listen_client.clone()
            }
            (given, _) => check.urls("advertise-client-urls", given.as_deref(), "http://localhost:2379"),
        };
        let advertise_peer = check.urls(
            "initial-advertise-peer-urls",
            options.initial_advertise_peer_urls.as_deref(),
            "http://localhost:2380",
        );
        let cluster = match &options.initial_cluster {
            None => vec![InitialMember { name: name.clone(), peer_urls: sorted(advertise_peer.clone()) }],
            Some(text) => check.cluster(text, &name, &advertise_peer),
        };
        let listen_peer = match &options.listen_peer_urls {
            Some(text) => check.urls("listen-peer-urls", Some(text), ""),
            None if cluster.len() < 2 => Vec::new(),
            None => advertise_peer,
        };
        let existing = match options.initial_cluster_state.as_deref() {
            None | Some("new") => false,
            Some("existing") => true,
            Some(other) => {
                check.mistake("initial-cluster-state", format!("is {other:?}: use \"new\" or \"existing\""));
                false
            }
        };
        let (heartbeat_interval_ms, election_timeout_ms) =
            check.times(options.heartbeat_interval, options.election_timeout);
        let peer_urls: Vec<&Url> = cluster.iter().flat_map(|member| &member.peer_urls).collect();
        let listen_metrics = check.more_urls("listen-metrics-urls", options.listen_metrics_urls.as_deref());
        let listen_client_http =
            check.more_urls("listen-client-http-urls", options.listen_client_http_urls.as_deref());
        let peer_tls = tls::peers(&mut check, &options, &listen_peer, &peer_urls);
        let for_clients = [&listen_client[..], &listen_client_http, &listen_metrics].concat();
        let client_tls = tls::clients(&mut check, &options, &for_clients);
        let config = Self {
            name,
            data_dir: options.data_dir.unwrap_or_else(|| "harmony.data".into()),
            listen_client,
            advertise_client,
            listen_peer,
            cluster,
            existing,
            strict_reconfig: options.strict_reconfig_check.unwrap_or(true),
            learners_max: check.number(
                "max-learners",
                options.max_learners,
                limits::LEARNERS_MAX,
                MEMBERS_LIMIT,
            ),
            token: options.initial_cluster_token.unwrap_or_else(|| "etcd-cluster".to_owned()),
            heartbeat_interval_ms,
            election_timeout_ms,
            request_bytes_max: check.number(
                "max-request-bytes",
                options.max_request_bytes,
                limits::REQUEST_BYTES_MAX,
                REQUEST_BYTES_LIMIT,
            ),
            txn_ops_max: check.number("max-txn-ops", options.max_txn_ops, limits::TXN_OPS_MAX, 1 << 20),
            quota_bytes: quota(options.quota_backend_bytes.unwrap_or(0)),
            log_keep_entries: options.snapshot_catchup_entries.unwrap_or(limits::LOG_KEEP_ENTRIES),
            log_keep_bytes: options.snapshot_catchup_bytes.unwrap_or(limits::LOG_KEEP_BYTES),
            log_hold_bytes_max: options.snapshot_hold_bytes.unwrap_or(limits::LOG_HOLD_BYTES_MAX),
            snapshot_bytes_per_second: options.snapshot_send_rate.unwrap_or(0),
            listen_metrics,
            listen_client_http,
            client_tls,
            peer_tls,
            segment_bytes: check.segment_bytes(options.wal_segment_bytes),
            disk_timeout: check.disk_timeout(options.disk_timeout, election_timeout_ms),
            auth: check.auth(options.auth_token.as_deref(), options.auth_token_ttl, options.bcrypt_cost),
            watch_progress_interval: check.duration(
                "watch-progress-notify-interval",
                options.watch_progress_notify_interval.as_deref(),
                WATCH_PROGRESS_INTERVAL,
                WATCH_PROGRESS_INTERVAL_MIN,
            ),
            auto_compaction: check.auto_compaction(
                options.auto_compaction_mode.as_deref(),
                options.auto_compaction_retention.as_deref(),
            ),
            extensive_metrics: check.extensive_metrics(options.metrics.as_deref()),
            json_gateway: options.enable_grpc_gateway.unwrap_or(true),
            streams_max: check.streams_max(options.max_concurrent_streams),
            keep_alive_interval: check.duration(
                "grpc-keepalive-interval",
                options.grpc_keepalive_interval.as_deref(),
                KEEP_ALIVE_INTERVAL,
                KEEP_ALIVE_MIN,
            ),
            keep_alive_timeout: check.duration(
                "grpc-keepalive-timeout",
                options.grpc_keepalive_timeout.as_deref(),
                KEEP_ALIVE_TIMEOUT,
                KEEP_ALIVE_MIN,
            ),
            log_level: check.log_level(options.log_level.as_deref()),
            log_format: check.log_format(options.log_format.as_deref()),
            notices: check.notices,
        };
        ConfigError::check(check.mistakes)?;
        Ok(config)
    }

    /// True when no other member is named.
    #[must_use]
    pub fn is_lone(&self) -> bool {
        self.cluster.len() == 1
    }

    /// This member's own entry.
    ///
    /// # Panics
    /// Never: a valid configuration names this member.
    #[must_use]
    pub fn own(&self) -> &InitialMember {
        self.cluster
            .iter()
            .find(|member| member.name == self.name)
            .expect("checked when the configuration was made")
    }
}

/// Largest `--max-learners`.
const MEMBERS_LIMIT: usize = 100;

/// Largest `--max-request-bytes`: a command must fit into a log record with room to spare.
const REQUEST_BYTES_LIMIT: usize = limits::RECORD_BYTES_MAX / 2 - limits::GRPC_OVERHEAD_BYTES;

/// etcd's default of `--watch-progress-notify-interval`.
const WATCH_PROGRESS_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Its least value, as etcd has it.
const WATCH_PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// `--disk-timeout` when it is not given, milliseconds: longer than what disks recover from by themselves.
const DISK_TIMEOUT_MS: u64 = 30_000;

/// Requests under way on one connection.
const STREAMS_MAX: u32 = 100_000;

/// etcd's default of `--grpc-keepalive-interval`.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2 * 60 * 60);

/// etcd's default of `--grpc-keepalive-timeout`.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Least value of both, as gRPC has it.
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(1);

fn quota(bytes: i64) -> Option<u64> {
    match u64::try_from(bytes) {
        Ok(0) => Some(limits::QUOTA_BYTES),
        Ok(bytes) => Some(bytes),
        Err(_) => None,
    }
}

fn sorted(mut urls: Vec<Url>) -> Vec<Url> {
    urls.sort();
    urls.dedup();
    urls
}

fn join(urls: &[Url]) -> String {
    urls.iter().map(Url::to_string).collect::<Vec<_>>().join(",")
}

/// Collects mistakes while options are read; what could not be read gets a default that nobody will see.
#[derive(Default)]
struct Check {
    mistakes: Vec<String>,
    notices: Vec<String>,
}

impl Check {
    fn mistake(&mut self, flag: &str, text: String) {
        self.mistakes.push(format!("--{flag} {text}"));
    }

    fn notice(&mut self, text: String) {
        self.notices.push(text);
    }

    /// URLs that need not be there.
    fn more_urls(&mut self, flag: &str, given: Option<&str>) -> Vec<Url> {
        match given {
            None | Some("") => Vec::new(),
            given => self.urls(flag, given, ""),
        }
    }

    fn urls(&mut self, flag: &str, given: Option<&str>, default: &str) -> Vec<Url> {
        let text = given.unwrap_or(default);
        if text.is_empty() {
            self.mistake(flag, "is empty: leave it out, or write http://host:port".to_owned());
        }
        let mut urls = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match Url::parse(part) {
                Ok(url) => urls.push(url),
                Err(error) => self.mistake(flag, format!("{part} {error}")),
            }
        }
        urls
    }

    fn cluster(&mut self, text: &str, own: &str, advertise_peer: &[Url]) -> Vec<InitialMember> {
        const FLAG: &str = "initial-cluster";
        let before = self.mistakes.len();
        let mut members: BTreeMap<&str, Vec<Url>> = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some((name, url)) if !name.is_empty() => match Url::parse(url) {
                    Ok(url) => members.entry(name).or_default().push(url),
                    Err(error) => self.mistake(FLAG, format!("{url} {error}")),
                },
                _ => self.mistake(FLAG, format!("{part:?} is no pair: write name=http://host:port")),
            }
        }
        let mut seen: BTreeMap<&Url, &str> = BTreeMap::new();
        for (name, url) in members.iter().flat_map(|(name, urls)| urls.iter().map(move |url| (name, url))) {
            if let Some(other) = seen.insert(url, name) {
                self.mistakes.push(format!(
                    "--{FLAG} names {url} twice, for {other} and {name}: each member has its own"
                ));
            }
        }
        // What follows would only repeat the mistakes above.
        if self.mistakes.len() == before {
            match members.get(own) {
                None => self.mistake(
                    FLAG,
                    format!(
                        "does not name this member {own:?} (it names {}): set --name to one of them or add {own}={}",
                        members.keys().copied().collect::<Vec<_>>().join(", "),
                        join(advertise_peer)
                    ),
                ),
                Some(urls) if sorted(urls.clone()) != sorted(advertise_peer.to_vec()) => self.mistake(
                    "initial-advertise-peer-urls",
                    format!(
                        "{} differs from {} in --initial-cluster for {own}: make them the same",
                        join(advertise_peer),
                        join(urls)
                    ),
                ),
                Some(_) => {}
            }
        }
        members
            .into_iter()
            .map(|(name, urls)| InitialMember { name: name.to_owned(), peer_urls: sorted(urls) })
            .collect()
    }

    fn times(&mut self, heartbeat: Option<u64>, election: Option<u64>) -> (u64, u64) {
        let heartbeat = heartbeat.unwrap_or(limits::HEARTBEAT_INTERVAL_MS);
        let election = election.unwrap_or(limits::ELECTION_TIMEOUT_MS);
        if heartbeat == 0 {
            self.mistake("heartbeat-interval", "must be at least 1 ms".to_owned());
        }
        let least = heartbeat.saturating_mul(limits::ELECTION_HEARTBEATS_MIN);
        if election < least {
            self.mistake(
                "election-timeout",
                format!(
                    "is {election} ms and must be at least {} heartbeat intervals of {heartbeat} ms: use {least} or more",
                    limits::ELECTION_HEARTBEATS_MIN
                ),
            );
        }
        if limits::ELECTION_TIMEOUT_MS_MAX < election {
            self.mistake(
                "election-timeout",
                format!("is {election} ms: use {} or less", limits::ELECTION_TIMEOUT_MS_MAX),
            );
        }
        (heartbeat, election)
    }

    fn number(&mut self, flag: &str, given: Option<u64>, default: usize, most: usize) -> usize {
        let Some(given) = given else { return default };
        match usize::try_from(given) {
            Ok(number) if (1..=most).contains(&number) => number,
            _ => {
                self.mistake(flag, format!("is {given}: use 1 to {most}"));
                default
            }
        }
    }

    fn segment_bytes(&mut self, given: Option<u64>) -> u64 {
        let bytes = given.unwrap_or(limits::SEGMENT_BYTES);
        let (least, most) = (limits::SEGMENT_BYTES_MIN, u64::from(u32::MAX));
        if !(least..=most).contains(&bytes) {
            self.mistake("wal-segment-bytes", format!("is {bytes}: use {least} to {most}"));
        }
        bytes
    }

    /// A leader hands over after an election timeout; the process goes only behind that.
    fn disk_timeout(&mut self, given: Option<u64>, election: u64) -> Option<Duration> {
        let least = election.saturating_mul(2);
        let timeout = given.unwrap_or(DISK_TIMEOUT_MS.max(least));
        if timeout == 0 {
            return None;
        }
        if timeout < least {
            self.mistake(
                "disk-timeout",
                format!(
                    "is {timeout} ms, less than two election timeouts of {election} ms: use {least} or more, or 0 for none"
                ),
            );
        }
        Some(Duration::from_millis(timeout))
    }

    fn duration(&mut self, flag: &str, given: Option<&str>, default: Duration, least: Duration) -> Duration {
        let Some(text) = given else { return default };
        let wrong = match crate::client::args::parse_duration(text) {
            Ok(duration) if least <= duration => return duration,
            Ok(_) => format!("is {text}: use {least:?} or more"),
            Err(reason) => format!("is {text:?}: {reason}"),
        };
        self.mistake(flag, wrong);
        default
    }

    /// etcd's default is the largest number there is; a script that says so means no limit.
    fn streams_max(&mut self, given: Option<u64>) -> u32 {
        match u32::try_from(given.unwrap_or(STREAMS_MAX.into())) {
            Ok(0) | Err(_) => {
                self.mistake(
                    "max-concurrent-streams",
                    format!("is {}: use 1 to {}", given.unwrap_or(0), u32::MAX),
                );
                STREAMS_MAX
            }
            Ok(streams) => streams,
        }
    }

    fn log_level(&mut self, given: Option<&str>) -> tracing::Level {
        match given {
            None | Some("info") => tracing::Level::INFO,
            // etcd has these three; nothing here is less than an error.
            Some("error" | "panic" | "fatal") => tracing::Level::ERROR,
            Some("warn") => tracing::Level::WARN,
            Some("debug") => tracing::Level::DEBUG,
            Some("trace") => tracing::Level::TRACE,
            Some(other) => {
                self.mistake("log-level", format!("is {other:?}: use error, warn, info, debug or trace"));
                tracing::Level::INFO
            }
        }
    }

    fn extensive_metrics(&mut self, given: Option<&str>) -> bool {
        match given {
            None | Some("basic") => false,
            Some("extensive") => true,
            Some(other) => {
                self.mistake("metrics", format!("is {other:?}: use basic or extensive"));
                false
            }
        }
    }

    fn log_format(&mut self, given: Option<&str>) -> LogFormat {
        match given {
            // etcd calls text "console".
            None | Some("text" | "console") => LogFormat::Text,
            Some("json") => LogFormat::Json,
            Some(other) => {
                self.mistake("log-format", format!("is {other:?}: use text or json"));
                LogFormat::Text
            }
        }
    }
}

#[cfg(test)]
mod tests;
