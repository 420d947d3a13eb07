//! The etcd API: one service a file, each call in four steps: validate, convert, call, convert.
//!
//! Handlers take decoded requests and return answers or an [`ApiError`]; nothing here knows tonic, so that gRPC, JSON and
//! a leaner path for the hot calls can share them. `net` carries requests here.

pub(crate) mod access;
pub(crate) mod alarms;
pub(crate) mod auth;
mod auto_compaction;
pub(crate) mod backup;
mod candidate;
pub(crate) mod cluster;
pub(crate) mod convert;
pub(crate) mod election;
pub(crate) mod header;
pub(crate) mod health;
mod key_watch;
pub(crate) mod kv;
pub(crate) mod lease;
pub(crate) mod lock;
pub(crate) mod maintenance;
pub(crate) mod range_stream;
pub(crate) mod reads;
pub(crate) mod status;
pub(crate) mod validate;
pub(crate) mod watch;

use std::sync::Arc;
use std::time::Duration;

use harmony_node::Node;
use harmony_storage::UnifiedStorage;
use harmony_types::command::PublishMember;
use harmony_types::quota::Quota;
use harmony_types::{
    Author, ClusterId, Command, CommandKind, Membership, NodeId, Outcome, OutcomeKind, Refusal,
};

use crate::auth::Authenticator;
use crate::net::Task;
use crate::net::replies::Replies;
use lease::KeptLeases;
use maintenance::MaintenanceMetrics;
use reads::Reads;
use status::ApiError;
use tokio::sync::{Notify, Semaphore};
use watch::Watches;

/// What one request may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Largest command, bytes.
    pub(crate) request_bytes_max: usize,
    /// Compares or operations in one transaction.
    pub(crate) txn_ops_max: usize,
    /// At which writes are refused; `None`: never.
    pub(crate) quota: Option<Quota>,
    /// How long a request waits for the cluster.
    pub(crate) timeout: Duration,
}

impl Limits {
    /// Largest message that is taken, bytes: room for what stands around a command.
    pub(crate) fn message_bytes_max(&self) -> usize {
        self.request_bytes_max + harmony_types::limits::GRPC_OVERHEAD_BYTES
    }
}

/// What runs beside the node.
pub(crate) struct Beside {
    pub(crate) watches: Watches,
    pub(crate) leases: KeptLeases,
    /// Other members can reach this one.
    pub(crate) hears_peers: bool,
}

/// The etcd API over one node and its storage. Runs on the network thread.
pub(crate) struct Api {
    pub(crate) node: Node<UnifiedStorage>,
    pub(crate) storage: Arc<UnifiedStorage>,
    pub(crate) cluster: ClusterId,
    pub(crate) member: NodeId,
    pub(crate) limits: Limits,
    pub(crate) auth: Authenticator,
    pub(crate) watches: Watches,
    pub(crate) leases: KeptLeases,
    hears_peers: bool,
    outcomes: Arc<Replies<Outcome>>,
    changes: Arc<Replies<Membership>>,
    pub(crate) reads: Arc<Reads>,
    pub(crate) maintenance: Arc<MaintenanceMetrics>,
    /// Told when a write is refused for the quota.
    refused_for_quota: Notify,
    /// Places for backups.
    backups: Arc<Semaphore>,
}

impl Api {
    pub(crate) fn new(
        node: Node<UnifiedStorage>,
        storage: Arc<UnifiedStorage>,
        cluster: ClusterId,
        member: NodeId,
        limits: Limits,
        auth: Authenticator,
        beside: Beside,
    ) -> Self {
        let Beside { watches, leases, hears_peers } = beside;
        let reads = Reads::new(node.clone(), limits.timeout);
        Self {
            node,
            storage,
            cluster,
            member,
            limits,
            auth,
            watches,
            leases,
            hears_peers,
            outcomes: Replies::new(),
            changes: Replies::new(),
            reads,
            maintenance: Arc::default(),
            refused_for_quota: Notify::new(),
            backups: Arc::new(Semaphore::new(backup::BACKUPS_MAX)),
        }
    }

    /// What must run on the network thread for as long as requests are served.
    pub(crate) fn tasks(self: &Arc<Self>) -> Vec<Task> {
        let mut tasks: Vec<Task> = vec![
            Box::pin(Arc::clone(&self.outcomes).deliver()),
            Box::pin(Arc::clone(&self.changes).deliver()),
            Box::pin(Arc::clone(&self.reads).run()),
            Box::pin(Arc::clone(self).watch_quota()),
        ];
        tasks.extend(self.leases.tasks());
        tasks
    }

    /// Waits until local state holds everything that was acknowledged before the call.
    async fn linearize(&self) -> Result<(), ApiError> {
        self.reads.wait().await
    }

    /// Proposes a command and waits until it is applied here. Whether its author may do that is judged there.
    async fn propose(&self, author: Option<Author>, kind: CommandKind) -> Result<Outcome, ApiError> {
        self.check_quota(&kind)?;
        let data = Command { kind: Some(kind), author }.encode_to_bytes();
        if self.limits.request_bytes_max < data.len() {
            return Err(ApiError::TOO_LARGE);
        }
        let (waiter, receiver) = self.outcomes.waiter();
        self.node.propose(data, waiter);
        let outcome = receiver.answer(self.limits.timeout).await?;
        match outcome.kind {
            Some(OutcomeKind::Refused(refusal)) => {
                Err(Refusal::try_from(refusal).unwrap_or(Refusal::Unspecified).into())
            }
            _ => Ok(outcome),
        }
    }

    /// Tells the cluster this member's name and URLs.
    ///
    /// # Errors
    /// It is not known whether the cluster heard it: try again.
    pub(crate) async fn publish(
        &self,
        name: &str,
        client_urls: &[String],
        peer_urls: &[String],
    ) -> Result<(), ApiError> {
        let publish = PublishMember {
            id: self.member.get(),
            name: name.to_owned(),
            client_urls: client_urls.to_vec(),
            peer_urls: peer_urls.to_vec(),
        };
        self.propose(None, CommandKind::PublishMember(publish)).await.map(drop)
    }

    /// Runs work that may take long off the network thread.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&UnifiedStorage) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let storage = Arc::clone(&self.storage);
        // Fails only when the runtime stops, or when the work panicked.
        tokio::task::spawn_blocking(move || work(&storage)).await.map_err(|_| ApiError::STOPPED)
    }
}

/// The node matches answers on index and term, so this is a bug of ours; one request fails rather than the server.
fn mismatch(outcome: &Outcome) -> ApiError {
    tracing::error!(?outcome, "the outcome of another kind of command");
    ApiError {
        code: status::Code::Unknown,
        message: "etcdserver: the outcome does not fit the request".into(),
    }
}
