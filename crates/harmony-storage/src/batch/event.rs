//! A write in memory, in one piece as small as it can be: how many fit decides how many writes share one page of the tree
//! when they are folded.
//!
//! | part | bytes | meaning |
//! | --- | --- | --- |
//! | key length | varint | |
//! | key | | |
//! | replaced | varint | 0: the key had no version before that anybody can still read; 1: a tombstone; else bytes of its value, and 2 |
//! | replaced when | varints | for all but 0: revision and sub |
//! | body | the rest | the version that the write made, as [`crate::tree::record`] has it |
//!
//! The value of the version before is not held: who needs it finds it where the write found it.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;
use harmony_types::StorageError;

use crate::tree::Table;
use crate::tree::record::{
    EventRef, Reader, Replaced, VersionBuf, VersionRef, WrittenAt, corrupt, put_varint, put_written,
};
use crate::view::{ReadVersion, Reads as _, View};

/// Memory that an event takes besides its bytes, about: the counts of its owners and the rounding up of the allocator, its
/// place in the order of writes and that among the keys.
pub(super) const OVERHEAD_BYTES: usize = 96;

const REPLACED_NONE: u64 = 0;
const REPLACED_TOMBSTONE: u64 = 1;
const REPLACED_LIVE: u64 = 2;

/// See the module. Copies share the bytes.
#[derive(Clone)]
pub(crate) struct Event(Arc<[u8]>);

/// What is known of the version that a write replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stub {
    /// When it was written.
    pub(crate) written: WrittenAt,
    /// Bytes of its value; `None` for a tombstone.
    pub(crate) value_bytes: Option<usize>,
}

impl Stub {
    fn of(version: &VersionBuf) -> Self {
        Self { written: version.written, value_bytes: version.live.then_some(version.value.len()) }
    }

    /// Hands the version to `read`: the newest one of `key` in `tree`.
    ///
    /// # Errors
    /// Those of `read`; what reading reports; [`StorageError::CorruptRecord`] when the tree has another one.
    pub(crate) fn version_in(
        self,
        tree: &View,
        key: &[u8],
        read: ReadVersion<'_>,
    ) -> Result<(), StorageError> {
        if self.value_bytes.is_none() {
            // Compaction may have dropped it.
            return read(VersionBuf::tombstone(self.written).borrowed());
        }
        let mut found = false;
        tree.newest(key, &mut |version| {
            found = version.written == self.written;
            if found { read(version) } else { Ok(()) }
        })?;
        if found { Ok(()) } else { Err(self.missing(key)) }
    }

    /// The error for a tree that does not have it.
    pub(super) fn missing(self, key: &[u8]) -> StorageError {
        let WrittenAt { revision, sub } = self.written;
        corrupt(Table::Latest, key, &format!("its version of revision {revision} sub {sub} is missing"))
    }
}

impl Event {
    /// A write of `key`. `scratch` is overwritten.
    pub(super) fn new(
        key: &[u8],
        version: &VersionBuf,
        replaced: Option<&VersionBuf>,
        scratch: &mut Vec<u8>,
    ) -> Self {
        scratch.clear();
        put_varint(key.len() as u64, scratch);
        scratch.extend_from_slice(key);
        let stub = replaced.map(Stub::of);
        let replaced = match stub {
            None => REPLACED_NONE,
            Some(Stub { value_bytes: None, .. }) => REPLACED_TOMBSTONE,
            Some(Stub { value_bytes: Some(bytes), .. }) => REPLACED_LIVE + bytes as u64,
        };
        put_varint(replaced, scratch);
        if let Some(stub) = stub {
            put_written(stub.written, scratch);
        }
        version.encode_body(scratch);
        Self(scratch[..].into())
    }

    /// Bytes that it holds.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The key.
    pub(crate) fn key(&self) -> &[u8] {
        let mut reader = Reader(&self.0);
        reader.bytes().expect("written by `new`")
    }

    /// What is behind the key.
    fn parts(&self) -> Option<(Option<Stub>, &[u8])> {
        let mut reader = Reader(&self.0);
        reader.bytes()?;
        let stub = match reader.varint()? {
            REPLACED_NONE => None,
            replaced => {
                let value_bytes = replaced.checked_sub(REPLACED_LIVE).map(usize::try_from);
                Some(Stub { written: reader.written()?, value_bytes: value_bytes.transpose().ok()? })
            }
        };
        Some((stub, reader.0))
    }

    /// What is known of the version before; `None` when nobody can still read one.
    pub(crate) fn replaced(&self) -> Option<Stub> {
        self.parts().expect("written by `new`").0
    }

    /// The body of the version that it made.
    pub(super) fn body(&self) -> &[u8] {
        self.parts().expect("written by `new`").1
    }

    /// The version that it made.
    pub(crate) fn version(&self) -> VersionRef<'_> {
        VersionRef::decode_body(self.body()).expect("written by `new`")
    }

    /// The event with what it replaced.
    pub(super) fn with<'a>(&'a self, replaced: Replaced<VersionRef<'a>>) -> EventRef<'a> {
        EventRef { key: self.key(), version: self.version(), replaced }
    }

    /// The version that it made, on its own: its value shares the event's bytes.
    pub(crate) fn to_buf(&self) -> VersionBuf {
        let version = self.version();
        version.with_value(self.share().slice_ref(version.value))
    }

    /// The key, and the version that it made: both share the event's bytes.
    pub(crate) fn to_bufs(&self) -> (Bytes, VersionBuf) {
        let (bytes, version) = (self.share(), self.version());
        (bytes.slice_ref(self.key()), version.with_value(bytes.slice_ref(version.value)))
    }

    fn share(&self) -> Bytes {
        Bytes::from_owner(Arc::clone(&self.0))
    }
}

/// An event as the owner of its key.
#[derive(Clone)]
pub(super) struct Key(pub(super) Event);

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.0.key()
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key().cmp(other.0.key())
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

#[cfg(test)]
mod tests {
    use harmony_types::Revision;

    use super::*;

    fn at(revision: u64, sub: u32) -> WrittenAt {
        WrittenAt { revision: Revision(revision), sub }
    }

    fn put(written: WrittenAt, value: &'static [u8]) -> VersionBuf {
        VersionBuf {
            live: true,
            create: Revision(3),
            version: 2,
            lease: 7,
            value: value.into(),
            ..VersionBuf::tombstone(written)
        }
    }

    #[test]
    fn an_event_says_all_that_it_was_made_of() {
        let long = vec![b'k'; 300];
        let scratch = &mut b"old".to_vec();
        let versions = [put(at(9, 300), b"value"), put(at(9, 0), b""), VersionBuf::tombstone(at(1 << 40, 1))];
        let before = [
            None,
            Some(put(at(8, 1), b"before")),
            Some(put(at(8, 1), b"")),
            Some(VersionBuf::tombstone(at(8, 2))),
        ];
        for key in [&b"k"[..], b"", &long] {
            for version in &versions {
                for replaced in &before {
                    let event = Event::new(key, version, replaced.as_ref(), scratch);
                    assert_eq!((event.key(), &event.to_buf()), (key, version));
                    assert_eq!(event.to_bufs(), (Bytes::copy_from_slice(key), version.clone()));
                    assert_eq!(event.replaced(), replaced.as_ref().map(Stub::of));
                }
            }
        }
        let of = |replaced: &Option<VersionBuf>| replaced.as_ref().map(Stub::of).map(|stub| stub.value_bytes);
        assert_eq!(before.each_ref().map(of), [None, Some(Some(6)), Some(Some(0)), Some(None)]);
    }

    #[test]
    fn what_an_event_hands_out_is_no_copy() {
        let event = Event::new(b"key", &put(at(1, 0), b"value"), None, &mut Vec::new());
        let (key, version) = event.to_bufs();
        assert!(
            std::ptr::eq(event.key(), &key[..]) && std::ptr::eq(event.version().value, &version.value[..])
        );
    }

    #[test]
    fn events_are_ordered_by_their_keys_alone() {
        let key =
            |key: &[u8], revision| Key(Event::new(key, &put(at(revision, 0), b"v"), None, &mut Vec::new()));
        assert!(
            key(b"a", 2) < key(b"b", 1)
                && key(b"b", 1) < key(&[b'b'; 200], 1)
                && key(&[b'b'; 200], 1) < key(b"c", 1)
        );
        assert!(key(b"a", 1) == key(b"a", 2));
    }
}
