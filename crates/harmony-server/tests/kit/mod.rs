//! What the tests over real processes share: a blocking gRPC client, and clusters of the program under test.

#![allow(dead_code, reason = "every test uses a part of it")]

#[allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
pub(crate) mod members;
pub(crate) mod retrying;

use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use harmony_server::proto::etcdserverpb as pb;
use harmony_server::proto::etcdserverpb::auth_client::AuthClient;
use harmony_server::proto::etcdserverpb::cluster_client::ClusterClient;
use harmony_server::proto::etcdserverpb::kv_client::KvClient;
use harmony_server::proto::etcdserverpb::lease_client::LeaseClient;
use harmony_server::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use harmony_testkit::client::StateHash;
use harmony_testkit::wait::{PATIENCE, until};
use harmony_testkit::{Client, Ledger, NodeStatus, ProcessCluster, ProcessConfig, TestError};
use harmony_types::{KeyValue, LogIndex, NodeId, Revision, Term, TestCluster};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

/// Longer than the server's own limit, so that the server's answer is what a test sees.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// A blocking client of one member over gRPC.
pub(crate) struct GrpcClient {
    runtime: Runtime,
    channel: Channel,
    token: Arc<OnceLock<String>>,
}

impl GrpcClient {
    /// A client of `endpoint` (`host:port`); it connects when it is first used.
    pub(crate) fn new(endpoint: &str) -> Result<Self, TestError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let guard = runtime.enter();
        let channel = Endpoint::from_shared(format!("http://{endpoint}"))?
            .connect_timeout(Duration::from_secs(2))
            .timeout(CALL_TIMEOUT)
            .tcp_nodelay(true)
            .connect_lazy();
        drop(guard);
        Ok(Self { runtime, channel, token: Arc::default() })
    }

    /// Any service: calls that the others here do not have.
    pub(crate) fn run<T>(&self, call: impl AsyncFnOnce(Channel) -> T) -> T {
        self.runtime.block_on(call(self.channel.clone()))
    }

    /// The KV service, for calls that the [`Client`] trait does not have.
    pub(crate) fn kv<T>(
        &self,
        call: impl AsyncFnOnce(&mut KvClient<Channel>) -> Result<tonic::Response<T>, tonic::Status>,
    ) -> Result<T, tonic::Status> {
        // As clients of etcd have it: the server says what is too large.
        let mut client = KvClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        self.runtime.block_on(call(&mut client)).map(tonic::Response::into_inner)
    }

    /// The maintenance service.
    pub(crate) fn maintenance<T>(
        &self,
        call: impl AsyncFnOnce(&mut MaintenanceClient<Channel>) -> Result<tonic::Response<T>, tonic::Status>,
    ) -> Result<T, tonic::Status> {
        let mut client = MaintenanceClient::new(self.channel.clone());
        self.runtime.block_on(call(&mut client)).map(tonic::Response::into_inner)
    }

    /// The cluster service.
    pub(crate) fn cluster<T>(
        &self,
        call: impl AsyncFnOnce(&mut ClusterClient<Channel>) -> Result<tonic::Response<T>, tonic::Status>,
    ) -> Result<T, tonic::Status> {
        let mut client = ClusterClient::new(self.channel.clone());
        self.runtime.block_on(call(&mut client)).map(tonic::Response::into_inner)
    }

    /// The lease service.
    pub(crate) fn lease<T>(
        &self,
        call: impl AsyncFnOnce(&mut LeaseClient<Channel>) -> Result<tonic::Response<T>, tonic::Status>,
    ) -> Result<T, tonic::Status> {
        let mut client = LeaseClient::new(self.channel.clone());
        self.runtime.block_on(call(&mut client)).map(tonic::Response::into_inner)
    }

    /// A request with the token, if there is one.
    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = self.token.get() {
            request.metadata_mut().insert("token", token.parse().expect("a token is ASCII"));
        }
        request
    }

    /// The auth service.
    pub(crate) fn auth<T>(
        &self,
        call: impl AsyncFnOnce(&mut AuthClient<Channel>) -> Result<tonic::Response<T>, tonic::Status>,
    ) -> Result<T, tonic::Status> {
        let mut client = AuthClient::new(self.channel.clone());
        self.runtime.block_on(call(&mut client)).map(tonic::Response::into_inner)
    }

    /// The next message of a stream.
    pub(crate) fn next<T>(&self, stream: &mut tonic::Streaming<T>) -> Result<Option<T>, tonic::Status> {
        self.runtime.block_on(stream.message())
    }

    /// A local read, whatever the quorum says.
    pub(crate) fn get_serializable(&self, key: &[u8]) -> Result<Option<KeyValue>, tonic::Status> {
        let request =
            pb::RangeRequest { key: Bytes::copy_from_slice(key), serializable: true, ..Default::default() };
        self.kv(async |kv| kv.range(self.request(request)).await)
            .map(|response| response.kvs.into_iter().next())
    }
}

fn header(header: Option<pb::ResponseHeader>) -> Result<pb::ResponseHeader, TestError> {
    header.ok_or_else(|| "the response has no header".into())
}

fn revision(header: &pb::ResponseHeader) -> Result<Revision, TestError> {
    Ok(Revision(u64::try_from(header.revision)?))
}

impl Client for GrpcClient {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<Revision, TestError> {
        let request = pb::PutRequest {
            key: Bytes::copy_from_slice(key),
            value: Bytes::copy_from_slice(value),
            ..Default::default()
        };
        revision(&header(self.kv(async |kv| kv.put(self.request(request)).await)?.header)?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, TestError> {
        let request = pb::RangeRequest { key: Bytes::copy_from_slice(key), ..Default::default() };
        Ok(self.kv(async |kv| kv.range(self.request(request)).await)?.kvs.into_iter().next())
    }

    fn delete(&self, key: &[u8]) -> Result<Revision, TestError> {
        let request = pb::DeleteRangeRequest { key: Bytes::copy_from_slice(key), ..Default::default() };
        revision(&header(self.kv(async |kv| kv.delete_range(self.request(request)).await)?.header)?)
    }

    fn status(&self) -> Result<NodeStatus, TestError> {
        let status = self
            .maintenance(async |maintenance| maintenance.status(self.request(pb::StatusRequest {})).await)?;
        let head = header(status.header)?;
        Ok(NodeStatus {
            id: NodeId::new(head.member_id).ok_or("a status from member 0")?,
            leader: NodeId::new(status.leader),
            term: Term(status.raft_term),
            revision: revision(&head)?,
            applied: LogIndex(status.raft_applied_index),
        })
    }

    fn state_hash(&self, revision: Revision) -> Result<StateHash, TestError> {
        let request = pb::HashKvRequest { revision: revision.as_i64() };
        let hash = self.maintenance(async |maintenance| maintenance.hash_kv(self.request(request)).await)?;
        Ok(StateHash {
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            revision: hash.hash_revision,
        })
    }
}

/// The program under test.
pub(crate) const HARMONY: &str = env!("CARGO_BIN_EXE_harmony");

/// A cluster of the program under test, not started yet.
pub(crate) fn cluster() -> ProcessCluster {
    cluster_with(&[], &Arc::default())
}

/// One whose members have these flags as well, and whose own clients use the token once it is there.
pub(crate) fn cluster_with(flags: &[&str], token: &Arc<OnceLock<String>>) -> ProcessCluster {
    let token = Arc::clone(token);
    let extra_args = flags.iter().map(ToString::to_string).collect();
    let config = ProcessConfig { extra_args, ..ProcessConfig::new(HARMONY) };
    ProcessCluster::new(config, move |endpoint| {
        Ok(Box::new(GrpcClient { token: Arc::clone(&token), ..GrpcClient::new(endpoint)? }))
    })
    .expect("a temporary directory")
}

/// A cluster of `nodes` that serves.
pub(crate) fn started(nodes: usize) -> ProcessCluster {
    let mut cluster = cluster();
    cluster.start(nodes).expect("the cluster starts");
    cluster
}

/// Writes through every endpoint from two threads each until `act` returns; waits before for `warm_up` acknowledgements.
pub(crate) fn under_load(
    ledger: &Ledger,
    endpoints: &[String],
    warm_up: usize,
    act: impl FnOnce() -> Result<(), TestError>,
) -> Result<(), TestError> {
    let before = ledger.acknowledged();
    ledger.resume();
    thread::scope(|scope| {
        let writers: Vec<_> = endpoints
            .iter()
            .flat_map(|endpoint| [endpoint, endpoint])
            .map(|endpoint| {
                scope.spawn(move || -> Result<(), TestError> {
                    let client = GrpcClient::new(endpoint)?;
                    ledger.write_until_error(&client)
                })
            })
            .collect();
        let acted = until("the load is acknowledged", PATIENCE, || {
            let acknowledged = ledger.acknowledged() - before;
            if warm_up <= acknowledged { Ok(()) } else { Err(format!("{acknowledged} of {warm_up}").into()) }
        })
        .and_then(|()| act());
        ledger.stop();
        for writer in writers {
            writer.join().map_err(|_| "a writer panicked")??;
        }
        acted
    })
}

/// Waits until a member leads, moved there from whoever else does.
pub(crate) fn let_lead(cluster: &ProcessCluster, id: NodeId) {
    until("it leads", PATIENCE, || {
        let leader = cluster.leader()?;
        if leader == id {
            return Ok(());
        }
        let client = GrpcClient::new(&cluster.node(leader).ok_or("the leader runs")?.endpoint())?;
        let request = pb::MoveLeaderRequest { target_id: id.get() };
        client.maintenance(async |it| it.move_leader(request).await)?;
        Err(format!("member {leader} led").into())
    })
    .expect("leadership moves");
}

/// The check that ends a scenario: all running members hold the same, and every acknowledged put.
#[track_caller]
pub(crate) fn check(cluster: &ProcessCluster, ledger: &Ledger) {
    cluster.check_agreement().expect("the members agree");
    for node in cluster.running() {
        ledger.check(node.client()).expect("no put is lost");
    }
}

/// Puts through a member until one is acknowledged.
#[track_caller]
pub(crate) fn write(cluster: &ProcessCluster, ledger: &Ledger, through: NodeId) {
    let node = cluster.node(through).expect("it runs");
    let written = until("a put is acknowledged", PATIENCE, || match ledger.write_one(node.client())? {
        true => Ok(()),
        false => Err("refused".into()),
    });
    written.unwrap_or_else(|error| panic!("{error}"));
}

/// Puts through a member until it follows somebody other than `old`.
#[track_caller]
pub(crate) fn another_leads(cluster: &ProcessCluster, ledger: &Ledger, through: NodeId, old: NodeId) {
    let client = cluster.node(through).expect("it runs").client();
    until("another leader", PATIENCE, || {
        ledger.write_one(client)?;
        match client.status()?.leader {
            Some(leader) if leader != old => Ok(()),
            leader => Err(format!("the leader is {leader:?}").into()),
        }
    })
    .expect("leadership moves");
}
