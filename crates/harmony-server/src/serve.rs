//! A running server: data directory, storage, node, network, put together in this order and taken apart in the reverse.

mod data_dir;
mod join;
mod listen;
pub(crate) mod recover;
mod refusal;
pub(crate) mod restore;
mod verify;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use harmony_node::{
    DiskWatch, LeaseKeeper, LeaseOptions, Node, SystemClock, TcpTransport, TcpTransportConfig, TlsError,
    TransportError, WatchHub, WatchOptions, Witness, cluster_id, member_id,
};
use harmony_storage::UnifiedStorage;
use harmony_types::Transport as _;
use harmony_types::config::{Identity, NodeConfig, StorageConfig, WalConfig};
use harmony_types::quota::Quota;
use harmony_types::{
    ClusterId, FileSystem, Member, Membership, NodeError, NodeId, Role, Storage, StorageError, limits,
};
use harmony_wal::{FileWal, Filler, OsFileSystem};

use crate::api::lease::KeptLeases;
use crate::api::watch::Watches;
use crate::api::{Api, Beside, Limits};
use crate::auth::{AuthError, Authenticator};
use crate::config::{Config, Url};
use crate::gateway::Gateway;
use crate::http::metrics::Metrics;
use crate::http::metrics::health::HealthMetrics;
use crate::http::{self, Shared};
use crate::net::methods::Counters;
use crate::net::routes::Routes;
use crate::net::services::Services;
use crate::net::{Door, Http2, Network};
use crate::version;
use axum::Router;
use data_dir::DataDir;
pub use join::JoinError;
use join::Place;
use listen::{Bound, Ports};

/// How long requests under way may take to end when the server stops.
const DRAIN: Duration = Duration::from_secs(2);

/// How long a leader that stops waits for another to take over.
const TRANSFER: Duration = Duration::from_secs(1);

/// Rest between two tries to tell the cluster this member's name.
const PUBLISH_PAUSE: Duration = Duration::from_millis(500);

/// What etcd adds to twice the election timeout as the limit of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The data directory cannot be used.
    #[error("cannot {action} {path}: {source}; choose another place with --data-dir")]
    DataDir {
        /// What was attempted.
        action: &'static str,
        /// File or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process has the data directory.
    #[error(
        "data directory {path} is in use by another process{holder}: stop it, or choose another --data-dir"
    )]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// Its process id in words, if known.
        holder: String,
    },
    /// A member of a running cluster does not find its place in it.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The data directory belongs to another member or cluster.
    #[error(
        "data directory {path} belongs to another member or cluster: {source}; start it with the --name, \
         --initial-cluster, --initial-advertise-peer-urls and --initial-cluster-token it was made with, or choose another \
         --data-dir"
    )]
    Foreign {
        /// The data directory.
        path: PathBuf,
        /// Whose it is.
        #[source]
        source: StorageError,
    },
    /// Bytes on the disk are not those that were written, or files are missing.
    #[error(
        "the data of this member is damaged and was left as it is: {source}; if it is the only member, start it with a \
         copy of data directory {path} from before the damage; in a cluster an older copy is not safe: see \
         docs/operations.md"
    )]
    Damaged {
        /// The data directory.
        path: PathBuf,
        /// What is damaged.
        #[source]
        source: StorageError,
    },
    /// The disk is full.
    #[error("{source}; nothing acknowledged is lost: make room on the disk of {path} and start again")]
    Full {
        /// The data directory.
        path: PathBuf,
        /// What needed room.
        #[source]
        source: StorageError,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {url}: {source}; {advice} --{flag}")]
    Listen {
        /// The URL from the configuration.
        url: Url,
        /// The flag that names it.
        flag: &'static str,
        /// What to do with the flag.
        advice: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Storage does not open.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The node does not start.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A file for TLS cannot be used.
    #[error("--{flag}: {source}")]
    Tls {
        /// The flag that names the file.
        flag: &'static str,
        /// What is wrong, and what to do.
        #[source]
        source: TlsError,
    },
    /// The transport between members does not start.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// Clients could not log in.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// A thread does not start.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// A server that runs until it is stopped or dropped.
pub struct Server {
    network: Network,
    transport: Arc<TcpTransport>,
    api: Arc<Api>,
    client_addresses: Vec<SocketAddr>,
    closed: bool,
    _filler: Filler,
    // Last: the lock goes when nothing uses the directory any more.
    _data_dir: DataDir,
}

impl Server {
    /// Starts a server; it serves clients on return, with a leader known or not.
    ///
    /// # Errors
    /// See [`ServeError`]. Nothing keeps running then.
    pub fn start(config: &Config) -> Result<Self, ServeError> {
        // Ports first: a mistake there costs nothing yet.
        let ports = listen::clients(config)?;
        let data_dir = DataDir::open(&config.data_dir)?;
        let clock = SystemClock::new();
        let place = Place::of(config, &data_dir, &clock)?;
        let ids = place.ids;
        let auth = Authenticator::new(&config.auth, ids.cluster, Arc::new(clock))?;
        let (storage, wal, filler) = open_storage(config, &data_dir, ids, clock, &place)?;
        if storage.membership() == Membership::default() {
            let first = place.first_members(config, &clock)?;
            storage.bootstrap(&first).map_err(|source| refusal::of(data_dir.path(), source))?;
        }
        let (node, transport) = start_node(config, ids, &data_dir, &storage, clock)?;

        let limits = Limits {
            request_bytes_max: config.request_bytes_max,
            txn_ops_max: config.txn_ops_max,
            quota: config.quota_bytes.map(|bytes| Quota { bytes }),
            timeout: REQUEST_TIMEOUT + 2 * Duration::from_millis(config.election_timeout_ms),
        };
        let watches = start_watches(config, &node, &storage)?;
        let leases = match start_leases(config, &node, &storage, clock) {
            Ok(leases) => leases,
            Err(error) => {
                watches.hub.close();
                return Err(error);
            }
        };
        let beside = Beside { watches, leases, hears_peers: !config.listen_peer.is_empty() };
        let api = Arc::new(Api::new(node, storage, ids.cluster, ids.member, limits, auth, beside));
        let counters = Arc::new(Counters::new(config.extensive_metrics));
        let asked = Arc::new(HealthMetrics::default());
        let metrics = Arc::new(Metrics::new(
            Arc::clone(&api),
            Arc::clone(&transport),
            Arc::clone(&counters),
            Arc::clone(&asked),
            wal,
        ));
        let services = Services::new(&api, counters);
        let gateway = match config.json_gateway {
            true => Gateway::new(services.clone(), limits.message_bytes_max()).router(),
            false => Router::new(),
        };
        let health = http::router(Shared { api: Arc::clone(&api), metrics, health: asked });
        let addresses = |ports: &[Bound]| ports.iter().map(|port| port.address).collect::<Vec<_>>();
        let client_addresses = addresses(&ports.client);
        let metrics_addresses = addresses(&ports.metrics);
        let doors = doors(ports, services, health, gateway);
        let http2 = Http2 {
            streams_max: config.streams_max,
            keep_alive_interval: config.keep_alive_interval,
            keep_alive_timeout: config.keep_alive_timeout,
        };
        let mut tasks = api.tasks();
        tasks.push(Box::pin(verify::run(Arc::clone(&api))));
        if let Some(keep) = config.auto_compaction {
            tasks.push(Box::pin(Arc::clone(&api).compact_by_itself(keep)));
        }
        tasks.push(Box::pin(publish(Arc::clone(&api), own_member(config, ids.member))));
        let network = match Network::start(doors, http2, tasks, DRAIN) {
            Ok(network) => network,
            Err(error) => {
                api.watches.hub.close();
                api.leases.stop();
                api.node.stop();
                return Err(ServeError::Thread(error));
            }
        };

        for notice in &config.notices {
            tracing::warn!("{notice}");
        }
        tracing::info!(
            version = version::PROGRAM,
            name = config.name,
            member = %ids.member,
            cluster = %ids.cluster,
            data_dir = %config.data_dir.display(),
            clients = ?client_addresses,
            metrics = ?metrics_addresses,
            peers = %list(&config.listen_peer),
            members = config.cluster.len(),
            "harmony serves"
        );
        let closed = false;
        Ok(Self { network, transport, api, client_addresses, closed, _filler: filler, _data_dir: data_dir })
    }

    /// Where it listens for clients, with the ports that the system gave.
    #[must_use]
    pub fn client_addresses(&self) -> &[SocketAddr] {
        &self.client_addresses
    }

    /// Why the server cannot go on, if it cannot.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        match self.api.node.failure() {
            None if self.network.is_finished() => Some("the network thread ended".to_owned()),
            failure => failure,
        }
    }

    /// Watches for a disk that hangs, which is no failure yet.
    #[must_use]
    pub fn watch_disk(&self) -> DiskWatch {
        self.api.node.watch_disk()
    }

    /// Closes ports and connections and leaves all else as it is, for a process that ends without its disk. A thread that waits for that in
    /// the kernel cannot be ended, and the process's ports stay open with it, to which others would go on to send. Takes some 2 s.
    pub fn disconnect(mut self) {
        self.transport.stop();
        self.network.stop();
        std::mem::forget(self);
    }

    /// Hands leadership over, lets requests end, closes everything. Takes some 3 s at most.
    ///
    /// # Errors
    /// Storage could not be closed; everything acknowledged is on disk all the same.
    pub fn stop(mut self) -> Result<(), ServeError> {
        self.hand_over();
        self.close()
    }

    fn close(&mut self) -> Result<(), ServeError> {
        self.closed = true;
        // Watches do not end by themselves: the network would wait for them.
        self.api.watches.hub.close();
        // Keep-alive streams do not end by themselves: the network would wait for them.
        self.api.leases.stop();
        self.network.stop();
        self.api.node.stop();
        match self.api.storage.close() {
            Err(error) if error.is_disk_full() => {
                tracing::warn!(%error, "closed without a last checkpoint: the next start takes it from the log");
                Ok(())
            }
            closed => Ok(closed?),
        }
    }

    /// A leader that just goes away leaves the others to find out.
    fn hand_over(&self) {
        if let Err(error) = self.api.node.hand_over(TRANSFER) {
            tracing::info!(%error, "leadership is not handed over");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.closed
            && let Err(error) = self.close()
        {
            tracing::error!(%error, "the server did not close in order");
        }
    }
}

/// What is served at which port.
fn doors(ports: Ports, services: Services, health: Router, gateway: Router) -> Vec<Door> {
    let http = health.clone().merge(gateway);
    let client = match ports.http.is_empty() {
        true => Routes::new(services, http.clone()),
        // As in etcd: HTTP has ports of its own.
        false => Routes::grpc(services),
    };
    let door = |port: Bound, routes| Door { socket: port.socket, entrance: port.entrance, routes };
    let mut doors: Vec<Door> = ports.client.into_iter().map(|port| door(port, client.clone())).collect();
    doors.extend(ports.http.into_iter().map(|port| door(port, Routes::http(http.clone()))));
    doors.extend(ports.metrics.into_iter().map(|port| door(port, Routes::http(health.clone()))));
    doors
}

/// Who this is.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Ids {
    cluster: ClusterId,
    member: NodeId,
}

impl Ids {
    const fn identity(self) -> Identity {
        Identity { cluster: self.cluster, node: Some(self.member) }
    }

    fn of(config: &Config) -> Self {
        let ids: Vec<NodeId> = config
            .cluster
            .iter()
            .map(|member| member_id(&strings(&member.peer_urls), &config.token))
            .collect();
        Self {
            cluster: cluster_id(&ids),
            member: member_id(&strings(&config.own().peer_urls), &config.token),
        }
    }
}

fn open_storage(
    config: &Config,
    data_dir: &DataDir,
    ids: Ids,
    clock: SystemClock,
    place: &Place,
) -> Result<(Arc<UnifiedStorage>, Arc<FileWal>, Filler), ServeError> {
    let options = StorageConfig {
        wal: WalConfig {
            identity: ids.identity(),
            segment_bytes: config.segment_bytes,
            ..WalConfig::default()
        },
        ..StorageConfig::default()
    };
    refusal::check_log(data_dir).map_err(|source| refusal::of(data_dir.path(), source))?;
    let fs: Arc<dyn FileSystem> = OsFileSystem::new();
    let members = || place.members_now(config, &clock);
    let opened = UnifiedStorage::open_member(&fs, &data_dir.wal(), &data_dir.tree(), &options, &members)
        .and_then(|(wal, storage)| {
            let filler = wal.fill_ahead(Arc::new(clock))?;
            Ok((storage, wal, filler))
        });
    match opened {
        Ok((storage, wal, filler)) => Ok((Arc::new(storage), wal, filler)),
        Err(source) => Err(refusal::of(data_dir.path(), source)),
    }
}

fn first_members(config: &Config) -> Membership {
    Membership::from_members(config.cluster.iter().map(|member| {
        let peer_urls = strings(&member.peer_urls);
        Member {
            id: member_id(&peer_urls, &config.token),
            name: String::new(),
            peer_urls,
            client_urls: Vec::new(),
            role: Role::Voter,
        }
    }))
}

fn own_member(config: &Config, id: NodeId) -> Member {
    Member {
        id,
        name: config.name.clone(),
        peer_urls: strings(&config.own().peer_urls),
        client_urls: strings(&config.advertise_client),
        role: Role::Voter,
    }
}

/// Tells the cluster this member's name and URLs, until it is heard. Nothing to tell when a restart changed nothing.
async fn publish(api: Arc<Api>, own: Member) {
    let known = api.storage.membership().members.remove(&own.id);
    if known.as_ref().is_some_and(|member| member.name == own.name && member.client_urls == own.client_urls) {
        return;
    }
    // The cluster's word on the peer URLs is newer than this member's flags.
    let peer_urls = known.map(|member| member.peer_urls).unwrap_or(own.peer_urls);
    while let Err(error) = api.publish(&own.name, &own.client_urls, &peer_urls).await {
        tracing::debug!(%error, "this member's name is not published yet");
        tokio::time::sleep(PUBLISH_PAUSE).await;
    }
}

fn strings(urls: &[Url]) -> Vec<String> {
    urls.iter().map(Url::to_string).collect()
}

fn list(urls: &[Url]) -> String {
    strings(urls).join(",")
}

/// Starts the watch hub; stops the node when it does not start.
fn start_watches(
    config: &Config,
    node: &Node<UnifiedStorage>,
    storage: &Arc<UnifiedStorage>,
) -> Result<Watches, ServeError> {
    match WatchHub::start(Arc::clone(storage) as _, WatchOptions::default()) {
        Ok(hub) => Ok(Watches {
            hub,
            progress_interval: config.watch_progress_interval,
            election_timeout: Duration::from_millis(config.election_timeout_ms),
        }),
        Err(error) => {
            node.stop();
            Err(error.into())
        }
    }
}

/// Starts the lease keeper; stops the node when it does not start.
fn start_leases(
    config: &Config,
    node: &Node<UnifiedStorage>,
    storage: &Arc<UnifiedStorage>,
    clock: SystemClock,
) -> Result<KeptLeases, ServeError> {
    let options = LeaseOptions::new(Duration::from_millis(config.election_timeout_ms));
    match LeaseKeeper::start(Arc::clone(storage) as _, Arc::new(node.clone()), Arc::new(clock), options) {
        Ok(keeper) => Ok(KeptLeases::new(keeper, options)),
        Err(error) => {
            node.stop();
            Err(error.into())
        }
    }
}

/// Starts the transport and the node on it; nothing of them keeps running when one does not start.
fn start_node(
    config: &Config,
    ids: Ids,
    data_dir: &DataDir,
    storage: &Arc<UnifiedStorage>,
    clock: SystemClock,
) -> Result<(Node<UnifiedStorage>, Arc<TcpTransport>), ServeError> {
    let options = NodeConfig {
        heartbeat_interval_ms: config.heartbeat_interval_ms,
        election_timeout_ms: config.election_timeout_ms,
        strict_reconfig: config.strict_reconfig,
        learners_max: config.learners_max,
        log_keep_entries: config.log_keep_entries,
        log_keep_bytes: config.log_keep_bytes,
        log_hold_bytes_max: config.log_hold_bytes_max,
        // The server refuses first, in etcd's words.
        command_bytes_max: config.request_bytes_max + limits::GRPC_OVERHEAD_BYTES,
        ..NodeConfig::new(ids.member, ids.cluster)
    };
    let membership = storage.membership();
    let transport = TcpTransport::start(TcpTransportConfig {
        identity: ids.identity(),
        listen: listen::peers(&config.listen_peer, false)?,
        listen_tls: listen::peers(&config.listen_peer, true)?,
        tls: config.peer_tls.clone(),
        peers: membership.members.into_values().filter(|member| member.id != ids.member).collect(),
        spool_dir: data_dir.spool(),
        snapshot_bytes_per_second: config.snapshot_bytes_per_second,
    })
    .map_err(|error| listen::refused_peer(&config.listen_peer, error))?;
    let started =
        Witness::open(OsFileSystem::new(), data_dir.member()).map_err(NodeError::from).and_then(|witness| {
            Node::start_with(
                options,
                Arc::clone(storage),
                Arc::clone(&transport) as _,
                Arc::new(clock),
                witness,
            )
        });
    match started {
        Ok(node) => {
            transport.attach(node.peer_sink());
            let storage = Arc::clone(storage);
            transport.tell_roster(move || storage.membership());
            Ok((node, transport))
        }
        Err(error) => {
            transport.stop();
            Err(error.into())
        }
    }
}
