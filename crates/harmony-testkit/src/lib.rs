//! Clusters under test: in one process on disks that crash, or as real processes behind proxies that cut links.
//!
//! A scenario in ten lines, on real processes:
//!
//! ```no_run
//! use harmony_testkit::{ProcessCluster, ProcessConfig, TestError};
//! use harmony_types::{TestCluster, TestNode};
//!
//! # fn connect(endpoint: &str) -> Result<Box<dyn harmony_testkit::Client>, TestError> { unimplemented!("{endpoint}") }
//! # fn scenario() -> Result<(), TestError> {
//! let mut cluster = ProcessCluster::new(ProcessConfig::new("target/debug/harmony"), connect)?;
//! cluster.start(3)?;
//! let leader = cluster.leader()?;
//! cluster.partition_node(leader);
//! cluster.other(leader).put(b"k", b"v")?; // the other side goes on
//! assert!(cluster.node(leader).ok_or("not running")?.put(b"k", b"lost").is_err());
//! cluster.unpartition_node(leader);
//! cluster.check_agreement()?;
//! # Ok(())
//! # }
//! ```
//!
//! Reading order: [`client`] (what a workload asks of a node), [`proxy`] (links that can be cut), [`cluster`] (the two kinds of
//! cluster), [`ledger`] (a workload that remembers what was acknowledged, and its check), [`agreement`] (all members hold the same),
//! [`wait`] (waiting for a condition), [`history`] (what clients saw, as data), [`check`] (judges of histories), [`simulation`]
//! (whole clusters in one thread, from a seed), [`trace`] (a run as a picture).

pub mod agreement;
pub mod check;
pub mod client;
pub mod cluster;
pub mod history;
pub mod ledger;
pub mod proxy;
pub mod simulation;
pub mod trace;
pub mod wait;

pub use client::{Client, NodeStatus};
pub use cluster::in_process::{InProcessCluster, InProcessNode};
pub use cluster::processes::{ProcessCluster, ProcessConfig, ProcessNode, Reserved};
pub use harmony_types::testing::TestError;
pub use ledger::Ledger;
pub use proxy::Storm;
