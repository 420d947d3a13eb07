//! From a path to what answers it: gRPC by one comparison of names, everything else to the HTTP router.

use std::convert::Infallible;
use std::task::{Context, Poll};

use axum::Router;
use http::{Request, Response, header};
use hyper::body::Incoming;
use tonic::body::Body;
use tower::Service;

use super::methods;
use super::services::{Counted, Services};

/// All that is served on the client port; one clone a connection.
#[derive(Clone)]
pub(crate) struct Routes {
    services: Services,
    http: Router,
}

impl Routes {
    pub(crate) fn new(services: Services, http: Router) -> Self {
        Self { services, http }
    }
}

impl Service<Request<Incoming>> for Routes {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Counted;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Counted {
        if methods::find(request.uri().path()).is_some() || is_grpc(&request) {
            return self.services.call(request);
        }
        let answer = self.http.call(request);
        Counted::uncounted(Box::pin(async move { answer.await.map(|response| response.map(Body::new)) }))
    }
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
