//! `/health`, `/livez`, `/readyz`.

use std::fmt::Write as _;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Shared;
use crate::api::health::{Check, LIVE, READY};

/// The paths, as the metrics name them.
const LIVEZ: &str = "/livez";
const READYZ: &str = "/readyz";

/// In the order of the URL; a name may stand there more than once.
type Parameters = Query<Vec<(String, String)>>;

fn has(parameters: &[(String, String)], name: &str, value: &str) -> bool {
    parameters.iter().any(|(is, has)| is == name && has == value)
}

#[derive(Serialize)]
struct Health {
    health: &'static str,
    reason: String,
}

/// etcd's old form: one JSON object, healthy without alarms when a linearizable read works; `?serializable=true` asks for a
/// local one, `?exclude=NOSPACE` leaves an alarm out.
pub(crate) async fn health(State(shared): State<Shared>, Query(parameters): Parameters) -> Response {
    let api = &shared.api;
    let serializable = has(&parameters, "serializable", "true");
    let alarms = api.raised_alarms();
    let reason = if let Some(alarm) = alarms.iter().find(|alarm| !has(&parameters, "exclude", alarm)) {
        Some(format!("ALARM {alarm}"))
    } else if !serializable && !api.has_leader() {
        Some("RAFT NO LEADER".to_owned())
    } else {
        let check = if serializable { Check::SerializableRead } else { Check::LinearizableRead };
        api.check(check).await.err().map(|error| error.replacen("range error: ", "RANGE ERROR:", 1))
    };
    shared.health.asked(reason.is_none());
    let (status, health) = match reason {
        None => (StatusCode::OK, Health { health: "true", reason: String::new() }),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, Health { health: "false", reason }),
    };
    (status, super::json(&health)).into_response()
}

/// Is it worth keeping the process?
pub(crate) async fn livez(State(shared): State<Shared>, Query(parameters): Parameters) -> Response {
    run(&shared, LIVEZ, &LIVE, &parameters).await
}

/// One of the checks.
pub(crate) async fn livez_one(
    State(shared): State<Shared>,
    Path(check): Path<String>,
    Query(parameters): Parameters,
) -> Response {
    run_one(&shared, LIVEZ, &LIVE, &check, &parameters).await
}

/// Should it get traffic?
pub(crate) async fn readyz(State(shared): State<Shared>, Query(parameters): Parameters) -> Response {
    run(&shared, READYZ, &READY, &parameters).await
}

/// One of the checks.
pub(crate) async fn readyz_one(
    State(shared): State<Shared>,
    Path(check): Path<String>,
    Query(parameters): Parameters,
) -> Response {
    run_one(&shared, READYZ, &READY, &check, &parameters).await
}

async fn run_one(
    shared: &Shared,
    kind: &'static str,
    checks: &[Check],
    name: &str,
    parameters: &[(String, String)],
) -> Response {
    match checks.iter().find(|check| check.name() == name) {
        Some(check) => run(shared, kind, &[*check], parameters).await,
        None => (StatusCode::NOT_FOUND, "404 page not found\n").into_response(),
    }
}

async fn run(
    shared: &Shared,
    kind: &'static str,
    checks: &[Check],
    parameters: &[(String, String)],
) -> Response {
    let mut results = Vec::new();
    for check in checks.iter().filter(|check| !has(parameters, "exclude", check.name())) {
        let result = shared.api.check(*check).await;
        shared.health.checked(kind, check.name(), result.is_ok());
        results.push((*check, result));
    }
    let (status, text) = report(&results, parameters.iter().any(|(name, _)| name == "verbose"));
    (status, text).into_response()
}

/// One line a check when asked or when one failed.
fn report(results: &[(Check, Result<(), String>)], verbose: bool) -> (StatusCode, String) {
    let failed = results.iter().any(|(_, result)| result.is_err());
    let mut text = String::new();
    if verbose || failed {
        for (check, result) in results {
            let name = check.name();
            let written = match result {
                Ok(()) => writeln!(text, "[+]{name} ok"),
                Err(error) => writeln!(text, "[-]{name} failed: {error}"),
            };
            written.expect("a string takes all that is written");
        }
    }
    if failed {
        return (StatusCode::SERVICE_UNAVAILABLE, text);
    }
    text.push_str("ok\n");
    (StatusCode::OK, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_short_when_all_is_well_and_names_what_is_not() {
        let good = [(Check::NonLearner, Ok(())), (Check::SerializableRead, Ok(()))];
        assert_eq!(report(&good, false), (StatusCode::OK, "ok\n".to_owned()));
        let lines = "[+]non_learner ok\n[+]serializable_read ok\nok\n";
        assert_eq!(report(&good, true), (StatusCode::OK, lines.to_owned()));
        let bad = [(Check::NonLearner, Ok(())), (Check::LinearizableRead, Err("no".to_owned()))];
        let lines = "[+]non_learner ok\n[-]linearizable_read failed: no\n";
        assert_eq!(report(&bad, false), (StatusCode::SERVICE_UNAVAILABLE, lines.to_owned()));
    }
}
