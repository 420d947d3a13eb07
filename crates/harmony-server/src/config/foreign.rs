//! Flags of etcd that are not options here: some are accepted and change nothing, some are refused with what to do instead.
//!
//! Scripts, environments and files written for etcd name them; to ignore one in silence could be a surprise, to refuse each would
//! be a nuisance.

use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches};

/// What becomes of such a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Accepted; why it changes nothing.
    NoEffect(&'static str),
    /// Refused unless it has one of these values; what to do instead.
    Refused(&'static [&'static str], &'static str),
}

/// One flag.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Foreign {
    pub(crate) name: &'static str,
    is_bool: bool,
    pub(crate) fate: Fate,
}

const fn ignored(name: &'static str, why: &'static str) -> Foreign {
    Foreign { name, is_bool: false, fate: Fate::NoEffect(why) }
}

const fn ignored_bool(name: &'static str, why: &'static str) -> Foreign {
    Foreign { name, is_bool: true, fate: Fate::NoEffect(why) }
}

const fn refused(name: &'static str, but: &'static [&'static str], instead: &'static str) -> Foreign {
    Foreign { name, is_bool: false, fate: Fate::Refused(but, instead) }
}

const fn refused_bool(name: &'static str, instead: &'static str) -> Foreign {
    Foreign { name, is_bool: true, fate: Fate::Refused(&["false"], instead) }
}

const BYTES: &str = "checkpoints follow the bytes written";
const FILES: &str = "files go when they are not needed any more";
const BATCH: &str = "the tree is written by checkpoints";
const ALWAYS_CHECKED: &str = "members compare their state all the time";
const NO_PAUSE: &str = "compaction pauses nobody";
const NO_TRACING: &str = "there are no traces";
const LOG: &str = "the log goes to standard error";
const NO_DISCOVERY: &str = "name the members with --initial-cluster";
const NO_WARNING: &str = "slow requests are not warned of: see the metrics";
const PROXY: &str = "there is no proxy";

/// All of them.
pub(crate) static FOREIGN: [Foreign; 75] = [
    refused("wal-dir", &[], "the log is in member/wal of --data-dir: make that a link or a mount"),
    ignored("snapshot-count", BYTES),
    ignored("max-snapshots", FILES),
    ignored("max-wals", FILES),
    ignored_bool("initial-election-tick-advance", "a member that starts waits one election timeout"),
    ignored_bool("memory-mlock", "no file is mapped into memory"),
    ignored("backend-bbolt-freelist-type", BATCH),
    ignored("backend-batch-interval", BATCH),
    ignored("backend-batch-limit", BATCH),
    ignored("grpc-keepalive-min-time", "a client may ask as often as it likes"),
    ignored_bool("socket-reuse-address", "it is always so"),
    refused_bool("socket-reuse-port", "a port is one server's"),
    ignored("raft-read-timeout", "peers are given up by the election timeout"),
    ignored("raft-write-timeout", "peers are given up by the election timeout"),
    refused("discovery", &[], NO_DISCOVERY),
    refused("discovery-token", &[], NO_DISCOVERY),
    refused("discovery-endpoints", &[], NO_DISCOVERY),
    refused("discovery-srv", &[], NO_DISCOVERY),
    refused("discovery-srv-name", &[], NO_DISCOVERY),
    ignored("discovery-dial-timeout", NO_DISCOVERY),
    ignored("discovery-request-timeout", NO_DISCOVERY),
    ignored("discovery-keepalive-time", NO_DISCOVERY),
    ignored("discovery-keepalive-timeout", NO_DISCOVERY),
    ignored_bool("discovery-insecure-transport", NO_DISCOVERY),
    ignored_bool("discovery-insecure-skip-tls-verify", NO_DISCOVERY),
    ignored("discovery-cert", NO_DISCOVERY),
    ignored("discovery-key", NO_DISCOVERY),
    ignored("discovery-cacert", NO_DISCOVERY),
    ignored("discovery-user", NO_DISCOVERY),
    ignored("discovery-password", NO_DISCOVERY),
    ignored("discovery-fallback", NO_DISCOVERY),
    ignored("discovery-proxy", NO_DISCOVERY),
    ignored_bool("pre-vote", "members always ask before an election"),
    ignored("v2-deprecation", "there is no API of version 2"),
    refused_bool("enable-v2", "there is no API of version 2"),
    ignored("client-cert-file", "the server is no client of its own"),
    ignored("client-key-file", "the server is no client of its own"),
    ignored_bool(
        "peer-skip-client-san-verification",
        "a member that connects is known by its authority and its allowed name",
    ),
    ignored("cors", "browsers get no permission to call from other sites"),
    refused("host-whitelist", &["*"], "requests of every host name are served: leave it out"),
    ignored_bool("enable-pprof", "there is no profiler inside: use perf"),
    ignored("logger", LOG),
    ignored("log-outputs", LOG),
    ignored_bool("enable-log-rotation", LOG),
    ignored("log-rotation-config-json", LOG),
    ignored_bool("debug", "use --log-level debug"),
    ignored("log-package-levels", "use --log-level"),
    ignored("warning-unary-request-duration", NO_WARNING),
    ignored("warning-apply-duration", NO_WARNING),
    ignored_bool("enable-distributed-tracing", NO_TRACING),
    ignored("distributed-tracing-address", NO_TRACING),
    ignored("distributed-tracing-service-name", NO_TRACING),
    ignored("distributed-tracing-instance-id", NO_TRACING),
    ignored("distributed-tracing-sampling-rate", NO_TRACING),
    ignored_bool("initial-corrupt-check", ALWAYS_CHECKED),
    ignored("corrupt-check-time", ALWAYS_CHECKED),
    ignored_bool("compact-hash-check-enabled", ALWAYS_CHECKED),
    ignored("compact-hash-check-time", ALWAYS_CHECKED),
    ignored("compaction-batch-limit", NO_PAUSE),
    ignored("compaction-sleep-interval", NO_PAUSE),
    ignored_bool("enable-lease-checkpoint", "what is left of a lease is always told to all members"),
    ignored_bool("enable-lease-checkpoint-persist", "what is left of a lease is always told to all members"),
    ignored_bool("stop-grpc-service-on-defrag", "defragmentation stops nobody"),
    ignored_bool("txn-mode-write-with-shared-buffer", "transactions share what they can"),
    ignored("downgrade-check-time", "downgrades are refused"),
    ignored("bootstrap-defrag-threshold-megabytes", "the tree is made smaller while it serves"),
    ignored("feature-gates", "there are none"),
    refused_bool("force-new-cluster", "use `harmony snapshot save` and `restore`"),
    ignored_bool("unsafe-no-fsync", "what is acknowledged is always on disk"),
    refused("proxy", &["off"], PROXY),
    ignored("proxy-failure-wait", PROXY),
    ignored("proxy-refresh-interval", PROXY),
    ignored("proxy-dial-timeout", PROXY),
    ignored("proxy-write-timeout", PROXY),
    ignored("proxy-read-timeout", PROXY),
];

impl Foreign {
    fn arg(&'static self) -> Arg {
        let arg = Arg::new(self.name).long(self.name).hide(true);
        match self.is_bool {
            true => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            false => arg.num_args(1).allow_hyphen_values(true),
        }
    }
}

/// Those that were given, each with its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Foreigners(Vec<(&'static Foreign, String)>);

impl Foreigners {
    /// These and others.
    pub(crate) fn and(mut self, others: Self) -> Self {
        for (flag, value) in others.0 {
            if self.0.iter().all(|(known, _)| *known != flag) {
                self.0.push((flag, value));
            }
        }
        self
    }

    /// What an operator should know of them, and what is refused.
    pub(crate) fn judge(self) -> (Vec<String>, Vec<String>) {
        let (mut notices, mut mistakes) = (Vec::new(), Vec::new());
        for (flag, value) in self.0 {
            let name = flag.name;
            match flag.fate {
                Fate::NoEffect(why) => notices.push(format!("--{name} has no effect: {why}")),
                Fate::Refused(but, _) if but.contains(&value.as_str()) => {}
                Fate::Refused(_, instead) => mistakes.push(format!("--{name} is not supported: {instead}")),
            }
        }
        (notices, mistakes)
    }
}

impl Args for Foreigners {
    fn augment_args(command: Command) -> Command {
        command.args(FOREIGN.iter().map(Foreign::arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Foreigners {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given =
            FOREIGN.iter().filter_map(|flag| Some((flag, matches.get_one::<String>(flag.name)?.clone())));
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
