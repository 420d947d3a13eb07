//! What stands behind the damage: every frame that is good by its own checksum, to say what a cut costs.

use std::path::{Path, PathBuf};

use harmony_types::{FileSystem, HardState, LogIndex, RecordType, WalError, WalOffset};

use super::prefix::Prefix;
use super::{Cut, Lost};
use crate::frame::{Header, Kind};
use crate::reader::SegmentReader;
use crate::record;
use crate::recovery;
use crate::segment::{HEAD_BYTES, Head, OPENING_BYTES, SegmentName};
use crate::sums::RangeSums;
use crate::tail;

/// What was found in one file from some byte on.
pub(super) struct Survey {
    path: PathBuf,
    /// First byte that goes; 0 for the whole file.
    offset: u64,
    /// How many go, without free space.
    pub(super) bytes: u64,
    records: u64,
    entries: Option<(LogIndex, LogIndex)>,
    /// Lowest index that a record drops or replaces.
    replaces_from: Option<LogIndex>,
    state: Option<HardState>,
    /// Newest word on which segment is the oldest needed.
    pub(super) oldest: u32,
    /// A frame says that bytes behind `offset` and the opening had been synced.
    synced: bool,
    /// Nothing stands there but the seal.
    only_seal: bool,
}

impl Survey {
    pub(super) fn cut(&self) -> Cut {
        let Self { path, offset, bytes, records, entries, .. } = self;
        Cut { path: path.clone(), offset: *offset, bytes: *bytes, records: *records, entries: *entries }
    }
}

/// Looks at what goes of the last segment kept.
pub(super) fn survey_tail(fs: &dyn FileSystem, prefix: &Prefix) -> Result<Survey, WalError> {
    let last = prefix.last();
    survey(fs, last.path.clone(), last.name, prefix.end, Some(prefix.chain))
}

/// Looks at a segment that goes as a whole.
pub(super) fn survey_whole(fs: &dyn FileSystem, dir: &Path, name: SegmentName) -> Result<Survey, WalError> {
    survey(fs, name.path(dir), name, 0, None)
}

/// `chain` is the checksum of the frame before, if it is known.
fn survey(
    fs: &dyn FileSystem,
    path: PathBuf,
    name: SegmentName,
    from: u32,
    chain: Option<u32>,
) -> Result<Survey, WalError> {
    let sequence = name.sequence;
    let mut reader = SegmentReader::new(recovery::open_read(fs, &path)?, path.clone(), sequence)?;
    let rest = reader.rest(from)?;
    let mut survey = Survey {
        path,
        offset: u64::from(from),
        bytes: rest.len() as u64,
        records: 0,
        entries: None,
        replaces_from: None,
        state: None,
        oldest: 0,
        synced: false,
        only_seal: false,
    };
    let head = rest.first_chunk().filter(|_| from == 0);
    if let Some(head) = head.and_then(|bytes| Head::decode(bytes, &survey.path, name).ok()) {
        survey.oldest = head.oldest.min(sequence);
    }
    let skipped = if from == 0 { HEAD_BYTES } else { 0 };
    let frames = rest.get(skipped..).unwrap_or_default();
    let at = WalOffset::new(sequence, from + u32::try_from(skipped).expect("a small constant"));
    tail::good_frames(&mut RangeSums::new(frames), frames, at, chain, &mut |here, header, payload| {
        survey.take(here, header, payload);
        let seal = Kind::from_u8(header.kind) == Some(Kind::Seal);
        survey.only_seal = seal && here == at && frames.len() <= header.frame_bytes();
        false
    });
    Ok(survey)
}

impl Survey {
    fn take(&mut self, at: WalOffset, header: &Header, payload: &[u8]) {
        let start = u32::try_from(self.offset).unwrap_or(u32::MAX).max(OPENING_BYTES);
        self.synced |= start < header.durable;
        let index = header.index;
        let record = match Kind::from_u8(header.kind) {
            Some(Kind::Record(record)) => record,
            Some(Kind::Release) => {
                let oldest = u32::try_from(index.0).unwrap_or(0).min(at.segment());
                self.oldest = self.oldest.max(oldest);
                return;
            }
            Some(Kind::Seal) | None => return,
        };
        match record {
            RecordType::Entry => {
                let (first, last) = self.entries.unwrap_or((index, index));
                self.entries = Some((first.min(index), last.max(index)));
            }
            RecordType::State => {
                self.state = record::decode_state(index, header.term, payload).or(self.state);
            }
            RecordType::Truncate | RecordType::Snapshot | RecordType::Crc => {}
        }
        if matches!(record, RecordType::Entry | RecordType::Truncate) {
            self.replaces_from = Some(self.replaces_from.map_or(index, |from| from.min(index)));
        }
        // Those of the opening are the log's own.
        self.records += u64::from(OPENING_BYTES <= at.byte());
    }
}

/// Adds up what goes: segments before the kept ones that were still needed, the rest of the last one kept, the segments
/// behind. `missing` says whether a segment in between is not there.
pub(super) fn sum(
    prefix: Option<&Prefix>,
    before: &[Survey],
    tail: Option<&Survey>,
    behind: &[Survey],
    missing: bool,
) -> Lost {
    let all = || before.iter().chain(tail).chain(behind);
    let mut lost = Lost { records: all().map(|survey| survey.records).sum(), ..Lost::default() };
    for (first, last) in all().filter_map(|survey| survey.entries) {
        let (lowest, highest) = lost.entries.unwrap_or((first, last));
        lost.entries = Some((lowest.min(first), highest.max(last)));
    }
    // A segment whose follower exists was synced to its end. A seal alone is no loss.
    let followed = (missing || tail.is_some_and(|tail| !tail.only_seal)) && !behind.is_empty()
        || 1 < behind.len()
        || !before.is_empty() && 1 < before.len() + usize::from(prefix.is_some());
    lost.synced = followed || all().any(|survey| survey.synced);
    let Some(prefix) = prefix else {
        lost.hard_state = all().filter_map(|survey| survey.state).next_back();
        return lost;
    };
    let newer = || tail.into_iter().chain(behind);
    let state = newer().filter_map(|survey| survey.state).next_back();
    lost.hard_state = state.filter(|state| *state != prefix.replay.state);
    let bounds = prefix.replay.index.bounds();
    let replaced = newer().filter_map(|survey| survey.replaces_from).min();
    lost.stale_from = replaced.map(|from| from.max(bounds.first())).filter(|from| *from <= bounds.last);
    lost
}
