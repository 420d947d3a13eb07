//! One commit that takes a batch into the tree: newest versions in key order, then all events in the order of the log.
//!
//! Writing a newest version returns the one that stood there, which the first event of its key replaced. So no version before
//! is held in memory but those of the batch under way, from its row to its event.

use std::sync::Arc;

use harmony_types::StorageError;
use harmony_types::planted::{self, Bug};

use super::{Batch, Slot};
use crate::tree::meta::{self, Progress};
use crate::tree::record::{LOG_KEY_BYTES, Replaced, VersionBuf, VersionRef, put_crc};
use crate::tree::{KvWriter, Table, counted};

impl Batch {
    /// Writes all but the progress row, whose counts it brings up to date.
    ///
    /// # Errors
    /// What the tree reports; [`StorageError::CorruptRecord`] when it lacks what a write replaced.
    pub(crate) fn commit(
        &self,
        writer: &mut dyn KvWriter,
        progress: &mut Progress,
    ) -> Result<(), StorageError> {
        let before = self.write_newest(writer, progress)?;
        self.append_events(writer, progress, before)?;
        for (name, row) in &self.rows {
            counted::set_state(writer, progress, name, row.as_deref())?;
        }
        if !Arc::ptr_eq(&self.settings.membership, &self.base.settings().membership) {
            meta::write_membership(writer, &self.settings.membership)?;
        }
        Ok(())
    }

    /// Returns the bodies of the versions that events replaced in the tree, by the event's place.
    fn write_newest(
        &self,
        writer: &mut dyn KvWriter,
        progress: &mut Progress,
    ) -> Result<Vec<Option<Box<[u8]>>>, StorageError> {
        let mut bodies = vec![None; self.events.len()];
        let mut row = Vec::new();
        let lost = usize::from(planted::is(Bug::CheckpointLosesWrite));
        for newest in self.newest.values().skip(lost) {
            let event = self.event_at(*newest);
            let key = event.key();
            row.clear();
            row.extend_from_slice(event.body());
            put_crc(key, &mut row);
            let first = self.first_of(*newest);
            let wanted = self.events[first].event.replaced().filter(|stub| stub.value_bytes.is_some());
            let mut body = None;
            counted::put_latest(writer, progress, key, &row, &mut |old| {
                if let Some(stub) = wanted {
                    let (version, bytes) = VersionRef::decode_latest_with_body(key, old)?;
                    body = (version.written == stub.written).then(|| bytes.into());
                }
                Ok(())
            })?;
            match wanted {
                Some(stub) if body.is_none() => return Err(stub.missing(key)),
                _ => bodies[first] = body,
            }
        }
        Ok(bodies)
    }

    /// The first event of a key, given the last one.
    fn first_of(&self, newest: u32) -> usize {
        let mut first = newest as usize;
        while let Some(earlier) = self.events[first].earlier {
            first = earlier as usize;
        }
        first
    }

    fn append_events(
        &self,
        writer: &mut dyn KvWriter,
        progress: &mut Progress,
        before: Vec<Option<Box<[u8]>>>,
    ) -> Result<(), StorageError> {
        if self.events.is_empty() {
            return Ok(());
        }
        let mut events = self.events.iter().zip(before);
        writer.append(Table::Log, &mut |log_key, row| {
            let Some((Slot { event, earlier }, body)) = events.next() else { return Ok(false) };
            log_key.clear();
            log_key.extend_from_slice(&event.version().written.log_key());
            let tombstone;
            let replaced = match (event.replaced(), earlier, &body) {
                (None, ..) => Replaced::None,
                (Some(_), Some(earlier), _) => Replaced::Here(self.event_at(*earlier).version()),
                (Some(stub), None, Some(body)) => {
                    Replaced::Here(VersionRef::decode_body(body).ok_or_else(|| stub.missing(event.key()))?)
                }
                (Some(stub), None, None) => {
                    tombstone = VersionBuf::tombstone(stub.written);
                    Replaced::Here(tombstone.borrowed())
                }
            };
            event.with(replaced).encode(row);
            progress.log_bytes += (LOG_KEY_BYTES + row.len()) as u64;
            Ok(true)
        })
    }
}
