//! Collecting events until an answer is full, whole revisions where that is possible.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use harmony_types::history::{Events, EventsRequest, HistoryPosition};
use harmony_types::{Event, EventType, KeyValue, Revision, StorageError};

use crate::batch::{Batch, Before, OwnEvent, Stub};
use crate::mvcc::history;
use crate::tree::record::{EventRef, Replaced, Version, VersionBuf, VersionRef, WrittenAt, corrupt};
use crate::tree::{NEXT, STOP, Table};
use crate::view::{Reads, View};

/// Size of the buffers that events out of the tree share. An event costs one copy and no allocation of its own, and one that
/// is kept keeps no more than this.
const BUFFER_BYTES: usize = 64 << 10;

/// See the module.
pub(super) struct Collector<'a> {
    request: &'a EventsRequest,
    compact: Revision,
    events: Vec<Event>,
    /// Events whose version before is still to be read in the tree that was below them.
    unread: Vec<Unread>,
    buffer: BytesMut,
    bytes: u64,
    rows: u64,
    /// Behind the last event looked at.
    next: HistoryPosition,
    /// The revision of that event, and how many events were collected before it.
    last: (Revision, usize),
    full: bool,
}

impl<'a> Collector<'a> {
    /// Nothing yet.
    pub(super) fn new(request: &'a EventsRequest, compact: Revision) -> Self {
        Self {
            request,
            compact,
            events: Vec::new(),
            unread: Vec::new(),
            buffer: BytesMut::new(),
            bytes: 0,
            rows: 0,
            next: request.first,
            last: (request.first.revision, 0),
            full: false,
        }
    }

    /// Where to go on.
    pub(super) fn next(&self) -> HistoryPosition {
        self.next
    }

    /// Whether nothing more is to be collected.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Events looked at.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// The answer, `revision` being the newest.
    pub(super) fn finish(self, revision: Revision) -> Events {
        Events { events: self.events, next: self.next, revision }
    }

    /// The answer from memory alone; `None` when it is not all up to `revision`.
    pub(super) fn into_written(self, revision: Revision) -> Option<Written> {
        (revision < self.next.revision).then_some(Written { events: self.events, unread: self.unread })
    }

    /// There is no event behind the last one up to `revision`.
    pub(super) fn reached(&mut self, revision: Revision) {
        if !self.full && self.next.revision <= revision {
            self.next = revision.next().into();
            // Behind a part of a revision comes none of another one.
            self.full = self.request.first.sub != 0;
        }
    }

    /// Collects what a tree holds.
    ///
    /// # Errors
    /// What reading reports.
    pub(super) fn scan(&mut self, tree: &View) -> Result<(), StorageError> {
        tree.events_from(self.next.into(), &mut |event| self.copy(tree, &event))
    }

    /// Takes an event that is borrowed from a page.
    fn copy(&mut self, reads: &dyn Reads, event: &EventRef<'_>) -> Result<ControlFlow<()>, StorageError> {
        let EventRef { key, version, .. } = event;
        if !self.request.keys.contains(key) {
            return Ok(self.look(version.written, 0));
        }
        let (found, borrowed);
        let replaced = match &event.replaced {
            _ if !self.wants_replaced(version) => None,
            Replaced::Here(replaced) if is_older(replaced, version) => Some(replaced),
            Replaced::None => None,
            elsewhere => {
                found = before_revision(reads, key, version.written.revision, elsewhere)?;
                borrowed = found.as_ref().map(VersionBuf::borrowed);
                borrowed.as_ref()
            }
        };
        let replaced = replaced.filter(|replaced| replaced.live);
        let flow = self.look(version.written, size(key, version, replaced));
        if flow.is_continue() {
            let key = self.own(key);
            let value = self.own(version.value);
            let prev_kv = replaced.map(|replaced| {
                let value = self.own(replaced.value);
                replaced.to_key_value(key.clone(), value)
            });
            self.push(version.live, version.to_key_value(key, value), prev_kv);
        }
        Ok(flow)
    }

    /// Takes an event that `batch` has in memory; its bytes are shared. What it replaced in the tree is left to
    /// [`Collector::read_before`].
    pub(super) fn share(
        &mut self,
        batch: &Batch,
        OwnEvent { event, before }: OwnEvent<'_>,
    ) -> Result<ControlFlow<()>, StorageError> {
        let version = event.version();
        if !self.request.keys.contains(event.key()) {
            return Ok(self.look(version.written, 0));
        }
        let revision = version.written.revision;
        let (mut replaced, mut unread) = (None, None);
        if self.wants_replaced(&version) {
            match before {
                Before::None => {}
                Before::Written(earlier) if is_older(&earlier.version(), &version) => {
                    replaced = Some(earlier.to_buf());
                }
                Before::Written(earlier) => {
                    let at = Replaced::InLog(earlier.version().written);
                    replaced = before_revision(batch, event.key(), revision, &at)?;
                }
                // The tree below is older than any event on it.
                Before::InTree(stub) => unread = Some(stub),
            }
        }
        let replaced = replaced.filter(|replaced| replaced.live);
        let borrowed = replaced.as_ref().map(VersionBuf::borrowed);
        let mut bytes = size(event.key(), &version, borrowed.as_ref());
        let unread = unread.and_then(|stub| Some((stub, stub.value_bytes?)));
        bytes += unread.map_or(0, |(_, value_bytes)| (event.key().len() + value_bytes) as u64);
        let flow = self.look(version.written, bytes);
        if flow.is_continue() {
            let (key, version) = event.to_bufs();
            if let Some((stub, _)) = unread {
                self.unread.push((self.events.len(), stub, Arc::clone(batch.tree())));
            }
            let of = |version: &VersionBuf| version.to_key_value(key.clone(), version.value.clone());
            self.push(version.live, of(&version), replaced.as_ref().map(of));
        }
        Ok(flow)
    }

    /// Reads what events that were taken from memory replaced in the tree: for those who hold no lock.
    ///
    /// # Errors
    /// What reading reports.
    pub(super) fn read_before(&mut self) -> Result<(), StorageError> {
        let (mut events, unread) = (std::mem::take(&mut self.events), std::mem::take(&mut self.unread));
        let read = read_before(&mut events, unread, &mut |value| self.own(value));
        self.events = events;
        read
    }

    /// What was there before is that of the revision before, which must be readable; a put that created the key has nothing
    /// before it.
    fn wants_replaced(&self, version: &VersionRef<'_>) -> bool {
        let written = version.written.revision;
        self.request.prev_kv && self.compact < written && !(version.live && version.create == written)
    }

    /// Looks at the next event, of which the answer would take so many bytes; says whether it belongs to the answer. If
    /// not, the answer is full, and is cut back to whole revisions.
    fn look(&mut self, written: WrittenAt, bytes: u64) -> ControlFlow<()> {
        let EventsRequest { first, bytes_max, rows_max, .. } = *self.request;
        if self.last.0 < written.revision {
            self.last = (written.revision, self.events.len());
            self.next = written.revision.into();
            // Behind a part of a revision comes none of another one.
            self.full = first.sub != 0;
        }
        let too_many_rows = self.rows != 0 && rows_max <= self.rows;
        let too_many_bytes = !self.events.is_empty() && bytes_max < self.bytes + bytes;
        if !self.full && (too_many_rows || too_many_bytes) {
            self.full = true;
            let (revision, whole) = self.last;
            // The revision at which the answer begins cannot be left to the next one: all of them would begin there.
            if first.revision < revision {
                self.events.truncate(whole);
                self.next = revision.into();
            }
        }
        if self.full {
            return STOP;
        }
        self.rows += 1;
        self.bytes += bytes;
        let sub = written.sub.checked_add(1).expect("a command's writes fit in memory, so in 32 bits");
        self.next = HistoryPosition { revision: written.revision, sub };
        NEXT
    }

    fn push(&mut self, live: bool, kv: KeyValue, prev_kv: Option<KeyValue>) {
        let event_type = if live { EventType::Put } else { EventType::Delete };
        self.events.push(Event { event_type: event_type.into(), kv: Some(kv), prev_kv });
    }

    /// A copy of `bytes` in the shared buffer.
    fn own(&mut self, bytes: &[u8]) -> Bytes {
        if bytes.is_empty() {
            return Bytes::new();
        }
        if self.buffer.capacity() < bytes.len() {
            self.buffer = BytesMut::with_capacity(BUFFER_BYTES.max(bytes.len()));
        }
        self.buffer.extend_from_slice(bytes);
        self.buffer.split().freeze()
    }
}

/// Events of memory, of which some still lack what they replaced in the tree.
pub(crate) struct Written {
    events: Vec<Event>,
    unread: Vec<Unread>,
}

impl Written {
    /// The events with what they replaced: for those who hold no lock.
    ///
    /// # Errors
    /// What reading reports.
    pub(crate) fn read(self) -> Result<Vec<Event>, StorageError> {
        let Self { mut events, unread } = self;
        read_before(&mut events, unread, &mut Bytes::copy_from_slice)?;
        Ok(events)
    }
}

/// The place of an event, and what it replaced in the tree that was below it.
type Unread = (usize, Stub, Arc<View>);

fn read_before(
    events: &mut [Event],
    unread: Vec<Unread>,
    own: &mut dyn FnMut(&[u8]) -> Bytes,
) -> Result<(), StorageError> {
    for (number, stub, tree) in unread {
        // It may have been cut off again.
        let Some(event) = events.get_mut(number) else { continue };
        let Some(kv) = &event.kv else { continue };
        let key = kv.key.clone();
        let mut prev_kv = None;
        stub.version_in(&tree, &key, &mut |version| {
            prev_kv = Some(version.to_key_value(key.clone(), own(version.value)));
            Ok(())
        })?;
        event.prev_kv = prev_kv;
    }
    Ok(())
}

/// Bytes that count for an event.
fn size(key: &[u8], version: &VersionRef<'_>, replaced: Option<&VersionRef<'_>>) -> u64 {
    let replaced = replaced.map_or(0, |replaced| key.len() + replaced.value.len());
    (key.len() + version.value.len() + replaced) as u64
}

fn is_older(replaced: &VersionRef<'_>, version: &VersionRef<'_>) -> bool {
    replaced.written.revision < version.written.revision
}

/// The version of a key before `revision`, in which a write `replaced` that. It is looked for further back when one
/// transaction wrote the key twice, and in the log when the event only points there.
fn before_revision(
    reads: &dyn Reads,
    key: &[u8],
    revision: Revision,
    replaced: &Replaced<VersionRef<'_>>,
) -> Result<Option<VersionBuf>, StorageError> {
    let mut written = match replaced {
        Replaced::None => return Ok(None),
        Replaced::Here(version) if version.written.revision < revision => return Ok(Some(version.to_buf())),
        Replaced::Here(version) => version.written,
        Replaced::InLog(written) => *written,
    };
    loop {
        let (mut found, mut further) = (None, None);
        history::event_of(reads, key, written, &mut |event| {
            if event.version.written.revision < revision {
                found = Some(event.version.to_buf());
                return Ok(());
            }
            match event.replaced {
                Replaced::None => {}
                Replaced::Here(version) if version.written.revision < revision => {
                    found = Some(version.to_buf());
                }
                Replaced::Here(Version { written, .. }) | Replaced::InLog(written) => further = Some(written),
            }
            Ok(())
        })?;
        match further {
            None => return Ok(found),
            Some(older) if older < written => written = older,
            Some(_) => return Err(corrupt(Table::Log, &written.log_key(), "it replaced a later version")),
        }
    }
}
