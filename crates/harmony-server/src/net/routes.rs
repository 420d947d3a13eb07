//! From a path to what answers it: gRPC by one comparison of names, everything else to the HTTP router.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use http::{Request, Response, header};
use hyper::body::Incoming;
use tonic::body::Body;
use tower::Service;

use super::methods::{self, Counters};
use super::services::{Counted, Services};
use crate::auth::caller::CertificateUser;

/// All that is served on a port; one clone a connection.
#[derive(Clone)]
pub(crate) struct Routes {
    /// `None` on a port without gRPC.
    services: Option<Services>,
    http: Router,
    /// Whom the connection's certificate names. The JSON gateway does not hear of it: as in etcd, a certificate is no login there.
    user: Option<CertificateUser>,
}

impl Routes {
    /// gRPC and HTTP.
    pub(crate) fn new(services: Services, http: Router) -> Self {
        Self { services: Some(services), http, user: None }
    }

    /// gRPC alone.
    pub(crate) fn grpc(services: Services) -> Self {
        Self::new(services, Router::new())
    }

    /// HTTP alone.
    pub(crate) fn http(http: Router) -> Self {
        Self { services: None, http, user: None }
    }

    /// Where the connection's bytes are counted; `None` where no RPC is served.
    pub(super) fn counters(&self) -> Option<Arc<Counters>> {
        self.services.as_ref().map(Services::counters)
    }

    /// The same for a connection of this user.
    pub(crate) fn of_user(&self, user: Option<CertificateUser>) -> Self {
        Self { user, ..self.clone() }
    }
}

impl Service<Request<Incoming>> for Routes {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Counted;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Counted {
        if let Some(services) = &mut self.services
            && (methods::find(request.uri().path()).is_some() || is_grpc(&request))
        {
            if let Some(user) = &self.user {
                request.extensions_mut().insert(user.clone());
            }
            return services.call(request);
        }
        let answer = self.http.call(request);
        Counted::uncounted(Box::pin(async move { answer.await.map(|response| response.map(Body::new)) }))
    }
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
