//! What the calls used of the API.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{DynamicMessage, Kind, ReflectMessage as _, Value};

use crate::step::Via;

/// How often an RPC was called and answered.
#[derive(Default)]
pub(crate) struct Calls {
    pub(crate) answered: u64,
    pub(crate) refused: u64,
}

#[derive(Default)]
pub(crate) struct Coverage {
    /// `Message.field` that a request set to something.
    pub(crate) set: BTreeSet<String>,
    /// `Message.field` that an answer carried.
    pub(crate) carried: BTreeSet<String>,
    /// By the RPC, such as `KV/Range`.
    pub(crate) calls: BTreeMap<&'static str, Calls>,
    /// The way, the code and the text.
    pub(crate) refusals: BTreeSet<(&'static str, String, String)>,
}

impl Coverage {
    pub(crate) fn request(&mut self, message: &DynamicMessage) {
        note(message, &mut self.set);
    }

    pub(crate) fn answer(&mut self, message: &DynamicMessage) {
        note(message, &mut self.carried);
    }

    pub(crate) fn called(&mut self, rpc: &'static str, via: Via, refusal: Option<(&str, &str)>) {
        let calls = self.calls.entry(rpc).or_default();
        match refusal {
            None => calls.answered += 1,
            Some((code, text)) => {
                calls.refused += 1;
                let way = if via == Via::Grpc { "gRPC" } else { "JSON" };
                self.refusals.insert((way, code.to_owned(), text.to_owned()));
            }
        }
    }
}

/// The fields of a message that are not zero, and those of the messages in it.
fn note(message: &DynamicMessage, into: &mut BTreeSet<String>) {
    for (field, value) in message.fields() {
        into.insert(format!("{}.{}", message.descriptor().full_name(), field.name()));
        if matches!(field.kind(), Kind::Message(_)) {
            match value {
                Value::Message(inner) => note(inner, into),
                Value::List(list) => list.iter().filter_map(Value::as_message).for_each(|it| note(it, into)),
                _ => {}
            }
        }
    }
}
