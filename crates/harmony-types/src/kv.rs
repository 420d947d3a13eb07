//! Keys, values, ranges of keys, events.

use std::ops::Bound;

use bytes::Bytes;

/// A key with its value and history numbers, in the field numbers of etcd's `mvccpb.KeyValue`: the stored and hashed
/// form.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct KeyValue {
    /// The key; never empty.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Revision of the put that created it (anew, after a delete).
    #[prost(int64, tag = "2")]
    pub create_revision: i64,
    /// Revision of its last put or delete.
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    /// Puts since creation, from 1; 0 in the record of a delete.
    #[prost(int64, tag = "4")]
    pub version: i64,
    /// The value.
    #[prost(bytes = "bytes", tag = "5")]
    pub value: Bytes,
    /// Lease attached, 0 for none.
    #[prost(int64, tag = "6")]
    pub lease: i64,
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum EventType {
    /// It was written.
    Put = 0,
    /// It was deleted.
    Delete = 1,
}

/// One change of one key, in the field numbers of etcd's `mvccpb.Event`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Event {
    /// Put or delete.
    #[prost(enumeration = "EventType", tag = "1")]
    pub event_type: i32,
    /// The new state; a delete carries key and mod revision only.
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
    /// The state before, if there was one and it was asked for.
    #[prost(message, optional, tag = "3")]
    pub prev_kv: Option<KeyValue>,
}

/// A set of neighbouring keys, as etcd's requests name it.
///
/// `end` empty: the single key. `end` one zero byte: every key from `key` on; with `key` one zero byte, too: all keys.
/// Else `key <= k < end`; nothing when `end <= key`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct KeyRange {
    /// First key.
    pub key: Bytes,
    /// See the type.
    pub end: Bytes,
}

impl KeyRange {
    /// The single key.
    pub fn single(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), end: Bytes::new() }
    }

    /// All keys.
    #[must_use]
    pub fn all() -> Self {
        Self { key: Bytes::from_static(&[0]), end: Bytes::from_static(&[0]) }
    }

    /// All keys that start with `prefix`; all keys for the empty prefix.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        if prefix.is_empty() {
            return Self::all();
        }
        Self { key: Bytes::copy_from_slice(prefix), end: Self::prefix_end(prefix) }
    }

    /// The `end` of a prefix: the prefix with its last byte below 0xff plus one, or one zero byte when there is none.
    #[must_use]
    pub fn prefix_end(prefix: &[u8]) -> Bytes {
        match prefix.iter().rposition(|byte| *byte < 0xff) {
            Some(last) => {
                let mut end = prefix[..=last].to_vec();
                end[last] += 1;
                end.into()
            }
            None => Bytes::from_static(&[0]),
        }
    }

    /// True when it names one key.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.end.is_empty()
    }

    /// True when it can hold no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.end.is_empty() && *self.end != [0] && self.end <= self.key
    }

    /// Whether a key lies in it.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        if self.is_single() {
            return key == &self.key[..];
        }
        &self.key[..] <= key && (*self.end == [0] || key < &self.end[..])
    }

    /// The bounds for an ordered map's range call. Only for a range that is not empty: an ordered map panics when the
    /// bounds are turned round.
    #[must_use]
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let end = match &self.end[..] {
            [] => Bound::Included(&self.key[..]),
            [0] => Bound::Unbounded,
            end => Bound::Excluded(end),
        };
        (Bound::Included(&self.key[..]), end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(range: &KeyRange, inside: &[&[u8]], outside: &[&[u8]]) {
        for key in inside {
            assert!(range.contains(key), "{key:?} should be in {range:?}");
        }
        for key in outside {
            assert!(!range.contains(key), "{key:?} should not be in {range:?}");
        }
    }

    #[test]
    fn ranges_hold_what_etcd_says() {
        check(&KeyRange::single("a"), &[b"a"], &[b"", b"aa", b"b"]);
        check(&KeyRange::prefix(b"a"), &[b"a", b"a\xff\xff"], &[b"b", b"A"]);
        check(&KeyRange::prefix(b"a\xff"), &[b"a\xff", b"a\xff0"], &[b"b", b"a"]);
        check(&KeyRange::prefix(b"\xff"), &[b"\xff", b"\xff\xff"], &[b"\xfe"]);
        check(&KeyRange::all(), &[b"\0", b"a", b"\xff"], &[]);
        check(&KeyRange { key: "b".into(), end: "d".into() }, &[b"b", b"c"], &[b"a", b"d"]);
        check(&KeyRange { key: "b".into(), end: Bytes::from_static(&[0]) }, &[b"b", b"z"], &[b"a"]);
    }

    #[test]
    fn a_range_turned_round_is_empty() {
        assert!(KeyRange { key: "b".into(), end: "a".into() }.is_empty());
        assert!(KeyRange { key: "b".into(), end: "b".into() }.is_empty());
        assert!(!KeyRange::single("b").is_empty());
        assert!(!KeyRange { key: "b".into(), end: Bytes::from_static(&[0]) }.is_empty());
    }
}
