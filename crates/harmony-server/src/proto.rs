//! etcd's wire messages and services, generated from `proto/` by `cargo xtask proto`; never edited by hand. Keys, values
//! and events are `harmony-types`' own messages (same field numbers), so they pass through without a conversion.

#![allow(missing_docs, clippy::pedantic, clippy::all, clippy::missing_errors_doc)]

/// Users, roles, permissions.
pub mod authpb {
    include!("proto/authpb.rs");
}

/// The v3 API.
pub mod etcdserverpb {
    include!("proto/etcdserverpb.rs");
}

/// gRPC's own health service.
pub mod health {
    include!("proto/grpc.health.v1.rs");
}

/// Elections.
pub mod v3electionpb {
    include!("proto/v3electionpb.rs");
}

/// Locks.
pub mod v3lockpb {
    include!("proto/v3lockpb.rs");
}
