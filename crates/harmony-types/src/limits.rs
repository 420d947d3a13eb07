//! Bounds of everything that could grow, with unit and reason. What an operator may change starts from these.

/// Largest client request, bytes (etcd's `--max-request-bytes`).
pub const REQUEST_BYTES_MAX: usize = 1_572_864;

/// What a gRPC message may be larger than a request, bytes: etcd adds the same.
pub const GRPC_OVERHEAD_BYTES: usize = 524_288;

/// Compares or operations in one transaction (etcd's `--max-txn-ops`).
pub const TXN_OPS_MAX: usize = 128;

/// Transactions within transactions. Each takes two levels of protobuf, whose decoder stops at 100: a transaction that
/// was accepted must decode again when it is applied.
pub const TXN_DEPTH_MAX: usize = 32;

/// Largest payload of one log record, bytes: any request that was accepted fits with room to spare.
pub const RECORD_BYTES_MAX: usize = 64 << 20;

/// Size of a WAL segment, bytes.
pub const SEGMENT_BYTES: u64 = 16 << 20;

/// Smallest WAL segment that may be configured, bytes: for tests that cross segments.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 10;

/// Recent log entries kept in memory for followers and apply, bytes of data and of the entries themselves.
pub const LOG_CACHE_BYTES: u64 = 32 << 20;

/// Entries kept behind the applied index for slow followers, at most (etcd's catch-up entries, which are 5000: less than a
/// tenth of a second at full speed). Each takes 12 bytes of memory.
pub const LOG_KEEP_ENTRIES: u64 = 1_000_000;

/// Bytes of log kept behind the applied index for slow followers, at most: some seconds at full speed. Opening reads them.
pub const LOG_KEEP_BYTES: u64 = 64 << 20;

/// Bytes of log kept behind a snapshot that is on its way to a member, at most.
pub const LOG_HOLD_BYTES_MAX: u64 = 2 << 30;

/// Bytes applied before the state machine is made durable. More makes puts cheaper, as more of them share a page, and the open
/// after a crash longer, as it applies as much again: 79,000 puts of 256 B that replace others.
pub const CHECKPOINT_BYTES: u64 = 40 << 20;

/// Time between checkpoints while something is applied, milliseconds.
pub const CHECKPOINT_INTERVAL_MS: u64 = 5_000;

/// Cache of the B-tree, bytes; half of it is its write buffer.
pub const TREE_CACHE_BYTES: usize = 96 << 20;

/// Bytes written to the tree since a view was taken that end the view: pages that it may still read are not used again, so
/// the file grows by as much. Over 40 seconds of random puts at full speed: enough to stream a snapshot.
pub const VIEW_BYTES_MAX: u64 = 4 << 30;

/// Time between heartbeats, milliseconds (etcd's `--heartbeat-interval`).
pub const HEARTBEAT_INTERVAL_MS: u64 = 100;

/// Time without a leader before an election, milliseconds, randomised up to twice (etcd's `--election-timeout`).
pub const ELECTION_TIMEOUT_MS: u64 = 1_000;

/// Longest election timeout, milliseconds, as etcd's.
pub const ELECTION_TIMEOUT_MS_MAX: u64 = 50_000;

/// Heartbeats that must fit into an election timeout, as etcd's.
pub const ELECTION_HEARTBEATS_MIN: u64 = 5;

/// Learners in a cluster (etcd's `--max-learners`).
pub const LEARNERS_MAX: usize = 1;

/// Storage quota when none is given, bytes, as etcd's.
pub const QUOTA_BYTES: u64 = 2 << 30;

/// Longest TTL of a lease, seconds, as etcd's.
pub const LEASE_TTL_S_MAX: i64 = 9_000_000_000;

/// Entry data in one append message, bytes.
pub const APPEND_BYTES_MAX: u64 = 1 << 20;

/// Append messages under way to one follower.
pub const INFLIGHT_MESSAGES_MAX: usize = 256;

/// Entry data proposed and not yet committed, bytes: past it proposals are refused as busy.
pub const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;

/// Committed entries not yet applied: past it proposals are refused as busy, as etcd's.
pub const APPLY_LAG_MAX: u64 = 5_000;

/// Proposals waiting in a node's mailbox.
pub const PROPOSALS_WAITING_MAX: usize = 65_536;

/// Bytes queued for one peer before messages are dropped.
pub const PEER_QUEUE_BYTES_MAX: usize = 128 << 20;

/// Largest frame between peers, bytes.
pub const PEER_FRAME_BYTES_MAX: usize = RECORD_BYTES_MAX + (1 << 20);

const _: () = assert!(REQUEST_BYTES_MAX < RECORD_BYTES_MAX);
const _: () = assert!(2 * TXN_DEPTH_MAX + 8 < 100);
const _: () = assert!(HEARTBEAT_INTERVAL_MS * ELECTION_HEARTBEATS_MIN <= ELECTION_TIMEOUT_MS);
const _: () = assert!(ELECTION_TIMEOUT_MS <= ELECTION_TIMEOUT_MS_MAX);
