//! What is certain of a damaged log: read to its end, over the damage.
//!
//! - A frame whose header can be trusted (its link holds), but not its payload, is known by kind, index and term. An entry's
//!   content is lost. A vote that is lost counts as given to this member itself, so that it gives none in that term.
//! - Bytes between two good frames that say nothing, a *gap*, may have held anything. What follows must make up for it: a later
//!   `State` record, such as each segment opens with, for term and vote; and a later entry, or a segment's head, of the same term
//!   as the last entry before, for the entries. One term has one leader, which writes one entry at one place: so the terms of all
//!   between are known, and none before was replaced.
//! - The end must be one that opening would take for an end: free space, or a torn write that nobody acknowledged.
//!
//! Anything else is refused.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use harmony_types::config::Identity;
use harmony_types::{Entry, FileSystem, HardState, LogIndex, RecordType, Term, WalError, WalOffset};

use super::prefix;
use crate::frame::{self, HEADER_BYTES, Header, Kind};
use crate::index::{INDEX_END, Index, Slot};
use crate::reader::SegmentReader;
use crate::record::{self, VOTE_BYTES};
use crate::recovery::{self, corrupt};
use crate::segment::{HEAD_BYTES, Head, OPENING_BYTES, SegmentName};
use crate::sums::RangeSums;
use crate::tail::{self, Met, Tail};

/// See the module.
#[derive(Debug)]
pub(super) struct Remains {
    /// All segments that are there, released ones too.
    pub(super) names: Vec<SegmentName>,
    /// Terms of entries; not where they stand.
    pub(super) index: Index,
    pub(super) state: HardState,
    /// The last entry whose content may be lost.
    pub(super) last_damaged: LogIndex,
    /// Entries whose content was asked for and is there.
    pub(super) entries: BTreeMap<LogIndex, Entry>,
}

/// Reads the log in `dir`; keeps the content of entries behind `keep_behind`.
pub(super) fn read(
    fs: &dyn FileSystem,
    dir: &Path,
    identity: Identity,
    keep_behind: Option<LogIndex>,
) -> Result<Remains, WalError> {
    let (names, _) = recovery::list(fs, dir)?;
    prefix::check_heads(fs, dir, &names)?;
    let hole = (1..names.len()).rev().find(|slot| names[slot - 1].sequence + 1 != names[*slot].sequence);
    let run = &names[hole.unwrap_or(0)..];
    let missing =
        |sequence: u64| WalError::MissingSegment { dir: dir.to_owned(), sequence, index: LogIndex::ZERO };
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return Err(missing(1)) };
    let mut reading = Reading {
        // The first segment's head says better, if it is good.
        index: Index::new(first.first.prev(), Term(0)),
        state: None,
        oldest: 0,
        gap: false,
        last_damaged: LogIndex::ZERO,
        entries: BTreeMap::new(),
        keep_behind,
        identity,
    };
    for name in run {
        let path = name.path(dir);
        let segment = Segment::read(fs, &path, *name)?;
        if let Some(head) = &segment.head {
            head.check_identity(identity, &path)?;
            reading.head(head, name == first);
        }
        let frames = if name == last { segment.settled(&path)? } else { segment.closed() };
        frames.into_iter().try_for_each(|seen| reading.take(&path, seen))?;
    }
    if reading.oldest.max(1) < first.sequence {
        return Err(missing(u64::from(first.sequence) - 1));
    }
    let path = last.path(dir);
    reading.finish(names, &path)
}

/// One place of a segment.
enum Seen {
    /// A frame, with what is there of its payload; `None` when that is damaged.
    Frame(WalOffset, Header, Option<Bytes>),
    /// Bytes that say nothing.
    Gap,
}

impl Seen {
    fn is_good(&self) -> bool {
        matches!(self, Self::Frame(_, _, Some(_)))
    }

    fn is_seal(&self) -> bool {
        matches!(self, Self::Frame(_, header, _) if Kind::from_u8(header.kind) == Some(Kind::Seal))
    }
}

struct Segment {
    name: SegmentName,
    /// `None` when it is damaged.
    head: Option<Head>,
    frames: Vec<Seen>,
    /// All bytes, without the zeros at the end.
    bytes: Bytes,
}

impl Segment {
    fn read(fs: &dyn FileSystem, path: &Path, name: SegmentName) -> Result<Self, WalError> {
        let mut reader = SegmentReader::new(recovery::open_read(fs, path)?, path.to_owned(), name.sequence)?;
        let bytes = Bytes::from(reader.rest(0)?);
        let head = bytes.first_chunk().and_then(|bytes| Head::decode(bytes, path, name).ok());
        let mut frames: Vec<Seen> = Vec::new();
        let mut chain = None;
        // The two frames of the opening say that all of it was synced, which no other frame may say of itself. They hold
        // nothing that was not before: what is damaged of them is left out.
        let mut byte = HEAD_BYTES;
        for payload_bytes in [4, VOTE_BYTES] {
            let at = WalOffset::new(name.sequence, u32::try_from(byte).expect("a small constant"));
            chain = None;
            if let Some(head) = bytes.get(byte..).and_then(<[u8]>::first_chunk)
                && let Some(payload) = bytes.get(byte + HEADER_BYTES..byte + HEADER_BYTES + payload_bytes)
                && frame::checksum(at, head, payload) == Header::decode(head).crc
            {
                let header = Header::decode(head);
                chain = Some(header.crc);
                frames.push(Seen::Frame(at, header, Some(bytes.slice_ref(payload))));
            }
            byte += frame::frame_bytes(payload_bytes);
        }
        let behind = bytes.slice(byte.min(bytes.len())..);
        let at = WalOffset::new(name.sequence, OPENING_BYTES);
        tail::frames(&mut RangeSums::new(&behind), &behind, at, chain, &mut |here, header, met| {
            match met {
                Met::Good(payload) => {
                    frames.push(Seen::Frame(here, *header, Some(behind.slice_ref(payload))));
                }
                Met::Header => frames.push(Seen::Frame(here, *header, None)),
                Met::Nothing if matches!(frames.last(), Some(Seen::Gap)) => {}
                Met::Nothing => frames.push(Seen::Gap),
            }
            false
        });
        Ok(Self { name, head, frames, bytes })
    }

    /// The frames of a segment that another one follows: up to its seal, or with a gap where that should be.
    fn closed(mut self) -> Vec<Seen> {
        match self.frames.iter().position(Seen::is_seal) {
            Some(seal) => self.frames.truncate(seal),
            None => self.frames.push(Seen::Gap),
        }
        self.frames
    }

    /// The frames of the last segment, without a torn write at its end.
    fn settled(mut self, path: &Path) -> Result<Vec<Seen>, WalError> {
        let good = self.frames.iter().rposition(Seen::is_good);
        let Some(Seen::Frame(at, header, _)) = good.map(|slot| &self.frames[slot]) else {
            let reason = "nothing of the newest segment can be read".to_owned();
            return Err(corrupt(path, 0, self.name.first.prev(), reason));
        };
        if self.frames.iter().any(Seen::is_seal) {
            let dir = path.parent().unwrap_or(Path::new("")).to_owned();
            let sequence = u64::from(self.name.sequence) + 1;
            return Err(WalError::MissingSegment { dir, sequence, index: self.name.first.prev() });
        }
        let end = at.byte() as usize + header.frame_bytes();
        let rest = self.bytes.get(end..).unwrap_or_default();
        let place = WalOffset::new(self.name.sequence, u32::try_from(end).unwrap_or(u32::MAX));
        if matches!(tail::judge(rest, place, header.crc), Tail::Clean | Tail::Torn) {
            self.frames.truncate(good.map_or(0, |slot| slot + 1));
        }
        Ok(self.frames)
    }
}

/// The log's state, as its frames tell it one by one.
struct Reading {
    index: Index,
    /// `None` when what was the newest one is in a gap.
    state: Option<HardState>,
    oldest: u32,
    /// Entries may be missing behind the last one.
    gap: bool,
    last_damaged: LogIndex,
    entries: BTreeMap<LogIndex, Entry>,
    keep_behind: Option<LogIndex>,
    identity: Identity,
}

impl Reading {
    /// A segment's head says which entry stands before it.
    fn head(&mut self, head: &Head, first: bool) {
        self.oldest = self.oldest.max(head.oldest);
        if first {
            self.index = Index::new(head.boundary, head.boundary_term);
        } else if self.gap
            && self.index.last() <= head.boundary
            && self.index.last_term() == head.boundary_term
        {
            self.stand_in(head.boundary);
            self.gap = false;
        }
    }

    fn take(&mut self, path: &Path, seen: Seen) -> Result<(), WalError> {
        let (at, header, payload) = match seen {
            Seen::Frame(at, header, payload) => (at, header, payload),
            Seen::Gap => {
                (self.gap, self.state) = (true, None);
                return Ok(());
            }
        };
        let refused = |index: LogIndex, reason: &str| Err(corrupt(path, at.byte(), index, reason.to_owned()));
        let Some(Kind::Record(kind)) = Kind::from_u8(header.kind) else {
            if Kind::from_u8(header.kind) == Some(Kind::Release) {
                self.oldest = self.oldest.max(u32::try_from(header.index.0).unwrap_or(0));
            }
            return Ok(());
        };
        let last = self.index.last();
        match kind {
            RecordType::Entry => return self.entry(path, at, &header, payload),
            RecordType::State => {
                let (term, commit) = (header.term, header.index);
                let own = || self.identity.node.map(|own| HardState { term, vote: Some(own), commit });
                self.state = payload.map_or_else(own, |payload| record::decode_state(commit, term, &payload));
            }
            RecordType::Truncate | RecordType::Snapshot if header.index == INDEX_END => {
                return refused(last, "an index that no log reaches");
            }
            RecordType::Truncate => {
                self.index.truncate(header.index, header.term);
                drop(self.entries.split_off(&header.index));
                self.last_damaged = self.last_damaged.min(header.index.prev());
            }
            RecordType::Snapshot => {
                self.index.snapshot(header.index, header.term);
                if self.index.last() < last {
                    self.entries.clear();
                }
                self.gap &= header.index < last;
            }
            RecordType::Crc => {}
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: &Path,
        at: WalOffset,
        header: &Header,
        payload: Option<Bytes>,
    ) -> Result<(), WalError> {
        let Header { index, term, .. } = *header;
        let last = self.index.last();
        if self.gap {
            // Only then is it certain which entries stand between, and that none before was replaced.
            if index <= last || term != self.index.last_term() || index == INDEX_END {
                let reason = "it is not certain which entries were there".to_owned();
                return Err(corrupt(path, at.byte(), last, reason));
            }
            self.stand_in(index.prev());
            self.gap = false;
        }
        self.index
            .check_entry(index, term)
            .map_err(|error| corrupt(path, at.byte(), last, error.to_string()))?;
        if index <= last {
            let before = self.index.term(index.prev()).expect("checked to be within the log");
            self.index.truncate(index, before);
            drop(self.entries.split_off(&index));
            self.last_damaged = self.last_damaged.min(index.prev());
        }
        let entry = payload.and_then(|payload| record::decode_entry(index, term, &payload, 0..payload.len()));
        self.push(index, term);
        match entry {
            None => self.last_damaged = index,
            Some(entry) => {
                if self.keep_behind.is_some_and(|behind| behind < index) {
                    self.entries.insert(index, entry);
                }
            }
        }
        Ok(())
    }

    /// Entries up to `last` were there, of the term of the last one before.
    fn stand_in(&mut self, last: LogIndex) {
        while self.index.last() < last {
            let (index, term) = (self.index.last().next(), self.index.last_term());
            self.push(index, term);
            self.last_damaged = index;
        }
    }

    fn push(&mut self, index: LogIndex, term: Term) {
        // Where it stands matters to nobody.
        self.index.push(index, term, Slot { offset: WalOffset::new(0, 0), payload_bytes: 0 });
    }

    fn finish(self, names: Vec<SegmentName>, path: &Path) -> Result<Remains, WalError> {
        let bounds = self.index.bounds();
        let refused = |reason: &str| Err(corrupt(path, 0, bounds.last, reason.to_owned()));
        if self.gap {
            return refused("it is not certain where the log ended");
        }
        let Some(state) = self.state else { return refused("the newest term and vote are damaged") };
        if bounds.last < state.commit {
            return refused("it ends before what is known to be committed");
        }
        let committed = state.commit.max(bounds.boundary);
        if committed != LogIndex::ZERO && self.index.term(committed) == Some(Term(0)) {
            return refused("the term of its beginning is damaged");
        }
        let Self { index, last_damaged, entries, .. } = self;
        Ok(Remains { names, index, state, last_damaged, entries })
    }
}
