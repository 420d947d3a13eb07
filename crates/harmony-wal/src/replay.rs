//! The log's state, as its frames tell it one by one.

use harmony_types::{EntryType, HardState, RecordType, WalError, WalOffset};

use crate::ahead::Note;
use crate::frame::{Header, Kind};
use crate::index::{INDEX_END, Index, Slot};
use crate::record;
use crate::recovery::{Found, corrupt};
use crate::segment::{HEAD_BYTES, Head};

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

    /// Takes in one good frame of a segment.
    pub(crate) fn take(&mut self, found: &Found, note: &Note) -> Result<(), WalError> {
        let place = WalOffset::new(found.name.sequence, note.at);
        self.apply(place, note).map_err(|reason| corrupt(&found.path, note.at, self.index.last(), reason))
    }

    /// The error says what makes no sense about it.
    fn apply(&mut self, at: WalOffset, note: &Note) -> Result<(), String> {
        let header = &note.header;
        let kind =
            Kind::from_u8(header.kind).ok_or_else(|| format!("unknown kind of record {}", header.kind))?;
        let record = match kind {
            Kind::Seal => return Ok(()),
            Kind::Release => {
                self.oldest = u32::try_from(header.index.0).map_err(|_| "sequence number out of range")?;
                return Ok(());
            }
            Kind::Record(record) => record,
        };
        match record {
            RecordType::Entry => self.entry(at, note)?,
            RecordType::State => {
                let bytes = header.payload_bytes();
                let vote = note.start.get(..bytes).unwrap_or_default();
                self.state = record::decode_state(header.index, header.term, vote)
                    .ok_or_else(|| format!("a hard state of {bytes} bytes"))?;
            }
            RecordType::Snapshot if header.index == INDEX_END => {
                return Err("a snapshot at the largest number of all".to_owned());
            }
            RecordType::Snapshot => self.index.snapshot(header.index, header.term),
            RecordType::Truncate => self.index.truncate(header.index, header.term),
            RecordType::Crc if at.byte() as usize == HEAD_BYTES => {}
            RecordType::Crc => return Err("a checksum record within a segment".to_owned()),
        }
        self.records += 1;
        Ok(())
    }

    fn entry(&mut self, at: WalOffset, note: &Note) -> Result<(), String> {
        let Header { index, term, .. } = note.header;
        let payload_bytes = note.header.payload_bytes();
        if payload_bytes == 0 || EntryType::from_u8(note.start[0]).is_none() {
            return Err(format!("entry {index} has no known type"));
        }
        self.index.check_entry(index, term).map_err(|error| error.to_string())?;
        if index <= self.index.last() {
            let before = self.index.term(index.prev()).expect("checked to be within the log");
            self.index.truncate(index, before);
        }
        let payload_bytes = u32::try_from(payload_bytes).expect("payloads are limited");
        self.index.push(index, term, Slot { offset: at, payload_bytes });
        Ok(())
    }
}
