//! Cores without threads: every sync, every message and every application happens when a test says so.
#![allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "shared by tests"
)]

#[path = "memory_wal.rs"]
pub mod memory_wal;
#[path = "store.rs"]
pub mod store;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use harmony_node::core::Core;
use harmony_node::core::event::{Actions, ApplyJob, Event, Inbox, ReplyTo};
use harmony_node::core::members::membership_after;
use harmony_node::{ApplicationStorage, NodeMetrics, ReplySink, Waiter};
use harmony_types::config::NodeConfig;
use harmony_types::fake::fs::MemoryFileSystem;
use harmony_types::raft::RaftState;
use harmony_types::transport::Forwarded;
use harmony_types::{
    ClusterId, ConfChange, EntryType, LogIndex, Member, Membership, Message, MessageType, NodeError, NodeId,
    PeerMessage, Role, Snapshot, Storage, Term,
};
use memory_wal::MemoryWal;
use store::Store;

pub type Replica = ApplicationStorage<Store, MemoryWal>;

pub fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

pub fn member(number: u64, role: Role) -> Member {
    Member {
        id: id(number),
        name: format!("n{number}"),
        peer_urls: vec![format!("http://n{number}:2380")],
        client_urls: Vec::new(),
        role,
    }
}

/// A message that says nothing yet.
pub fn message(message_type: MessageType, from: u64, to: u64, term: u64) -> Message {
    Message {
        message_type,
        to: id(to),
        from: id(from),
        term: Term(term),
        log_term: Term(0),
        index: LogIndex(0),
        entries: Vec::new(),
        commit: LogIndex(0),
        commit_term: Term(0),
        snapshot: None,
        request_snapshot: LogIndex(0),
        reject: false,
        reject_hint: LogIndex(0),
        context: Bytes::new(),
        priority: 0,
    }
}

pub fn state(world: &World, number: u64) -> RaftState {
    world.nodes[&number].core.status().state
}

/// A cluster of voters `1..=count`.
pub fn voters(count: u64) -> World {
    World::new(&(1..=count).map(|number| member(number, Role::Voter)).collect::<Vec<_>>())
}

/// Lines that tell what happened.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<Vec<String>>>);

impl Trace {
    pub fn line(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A client that tells how its calls end.
struct Client {
    trace: Trace,
    name: String,
}

impl<T: std::fmt::Debug> ReplySink<T> for Client {
    fn complete(&self, batch: Vec<(u64, Result<T, NodeError>)>) {
        for (_, result) in batch {
            self.trace.line(match result {
                Ok(outcome) => format!("{}: {outcome:?}", self.name),
                Err(error) if error.may_have_been_applied() => format!("{}: unknown, {error}", self.name),
                Err(error) => format!("{}: refused, {error}", self.name),
            });
        }
    }
}

pub struct One {
    pub core: Core<Replica>,
    pub storage: Arc<Replica>,
    pub metrics: Arc<NodeMetrics>,
    /// What is to be synced.
    pub persist: Option<u64>,
    pub apply: VecDeque<ApplyJob<u64>>,
    /// It was told to stop.
    pub removed: bool,
}

pub struct World {
    pub nodes: BTreeMap<u64, One>,
    pub messages: VecDeque<(u64, u64, PeerMessage)>,
    pub snapshots: VecDeque<(Message, Snapshot)>,
    pub trace: Trace,
    /// Tell of syncs and messages, too.
    pub verbose: bool,
    wals: BTreeMap<u64, MemoryWal>,
    files: BTreeMap<u64, Arc<MemoryFileSystem>>,
    members: Membership,
    cut: BTreeSet<(u64, u64)>,
    boots: u64,
    /// Members compare the hashes of their states.
    hashes: bool,
}

impl World {
    pub fn new(members: &[Member]) -> Self {
        Self::of(members, false)
    }

    /// One whose members compare the hashes of their states.
    pub fn comparing(members: &[Member]) -> Self {
        Self::of(members, true)
    }

    fn of(members: &[Member], hashes: bool) -> Self {
        let mut world = Self {
            nodes: BTreeMap::new(),
            messages: VecDeque::new(),
            snapshots: VecDeque::new(),
            trace: Trace::default(),
            verbose: true,
            wals: BTreeMap::new(),
            files: BTreeMap::new(),
            members: Membership::from_members(members.iter().cloned()),
            cut: BTreeSet::new(),
            boots: 0,
            hashes,
        };
        for member in members {
            world.start(member.id.get());
        }
        world
    }

    /// Starts a node on what its disk holds.
    pub fn start(&mut self, number: u64) {
        let wal = self.wals.entry(number).or_insert_with(MemoryWal::crashable).clone();
        let files = self.files.entry(number).or_insert_with(|| Arc::new(MemoryFileSystem::with_dir("/")));
        let store = if self.hashes { Store::hashing() } else { Store::default() };
        let storage = ApplicationStorage::open(store, wal, Arc::clone(files) as _, "/node").unwrap();
        storage.bootstrap(&self.members).unwrap();
        let storage = Arc::new(storage);
        self.boots += 1;
        let config = NodeConfig::new(id(number), ClusterId(1));
        let metrics = Arc::new(NodeMetrics::default());
        let core = Core::new(config, Arc::clone(&storage), self.boots, Arc::clone(&metrics)).unwrap();
        let one = One { core, storage, metrics, persist: None, apply: VecDeque::new(), removed: false };
        self.nodes.insert(number, one);
        self.turn(number, []);
    }

    /// Ends a node; what it did not sync is lost.
    pub fn crash(&mut self, number: u64) {
        self.nodes.remove(&number);
        self.wals[&number].crash();
        self.messages.retain(|(from, to, _)| *from != number && *to != number);
    }

    /// One turn of a core. Its actions wait until they are asked for; only messages enter the network at once.
    pub fn turn(&mut self, number: u64, events: impl IntoIterator<Item = Event<u64>>) {
        self.try_turn(number, events).unwrap();
    }

    fn try_turn(
        &mut self,
        number: u64,
        events: impl IntoIterator<Item = Event<u64>>,
    ) -> Result<(), NodeError> {
        let node = self.nodes.get_mut(&number).unwrap();
        let actions = node.core.turn(Inbox::of(events))?;
        let Actions { persist, sends, snapshots, apply, replies, reads, changes, removed, .. } = actions;
        let was_removed = std::mem::replace(&mut node.removed, removed);
        node.persist = persist.or(node.persist);
        if let Some(persist) = persist {
            self.tell(format!("n{number} must sync ready {persist}"));
        }
        for (to, messages) in sends {
            for message in messages {
                self.tell(format!("n{number} -> n{to} {}", print(&message)));
                self.messages.push_back((number, to.get(), message));
            }
        }
        for mut announcement in snapshots {
            let snapshot = self.nodes[&number].storage.create_snapshot().unwrap();
            self.trace.line(format!("n{number} -> n{} snapshot {}", announcement.to, snapshot.meta.index));
            announcement.snapshot = Some(Box::new(snapshot.meta.clone()));
            self.snapshots.push_back((announcement, snapshot));
        }
        self.nodes.get_mut(&number).unwrap().apply.extend(apply);
        drop((replies, reads, changes));
        if removed && !was_removed {
            self.trace.line(format!("n{number} was removed"));
        }
        Ok(())
    }

    /// Lets a core hear a message that nobody sent.
    pub fn hear(&mut self, message: Message) -> Result<(), NodeError> {
        let (from, to) = (message.from, message.to.get());
        let message = PeerMessage::Raft(Box::new(message));
        self.try_turn(to, [Event::Peer { from, message }])
    }

    pub fn put(&mut self, number: u64, command: &str) {
        let waiter = self.waiter(format!("client of n{number}, put {command}"));
        let data = Bytes::from(command.to_owned());
        self.turn(number, [Event::Propose { data, waiter }]);
    }

    pub fn read(&mut self, number: u64) {
        let waiter = self.waiter(format!("client of n{number}, read"));
        self.turn(number, [Event::Read { waiter }]);
    }

    pub fn change(&mut self, number: u64, changes: Vec<ConfChange>) {
        let ids: Vec<String> = changes.iter().map(|change| format!("n{}", change.member.id)).collect();
        let client = Client { trace: self.trace.clone(), name: format!("change of {}", ids.join(" ")) };
        let waiter = Waiter::new(Arc::new(Quiet(client)) as _, 0);
        self.turn(number, [Event::ConfChange { changes, waiter }]);
    }

    pub fn leave(&mut self, number: u64) {
        let waiter = self.waiter(format!("n{number} leaves"));
        self.turn(number, [Event::Leave { waiter }]);
    }

    pub fn tick(&mut self, number: u64, count: u64) {
        for _ in 0..count {
            self.turn(number, [Event::Tick]);
        }
    }

    /// Syncs what a node asked for.
    pub fn sync(&mut self, number: u64) -> bool {
        let node = self.nodes.get_mut(&number).unwrap();
        let Some(persist) = node.persist.take() else { return false };
        node.storage.sync().unwrap();
        self.turn(number, [Event::Persisted { number: persist }]);
        true
    }

    /// Applies what a node was handed.
    pub fn apply(&mut self, number: u64) -> bool {
        let node = self.nodes.get_mut(&number).unwrap();
        let jobs = std::mem::take(&mut node.apply);
        let any = !jobs.is_empty();
        for job in jobs {
            self.apply_one(number, job);
        }
        any
    }

    fn apply_one(&mut self, number: u64, job: ApplyJob<u64>) {
        let storage = Arc::clone(&self.nodes[&number].storage);
        let event = match job {
            ApplyJob::Entries { entries, replies } => {
                let outcomes = storage.apply(&entries).unwrap();
                for entry in &entries {
                    let data = String::from_utf8_lossy(&entry.data).into_owned();
                    self.trace.line(
                        format!("n{number} applies {}@{} {data}", entry.index, entry.term)
                            .trim_end()
                            .to_owned(),
                    );
                }
                for (slot, reply) in replies {
                    match reply {
                        ReplyTo::Local(waiter) => waiter.complete(Ok(outcomes[slot])),
                        ReplyTo::Peer { node, request } => {
                            let outcome = prost::Message::encode_to_vec(&outcomes[slot]);
                            let forwarded = Forwarded { index: entries[slot].index, outcome: outcome.into() };
                            let message = PeerMessage::ProposeReply { request, result: Ok(forwarded) };
                            self.messages.push_back((number, node.get(), message));
                        }
                        ReplyTo::Member(_) => panic!("a membership change among commands"),
                    }
                }
                Event::Applied { index: entries.last().unwrap().index }
            }
            ApplyJob::Membership { entry, voter_sets, changes, waiter } => {
                let before = storage.membership();
                let after = membership_after(&before, changes, voter_sets.unwrap());
                storage.apply_membership(&entry, &after).unwrap();
                self.trace.line(format!(
                    "n{number} applies {}@{} voters {:?} learners {:?}",
                    entry.index, entry.term, after.voters, after.learners
                ));
                if let Some(waiter) = waiter {
                    waiter.complete(Ok(after));
                }
                Event::Applied { index: entry.index }
            }
            ApplyJob::Install { snapshot } => {
                let index = snapshot.meta.index;
                storage.save_snapshot(snapshot).unwrap();
                self.trace.line(format!("n{number} installs snapshot {index}"));
                Event::Installed { index }
            }
        };
        self.turn(number, [event]);
    }

    /// Delivers what is in the network now; what it causes waits.
    pub fn deliver(&mut self) -> bool {
        self.deliver_messages() | self.deliver_snapshots()
    }

    pub fn deliver_messages(&mut self) -> bool {
        let mut any = false;
        for (from, to, message) in std::mem::take(&mut self.messages) {
            if self.nodes.contains_key(&to) && !self.cut.contains(&(from, to)) {
                any = true;
                self.turn(to, [Event::Peer { from: id(from), message }]);
            }
        }
        any
    }

    fn deliver_snapshots(&mut self) -> bool {
        let mut any = false;
        for (announcement, snapshot) in std::mem::take(&mut self.snapshots) {
            let (from, to) = (announcement.from.get(), announcement.to.get());
            let arrived = self.nodes.contains_key(&to) && !self.cut.contains(&(from, to));
            if arrived {
                any = true;
                self.turn(to, [Event::Snapshot { announcement, snapshot }]);
            }
            self.turn(from, [Event::SnapshotSent { peer: id(to), arrived }]);
        }
        any
    }

    /// What is in the network now is lost.
    pub fn lose(&mut self) {
        self.messages.clear();
        for (announcement, _) in std::mem::take(&mut self.snapshots) {
            let peer = announcement.to;
            self.turn(announcement.from.get(), [Event::SnapshotSent { peer, arrived: false }]);
        }
    }

    /// Lets disks, state machines and the network run until nothing happens, and tells only the essential.
    pub fn settle(&mut self) {
        let verbose = std::mem::replace(&mut self.verbose, false);
        for _ in 0..1_000 {
            let numbers: Vec<u64> = self.nodes.keys().copied().collect();
            let mut any = false;
            for number in numbers {
                any |= self.sync(number) | self.apply(number);
            }
            any |= self.deliver();
            if !any {
                self.verbose = verbose;
                return;
            }
        }
        panic!("the world does not settle");
    }

    pub fn cut(&mut self, from: u64, to: u64) {
        self.cut.insert((from, to));
    }

    pub fn isolate(&mut self, number: u64) {
        for other in self.nodes.keys().filter(|other| **other != number) {
            self.cut.extend([(number, *other), (*other, number)]);
        }
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }

    pub fn status(&self) -> Vec<String> {
        self.nodes
            .iter()
            .map(|(number, node)| {
                let status = node.core.status();
                let leader = status.leader.map_or("nobody".to_owned(), |leader| format!("n{leader}"));
                format!(
                    "n{number} {:?} of {leader} term {} commit {} last {}: {}",
                    status.state,
                    status.term,
                    status.commit,
                    status.last,
                    node.storage.application().print()
                )
            })
            .collect()
    }

    fn tell(&self, line: String) {
        if self.verbose {
            self.trace.line(line);
        }
    }

    fn waiter<T: std::fmt::Debug>(&self, name: String) -> Waiter<T> {
        Waiter::new(Arc::new(Client { trace: self.trace.clone(), name }) as _, 0)
    }
}

/// A client that tells only whether its change was made.
struct Quiet(Client);

impl ReplySink<Membership> for Quiet {
    fn complete(&self, batch: Vec<(u64, Result<Membership, NodeError>)>) {
        let batch = batch.into_iter().map(|(token, result)| (token, result.map(|_| "done"))).collect();
        self.0.complete(batch);
    }
}

fn print(message: &PeerMessage) -> String {
    match message {
        PeerMessage::Raft(message) => {
            let mut line = format!("{:?} term {}", message.message_type, message.term);
            if message.index.0 != 0 {
                line.push_str(&format!(" at {}@{}", message.index, message.log_term));
            }
            if message.commit.0 != 0 {
                line.push_str(&format!(" commit {}", message.commit));
            }
            for entry in &message.entries {
                // The context of a read is no text, and a membership change is not, either.
                if entry.index.0 != 0 {
                    let command = entry.entry_type == EntryType::Normal;
                    let data = if command { String::from_utf8_lossy(&entry.data) } else { "members".into() };
                    line.push_str(&format!(" [{}@{} {data}]", entry.index, entry.term));
                }
            }
            if message.reject {
                line.push_str(" reject");
            }
            line
        }
        PeerMessage::Propose { data, .. } => format!("Propose {}", String::from_utf8_lossy(data)),
        PeerMessage::ProposeReply { result, .. } => {
            format!("ProposeReply {:?}", result.as_ref().map(|forwarded| forwarded.outcome.len()))
        }
        PeerMessage::Change { changes, .. } => {
            let changes: Vec<String> = changes
                .iter()
                .map(|change| format!("{:?} n{}", change.change_type, change.member.id))
                .collect();
            format!("Change {}", changes.join(", "))
        }
        PeerMessage::ChangeReply { result, .. } => match result {
            Ok(index) => format!("ChangeReply {index}"),
            Err(error) => format!("ChangeReply {error:?}"),
        },
        PeerMessage::LeaseCall { id, renew, .. } => format!("LeaseCall {id:?} {renew}"),
        PeerMessage::LeaseReply { result, .. } => format!("LeaseReply {result:?}"),
        PeerMessage::Acknowledged { held } => {
            let held: Vec<String> = held.iter().map(|(id, index)| format!("n{id} {index}")).collect();
            format!("Acknowledged {}", held.join(", "))
        }
        PeerMessage::Hashes { hashes, corrupt } => format!("Hashes {} corrupt {corrupt}", hashes.len()),
        PeerMessage::Diverged { index, .. } => format!("Diverged {index}"),
    }
}
