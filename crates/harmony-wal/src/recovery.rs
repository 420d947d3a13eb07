//! Reads a directory back: [`scan`] looks and changes nothing, [`repair`] cuts what may be cut.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use harmony_types::config::Identity;
use harmony_types::{
    EntryType, File, FileSystem, HardState, LogIndex, OpenMode, RecordType, Term, WalError, WalOffset,
};

use crate::aside;
use crate::frame::{self, HEADER_BYTES, Header, Kind};
use crate::index::{Index, Slot};
use crate::preallocate;
use crate::reader::{SegmentReader, Step};
use crate::record;
use crate::segment::{self, HEAD_BYTES, Head, OPENING_BYTES, SegmentName};
use crate::tail::{self, Tail};

/// What opening a log found and did.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Segments read.
    pub segments: usize,
    /// Records read, those that the log writes for itself included.
    pub records: u64,
    /// The torn tail that was cut, if there was one.
    pub torn: Option<TornTail>,
}

/// Bytes at the end of the log that no sync had acknowledged and that made no whole record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// Segment file.
    pub path: PathBuf,
    /// Where they stood.
    pub offset: WalOffset,
    /// How many.
    pub bytes: u64,
    /// Where they are kept; the log never reads this file. Not written by a look that changes nothing.
    pub kept: PathBuf,
}

/// One segment as it was found.
pub(crate) struct Found {
    pub(crate) name: SegmentName,
    pub(crate) path: PathBuf,
    pub(crate) head: Head,
    pub(crate) file_bytes: u64,
    /// Checksum of the last frame of the segment before.
    pub(crate) chain: u32,
}

/// A directory's content, checked.
pub(crate) struct Scan {
    pub(crate) segments: Vec<Found>,
    pub(crate) index: Index,
    pub(crate) state: HardState,
    /// Where the log ends, and the checksum of the frame before.
    pub(crate) end: WalOffset,
    pub(crate) chain: u32,
    pub(crate) oldest: u32,
    pub(crate) records: u64,
    /// Byte of the last segment up to which its own frames say that it was synced.
    synced: u32,
    /// All bytes behind the end, when they are a torn tail.
    torn: Vec<u8>,
    /// A seal that was not written: the segment's file, where, and the bytes.
    unsealed: Option<(PathBuf, u32, Vec<u8>)>,
    /// Files that are not needed: released segments, segments whose making was cut short.
    leftovers: Vec<PathBuf>,
}

/// Sees what a scan passes.
pub(crate) enum Seen<'a> {
    Segment(&'a Found),
    Frame(WalOffset, &'a Header, &'a [u8]),
}

/// Reads and checks everything in `dir`; `None` when it holds no segment. Changes nothing.
pub(crate) fn scan(
    fs: &dyn FileSystem,
    dir: &Path,
    identity: Option<Identity>,
    visit: &mut dyn FnMut(Seen<'_>),
) -> Result<Option<Scan>, WalError> {
    let (names, mut leftovers) = list(fs, dir)?;
    let Some(last) = names.last() else { return Ok(None) };
    // Released segments may go in any order: only the run of sequence numbers up to the last one has to be whole.
    let gap = (1..names.len()).rev().find(|slot| names[slot - 1].sequence + 1 != names[*slot].sequence);
    let (before, run) = names.split_at(gap.unwrap_or(0));
    let last = last.sequence;
    let mut segments = Vec::with_capacity(run.len());
    for name in run {
        segments.push(open_segment(fs, dir, *name, identity)?);
    }
    let first = &segments[0];
    let mut replay = Replay::new(&first.head);
    let mut ends = Vec::with_capacity(segments.len());
    for (slot, found) in segments.iter().enumerate() {
        visit(Seen::Segment(found));
        replay.oldest = replay.oldest.max(found.head.oldest);
        let follower = segments.get(slot + 1).map(|next| next.chain);
        ends.push(read_segment(fs, found, follower, &mut replay, visit)?);
    }
    if replay.oldest < first.name.sequence {
        let index = match before.last() {
            // What stands before the hole is the last good index.
            Some(_) => read_run(fs, dir, before, identity)?,
            None => LogIndex::ZERO,
        };
        let sequence = u64::from(first.name.sequence) - 1;
        return Err(WalError::MissingSegment { dir: dir.to_owned(), sequence, index });
    }
    leftovers.extend(before.iter().map(|name| name.path(dir)));
    let unsealed = ends.len().checked_sub(2).and_then(|slot| {
        ends[slot].unsealed.take().map(|(at, seal)| (segments[slot].path.clone(), at, seal))
    });
    // Released, and then the process ended before their names were gone.
    let released = segments.partition_point(|found| found.name.sequence < replay.oldest.min(last));
    leftovers.extend(segments.drain(..released).map(|found| found.path));
    if 0 < released {
        let first = WalOffset::new(segments[0].name.sequence, 0);
        let boundary = replay.index.last_before(first);
        replay.index.advance_boundary(boundary);
    }
    let end = ends.pop().expect("there is a last segment");
    Ok(Some(Scan {
        segments,
        index: replay.index,
        state: replay.state,
        end: WalOffset::new(last, end.at),
        chain: end.chain,
        oldest: replay.oldest,
        records: replay.records,
        synced: end.synced,
        torn: end.torn,
        unsealed,
        leftovers,
    }))
}

impl Scan {
    /// What is or would be cut.
    pub(crate) fn torn(&self, dir: &Path) -> Option<TornTail> {
        let last = self.segments.last().expect("a scan has a segment");
        (!self.torn.is_empty()).then(|| TornTail {
            path: last.path.clone(),
            offset: self.end,
            bytes: self.torn.len() as u64,
            kept: dir.join(format!("torn-{:016x}-{}.bin", self.end.segment(), self.end.byte())),
        })
    }
}

/// Makes the directory what the scan says it is, and durable: keeps the torn tail aside and cuts it, writes a seal that is
/// missing, removes leftovers.
///
/// What was read may be in the system's memory alone. A killed process leaves frames and names that nobody synced, so the
/// last segment and the directory are synced. A process that a failed sync ended leaves frames that the system takes for
/// written, which no later sync carries to the disk: what the frames themselves do not call synced is written again.
pub(crate) fn repair(fs: &dyn FileSystem, dir: &Path, scan: &Scan) -> Result<(), WalError> {
    let last = scan.segments.last().expect("a scan has a segment");
    let file = fs.open(&last.path, OpenMode::ReadWrite).map_err(WalError::io("open", &last.path))?;
    if let Some(torn) = scan.torn(dir) {
        tracing::warn!(
            segment = %torn.path.display(),
            offset = torn.offset.byte(),
            bytes = torn.bytes,
            kept = %torn.kept.display(),
            "cut a torn tail: the last write was not finished and no sync had acknowledged it"
        );
        aside::keep(fs, dir, &torn.kept, &scan.torn)?;
        let zeros = vec![0; scan.torn.len().min(1 << 20)];
        let mut at = 0;
        while at < scan.torn.len() {
            let bytes = zeros.len().min(scan.torn.len() - at);
            let place = u64::from(scan.end.byte()) + at as u64;
            file.write_at(&zeros[..bytes], place)
                .map_err(WalError::io("cut the torn tail of", &last.path))?;
            at += bytes;
        }
    }
    write_again(&*file, &last.path, scan.synced..scan.end.byte())?;
    file.sync_data().map_err(WalError::io("sync", &last.path))?;
    fs.sync_dir(dir).map_err(WalError::io("sync", dir))?;
    if let Some((path, at, seal)) = &scan.unsealed {
        let file = fs.open(path, OpenMode::ReadWrite).map_err(WalError::io("open", path))?;
        file.write_at(seal, u64::from(*at)).map_err(WalError::io("seal", path))?;
        file.sync_data().map_err(WalError::io("sync", path))?;
    }
    if !scan.leftovers.is_empty() {
        remove_all(fs, &scan.leftovers)?;
        fs.sync_dir(dir).map_err(WalError::io("sync", dir))?;
    }
    Ok(())
}

/// Writes bytes of a file over themselves.
fn write_again(file: &dyn File, path: &Path, range: std::ops::Range<u32>) -> Result<(), WalError> {
    let mut buffer = vec![0; range.len().min(1 << 20)];
    let (mut at, end) = (u64::from(range.start), u64::from(range.end));
    while at < end {
        let bytes = buffer.len().min(usize::try_from(end - at).expect("offsets in a segment have 32 bits"));
        let read = file.read_at(&mut buffer[..bytes], at).map_err(WalError::io("read", path))?;
        if read < bytes {
            return Err(WalError::io("read", path)(std::io::ErrorKind::UnexpectedEof.into()));
        }
        file.write_at(&buffer[..bytes], at).map_err(WalError::io("write", path))?;
        at += bytes as u64;
    }
    Ok(())
}

/// Removes files whose names nobody needs.
pub(crate) fn remove_all(fs: &dyn FileSystem, paths: &[PathBuf]) -> Result<(), WalError> {
    for path in paths {
        fs.remove_file(path).map_err(WalError::io("remove", path))?;
    }
    Ok(())
}

/// The segments by sequence, and files whose making was cut short.
pub(crate) fn list(fs: &dyn FileSystem, dir: &Path) -> Result<(Vec<SegmentName>, Vec<PathBuf>), WalError> {
    let mut segments = Vec::new();
    let mut unfinished = Vec::new();
    for name in fs.list_dir(dir).map_err(WalError::io("list", dir))? {
        if let Some(segment) = SegmentName::parse(&name) {
            segments.push(segment);
        } else if preallocate::is_unfinished(&name) {
            unfinished.push(dir.join(name));
        } else if name.extension().is_some_and(|extension| extension == "wal") {
            return Err(corrupt(
                &dir.join(name),
                0,
                LogIndex::ZERO,
                "no segment has this file name".to_owned(),
            ));
        }
    }
    segments.sort_unstable();
    if let Some(pair) = segments.windows(2).find(|pair| pair[0].sequence == pair[1].sequence) {
        let reason = format!("two files are segment {}", pair[0].sequence);
        return Err(corrupt(&pair[1].path(dir), 0, pair[0].first.prev(), reason));
    }
    Ok((segments, unfinished))
}

/// The last index of a run of segments that is not the last run.
fn read_run(
    fs: &dyn FileSystem,
    dir: &Path,
    names: &[SegmentName],
    identity: Option<Identity>,
) -> Result<LogIndex, WalError> {
    let Some(last) = names.last() else { return Ok(LogIndex::ZERO) };
    let found = open_segment(fs, dir, *last, identity)?;
    let mut replay = Replay::new(&found.head);
    match read_segment(fs, &found, None, &mut replay, &mut |_| {}) {
        // The segment is sealed and what follows it is what is missing.
        Ok(_) | Err(WalError::MissingSegment { .. }) => Ok(replay.index.last()),
        Err(error) => Err(error),
    }
}

pub(crate) fn open_segment(
    fs: &dyn FileSystem,
    dir: &Path,
    name: SegmentName,
    identity: Option<Identity>,
) -> Result<Found, WalError> {
    let path = name.path(dir);
    let mut reader = SegmentReader::new(open_read(fs, &path)?, path.clone(), name.sequence)?;
    let bytes: [u8; HEAD_BYTES] = reader.window(0, HEAD_BYTES)?.try_into().expect("a window has its size");
    let head = Head::decode(&bytes, &path, name)?;
    if let Some(identity) = identity {
        head.check_identity(identity, &path)?;
    }
    if u64::from(u32::MAX) < reader.file_bytes() {
        return Err(corrupt(&path, 0, head.boundary, "the file is larger than a segment can be".to_owned()));
    }
    // The first frame carries the checksum that it is chained to.
    let at = u32::try_from(HEAD_BYTES).expect("a small constant");
    let chain = frame::word(reader.window(u64::from(at), HEADER_BYTES + 4)?, HEADER_BYTES);
    match reader.step(at, chain)? {
        Step::Frame(header) if header.kind == Kind::Record(RecordType::Crc).to_u8() => {}
        _ => {
            return Err(corrupt(
                &path,
                at,
                head.boundary,
                "the segment does not open with its checksum".to_owned(),
            ));
        }
    }
    let file_bytes = reader.file_bytes();
    Ok(Found { name, path, head, file_bytes, chain })
}

pub(crate) fn open_read(fs: &dyn FileSystem, path: &Path) -> Result<Arc<dyn File>, WalError> {
    fs.open(path, OpenMode::Read).map_err(WalError::io("open", path))
}

/// How a segment ends.
pub(crate) struct End {
    pub(crate) at: u32,
    /// Byte up to which its frames say that it was synced.
    synced: u32,
    chain: u32,
    torn: Vec<u8>,
    unsealed: Option<(u32, Vec<u8>)>,
}

/// Replays one segment. `follower` is the checksum that the next segment is chained to; without one, it is the last.
pub(crate) fn read_segment(
    fs: &dyn FileSystem,
    found: &Found,
    follower: Option<u32>,
    replay: &mut Replay,
    visit: &mut dyn FnMut(Seen<'_>),
) -> Result<End, WalError> {
    let sequence = found.name.sequence;
    let mut reader = SegmentReader::new(open_read(fs, &found.path)?, found.path.clone(), sequence)?;
    let (mut at, mut chain) = (u32::try_from(HEAD_BYTES).expect("a small constant"), found.chain);
    let mut synced = OPENING_BYTES;
    while let Step::Frame(header) = reader.step(at, chain)? {
        let offset = WalOffset::new(sequence, at);
        let payload = reader.payload(at, &header)?;
        visit(Seen::Frame(offset, &header, payload));
        let sealed = replay
            .apply(offset, &header, payload)
            .map_err(|reason| corrupt(&found.path, at, replay.index.last(), reason))?;
        chain = header.crc;
        synced = synced.max(header.durable);
        if sealed {
            return sealed_end(found, follower, at, chain, replay.index.last());
        }
        at += u32::try_from(header.frame_bytes()).expect("frames are limited");
    }
    let (seal, sealed_chain) = segment::seal(WalOffset::new(sequence, at), chain);
    if follower == Some(sealed_chain) && OPENING_BYTES <= at {
        return Ok(End { at, synced, chain: sealed_chain, torn: Vec::new(), unsealed: Some((at, seal)) });
    }
    let rest = reader.rest(at)?;
    let index = replay.index.last();
    match tail::judge(&rest, WalOffset::new(sequence, at), chain) {
        Tail::Mismatch { expected, found: crc } => Err(WalError::CrcMismatch {
            path: found.path.clone(),
            offset: u64::from(at),
            index,
            expected,
            found: crc,
        }),
        Tail::Corrupt(reason) => Err(corrupt(&found.path, at, index, reason)),
        // The opening was durable before the segment had its name.
        _ if at < OPENING_BYTES => {
            Err(corrupt(&found.path, at, index, "the segment's opening is damaged".to_owned()))
        }
        Tail::Clean | Tail::Torn if follower.is_some() => {
            let reason = "the segment ends before the next one goes on: records are missing".to_owned();
            Err(corrupt(&found.path, at, index, reason))
        }
        Tail::Clean | Tail::Torn => Ok(End { at, synced, chain, torn: rest, unsealed: None }),
    }
}

fn sealed_end(
    found: &Found,
    follower: Option<u32>,
    at: u32,
    chain: u32,
    index: LogIndex,
) -> Result<End, WalError> {
    match follower {
        Some(expected) if expected == chain => {
            Ok(End { at, synced: at, chain, torn: Vec::new(), unsealed: None })
        }
        Some(_) => {
            let reason = "the next segment continues another log than this one".to_owned();
            Err(corrupt(&found.path, at, index, reason))
        }
        None => {
            let dir = found.path.parent().unwrap_or(Path::new("")).to_owned();
            Err(WalError::MissingSegment { dir, sequence: u64::from(found.name.sequence) + 1, index })
        }
    }
}

pub(crate) fn corrupt(path: &Path, at: u32, index: LogIndex, reason: String) -> WalError {
    WalError::CorruptRecord { path: path.to_owned(), offset: u64::from(at), index, reason }
}

/// The log's state as the frames tell it.
pub(crate) struct Replay {
    pub(crate) index: Index,
    pub(crate) state: HardState,
    pub(crate) oldest: u32,
    pub(crate) records: u64,
}

impl Replay {
    pub(crate) fn new(first: &Head) -> Self {
        Self {
            index: Index::new(first.boundary, first.boundary_term),
            state: HardState::default(),
            oldest: first.oldest,
            records: 0,
        }
    }

    /// Takes in one good frame; true for the seal. The error says what makes no sense about it.
    fn apply(&mut self, at: WalOffset, header: &Header, payload: &[u8]) -> Result<bool, String> {
        let kind =
            Kind::from_u8(header.kind).ok_or_else(|| format!("unknown kind of record {}", header.kind))?;
        let record = match kind {
            Kind::Seal => return Ok(true),
            Kind::Release => {
                self.oldest = u32::try_from(header.index.0).map_err(|_| "sequence number out of range")?;
                return Ok(false);
            }
            Kind::Record(record) => record,
        };
        match record {
            RecordType::Entry => self.entry(at, header.index, header.term, payload)?,
            RecordType::State => {
                self.state = record::decode_state(header.index, header.term, payload)
                    .ok_or_else(|| format!("a hard state of {} bytes", payload.len()))?;
            }
            RecordType::Snapshot => self.index.snapshot(header.index, header.term),
            RecordType::Truncate => self.index.truncate(header.index, header.term),
            RecordType::Crc if at.byte() as usize == HEAD_BYTES => {}
            RecordType::Crc => return Err("a checksum record within a segment".to_owned()),
        }
        self.records += 1;
        Ok(false)
    }

    fn entry(&mut self, at: WalOffset, index: LogIndex, term: Term, payload: &[u8]) -> Result<(), String> {
        if payload.first().copied().and_then(EntryType::from_u8).is_none() {
            return Err(format!("entry {index} has no known type"));
        }
        self.index.check_entry(index, term).map_err(|error| error.to_string())?;
        if index <= self.index.last() {
            let before = self.index.term(index.prev()).expect("checked to be within the log");
            self.index.truncate(index, before);
        }
        let payload_bytes = u32::try_from(payload.len()).expect("payloads are limited");
        self.index.push(index, term, Slot { offset: at, payload_bytes });
        Ok(())
    }
}
