//! What goes over the network, and what comes of it.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use harmony_types::planted::{self, Bug};
use harmony_types::transport::PeerSink;
use harmony_types::{Message, MessageType, NodeId, PeerMessage, Snapshot, SnapshotData, Storage};

use super::{Event, Phase, SnapshotArrival, World};
use crate::simulation::Intensity;
use crate::simulation::network::{Kind, Packet, Way};
use crate::simulation::picture::Sent;
use crate::simulation::plan::{Loss, Work};
use crate::simulation::probes::Probe;
use crate::simulation::time::{MS, SECOND, US};
use crate::simulation::trace::{Digest, Words};

impl World {
    /// Sends what a process handed to its transport.
    pub(super) fn send(&mut self, from: NodeId, packets: Vec<Packet>) {
        for packet in packets {
            match packet {
                Packet::Messages(to, messages) => {
                    for message in messages {
                        self.send_message(from, to, message);
                    }
                }
                Packet::Snapshot(packet) => self.send_snapshot(from, packet.0, packet.1),
                Packet::Peers => self.network.forget(from),
            }
        }
    }

    fn send_message(&mut self, from: NodeId, to: NodeId, message: PeerMessage) {
        let now = self.now.get();
        let message = altered(message);
        let from_life = self.members[&from].life;
        if let PeerMessage::Raft(message) = &message
            && let Err(what) = self.invariants.hear(from, message)
        {
            return self.violation(what);
        }
        if matches!(message, PeerMessage::Propose { .. }) {
            self.probe(Probe::ProposalForwarded);
        }
        let may_repeat = matches!(message, PeerMessage::Raft(_));
        if matches!(message, PeerMessage::Propose { .. }) && planted::is(Bug::DuplicateForward) {
            let message = message.clone();
            self.schedule.push(now + 2 * MS, Event::Message { from, from_life, to, sent: now, message });
        }
        match self.network.way(now, from, to, may_repeat) {
            Way::Lost => {
                self.probe(Probe::Lost);
                self.picture.message(&Sent { from, to, at: now, message: &message }, None);
                self.schedule.push(
                    now + MS,
                    Event::NotReached { member: from, life: from_life, peer: to, gone: false },
                );
            }
            Way::Arrives { at, again_at, kind } => {
                match kind {
                    Kind::InOrder => {}
                    Kind::Reordered => self.probe(Probe::Reordered),
                    Kind::Stale => self.probe(Probe::Stale),
                }
                if let Some(again_at) = again_at {
                    self.probe(Probe::Duplicated);
                    let message = message.clone();
                    self.schedule.push(again_at, Event::Message { from, from_life, to, sent: now, message });
                }
                self.schedule.push(at, Event::Message { from, from_life, to, sent: now, message });
            }
        }
    }

    /// A message is there: the two greet each other first, if they have not since one of them started.
    pub(super) fn arrive(
        &mut self,
        from: NodeId,
        from_life: u64,
        to: NodeId,
        sent: u64,
        message: PeerMessage,
    ) {
        let now = self.now.get();
        let event = Event::Message { from, from_life, to, sent, message };
        let Some(Event::Message { message, .. }) = self.hold(to, event) else { return };
        let sent = Sent { from, to, at: sent, message: &message };
        let Some(sink) = self.sink(to) else {
            self.picture.message(&sent, None);
            let gone = !self.network.is_cut(to, from);
            self.schedule
                .push(now + 100 * US, Event::NotReached { member: from, life: from_life, peer: to, gone });
            return;
        };
        if !self.greet(from, to, &sink) {
            return self.picture.message(&sent, None);
        }
        self.picture.message(&sent, Some(now));
        let mut digest = Digest::EMPTY;
        digest.message(&message);
        self.trace.note(now, &[5, from.get(), to.get(), digest.0], || {
            format!("n{from} -> n{to} {}", Words(&message))
        });
        if let PeerMessage::Raft(message) = &message
            && message.reject
        {
            match message.message_type {
                MessageType::RequestPreVoteResponse => self.probe(Probe::PreVoteRefused),
                MessageType::RequestVoteResponse => self.probe(Probe::VoteRefused),
                _ => {}
            }
        }
        sink.receive(from, message);
        self.follow_up(to);
    }

    /// Whether the two speak with each other.
    fn greet(&mut self, from: NodeId, to: NodeId, sink: &Arc<dyn PeerSink>) -> bool {
        if self.network.has_greeted(from, to) {
            return true;
        }
        // A sender that is not there any more cannot greet; what it said before comes with its last connection, and that
        // is over.
        let Some(own) = self.sink(from) else { return false };
        if let Err(refusal) = sink.admit(from, own.held()) {
            own.refused(to, refusal);
            self.note_refusal(from);
            return false;
        }
        if own.admit(to, sink.held()).is_err() {
            return false;
        }
        self.network.greeted(from, to);
        true
    }

    /// Greets the peers that were not reached yet.
    pub(super) fn greet_all(&mut self, id: NodeId, life: u64) {
        let Some(Event::Greet { .. }) = self.hold(id, Event::Greet { member: id, life }) else { return };
        let now = self.now.get();
        let Some(process) = self.members.get_mut(&id).and_then(|member| member.process_of(life)) else {
            return;
        };
        let peers: Vec<NodeId> = process.storage.membership().members.keys().copied().collect();
        for peer in peers.into_iter().filter(|peer| *peer != id) {
            let open = !self.network.is_cut(id, peer) && !self.network.is_cut(peer, id);
            if let (true, Some(sink)) = (open, self.sink(peer)) {
                self.greet(id, peer, &sink);
            }
        }
        self.schedule.push(now + SECOND, Event::Greet { member: id, life });
    }

    /// A peer told this process to stop: it notices at its next step.
    fn note_refusal(&mut self, id: NodeId) {
        let stopped = self.members.get(&id).and_then(|member| member.process.as_ref());
        if stopped.is_some_and(|process| process.handle.failure().is_some()) {
            self.ended(id, harmony_types::NodeError::Stopped);
        }
    }

    fn sink(&self, id: NodeId) -> Option<Arc<dyn PeerSink>> {
        self.members.get(&id)?.process.as_ref().map(|process| process.node.peer_sink())
    }

    pub(super) fn not_reached(&mut self, id: NodeId, life: u64, peer: NodeId, gone: bool) {
        let Some(Event::NotReached { .. }) =
            self.hold(id, Event::NotReached { member: id, life, peer, gone })
        else {
            return;
        };
        if self.members.get(&id).is_none_or(|member| member.life != life) {
            return;
        }
        let Some(sink) = self.sink(id) else { return };
        sink.unreachable(peer);
        if gone {
            sink.gone(peer);
        }
        self.follow_up(id);
    }

    fn send_snapshot(&mut self, from: NodeId, announcement: Message, snapshot: Snapshot) {
        let now = self.now.get();
        let from_life = self.members[&from].life;
        let to = announcement.to;
        let Snapshot { meta, data } = snapshot;
        let mut content = Vec::new();
        let read = data.into_reader().read_to_end(&mut content);
        let after = self.network.stream_time(content.len() as u64);
        if read.is_err() || self.network.is_cut(from, to) {
            let event = Event::SnapshotSent { member: from, life: from_life, peer: to, arrived: false };
            self.schedule.push(now + after, event);
            return;
        }
        let content = Bytes::from(content);
        let arrival = SnapshotArrival { from, from_life, announcement, meta, content };
        self.schedule.push(now + after, Event::Snapshot(Box::new(arrival)));
    }

    pub(super) fn arrive_snapshot(&mut self, arrival: Box<SnapshotArrival>) {
        let now = self.now.get();
        let to = arrival.announcement.to;
        let Some(Event::Snapshot(arrival)) = self.hold(to, Event::Snapshot(arrival)) else { return };
        let SnapshotArrival { from, from_life, announcement, meta, content } = *arrival;
        let mut digest = Digest::EMPTY;
        digest.bytes(&content);
        self.trace.note(now, &[6, from.get(), to.get(), meta.index.0, digest.0], || {
            format!("n{from} -> n{to} snapshot at {}, {} bytes", meta.index, content.len())
        });
        self.picture.snapshot(from, to, now, meta.index);
        // Its sender's process ended: so did the stream.
        let streams = self.members.get(&from).is_some_and(|member| member.life == from_life);
        let sink = self.sink(to).filter(|_| streams && !self.network.is_cut(from, to));
        let arrived = match sink {
            Some(sink) if self.greet(from, to, &sink) => {
                let snapshot = Snapshot { meta, data: SnapshotData::Bytes(content) };
                sink.receive_snapshot(announcement, snapshot).is_ok()
            }
            _ => false,
        };
        let event = Event::SnapshotSent { member: from, life: from_life, peer: to, arrived };
        self.schedule.push(now + MS, event);
        // No plan knows when snapshots come.
        let is_wild = self.options.intensity == Intensity::Wild && self.phase == Phase::Faults;
        if arrived
            && is_wild
            && self.pace.chance(1, 4)
            && let Some(member) = self.members.get_mut(&to)
        {
            member.crash_in = Some((Work::Apply, Loss::Torn));
            let at = now + self.pace.range(SECOND..4 * SECOND);
            self.schedule.push(at, Event::Restart { member: to });
        }
        self.follow_up(to);
    }

    pub(super) fn snapshot_sent(&mut self, id: NodeId, life: u64, peer: NodeId, arrived: bool) {
        let event = Event::SnapshotSent { member: id, life, peer, arrived };
        let Some(Event::SnapshotSent { .. }) = self.hold(id, event) else { return };
        if self.members.get(&id).is_none_or(|member| member.life != life) {
            return;
        }
        if let Some(sink) = self.sink(id) {
            sink.snapshot_sent(peer, arrived);
            self.follow_up(id);
        }
    }
}

/// A message as a member with a planted bug says it.
fn altered(mut message: PeerMessage) -> PeerMessage {
    let PeerMessage::Raft(raft) = &mut message else { return message };
    let accepts = match raft.message_type {
        MessageType::RequestVoteResponse => planted::is(Bug::GrantRefusedVote),
        MessageType::AppendResponse => planted::is(Bug::AcceptRefusedEntries),
        _ => false,
    };
    raft.reject &= !accepts;
    message
}
