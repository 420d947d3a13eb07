//! What happened to the keys, as the first member that applied it tells: judges compare it with what clients saw.

use harmony_storage::UnifiedStorage;
use harmony_types::history::{EventsRequest, HistoryPosition};
use harmony_types::{Event, KeyRange, NodeId, Revision};

use crate::history::Moment;

/// See the module.
#[derive(Default)]
pub(super) struct Told {
    events: Vec<Event>,
    /// All up to this revision were told.
    revision: u64,
    /// Some were compacted before anybody asked.
    is_cut: bool,
    /// When members were started.
    pub(super) restarts: Vec<(NodeId, Moment)>,
}

impl Told {
    /// Takes in what a member has applied and no other had.
    pub(super) fn listen(&mut self, storage: &UnifiedStorage) {
        let newest = storage.revision().0;
        if self.is_cut || newest <= self.revision {
            return;
        }
        let request = EventsRequest {
            first: HistoryPosition { revision: Revision(self.revision + 1), sub: 0 },
            keys: KeyRange::all(),
            prev_kv: false,
            bytes_max: u64::MAX,
            rows_max: u64::MAX,
        };
        match storage.events(&request) {
            Ok(events) => {
                self.events.extend(events.events);
                self.revision = newest;
            }
            // Compacted, or its disk was hurt: the judge that needs all of them has to do without.
            Err(_) => self.is_cut = true,
        }
    }

    /// The newest revision that was told.
    pub(super) const fn revision(&self) -> u64 {
        self.revision
    }

    /// All events, if none is missing.
    pub(super) fn take_whole(&mut self) -> Option<Vec<Event>> {
        (!self.is_cut).then(|| std::mem::take(&mut self.events))
    }
}
