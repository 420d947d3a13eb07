//! [`FileWal`]: appending in memory, and one thread at a time that carries it to the disk for all.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use harmony_types::config::WalConfig;
use harmony_types::{
    DiskSpace, Entry, File, FileSystem, HardState, LogBounds, LogIndex, OpenMode, RecordType, Term, Wal,
    WalError, WalOffset, WalRecord, limits,
};

use crate::cache::Cache;
use crate::frame::{Kind, Meta};
use crate::group::{Queues, Turns};
use crate::index::{INDEX_END, Index, Slot};
use crate::pending::{Context, Encoder, Pending, Start};
use crate::preallocate::SegmentFile;
use crate::record::{self, VOTE_BYTES};
use crate::recovery::{self, Recovery, Scan, Seen};
use crate::spare::Spares;
use crate::writer::Writer;
use crate::{aside, directory, fetch, release, room};

/// An opening writes what no frame calls synced once more, since it may be in the system's memory alone. When it was more
/// than this, it adds a note that proves it synced: otherwise each later opening would do the same.
const UNPROVEN_BYTES_MAX: u32 = 1 << 20;

/// A log in segment files of one directory; see the crate's documentation.
///
/// Invariants: `durable <= written <= end`, as offsets; what is not written is in the cache; the one `Writer` is in the
/// state, or with the one thread that does I/O, which holds no lock meanwhile.
pub struct FileWal {
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) dir: PathBuf,
    pub(crate) config: WalConfig,
    recovery: Recovery,
    pub(crate) spares: Arc<Spares>,
    pub(crate) state: Mutex<State>,
    pub(crate) queues: Queues,
}

/// A record where it was read; its data lives no longer than the look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// How to read the rest.
    pub record_type: RecordType,
    /// See [`RecordType`].
    pub index: LogIndex,
    /// See [`RecordType`].
    pub term: Term,
    /// See [`RecordType`].
    pub data: &'a [u8],
}

/// Everything in memory.
pub(crate) struct State {
    pub(crate) encoder: Encoder,
    pub(crate) index: Index,
    pub(crate) cache: Cache,
    pub(crate) hard_state: HardState,
    /// Segments that exist, by sequence.
    pub(crate) segments: BTreeMap<u32, SegmentFile>,
    /// Bytes of all segments, planned ones too.
    pub(crate) disk_bytes: u64,
    /// Everything before it is in the files.
    pub(crate) written: WalOffset,
    /// Bytes handed to the files since the log was opened.
    pub(crate) written_bytes: u64,
    /// Gone while a thread does I/O.
    pub(crate) writer: Option<Box<Writer>>,
    pub(crate) turns: Turns,
    /// The buffer that is not in use.
    pub(crate) spare: Pending,
    pub(crate) poisoned: Option<String>,
    closed: bool,
    lock: Option<Arc<dyn File>>,
}

/// Opening.
impl FileWal {
    /// Opens the log in `dir`, and creates it when there is none.
    ///
    /// Reads and checks the whole log. A torn tail is cut and kept aside, see [`FileWal::recovery`]; anything else that
    /// is damaged is refused and left as it is.
    ///
    /// # Errors
    /// [`WalError::Locked`], [`WalError::Foreign`], [`WalError::UnsupportedVersion`], [`WalError::CrcMismatch`],
    /// [`WalError::CorruptRecord`], [`WalError::MissingSegment`], [`WalError::Io`]; an invalid `config` is
    /// [`WalError::Io`] of kind `InvalidInput`.
    pub fn open(fs: Arc<dyn FileSystem>, dir: &Path, config: WalConfig) -> Result<Self, WalError> {
        Self::open_seeing(fs, dir, config, None)
    }

    /// As [`FileWal::open`], and shows each record to `visit` on the way: who needs the content anyway reads the log once
    /// and not twice.
    ///
    /// Records come in the order in which they were appended, the log's own checksum records with them, each checked by
    /// itself and as the one that follows the one before. What comes later may replace or drop an entry, see
    /// [`RecordType`]; and records of segments that were released, but not removed before the process ended, may come first:
    /// entries up to the boundary of the log that is returned do not count. When this call fails, what was shown is no log. A
    /// torn tail is not shown, nor is anything of a log that is made by this call. A long log is read by two threads, ahead
    /// of `visit` by 128 MiB at most, or by one record.
    ///
    /// # Errors
    /// As [`FileWal::open`].
    pub fn open_with(
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        config: WalConfig,
        visit: &mut dyn FnMut(WalOffset, RecordRef<'_>),
    ) -> Result<Self, WalError> {
        let mut seen = |seen: Seen<'_>| {
            if let Seen::Frame(at, header, data) = seen
                && let Some(Kind::Record(record_type)) = Kind::from_u8(header.kind)
            {
                visit(at, RecordRef { record_type, index: header.index, term: header.term, data });
            }
        };
        Self::open_seeing(fs, dir, config, Some(&mut seen))
    }

    fn open_seeing(
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        config: WalConfig,
        visit: Option<&mut dyn FnMut(Seen<'_>)>,
    ) -> Result<Self, WalError> {
        if let Err(mistakes) = config.validate() {
            let error = std::io::Error::new(std::io::ErrorKind::InvalidInput, mistakes);
            return Err(WalError::io("configure the log in", dir)(error));
        }
        directory::make(&*fs, dir)?;
        let lock = directory::lock(&*fs, dir)?;
        let scan = recovery::scan(&*fs, dir, Some(config.identity), visit)?;
        if let Some(scan) = &scan {
            recovery::repair(&*fs, dir, scan)?;
        } else {
            recovery::remove_all(&*fs, &recovery::list(&*fs, dir)?.1)?;
            directory::create_first_segment(&*fs, dir, &config)?;
        }
        let (scan, recovery) = match scan {
            Some(scan) => {
                let torn = scan.torn(dir);
                let recovery = Recovery { segments: scan.segments.len(), records: scan.records, torn };
                (scan, recovery)
            }
            None => {
                let scan = recovery::scan(&*fs, dir, Some(config.identity), None)?;
                (scan.expect("the first segment was made"), Recovery::default())
            }
        };
        let unproven_bytes = scan.unproven_bytes();
        aside::reserve(&*fs, dir, config.segment_bytes)?;
        let spares = Arc::new(Spares::open(Arc::clone(&fs), dir, config.segment_bytes)?);
        let mut state = State::new(&fs, dir, &config, scan, Arc::clone(&spares), lock)?;
        if recovery.segments == 0
            && let Some(writer) = &mut state.writer
        {
            writer.settled = config.segment_bytes;
        }
        let wal = Self {
            fs,
            dir: dir.to_owned(),
            config,
            recovery,
            spares,
            state: Mutex::new(state),
            queues: Queues::default(),
        };
        if UNPROVEN_BYTES_MAX < unproven_bytes {
            match wal.push_release(0) {
                // It would only have spared the next opening work.
                Ok(()) | Err(WalError::DiskFull { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(wal)
    }

    /// What opening found and did.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Bytes that the log takes on disk: whole segments, with the space reserved in them, and released ones that are
    /// kept for the next. Not counted: the reserve of at most 8 MiB, and torn tails that were kept aside.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.state().disk_bytes + self.spares.bytes()
    }

    /// Bytes of records and of what stands around them that were written since the log was opened. Not counted: zeros ahead of
    /// them, and parts of blocks that are written again.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.state().written_bytes
    }

    /// Refuses records with these payloads when they are too large, or would go over the quota or what the disk has.
    fn check_room(
        &self,
        state: &State,
        payloads: impl Iterator<Item = usize> + Clone,
    ) -> Result<(), WalError> {
        if let Some(bytes) = payloads.clone().find(|bytes| limits::RECORD_BYTES_MAX < *bytes) {
            let (bytes, limit) = (bytes as u64, limits::RECORD_BYTES_MAX as u64);
            return Err(WalError::TooLarge { bytes, limit });
        }
        let added = state.encoder.new_segment_bytes(payloads);
        if added == 0 {
            return Ok(());
        }
        match self.config.quota_bytes {
            Some(quota) if quota < state.disk_bytes + added => {
                return Err(WalError::Full { bytes: state.disk_bytes, quota });
            }
            _ => {}
        }
        self.check_disk(state, added)
    }

    /// Refuses new segments of `added` bytes that the disk has no room for.
    pub(crate) fn check_disk(&self, state: &State, added: u64) -> Result<(), WalError> {
        let needed = (state.planned_bytes() + added).saturating_sub(self.spares.bytes());
        if needed == 0 {
            return Ok(());
        }
        // A file system that cannot tell shows it at the write.
        match self.fs.free_bytes(&self.dir) {
            Ok(free) if free < needed => Err(WalError::DiskFull { dir: self.dir.clone(), needed, free }),
            _ => Ok(()),
        }
    }
}

impl State {
    fn new(
        fs: &Arc<dyn FileSystem>,
        dir: &Path,
        config: &WalConfig,
        scan: Scan,
        spares: Arc<Spares>,
        lock: Arc<dyn File>,
    ) -> Result<Self, WalError> {
        let mut segments = BTreeMap::new();
        for found in &scan.segments {
            let file = recovery::open_read(&**fs, &found.path)?;
            let segment = SegmentFile { file, path: found.path.as_path().into(), bytes: found.file_bytes };
            segments.insert(found.name.sequence, segment);
        }
        let mut open = segments[&scan.end.segment()].clone();
        open.file = fs.open(&open.path, OpenMode::ReadWrite).map_err(WalError::io("open", &*open.path))?;
        let writer = Writer::new(Arc::clone(fs), dir.to_owned(), spares, open.clone(), scan.end.byte())?;
        let start = Start { at: scan.end, file_bytes: open.bytes, chain: scan.chain, oldest: scan.oldest };
        Ok(Self {
            encoder: Encoder::new(config.identity, config.segment_bytes, &start),
            index: scan.index,
            cache: Cache::new(config.cache_bytes),
            hard_state: scan.state,
            disk_bytes: segments.values().map(|segment| segment.bytes).sum(),
            segments,
            written: scan.end,
            written_bytes: 0,
            writer: Some(Box::new(writer)),
            spare: Pending::default(),
            turns: Turns::default(),
            poisoned: None,
            closed: false,
            lock: Some(lock),
        })
    }

    pub(crate) fn check_readable(&self) -> Result<(), WalError> {
        if self.closed { Err(WalError::Closed) } else { Ok(()) }
    }

    pub(crate) fn check_writable(&self) -> Result<(), WalError> {
        self.check_readable()?;
        self.check_healthy()
    }

    pub(crate) fn check_healthy(&self) -> Result<(), WalError> {
        match &self.poisoned {
            Some(reason) => Err(WalError::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Bytes of segments that are planned and do not exist yet.
    pub(crate) fn planned_bytes(&self) -> u64 {
        self.disk_bytes - self.segments.values().map(|segment| segment.bytes).sum::<u64>()
    }

    /// Encodes one frame behind the others.
    pub(crate) fn push(
        &mut self,
        kind: Kind,
        index: LogIndex,
        term: Term,
        prefix: &[u8],
        data: &[u8],
    ) -> WalOffset {
        let context =
            Context { last: self.index.last(), last_term: self.index.last_term(), state: self.hard_state };
        let open = self.encoder.end().segment();
        // The encoder fills in how far everything is durable.
        let offset = self.encoder.push(&Meta { kind, index, term, durable: 0 }, prefix, data, &context);
        if open != offset.segment() {
            self.disk_bytes += self.encoder.file_bytes();
        }
        offset
    }

    fn push_entry(&mut self, entry: &Entry) -> WalOffset {
        let kind = Kind::Record(RecordType::Entry);
        let offset = self.push(kind, entry.index, entry.term, &[entry.entry_type as u8], &entry.data);
        let payload_bytes = u32::try_from(1 + entry.data.len()).expect("payloads are limited");
        self.index.push(entry.index, entry.term, Slot { offset, payload_bytes });
        self.cache.push(offset, entry.clone());
        offset
    }

    fn push_state(&mut self, state: &HardState) -> WalOffset {
        // First, so that a segment opened by this record repeats it and not its predecessor: both are right.
        let kind = Kind::Record(RecordType::State);
        let offset = self.push(kind, state.commit, state.term, &record::encode_vote(state), &[]);
        self.hard_state = *state;
        offset
    }

    /// Drops the entries from `from` on. The record carries the term before it, in case the segment that holds that entry
    /// is released while the record is kept.
    fn push_truncate(&mut self, from: LogIndex) -> WalOffset {
        let before = self.index.term(from.prev()).unwrap_or_else(|| self.index.last_term());
        let offset = self.push(Kind::Record(RecordType::Truncate), from, before, &[], &[]);
        self.index.truncate(from, before);
        self.cache.truncate(from);
        offset
    }

    fn push_snapshot(&mut self, index: LogIndex, term: Term) -> WalOffset {
        // Where another entry stands at the boundary, say so on disk: a reader that lacks the segment with that entry
        // could not know.
        let replaced =
            self.index.bounds().boundary < index && self.index.term(index).is_some_and(|held| held != term);
        let first = replaced.then(|| self.push_truncate(index));
        let offset = self.push(Kind::Record(RecordType::Snapshot), index, term, &[], &[]);
        self.index.snapshot(index, term);
        let bounds = self.index.bounds();
        self.cache.release(bounds.boundary);
        first.unwrap_or(offset)
    }

    fn invalid(&self, index: LogIndex, reason: &'static str) -> WalError {
        WalError::InvalidIndex { index, bounds: self.index.bounds(), reason }
    }

    /// Last entry that is on disk for certain, or the boundary.
    pub(crate) fn last_durable(&self) -> LogIndex {
        self.index.last_before(self.encoder.durable)
    }
}

impl Wal for FileWal {
    fn append(&self, record: WalRecord) -> Result<WalOffset, WalError> {
        let mut state = self.state();
        state.check_writable()?;
        let (index, term) = (record.index, record.term);
        let offset = match record.record_type {
            RecordType::Entry => {
                let entry = record::decode_entry(index, term, &record.data, 0..record.data.len())
                    .ok_or_else(|| state.invalid(index, "the record's first byte is no entry type"))?;
                check_entries(&state, std::slice::from_ref(&entry))?;
                self.check_room(&state, [0, record.data.len()].into_iter())?;
                if index <= state.index.last() {
                    state.push_truncate(index);
                }
                state.push_entry(&entry)
            }
            RecordType::State => {
                let hard_state = record::decode_state(index, term, &record.data)
                    .ok_or_else(|| state.invalid(index, "a hard state's data is a vote of 8 bytes"))?;
                self.check_room(&state, [VOTE_BYTES].into_iter())?;
                state.push_state(&hard_state)
            }
            RecordType::Snapshot => {
                let bounds = state.index.bounds();
                if index < bounds.boundary || (index == bounds.boundary && term != bounds.boundary_term) {
                    return Err(state.invalid(index, "a snapshot below the boundary, or other than it"));
                }
                if index == INDEX_END {
                    return Err(
                        state.invalid(index, "a snapshot at the largest number leaves none for an entry")
                    );
                }
                self.check_room(&state, [0, 0].into_iter())?;
                state.push_snapshot(index, term)
            }
            RecordType::Truncate => {
                if index <= state.index.bounds().boundary {
                    return Err(state.invalid(index, "nothing at or below the boundary can be truncated"));
                }
                self.check_room(&state, [0].into_iter())?;
                state.push_truncate(index)
            }
            RecordType::Crc => {
                return Err(state.invalid(index, "checksum records are written by the log alone"));
            }
        };
        self.bound_memory(state)?;
        Ok(offset)
    }

    fn append_many(&self, hard_state: Option<&HardState>, entries: &[Entry]) -> Result<WalOffset, WalError> {
        let mut state = self.state();
        state.check_writable()?;
        check_entries(&state, entries)?;
        let replaces = entries.first().is_some_and(|first| first.index <= state.index.last());
        let payloads = replaces
            .then_some(0)
            .into_iter()
            .chain(entries.iter().map(|entry| 1 + entry.data.len()))
            .chain(hard_state.map(|_| VOTE_BYTES));
        self.check_room(&state, payloads)?;

        let mut first = None;
        if let Some(entry) = entries.first()
            && replaces
        {
            first = Some(state.push_truncate(entry.index));
        }
        for entry in entries {
            let offset = state.push_entry(entry);
            first.get_or_insert(offset);
        }
        // Behind the entries: a torn group then never has a commit index above its last entry.
        if let Some(hard_state) = hard_state {
            let offset = state.push_state(hard_state);
            first.get_or_insert(offset);
        }
        let offset = first.unwrap_or(state.encoder.end());
        self.bound_memory(state)?;
        Ok(offset)
    }

    fn read(&self, offset: WalOffset) -> Result<WalRecord, WalError> {
        fetch::record(self, offset)
    }

    fn read_all(&self) -> Result<Vec<WalRecord>, WalError> {
        let mut records = Vec::new();
        self.scan(&mut |_, record| {
            records.push(record);
            true
        })?;
        Ok(records)
    }

    fn scan(&self, visit: &mut dyn FnMut(WalOffset, WalRecord) -> bool) -> Result<(), WalError> {
        fetch::scan(self, visit)
    }

    fn entries(&self, range: Range<LogIndex>, bytes_max: u64) -> Result<Vec<Entry>, WalError> {
        let state = self.state();
        state.check_readable()?;
        fetch::entries(state, range, bytes_max)
    }

    fn term(&self, index: LogIndex) -> Result<Term, WalError> {
        let state = self.state();
        state.check_readable()?;
        state.index.term(index).ok_or_else(|| state.invalid(index, "no entry of this index is held"))
    }

    fn bounds(&self) -> LogBounds {
        self.state().index.bounds()
    }

    fn hard_state(&self) -> HardState {
        self.state().hard_state
    }

    fn truncate(&self, from: LogIndex) -> Result<(), WalError> {
        let mut state = self.state();
        state.check_writable()?;
        if from <= state.index.bounds().boundary {
            return Err(state.invalid(from, "nothing at or below the boundary can be truncated"));
        }
        if state.index.last() < from {
            return Ok(());
        }
        self.check_room(&state, [0].into_iter())?;
        state.push_truncate(from);
        self.bound_memory(state)
    }

    fn release(&self, upto: LogIndex) -> Result<(), WalError> {
        release::release(self, upto)
    }

    fn sync(&self) -> Result<(), WalError> {
        let state = self.state();
        state.check_writable()?;
        let target = state.encoder.end();
        self.sync_to(state, target).1
    }

    fn disk_space(&self, upcoming_bytes: u64) -> DiskSpace {
        room::disk_space(self, upcoming_bytes)
    }

    fn unreserved_bytes(&self) -> u64 {
        room::unreserved_bytes(self)
    }

    fn close(&self) -> Result<(), WalError> {
        let mut state = self.state();
        state.check_readable()?;
        state.closed = true;
        let target = state.encoder.end();
        let (state, result) = self.sync_to(state, target);
        // A poisoned log did not wait for the write under way, which must not hit another process's log.
        drop(self.wait_for_writer(state));
        self.spares.close();
        self.state().lock = None;
        result
    }
}

/// Before the lock goes, as in `close`.
impl Drop for FileWal {
    fn drop(&mut self) {
        self.spares.close();
    }
}

impl std::fmt::Debug for FileWal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileWal")
            .field("dir", &self.dir)
            .field("bounds", &self.bounds())
            .finish_non_exhaustive()
    }
}

/// Refuses entries that do not continue the log, or each other.
fn check_entries(state: &State, entries: &[Entry]) -> Result<(), WalError> {
    let Some(first) = entries.first() else { return Ok(()) };
    state.index.check_entry(first.index, first.term)?;
    for pair in entries.windows(2) {
        if pair[0].index.next() != pair[1].index {
            return Err(state.invalid(pair[1].index, "the entries of a group must follow each other"));
        }
        if pair[1].index == INDEX_END {
            return Err(state.invalid(pair[1].index, "the place behind the last entry needs a number, too"));
        }
        if pair[1].term < pair[0].term {
            return Err(state.invalid(pair[1].index, "its term is below that of the entry before it"));
        }
    }
    Ok(())
}
