//! What the frames of each record type carry, and which records may be appended.

use bytes::Bytes;
use harmony_types::{Entry, EntryType, HardState, LogIndex, NodeId, Term};

/// Payload of a `State` record.
pub(crate) const VOTE_BYTES: usize = 8;

/// The vote as a `State` record carries it.
pub(crate) fn encode_vote(state: &HardState) -> [u8; VOTE_BYTES] {
    NodeId::or_zero(state.vote).to_le_bytes()
}

/// The hard state of a `State` record; `None` when its payload is not a vote.
pub(crate) fn decode_state(index: LogIndex, term: Term, payload: &[u8]) -> Option<HardState> {
    let vote = u64::from_le_bytes(payload.try_into().ok()?);
    Some(HardState { term, vote: NodeId::new(vote), commit: index })
}

/// The entry of an `Entry` record with its payload at `place` of `bytes`; `None` when the first byte is no entry type.
pub(crate) fn decode_entry(
    index: LogIndex,
    term: Term,
    bytes: &Bytes,
    place: std::ops::Range<usize>,
) -> Option<Entry> {
    let entry_type = EntryType::from_u8(*bytes[place.clone()].first()?)?;
    Some(Entry { term, index, entry_type, data: bytes.slice(place.start + 1..place.end) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_reads_back() {
        let state = HardState { term: Term(4), vote: NodeId::new(9), commit: LogIndex(3) };
        assert_eq!(decode_state(LogIndex(3), Term(4), &encode_vote(&state)), Some(state));
        assert_eq!(decode_state(LogIndex(3), Term(4), &[1, 2, 3]), None);
    }

    #[test]
    fn an_entry_needs_its_type() {
        let entry = decode_entry(LogIndex(1), Term(2), &Bytes::from_static(b"-\x02ab"), 1..4).unwrap();
        assert_eq!((entry.entry_type, &entry.data[..]), (EntryType::ConfChangeV2, &b"ab"[..]));
        assert_eq!(decode_entry(LogIndex(1), Term(2), &Bytes::new(), 0..0), None);
        assert_eq!(decode_entry(LogIndex(1), Term(2), &Bytes::from_static(b"\x03"), 0..1), None);
    }
}
