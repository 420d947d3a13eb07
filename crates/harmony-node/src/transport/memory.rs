//! A network in one process: a switchboard whose links can be cut, each direction by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use harmony_types::transport::PeerSink;
use harmony_types::{Member, Message, NodeId, PeerMessage, Snapshot, SnapshotData, Transport};

/// The switchboard. Clones speak of the same one.
///
/// A message is handed over on the sender's thread, at once and in order, or it is lost: to a node that is not there, or
/// over a link that is cut.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<NodeId, Arc<dyn PeerSink>>,
    /// Links that lose everything: from, to.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Nodes that have greeted each other, and speak.
    greeted: BTreeSet<(NodeId, NodeId)>,
}

impl std::fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lock();
        f.debug_struct("MemoryNetwork").field("nodes", &state.nodes.keys()).field("cut", &state.cut).finish()
    }
}

impl MemoryNetwork {
    /// A network without nodes and cuts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The transport of one node.
    #[must_use]
    pub fn transport(&self, node: NodeId) -> Arc<MemoryTransport> {
        Arc::new(MemoryTransport { network: self.clone(), node })
    }

    /// Loses everything that `from` sends `to` from now on.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.lock().cut.insert((from, to));
    }

    /// Ends the cut of one link.
    pub fn heal(&self, from: NodeId, to: NodeId) {
        self.lock().cut.remove(&(from, to));
    }

    /// Cuts a node off from all that are attached now, in both directions.
    pub fn isolate(&self, node: NodeId) {
        let mut state = self.lock();
        let others: Vec<NodeId> = state.nodes.keys().copied().filter(|other| *other != node).collect();
        for other in others {
            state.cut.insert((node, other));
            state.cut.insert((other, node));
        }
    }

    /// Ends all cuts.
    pub fn heal_all(&self) {
        self.lock().cut.clear();
    }

    fn reach(&self, from: NodeId, to: NodeId) -> Option<Arc<dyn PeerSink>> {
        let (own, sink) = {
            let state = self.lock();
            if state.cut.contains(&(from, to)) {
                return None;
            }
            let own = state.nodes.get(&from)?;
            let Some(sink) = state.nodes.get(&to) else {
                let own = Arc::clone(own);
                drop(state);
                own.gone(to);
                return None;
            };
            if state.greeted.contains(&(from, to)) {
                return Some(Arc::clone(sink));
            }
            (Arc::clone(own), Arc::clone(sink))
        };
        if let Err(refusal) = sink.admit(from, own.held()) {
            own.refused(to, refusal);
            return None;
        }
        own.admit(to, sink.held()).ok()?;
        self.lock().greeted.insert((from, to));
        Some(sink)
    }

    /// Lets everybody greet this node again.
    fn forget(&self, node: NodeId) {
        self.lock().greeted.retain(|(from, to)| *from != node && *to != node);
    }

    fn sink(&self, node: NodeId) -> Option<Arc<dyn PeerSink>> {
        self.lock().nodes.get(&node).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One node's way into a [`MemoryNetwork`].
#[derive(Debug)]
pub struct MemoryTransport {
    network: MemoryNetwork,
    node: NodeId,
}

impl MemoryTransport {
    /// Hands over what arrives for this node to `sink`; before, it is lost.
    pub fn attach(&self, sink: Arc<dyn PeerSink>) {
        self.network.forget(self.node);
        self.network.lock().nodes.insert(self.node, sink);
    }
}

impl Transport for MemoryTransport {
    fn send(&self, to: NodeId, messages: Vec<PeerMessage>) {
        match self.network.reach(self.node, to) {
            Some(sink) => messages.into_iter().for_each(|message| sink.receive(self.node, message)),
            None => {
                if let Some(own) = self.network.sink(self.node) {
                    own.unreachable(to);
                }
            }
        }
    }

    fn send_snapshot(&self, announcement: Message, snapshot: Snapshot) {
        let (to, meta) = (announcement.to, snapshot.meta);
        // It is handed over once it is there as a whole, as over a real network.
        let mut content = Vec::new();
        let whole = snapshot.data.into_reader().read_to_end(&mut content).is_ok();
        let arrived = whole
            && self.network.reach(self.node, to).is_some_and(|sink| {
                let snapshot = Snapshot { meta, data: SnapshotData::Bytes(content.into()) };
                sink.receive_snapshot(announcement, snapshot).is_ok()
            });
        if let Some(own) = self.network.sink(self.node) {
            own.snapshot_sent(to, arrived);
        }
    }

    fn set_peers(&self, _peers: &[Member]) {
        self.network.forget(self.node);
    }

    fn stop(&self) {
        self.network.lock().nodes.remove(&self.node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Log(Mutex<Vec<String>>);

    impl PeerSink for Log {
        fn receive(&self, from: NodeId, _: PeerMessage) {
            self.0.lock().unwrap().push(format!("from {from}"));
        }

        fn receive_snapshot(&self, _: Message, _: Snapshot) -> Result<(), harmony_types::NodeError> {
            Ok(())
        }

        fn unreachable(&self, peer: NodeId) {
            self.0.lock().unwrap().push(format!("lost {peer}"));
        }

        fn snapshot_sent(&self, _: NodeId, _: bool) {}

        fn gone(&self, peer: NodeId) {
            self.0.lock().unwrap().push(format!("gone {peer}"));
        }
    }

    #[test]
    fn a_cut_loses_one_direction_and_the_sender_hears_of_it() {
        let network = MemoryNetwork::new();
        let ids = [1, 2].map(|number| NodeId::new(number).unwrap());
        let logs = [Arc::new(Log::default()), Arc::new(Log::default())];
        let transports = ids.map(|id| network.transport(id));
        for (transport, log) in transports.iter().zip(&logs) {
            transport.attach(Arc::clone(log) as _);
        }
        let hello = || vec![PeerMessage::Propose { request: 1, data: bytes::Bytes::new() }];
        network.cut(ids[0], ids[1]);
        transports[0].send(ids[1], hello());
        transports[1].send(ids[0], hello());
        assert_eq!(*logs[0].0.lock().unwrap(), ["lost 2", "from 2"]);
        network.heal(ids[0], ids[1]);
        transports[0].send(ids[1], hello());
        transports[0].stop();
        transports[1].send(ids[0], hello());
        assert_eq!(*logs[1].0.lock().unwrap(), ["from 1", "gone 1", "lost 1"]);
    }
}
