//! A small client of any etcd-compatible endpoint, for the command line: options, connecting, and who may be asked twice.
//!
//! Reading order: [`args`] (the options every client command has), [`endpoint`], this file (connect and call), [`login`], [`tls`],
//! [`session`], then what the commands print: [`output`], [`json`], [`table`].

pub(crate) mod args;
pub(crate) mod endpoint;
pub(crate) mod error;
pub(crate) mod json;
pub(crate) mod login;
pub(crate) mod output;
pub(crate) mod session;
pub(crate) mod table;
mod tls;

use std::time::Duration;

use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::proto::etcdserverpb::auth_client::AuthClient;
use crate::proto::etcdserverpb::cluster_client::ClusterClient;
use crate::proto::etcdserverpb::kv_client::KvClient;
use crate::proto::etcdserverpb::lease_client::LeaseClient;
use crate::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::proto::etcdserverpb::watch_client::WatchClient;
use crate::proto::v3electionpb::election_client::ElectionClient;
use crate::proto::v3lockpb::lock_client::LockClient;

pub(crate) use args::ClientArgs;
pub(crate) use endpoint::Endpoint;
pub(crate) use error::ClientError;
pub(crate) use login::Credentials;
pub(crate) use output::Output;

/// Rest before an endpoint is asked again.
pub(crate) const RESUME_PAUSE: Duration = Duration::from_millis(100);

/// The endpoints of one cluster and how long to wait for them.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    endpoints: Vec<Endpoint>,
    dial_timeout: Duration,
    command_timeout: Duration,
    credentials: Option<Credentials>,
}

/// A connection whose calls carry the token of a login, if there was one.
pub(crate) type Connection = InterceptedService<Channel, login::Token>;

impl Client {
    /// A client of these endpoints; connects with the first call. There is at least one endpoint.
    pub(crate) fn new(endpoints: Vec<Endpoint>, dial_timeout: Duration, command_timeout: Duration) -> Self {
        assert!(!endpoints.is_empty(), "a client needs an endpoint");
        Self { endpoints, dial_timeout, command_timeout, credentials: None }
    }

    /// The same, on behalf of a user.
    pub(crate) fn with_credentials(self, credentials: Option<Credentials>) -> Self {
        Self { credentials, ..self }
    }

    /// The endpoints, in the order in which they are tried.
    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// A client of one of the endpoints only.
    pub(crate) fn only(&self, endpoint: &Endpoint) -> Self {
        Self { endpoints: vec![endpoint.clone()], ..self.clone() }
    }

    /// How long one call may take once connected.
    pub(crate) fn command_timeout(&self) -> Duration {
        self.command_timeout
    }

    /// How long connecting to one endpoint may take.
    pub(crate) fn dial_timeout(&self) -> Duration {
        self.dial_timeout
    }

    /// Makes a call that changes nothing. An endpoint that does not answer, or says that it is unavailable, is followed
    /// by the next one.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] when none could be connected; else the answer of the last endpoint asked.
    pub(crate) async fn read<T>(
        &self,
        call: impl AsyncFn(Connection) -> Result<Response<T>, Status>,
    ) -> Result<T, ClientError> {
        let mut unreachable = Vec::new();
        let mut last = None;
        for endpoint in &self.endpoints {
            let channel = match self.connect(endpoint).await {
                Ok(channel) => channel,
                Err(reason) => {
                    unreachable.push(format!("{endpoint}: {reason}"));
                    continue;
                }
            };
            let answer = match self.login(endpoint, channel).await {
                Ok(connection) => self.answer(endpoint, false, call(connection)).await,
                Err(error) => Err(error),
            };
            match answer {
                Err(error) if error.another_may_answer() => last = Some(error),
                done => return done,
            }
        }
        Err(last.unwrap_or(ClientError::Unreachable(unreachable.join("; "))))
    }

    /// Makes a call that may change something. The next endpoint is tried only while nothing was sent: once sent, the
    /// outcome of a write that was not answered is unknown, and sending it again could apply it twice.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub(crate) async fn write<T>(
        &self,
        call: impl AsyncFnOnce(Connection) -> Result<Response<T>, Status>,
    ) -> Result<T, ClientError> {
        let mut unreachable = Vec::new();
        let mut last = None;
        for endpoint in &self.endpoints {
            let channel = match self.connect(endpoint).await {
                Ok(channel) => channel,
                Err(reason) => {
                    unreachable.push(format!("{endpoint}: {reason}"));
                    continue;
                }
            };
            match self.login(endpoint, channel).await {
                Ok(connection) => return self.answer(endpoint, true, call(connection)).await,
                Err(error) if error.another_may_answer() => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or(ClientError::Unreachable(unreachable.join("; "))))
    }

    /// Makes a call whose answer may take as long as it likes, and that may be made twice: it is made again, at any
    /// endpoint, until one answers it.
    ///
    /// # Errors
    /// The refusal of an endpoint that would not be another's.
    pub(crate) async fn wait<T>(
        &self,
        call: impl AsyncFn(Connection) -> Result<Response<T>, Status>,
    ) -> Result<T, ClientError> {
        let patient = Self { command_timeout: Duration::MAX, ..self.clone() };
        loop {
            match patient.read(&call).await {
                Err(error) if error.may_pass() => tokio::time::sleep(RESUME_PAUSE).await,
                done => return done,
            }
        }
    }

    /// A connection, or the reason why there is none in words.
    async fn connect(&self, endpoint: &Endpoint) -> Result<Channel, String> {
        match tokio::time::timeout(self.dial_timeout, endpoint.channel()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(error::innermost(&error)),
            Err(_) => Err(format!("no connection within {:?}", self.dial_timeout)),
        }
    }

    async fn answer<T>(
        &self,
        endpoint: &Endpoint,
        write: bool,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, ClientError> {
        match tokio::time::timeout(self.command_timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(ClientError::from_status(endpoint, write, &status)),
            Err(_) => Err(ClientError::Timeout {
                endpoint: endpoint.to_string(),
                after: self.command_timeout,
                write,
            }),
        }
    }
}

impl ClientError {
    /// Whether a call that changes nothing should go to the next endpoint.
    fn another_may_answer(&self) -> bool {
        matches!(
            self,
            Self::Timeout { .. } | Self::Lost { .. } | Self::Refused { code: Code::Unavailable, .. }
        )
    }

    /// Whether the same call may be answered later.
    fn may_pass(&self) -> bool {
        self.another_may_answer() || matches!(self, Self::Unreachable(_))
    }
}

/// The KV service over a connection, with no limit on the size of an answer: the user asked for it.
pub(crate) fn kv(connection: Connection) -> KvClient<Connection> {
    KvClient::new(connection).max_decoding_message_size(usize::MAX)
}

/// The watch service over a connection, with no limit on the size of a response.
pub(crate) fn watch(connection: Connection) -> WatchClient<Connection> {
    WatchClient::new(connection).max_decoding_message_size(usize::MAX)
}

/// The lease service over a connection.
pub(crate) fn lease(connection: Connection) -> LeaseClient<Connection> {
    LeaseClient::new(connection)
}

/// The lock service over a connection.
pub(crate) fn lock(connection: Connection) -> LockClient<Connection> {
    LockClient::new(connection)
}

/// The election service over a connection.
pub(crate) fn election(connection: Connection) -> ElectionClient<Connection> {
    ElectionClient::new(connection)
}

/// The maintenance service over a connection.
pub(crate) fn maintenance(connection: Connection) -> MaintenanceClient<Connection> {
    MaintenanceClient::new(connection)
}

/// The cluster service over a connection.
pub(crate) fn cluster(connection: Connection) -> ClusterClient<Connection> {
    ClusterClient::new(connection)
}

/// The auth service over a connection.
pub(crate) fn auth(connection: Connection) -> AuthClient<Connection> {
    AuthClient::new(connection)
}

/// Runs a command's future to its end on this thread.
///
/// # Errors
/// What the command returns, or that the system gives no event queue.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| ClientError::Io { action: "start the event loop", source })?
        .block_on(future)
}
