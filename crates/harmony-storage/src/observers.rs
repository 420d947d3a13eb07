//! Who is told of changes as they are applied: of events those who watch, of leases those who count their time.
//!
//! Both are collected from memory while the commands' writes are at hand, so what a compaction in the same batch gives up
//! is told all the same; and told after the change is visible, in the order of applies. What an event replaced in the tree is
//! read in between, behind the memory's lock.

use std::sync::{Arc, Mutex, PoisonError};

use harmony_types::history::{EVENT_OVERHEAD_BYTES, Events, EventsRequest, HistoryObserver};
use harmony_types::lease::{LeaseChange, LeaseObserver};
use harmony_types::{
    CommandKind, History, Lease, LeaseId, Leases, Outcome, OutcomeKind, Revision, StorageError,
};

use crate::apply::Decoded;
use crate::batch::Batch;
use crate::events::{self, Written};
use crate::unified::UnifiedStorage;

/// See the module.
#[derive(Default)]
pub(crate) struct Observers {
    history: Mutex<Option<Arc<dyn HistoryObserver>>>,
    leases: Mutex<Option<Arc<dyn LeaseObserver>>>,
}

/// What one apply has to tell.
pub(crate) struct Told {
    revision: Revision,
    /// `None`: the revision is the old one.
    history: Option<ToldEvents>,
    leases: Vec<LeaseChange>,
}

/// Who is told, and the events.
type ToldEvents = (Arc<dyn HistoryObserver>, Option<Written>);

impl Observers {
    /// What is to be told of the commands that moved `batch` on from revision `before`. The memory's lock is held.
    ///
    /// # Errors
    /// What reading reports: the commands are rolled back then.
    pub(crate) fn collect(
        &self,
        batch: &Batch,
        before: Revision,
        entries: &[Decoded<'_>],
        outcomes: &[Outcome],
    ) -> Result<Told, StorageError> {
        let revision = batch.progress.revision;
        let history = match current(&self.history) {
            Some(observer) if before < revision => {
                let bytes_max = observer.bytes_max();
                let request = EventsRequest {
                    first: before.next().into(),
                    prev_kv: true,
                    bytes_max,
                    rows_max: bytes_max / EVENT_OVERHEAD_BYTES,
                    ..EventsRequest::default()
                };
                let events = if bytes_max == 0 { None } else { events::written(batch, &request)? };
                Some((observer, events))
            }
            _ => None,
        };
        let leases = entries.iter().zip(outcomes).flat_map(|(entry, outcome)| lease_changes(entry, outcome));
        Ok(Told { revision, history, leases: leases.collect() })
    }

    /// Tells it.
    pub(crate) fn tell(&self, told: Told) {
        if let Some((observer, events)) = told.history {
            // Whoever reads the history instead meets what cannot be read here.
            let events = events.and_then(|events| events.read().ok());
            observer.advanced(told.revision, events);
        }
        if !told.leases.is_empty()
            && let Some(observer) = current(&self.leases)
        {
            observer.changed(told.leases);
        }
    }

    /// A snapshot took the place of everything.
    pub(crate) fn replaced(&self, revision: Revision) {
        if let Some(observer) = current(&self.history) {
            observer.advanced(revision, None);
        }
        if let Some(observer) = current(&self.leases) {
            observer.replaced();
        }
    }
}

/// What an applied command did to leases.
fn lease_changes(entry: &Decoded<'_>, outcome: &Outcome) -> Vec<LeaseChange> {
    match (entry.kind(), &outcome.kind) {
        (Some(CommandKind::LeaseGrant(_)), Some(OutcomeKind::LeaseGrant(granted))) => {
            vec![LeaseChange::Granted { id: LeaseId(granted.id), ttl_s: granted.ttl }]
        }
        (Some(CommandKind::LeaseRevoke(revoke)), Some(OutcomeKind::LeaseRevoke(_))) => {
            vec![LeaseChange::Revoked { id: LeaseId(revoke.id) }]
        }
        (Some(CommandKind::LeaseCheckpoint(checkpoint)), Some(OutcomeKind::LeaseCheckpoint(_))) => {
            let remaining = checkpoint.leases.iter().map(|lease| LeaseChange::Remaining {
                id: LeaseId(lease.id),
                remaining_ttl_s: lease.remaining_ttl,
            });
            remaining.collect()
        }
        _ => Vec::new(),
    }
}

fn current<T: ?Sized>(slot: &Mutex<Option<Arc<T>>>) -> Option<Arc<T>> {
    // The value is whole at every moment.
    slot.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn replace<T: ?Sized>(slot: &Mutex<Option<Arc<T>>>, with: &Arc<T>) {
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(with));
}

impl History for UnifiedStorage {
    fn events(&self, request: &EventsRequest) -> Result<Events, StorageError> {
        Self::events(self, request)
    }

    fn observe(&self, observer: Arc<dyn HistoryObserver>) {
        let _applying = self.applying();
        replace(&self.observers.history, &observer);
        observer.advanced(self.progress().revision, None);
    }
}

impl Leases for UnifiedStorage {
    fn leases(&self) -> Result<Vec<Lease>, StorageError> {
        Self::leases(self)
    }

    fn observe_leases(&self, observer: Arc<dyn LeaseObserver>) {
        let _applying = self.applying();
        replace(&self.observers.leases, &observer);
        observer.replaced();
    }
}
