//! Clean end, torn tail, or corruption: what the last segment holds behind its last good frame.
//!
//! A sync acknowledges everything before a byte D. What recovery finds behind the last good frame, at byte P, may be
//! cut only if D <= P. D itself is written nowhere, but three things are known:
//!
//! 1. A frame carries how far everything was synced when it was written. **A good frame behind P that says more than P
//!    is a witness that synced bytes are damaged.** Where a frame is good can be checked without those before it.
//! 2. Without a witness, the bytes at P belong to the last group that was written. If that write was not finished, the
//!    disk did not write some sector, or the write was cut short: **that place reads as zeros**, as free space does.
//!    The format sees to it that no frame has such a place by itself (see `frame.rs`): its first 8 bytes, the last 8
//!    bytes of its header and its last byte are not zero, and the sectors inside its payload that might be are counted
//!    in its trailer. Its length is believed only if the header passes its own check.
//! 3. If nothing is missing and the checksum is wrong all the same, a write that was finished, and perhaps
//!    acknowledged, has changed: corruption.
//!
//! No single damaged byte turns 3 into 2: it would have to clear two fields at once, or a sector that is counted.

use harmony_types::WalOffset;

use crate::frame::{self, FRAME_BYTES_MIN, HEADER_BYTES, Header, Kind, SECTOR_BYTES};

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Free space only.
    Clean,
    /// A write that was not finished and that no sync acknowledged.
    Torn,
    /// A frame with a good header and another checksum than that of its content.
    Mismatch { expected: u32, found: u32 },
    /// Damage of another form.
    Corrupt(String),
}

/// Judges `rest`, all bytes of the last segment from `at` on without the zeros at their end, when no good frame stands
/// at `at` behind one with checksum `chain`.
pub(crate) fn judge(rest: &[u8], at: WalOffset, chain: u32) -> Tail {
    if rest.is_empty() {
        return Tail::Clean;
    }
    let header = trusted_header(rest, at, chain);
    let witness = witness(rest, at);
    if witness.is_none() && unfinished(rest, at, header.as_ref()) {
        return Tail::Torn;
    }
    match (header, witness) {
        (Some(header), _) if header.frame_bytes() <= rest.len() => {
            let bytes = rest.first_chunk().expect("a header was read from them");
            let payload = &rest[HEADER_BYTES..][..header.payload_bytes()];
            Tail::Mismatch { expected: frame::checksum(at, bytes, payload), found: header.crc }
        }
        (_, Some(witness)) => Tail::Corrupt(format!(
            "a record that was synced is missing or damaged, as the record at byte {witness} proves"
        )),
        _ => Tail::Corrupt("the frame's header fails its check".to_owned()),
    }
}

/// Whether a segment goes on behind `at` though it should not: a good frame that was written later.
fn witness(rest: &[u8], at: WalOffset) -> Option<u32> {
    let mut step = 8;
    while step + HEADER_BYTES <= rest.len() {
        let here = WalOffset::new(at.segment(), at.byte() + u32::try_from(step).ok()?);
        match valid_frame(&rest[step..], here) {
            Some(header) if at.byte() < header.durable => return Some(here.byte()),
            Some(header) => step += header.frame_bytes(),
            None => step += 8,
        }
    }
    None
}

fn valid_frame(bytes: &[u8], at: WalOffset) -> Option<Header> {
    let head = bytes.first_chunk()?;
    let header = Header::decode(head);
    let possible = header.plausible()
        && Kind::from_u8(header.kind).is_some()
        && header.durable <= at.byte()
        && header.durable.is_multiple_of(8)
        && HEADER_BYTES + header.payload_bytes() <= bytes.len();
    let payload = possible.then(|| &bytes[HEADER_BYTES..][..header.payload_bytes()])?;
    (frame::checksum(at, head, payload) == header.crc).then_some(header)
}

fn trusted_header(rest: &[u8], at: WalOffset, chain: u32) -> Option<Header> {
    let bytes = rest.first_chunk()?;
    frame::link_holds(at, chain, bytes).then(|| Header::decode(bytes))
}

/// Whether some part of the frame at the start of `rest` was never written.
fn unfinished(rest: &[u8], at: WalOffset, header: Option<&Header>) -> bool {
    let Some(header) = header else {
        // Of a frame without a header that can be believed, only the header's own place is known.
        return rest.len() < FRAME_BYTES_MIN
            || frame::portions(at.byte(), &rest[..HEADER_BYTES]).any(frame::is_zero);
    };
    let Some(frame) = rest.get(..header.frame_bytes()) else { return true };
    let inside = |portion: &&[u8]| portion.len() == SECTOR_BYTES;
    let zero =
        frame::portions(at.byte(), frame).filter(inside).filter(|sector| frame::is_zero(sector)).count();
    let last_is_zero = frame::portions(at.byte(), frame).last().is_some_and(frame::is_zero);
    // Without end mark the trailer says nothing; then one byte of it is damaged, or its sector was not written.
    let declared = frame::declared_poor_sectors(frame).map_or(usize::MAX, |poor| poor as usize);
    last_is_zero || declared < zero
}

#[cfg(test)]
mod tests {
    use harmony_types::{LogIndex, RecordType, Term};

    use super::*;
    use crate::frame::Meta;

    const AT: WalOffset = WalOffset::new(3, 1000);

    /// Frames one behind the other from `AT` on, each with its `durable`.
    fn frames(payloads: &[(&[u8], u32)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut chain = 7;
        for (payload, durable) in payloads {
            let at = WalOffset::new(3, 1000 + u32::try_from(bytes.len()).unwrap());
            let (index, term) = (LogIndex(1), Term(1));
            let meta = Meta { kind: Kind::Record(RecordType::Entry), index, term, durable: *durable };
            chain = frame::encode(&mut bytes, at, chain, &meta, payload, &[]);
        }
        bytes
    }

    fn check(mut rest: Vec<u8>, expected: &str) {
        rest.truncate(rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        let found = match judge(&rest, AT, 7) {
            Tail::Clean => "clean".to_owned(),
            Tail::Torn => "torn".to_owned(),
            Tail::Mismatch { .. } => "mismatch".to_owned(),
            Tail::Corrupt(reason) => reason,
        };
        assert!(found.contains(expected), "{found}, expected {expected}");
    }

    fn damaged(mut bytes: Vec<u8>, range: std::ops::Range<usize>, mask: Option<u8>) -> Vec<u8> {
        for byte in &mut bytes[range] {
            *byte = mask.map_or(0, |mask| *byte ^ mask);
        }
        bytes
    }

    #[test]
    fn free_space_is_clean() {
        check(vec![0; 4096], "clean");
    }

    #[test]
    fn what_was_not_written_is_torn() {
        let bytes = frames(&[(&[9; 1500], 1000), (&[8; 100], 1000)]);
        // The frame's shares of its sectors: the first 24 bytes, two whole sectors, the rest.
        for lost in [0..24, 24..536, 536..1048, 1048..1536] {
            check(damaged(bytes.clone(), lost, None), "torn");
        }
        check(damaged(bytes.clone(), 5..bytes.len(), None), "torn");
    }

    #[test]
    fn what_was_written_and_changed_is_corrupt() {
        let bytes = frames(&[(&[9; 1500], 1000), (&[8; 100], 1000)]);
        check(damaged(bytes.clone(), 600..601, Some(1)), "mismatch");
        check(damaged(bytes.clone(), 0..1, Some(0x40)), "header fails");
        // Payloads of zeros are no holes, however one byte of them or of the header changes.
        let mut payload = vec![0; 1500];
        payload[700] = 1;
        let zeros = frames(&[(&payload, 1000)]);
        for position in 0..1532 {
            for mask in [1, 0xff] {
                let rest = damaged(zeros.clone(), position..position + 1, Some(mask));
                assert!(!matches!(judge(&rest, AT, 7), Tail::Torn | Tail::Clean), "byte {position}");
            }
        }
    }

    #[test]
    fn a_witness_makes_a_hole_corrupt() {
        let bytes = frames(&[(&[9; 1500], 1000), (&[8; 100], 1000), (&[7; 10], 1008)]);
        check(damaged(bytes.clone(), 536..1048, None), "mismatch");
        check(damaged(bytes.clone(), 24..536, None), "proves");
        check(damaged(bytes, 0..24, None), "proves");
    }
}
