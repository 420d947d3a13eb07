//! A node without threads: whoever holds it does what the threads of [`Node`] would do, one step at a time.
//!
//! The steps are the threads' own code. A simulator decides when each one happens; between two of them nothing moves.

use std::sync::Arc;
use std::time::Duration;

use harmony_types::config::NodeConfig;
use harmony_types::transport::PeerSink;
use harmony_types::{Clock, NodeError, Status, Storage, Transport};

use crate::applier::Applier;
use crate::core::Core;
use crate::core::event::Event;
use crate::driver::{self, Shared, Sink};
use crate::metrics::NodeMetrics;
use crate::node::Node;
use crate::witness::Witness;
use crate::{bounds, checkpointer, persist, witness};

/// Time between two checkpoints that a node makes by itself, and between two tries to apply what a full disk refused.
pub const CHECKPOINT_INTERVAL: Duration =
    Duration::from_millis(harmony_types::limits::CHECKPOINT_INTERVAL_MS);
/// See [`Due::room`].
pub const APPLY_RETRY: Duration = Duration::from_millis(bounds::APPLY_RETRY_MS);

/// What a node takes from chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chance {
    /// Differs from life to life.
    pub boot_nonce: u64,
    /// Where its election timeouts come from; differs from member to member.
    pub election_seed: u64,
}

/// Which steps have something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Due {
    /// [`SteppedNode::turn`]
    pub turn: bool,
    /// [`SteppedNode::begin_sync`]
    pub sync: bool,
    /// [`SteppedNode::apply`]
    pub apply: bool,
    /// [`SteppedNode::apply`], though nothing came: the disk had no room.
    pub room: bool,
    /// [`SteppedNode::send_snapshots`]
    pub snapshots: bool,
    /// [`SteppedNode::checkpoint`], ahead of its interval.
    pub checkpoint: bool,
    /// [`SteppedNode::save_witness`]
    pub witness: bool,
}

/// See the module. Dropping it is a crash; every waiter ends.
pub struct SteppedNode<S: Storage> {
    shared: Arc<Shared<S>>,
    core: Core<S>,
    applier: Applier<S::Outcome>,
}

impl<S: Storage> std::fmt::Debug for SteppedNode<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SteppedNode({})", self.shared.config.id)
    }
}

impl<S: Storage> SteppedNode<S> {
    /// Starts a member from what its storage holds, as [`Node::start_with`] does.
    ///
    /// # Errors
    /// As [`Node::start_with`].
    pub fn start(
        config: NodeConfig,
        storage: Arc<S>,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
        witness: Witness,
        chance: Chance,
    ) -> Result<Self, NodeError> {
        let metrics = Arc::new(NodeMetrics::default());
        let core = Core::new(config.clone(), Arc::clone(&storage), chance.boot_nonce, Arc::clone(&metrics))?;
        core.pin_election_timeouts(chance.election_seed);
        witness.incarnations().begin(config.id, chance.boot_nonce)?;
        let shared = driver::share(config, &core, storage, transport, clock, metrics, witness);
        checkpointer::measure(&shared);
        let applier = Applier::of(&shared);
        let mut node = Self { shared, core, applier };
        node.turn(false)?;
        Ok(node)
    }

    /// The handle that clients use. It keeps nothing running.
    #[must_use]
    pub fn handle(&self) -> Node<S> {
        Node::of(Arc::clone(&self.shared))
    }

    /// Where a transport hands over what arrives.
    #[must_use]
    pub fn peer_sink(&self) -> Arc<dyn PeerSink> {
        Arc::new(Sink::new(&self.shared))
    }

    /// The node's view of itself and the cluster, as raft has it.
    #[must_use]
    pub fn status(&self) -> Status {
        self.core.status()
    }

    /// Which steps have something to do.
    #[must_use]
    pub fn due(&self) -> Due {
        let Shared { inbox, persist, apply, snapshots, checkpoint, witnessed, .. } = &*self.shared;
        Due {
            turn: inbox.is_filled(),
            sync: persist.is_filled(),
            apply: apply.is_filled(),
            room: self.applier.waits(),
            snapshots: snapshots.is_filled(),
            checkpoint: checkpoint.is_filled(),
            witness: witnessed.is_filled(),
        }
    }

    /// The raft thread: one turn with all that has come, and a beat of time if `tick`.
    ///
    /// # Errors
    /// The node's end; so are those of all other steps.
    pub fn turn(&mut self, tick: bool) -> Result<(), NodeError> {
        self.check()?;
        let mut inbox = self.shared.inbox.try_take().unwrap_or_default();
        if tick {
            inbox.push(Event::Tick);
        }
        let actions = self.core.turn(inbox)?;
        driver::carry_out(&self.shared, actions)
    }

    /// The WAL thread takes up a sync, if one is asked for: its number, for [`SteppedNode::finish_sync`].
    pub fn begin_sync(&mut self) -> Option<u64> {
        self.shared.persist.try_take().flatten()
    }

    /// The WAL thread: syncs, and reports that all up to `number` is on disk.
    ///
    /// # Errors
    /// See [`SteppedNode::turn`].
    pub fn finish_sync(&mut self, number: u64, began: Duration) -> Result<(), NodeError> {
        self.check()?;
        persist::sync(&self.shared, number, began)
    }

    /// The apply thread: all that waits for the state machine.
    ///
    /// # Errors
    /// See [`SteppedNode::turn`].
    pub fn apply(&mut self) -> Result<(), NodeError> {
        self.check()?;
        let jobs = self.shared.apply.try_take().unwrap_or_default();
        self.applier.work(&self.shared, jobs)
    }

    /// The snapshot thread: all snapshots that are asked for.
    ///
    /// # Errors
    /// See [`SteppedNode::turn`].
    pub fn send_snapshots(&mut self) -> Result<(), NodeError> {
        self.check()?;
        let announcements = self.shared.snapshots.try_take().unwrap_or_default();
        announcements.into_iter().try_for_each(|one| driver::send_snapshot(&self.shared, one))
    }

    /// The checkpoint thread: one round, due at every [`CHECKPOINT_INTERVAL`].
    ///
    /// # Errors
    /// See [`SteppedNode::turn`].
    pub fn checkpoint(&mut self) -> Result<(), NodeError> {
        self.check()?;
        let _asked = self.shared.checkpoint.try_take();
        checkpointer::checkpoint(&self.shared)
    }

    /// The witness thread: writes what members are known to have acknowledged.
    ///
    /// # Errors
    /// See [`SteppedNode::turn`].
    pub fn save_witness(&mut self) -> Result<(), NodeError> {
        self.check()?;
        let _told = self.shared.witnessed.try_take();
        witness::save(&self.shared);
        Ok(())
    }

    /// A peer may have told this member that it must stop.
    fn check(&self) -> Result<(), NodeError> {
        if self.shared.is_stopped() { Err(NodeError::Stopped) } else { Ok(()) }
    }
}

impl<S: Storage> Drop for SteppedNode<S> {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}
