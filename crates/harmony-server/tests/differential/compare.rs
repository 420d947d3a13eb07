//! Two answers to one call, part by part.

use std::fmt;

use serde_json::{Map, Value};

use crate::step::Step;

/// What came of a call, after what differs from server to server was taken out.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// Every message of the answer.
    Answer(Value),
    Refused {
        code: String,
        text: String,
    },
}

/// One part in which two answers differ.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    what: String,
    pub(crate) rpc: &'static str,
    /// Such as `kvs[].lease`; `refusal` when one was refused, or both were with other words.
    pub(crate) part: String,
    pub(crate) etcd: String,
    pub(crate) harmony: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, rpc, part, etcd, harmony } = self;
        let mut what = what.clone();
        if let Some((end, _)) = what.char_indices().nth(900) {
            what.truncate(end);
        }
        write!(f, "- {rpc} {part}: etcd {etcd}, here {harmony}\n    {what}")
    }
}

impl Outcome {
    fn refusal(&self) -> String {
        match self {
            Self::Answer(_) => "answered".to_owned(),
            Self::Refused { code, text } => format!("{code}: {text}"),
        }
    }
}

pub(crate) fn compare(what: &str, step: &Step, etcd: &Outcome, harmony: &Outcome) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut note = |part: String, etcd: String, harmony: String| {
        findings.push(Finding { what: what.to_owned(), rpc: step.rpc, part, etcd, harmony });
    };
    match (etcd, harmony) {
        (Outcome::Answer(etcd), Outcome::Answer(harmony)) => leaves("", etcd, harmony, &mut note),
        (etcd, harmony) if etcd.refusal() != harmony.refusal() => {
            note("refusal".to_owned(), etcd.refusal(), harmony.refusal());
        }
        _ => {}
    }
    findings
}

fn leaves(part: &str, etcd: &Value, harmony: &Value, note: &mut impl FnMut(String, String, String)) {
    match (etcd, harmony) {
        (Value::Object(etcd), Value::Object(harmony)) => {
            for key in keys(etcd, harmony) {
                let dot = if part.is_empty() { "" } else { "." };
                let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                leaves(&format!("{part}{dot}{key}"), &of(etcd), &of(harmony), note);
            }
        }
        (Value::Array(etcd), Value::Array(harmony)) if etcd.len() == harmony.len() => {
            for (etcd, harmony) in etcd.iter().zip(harmony) {
                leaves(&format!("{part}[]"), etcd, harmony, note);
            }
        }
        _ if etcd != harmony => note(part.to_owned(), text(etcd), text(harmony)),
        _ => {}
    }
}

fn keys<'a>(one: &'a Map<String, Value>, other: &'a Map<String, Value>) -> Vec<&'a String> {
    let mut keys: Vec<_> = one.keys().chain(other.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
