//! A range in pieces: etcd's RangeStream (API, section 3), and lists too long to hold.

use std::ops::ControlFlow;

use bytes::Bytes;
use harmony_types::txn::{Range, SortOrder, SortTarget};
use harmony_types::{KeyRange, KeyValue, StorageError};

use super::{At, history, range};
use crate::tree::record::VersionRef;
use crate::tree::{NEXT, STOP};
use crate::view::Reads;

/// How far a range was answered. Each key is looked at once, so the count needs no second pass.
#[derive(Debug)]
pub(crate) struct Cursor {
    request: Range,
    at: At,
    /// The first key that was not looked at; `None` behind the end.
    next: Option<Bytes>,
    /// Keys in the range so far.
    pub(crate) count: i64,
    /// Key values still wanted; `None`: all.
    left: Option<u64>,
    /// Whether the limit left some out.
    pub(crate) more: bool,
}

impl Cursor {
    /// At the start of a range; `None` for one that is not answered in the order of its keys.
    pub(crate) fn new(request: Range, at: At) -> Option<Self> {
        let by_key = request.sort_target == SortTarget::Key as i32;
        let descending = request.sort_order == SortOrder::Descend as i32;
        if !by_key || descending {
            return None;
        }
        let left = u64::try_from(request.limit).ok().filter(|limit| *limit != 0);
        Some(Self { next: Some(request.key.clone()), request, at, count: 0, left, more: false })
    }

    /// Whether all keys were looked at.
    pub(crate) fn is_done(&self) -> bool {
        self.next.is_none()
    }

    /// The next key values, of about `bytes_max` bytes of keys and values, at least one. Behind the limit it goes on to the
    /// end, for the count.
    ///
    /// # Errors
    /// What reading reports; the cursor stays where it was.
    pub(crate) fn next_chunk(
        &mut self,
        reads: &dyn Reads,
        bytes_max: usize,
    ) -> Result<Vec<KeyValue>, StorageError> {
        let Some(key) = self.next.clone() else { return Ok(Vec::new()) };
        let mut chunk =
            Chunk { kvs: Vec::new(), bytes: 0, count: self.count, left: self.left, more: self.more };
        let mut next = None;
        let range = KeyRange { key, end: self.request.range_end.clone() };
        history::live_versions(reads, &range, self.at, &mut |key, version| {
            if chunk.take(&self.request, bytes_max, key, &version).is_break() {
                next = Some(Bytes::copy_from_slice(key));
                return Ok(STOP);
            }
            Ok(NEXT)
        })?;
        let Chunk { kvs, count, left, more, .. } = chunk;
        (self.next, self.count, self.left, self.more) = (next, count, left, more);
        Ok(kvs)
    }
}

/// What is collected for one answer.
struct Chunk {
    kvs: Vec<KeyValue>,
    bytes: usize,
    count: i64,
    left: Option<u64>,
    more: bool,
}

impl Chunk {
    /// Takes the next key; stops before it when there is no room.
    fn take(
        &mut self,
        request: &Range,
        bytes_max: usize,
        key: &[u8],
        version: &VersionRef<'_>,
    ) -> ControlFlow<()> {
        let wanted = !request.count_only && !self.more && range::passes(request, version);
        if wanted && self.left == Some(0) {
            self.more = true;
        } else if wanted {
            let value = if request.keys_only { &[][..] } else { version.value };
            let bytes = key.len() + value.len();
            if !self.kvs.is_empty() && bytes_max < self.bytes + bytes {
                return STOP;
            }
            self.bytes += bytes;
            self.left = self.left.map(|left| left - 1);
            let value = Bytes::copy_from_slice(value);
            self.kvs.push(version.to_key_value(Bytes::copy_from_slice(key), value));
        }
        self.count += 1;
        NEXT
    }
}
