//! The RPCs by name: where each goes, what right it asks for, and the counters of each.

use std::sync::atomic::{AtomicU64, Ordering};

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

/// The counters of all RPCs, and of the connections that carry them.
pub(crate) struct Counters {
    /// In the order of [`METHODS`].
    methods: [MethodCounters; METHODS.len()],
    /// Bytes of HTTP from clients, after TLS.
    pub(crate) bytes_received: AtomicU64,
    /// Bytes of HTTP to clients, before TLS.
    pub(crate) bytes_sent: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            methods: std::array::from_fn(|_| MethodCounters::default()),
            bytes_received: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
        }
    }
}

impl Counters {
    pub(crate) fn started(&self, method: usize) {
        self.methods[method].started.fetch_add(1, Ordering::Relaxed);
    }

    /// A code that gRPC does not have counts as Unknown.
    pub(crate) fn handled(&self, method: usize, code: usize) {
        let code = if code < CODES.len() { code } else { 2 };
        self.methods[method].handled[code].fetch_add(1, Ordering::Relaxed);
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
        let counters = Counters::default();
        counters.handled(0, 99);
        counters.handled(0, 2);
        assert_eq!(counters.methods[0].handled[2].load(Ordering::Relaxed), 2);
    }
}
