//! The network: every message between two members takes its own time on its own directed link, or is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use harmony_types::fake::seed::SeededRng;
use harmony_types::{Member, Message, NodeId, PeerMessage, Snapshot, Transport};

use super::time::{MS, SECOND, US};

/// What a process handed to its transport since it was last asked.
#[derive(Default)]
pub(super) struct Outbox {
    packets: Mutex<Vec<Packet>>,
}

/// One thing that a process wants sent.
pub(super) enum Packet {
    Messages(NodeId, Vec<PeerMessage>),
    Snapshot(Box<(Message, Snapshot)>),
    /// The members changed: peers greet each other anew.
    Peers,
}

impl Outbox {
    pub(super) fn take(&self) -> Vec<Packet> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Packet>> {
        self.packets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process's way into the network.
pub(super) struct SimulatedTransport(pub(super) Arc<Outbox>);

impl Transport for SimulatedTransport {
    fn send(&self, to: NodeId, messages: Vec<PeerMessage>) {
        self.0.lock().push(Packet::Messages(to, messages));
    }

    fn send_snapshot(&self, announcement: Message, snapshot: Snapshot) {
        self.0.lock().push(Packet::Snapshot(Box::new((announcement, snapshot))));
    }

    fn set_peers(&self, _: &[Member]) {
        self.0.lock().push(Packet::Peers);
    }

    fn stop(&self) {}
}

/// How all links behave; odds are in a thousand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Links {
    /// Messages that are lost.
    pub loss: u64,
    /// Messages that come twice. Only Raft's own: the contract of transports says so.
    pub duplicates: u64,
    /// Messages that may overtake others.
    pub reordered: u64,
    /// Messages that come seconds late.
    pub stale: u64,
    /// Longest way of a message, microseconds; the shortest is a tenth of it.
    pub delay_us: u64,
}

impl Links {
    /// A network without faults.
    pub const CALM: Self = Self { loss: 0, duplicates: 0, reordered: 0, stale: 0, delay_us: 500 };
}

/// See the module.
pub(super) struct Network {
    pub(super) links: Links,
    /// Links that lose everything: from, to.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Links over which greetings were exchanged.
    greeted: BTreeSet<(NodeId, NodeId)>,
    /// When the newest message on a link arrives.
    busy_until: BTreeMap<(NodeId, NodeId), u64>,
    rng: SeededRng,
}

/// What becomes of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Lost,
    Arrives { at: u64, again_at: Option<u64>, kind: Kind },
}

/// What was odd about its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    InOrder,
    Reordered,
    Stale,
}

impl Network {
    pub(super) fn new(rng: SeededRng) -> Self {
        Self {
            links: Links::CALM,
            cut: BTreeSet::new(),
            greeted: BTreeSet::new(),
            busy_until: BTreeMap::new(),
            rng,
        }
    }

    pub(super) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    pub(super) fn heal_all(&mut self) {
        self.cut.clear();
        self.links = Links::CALM;
    }

    pub(super) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Whether the two have greeted each other since one of them started.
    pub(super) fn has_greeted(&self, from: NodeId, to: NodeId) -> bool {
        self.greeted.contains(&(from, to))
    }

    pub(super) fn greeted(&mut self, from: NodeId, to: NodeId) {
        self.greeted.insert((from, to));
    }

    /// Everybody greets this member anew.
    pub(super) fn forget(&mut self, member: NodeId) {
        self.greeted.retain(|(from, to)| *from != member && *to != member);
    }

    /// The way of one message that leaves now.
    pub(super) fn way(&mut self, now: u64, from: NodeId, to: NodeId, may_repeat: bool) -> Way {
        let Links { loss, duplicates, reordered, stale, .. } = self.links;
        if self.is_cut(from, to) || self.odds(loss) {
            return Way::Lost;
        }
        let mut at = now + self.delay();
        let mut kind = Kind::InOrder;
        if may_repeat && self.odds(stale) {
            at += self.rng.range(SECOND..8 * SECOND);
            kind = Kind::Stale;
        } else if self.odds(reordered) {
            at += self.rng.below(4 * self.links.delay_us * US);
            kind = Kind::Reordered;
        } else {
            let busy_until = self.busy_until.entry((from, to)).or_default();
            at = at.max(*busy_until);
            *busy_until = at;
        }
        let again_at = (may_repeat && self.odds(duplicates)).then(|| at + self.delay());
        Way::Arrives { at, again_at, kind }
    }

    /// How long something of this size takes on a stream of its own.
    pub(super) fn stream_time(&mut self, bytes: u64) -> u64 {
        // 100 MB/s.
        2 * self.delay() + bytes * 10 + self.rng.below(20 * MS)
    }

    fn delay(&mut self) -> u64 {
        let longest = self.links.delay_us.max(10) * US;
        self.rng.range(longest / 10..longest)
    }

    fn odds(&mut self, of_thousand: u64) -> bool {
        of_thousand != 0 && self.rng.chance(of_thousand, 1_000)
    }
}

#[cfg(test)]
mod tests {
    use harmony_types::fake::seed::Seed;

    use super::*;

    fn id(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn arrivals(links: Links, count: usize) -> Vec<u64> {
        let mut network = Network::new(Seed(1).rng());
        network.links = links;
        let ways = (0..count as u64).map(|sent| network.way(sent * 10 * US, id(1), id(2), true));
        ways.filter_map(|way| match way {
            Way::Arrives { at, .. } => Some(at),
            Way::Lost => None,
        })
        .collect()
    }

    #[test]
    fn a_calm_link_keeps_the_order_and_loses_nothing() {
        let arrivals = arrivals(Links::CALM, 1_000);
        assert_eq!(arrivals.len(), 1_000);
        assert!(arrivals.is_sorted());
    }

    #[test]
    fn a_bad_link_loses_and_reorders() {
        let arrivals = arrivals(Links { loss: 300, reordered: 300, ..Links::CALM }, 1_000);
        assert!((600..800).contains(&arrivals.len()), "{}", arrivals.len());
        assert!(!arrivals.is_sorted());
    }

    #[test]
    fn a_cut_holds_in_one_direction() {
        let mut network = Network::new(Seed(1).rng());
        network.cut(id(1), id(2));
        assert_eq!(network.way(0, id(1), id(2), true), Way::Lost);
        assert!(matches!(network.way(0, id(2), id(1), true), Way::Arrives { .. }));
    }
}
