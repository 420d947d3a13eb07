//! Hashes that members compare: etcd's HashKV over the history, and one over everything.

mod crc;

use harmony_types::{KeyValue, Refusal, Revision, StorageError};
use prost::Message as _;

use super::At;
use crate::canonical;
use crate::tree::record::{EventRef, Replaced, VersionRef, WrittenAt};
use crate::tree::{NEXT, Table};
use crate::view::{Reads, View};

/// What [`crate::UnifiedStorage::hash_kv`] answers. Two members hold the same history up to `hash_revision` when all three
/// agree; with different compact revisions nothing can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// CRC-32C over the history.
    pub hash: u32,
    /// The compact revision; -1 when nothing was compacted, as etcd says it.
    pub compact_revision: i64,
    /// The revision up to which the hash goes.
    pub hash_revision: i64,
}

/// One stored pair of etcd's, hashed on its own.
struct Piece {
    written: WrittenAt,
    hash: Hash,
    /// Still the key's newest version at the hashed revision.
    kept: bool,
}

/// A CRC-32C and the number of bytes under it, so that two can be joined.
#[derive(Clone, Copy)]
struct Hash {
    crc: u32,
    bytes: usize,
}

impl Hash {
    fn of(bytes: &[u8]) -> Self {
        Self { crc: crc32c::crc32c(bytes), bytes: bytes.len() }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.bytes += bytes.len();
    }

    fn join(&mut self, next: Self) {
        self.crc = crc::join(self.crc, next.crc, next.bytes);
        self.bytes += next.bytes;
    }
}

/// etcd's HashKV (API, section 11) at `revision`, 0 or less for the newest.
///
/// etcd hashes its table of revisions in order. Here the versions up to the compact revision C stand in `latest` and in the
/// replaced records of the log, not in order: each is hashed on its own, and the hashes are joined in revision order.
///
/// Which versions up to C count: if any key exists at `revision`, those that are still the newest of their key then; else
/// all that compaction left. Tombstones up to C never do.
///
/// # Errors
/// [`Refusal::Compacted`] and [`Refusal::FutureRevision`] as the inner error; else what reading reports.
pub(crate) fn hash_kv(view: &View, revision: i64) -> Result<Result<HashKv, Refusal>, StorageError> {
    let progress = view.progress();
    let revision = match At::requested(revision, progress) {
        Ok(At::Newest) => progress.revision,
        Ok(At::Revision(revision)) => revision,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let mut scan = Scan { compact: progress.compact, revision, base: Vec::new(), any_live: false };
    view.tree.scan(Table::Latest, canonical::EVERYTHING, &mut |key, row| {
        scan.newest(key, &VersionRef::decode_latest(key, row)?);
        Ok(NEXT)
    })?;
    let mut history = Hash::of(b"");
    let mut pair = Vec::new();
    canonical::log_from(view, progress.compact.next(), &mut |event| {
        scan.replaced(&event);
        if event.version.written.revision <= revision {
            etcd_pair(event.key, &event.version, &mut pair);
            history.update(&pair);
        }
        Ok(NEXT)
    })?;
    let mut hash = Hash::of(b"key");
    scan.base.sort_by_key(|piece| piece.written);
    for piece in scan.base.iter().filter(|piece| piece.kept || !scan.any_live) {
        hash.join(piece.hash);
    }
    hash.join(history);
    Ok(Ok(HashKv {
        hash: hash.crc,
        compact_revision: if progress.compact.0 == 0 { -1 } else { progress.compact.as_i64() },
        hash_revision: revision.as_i64(),
    }))
}

/// Collects the versions up to the compact revision that compaction leaves.
struct Scan {
    compact: Revision,
    revision: Revision,
    base: Vec<Piece>,
    any_live: bool,
}

impl Scan {
    fn newest(&mut self, key: &[u8], version: &VersionRef<'_>) {
        if !version.live {
            return;
        }
        self.any_live |= version.written.revision <= self.revision;
        self.take(key, version, true);
    }

    fn replaced(&mut self, event: &EventRef<'_>) {
        let Replaced::Here(version) = &event.replaced else { return };
        if !version.live {
            return;
        }
        let kept = self.revision < event.version.written.revision;
        self.any_live |= kept && version.written.revision <= self.revision;
        self.take(event.key, version, kept);
    }

    fn take(&mut self, key: &[u8], version: &VersionRef<'_>, kept: bool) {
        if version.written.revision <= self.compact {
            let mut pair = Vec::new();
            etcd_pair(key, version, &mut pair);
            self.base.push(Piece { written: version.written, hash: Hash::of(&pair), kept });
        }
    }
}

/// The bytes that etcd stores for a version, key and value one after the other: revision, `_`, sub (and `t` for a
/// tombstone), then the key value as protobuf (of a tombstone only the key).
fn etcd_pair(key: &[u8], version: &VersionRef<'_>, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&version.written.revision.0.to_be_bytes());
    out.push(b'_');
    out.extend_from_slice(&u64::from(version.written.sub).to_be_bytes());
    let key = bytes::Bytes::copy_from_slice(key);
    let key_value = if version.live {
        version.to_key_value(key, bytes::Bytes::copy_from_slice(version.value))
    } else {
        out.push(b't');
        KeyValue { key, ..KeyValue::default() }
    };
    key_value.encode_raw(out);
}

/// CRC-32C over revisions, members, the rolling hash and every row that all members have in common.
///
/// # Errors
/// What reading reports.
pub(crate) fn hash(view: &View) -> Result<u32, StorageError> {
    let mut hash = Hash::of(&view.progress.revision.0.to_be_bytes());
    hash.update(&view.progress.compact.0.to_be_bytes());
    hash.update(&view.progress.state_hash.0.to_be_bytes());
    hash.update(&crate::tree::meta::encode_membership(&view.settings.membership));
    for table in canonical::TABLES {
        canonical::rows(view, table, None, &mut |key, row| {
            hash.update(&(key.len() as u64).to_be_bytes());
            hash.update(key);
            hash.update(&(row.len() as u64).to_be_bytes());
            hash.update(row);
            Ok(NEXT)
        })?;
    }
    Ok(hash.crc)
}
