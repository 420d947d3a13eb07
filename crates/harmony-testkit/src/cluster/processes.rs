//! A cluster of real processes: started, killed and paused by signals, cut off by proxies between the peers.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use harmony_types::testing::TestError;
use harmony_types::{NodeId, Revision, Term, TestCluster, TestNode};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::client::{Client, NodeStatus};
use crate::proxy::{Links, Proxy};
use crate::wait::{PATIENCE, until};

/// How a client of an endpoint (`127.0.0.1:2379`) is made. The kit itself speaks no client protocol.
pub type Connect = Arc<dyn Fn(&str) -> Result<Box<dyn Client>, TestError> + Send + Sync>;

/// What to start, and how.
#[derive(Clone, Debug)]
pub struct ProcessConfig {
    /// The `harmony` program.
    pub binary: PathBuf,
    /// Flags for every member, after those that the cluster itself sets.
    pub extra_args: Vec<String>,
    /// Token that the ids are derived from.
    pub token: String,
    /// Environment of every member.
    pub env: Vec<(String, String)>,
}

impl ProcessConfig {
    /// Starts `binary` with election times that suit a test.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            extra_args: Vec::new(),
            token: "test-cluster".to_owned(),
            env: Vec::new(),
        }
    }
}

/// One member: its directory and addresses, and its process while it runs.
pub struct ProcessNode {
    id: NodeId,
    name: String,
    directory: PathBuf,
    client_address: SocketAddr,
    peer_listen: SocketAddr,
    peer_url: String,
    /// Its flags about who belongs to the cluster.
    cluster_args: Vec<String>,
    process: Option<Child>,
    client: Box<dyn Client>,
}

impl ProcessNode {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Where clients reach it, `host:port`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.client_address.to_string()
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// A client of it.
    #[must_use]
    pub fn client(&self) -> &dyn Client {
        &*self.client
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// All that it printed.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Its peer URL, as the cluster knows it.
    #[must_use]
    pub fn peer_url(&self) -> &str {
        &self.peer_url
    }

    fn signal(&self, signal: Signal) -> Result<(), TestError> {
        let pid = self.process.as_ref().map(Pid::from_child).ok_or("the member does not run")?;
        Ok(kill_process(pid, signal)?)
    }

    fn status(&self) -> Result<NodeStatus, TestError> {
        self.client.status()
    }
}

impl TestNode for ProcessNode {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<Revision, TestError> {
        self.client.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TestError> {
        Ok(self.client.get(key)?.map(|kv| kv.value))
    }

    fn delete(&self, key: &[u8]) -> Result<Revision, TestError> {
        self.client.delete(key)
    }

    fn is_leader(&self) -> bool {
        self.status().is_ok_and(|status| status.leader == Some(self.id))
    }

    fn term(&self) -> Term {
        self.status().map_or_else(|_| Term::default(), |status| status.term)
    }
}

/// Addresses for a member that is to be added to a running cluster.
pub struct Reserved {
    name: String,
    url: String,
    proxy: TcpListener,
}

impl Reserved {
    /// The peer URL that the cluster is to be told.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// A cluster of processes in a temporary directory. Dropping it kills them all.
pub struct ProcessCluster {
    config: ProcessConfig,
    connect: Connect,
    root: TempDir,
    links: Links,
    nodes: BTreeMap<NodeId, ProcessNode>,
}

impl ProcessCluster {
    /// A cluster without members; [`TestCluster::start`] makes them.
    ///
    /// # Errors
    /// No temporary directory.
    pub fn new(
        config: ProcessConfig,
        connect: impl Fn(&str) -> Result<Box<dyn Client>, TestError> + Send + Sync + 'static,
    ) -> Result<Self, TestError> {
        Ok(Self {
            config,
            connect: Arc::new(connect),
            root: TempDir::with_prefix("harmony-cluster-")?,
            links: Links::default(),
            nodes: BTreeMap::new(),
        })
    }

    /// All members, running or not, in the order of their ids.
    pub fn nodes(&self) -> impl Iterator<Item = &ProcessNode> {
        self.nodes.values()
    }

    /// Members whose process runs.
    pub fn running(&self) -> impl Iterator<Item = &ProcessNode> {
        self.nodes.values().filter(|node| node.process.is_some())
    }

    /// A running member other than `id`.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn other(&self, id: NodeId) -> &ProcessNode {
        self.running().find(|node| node.id != id).expect("the cluster has another running member")
    }

    /// Waits until a running member leads and is the leader in every running member's eyes that a majority shares.
    ///
    /// # Errors
    /// None within the patience.
    pub fn leader(&self) -> Result<NodeId, TestError> {
        until("a leader that a majority knows", PATIENCE, || {
            let leaders: Vec<NodeId> = self.running().filter_map(|node| node.status().ok()?.leader).collect();
            leaders
                .iter()
                .copied()
                .find(|leader| {
                    let known = leaders.iter().filter(|other| *other == leader).count();
                    self.nodes.len() / 2 < known && self.nodes[leader].is_leader()
                })
                .ok_or_else(|| format!("leaders known: {leaders:?}").into())
        })
    }

    /// Stops a member with SIGTERM and returns how it exited.
    ///
    /// # Errors
    /// It does not run, or does not exit.
    pub fn terminate_node(&mut self, id: NodeId) -> Result<ExitStatus, TestError> {
        let node = self.node_mut(id)?;
        node.signal(Signal::TERM)?;
        let mut process = node.process.take().ok_or("the member does not run")?;
        let exited = until("exit after SIGTERM", PATIENCE, || {
            process.try_wait()?.ok_or_else(|| "still running".into())
        });
        if exited.is_err() {
            process.kill()?;
            process.wait()?;
        }
        exited
    }

    /// Freezes a member (SIGSTOP).
    ///
    /// # Errors
    /// It does not run.
    pub fn pause_node(&self, id: NodeId) -> Result<(), TestError> {
        self.nodes[&id].signal(Signal::STOP)
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// It does not run.
    pub fn resume_node(&self, id: NodeId) -> Result<(), TestError> {
        self.nodes[&id].signal(Signal::CONT)
    }

    /// Waits until every running member has applied the same and has the same hash at the newest revision.
    ///
    /// # Errors
    /// The hashes differ, or the members do not come to the same revision.
    pub fn check_agreement(&self) -> Result<(), TestError> {
        crate::agreement::check(self.running().map(ProcessNode::client))
    }

    /// The links between the members, for what [`TestCluster::partition_node`] is too coarse for.
    #[must_use]
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Waits until the process of a member ends by itself, and returns how.
    ///
    /// # Errors
    /// It does not run, or goes on: with everybody's log.
    pub fn wait_until_ended(&mut self, id: NodeId) -> Result<ExitStatus, TestError> {
        let node = self.node_mut(id)?;
        let process = node.process.as_mut().ok_or("the member does not run")?;
        let ended =
            until("the member ends", PATIENCE, || process.try_wait()?.ok_or_else(|| "it runs".into()));
        match ended {
            Ok(status) => {
                node.process = None;
                Ok(status)
            }
            Err(error) => {
                let logs: Vec<String> =
                    self.nodes.values().map(|node| format!("{}:\n{}", node.name, node.log())).collect();
                Err(format!("member {id}: {error}\n{}", logs.join("\n")).into())
            }
        }
    }

    /// Takes an address for a member that the cluster does not know yet.
    ///
    /// # Errors
    /// No port is free.
    pub fn reserve(&self, name: &str) -> Result<Reserved, TestError> {
        let proxy = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", proxy.local_addr()?);
        Ok(Reserved { name: name.to_owned(), url, proxy })
    }

    /// Makes a member of what was reserved, not started yet: the cluster was told its URL, and gave it this id.
    ///
    /// # Errors
    /// No port is free; no directory.
    pub fn adopt(&mut self, reserved: Reserved, id: NodeId) -> Result<(), TestError> {
        let Reserved { name, url, proxy } = reserved;
        let known = self.nodes.values().map(|node| (node.name.clone(), node.peer_url().to_owned()));
        let mut members: Vec<(String, String)> = known.collect();
        members.push((name.clone(), url));
        let node = self.new_node(&name, id, proxy, &members, "existing")?;
        self.nodes.insert(id, node);
        Ok(())
    }

    /// Forgets a member that does not run and was removed: it counts no more.
    pub fn forget(&mut self, id: NodeId) -> Option<ProcessNode> {
        self.nodes.remove(&id)
    }

    /// A member of its own directory behind its proxy, which does not run yet.
    fn new_node(
        &self,
        name: &str,
        id: NodeId,
        proxy: TcpListener,
        members: &[(String, String)],
        state: &str,
    ) -> Result<ProcessNode, TestError> {
        let (peer_listen, client_address) = (free_address()?, free_address()?);
        let url = format!("http://{}", proxy.local_addr()?);
        Proxy::start(proxy, id, peer_listen, self.links.clone())?;
        let directory = self.root.path().join(name);
        fs::create_dir(&directory)?;
        let named: Vec<String> = members.iter().map(|(name, url)| format!("{name}={url}")).collect();
        let cluster_args = [
            "--initial-advertise-peer-urls",
            &url,
            "--initial-cluster",
            &named.join(","),
            "--initial-cluster-state",
            state,
        ];
        Ok(ProcessNode {
            id,
            name: name.to_owned(),
            directory,
            client_address,
            peer_listen,
            peer_url: url.clone(),
            cluster_args: cluster_args.map(str::to_owned).to_vec(),
            process: None,
            client: (self.connect)(&client_address.to_string())?,
        })
    }

    fn node_mut(&mut self, id: NodeId) -> Result<&mut ProcessNode, TestError> {
        self.nodes.get_mut(&id).ok_or_else(|| format!("no member {id}").into())
    }

    fn peers_of(&self, id: NodeId) -> Vec<NodeId> {
        self.nodes.keys().copied().filter(|other| *other != id).collect()
    }

    /// Starts the process of a member without waiting for it to serve.
    ///
    /// # Errors
    /// It runs already, or the program cannot be started.
    pub fn spawn_node(&mut self, id: NodeId) -> Result<(), TestError> {
        let config = self.config.clone();
        let node = self.node_mut(id)?;
        if node.process.is_some() {
            return Err(format!("member {id} runs already").into());
        }
        node.process = Some(spawn(&config, node, &node.data_dir())?);
        Ok(())
    }

    /// Starts, in the place of a member that does not run, one of another cluster: of the same name, at the same addresses, with the same
    /// peers, but with this token, and on data of its own. [`TestCluster::kill_node`] ends it.
    ///
    /// # Errors
    /// As [`ProcessCluster::spawn_node`].
    pub fn spawn_stranger(&mut self, id: NodeId, token: &str) -> Result<(), TestError> {
        let config = ProcessConfig { token: token.to_owned(), ..self.config.clone() };
        let node = self.node_mut(id)?;
        if node.process.is_some() {
            return Err(format!("member {id} runs already").into());
        }
        let data_dir = node.directory.join("stranger");
        node.process = Some(spawn(&config, node, &data_dir)?);
        Ok(())
    }

    /// Waits until a member answers a linearizable read.
    ///
    /// # Errors
    /// It does not, or its process ended: with its log.
    pub fn wait_until_serving(&mut self, id: NodeId) -> Result<(), TestError> {
        let node = self.node_mut(id)?;
        let served = until("the member serves", PATIENCE, || {
            if let Some(process) = &mut node.process
                && let Some(status) = process.try_wait()?
            {
                return Err(format!("the process ended with {status}").into());
            }
            node.client.get(b"\0is anybody there").map(drop)
        });
        served.map_err(|error| format!("member {} ({}): {error}\n{}", node.name, node.id, node.log()).into())
    }
}

impl TestCluster for ProcessCluster {
    type Node = ProcessNode;

    fn start(&mut self, node_count: usize) -> Result<(), TestError> {
        // The proxies' ports stay taken; the others are free until the members bind them.
        let names = (1..=node_count).map(|number| format!("n{number}"));
        let reserved: Vec<Reserved> = names.map(|name| self.reserve(&name)).collect::<Result<_, _>>()?;
        let members: Vec<(String, String)> =
            reserved.iter().map(|one| (one.name.clone(), one.url.clone())).collect();
        for Reserved { name, url, proxy } in reserved {
            let id = harmony_node::member_id(&[url], &self.config.token);
            let node = self.new_node(&name, id, proxy, &members, "new")?;
            self.nodes.insert(id, node);
        }
        for id in self.node_ids() {
            self.spawn_node(id)?;
        }
        for id in self.node_ids() {
            self.wait_until_serving(id)?;
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<(), TestError> {
        for id in self.node_ids() {
            if self.nodes[&id].process.is_some() {
                let status = self.terminate_node(id)?;
                if !status.success() {
                    return Err(format!("member {id} exited with {status}\n{}", self.nodes[&id].log()).into());
                }
            }
        }
        Ok(())
    }

    fn node_ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    fn node(&self, id: NodeId) -> Option<&ProcessNode> {
        self.nodes.get(&id).filter(|node| node.process.is_some())
    }

    fn partition_node(&mut self, id: NodeId) {
        for peer in self.peers_of(id) {
            self.links.cut(id, peer);
            self.links.cut(peer, id);
        }
    }

    fn unpartition_node(&mut self, id: NodeId) {
        for peer in self.peers_of(id) {
            self.links.heal(id, peer);
            self.links.heal(peer, id);
        }
    }

    fn kill_node(&mut self, id: NodeId) -> Result<(), TestError> {
        let mut process = self.node_mut(id)?.process.take().ok_or("the member does not run")?;
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    fn restart_node(&mut self, id: NodeId) -> Result<(), TestError> {
        self.spawn_node(id)?;
        self.wait_until_serving(id)
    }
}

impl Drop for ProcessCluster {
    fn drop(&mut self) {
        for process in self.nodes.values_mut().filter_map(|node| node.process.as_mut()) {
            // An error means that it has ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// An address that nobody listens on just now.
fn free_address() -> Result<SocketAddr, TestError> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn spawn(config: &ProcessConfig, node: &ProcessNode, data_dir: &Path) -> Result<Child, TestError> {
    let log = File::options().create(true).append(true).open(node.directory.join("log"))?;
    let client_url = format!("http://{}", node.client_address);
    let mut command = Command::new(&config.binary);
    command
        .arg("serve")
        .args(["--name", &node.name])
        .arg("--data-dir")
        .arg(data_dir)
        .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
        .args(["--listen-peer-urls", &format!("http://{}", node.peer_listen)])
        .args(&node.cluster_args)
        .args(["--initial-cluster-token", &config.token])
        .args(&config.extra_args)
        .envs(config.env.iter().cloned())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Ok(command.spawn().map_err(|error| format!("start {}: {error}", config.binary.display()))?)
}
