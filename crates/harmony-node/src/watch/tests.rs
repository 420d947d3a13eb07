//! Random lives of a member with watchers, against a model: each watcher is told exactly what the model says.

mod closing;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use harmony_storage::{StorageConfig, UnifiedStorage};
use harmony_types::command::Compact;
use harmony_types::fake::fs::MemoryFileSystem;
use harmony_types::fake::seed::{SeededRng, for_each_seed};
use harmony_types::txn::{DeleteRange, Put, Txn, TxnOp, TxnOpKind};
use harmony_types::{
    Command, CommandKind, Entry, EntryType, HardState, KeyRange, LogIndex, Storage as _, Term,
};

use super::*;
use harmony_types::{Event, EventType, Revision, WatchId};
use std::sync::Arc;

/// What a watcher is told of one change: revision, whether put, key, value, value before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    revision: u64,
    put: bool,
    key: Bytes,
    value: Bytes,
    before: Option<Bytes>,
}

#[derive(Default)]
struct Wakes(AtomicU64);

impl WatchWake for Wakes {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn options() -> WatchOptions {
    WatchOptions {
        ring_bytes: 6_000,
        queue_bytes: 2_000,
        piece_bytes: 60,
        piece_rows: 30,
        pieces_bytes: 3_000,
        watchers_max: 500,
    }
}

/// A member's storage on its disk.
struct Member {
    disk: MemoryFileSystem,
    storage: Arc<UnifiedStorage>,
    /// The next entry to apply.
    next: usize,
}

impl Member {
    fn open(disk: MemoryFileSystem, next: usize) -> Self {
        let mut config = StorageConfig { tree_cache_bytes: 1 << 20, ..StorageConfig::default() };
        config.wal.segment_bytes = 64 << 10;
        let storage =
            UnifiedStorage::open(Arc::new(disk.clone()), Path::new("/wal"), Path::new("/tree"), config)
                .unwrap();
        Self { disk, storage: Arc::new(storage), next }
    }

    fn apply(&mut self, log: &[Entry], upto: usize) {
        let entries = &log[self.next..upto];
        if let Some(last) = entries.last() {
            let hard_state = HardState { term: Term(1), vote: None, commit: last.index };
            self.storage.save(Some(&hard_state), entries).unwrap();
            self.storage.sync().unwrap();
            self.storage.apply(entries).unwrap();
            self.next = upto;
        }
    }
}

/// What the keys went through.
#[derive(Default)]
struct Model {
    log: Vec<Entry>,
    /// The revision after each entry, and the compact revision then.
    after: Vec<(u64, u64)>,
    values: BTreeMap<Bytes, Bytes>,
    changes: Vec<Change>,
}

impl Model {
    fn state(&self) -> (u64, u64) {
        self.after.last().copied().unwrap_or((1, 0))
    }

    fn push(&mut self, kind: CommandKind, revision: u64, compact: u64) {
        let index = LogIndex(self.log.len() as u64 + 1);
        let data = Command::from(kind).encode_to_bytes();
        self.log.push(Entry { term: Term(1), index, entry_type: EntryType::Normal, data });
        self.after.push((revision, compact));
    }

    fn change(&mut self, revision: u64, key: &Bytes, value: Option<Bytes>) {
        let before = match &value {
            Some(value) => self.values.insert(key.clone(), value.clone()),
            None => self.values.remove(key),
        };
        let (put, value) = (value.is_some(), value.unwrap_or_default());
        self.changes.push(Change { revision, put, key: key.clone(), value, before });
    }

    fn command(&mut self, rng: &mut SeededRng) {
        let (revision, compact) = self.state();
        let next = revision + 1;
        match rng.below(20) {
            0 if compact.max(1) < revision => {
                let to = rng.range(compact.max(1) + 1..next);
                self.push(CommandKind::Compact(Compact { revision: to.cast_signed() }), revision, to);
            }
            1..4 => {
                let range = keys(rng);
                let gone: Vec<Bytes> =
                    self.values.keys().filter(|key| range.contains(key)).cloned().collect();
                for key in &gone {
                    self.change(next, key, None);
                }
                let delete = DeleteRange { key: range.key, range_end: range.end, ..DeleteRange::default() };
                self.push(
                    CommandKind::DeleteRange(delete),
                    if gone.is_empty() { revision } else { next },
                    compact,
                );
            }
            4..7 => {
                let letters: Vec<Bytes> = (b'a'..b'i').map(|letter| Bytes::from(vec![letter])).collect();
                let chosen: Vec<Bytes> = letters.into_iter().filter(|_| rng.chance(2, 3)).collect();
                let mut success = Vec::new();
                for key in &chosen {
                    let put = self.put(next, key.clone(), rng);
                    success.push(TxnOp { kind: Some(TxnOpKind::Put(put)) });
                }
                let revision = if chosen.is_empty() { revision } else { next };
                self.push(CommandKind::Txn(Txn { success, ..Txn::default() }), revision, compact);
            }
            _ => {
                let key = key(rng);
                let put = self.put(next, key, rng);
                self.push(CommandKind::Put(put), next, compact);
            }
        }
    }

    fn put(&mut self, revision: u64, key: Bytes, rng: &mut SeededRng) -> Put {
        let value = Bytes::from(format!("{revision}{}", "-".repeat(rng.index(0..40))));
        self.change(revision, &key, Some(value.clone()));
        Put { key, value, ..Put::default() }
    }
}

fn key(rng: &mut SeededRng) -> Bytes {
    Bytes::from(vec![*rng.pick(b"abcdefgh")])
}

fn keys(rng: &mut SeededRng) -> KeyRange {
    match rng.below(5) {
        0 => KeyRange::all(),
        1 => KeyRange { key: key(rng), end: "\0".into() },
        2 => KeyRange { key: "b".into(), end: Bytes::from(vec![*rng.pick(b"cdefgh")]) },
        _ => KeyRange::single(key(rng)),
    }
}

/// A client's watcher, which outlives restarts of the member.
struct Watching {
    request: WatchRequest,
    start: u64,
    told: Vec<Change>,
    /// Its last message left the revision open.
    open: bool,
    created: bool,
    gone: bool,
}

struct Client {
    stream: WatchStream,
    wakes: Arc<Wakes>,
    watching: BTreeMap<WatchId, Watching>,
    ended: Vec<Watching>,
    /// Chance in eight that it polls when it could.
    eager: u64,
    progress_asked: bool,
}

struct World {
    model: Model,
    ahead: Member,
    member: Member,
    hub: WatchHub,
    clients: Vec<Client>,
}

impl World {
    fn new(rng: &mut SeededRng) -> Self {
        let member = Member::open(MemoryFileSystem::new(), 0);
        let hub = WatchHub::new(Arc::clone(&member.storage) as _, options());
        let client = |eager| {
            let wakes = Arc::new(Wakes::default());
            let stream = hub.stream(Arc::clone(&wakes) as _);
            Client {
                stream,
                wakes,
                watching: BTreeMap::new(),
                ended: Vec::new(),
                eager,
                progress_asked: false,
            }
        };
        let clients = (0..4).map(|_| client(*rng.pick(&[1, 4, 8]))).collect();
        Self {
            model: Model::default(),
            ahead: Member::open(MemoryFileSystem::new(), 0),
            member,
            hub,
            clients,
        }
    }

    /// The revision and the compact revision of the member.
    fn state(&self) -> (u64, u64) {
        self.member.next.checked_sub(1).map_or((1, 0), |last| self.model.after[last])
    }

    fn step(&mut self, rng: &mut SeededRng) {
        match rng.below(40) {
            0..10 => {
                for _ in 0..rng.range(1..8) {
                    self.model.command(rng);
                }
            }
            10..18 => {
                let upto = rng.index(self.member.next..self.model.log.len() + 1);
                self.member.apply(&self.model.log, upto);
            }
            18..24 => drop(self.hub.publish_step()),
            24..28 => drop(self.hub.history_step()),
            28..34 => {
                let client = rng.index(0..self.clients.len());
                if rng.chance(self.clients[client].eager, 8) {
                    self.poll(client, rng.range(1..2_000));
                }
            }
            34..37 => self.create(rng),
            37 => self.others(rng),
            38 if rng.chance(1, 8) => self.restart(),
            39 if rng.chance(1, 4) => self.install(),
            _ => {}
        }
        // The ring, as much twice on its way into it, what was read, and the newest read.
        assert!(self.hub.event_bytes() < 3 * 6_000 + 3_000 + 30 * 420, "{}", self.hub.event_bytes());
    }

    fn create(&mut self, rng: &mut SeededRng) {
        let (revision, _) = self.state();
        let start = match rng.below(4) {
            0 => Some(rng.range(1..revision + 2)),
            1 => Some(revision + rng.below(20)),
            _ => None,
        };
        let request = WatchRequest {
            keys: keys(rng),
            start: start.map(Revision),
            id: None,
            prev_kv: rng.chance(1, 2),
            no_puts: rng.chance(1, 8),
            no_deletes: rng.chance(1, 8),
            progress_notify: rng.chance(1, 2),
        };
        let client = rng.index(0..self.clients.len());
        let client = &mut self.clients[client];
        let id = client.stream.create(&request).unwrap();
        let start = start.unwrap_or(revision + 1);
        let watching =
            Watching { request, start, told: Vec::new(), open: false, created: false, gone: false };
        assert!(client.watching.insert(id, watching).is_none());
    }

    fn others(&mut self, rng: &mut SeededRng) {
        let client = rng.index(0..self.clients.len());
        let client = &mut self.clients[client];
        match rng.below(3) {
            0 => {
                if let Some(id) = client.watching.keys().next().copied() {
                    // It may have ended by itself, and nobody has heard of that yet.
                    let ended = client.stream.cancel(id);
                    assert!(!client.stream.cancel(id), "it is gone at once");
                    client.watching.get_mut(&id).unwrap().gone |= ended;
                }
            }
            1 => {
                client.stream.request_progress();
                client.progress_asked = true;
            }
            _ => client.stream.notify_progress(),
        }
    }

    /// The member dies; its clients come back and go on where they were.
    fn restart(&mut self) {
        let (disk, next) = (self.member.disk.clone(), self.member.next);
        self.hub.close();
        for client in &mut self.clients {
            while client.stream.poll(u64::MAX).iter().any(|message| *message != WatchMessage::Closed) {}
        }
        let clients = std::mem::take(&mut self.clients);
        let olds: Vec<_> = clients
            .into_iter()
            .map(|Client { stream, watching, ended, eager, .. }| {
                drop(stream);
                (watching, ended, eager)
            })
            .collect();
        // Whoever holds the storage gives it free.
        self.hub = WatchHub::new(Arc::clone(&self.ahead.storage) as _, options());
        let spare = Member::open(MemoryFileSystem::new(), 0);
        drop(std::mem::replace(&mut self.member, spare));
        self.member = Member::open(disk, next);
        self.hub = WatchHub::new(Arc::clone(&self.member.storage) as _, options());
        for (watching, mut ended, eager) in olds {
            let wakes = Arc::new(Wakes::default());
            let stream = self.hub.stream(Arc::clone(&wakes) as _);
            let mut again = BTreeMap::new();
            for mut one in watching.into_values() {
                if one.gone {
                    ended.push(one);
                    continue;
                }
                // A revision that was not ended is told again from its beginning.
                if one.open {
                    let last = one.told.last().unwrap().revision;
                    one.told.retain(|change| change.revision < last);
                }
                one.open = false;
                one.created = false;
                let next = one.told.last().map_or(one.start, |change| change.revision + 1);
                let request = WatchRequest { start: Some(Revision(next)), ..one.request.clone() };
                again.insert(stream.create(&request).unwrap(), one);
            }
            self.clients.push(Client { stream, wakes, watching: again, ended, eager, progress_asked: false });
        }
    }

    /// The member lags so far behind that it gets a snapshot.
    fn install(&mut self) {
        self.ahead.apply(&self.model.log, self.model.log.len());
        if self.member.next < self.ahead.next {
            let snapshot = self.ahead.storage.create_snapshot().unwrap();
            self.member.storage.save_snapshot(snapshot).unwrap();
            self.member.next = self.ahead.next;
        }
    }

    fn poll(&mut self, client: usize, bytes_max: u64) -> bool {
        let (_, compact) = self.state();
        let client = &mut self.clients[client];
        let before = client.wakes.0.load(Ordering::Relaxed);
        let messages = client.stream.poll(bytes_max);
        let any = !messages.is_empty();
        assert_eq!(client.wakes.0.load(Ordering::Relaxed), before, "a poll wakes nobody");
        for message in messages {
            match message {
                WatchMessage::Created { id, .. } => {
                    let one = client.watching.get_mut(&id).unwrap();
                    assert!(!std::mem::replace(&mut one.created, true), "created once");
                }
                WatchMessage::Events { id, events, prev_kv, revision, more } => {
                    let one = client.watching.get_mut(&id).unwrap();
                    assert!(one.created && !one.gone, "events only between creation and end");
                    assert_eq!(prev_kv, one.request.prev_kv);
                    assert!(!events.is_empty() || one.open, "an empty message only ends a revision");
                    one.hear(&self.model, &events, compact);
                    one.open = more;
                    let last = one.told.last().map_or(0, |change| change.revision);
                    assert!(last <= revision.0);
                    if !more {
                        assert_eq!(one.expected(&self.model, last), one.told.len(), "a revision was cut");
                    }
                }
                WatchMessage::Progress { id, revision } => {
                    let all = id.is_none();
                    assert!(!all || std::mem::take(&mut client.progress_asked), "nobody asked");
                    for (other, one) in &client.watching {
                        if (all || id == Some(*other)) && !one.gone {
                            assert!(one.created && !one.open);
                            assert_eq!(
                                one.expected(&self.model, revision.0),
                                one.told.len(),
                                "progress is not true"
                            );
                        }
                    }
                }
                WatchMessage::Canceled { id, reason, .. } => {
                    let mut one = client.watching.remove(&id).unwrap();
                    if let CancelReason::Compacted(revision) = reason {
                        let next = one.told.last().map_or(one.start, |change| change.revision);
                        assert!(next < revision.0 && revision.0 <= compact, "{next} {revision} {compact}");
                    } else {
                        assert!(one.gone && reason == CancelReason::Asked, "{reason:?}");
                    }
                    one.gone = true;
                    client.ended.push(one);
                }
                WatchMessage::Closed => panic!("nobody closed the hub"),
            }
        }
        any
    }

    /// Everything comes to rest, and everybody has all.
    fn settle(&mut self) {
        self.member.apply(&self.model.log, self.model.log.len());
        for client in &mut self.clients {
            client.stream.request_progress();
            client.progress_asked = true;
        }
        let mut rounds = 0;
        loop {
            let mut any = self.hub.publish_step();
            while self.hub.history_step() {
                any = true;
            }
            for client in 0..self.clients.len() {
                while self.poll(client, 500) {
                    any = true;
                }
            }
            if !any {
                break;
            }
            rounds += 1;
            assert!(rounds < 10_000, "no end");
        }
        let (revision, _) = self.state();
        for client in &self.clients {
            let future = client.watching.values().any(|one| revision < one.start);
            assert!(future || !client.progress_asked, "progress was asked for and nothing hinders it");
            for one in client.watching.values() {
                assert_eq!(one.expected(&self.model, u64::MAX), one.told.len(), "events are missing");
            }
        }
    }
}

impl Watching {
    fn matching<'a>(&'a self, model: &'a Model) -> impl Iterator<Item = &'a Change> {
        let WatchRequest { keys, no_puts, no_deletes, .. } = &self.request;
        model.changes.iter().filter(move |change| {
            self.start <= change.revision
                && keys.contains(&change.key)
                && !(if change.put { *no_puts } else { *no_deletes })
        })
    }

    /// How many events it is to have heard once all up to `revision` are told.
    fn expected(&self, model: &Model, revision: u64) -> usize {
        self.matching(model).take_while(|change| change.revision <= revision).count()
    }

    /// Takes what it was told, which must be what comes next.
    fn hear(&mut self, model: &Model, events: &[Arc<Event>], compact: u64) {
        let expected: Vec<Change> =
            self.matching(model).skip(self.told.len()).take(events.len()).cloned().collect();
        let told: Vec<Change> = events.iter().map(|event| change_of(event)).collect();
        assert_eq!(told.len(), expected.len(), "told more than happened: {told:?}");
        for (told, expected) in told.into_iter().zip(expected) {
            let missing = told.before.is_none() && expected.before.is_some();
            let excused = missing && (!self.request.prev_kv || told.revision <= compact);
            let before = if excused { None } else { expected.before.clone() };
            assert_eq!(told, Change { before, ..expected.clone() });
            self.told.push(expected);
        }
    }
}

fn change_of(event: &Event) -> Change {
    let kv = event.kv.clone().unwrap();
    Change {
        revision: kv.mod_revision.cast_unsigned(),
        put: event.event_type() == EventType::Put,
        key: kv.key,
        value: kv.value,
        before: event.prev_kv.as_ref().map(|before| before.value.clone()),
    }
}

#[test]
fn every_watcher_is_told_what_the_model_says() {
    for_each_seed(1..30, 6, |_, rng| {
        let mut world = World::new(rng);
        for _ in 0..600 {
            world.step(rng);
        }
        world.settle();
    });
}
