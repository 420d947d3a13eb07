//! MVCC key-value storage: a write-ahead log and an on-disk B-tree behind [`harmony_types::Storage`].
//!
//! What is durable when:
//! - [`save`](harmony_types::Storage::save) and [`sync`](harmony_types::Storage::sync) put entries on disk, in the log;
//! - [`apply`](harmony_types::Storage::apply) makes committed entries visible to readers, all of a call at once;
//! - [`checkpoint`](harmony_types::Storage::checkpoint) puts what was applied on disk, together with the index of the last
//!   entry applied. A crash goes back to the last checkpoint, and opening replays the log from there. The log is released
//!   only up to there.
//!
//! Reads never wait: they look at a view, the whole state at one applied index. Every record carries a checksum that is
//! compared whenever the record is read: a damaged byte is an error, never an answer.
//!
//! The data model is etcd's: one revision for each command that changes something, the history kept until it is compacted.
//!
//! Reading order: `unified` (the type that joins both halves) and `recovery`; `apply`, `batch` and `mvcc` (what commands
//! do); `view` and `reads`; `tree` with its record format; `snapshot` and `canonical`.

mod apply;
mod batch;
mod canonical;
mod mvcc;
mod reads;
mod recovery;
mod snapshot;
mod tree;
mod unified;
mod view;

pub use harmony_types::StorageError;
pub use harmony_types::config::StorageConfig;
pub use mvcc::hash::HashKv;
pub use reads::RangeResult;
pub use unified::UnifiedStorage;
