//! What goes into the core and what comes out of it.

use bytes::Bytes;
use harmony_types::{
    ConfChange, Entry, LogIndex, Membership, MembershipError, Message, NodeId, PeerMessage, Snapshot, Term,
    limits,
};

use crate::bounds;
use crate::waiter::{ReplyBatch, Waiter};

/// One thing that happened to a node.
#[allow(
    clippy::large_enum_variant,
    reason = "an event lives for one call: a box would cost more than the room"
)]
#[derive(Debug)]
pub enum Event<T> {
    /// A client of this node proposes a command.
    Propose {
        /// The encoded command.
        data: Bytes,
        /// Hears its outcome.
        waiter: Waiter<T>,
    },
    /// This node itself proposes a command that counts only while it leads in this term.
    ProposeInTerm {
        /// The term.
        term: Term,
        /// The encoded command.
        data: Bytes,
        /// Hears its outcome.
        waiter: Waiter<T>,
    },
    /// A client of this node wants to read.
    Read {
        /// Hears when local reads are linearizable.
        waiter: Waiter<()>,
    },
    /// An operator changes the membership.
    ConfChange {
        /// The changes, made in one step.
        changes: Vec<ConfChange>,
        /// Hears the membership after it.
        waiter: Waiter<Membership>,
    },
    /// Leadership is to go to another member.
    Transfer {
        /// Which.
        to: NodeId,
    },
    /// This node is about to go: another member is to lead.
    Leave {
        /// Hears when this node leads no more.
        waiter: Waiter<()>,
    },
    /// Ask for votes now, without waiting for an election timeout.
    Campaign,
    /// A message from a peer.
    Peer {
        /// Who sent it.
        from: NodeId,
        /// What it says.
        message: PeerMessage,
    },
    /// A whole snapshot from a peer.
    Snapshot {
        /// Raft's message about it.
        announcement: Message,
        /// The content.
        snapshot: Snapshot,
    },
    /// Messages to this peer are lost.
    Unreachable {
        /// Which.
        peer: NodeId,
    },
    /// The machine of this peer refuses connections: its process has ended, in all likelihood.
    Gone {
        /// Which.
        peer: NodeId,
    },
    /// A snapshot to this peer arrived or did not.
    SnapshotSent {
        /// Which.
        peer: NodeId,
        /// It did.
        arrived: bool,
    },
    /// Everything up to this number of [`Actions::persist`] is on disk.
    Persisted {
        /// The number.
        number: u64,
    },
    /// Everything up to this index is applied and visible.
    Applied {
        /// The index.
        index: LogIndex,
    },
    /// The state machine has this hash, see [`harmony_types::Storage::state_hash`].
    Hashed {
        /// What is applied.
        index: LogIndex,
        /// The hash there.
        hash: u32,
    },
    /// The state machine is damaged and takes no entries any more, until an [`ApplyJob::Install`] replaces it.
    Damaged {
        /// What is damaged.
        reason: String,
    },
    /// The snapshot of an [`ApplyJob::Install`] is in place.
    Installed {
        /// Its index.
        index: LogIndex,
    },
    /// One beat of logical time.
    Tick,
}

/// The events that wait for a core's next turn, in the order in which it looks at them.
#[derive(Debug)]
pub struct Inbox<T> {
    pub(super) installed: Option<LogIndex>,
    pub(super) persisted: Option<u64>,
    pub(super) applied: Option<LogIndex>,
    pub(super) hashes: Vec<(LogIndex, u32)>,
    pub(super) damaged: Option<String>,
    pub(super) reports: Vec<Report>,
    pub(super) peers: Vec<(NodeId, PeerMessage)>,
    pub(super) snapshot: Option<(Message, Snapshot)>,
    pub(super) reads: Vec<Waiter<()>>,
    pub(super) proposals: Vec<(Bytes, Waiter<T>)>,
    pub(super) proposals_bytes: usize,
    pub(super) changes: Vec<(Vec<ConfChange>, Waiter<Membership>)>,
    pub(super) leaving: Vec<Waiter<()>>,
    pub(super) in_term: Vec<(Term, Bytes, Waiter<T>)>,
    pub(super) transfer: Option<NodeId>,
    pub(super) campaign: bool,
    pub(super) tick: bool,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self {
            installed: None,
            persisted: None,
            applied: None,
            hashes: Vec::new(),
            damaged: None,
            reports: Vec::new(),
            peers: Vec::new(),
            snapshot: None,
            reads: Vec::new(),
            proposals: Vec::new(),
            proposals_bytes: 0,
            in_term: Vec::new(),
            changes: Vec::new(),
            leaving: Vec::new(),
            transfer: None,
            campaign: false,
            tick: false,
        }
    }
}

/// What a transport said about a peer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Report {
    Unreachable(NodeId),
    Gone(NodeId),
    SnapshotSent(NodeId, bool),
}

impl<T> Inbox<T> {
    /// An inbox that holds these events.
    pub fn of(events: impl IntoIterator<Item = Event<T>>) -> Self {
        let mut inbox = Self::default();
        for event in events {
            inbox.push(event);
        }
        inbox
    }

    /// Adds an event. Beats of time do not pile up: after a stall one is enough, and more could start an election.
    pub fn push(&mut self, event: Event<T>) {
        match event {
            Event::Propose { data, waiter } => {
                self.proposals_bytes += data.len();
                self.proposals.push((data, waiter));
            }
            Event::ProposeInTerm { term, data, waiter } => self.in_term.push((term, data, waiter)),
            Event::Read { waiter } => self.reads.push(waiter),
            Event::ConfChange { changes, waiter } => self.changes.push((changes, waiter)),
            Event::Leave { waiter } => self.leaving.push(waiter),
            Event::Transfer { to } => self.transfer = Some(to),
            Event::Campaign => self.campaign = true,
            Event::Peer { from, message } => {
                // Raft sends again what was lost; an answer that is lost ends as unknown.
                if self.peers.len() < bounds::PEER_MESSAGES_WAITING_MAX {
                    self.peers.push((from, message));
                }
            }
            Event::Snapshot { announcement, snapshot } => self.snapshot = Some((announcement, snapshot)),
            Event::Unreachable { peer } => self.reports.push(Report::Unreachable(peer)),
            Event::Gone { peer } => self.reports.push(Report::Gone(peer)),
            Event::SnapshotSent { peer, arrived } => self.reports.push(Report::SnapshotSent(peer, arrived)),
            Event::Persisted { number } => self.persisted = self.persisted.max(Some(number)),
            Event::Applied { index } => self.applied = self.applied.max(Some(index)),
            Event::Hashed { index, hash } => self.hashes.push((index, hash)),
            Event::Damaged { reason } => self.damaged = Some(reason),
            Event::Installed { index } => self.installed = Some(index),
            Event::Tick => self.tick = true,
        }
    }

    /// Whether a proposal of so many bytes may wait here, too.
    #[must_use]
    pub fn has_room_for(&self, bytes: usize) -> bool {
        self.proposals.len() < limits::PROPOSALS_WAITING_MAX
            && self.proposals_bytes.saturating_add(bytes) <= bounds::PROPOSALS_BYTES_MAX
    }

    /// Reads that wait.
    #[must_use]
    pub fn reads_waiting(&self) -> usize {
        self.reads.len()
    }

    /// True when a snapshot waits to be looked at.
    #[must_use]
    pub fn has_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    /// Adds what came later.
    pub(super) fn absorb(&mut self, later: Self) {
        self.installed = later.installed.or(self.installed);
        self.persisted = self.persisted.max(later.persisted);
        self.applied = self.applied.max(later.applied);
        self.hashes.extend(later.hashes);
        self.damaged = self.damaged.take().or(later.damaged);
        self.reports.extend(later.reports);
        let room = bounds::PEER_MESSAGES_WAITING_MAX.saturating_sub(self.peers.len());
        self.peers.extend(later.peers.into_iter().take(room));
        self.snapshot = self.snapshot.take().or(later.snapshot);
        self.reads.extend(later.reads);
        self.proposals.extend(later.proposals);
        self.proposals_bytes += later.proposals_bytes;
        self.in_term.extend(later.in_term);
        self.changes.extend(later.changes);
        self.leaving.extend(later.leaving);
        self.transfer = later.transfer.or(self.transfer);
        self.campaign |= later.campaign;
        self.tick |= later.tick;
    }
}

/// Who hears how a proposal ended.
#[derive(Debug)]
pub enum ReplyTo<T> {
    /// A client of this node.
    Local(Waiter<T>),
    /// A client of the node that passed the proposal on.
    Peer {
        /// That node.
        node: NodeId,
        /// The number under which it waits.
        request: u64,
    },
    /// Whoever changes the membership.
    Member(Waiter<Membership>),
}

/// Work for the state machine, in order.
#[derive(Debug)]
pub enum ApplyJob<T> {
    /// Apply entries and answer those who wait for them.
    Entries {
        /// In order, without a gap.
        entries: Vec<Entry>,
        /// Who waits for the entry at this place of `entries`; ascending.
        replies: Vec<(usize, ReplyTo<T>)>,
    },
    /// Apply a membership change.
    Membership {
        /// Its entry.
        entry: Entry,
        /// The voter sets after it; `None` when it was impossible and changes nothing.
        voter_sets: Option<Membership>,
        /// Whom it concerns; nobody when raft itself made it.
        changes: Vec<ConfChange>,
        /// Hears the membership after it.
        waiter: Option<Waiter<Membership>>,
    },
    /// Replace the state machine, then report [`Event::Installed`].
    Install {
        /// By this.
        snapshot: Snapshot,
    },
}

/// What a turn of the core wants done. Everything may begin at once; `apply` in order, behind what was asked before.
#[derive(Debug)]
pub struct Actions<T> {
    /// Sync the storage, then report [`Event::Persisted`] with this number.
    pub persist: Option<u64>,
    /// Messages by receiver, in order.
    pub sends: Vec<(NodeId, Vec<PeerMessage>)>,
    /// Create a snapshot and send it behind this message, with the snapshot's own index in it.
    pub snapshots: Vec<Message>,
    /// Work for the state machine.
    pub apply: Vec<ApplyJob<T>>,
    /// Proposals that ended.
    pub replies: ReplyBatch<T>,
    /// Reads that ended.
    pub reads: ReplyBatch<()>,
    /// Membership changes that ended.
    pub changes: ReplyBatch<Membership>,
    /// What members are known to have acknowledged, to be remembered.
    pub acknowledged: Vec<(NodeId, LogIndex)>,
    /// This member was removed: once all this is done, it must stop.
    pub removed: bool,
}

impl<T> Default for Actions<T> {
    fn default() -> Self {
        Self {
            persist: None,
            sends: Vec::new(),
            snapshots: Vec::new(),
            apply: Vec::new(),
            replies: ReplyBatch::default(),
            reads: ReplyBatch::default(),
            changes: ReplyBatch::default(),
            acknowledged: Vec::new(),
            removed: false,
        }
    }
}

impl<T> Actions<T> {
    /// Queues one message behind those for the same peer.
    pub(crate) fn send(&mut self, to: NodeId, message: PeerMessage) {
        match self.sends.iter_mut().find(|(peer, _)| *peer == to) {
            Some((_, messages)) => messages.push(message),
            None => self.sends.push((to, vec![message])),
        }
    }

    /// Queues raft's messages; a snapshot's goes on a way of its own.
    pub(crate) fn send_raft(&mut self, messages: Vec<Message>) {
        for message in messages {
            if message.message_type == harmony_types::MessageType::Snapshot {
                self.snapshots.push(message);
            } else {
                self.send(message.to, PeerMessage::Raft(Box::new(message)));
            }
        }
    }

    /// Queues a command for the state machine, in one job with those before it.
    pub(crate) fn apply_entry(&mut self, entry: Entry, reply: Option<ReplyTo<T>>) {
        let reply = match reply {
            // Raft put an empty entry in the place of a change that came while another was under way.
            Some(ReplyTo::Member(waiter)) => {
                self.changes.push(waiter, Err(MembershipError::Pending.into()));
                None
            }
            reply => reply,
        };
        if !matches!(self.apply.last(), Some(ApplyJob::Entries { .. })) {
            self.apply.push(ApplyJob::Entries { entries: Vec::new(), replies: Vec::new() });
        }
        if let Some(ApplyJob::Entries { entries, replies }) = self.apply.last_mut() {
            replies.extend(reply.map(|reply| (entries.len(), reply)));
            entries.push(entry);
        }
    }

    /// Queues a membership change for the state machine, as a job of its own.
    pub(crate) fn apply_membership(
        &mut self,
        entry: Entry,
        voter_sets: Option<Membership>,
        changes: Vec<ConfChange>,
        reply: Option<ReplyTo<T>>,
    ) {
        let waiter = match reply {
            Some(ReplyTo::Member(waiter)) => Some(waiter),
            Some(other) => {
                unreachable!("a command waits at the place of a membership change: {}", other.name())
            }
            None => None,
        };
        self.apply.push(ApplyJob::Membership { entry, voter_sets, changes, waiter });
    }
}

impl<T> ReplyTo<T> {
    fn name(&self) -> &'static str {
        match self {
            Self::Local(_) => "local",
            Self::Peer { .. } => "peer",
            Self::Member(_) => "member",
        }
    }
}
