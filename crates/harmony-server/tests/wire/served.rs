//! A server in this process and clients of it.

use std::net::SocketAddr;
use std::path::Path;

use harmony_server::config::{Config, Options};
use harmony_server::proto::etcdserverpb as pb;
use harmony_server::serve::Server;
use pb::cluster_client::ClusterClient;
use pb::kv_client::KvClient;
use pb::maintenance_client::MaintenanceClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// A lone member on a directory of its own, with clients.
pub(crate) struct Served {
    server: Server,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) channel: Channel,
    pub(crate) kv: KvClient<Channel>,
    pub(crate) cluster: ClusterClient<Channel>,
    pub(crate) maintenance: MaintenanceClient<Channel>,
}

/// The configuration of a lone member in this directory, on any free port.
pub(crate) fn config(dir: &Path, toml: &str) -> Config {
    let options = Options {
        data_dir: Some(dir.join("data")),
        listen_client_urls: Some("http://127.0.0.1:0".into()),
        log_level: Some("error".into()),
        ..Options::default()
    };
    Config::new(Options::from_toml(toml).unwrap().or(options)).unwrap()
}

impl Served {
    /// Starts one with these options.
    pub(crate) async fn start(toml: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), toml).await
    }

    pub(crate) async fn start_in(dir: tempfile::TempDir, toml: &str) -> Self {
        let server = Server::start(&config(dir.path(), toml)).unwrap();
        let address = server.client_addresses()[0];
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self {
            server,
            dir,
            address,
            kv: KvClient::new(channel.clone()),
            cluster: ClusterClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone()),
            channel,
        }
    }

    /// Stops it; the directory stays.
    pub(crate) async fn stop(self) -> tempfile::TempDir {
        let Self { server, dir, channel, kv, cluster, maintenance, .. } = self;
        drop((channel, kv, cluster, maintenance));
        tokio::task::spawn_blocking(move || server.stop().unwrap()).await.unwrap();
        dir
    }

    pub(crate) async fn put(&mut self, key: &str, value: &str) -> i64 {
        let request = pb::PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..pb::PutRequest::default()
        };
        self.kv.put(request).await.unwrap().into_inner().header.unwrap().revision
    }

    pub(crate) async fn get(&mut self, key: &str) -> pb::RangeResponse {
        self.kv.range(range(key)).await.unwrap().into_inner()
    }
}

pub(crate) fn range(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), ..pb::RangeRequest::default() }
}

pub(crate) fn all() -> pb::RangeRequest {
    pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..pb::RangeRequest::default() }
}

/// The call was refused, with this code and text.
#[track_caller]
pub(crate) fn check_refusal<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, message: &str) {
    let status = result.expect_err(message);
    assert_eq!((status.code(), status.message()), (code, message));
}
