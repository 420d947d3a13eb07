//! Bounds that concern this crate alone; those that layers share stand in [`harmony_types::limits`].

use harmony_types::limits;

/// Entry data applied as one batch, bytes: large enough to pay for the hand-over, small enough that a read waits briefly.
pub(crate) const APPLY_BATCH_BYTES_MAX: u64 = 4 << 20;

/// Entries applied as one batch: reads wait for it, some ms.
pub(crate) const APPLY_BATCH_ENTRIES_MAX: usize = 512;

/// Time between two tries to apply what a full disk refused, milliseconds.
pub(crate) const APPLY_RETRY_MS: u64 = 100;

/// Entry data tried at once then, bytes.
pub(crate) const APPLY_WAITING_BYTES_MAX: u64 = 4 * APPLY_BATCH_BYTES_MAX;

/// Entry data in one proposal to raft, bytes: raft takes or refuses a proposal whole.
pub(crate) const PROPOSE_BYTES_MAX: usize = 4 << 20;

/// Commands waiting in a node for a leader or for its answer, bytes; as much again may wait in its mailbox.
pub(crate) const PROPOSALS_BYTES_MAX: usize = 128 << 20;

/// Reads waiting in a node.
pub(crate) const READS_WAITING_MAX: usize = limits::PROPOSALS_WAITING_MAX;

/// Read index rounds under way at once: a read waits for one round and a part of another at most, and the leader's
/// heartbeats stay few.
pub(crate) const READ_ROUNDS_MAX: usize = 2;

/// Time after which a read index round is asked for again, milliseconds: raft drops requests silently.
pub(crate) const READ_RETRY_MS: u64 = 500;

/// What a request may take beside two election timeouts, milliseconds, as etcd's.
pub(crate) const REQUEST_TIMEOUT_MS: u64 = 5_000;

/// Messages from peers waiting in a node's mailbox: past it they are dropped, as Raft allows.
pub(crate) const PEER_MESSAGES_WAITING_MAX: usize = 16_384;

/// Entry data applied before the checkpoint thread is woken, bytes: so early that the storage, which takes a multiple of it
/// in memory, need not make apply wait for the disk.
pub(crate) const CHECKPOINT_ASK_BYTES: u64 = limits::CHECKPOINT_BYTES / 4;

/// Connections from peers in the middle of their handshake: past it more are closed at once, as strangers may open any
/// number of them. Each ends by itself after the handshake's time.
pub(crate) const PEER_GREETINGS_MAX: usize = 64;

/// Connections from peers whose handshake is done: a few for each member, those that died unnoticed included.
pub(crate) const PEER_CONNECTIONS_MAX: usize = 256;

/// Time between two pings to a peer, milliseconds.
pub(crate) const PING_INTERVAL_MS: u64 = 1_000;

/// Entries read at once to learn the size of the log, bytes.
pub(crate) const MEASURE_BYTES: u64 = 1 << 20;

/// Membership changes waiting in a node.
pub(crate) const CHANGES_WAITING_MAX: usize = 256;

/// Ticks between two rounds in which a leader tells what members have acknowledged.
pub(crate) const ACKNOWLEDGED_TICKS: u64 = 10;

/// Batches of applied entries end at multiples of this index, where members compare the hashes of their states.
pub(crate) const HASH_STEP: u64 = 512;

/// Hashes that a member keeps of its own state, 16 bytes each: more than the entries of a few steps.
pub(crate) const HASHES_KEPT: usize = 1024;

/// Newest hashes that a follower tells its leader, and as many again at multiples of the step.
pub(crate) const HASHES_TOLD: usize = 16;

/// Election timeouts between two reports of a member that has no state and finds no leader to give it one.
pub(crate) const LOSS_REPORT_ELECTIONS: u64 = 10;

/// Terms and indexes from peers stay below: no cluster lives long enough to count so far, and raft adds to what it hears.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;

const _: () = assert!(limits::REQUEST_BYTES_MAX < PROPOSE_BYTES_MAX);
const _: () = assert!(limits::APPEND_BYTES_MAX <= APPLY_BATCH_BYTES_MAX);
