//! The RPCs by name: where each goes, and the counters of each.

use std::sync::atomic::{AtomicU64, Ordering};

/// An RPC's form, as the metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Unary,
    ServerStream,
}

impl Form {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
        }
    }
}

/// Which generated service answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Kv,
    Cluster,
    Maintenance,
    Health,
}

impl Service {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Kv => "etcdserverpb.KV",
            Self::Cluster => "etcdserverpb.Cluster",
            Self::Maintenance => "etcdserverpb.Maintenance",
            Self::Health => "grpc.health.v1.Health",
        }
    }
}

/// One RPC.
pub(crate) struct Method {
    pub(crate) service: Service,
    pub(crate) name: &'static str,
    pub(crate) form: Form,
}

const fn method(service: Service, name: &'static str, form: Form) -> Method {
    Method { service, name, form }
}

/// Every RPC that is served, the frequent ones first.
pub(crate) static METHODS: [Method; 21] = [
    method(Service::Kv, "Range", Form::Unary),
    method(Service::Kv, "Put", Form::Unary),
    method(Service::Kv, "Txn", Form::Unary),
    method(Service::Kv, "DeleteRange", Form::Unary),
    method(Service::Kv, "Compact", Form::Unary),
    method(Service::Kv, "RangeStream", Form::ServerStream),
    method(Service::Cluster, "MemberList", Form::Unary),
    method(Service::Cluster, "MemberAdd", Form::Unary),
    method(Service::Cluster, "MemberRemove", Form::Unary),
    method(Service::Cluster, "MemberUpdate", Form::Unary),
    method(Service::Cluster, "MemberPromote", Form::Unary),
    method(Service::Maintenance, "Status", Form::Unary),
    method(Service::Maintenance, "Alarm", Form::Unary),
    method(Service::Maintenance, "Defragment", Form::Unary),
    method(Service::Maintenance, "Hash", Form::Unary),
    method(Service::Maintenance, "HashKV", Form::Unary),
    method(Service::Maintenance, "Snapshot", Form::ServerStream),
    method(Service::Maintenance, "MoveLeader", Form::Unary),
    method(Service::Maintenance, "Downgrade", Form::Unary),
    method(Service::Health, "Check", Form::Unary),
    method(Service::Health, "Watch", Form::ServerStream),
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

/// The counters of all RPCs, in the order of [`METHODS`].
#[derive(Default)]
pub(crate) struct Counters([MethodCounters; METHODS.len()]);

impl Counters {
    pub(crate) fn started(&self, method: usize) {
        self.0[method].started.fetch_add(1, Ordering::Relaxed);
    }

    /// A code that gRPC does not have counts as Unknown.
    pub(crate) fn handled(&self, method: usize, code: usize) {
        let code = if code < CODES.len() { code } else { 2 };
        self.0[method].handled[code].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static Method, &MethodCounters)> {
        METHODS.iter().zip(&self.0)
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
        for path in ["", "/", "/etcdserverpb.KV", "/etcdserverpb.KV/", "/etcdserverpb.Watch/Watch", "/health"]
        {
            assert_eq!(find(path), None, "{path}");
        }
    }

    #[test]
    fn a_strange_code_counts_as_unknown() {
        let counters = Counters::default();
        counters.handled(0, 99);
        counters.handled(0, 2);
        assert_eq!(counters.0[0].handled[2].load(Ordering::Relaxed), 2);
    }
}
