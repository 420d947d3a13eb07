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
//!
//! A caller may store anything, the image of a frame too. So the search for a witness steps over what lies inside a frame
//! whose header can be trusted, and its work grows with the bytes searched, whatever they say their lengths are.

use harmony_types::WalOffset;

use crate::frame::{self, FRAME_BYTES_MIN, HEADER_BYTES, Header, Kind, SECTOR_BYTES};
use crate::sums::RangeSums;

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
    let witness = witness(&mut RangeSums::new(rest), rest, at, chain);
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

/// Whether a segment goes on behind `at` though it should not: the place of a good frame that was written later.
fn witness(sums: &mut RangeSums<'_>, rest: &[u8], at: WalOffset, chain: u32) -> Option<u32> {
    let mut found = None;
    good_frames(sums, rest, at, Some(chain), &mut |here, header, _| {
        let witness = at.byte() < header.durable;
        found = witness.then_some(here.byte());
        witness
    });
    found
}

/// Shows `visit` the frames in `rest`, which starts at `at`, that are good by their own checksum, until it returns true.
/// `chain` is the checksum of the frame before, if it is known.
pub(crate) fn good_frames(
    sums: &mut RangeSums<'_>,
    rest: &[u8],
    at: WalOffset,
    chain: Option<u32>,
    visit: &mut dyn FnMut(WalOffset, &Header, &[u8]) -> bool,
) {
    frames(sums, rest, at, chain, &mut |here, header, met| match met {
        Met::Good(payload) => visit(here, header, payload),
        Met::Header | Met::Nothing => false,
    });
}

/// What stands at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met<'a> {
    /// A frame that is good by its own checksum, with this payload.
    Good(&'a [u8]),
    /// One whose header can be trusted, though the rest of it cannot.
    Header,
    /// Neither: the bytes of the header that is shown say nothing.
    Nothing,
}

/// As [`good_frames`], and shows what else is met, place by place.
pub(crate) fn frames(
    sums: &mut RangeSums<'_>,
    rest: &[u8],
    at: WalOffset,
    mut chain: Option<u32>,
    visit: &mut dyn FnMut(WalOffset, &Header, Met<'_>) -> bool,
) {
    let mut step = 0;
    while let Some(head) = rest.get(step..).and_then(|rest| rest.first_chunk()) {
        // A file that is larger than a segment can be holds nothing behind.
        let byte = u32::try_from(step).ok().and_then(|step| at.byte().checked_add(step));
        let Some(byte) = byte else { return };
        let here = WalOffset::new(at.segment(), byte);
        let header = Header::decode(head);
        let good = possible(&header, here, rest.len() - step) && {
            let payload = step + HEADER_BYTES..step + HEADER_BYTES + header.payload_bytes();
            sums.continued(frame::header_checksum(here, head), payload) == header.crc
        };
        let met = if good {
            Met::Good(&rest[step + HEADER_BYTES..][..header.payload_bytes()])
        } else if chain.is_some_and(|chain| frame::link_holds(here, chain, head)) {
            Met::Header
        } else {
            Met::Nothing
        };
        if visit(here, &header, met) {
            return;
        }
        // A frame that is good, and one whose header can be trusted though the rest of it cannot: the next one stands
        // behind it. What looks like a frame inside of it is a caller's data.
        if met == Met::Nothing {
            chain = None;
            step += 8;
        } else {
            chain = Some(header.crc);
            step += header.frame_bytes();
        }
    }
}

/// Whether a frame can begin like this, with `bytes` bytes there from its first on.
fn possible(header: &Header, at: WalOffset, bytes: usize) -> bool {
    header.plausible()
        && Kind::from_u8(header.kind).is_some()
        && header.durable <= at.byte()
        && header.durable.is_multiple_of(8)
        && HEADER_BYTES + header.payload_bytes() <= bytes
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

    /// The image of a frame that stands `inside` bytes behind `AT` and says that all up to `durable` was synced.
    fn image(inside: u32, durable: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let meta = Meta { kind: Kind::Record(RecordType::Entry), index: LogIndex(9), term: Term(9), durable };
        frame::encode(&mut bytes, WalOffset::new(3, 1000 + inside), 0, &meta, &[1; 9], &[]);
        bytes
    }

    #[test]
    fn a_payload_cannot_play_the_witness() {
        // Each payload holds the image of a frame in its right place; the end of the write is missing.
        let payload = |frame_at: usize| {
            let mut payload = vec![9; 1500];
            let image = image(u32::try_from(frame_at + HEADER_BYTES + 8).unwrap(), 1032);
            payload[8..8 + image.len()].copy_from_slice(&image);
            payload
        };
        let first = frames(&[(&payload(0), 1000)]);
        let both = frames(&[(&payload(0), 1000), (&payload(first.len()), 1000)]);
        for cut in [1, 500, 900] {
            check(first[..first.len() - cut].to_vec(), "torn");
            check(damaged(both[..both.len() - cut].to_vec(), 536..1048, None), "torn");
        }
    }

    #[test]
    fn judging_hostile_bytes_costs_little_more_than_reading_them() {
        // Every 8 bytes the beginning of a frame that would reach far behind, as a caller's data could have it.
        let at = WalOffset::new(3, 0x0180_0000);
        let mut rest = vec![0xff; HEADER_BYTES];
        let header = [&(1u32 << 18).to_le_bytes()[..], &0x0100_0000u32.to_le_bytes()].concat();
        rest.extend(header.repeat((1 << 19) / header.len()));
        let mut sums = RangeSums::new(&rest);
        assert_eq!(witness(&mut sums, &rest, at, 7), None);
        assert!(rest.len() < sums.hashed(), "the headers are possible: {}", sums.hashed());
        assert!(sums.hashed() <= 20 * rest.len(), "{} bytes for {}", sums.hashed(), rest.len());
    }

    #[test]
    fn a_witness_makes_a_hole_corrupt() {
        let bytes = frames(&[(&[9; 1500], 1000), (&[8; 100], 1000), (&[7; 10], 1008)]);
        check(damaged(bytes.clone(), 536..1048, None), "mismatch");
        check(damaged(bytes.clone(), 24..536, None), "proves");
        check(damaged(bytes, 0..24, None), "proves");
    }
}
