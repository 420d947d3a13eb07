//! The API over the wire: a served member and tonic's own client.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod auth;
mod auth_table;
mod auto_compaction;
#[path = "../certificates/mod.rs"]
mod certificates;
mod election;
mod gateway;
mod http;
mod kv;
mod lease;
mod maintenance;
mod members;
mod metrics;
mod peer_tls;
mod range_stream;
mod served;
mod txn;
mod watch;
