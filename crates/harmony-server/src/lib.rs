//! HarmonyDB's server: the etcd v3 API over [`harmony_node`] and [`harmony_storage`], and the `harmony` program.
//!
//! Reading order:
//! 1. [`cli`]: the command line; [`config`]: what an operator can set, checked before anything is touched.
//! 2. [`serve`]: how a server is put together and taken apart; `api`: what each call does.
//! 3. `auth`: who calls, by token, password or certificate.
//! 4. [`proto`]: the wire protocol.
//! 5. `client`: the client that the command line uses.
//!
//! Beneath: `net` (the network thread, HTTP/2 and gRPC), `http` (health, metrics), `shutdown`, `telemetry`.

mod api;
mod auth;
mod backup;
pub mod cli;
mod client;
pub mod config;
mod gateway;
mod http;
mod net;
pub mod proto;
pub mod serve;
mod shutdown;
mod telemetry;
mod version;

// What ships holds no planted bug.
const _: () = assert!(!harmony_types::planted::BUILT_IN, "the feature `planted` is for simulations alone");
