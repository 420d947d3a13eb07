//! Which keys a command means: a key, a range, a prefix, everything from a key on.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use bytes::Bytes;
use clap::Args;
use harmony_types::KeyRange;

/// One key or a range of keys.
#[derive(Args, Debug)]
pub(crate) struct KeyArgs {
    /// The key
    key: OsString,
    /// End of the range, not part of it
    #[arg(conflicts_with_all = ["prefix", "from_key"])]
    range_end: Option<OsString>,
    /// All keys that start with KEY; all keys when it is empty
    #[arg(long, conflicts_with = "from_key")]
    prefix: bool,
    /// All keys from KEY on, in byte order
    #[arg(long)]
    from_key: bool,
}

impl KeyArgs {
    /// As the requests name it.
    pub(super) fn into_range(self) -> KeyRange {
        let key = bytes_of(self.key);
        if self.prefix {
            return KeyRange::prefix(&key);
        }
        if self.from_key {
            // The empty key cannot be named; the first that can is one zero byte.
            let key = if key.is_empty() { vec![0] } else { key };
            return KeyRange { key: key.into(), end: Bytes::from_static(&[0]) };
        }
        KeyRange { key: key.into(), end: self.range_end.map(bytes_of).unwrap_or_default().into() }
    }
}

/// The bytes of an argument, which need not be UTF-8.
pub(super) fn bytes_of(argument: OsString) -> Vec<u8> {
    argument.into_vec()
}
