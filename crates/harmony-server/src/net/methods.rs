//! The RPCs by name: where each goes, what right it asks for, and the counters of each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use harmony_node::metrics::Histogram;

use crate::api::access::Right;

/// An RPC's form, as the metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Unary,
    ServerStream,
    BidiStream,
}

impl Form {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

/// Which generated service answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Kv,
    Watch,
    Lease,
    Cluster,
    Maintenance,
    Auth,
    Lock,
    Election,
    Health,
}

impl Service {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Kv => "etcdserverpb.KV",
            Self::Watch => "etcdserverpb.Watch",
            Self::Lease => "etcdserverpb.Lease",
            Self::Cluster => "etcdserverpb.Cluster",
            Self::Maintenance => "etcdserverpb.Maintenance",
            Self::Auth => "etcdserverpb.Auth",
            Self::Lock => "v3lockpb.Lock",
            Self::Election => "v3electionpb.Election",
            Self::Health => "grpc.health.v1.Health",
        }
    }
}

/// One RPC.
pub(crate) struct Method {
    pub(crate) service: Service,
    pub(crate) name: &'static str,
    pub(crate) form: Form,
    pub(crate) right: Right,
}

impl Method {
    /// Whether a learner answers it. It is behind the others at times: it tells of itself, and hands out what it holds to
    /// those who do not ask for more. The handler of ranges refuses those that do.
    pub(crate) fn is_for_learners(&self) -> bool {
        match self.service {
            Service::Kv => self.name == "Range",
            Service::Maintenance => matches!(self.name, "Status" | "Snapshot"),
            Service::Health => true,
            Service::Watch
            | Service::Lease
            | Service::Cluster
            | Service::Auth
            | Service::Lock
            | Service::Election => false,
        }
    }
}

const fn method(service: Service, name: &'static str, form: Form, right: Right) -> Method {
    Method { service, name, form, right }
}

/// Every RPC that is served, the frequent ones first: the one place that says what right each asks for.
pub(crate) static METHODS: [Method; 51] = [
    method(Service::Kv, "Range", Form::Unary, Right::Request),
    method(Service::Kv, "Put", Form::Unary, Right::Command),
    method(Service::Kv, "Txn", Form::Unary, Right::Request),
    method(Service::Kv, "DeleteRange", Form::Unary, Right::Command),
    method(Service::Kv, "Compact", Form::Unary, Right::Command),
    method(Service::Kv, "RangeStream", Form::ServerStream, Right::Request),
    method(Service::Watch, "Watch", Form::BidiStream, Right::Request),
    method(Service::Lease, "LeaseKeepAlive", Form::BidiStream, Right::Request),
    method(Service::Lease, "LeaseGrant", Form::Unary, Right::Command),
    method(Service::Lease, "LeaseRevoke", Form::Unary, Right::Command),
    method(Service::Lease, "LeaseTimeToLive", Form::Unary, Right::Request),
    method(Service::Lease, "LeaseLeases", Form::Unary, Right::Request),
    method(Service::Cluster, "MemberList", Form::Unary, Right::User),
    method(Service::Cluster, "MemberAdd", Form::Unary, Right::Root),
    method(Service::Cluster, "MemberRemove", Form::Unary, Right::Root),
    method(Service::Cluster, "MemberUpdate", Form::Unary, Right::Root),
    method(Service::Cluster, "MemberPromote", Form::Unary, Right::Root),
    method(Service::Maintenance, "Status", Form::Unary, Right::User),
    method(Service::Maintenance, "Alarm", Form::Unary, Right::Request),
    method(Service::Maintenance, "Defragment", Form::Unary, Right::Root),
    method(Service::Maintenance, "Hash", Form::Unary, Right::Root),
    method(Service::Maintenance, "HashKV", Form::Unary, Right::Root),
    method(Service::Maintenance, "Snapshot", Form::ServerStream, Right::Root),
    method(Service::Maintenance, "MoveLeader", Form::Unary, Right::Root),
    method(Service::Maintenance, "Downgrade", Form::Unary, Right::Root),
    method(Service::Auth, "AuthStatus", Form::Unary, Right::Open),
    method(Service::Auth, "Authenticate", Form::Unary, Right::Open),
    method(Service::Auth, "AuthEnable", Form::Unary, Right::Command),
    method(Service::Auth, "AuthDisable", Form::Unary, Right::Command),
    method(Service::Auth, "UserAdd", Form::Unary, Right::Command),
    method(Service::Auth, "UserGet", Form::Unary, Right::Request),
    method(Service::Auth, "UserList", Form::Unary, Right::Request),
    method(Service::Auth, "UserDelete", Form::Unary, Right::Command),
    method(Service::Auth, "UserChangePassword", Form::Unary, Right::Command),
    method(Service::Auth, "UserGrantRole", Form::Unary, Right::Command),
    method(Service::Auth, "UserRevokeRole", Form::Unary, Right::Command),
    method(Service::Auth, "RoleAdd", Form::Unary, Right::Command),
    method(Service::Auth, "RoleGet", Form::Unary, Right::Request),
    method(Service::Auth, "RoleList", Form::Unary, Right::Request),
    method(Service::Auth, "RoleDelete", Form::Unary, Right::Command),
    method(Service::Auth, "RoleGrantPermission", Form::Unary, Right::Command),
    method(Service::Auth, "RoleRevokePermission", Form::Unary, Right::Command),
    method(Service::Lock, "Lock", Form::Unary, Right::Command),
    method(Service::Lock, "Unlock", Form::Unary, Right::Command),
    method(Service::Election, "Campaign", Form::Unary, Right::Command),
    method(Service::Election, "Proclaim", Form::Unary, Right::Command),
    method(Service::Election, "Leader", Form::Unary, Right::Request),
    method(Service::Election, "Observe", Form::ServerStream, Right::Request),
    method(Service::Election, "Resign", Form::Unary, Right::Command),
    method(Service::Health, "Check", Form::Unary, Right::Open),
    method(Service::Health, "Watch", Form::ServerStream, Right::Open),
];

/// gRPC's status codes by number, as the metrics name them.
pub(crate) const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The slot in [`METHODS`] of a request's path.
pub(crate) fn find(path: &str) -> Option<usize> {
    let (service, name) = path.strip_prefix('/')?.split_once('/')?;
    METHODS.iter().position(|method| method.name == name && method.service.as_str() == service)
}

/// How often one RPC was called and how it ended.
#[derive(Default)]
pub(crate) struct MethodCounters {
    pub(crate) started: AtomicU64,
    /// By the number of the status code.
    pub(crate) handled: [AtomicU64; CODES.len()],
}

/// Upper bounds of the buckets for how long calls take, microseconds: those of every Go program that counts them.
const HANDLING_BUCKETS_US: [u64; 11] =
    [5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000];

/// Versions of clients that are told apart: they name them themselves.
const CLIENT_VERSIONS_MAX: usize = 64;

/// Clients that name none, as in etcd, and those that are not told apart.
const UNKNOWN_VERSION: &str = "unknown";

/// Calls of clients of one version.
#[derive(Clone, Copy, Default)]
pub(crate) struct ClientRequests {
    pub(crate) unary: u64,
    pub(crate) stream: u64,
}

impl ClientRequests {
    fn add(&mut self, form: Form) {
        let count = if form == Form::Unary { &mut self.unary } else { &mut self.stream };
        *count += 1;
    }
}

/// The counters of all RPCs, and of the connections that carry them.
pub(crate) struct Counters {
    /// In the order of [`METHODS`].
    methods: [MethodCounters; METHODS.len()],
    /// How long unary calls took, in the same order; empty unless asked for.
    handling: Box<[Histogram]>,
    clients: Mutex<BTreeMap<String, ClientRequests>>,
    /// Bytes of HTTP from clients, after TLS.
    pub(crate) bytes_received: AtomicU64,
    /// Bytes of HTTP to clients, before TLS.
    pub(crate) bytes_sent: AtomicU64,
}

impl Counters {
    /// Nothing counted yet; `is_extensive`: how long calls take counts, too.
    pub(crate) fn new(is_extensive: bool) -> Self {
        let timed = if is_extensive { METHODS.len() } else { 0 };
        Self {
            methods: std::array::from_fn(|_| MethodCounters::default()),
            handling: (0..timed).map(|_| Histogram::new(&HANDLING_BUCKETS_US)).collect(),
            clients: Mutex::default(),
            bytes_received: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
        }
    }

    /// Whether it counts how long such a call takes. A stream takes as long as its client likes.
    pub(crate) fn times(&self, form: Form) -> bool {
        form == Form::Unary && !self.handling.is_empty()
    }

    /// A client calls that was made for this version.
    pub(crate) fn client(&self, form: Form, version: Option<&str>) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let version = version.unwrap_or(UNKNOWN_VERSION);
        if let Some(requests) = clients.get_mut(version) {
            return requests.add(form);
        }
        let name = if clients.len() < CLIENT_VERSIONS_MAX { version } else { UNKNOWN_VERSION };
        clients.entry(name.to_owned()).or_default().add(form);
    }

    /// Calls by the version that clients were made for.
    pub(crate) fn clients(&self) -> BTreeMap<String, ClientRequests> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Unary calls, and how long they took; nothing unless asked for.
    pub(crate) fn handling(&self) -> impl Iterator<Item = (&'static Method, &Histogram)> {
        METHODS.iter().zip(&self.handling).filter(|(method, _)| method.form == Form::Unary)
    }

    pub(crate) fn started(&self, method: usize) {
        self.methods[method].started.fetch_add(1, Ordering::Relaxed);
    }

    /// A code that gRPC does not have counts as Unknown. `took`: of those that [`Counters::times`].
    pub(crate) fn handled(&self, method: usize, code: usize, took: Option<Duration>) {
        let code = if code < CODES.len() { code } else { 2 };
        self.methods[method].handled[code].fetch_add(1, Ordering::Relaxed);
        if let (Some(took), Some(handling)) = (took, self.handling.get(method)) {
            handling.record(took);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static Method, &MethodCounters)> {
        METHODS.iter().zip(&self.methods)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_find_their_methods() {
        for (slot, method) in METHODS.iter().enumerate() {
            assert_eq!(find(&format!("/{}/{}", method.service.as_str(), method.name)), Some(slot));
        }
        for path in ["", "/", "/etcdserverpb.KV", "/etcdserverpb.KV/", "/etcdserverpb.Watch/Range", "/health"]
        {
            assert_eq!(find(path), None, "{path}");
        }
    }

    #[test]
    fn a_strange_code_counts_as_unknown() {
        let counters = Counters::new(false);
        counters.handled(0, 99, None);
        counters.handled(0, 2, None);
        assert_eq!(counters.methods[0].handled[2].load(Ordering::Relaxed), 2);
    }

    #[test]
    fn clients_cannot_fill_the_memory_with_versions() {
        let counters = Counters::new(false);
        for version in 0..1_000 {
            counters.client(Form::Unary, Some(&version.to_string()));
        }
        counters.client(Form::BidiStream, Some("3"));
        counters.client(Form::Unary, None);
        let clients = counters.clients();
        assert_eq!(clients.len(), CLIENT_VERSIONS_MAX + 1);
        assert_eq!((clients["3"].unary, clients["3"].stream), (1, 1));
        let told_apart = CLIENT_VERSIONS_MAX as u64;
        assert_eq!(clients[UNKNOWN_VERSION].unary, 1_000 - told_apart + 1);
    }
}
