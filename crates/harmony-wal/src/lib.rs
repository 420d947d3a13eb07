//! A segmented, CRC-checked write-ahead log with group commit that tells a torn tail from corruption.

mod cache;
mod dump;
mod fetch;
mod frame;
mod index;
mod os;
mod pending;
mod preallocate;
mod reader;
mod record;
mod recovery;
mod release;
mod segment;
mod tail;
mod wal;
mod writer;

pub use harmony_types::config::WalConfig;
pub use harmony_types::{Wal, WalError, WalOffset, WalRecord};

pub use dump::{DumpOptions, VerifyReport, dump, verify};
pub use os::OsFileSystem;
pub use recovery::{Recovery, TornTail};
pub use wal::FileWal;
