//! Reads a directory back: [`scan`] looks and changes nothing, [`repair`] cuts what may be cut.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use harmony_types::config::Identity;
use harmony_types::{
    ClusterId, File, FileSystem, HardState, LogIndex, NodeId, OpenMode, RecordType, WalError, WalOffset,
};

use crate::ahead::{self, Note, Sink, Source, Stop};
use crate::aside;
use crate::frame::{self, HEADER_BYTES, Header, Kind};
use crate::index::Index;
use crate::preallocate;
use crate::reader::{SegmentReader, Step};
use crate::replay::Replay;
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

impl Found {
    fn source(&self) -> Source {
        let (sequence, file_bytes, chain) = (self.name.sequence, self.file_bytes, self.chain);
        Source { path: self.path.clone(), sequence, file_bytes, chain }
    }
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
    /// Seals that were not written, or are damaged: the segment's file, where, and the bytes.
    unsealed: Vec<(PathBuf, u32, Vec<u8>)>,
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
    visit: Option<&mut dyn FnMut(Seen<'_>)>,
) -> Result<Option<Scan>, WalError> {
    let (names, mut leftovers) = list(fs, dir)?;
    let Some(last) = names.last() else {
        return match aside::reserve_of(fs, dir)? {
            None => Ok(None),
            Some(path) => {
                let reason = "it belongs to a log, and no segment of it is left".to_owned();
                Err(corrupt(&path, 0, LogIndex::ZERO, reason))
            }
        };
    };
    // Released segments may go in any order: only the run of sequence numbers up to the last one has to be whole.
    let gap = (1..names.len()).rev().find(|slot| names[slot - 1].sequence + 1 != names[*slot].sequence);
    let (before, run) = names.split_at(gap.unwrap_or(0));
    let last = last.sequence;
    let mut segments = Vec::with_capacity(run.len());
    for name in run {
        segments.push(open_segment(fs, dir, *name, identity)?);
    }
    let first = &segments[0];
    let (mut replay, mut ends) = read_segments(fs, &segments, visit)?;
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
    // Released, and then the process ended before their names were gone.
    let released = segments.partition_point(|found| found.name.sequence < replay.oldest.min(last));
    leftovers.extend(segments.drain(..released).map(|found| found.path));
    ends.drain(..released);
    let unsealed = segments
        .iter()
        .zip(&mut ends)
        .filter_map(|(found, end)| end.unsealed.take().map(|(at, seal)| (found.path.clone(), at, seal)))
        .collect();
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
    /// Bytes of the last segment that its frames do not call synced.
    pub(crate) fn unproven_bytes(&self) -> u32 {
        self.end.byte().saturating_sub(self.synced)
    }

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

/// Makes the directory what the scan says it is, and durable: keeps the torn tail aside and cuts it, writes seals that are
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
    for (path, at, seal) in &scan.unsealed {
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

/// Whose log is in `dir`, as the head of its newest segment says; `None` when it holds no segment. Changes nothing, and
/// checks no more than that segment's start.
///
/// # Errors
/// [`WalError`]: the directory cannot be read, or the segment does not begin as one.
pub fn identity_of(fs: &dyn FileSystem, dir: &Path) -> Result<Option<Identity>, WalError> {
    let (names, _) = list(fs, dir)?;
    let Some(newest) = names.last() else { return Ok(None) };
    let head = open_segment(fs, dir, *newest, None)?.head;
    Ok(Some(Identity { cluster: ClusterId(head.cluster), node: NodeId::new(head.node) }))
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

/// Reads and replays one segment. `follower` is the checksum that the next segment is chained to; without one, it is the
/// last.
pub(crate) fn read_segment(
    fs: &dyn FileSystem,
    found: &Found,
    follower: Option<u32>,
    replay: &mut Replay,
    visit: &mut dyn FnMut(Seen<'_>),
) -> Result<End, WalError> {
    let stop = ahead::frames(fs, &found.source(), |note, payload| {
        let place = WalOffset::new(found.name.sequence, note.at);
        visit(Seen::Frame(place, &note.header, payload));
        replay.take(found, &note)
    })?;
    end_of(fs, found, follower, stop, replay.index.last())
}

/// Reads and replays segments that follow each other, the last of the log at their end.
fn read_segments<'v>(
    fs: &dyn FileSystem,
    segments: &[Found],
    visit: Option<&'v mut (dyn FnMut(Seen<'_>) + 'v)>,
) -> Result<(Replay, Vec<End>), WalError> {
    let sources: Vec<Source> = segments.iter().map(Found::source).collect();
    let mut reading = Reading::new(fs, segments, visit);
    ahead::read(fs, &sources, &mut reading)?;
    Ok((reading.replay, reading.ends))
}

/// Takes in the frames of segments and judges how each ends.
struct Reading<'a, 'v> {
    fs: &'a dyn FileSystem,
    segments: &'a [Found],
    visit: Option<&'v mut (dyn FnMut(Seen<'_>) + 'v)>,
    replay: Replay,
    ends: Vec<End>,
    /// Segments whose head was taken in.
    begun: usize,
}

impl<'a, 'v> Reading<'a, 'v> {
    fn new(
        fs: &'a dyn FileSystem,
        segments: &'a [Found],
        visit: Option<&'v mut (dyn FnMut(Seen<'_>) + 'v)>,
    ) -> Self {
        let replay = Replay::new(&segments[0].head);
        Self { fs, segments, visit, replay, ends: Vec::with_capacity(segments.len()), begun: 0 }
    }

    fn begin(&mut self, segment: usize) {
        if self.begun <= segment {
            let found = &self.segments[segment];
            self.replay.oldest = self.replay.oldest.max(found.head.oldest);
            self.begun = segment + 1;
            if let Some(visit) = &mut self.visit {
                visit(Seen::Segment(found));
            }
        }
    }
}

impl Sink for Reading<'_, '_> {
    fn wants_payloads(&self) -> bool {
        self.visit.is_some()
    }

    fn frame(&mut self, segment: usize, note: &Note, payload: Option<&[u8]>) -> Result<(), WalError> {
        self.begin(segment);
        let found = &self.segments[segment];
        let place = WalOffset::new(found.name.sequence, note.at);
        if let Some(visit) = &mut self.visit {
            let payload = payload.expect("it was asked for");
            visit(Seen::Frame(place, &note.header, payload));
        }
        self.replay.take(found, note)
    }

    /// The segment that follows says what this one must end with; without a follower, it is the last.
    fn stop(&mut self, segment: usize, stop: Stop) -> Result<(), WalError> {
        self.begin(segment);
        let segments = self.segments;
        let found = &segments[segment];
        let follower = segments.get(segment + 1).map(|next| next.chain);
        let end = end_of(self.fs, found, follower, stop, self.replay.index.last())?;
        self.ends.push(end);
        Ok(())
    }
}

/// How a segment ends whose good frames stop there. `follower` is the checksum that the next segment is chained to; without
/// one, it is the last.
fn end_of(
    fs: &dyn FileSystem,
    found: &Found,
    follower: Option<u32>,
    stop: Stop,
    index: LogIndex,
) -> Result<End, WalError> {
    if stop.sealed {
        sealed_end(found, follower, stop, index)
    } else {
        open_end(fs, found, follower, stop, index)
    }
}

/// Without a seal: what stands behind the last good frame tells.
fn open_end(
    fs: &dyn FileSystem,
    found: &Found,
    follower: Option<u32>,
    stop: Stop,
    index: LogIndex,
) -> Result<End, WalError> {
    let Stop { at, chain, synced, .. } = stop;
    let place = WalOffset::new(found.name.sequence, at);
    let (seal, sealed_chain) = segment::seal(place, chain);
    if follower == Some(sealed_chain) && OPENING_BYTES <= at {
        return Ok(End { at, synced, chain: sealed_chain, torn: Vec::new(), unsealed: Some((at, seal)) });
    }
    let file = open_read(fs, &found.path)?;
    let rest = SegmentReader::new(file, found.path.clone(), found.name.sequence)?.rest(at)?;
    match tail::judge(&rest, place, chain) {
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

fn sealed_end(found: &Found, follower: Option<u32>, stop: Stop, index: LogIndex) -> Result<End, WalError> {
    let Stop { at, chain, .. } = stop;
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
