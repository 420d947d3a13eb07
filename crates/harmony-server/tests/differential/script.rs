//! The calls that were thought of, by the part of the API that they are about.

mod auth;
mod cluster;
mod coordination;
mod keys;
mod leases;
mod maintenance;
mod watches;

use serde_json::{Value, json};

use crate::base64;
use crate::step::{Scenario, Step, step};

pub(crate) fn all() -> Vec<Scenario> {
    let scenario = |name: &str, steps| Scenario { name: name.to_owned(), steps };
    vec![
        scenario("keys", keys::steps()),
        scenario("watches", watches::steps()),
        scenario("leases", leases::steps()),
        scenario("locks and elections", coordination::steps()),
        scenario("users and roles", auth::steps()),
        scenario("members", cluster::steps()),
        scenario("maintenance", maintenance::steps()),
    ]
}

/// Bytes in JSON.
pub(crate) fn b(text: &str) -> Value {
    base64::encode(text).into()
}

pub(crate) fn put(key: &str, value: &str) -> Step {
    step("KV/Put", json!({"key": b(key), "value": b(value)}))
}

pub(crate) fn get(key: &str) -> Step {
    step("KV/Range", json!({"key": b(key)}))
}

/// A message with more fields.
pub(crate) fn and(mut message: Value, more: Value) -> Value {
    if let (Value::Object(message), Value::Object(more)) = (&mut message, more) {
        message.extend(more);
    }
    message
}
