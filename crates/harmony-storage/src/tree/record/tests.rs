//! Golden bytes: what is on disk today must read the same for ever.

use super::*;

fn at(revision: u64, sub: u32) -> WrittenAt {
    WrittenAt { revision: Revision(revision), sub }
}

fn version(value: &'static [u8]) -> VersionRef<'static> {
    Version { written: at(300, 1), live: true, create: Revision(2), version: 128, lease: 0, value }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks the bytes without their checksum, and that they read back.
#[track_caller]
fn check_latest(version: &Version<&[u8]>, golden: &str) {
    let mut row = Vec::new();
    version.encode_latest(b"k", &mut row);
    assert_eq!(hex(&row[..row.len() - CRC_BYTES]), golden);
    assert_eq!(&VersionRef::decode_latest(b"k", &row).unwrap(), version);
}

#[track_caller]
fn check_event(event: &EventRef<'_>, golden: &str) {
    let mut row = Vec::new();
    event.encode(&mut row);
    assert_eq!(hex(&row[..row.len() - CRC_BYTES]), golden);
    assert_eq!(&EventRef::decode(&event.version.written.log_key(), &row).unwrap(), event);
}

#[test]
fn rows_of_latest_keep_their_bytes() {
    check_latest(&version(b"v"), "00ac020102800100 76".replace(' ', "").as_str());
    check_latest(&version(b""), "00ac020102800100");
    let leased = Version { lease: -1, ..version(b"v") };
    check_latest(&leased, "00ac0201028001ffffffffffffffffff0176");
    let deleted = VersionBuf::tombstone(at(300, 1));
    check_latest(&deleted.borrowed(), "01ac0201");
}

#[test]
fn rows_of_the_log_keep_their_bytes() {
    let event = EventRef { key: b"key", version: version(b"v"), replaced: Replaced::None };
    check_event(&event, "00036b657909 00ac02010280010076".replace(' ', "").as_str());
    let before = Version { written: at(2, 0), version: 1, ..version(b"u") };
    let event = EventRef { replaced: Replaced::Here(before), ..event };
    check_event(&event, "01036b65790900ac02010280010076 00020002010075".replace(' ', "").as_str());
    let tombstone = VersionBuf::tombstone(at(4, 0));
    let event = EventRef { replaced: Replaced::Here(tombstone.borrowed()), ..event };
    check_event(&event, "01036b65790900ac02010280010076 010400".replace(' ', "").as_str());
    let event = EventRef { replaced: Replaced::InLog(at(5, 1)), ..event };
    check_event(&event, "02036b65790900ac02010280010076 0501".replace(' ', "").as_str());
}

#[test]
fn keys_of_the_log_order_as_revisions_do() {
    assert_eq!(hex(&at(300, 1).log_key()), "000000000000012c00000001");
    assert!(at(1, u32::MAX).log_key() < at(2, 0).log_key());
    assert_eq!(WrittenAt::parse(&at(7, 9).log_key()), Some(at(7, 9)));
    assert_eq!(WrittenAt::parse(b"short"), None);
    let error = EventRef::decode(b"short", b"").unwrap_err();
    assert_eq!(error.to_string(), "table log, key \"short\": the record is shorter than its checksum");
}

#[test]
fn the_checksum_covers_the_key() {
    let mut row = Vec::new();
    version(b"v").encode_latest(b"k", &mut row);
    assert_eq!(
        hex(&row[row.len() - CRC_BYTES..]),
        hex(&crc32fast::hash(&[b"k", &row[..row.len() - 4]].concat()).to_le_bytes())
    );
    let error = VersionRef::decode_latest(b"other", &row).unwrap_err();
    assert!(matches!(error, StorageError::CrcMismatch { .. }), "{error}");
}

#[test]
fn rows_that_make_no_sense_are_named() {
    let with_crc = |body: &[u8]| {
        let mut row = body.to_vec();
        put_crc(b"k", &mut row);
        row
    };
    // Nothing, an unknown flag, a number cut short, a number over 64 bits, a tombstone with a tail.
    let too_long = [&[0][..], &[0xff; 9], &[2]].concat();
    for body in [&[][..], &[2, 1, 0, 1, 1, 0], &[0, 0x80], &too_long, &[1, 1, 0, 9]] {
        let row = with_crc(body);
        let error = VersionRef::decode_latest(b"k", &row).unwrap_err();
        assert!(matches!(error, StorageError::CorruptRecord { .. }), "{body:?}: {error}");
    }
    let error = VersionRef::decode_latest(b"k", b"abc").unwrap_err();
    assert!(error.to_string().contains("shorter than its checksum"), "{error}");
    let log_key = at(1, 0).log_key();
    for body in [&[3, 0, 0][..], &[0, 1], &[0, 0, 3, 1, 1, 0, 9], &[1, 0, 3, 1, 1, 0], &[2, 0, 3, 1, 1, 0, 5]]
    {
        let mut row = body.to_vec();
        put_crc(&log_key, &mut row);
        let error = EventRef::decode(&log_key, &row).unwrap_err();
        assert!(matches!(error, StorageError::CorruptRecord { .. }), "{body:?}: {error}");
    }
}

#[test]
fn numbers_take_as_many_bytes_as_they_say() {
    for shift in 0..64 {
        for number in [1u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
            let mut bytes = Vec::new();
            put_varint(number, &mut bytes);
            assert_eq!(bytes.len(), varint_bytes(number), "{number}");
            assert_eq!(Reader(&bytes).varint(), Some(number));
        }
    }
}
