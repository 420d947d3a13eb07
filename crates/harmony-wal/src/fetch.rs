//! Reads records and entries back: from the cache, or from the segments with their checksums compared.

use std::ops::Range;
use std::sync::MutexGuard;

use bytes::Bytes;
use harmony_types::{Entry, LogIndex, RecordType, WalError, WalOffset, WalRecord};

use crate::frame::{self, HEADER_BYTES, Header, Kind};
use crate::index::Slot;
use crate::preallocate::SegmentFile;
use crate::reader::{SegmentReader, Step};
use crate::record;
use crate::segment::HEAD_BYTES;
use crate::wal::{FileWal, State};

/// Bytes read at once for entries that stand side by side.
const SPAN_BYTES_MAX: u64 = 1 << 20;

/// The entries of `range`, the oldest first, at least one and as many as `bytes_max` bytes of data allow.
pub(crate) fn entries(
    state: MutexGuard<'_, State>,
    range: Range<LogIndex>,
    bytes_max: u64,
) -> Result<Vec<Entry>, WalError> {
    if range.end <= range.start {
        return Ok(Vec::new());
    }
    let bounds = state.index.bounds();
    for (index, inside) in
        [(range.start, bounds.boundary < range.start), (range.end.prev(), range.end <= bounds.last.next())]
    {
        if !inside {
            let reason = "the range leaves what the log holds";
            return Err(WalError::InvalidIndex { index, bounds, reason });
        }
    }
    if range.start.next() == range.end && state.cache.get(range.start).is_none() {
        return one(state, range.start).map(|entry| vec![entry]);
    }
    let mut bytes = 0;
    let mut plan = Vec::new();
    let mut cached = Vec::new();
    for index in (range.start.0..range.end.0).map(LogIndex) {
        let slot = state.index.slot(index).expect("within the bounds");
        bytes += u64::from(slot.payload_bytes) - 1;
        if bytes_max < bytes && index != range.start {
            break;
        }
        // The cache is one run up to the last entry: behind a cached entry, all are.
        match state.cache.get(index) {
            Some(entry) => cached.push(entry.clone()),
            None => plan.push((index, slot)),
        }
    }
    let spans = spans(&plan, |segment| state.segments[&segment].clone());
    // Files stay readable through their handles whatever happens to their names, and nothing in them is overwritten.
    drop(state);
    let mut entries = Vec::with_capacity(plan.len() + cached.len());
    for span in spans {
        span.read(&mut |entry| entries.push(entry))?;
    }
    entries.append(&mut cached);
    Ok(entries)
}

/// One entry that is not in the cache, without the lists that many take.
fn one(state: MutexGuard<'_, State>, index: LogIndex) -> Result<Entry, WalError> {
    let slot = state.index.slot(index).expect("within the bounds");
    let segment = state.segments[&slot.offset.segment()].clone();
    drop(state);
    let mut found = None;
    Span { segment, slots: &[(index, slot)] }.read(&mut |entry| found = Some(entry))?;
    Ok(found.expect("a span hands over all its entries"))
}

/// Entries of one segment that one read fetches.
struct Span<'a> {
    segment: SegmentFile,
    slots: &'a [(LogIndex, Slot)],
}

fn frame_end(slot: &Slot) -> u64 {
    u64::from(slot.offset.byte()) + frame::frame_bytes(slot.payload_bytes as usize) as u64
}

fn spans<'a>(plan: &'a [(LogIndex, Slot)], segment: impl Fn(u32) -> SegmentFile) -> Vec<Span<'a>> {
    let mut spans = Vec::new();
    let mut rest = plan;
    while let Some((_, first)) = rest.first() {
        let together = |slot: &Slot| {
            slot.offset.segment() == first.offset.segment()
                && frame_end(slot) - u64::from(first.offset.byte()) <= SPAN_BYTES_MAX
        };
        let count = rest.iter().take_while(|(_, slot)| together(slot)).count().max(1);
        let (slots, others) = rest.split_at(count);
        spans.push(Span { segment: segment(first.offset.segment()), slots });
        rest = others;
    }
    spans
}

impl Span<'_> {
    fn read(&self, take: &mut dyn FnMut(Entry)) -> Result<(), WalError> {
        let (_, first) = &self.slots[0];
        let (_, last) = &self.slots[self.slots.len() - 1];
        let start = u64::from(first.offset.byte());
        let mut bytes = vec![0; usize::try_from(frame_end(last) - start).expect("a span fits in memory")];
        let path = &self.segment.path;
        self.segment.file.read_at(&mut bytes, start).map_err(WalError::io("read", &**path))?;
        let place = |slot: &Slot| {
            let at = usize::try_from(u64::from(slot.offset.byte()) - start).expect("within the span");
            at..at + HEADER_BYTES + slot.payload_bytes as usize
        };
        for (index, slot) in self.slots {
            check(&mut bytes[place(slot)], slot.offset, *index, path)?;
        }
        // Shared by all entries of the span, each with one reference to it.
        let bytes = Bytes::from(bytes);
        for (index, slot) in self.slots {
            let place = place(slot);
            let header = Header::decode(bytes[place.clone()].first_chunk().expect("checked above"));
            let payload = place.start + HEADER_BYTES..place.end;
            let entry = (header.index == *index && header.kind == Kind::Record(RecordType::Entry).to_u8())
                .then(|| record::decode_entry(header.index, header.term, &bytes, payload))
                .flatten();
            take(entry.ok_or_else(|| WalError::CorruptRecord {
                path: path.to_path_buf(),
                offset: u64::from(slot.offset.byte()),
                index: index.prev(),
                reason: "another record stands where the entry was written".to_owned(),
            })?);
        }
        Ok(())
    }
}

/// Checks a frame, given without its padding and trailer, that must stand at `offset` with the size it has here.
fn check(
    frame: &mut [u8],
    offset: WalOffset,
    index: LogIndex,
    path: &std::path::Path,
) -> Result<(), WalError> {
    let header = Header::decode(frame.first_chunk().expect("a frame is longer than its header"));
    let sized = header.plausible() && HEADER_BYTES + header.payload_bytes() == frame.len();
    // A length that was damaged: compare over the bytes that the frame was written with.
    let expected = frame::checksum_in_place(offset, frame);
    if sized && expected == header.crc {
        return Ok(());
    }
    Err(WalError::CrcMismatch {
        path: path.to_owned(),
        offset: u64::from(offset.byte()),
        index: index.prev(),
        expected,
        found: header.crc,
    })
}

/// The record at `offset`.
pub(crate) fn record(wal: &FileWal, offset: WalOffset) -> Result<WalRecord, WalError> {
    let state = wal.state_for_reading()?;
    let not_found = WalError::NotFound { offset };
    let Some(segment) = state.segments.get(&offset.segment()).cloned() else { return Err(not_found) };
    if state.written <= offset || !offset.byte().is_multiple_of(8) || (offset.byte() as usize) < HEAD_BYTES {
        return Err(not_found);
    }
    drop(state);
    let mut bytes = [0; HEADER_BYTES];
    let at = u64::from(offset.byte());
    segment.file.read_at(&mut bytes, at).map_err(WalError::io("read", &*segment.path))?;
    let header = Header::decode(&bytes);
    if header.plausible() && at + header.frame_bytes() as u64 <= segment.bytes {
        let mut payload = vec![0; header.payload_bytes()];
        segment
            .file
            .read_at(&mut payload, at + HEADER_BYTES as u64)
            .map_err(WalError::io("read", &*segment.path))?;
        if frame::checksum(offset, &bytes, &payload) == header.crc {
            return wal_record(&header, Bytes::from(payload)).ok_or(not_found);
        }
    }
    // No good frame: walk there from the segment's start to say whether one should be.
    walk(&segment, offset.segment(), offset.byte() + 1, &mut |_, _, _| true)?;
    Err(not_found)
}

/// Visits all records in order.
pub(crate) fn scan(
    wal: &FileWal,
    visit: &mut dyn FnMut(WalOffset, WalRecord) -> bool,
) -> Result<(), WalError> {
    let state = wal.state_for_reading()?;
    let (segments, end) = (state.segments.clone(), state.written);
    drop(state);
    let mut going = true;
    for (sequence, segment) in segments {
        let upto = if sequence == end.segment() { end.byte() } else { u32::MAX };
        walk(&segment, sequence, upto, &mut |at, header, payload| {
            if let Some(record) = wal_record(header, Bytes::copy_from_slice(payload)) {
                going = visit(at, record);
            }
            going
        })?;
        if !going {
            break;
        }
    }
    Ok(())
}

fn wal_record(header: &Header, data: Bytes) -> Option<WalRecord> {
    let Kind::Record(record_type) = Kind::from_u8(header.kind)? else { return None };
    Some(WalRecord { record_type, index: header.index, term: header.term, data, crc: header.crc })
}

/// Visits the frames of one segment that start before `upto`, up to its seal or until `visit` returns false.
fn walk(
    segment: &SegmentFile,
    sequence: u32,
    upto: u32,
    visit: &mut dyn FnMut(WalOffset, &Header, &[u8]) -> bool,
) -> Result<(), WalError> {
    let mut reader = SegmentReader::new(segment.file.clone(), segment.path.to_path_buf(), sequence)?;
    let mut at = u32::try_from(HEAD_BYTES).expect("a small constant");
    let mut chain = frame::word(reader.window(u64::from(at), HEADER_BYTES + 4)?, HEADER_BYTES);
    let mut index = LogIndex::ZERO;
    while at < upto {
        let Step::Frame(header) = reader.step(at, chain)? else {
            return Err(damage(&mut reader, segment, WalOffset::new(sequence, at), index));
        };
        let payload = reader.payload(at, &header)?;
        if header.kind == Kind::Record(RecordType::Entry).to_u8() {
            index = header.index;
        }
        if header.kind == Kind::Seal.to_u8() || !visit(WalOffset::new(sequence, at), &header, payload) {
            return Ok(());
        }
        chain = header.crc;
        at += u32::try_from(header.frame_bytes()).expect("frames are limited");
    }
    Ok(())
}

fn damage(reader: &mut SegmentReader, segment: &SegmentFile, at: WalOffset, index: LogIndex) -> WalError {
    let corrupt = |reason: &str| WalError::CorruptRecord {
        path: segment.path.to_path_buf(),
        offset: u64::from(at.byte()),
        index,
        reason: reason.to_owned(),
    };
    let Ok(bytes) = reader.window(u64::from(at.byte()), HEADER_BYTES) else {
        return corrupt("the frame cannot be read");
    };
    let bytes: [u8; HEADER_BYTES] = bytes.try_into().expect("a window has its size");
    let header = Header::decode(&bytes);
    if !header.plausible() || segment.bytes < u64::from(at.byte()) + header.frame_bytes() as u64 {
        return corrupt("the frame's header is damaged");
    }
    match reader.payload(at.byte(), &header) {
        Ok(payload) => WalError::CrcMismatch {
            path: segment.path.to_path_buf(),
            offset: u64::from(at.byte()),
            index,
            expected: frame::checksum(at, &bytes, payload),
            found: header.crc,
        },
        Err(error) => error,
    }
}
