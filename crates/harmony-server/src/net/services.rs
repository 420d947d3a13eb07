//! The gRPC services over the handlers, whoever calls them: a connection, or the JSON gateway.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Bytes, StdError};
use tonic::{Code, Status};
use tower::Service;

use super::grpc::{self, Grpc};
use super::methods::{self, Counters, Form};
use crate::api::Api;
use crate::api::access::Right;
use crate::api::status::ApiError;
use crate::auth::caller::Caller;
use crate::proto::etcdserverpb::auth_server::AuthServer;
use crate::proto::etcdserverpb::cluster_server::ClusterServer;
use crate::proto::etcdserverpb::kv_server::KvServer;
use crate::proto::etcdserverpb::lease_server::LeaseServer;
use crate::proto::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::proto::etcdserverpb::watch_server::WatchServer;
use crate::proto::health::health_server::HealthServer;
use crate::proto::v3electionpb::election_server::ElectionServer;
use crate::proto::v3lockpb::lock_server::LockServer;

/// The header in which a client says for which release it was made.
const CLIENT_API_VERSION: &str = "client-api-version";

pub(super) type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// All services; cheap to clone.
#[derive(Clone)]
pub(crate) struct Services {
    kv: KvServer<Grpc>,
    watch: WatchServer<Grpc>,
    lease: LeaseServer<Grpc>,
    cluster: ClusterServer<Grpc>,
    maintenance: MaintenanceServer<Grpc>,
    auth: AuthServer<Grpc>,
    lock: LockServer<Grpc>,
    election: ElectionServer<Grpc>,
    health: HealthServer<Grpc>,
    api: Arc<Api>,
    counters: Arc<Counters>,
}

impl Services {
    pub(crate) fn new(api: &Arc<Api>, counters: Arc<Counters>) -> Self {
        let grpc = Grpc(Arc::clone(api));
        let message_bytes_max = api.limits.message_bytes_max();
        Self {
            kv: KvServer::new(grpc.clone()).max_decoding_message_size(message_bytes_max),
            watch: WatchServer::new(grpc.clone()).max_decoding_message_size(message_bytes_max),
            lease: LeaseServer::new(grpc.clone()).max_decoding_message_size(message_bytes_max),
            cluster: ClusterServer::new(grpc.clone()).max_decoding_message_size(message_bytes_max),
            maintenance: MaintenanceServer::new(grpc.clone()).max_decoding_message_size(message_bytes_max),
            auth: AuthServer::new(grpc.clone()).max_decoding_message_size(message_bytes_max),
            lock: LockServer::new(grpc.clone()).max_decoding_message_size(message_bytes_max),
            election: ElectionServer::new(grpc.clone()).max_decoding_message_size(message_bytes_max),
            health: HealthServer::new(grpc).max_decoding_message_size(message_bytes_max),
            api: Arc::clone(api),
            counters,
        }
    }
}

impl<B> Service<Request<B>> for Services
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Counted;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Counted {
        let Some(method) = methods::find(request.uri().path()) else {
            return Counted::uncounted(unknown(request.uri().path()));
        };
        let form = methods::METHODS[method].form;
        let answer = match self.refusal_ahead(method, request.headers()) {
            Some(refusal) => refuse(refusal, form, request),
            None => match methods::METHODS[method].right {
                right @ (Right::User | Right::Root) if self.api.asks_for_rights() => {
                    self.guarded(method, right, request)
                }
                _ => self.dispatch(method, request),
            },
        };
        self.counters.started(method);
        let clock = self.counters.times(form).then(Instant::now);
        Counted { answer, method, clock, counters: Some(Arc::clone(&self.counters)) }
    }
}

impl Services {
    /// Where the bytes of connections are counted.
    pub(super) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Why a call is not even looked at, in etcd's order. Counts the client.
    fn refusal_ahead(&self, method: usize, headers: &HeaderMap) -> Option<ApiError> {
        let (method, node) = (&methods::METHODS[method], &self.api.node);
        if node.is_learner() && !method.is_for_learners() {
            return Some(ApiError::LEARNER);
        }
        let version = headers.get(CLIENT_API_VERSION).map(HeaderValue::as_bytes);
        let Ok(version) = version.map(std::str::from_utf8).transpose() else {
            return Some(ApiError::INVALID_CLIENT_API_VERSION);
        };
        self.counters.client(method.form, version);
        (grpc::needs_leader(headers) && node.leader().is_none()).then_some(ApiError::NO_LEADER)
    }

    fn dispatch<B>(&mut self, method: usize, request: Request<B>) -> Answer
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        match methods::METHODS[method].service {
            methods::Service::Kv => self.kv.call(request),
            methods::Service::Watch => self.watch.call(request),
            methods::Service::Lease => self.lease.call(request),
            methods::Service::Cluster => self.cluster.call(request),
            methods::Service::Maintenance => self.maintenance.call(request),
            methods::Service::Auth => self.auth.call(request),
            methods::Service::Lock => self.lock.call(request),
            methods::Service::Election => self.election.call(request),
            methods::Service::Health => self.health.call(request),
        }
    }

    /// Asks for the right first.
    fn guarded<B>(&self, method: usize, right: Right, request: Request<B>) -> Answer
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        let caller = Caller::of(request.headers(), request.extensions());
        let mut services = self.clone();
        Box::pin(async move {
            let Err(refusal) = services.api.admit(&caller, right).await else {
                return services.dispatch(method, request).await;
            };
            refuse(refusal, methods::METHODS[method].form, request).await
        })
    }
}

/// Answers with a refusal.
fn refuse<B>(refusal: ApiError, form: Form, request: Request<B>) -> Answer
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    Box::pin(async move {
        if form == Form::BidiStream {
            // Its client sends for as long as it likes.
            return Ok(Status::from(refusal).into_http());
        }
        // An answer to a request that was not read to its end would cost the client its connection.
        let mut rest = Box::pin(request.into_body());
        while let Some(Ok(_)) = rest.frame().await {}
        Ok(Status::from(refusal).into_http())
    })
}

/// gRPC's answer for what is not served.
fn unknown(path: &str) -> Answer {
    let service = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let status = Status::unimplemented(format!("unknown service {service}"));
    Box::pin(std::future::ready(Ok(status.into_http())))
}

/// An answer on its way. Counts how it ends, also when the client does not wait for it, and gives a message over the
/// size limit gRPC's own refusal.
pub(crate) struct Counted {
    answer: Answer,
    method: usize,
    /// When it was asked for, where that is counted.
    clock: Option<Instant>,
    /// `None` once counted, and for what is no RPC.
    counters: Option<Arc<Counters>>,
}

impl Counted {
    /// An answer that is none of an RPC.
    pub(super) fn uncounted(answer: Answer) -> Self {
        Self { answer, method: 0, clock: None, counters: None }
    }
}

impl Future for Counted {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(mut response) = ready!(self.answer.as_mut().poll(cx));
        // tonic leaves the status of a refusal with the answer; one that succeeds has it behind its body.
        let mut code = Code::Ok;
        if let Some(status) = response.extensions().get::<Status>() {
            code = status.code();
            if let Some(message) = too_large(status) {
                code = Code::ResourceExhausted;
                response = Status::resource_exhausted(message).into_http();
            }
        }
        if let Some(counters) = self.counters.take() {
            counters.handled(self.method, code as usize, self.clock.map(|clock| clock.elapsed()));
        }
        Poll::Ready(Ok(response))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(counters) = self.counters.take() {
            counters.handled(self.method, Code::Cancelled as usize, self.clock.map(|clock| clock.elapsed()));
        }
    }
}

/// The refusal that gRPC's first implementation gives for a message over the limit, in place of tonic's.
fn too_large(status: &Status) -> Option<String> {
    if status.code() != Code::OutOfRange {
        return None;
    }
    let rest = status.message().strip_prefix("Error, decoded message length too large: found ")?;
    let (found, rest) = rest.split_once(" bytes, the limit is: ")?;
    let limit = rest.strip_suffix(" bytes")?;
    Some(format!("grpc: received message larger than max ({found} vs. {limit})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_over_the_limit_is_refused_in_grpcs_words() {
        let tonics = Status::out_of_range(
            "Error, decoded message length too large: found 2097153 bytes, the limit is: 2097152 bytes",
        );
        let message = too_large(&tonics).unwrap();
        assert_eq!(message, "grpc: received message larger than max (2097153 vs. 2097152)");
        let ours = Status::out_of_range("etcdserver: mvcc: required revision has been compacted");
        assert_eq!(too_large(&ours), None);
        assert_eq!(too_large(&Status::internal("Error")), None);
    }
}
