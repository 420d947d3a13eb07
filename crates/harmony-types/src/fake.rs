//! Fakes for tests of every layer: a disk that crashes, a clock that obeys, chance that repeats.
//!
//! Behind the feature `fake`, for `[dev-dependencies]` and for the simulator; no program ships it.
//!
//! - [`fs`]: a [`FileSystem`](crate::fs::FileSystem) in memory that knows what is synced and what is not, gives the
//!   images a power loss may leave behind, and fails the call that you name.
//! - [`clock`]: a [`Clock`](crate::clock::Clock) that moves only when it is told to.
//! - [`seed`]: seeds that print themselves when a test fails, and numbers drawn from them.
//! - [`script`]: golden scripts: commands, `---`, the trace they must give.
//!
//! A crash test in a few lines:
//! ```
//! use std::path::Path;
//!
//! use harmony_types::fake::fs::{Crash, MemoryFileSystem};
//! use harmony_types::fs::{FileSystem, OpenMode};
//!
//! let disk = MemoryFileSystem::with_dir("/data");
//! let file = disk.open(Path::new("/data/log"), OpenMode::CreateNew)?;
//! disk.sync_dir(Path::new("/data"))?;
//! file.write_at(b"kept", 0)?;
//! file.sync_data()?;
//! file.write_at(b"lost", 4)?;
//!
//! let after = disk.crash_image(Crash::LoseUnsynced);
//! assert_eq!(after.read_file("/data/log").as_deref(), Some(&b"kept"[..]));
//! # Ok::<(), std::io::Error>(())
//! ```

pub mod clock;
pub mod fs;
pub mod script;
pub mod seed;
