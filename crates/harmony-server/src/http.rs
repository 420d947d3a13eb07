//! Plain HTTP on the client port: health, version, metrics (ETCD API, section 15). Off the hot path, by axum.

pub(crate) mod health;
pub(crate) mod metrics;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;

use crate::api::Api;
use crate::version;
use metrics::Metrics;
use metrics::health::HealthMetrics;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) api: Arc<Api>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<HealthMetrics>,
}

/// All paths.
pub(crate) fn router(shared: Shared) -> Router {
    Router::new()
        .route("/health", get(health::health))
        .route("/livez", get(health::livez))
        .route("/livez/{check}", get(health::livez_one))
        .route("/readyz", get(health::readyz))
        .route("/readyz/{check}", get(health::readyz_one))
        .route("/version", get(version))
        .route("/metrics", get(metrics))
        .with_state(shared)
}

#[derive(Serialize)]
struct Version {
    etcdserver: &'static str,
    etcdcluster: &'static str,
    storage: &'static str,
}

async fn version() -> Response {
    json(&Version { etcdserver: version::API, etcdcluster: version::CLUSTER, storage: version::STORAGE })
}

/// A JSON answer.
pub(crate) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn metrics(State(shared): State<Shared>) -> Response {
    match tokio::task::spawn_blocking(move || shared.metrics.encode()).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Ok(Err(_)) | Err(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "metrics are not available\n").into_response()
        }
    }
}
