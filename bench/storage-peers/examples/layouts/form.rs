//! Keys, values, and the forms of a log row.

use std::sync::OnceLock;

use bench_harness::random::Random;

/// What a row of the log holds besides the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// The new version and the one it replaced.
    Both,
    /// Only the one it replaced: an undo log. The new one is found in `latest`, or in the key's next row.
    Undo,
    /// The new version, and where in the log the one it replaced is; as [`Form::Both`] when that is not there any more.
    Pointer,
    /// As [`Form::Both`], but a write that created its key leaves its version out, which is found as in an undo log.
    Created,
}

/// One write.
pub struct Put {
    pub key: u64,
    pub revision: u64,
}

pub type Key = [u8; 32];

pub fn key(number: u64) -> Key {
    let mut key = [b'0'; 32];
    key[..4].copy_from_slice(b"key/");
    let digits = format!("{number:028}");
    key[4..].copy_from_slice(digits.as_bytes());
    key
}

const VALUE_BYTES: usize = 256;

/// The value that was written at a revision.
pub fn value(revision: u64) -> &'static [u8] {
    static POOL: OnceLock<Vec<u8>> = OnceLock::new();
    let pool = POOL.get_or_init(|| {
        let mut random = Random::new(0x5eed);
        (0..1 << 17).flat_map(|_| random.next().to_le_bytes()).collect()
    });
    let place = (Random::new(revision).next() % (pool.len() - VALUE_BYTES) as u64) as usize;
    &pool[place..place + VALUE_BYTES]
}

impl Form {
    pub const ALL: [Self; 4] = [Self::Both, Self::Undo, Self::Pointer, Self::Created];

    pub fn name(self) -> &'static str {
        match self {
            Self::Both => "L4",
            Self::Undo => "L4u",
            Self::Pointer => "L4p",
            Self::Created => "L4c",
        }
    }

    /// Whether the row of a write that created its key holds the new version.
    pub fn keeps_created(self) -> bool {
        matches!(self, Self::Both | Self::Pointer)
    }
}

/// A version: when it was written, and the value.
#[derive(Clone, Copy)]
pub struct Version<'a> {
    pub revision: u64,
    pub value: &'a [u8],
}

/// What a row of the log tells of the version before.
#[derive(Clone, Copy)]
pub enum Replaced<'a> {
    None,
    Here(Version<'a>),
    At(u64),
}

/// A row of the log.
pub struct Row<'a> {
    pub key: &'a [u8],
    /// Not in every form.
    pub value: Option<&'a [u8]>,
    pub replaced: Replaced<'a>,
}

const NONE: u8 = 0;
const HERE: u8 = 1;
const AT: u8 = 2;

pub fn encode_latest(key: &[u8], version: Version<'_>, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&version.revision.to_be_bytes());
    out.extend_from_slice(version.value);
    put_crc(key, out);
}

/// # Panics
/// The row is damaged: nobody but this program wrote it.
pub fn decode_latest<'a>(key: &[u8], row: &'a [u8]) -> Version<'a> {
    decode_version(check_crc(key, row))
}

impl<'a> Row<'a> {
    pub fn encode(&self, log_key: &[u8], out: &mut Vec<u8>) {
        out.clear();
        out.push(match self.replaced {
            Replaced::None => NONE,
            Replaced::Here(_) => HERE,
            Replaced::At(_) => AT,
        });
        out.extend_from_slice(self.key);
        let value = self.value.unwrap_or_default();
        out.extend_from_slice(&(value.len() as u16).to_be_bytes());
        out.extend_from_slice(value);
        match self.replaced {
            Replaced::None => {}
            Replaced::Here(version) => {
                out.extend_from_slice(&version.revision.to_be_bytes());
                out.extend_from_slice(version.value);
            }
            Replaced::At(revision) => out.extend_from_slice(&revision.to_be_bytes()),
        }
        put_crc(log_key, out);
    }

    /// # Panics
    /// As [`decode_latest`].
    pub fn decode(log_key: &[u8], row: &'a [u8]) -> Self {
        let (tag, rest) = check_crc(log_key, row).split_first().expect("a row has a tag");
        let (key, rest) = rest.split_at(32);
        let (length, rest) = rest.split_first_chunk::<2>().expect("a row has a length");
        let (value, rest) = rest.split_at(u16::from_be_bytes(*length).into());
        let replaced = match *tag {
            NONE => Replaced::None,
            HERE => Replaced::Here(decode_version(rest)),
            _ => Replaced::At(u64::from_be_bytes(rest.try_into().expect("a revision"))),
        };
        Self { key, value: Some(value).filter(|value| !value.is_empty()), replaced }
    }
}

fn decode_version(bytes: &[u8]) -> Version<'_> {
    let (revision, value) = bytes.split_first_chunk().expect("a version has a revision");
    Version { revision: u64::from_be_bytes(*revision), value }
}

fn crc(key: &[u8], row: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(row);
    hasher.finalize()
}

fn put_crc(key: &[u8], out: &mut Vec<u8>) {
    let crc = crc(key, out);
    out.extend_from_slice(&crc.to_le_bytes());
}

fn check_crc<'a>(key: &[u8], row: &'a [u8]) -> &'a [u8] {
    let (body, found) = row.split_last_chunk().expect("a row has a checksum");
    assert_eq!(crc(key, body), u32::from_le_bytes(*found), "a row is damaged");
    body
}
