//! A rolling hash over what each entry did to the state, so that members can be compared at every applied index.
//!
//! For each entry it takes in, in the order in which they happened:
//!
//! | step | number | then, each as u64, little endian | then |
//! | --- | --- | --- | --- |
//! | a write of a key | 1 | live, mod revision, sub, create revision, version, lease, bytes of key, bytes of value | key, value |
//! | a change of a row of `state` | 2 | whether it was set, bytes of name, bytes of row | name, row |
//! | a change of the members | 3 | bytes of what the entry says of them | that: see below |
//! | the end of the entry | 4 | index, term, revision, compact revision, refusal (0: none) | |
//!
//! So it is a hash of what was made of the entry, not of its bytes: a member that takes the same command for something
//! else, or refuses what others accept, differs from that entry on, and stays different.
//!
//! The members are the exception: of them it takes in what the entry says, the data of a membership change or the encoded
//! [`PublishMember`], and not the row that comes of it. Whoever joins by replaying the log begins with the members that it was
//! told, later changes included; its row is another one until it has caught up, and its hash must not be.
//!
//! The hash is a CRC-32C that goes on from its last value. For given bytes it is a bijection of the value before, so a
//! difference never heals by itself. It is meant for bugs and bad luck, not for somebody who chooses the bytes; and a put of
//! 256 bytes must not notice it, which is why it is the one checksum that processors compute themselves.

use harmony_types::command::PublishMember;
use harmony_types::{Entry, Revision};
use prost::Message as _;

use crate::tree::record::VersionBuf;

const WRITE: u64 = 1;
const ROW: u64 = 2;
const MEMBERS: u64 = 3;
const END: u64 = 4;

/// The value at one applied index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateHash(pub(crate) u32);

impl StateHash {
    /// Of a state machine that applied nothing.
    pub(crate) const EMPTY: Self = Self(0);

    fn take(&mut self, bytes: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, bytes);
    }

    fn take_numbers<const N: usize>(&mut self, numbers: [u64; N]) {
        let bytes = numbers.map(u64::to_le_bytes);
        self.take(bytes.as_flattened());
    }

    /// A key was written.
    pub(crate) fn write(&mut self, key: &[u8], version: &VersionBuf) {
        self.take_numbers([
            WRITE,
            u64::from(version.live),
            version.written.revision.0,
            u64::from(version.written.sub),
            version.create.0,
            version.version,
            version.lease.cast_unsigned(),
            key.len() as u64,
            version.value.len() as u64,
        ]);
        self.take(key);
        self.take(&version.value);
    }

    /// A row of `state` was set, or removed.
    pub(crate) fn row(&mut self, name: &[u8], row: Option<&[u8]>) {
        let bytes = row.unwrap_or_default();
        self.take_numbers([ROW, u64::from(row.is_some()), name.len() as u64, bytes.len() as u64]);
        self.take(name);
        self.take(bytes);
    }

    /// A membership change, or nothing when raft found it impossible.
    pub(crate) fn membership_change(&mut self, entry: &Entry) {
        self.members(&entry.data);
    }

    /// A member told its name and addresses; whether it still is one does not count.
    pub(crate) fn published(&mut self, member: &PublishMember) {
        self.members(&member.encode_to_vec());
    }

    fn members(&mut self, said: &[u8]) {
        self.take_numbers([MEMBERS, said.len() as u64]);
        self.take(said);
    }

    /// An entry is through; `refusal` is the number of the refusal that it ended with.
    pub(crate) fn end(&mut self, entry: &Entry, revision: Revision, compact: Revision, refusal: Option<i32>) {
        let refusal = refusal.map_or(0, |number| u64::from(number.cast_unsigned()));
        self.take_numbers([END, entry.index.0, entry.term.0, revision.0, compact.0, refusal]);
    }
}

#[cfg(test)]
mod tests {
    use harmony_types::{EntryType, LogIndex, Term};

    use super::*;
    use crate::tree::record::{Version, WrittenAt};

    fn version() -> VersionBuf {
        let written = WrittenAt { revision: Revision(300), sub: 1 };
        Version { written, live: true, create: Revision(2), version: 5, lease: -1, value: "value".into() }
    }

    fn written(key: &[u8], version: &VersionBuf) -> StateHash {
        let mut hash = StateHash::EMPTY;
        hash.write(key, version);
        hash
    }

    fn entry() -> Entry {
        let (term, index) = (Term(3), LogIndex(9));
        Entry { term, index, entry_type: EntryType::Normal, data: bytes::Bytes::new() }
    }

    /// Members of different releases compare the numbers, so they must not change.
    #[test]
    fn the_hash_of_known_steps_stays() {
        let mut hash = written(b"key", &version());
        assert_eq!(hash, StateHash(GOLDEN[0]));
        hash.row(b"lease/1", Some(b"row"));
        hash.row(b"lease/2", None);
        assert_eq!(hash, StateHash(GOLDEN[1]));
        hash.membership_change(&Entry { data: "change".into(), ..entry() });
        hash.end(&entry(), Revision(300), Revision(2), Some(4));
        assert_eq!(hash, StateHash(GOLDEN[2]));
    }

    const GOLDEN: [u32; 3] = [0xb8d1_b328, 0x1df9_db41, 0x860b_9482];

    #[test]
    fn whatever_a_write_does_counts() {
        let (same, at) = (version(), version().written);
        let hash = written(b"key", &same);
        let other = WrittenAt { revision: Revision(301), ..at };
        let differ = [
            written(b"kez", &same),
            written(b"key", &Version { value: "valuf".into(), ..same.clone() }),
            written(b"keyv", &Version { value: "alue".into(), ..same.clone() }),
            written(b"key", &Version { lease: 1, ..same.clone() }),
            written(b"key", &Version { version: 6, ..same.clone() }),
            written(b"key", &Version { create: Revision(3), ..same.clone() }),
            written(b"key", &Version { written: other, ..same.clone() }),
            written(b"key", &Version { live: false, ..same.clone() }),
        ];
        for (case, other) in differ.into_iter().enumerate() {
            assert_ne!(other, hash, "case {case}");
            // A difference stays, whatever the same steps behind it.
            let (mut left, mut right) = (hash, other);
            for _ in 0..100 {
                left.write(b"next", &same);
                right.write(b"next", &same);
                assert_ne!(left, right, "case {case}");
            }
        }
    }

    #[test]
    fn rows_and_refusals_count() {
        let row = |name: &[u8], row: Option<&[u8]>| {
            let mut hash = StateHash::EMPTY;
            hash.row(name, row);
            hash
        };
        assert_ne!(row(b"lease/1", Some(b"")), row(b"lease/1", None));
        assert_ne!(row(b"lease/1", Some(b"2")), row(b"lease/12", Some(b"")));
        let end = |refusal| {
            let mut hash = StateHash::EMPTY;
            hash.end(&entry(), Revision(300), Revision(2), refusal);
            hash
        };
        assert_ne!(end(None), end(Some(1)));
        assert_ne!(end(Some(2)), end(Some(1)));
    }
}
