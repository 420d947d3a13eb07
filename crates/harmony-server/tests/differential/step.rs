//! Calls as data.

use serde_json::Value;

/// How a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    Grpc,
    Json,
}

/// Calls in an order, to servers that nobody used before.
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) steps: Vec<Step>,
}

/// One call. A string `$name` in its messages, or as a token, stands for what an earlier answer had there.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Such as `KV/Range`.
    pub(crate) rpc: &'static str,
    /// More than one, or none, on a stream.
    pub(crate) messages: Vec<Value>,
    pub(crate) token: &'static str,
    /// Which parts of the answer get a name.
    pub(crate) keeps: Vec<(&'static str, &'static str)>,
    /// Calls that are made once the stream has answered its messages, before `more` of them.
    pub(crate) meanwhile: Vec<Step>,
    pub(crate) more: Vec<Value>,
    /// How many answers end a stream that the server does not end; on a watch: answers and events.
    pub(crate) answers_max: Option<usize>,
    /// etcd 3.5 does not know it.
    pub(crate) is_ours_alone: bool,
    /// A number that is no value of an enum: over JSON it makes etcd's process panic.
    pub(crate) ends_etcd: bool,
    /// Not over JSON, as etcd's gateway holds on to the stream.
    pub(crate) is_for_grpc_alone: bool,
    /// The order of rows with an equal sort key is nobody's promise.
    pub(crate) sorts_by: Option<&'static str>,
}

pub(crate) fn step(rpc: &'static str, message: Value) -> Step {
    Step {
        rpc,
        messages: vec![message],
        token: "",
        keeps: Vec::new(),
        meanwhile: Vec::new(),
        more: Vec::new(),
        answers_max: None,
        is_ours_alone: false,
        ends_etcd: false,
        is_for_grpc_alone: false,
        sorts_by: None,
    }
}

impl Step {
    pub(crate) fn by(self, token: &'static str) -> Self {
        Self { token, ..self }
    }

    pub(crate) fn keeps(mut self, name: &'static str, pointer: &'static str) -> Self {
        self.keeps.push((name, pointer));
        self
    }

    pub(crate) fn ours_alone(self) -> Self {
        Self { is_ours_alone: true, ..self }
    }

    pub(crate) fn ends_etcd(self) -> Self {
        Self { ends_etcd: true, ..self }
    }

    pub(crate) fn grpc_alone(self) -> Self {
        Self { is_for_grpc_alone: true, ..self }
    }

    pub(crate) fn sorts_by(self, field: Option<&'static str>) -> Self {
        Self { sorts_by: field, ..self }
    }

    /// Ends a stream after so many answers, or answers and events.
    pub(crate) fn until(self, answers: usize) -> Self {
        Self { answers_max: Some(answers), is_for_grpc_alone: true, ..self }
    }

    pub(crate) fn is_for_etcd(&self, via: Via) -> bool {
        !(self.is_ours_alone || self.ends_etcd && via == Via::Json)
    }

    pub(crate) fn goes_over(&self, via: Via) -> bool {
        via == Via::Grpc
            || !self.is_for_grpc_alone && crate::schema::path(&crate::schema::method(self.rpc)).is_some()
    }
}
