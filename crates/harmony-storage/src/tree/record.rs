//! The bytes of a record, in the tree and in a snapshot stream. Frozen: a change needs a new format version.
//!
//! A *body* is one version of one key. Numbers are varints as in protobuf (7 bits a byte, low bits first).
//!
//! | part | bytes | meaning |
//! | --- | --- | --- |
//! | flags | 1 | bit 0: tombstone, all that follows but the revision is left out; other bits 0 |
//! | mod revision | varint | revision of this write |
//! | mod sub | varint | place of this write within its revision |
//! | create revision | varint | revision of the put that created the key |
//! | version | varint | puts since then, from 1 |
//! | lease | varint | lease id as unsigned, 0 for none |
//! | value | the rest | |
//!
//! A row of `latest`, under the key's bytes: a body, then the checksum.
//!
//! A row of `log`, under revision (u64) and sub (u32), both big endian:
//!
//! | part | bytes | meaning |
//! | --- | --- | --- |
//! | replaced | 1 | 0: the key had no version before that anybody can still read; 1: the version before stands here; 2: it stands in the log, under the revision given here (readers know it, this release does not write it) |
//! | key length | varint | |
//! | key | | |
//! | body length | varint | |
//! | body | | the version that this write made |
//! | replaced body | the rest | for 1 a whole body; for 2 mod revision and mod sub as varints; for 0 nothing |
//!
//! then the checksum. The checksum is CRC-32 (IEEE), 4 bytes little endian, over the table's key and all bytes of the row
//! before it, so that a row that wandered to another key is found as well. Every read checks it.

use bytes::Bytes;
use harmony_types::{KeyValue, Revision, StorageError};

use super::Table;

const TOMBSTONE: u8 = 1;
const CRC_BYTES: usize = 4;
const REPLACED_NONE: u8 = 0;
const REPLACED_HERE: u8 = 1;
const REPLACED_IN_LOG: u8 = 2;

/// When a version was written: the store's revision, and the place among that revision's writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WrittenAt {
    pub(crate) revision: Revision,
    pub(crate) sub: u32,
}

/// Bytes of a key of the log table.
pub(crate) const LOG_KEY_BYTES: usize = 12;

impl WrittenAt {
    /// The key in the log table.
    pub(crate) fn log_key(self) -> [u8; LOG_KEY_BYTES] {
        let mut key = [0; LOG_KEY_BYTES];
        key[..8].copy_from_slice(&self.revision.0.to_be_bytes());
        key[8..].copy_from_slice(&self.sub.to_be_bytes());
        key
    }

    /// Reads a key of the log table; `None` unless it is 12 bytes.
    fn parse(key: &[u8]) -> Option<Self> {
        let key: &[u8; LOG_KEY_BYTES] = key.try_into().ok()?;
        let (revision, sub) = key.split_first_chunk::<8>()?;
        Some(Self {
            revision: Revision(u64::from_be_bytes(*revision)),
            sub: u32::from_be_bytes(sub.try_into().ok()?),
        })
    }
}

/// One version of a key, without the key; `V` is how it holds the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version<V> {
    /// When it was written.
    pub(crate) written: WrittenAt,
    /// False: this write deleted the key, and the rest is zero and empty.
    pub(crate) live: bool,
    /// Revision of the creating put.
    pub(crate) create: Revision,
    /// Puts since creation.
    pub(crate) version: u64,
    /// Lease, 0 for none.
    pub(crate) lease: i64,
    /// The value.
    pub(crate) value: V,
}

/// A version whose value is borrowed from a page.
pub(crate) type VersionRef<'a> = Version<&'a [u8]>;
/// A version that stands on its own.
pub(crate) type VersionBuf = Version<Bytes>;

impl<V: AsRef<[u8]>> Version<V> {
    /// The same version with its value held in another way.
    pub(crate) fn with_value<W>(&self, value: W) -> Version<W> {
        Version {
            written: self.written,
            live: self.live,
            create: self.create,
            version: self.version,
            lease: self.lease,
            value,
        }
    }

    /// The same version, borrowing its value.
    pub(crate) fn borrowed(&self) -> VersionRef<'_> {
        self.with_value(self.value.as_ref())
    }

    /// The same version with a copy of its value.
    pub(crate) fn to_buf(&self) -> VersionBuf {
        self.with_value(Bytes::copy_from_slice(self.value.as_ref()))
    }

    /// The API's form.
    pub(crate) fn to_key_value(&self, key: Bytes, value: Bytes) -> KeyValue {
        KeyValue {
            key,
            create_revision: self.create.as_i64(),
            mod_revision: self.written.revision.as_i64(),
            version: i64::try_from(self.version).expect("versions count revisions, which stay below 2^63"),
            value,
            lease: self.lease,
        }
    }

    /// Appends the body.
    pub(crate) fn encode_body(&self, out: &mut Vec<u8>) {
        out.push(if self.live { 0 } else { TOMBSTONE });
        put_written(self.written, out);
        if self.live {
            put_varint(self.create.0, out);
            put_varint(self.version, out);
            put_varint(self.lease.cast_unsigned(), out);
            out.extend_from_slice(self.value.as_ref());
        }
    }

    /// Writes the row of `latest` for this version into `out`, which is emptied first.
    pub(crate) fn encode_latest(&self, key: &[u8], out: &mut Vec<u8>) {
        out.clear();
        self.encode_body(out);
        put_crc(key, out);
    }
}

impl VersionBuf {
    /// The record of a delete.
    pub(crate) const fn tombstone(written: WrittenAt) -> Self {
        Self { written, live: false, create: Revision(0), version: 0, lease: 0, value: Bytes::new() }
    }
}

impl<'a> VersionRef<'a> {
    /// Reads a row of `latest`.
    ///
    /// # Errors
    /// [`StorageError::CrcMismatch`]; [`StorageError::CorruptRecord`] for a form that this release does not know.
    pub(crate) fn decode_latest(key: &[u8], row: &'a [u8]) -> Result<Self, StorageError> {
        Ok(Self::decode_latest_with_body(key, row)?.0)
    }

    /// The same, and the body.
    ///
    /// # Errors
    /// As [`Version::decode_latest`].
    pub(crate) fn decode_latest_with_body(
        key: &[u8],
        row: &'a [u8],
    ) -> Result<(Self, &'a [u8]), StorageError> {
        let body = check_crc(Table::Latest, key, row)?;
        let version = Self::decode_body(body)
            .ok_or_else(|| corrupt(Table::Latest, key, "the record makes no sense"))?;
        Ok((version, body))
    }

    /// Reads a body; `None` for a form that this release does not know.
    pub(crate) fn decode_body(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let live = match reader.byte()? {
            0 => true,
            TOMBSTONE => false,
            _ => return None,
        };
        let written = reader.written()?;
        if !live {
            let tombstone =
                Version { written, live, create: Revision(0), version: 0, lease: 0, value: reader.0 };
            return reader.0.is_empty().then_some(tombstone);
        }
        let create = Revision(reader.varint()?);
        let version = reader.varint()?;
        let lease = reader.varint()?.cast_signed();
        Some(Version { written, live, create, version, lease, value: reader.0 })
    }
}

/// What an event knows of the version before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replaced<T> {
    /// There was none that anybody can still read.
    None,
    /// This one.
    Here(T),
    /// The one that the log holds here.
    InLog(WrittenAt),
}

/// A row of `log`: one write of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventRef<'a> {
    /// The key.
    pub(crate) key: &'a [u8],
    /// What the write made of it.
    pub(crate) version: VersionRef<'a>,
    /// What it was before.
    pub(crate) replaced: Replaced<VersionRef<'a>>,
}

impl<'a> EventRef<'a> {
    /// Writes the row into `out`, which is emptied first.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        out.push(match self.replaced {
            Replaced::None => REPLACED_NONE,
            Replaced::Here(_) => REPLACED_HERE,
            Replaced::InLog(_) => REPLACED_IN_LOG,
        });
        put_varint(self.key.len() as u64, out);
        out.extend_from_slice(self.key);
        let body_bytes = body_bytes(&self.version);
        put_varint(body_bytes as u64, out);
        let body_start = out.len();
        self.version.encode_body(out);
        debug_assert_eq!(out.len() - body_start, body_bytes);
        match &self.replaced {
            Replaced::None => {}
            Replaced::Here(version) => version.encode_body(out),
            Replaced::InLog(written) => put_written(*written, out),
        }
        put_crc(&self.version.written.log_key(), out);
    }

    /// Reads a row of `log`.
    ///
    /// # Errors
    /// [`StorageError::CrcMismatch`]; [`StorageError::CorruptRecord`] for a form that this release does not know.
    pub(crate) fn decode(log_key: &[u8], row: &'a [u8]) -> Result<Self, StorageError> {
        let row = check_crc(Table::Log, log_key, row)?;
        Self::decode_checked(row)
            .filter(|event| WrittenAt::parse(log_key) == Some(event.version.written))
            .ok_or_else(|| corrupt(Table::Log, log_key, "the record makes no sense"))
    }

    fn decode_checked(row: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(row);
        let replaced = reader.byte()?;
        let key = reader.bytes()?;
        let version = Version::decode_body(reader.bytes()?)?;
        let replaced = match replaced {
            REPLACED_NONE if reader.0.is_empty() => Replaced::None,
            REPLACED_HERE => Replaced::Here(Version::decode_body(reader.0)?),
            REPLACED_IN_LOG => Replaced::InLog(reader.written().filter(|_| reader.0.is_empty())?),
            _ => return None,
        };
        Some(Self { key, version, replaced })
    }
}

/// Takes parts off the front; `None` when they are not whole.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next number.
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && 1 < bits {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// When a version was written.
    pub(crate) fn written(&mut self) -> Option<WrittenAt> {
        Some(WrittenAt { revision: Revision(self.varint()?), sub: u32::try_from(self.varint()?).ok()? })
    }

    /// The next bytes, which their length stands before.
    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
}

/// Appends a number.
pub(crate) fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    while 0x7f < number {
        out.push(0x80 | number.to_le_bytes()[0]);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Appends when a version was written.
pub(crate) fn put_written(written: WrittenAt, out: &mut Vec<u8>) {
    put_varint(written.revision.0, out);
    put_varint(u64::from(written.sub), out);
}

/// Bytes that a number takes as a varint: one for each 7 bits, at least one.
fn varint_bytes(number: u64) -> usize {
    (number | 1).ilog2() as usize / 7 + 1
}

fn body_bytes(version: &VersionRef<'_>) -> usize {
    let written = varint_bytes(version.written.revision.0) + varint_bytes(u64::from(version.written.sub));
    if !version.live {
        return 1 + written;
    }
    1 + written
        + varint_bytes(version.create.0)
        + varint_bytes(version.version)
        + varint_bytes(version.lease.cast_unsigned())
        + version.value.len()
}

fn crc_of(key: &[u8], row: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(row);
    hasher.finalize()
}

/// Appends the checksum over `key` and `row` to `row`.
pub(crate) fn put_crc(key: &[u8], row: &mut Vec<u8>) {
    let crc = crc_of(key, row);
    row.extend_from_slice(&crc.to_le_bytes());
}

/// The row without its checksum, which is right.
///
/// # Errors
/// [`StorageError::CrcMismatch`], with table and key.
pub(crate) fn check_crc<'a>(table: Table, key: &[u8], row: &'a [u8]) -> Result<&'a [u8], StorageError> {
    let Some((body, crc)) = row.split_last_chunk::<CRC_BYTES>() else {
        return Err(corrupt(table, key, "the record is shorter than its checksum"));
    };
    let expected = crc_of(key, body);
    let found = u32::from_le_bytes(*crc);
    if expected != found {
        return Err(StorageError::CrcMismatch { place: place(table, key), expected, found });
    }
    Ok(body)
}

/// A [`StorageError::CorruptRecord`] that names table and key.
pub(crate) fn corrupt(table: Table, key: &[u8], reason: &str) -> StorageError {
    StorageError::CorruptRecord { place: place(table, key), reason: reason.to_owned() }
}

fn place(table: Table, key: &[u8]) -> String {
    match table {
        Table::Latest => format!("table latest, key \"{}\"", key.escape_ascii()),
        Table::State => format!("table state, row \"{}\"", key.escape_ascii()),
        Table::Log => match WrittenAt::parse(key) {
            Some(written) => format!("table log, revision {} sub {}", written.revision, written.sub),
            None => format!("table log, key \"{}\"", key.escape_ascii()),
        },
    }
}

#[cfg(test)]
mod tests;
