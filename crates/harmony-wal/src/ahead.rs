//! Reads the frames of segments in order. Of a long log, several segments are read and checked at a time, ahead of
//! whoever takes their frames in: each segment's opening says what it is chained to, so none needs the one before it.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use harmony_types::{FileSystem, OpenMode, WalError};

use crate::frame::{Header, Kind};
use crate::reader::{SegmentReader, Step};
use crate::record::VOTE_BYTES;
use crate::segment::{HEAD_BYTES, OPENING_BYTES};

/// A log of fewer bytes is read by the caller's thread alone.
const LONG_BYTES: u64 = 32 << 20;
/// More threads would check faster than one can take in.
const THREADS_MAX: usize = 4;
/// Frames that a thread hands over at once, and how often it may do so before they are taken: together some 14 MiB.
const BATCH_FRAMES: usize = 4096;
const BATCHES_AHEAD: usize = 64;

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
    /// Whether [`Sink::frame`] needs payloads: then nothing is read ahead.
    fn wants_payloads(&self) -> bool;
    /// One good frame, the seal included, with its payload if it was asked for.
    fn frame(&mut self, segment: usize, note: &Note, payload: Option<&[u8]>) -> Result<(), WalError>;
    /// The end of a segment.
    fn stop(&mut self, segment: usize, stop: Stop) -> Result<(), WalError>;
}

/// Reads all of `sources` and hands everything to `sink` in order.
pub(crate) fn read(fs: &dyn FileSystem, sources: &[Source], sink: &mut dyn Sink) -> Result<(), WalError> {
    let threads =
        thread::available_parallelism().map_or(1, NonZeroUsize::get).min(THREADS_MAX).min(sources.len());
    let bytes: u64 = sources.iter().map(|source| source.file_bytes).sum();
    if threads < 2 || bytes < LONG_BYTES || sink.wants_payloads() {
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
            feeds.push(taken);
            let share = sources.iter().skip(first).step_by(threads);
            thread::Builder::new()
                .name("wal-open".to_owned())
                .spawn_scoped(scope, move || check(fs, share, &feed))
                .map_err(WalError::io("start a thread to read", &sources[first].path))?;
        }
        // Dropping the feeds, after an error too, ends the threads.
        (0..sources.len()).try_for_each(|segment| take(&feeds[segment % threads], segment, sink))
    })
}

/// What a thread hands over.
enum Checked {
    Frames(Vec<Note>),
    Stop(Stop),
    Failed(WalError),
}

/// The work of one thread; ends early when nobody takes what it read.
fn check<'a>(fs: &dyn FileSystem, share: impl Iterator<Item = &'a Source>, feed: &SyncSender<Checked>) {
    for source in share {
        let mut batch = Vec::with_capacity(BATCH_FRAMES);
        let stop = frames(fs, source, |note, _| {
            batch.push(note);
            if batch.len() == BATCH_FRAMES {
                // A feed that nobody takes any more shows below.
                let _ = feed
                    .send(Checked::Frames(std::mem::replace(&mut batch, Vec::with_capacity(BATCH_FRAMES))));
            }
            Ok(())
        });
        let end = match stop {
            Ok(stop) => Checked::Stop(stop),
            Err(error) => Checked::Failed(error),
        };
        if feed.send(Checked::Frames(batch)).is_err() || feed.send(end).is_err() {
            return;
        }
    }
}

/// Takes in one segment.
fn take(feed: &Receiver<Checked>, segment: usize, sink: &mut dyn Sink) -> Result<(), WalError> {
    loop {
        match feed.recv().expect("a thread ends only behind its last segment") {
            Checked::Frames(notes) => notes.iter().try_for_each(|note| sink.frame(segment, note, None))?,
            Checked::Stop(stop) => return sink.stop(segment, stop),
            Checked::Failed(error) => return Err(error),
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
    let file = fs.open(&source.path, OpenMode::Read).map_err(WalError::io("open", &source.path))?;
    let mut reader = SegmentReader::new(file, source.path.clone(), source.sequence)?;
    let at = u32::try_from(HEAD_BYTES).expect("a small constant");
    let mut stop = Stop { at, sealed: false, chain: source.chain, synced: OPENING_BYTES };
    while let Step::Frame(header) = reader.step(stop.at, stop.chain)? {
        stop.chain = header.crc;
        stop.synced = stop.synced.max(header.durable);
        let payload = reader.payload(stop.at, &header)?;
        let mut start = [0; VOTE_BYTES];
        let known = payload.len().min(VOTE_BYTES);
        start[..known].copy_from_slice(&payload[..known]);
        visit(Note { at: stop.at, header, start }, payload)?;
        if header.kind == Kind::Seal.to_u8() {
            stop.sealed = true;
            break;
        }
        stop.at += u32::try_from(header.frame_bytes()).expect("frames are limited");
    }
    Ok(stop)
}
