//! The contract of the HarmonyDB stack: every data type, trait, error and limit, defined once.
//!
//! The layers above implement what stands here and do not change it:
//! `harmony-types → harmony-wal → harmony-storage → harmony-node → harmony-testkit → harmony-server`.
//! This crate does no I/O, starts no thread, reads no clock, and knows neither Raft's implementation
//! nor gRPC. Its public surface is frozen in `contract.golden`; `cargo xtask phase-check` compares.
//!
//! Reading order:
//! 1. [`id`], [`log`], [`membership`]: who takes part, and what is replicated.
//! 2. [`wal`], [`storage`], [`application`]: what a log, a storage and a state machine promise.
//! 3. [`raft`], [`transport`]: the node between them.
//! 4. [`revision`], [`kv`], [`history`], [`txn`], [`lease`], [`alarm`], [`quota`], [`command`]: the data model and the
//!    commands that change it.
//! 5. [`auth`]: users and roles, and who may run which command.
//! 6. [`fs`], [`clock`]: how files and time enter, so that a test can replace both.
//! 7. [`config`], [`limits`], [`error`]: bounds and refusals.
//! 8. [`testing`], and with the feature `fake` the `fake` module: a disk that crashes, a clock that obeys. `planted` names the bugs
//!    that a simulator must find, and is hidden.

pub mod alarm;
pub mod application;
pub mod auth;
pub mod clock;
pub mod command;
pub mod config;
pub mod error;
#[cfg(feature = "fake")]
pub mod fake;
pub mod fs;
pub mod history;
pub mod id;
pub mod kv;
pub mod lease;
pub mod limits;
pub mod log;
pub mod membership;
#[doc(hidden)]
pub mod planted;
pub mod quota;
pub mod raft;
pub mod revision;
pub mod storage;
pub mod testing;
pub mod transport;
pub mod txn;
pub mod wal;

pub use alarm::{Alarm, AlarmType, Alarms};
pub use application::Application;
pub use auth::{AuthState, Author};
pub use clock::{Clock, Rng};
pub use command::{Command, CommandKind, Outcome, OutcomeKind, Refusal};
pub use error::{MembershipError, NodeError, RequestError, StorageError, WalError};
pub use fs::{File, FileSystem, OpenMode};
pub use history::{History, HistoryObserver};
pub use id::{ClusterId, LeaseId, NodeId, WatchId};
pub use kv::{Event, EventType, KeyRange, KeyValue};
pub use lease::{Lease, LeaseChange, LeaseObserver, Leases};
pub use log::{Entry, EntryType, HardState, LogIndex, Snapshot, SnapshotData, SnapshotMeta, Term};
pub use membership::{Member, Membership, Role};
pub use raft::{ConfChange, ConfChangeType, Message, MessageType, RaftNode, Ready, Status};
pub use revision::Revision;
pub use storage::{Applied, DiskSpace, Recovered, Storage};
pub use testing::{TestCluster, TestNode};
pub use transport::{PeerMessage, Transport};
pub use txn::{Compare, Txn, TxnOp};
pub use wal::{LogBounds, RecordType, Wal, WalOffset, WalRecord};
