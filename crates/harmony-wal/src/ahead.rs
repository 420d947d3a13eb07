//! Reads the frames of segments in order. Of a long log, several segments are read and checked at a time, ahead of
//! whoever takes their frames in: each segment's opening says what it is chained to, so none needs the one before it.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread;

use harmony_types::{FileSystem, OpenMode, WalError};

use crate::frame::{HEADER_BYTES, Header, Kind};
use crate::reader::{SegmentReader, Step};
use crate::record::VOTE_BYTES;
use crate::segment::{HEAD_BYTES, OPENING_BYTES};

/// A log of fewer bytes is read by the caller's thread alone.
const LONG_BYTES: u64 = 32 << 20;
/// More threads would check faster than one can take in.
const THREADS_MAX: usize = 4;
/// Frames that a thread hands over at once, and how often it may do so before they are taken: together some 14 MiB, and
/// 64 MiB more with payloads. About a segment: a thread need not wait until the one before it is taken.
const BATCH_FRAMES: usize = 4096;
const BATCHES_AHEAD: usize = 64;
/// What a thread may hand over with payloads before it is taken, unless a single record is larger.
const AHEAD_BYTES: usize = 64 << 20;
/// Threads that hand over payloads: what they have read ahead takes memory.
const PAYLOAD_THREADS_MAX: usize = 2;

/// A segment to read.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) sequence: u32,
    pub(crate) file_bytes: u64,
    /// Checksum of the last frame of the segment before.
    pub(crate) chain: u32,
}

/// What the replay needs of a good frame.
pub(crate) struct Note {
    pub(crate) at: u32,
    pub(crate) header: Header,
    /// The payload's first bytes, with zeros behind.
    pub(crate) start: [u8; VOTE_BYTES],
}

/// Where a segment's good frames end.
#[derive(Clone, Copy)]
pub(crate) struct Stop {
    /// At this byte: the seal, or no good frame.
    pub(crate) at: u32,
    pub(crate) sealed: bool,
    /// Checksum of the last good frame, the seal included.
    pub(crate) chain: u32,
    /// Byte up to which the frames say that they were synced.
    pub(crate) synced: u32,
}

/// Takes in what was read, segment by segment.
pub(crate) trait Sink {
    /// Whether [`Sink::frame`] needs payloads.
    fn wants_payloads(&self) -> bool;
    /// One good frame, the seal included, with its payload if it was asked for.
    fn frame(&mut self, segment: usize, note: &Note, payload: Option<&[u8]>) -> Result<(), WalError>;
    /// The end of a segment.
    fn stop(&mut self, segment: usize, stop: Stop) -> Result<(), WalError>;
}

/// Reads all of `sources` and hands everything to `sink` in order.
pub(crate) fn read(fs: &dyn FileSystem, sources: &[Source], sink: &mut dyn Sink) -> Result<(), WalError> {
    let payloads = sink.wants_payloads();
    let threads_max = if payloads { PAYLOAD_THREADS_MAX } else { THREADS_MAX };
    let threads =
        thread::available_parallelism().map_or(1, NonZeroUsize::get).min(threads_max).min(sources.len());
    let bytes: u64 = sources.iter().map(|source| source.file_bytes).sum();
    if threads < 2 || bytes < LONG_BYTES {
        for (segment, source) in sources.iter().enumerate() {
            let stop = frames(fs, source, |note, payload| sink.frame(segment, &note, Some(payload)))?;
            sink.stop(segment, stop)?;
        }
        return Ok(());
    }
    thread::scope(|scope| {
        let mut feeds = Vec::with_capacity(threads);
        for first in 0..threads {
            let (feed, taken) = mpsc::sync_channel(BATCHES_AHEAD);
            let (used, reused) = mpsc::channel();
            feeds.push(Feed { taken, used });
            let share = sources.iter().skip(first).step_by(threads);
            let mut checker = Checker { fs, feed, reused, ahead: 0, payloads };
            thread::Builder::new()
                .name("wal-open".to_owned())
                .spawn_scoped(scope, move || checker.run(share))
                .map_err(WalError::io("start a thread to read", &sources[first].path))?;
        }
        // Dropping the feeds, after an error too, ends the threads.
        (0..sources.len()).try_for_each(|segment| feeds[segment % threads].take(segment, sink))
    })
}

/// What a thread hands over.
enum Checked {
    Frames(Batch),
    Stop(Stop),
    Failed(WalError),
}

/// Frames that follow each other.
#[derive(Default)]
struct Batch {
    notes: Vec<Note>,
    /// The bytes in which they stand, and where in the segment those start; nothing if nobody wants them.
    chunk: Vec<u8>,
    chunk_at: u64,
}

impl Batch {
    fn bytes(&self) -> usize {
        self.chunk.len() + size_of::<Note>() * self.notes.len()
    }

    /// `None` where nobody asked for payloads. A chunk holds its frames whole.
    fn payload(&self, note: &Note) -> Option<&[u8]> {
        let frame = usize::try_from(u64::from(note.at) - self.chunk_at).expect("within the chunk");
        let payload = frame + HEADER_BYTES..frame + HEADER_BYTES + note.header.payload_bytes();
        (!self.chunk.is_empty()).then(|| &self.chunk[payload])
    }
}

/// What one thread reads.
struct Checker<'a> {
    fs: &'a dyn FileSystem,
    feed: SyncSender<Checked>,
    /// Batches that were taken in: their memory is filled again.
    reused: Receiver<Batch>,
    /// Bytes handed over and not yet known to be taken in.
    ahead: usize,
    payloads: bool,
}

impl Checker<'_> {
    /// The work of one thread; ends early when nobody takes what it read.
    fn run<'s>(&mut self, share: impl Iterator<Item = &'s Source>) {
        for source in share {
            let end = match self.segment(source) {
                Ok(stop) => Checked::Stop(stop),
                Err(error) => Checked::Failed(error),
            };
            if self.feed.send(end).is_err() {
                return;
            }
        }
    }

    fn segment(&mut self, source: &Source) -> Result<Stop, WalError> {
        let mut walk = Walk::new(self.fs, source)?;
        let mut notes = Vec::with_capacity(BATCH_FRAMES);
        loop {
            let full = if self.payloads {
                !walk.reader.holds_frame(walk.stop.at)
            } else {
                notes.len() == BATCH_FRAMES
            };
            if full {
                self.hand_over(&mut walk, &mut notes);
            }
            let Some(note) = walk.next()? else { break };
            notes.push(note);
        }
        self.hand_over(&mut walk, &mut notes);
        Ok(walk.stop)
    }

    fn hand_over(&mut self, walk: &mut Walk, notes: &mut Vec<Note>) {
        if notes.is_empty() {
            return;
        }
        let mut batch = self.reused.try_recv().unwrap_or_default();
        self.ahead -= batch.bytes();
        if self.payloads {
            (batch.chunk_at, batch.chunk) = walk.reader.exchange(batch.chunk);
        }
        batch.notes.clear();
        std::mem::swap(&mut batch.notes, notes);
        let bytes = batch.bytes();
        while self.ahead != 0 && AHEAD_BYTES < self.ahead + bytes {
            // Nobody takes any more when there is none: that shows at the end of the segment.
            let Ok(taken) = self.reused.recv() else { break };
            self.ahead -= taken.bytes();
        }
        self.ahead += bytes;
        let _ = self.feed.send(Checked::Frames(batch));
    }
}

/// The other end of a feed.
struct Feed {
    taken: Receiver<Checked>,
    used: Sender<Batch>,
}

impl Feed {
    /// Takes in one segment.
    fn take(&self, segment: usize, sink: &mut dyn Sink) -> Result<(), WalError> {
        loop {
            match self.taken.recv().expect("a thread ends only behind its last segment") {
                Checked::Frames(batch) => {
                    for note in &batch.notes {
                        sink.frame(segment, note, batch.payload(note))?;
                    }
                    // A thread that is done needs none.
                    let _ = self.used.send(batch);
                }
                Checked::Stop(stop) => return sink.stop(segment, stop),
                Checked::Failed(error) => return Err(error),
            }
        }
    }
}

/// Reads the good frames of one segment, each with its payload, up to and with its seal, or to the first that is
/// not good.
pub(crate) fn frames(
    fs: &dyn FileSystem,
    source: &Source,
    mut visit: impl FnMut(Note, &[u8]) -> Result<(), WalError>,
) -> Result<Stop, WalError> {
    let mut walk = Walk::new(fs, source)?;
    while let Some(note) = walk.next()? {
        let payload = walk.reader.payload(note.at, &note.header)?;
        visit(note, payload)?;
    }
    Ok(walk.stop)
}

/// The way through the good frames of one segment.
struct Walk {
    reader: SegmentReader,
    stop: Stop,
}

impl Walk {
    fn new(fs: &dyn FileSystem, source: &Source) -> Result<Self, WalError> {
        let file = fs.open(&source.path, OpenMode::Read).map_err(WalError::io("open", &source.path))?;
        let reader = SegmentReader::new(file, source.path.clone(), source.sequence)?;
        let at = u32::try_from(HEAD_BYTES).expect("a small constant");
        Ok(Self { reader, stop: Stop { at, sealed: false, chain: source.chain, synced: OPENING_BYTES } })
    }

    /// The next frame, the seal included; `None` behind it, or where no good frame stands.
    fn next(&mut self) -> Result<Option<Note>, WalError> {
        let stop = &mut self.stop;
        if stop.sealed {
            return Ok(None);
        }
        let Step::Frame(header) = self.reader.step(stop.at, stop.chain)? else { return Ok(None) };
        stop.chain = header.crc;
        stop.synced = stop.synced.max(header.durable);
        let payload = self.reader.payload(stop.at, &header)?;
        let mut start = [0; VOTE_BYTES];
        let known = payload.len().min(VOTE_BYTES);
        start[..known].copy_from_slice(&payload[..known]);
        let note = Note { at: stop.at, header, start };
        if header.kind == Kind::Seal.to_u8() {
            stop.sealed = true;
        } else {
            stop.at += u32::try_from(header.frame_bytes()).expect("frames are limited");
        }
        Ok(Some(note))
    }
}
