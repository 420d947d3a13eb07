//! Makes the calls to one server, and takes out of the answers what is a server's own: ids, terms, sizes, times.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Status;
use tonic::codegen::tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;

use crate::compare::Outcome;
use crate::coverage::Coverage;
use crate::step::{Step, Via, step};
use crate::{schema, wire};

/// What stands in place of what differs from server to server.
const OWN: &str = "~";

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(6);

/// The parts that differ from server to server: the RPC (`*`: any) and the field.
const OWN_PARTS: &[(&str, &str)] = &[
    ("*", "raft_term"),
    ("Maintenance/Status", "version"),
    ("Maintenance/Status", "dbSize"),
    ("Maintenance/Status", "dbSizeInUse"),
    ("Maintenance/Status", "dbSizeQuota"),
    ("Maintenance/Status", "raftIndex"),
    ("Maintenance/Status", "raftAppliedIndex"),
    ("Maintenance/Status", "raftTerm"),
    ("Maintenance/Status", "storageVersion"),
    ("Maintenance/Hash", "hash"),
    ("Maintenance/Snapshot", "blob"),
    ("Maintenance/Snapshot", "remaining_bytes"),
    ("Maintenance/Snapshot", "version"),
    ("Auth/Authenticate", "token"),
];

/// One server, and the names of what is its own.
pub(crate) struct Player {
    address: String,
    channel: Channel,
    /// What a name stands for here.
    names: BTreeMap<&'static str, String>,
}

/// The messages that answered a call, and how it ended.
type Answers = (Vec<Value>, Option<Status>);

impl Player {
    /// Waits until the server has a leader.
    pub(crate) async fn new(address: &str) -> Self {
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let mut player = Self { address: address.to_owned(), channel, names: BTreeMap::new() };
        let list = step("Cluster/MemberList", json!({"linearizable": true}))
            .keeps("$cluster", "/header/cluster_id")
            .keeps("$member", "/members/0/ID")
            .keeps("$peer-url", "/members/0/peerURLs/0")
            .keeps("$client-url", "/members/0/clientURLs/0");
        while !player.names.contains_key("$client-url") {
            player.play(&list, Via::Grpc, &mut Coverage::default()).await;
        }
        player
    }

    pub(crate) async fn play(&mut self, step: &Step, via: Via, coverage: &mut Coverage) -> Outcome {
        let method = schema::method(step.rpc);
        let answers = async {
            match via {
                Via::Grpc => self.call(step, &method, coverage).await,
                Via::Json => self.post(step, &method, coverage).await,
            }
        };
        let Ok((answers, status)) = timeout(PATIENCE, answers).await else {
            return Outcome::Refused { code: "no answer".to_owned(), text: format!("within {PATIENCE:?}") };
        };
        if let Some(status) = status {
            let (code, text) = (format!("{:?}", status.code()), status.message().to_owned());
            coverage.called(step.rpc, via, Some((&code, &text)));
            return Outcome::Refused { code, text };
        }
        coverage.called(step.rpc, via, None);
        for (name, pointer) in &step.keeps {
            if let Some(value) =
                answers.first().and_then(|first| first.pointer(pointer)).and_then(Value::as_str)
            {
                self.names.insert(name, value.to_owned());
            }
        }
        let mut answers: Vec<Value> = answers.into_iter().map(|it| self.neutral(step, "", it)).collect();
        if let Some(field) = step.sorts_by {
            answers.iter_mut().for_each(|answer| sort_ties(answer, field));
        }
        Outcome::Answer(match step.rpc {
            "Watch/Watch" => by_watcher(answers),
            // How many there are is a matter of size.
            "Maintenance/Snapshot" => {
                answers.dedup();
                answers.into()
            }
            _ if method.is_server_streaming() => answers.into(),
            _ => answers.pop().unwrap_or_default(),
        })
    }

    fn token(&self, step: &Step) -> &str {
        self.names.get(step.token).map_or(step.token, String::as_str)
    }

    /// The message with what its names stand for.
    fn own(&self, value: &Value) -> Value {
        match value {
            // An answer that should have given the name was a refusal: nothing has that id.
            Value::String(text) if text.starts_with('$') => {
                self.names.get(text.as_str()).map_or("1", String::as_str).into()
            }
            Value::Array(values) => values.iter().map(|it| self.own(it)).collect(),
            Value::Object(map) => map.iter().map(|(key, it)| (key.clone(), self.own(it))).collect(),
            other => other.clone(),
        }
    }

    /// The other way round, and without what has no name and is the server's own.
    fn neutral(&self, step: &Step, key: &str, value: Value) -> Value {
        match value {
            Value::String(text) if key == "TTL" && step.rpc == "Lease/LeaseTimeToLive" && text != "-1" => {
                OWN.into()
            }
            Value::String(text) => match self.names.iter().find(|(_, value)| **value == text) {
                Some((name, _)) => (*name).into(),
                None if is_own(step, key) => OWN.into(),
                None => text.into(),
            },
            Value::Number(_) if is_own(step, key) => OWN.into(),
            Value::Array(values) => values.into_iter().map(|it| self.neutral(step, key, it)).collect(),
            Value::Object(map) => map
                .into_iter()
                .map(|(key, it)| {
                    let it = self.neutral(step, &key, it);
                    (key, it)
                })
                .collect(),
            other => other,
        }
    }

    /// A message of a request, noted.
    fn message(&self, method: &MethodDescriptor, message: &Value, coverage: &mut Coverage) -> DynamicMessage {
        let message = schema::message(method.input(), &self.own(message));
        coverage.request(&message);
        message
    }

    async fn call(&mut self, step: &Step, method: &MethodDescriptor, coverage: &mut Coverage) -> Answers {
        let (sender, receiver) = mpsc::unbounded_channel();
        for message in &step.messages {
            let message = self.message(method, message, coverage);
            sender.send(Bytes::from(message.encode_to_vec())).unwrap();
        }
        // A stream that the server does not end stays open on this side, too.
        let mut sender = Some(sender).filter(|_| step.answers_max.is_some() && method.is_client_streaming());
        let mut answers = Vec::new();
        let token = self.token(step).to_owned();
        let called = wire::call(&self.channel, method, &token, UnboundedReceiverStream::new(receiver)).await;
        let mut stream = match called {
            Ok(stream) => stream,
            Err(status) => return (answers, Some(status)),
        };
        let mut is_later = false;
        loop {
            if !is_later && step.messages.len() <= answers.len() {
                is_later = true;
                for step in &step.meanwhile {
                    Box::pin(self.play(step, Via::Grpc, coverage)).await;
                }
                for message in &step.more {
                    let message = self.message(method, message, coverage);
                    // The stream may have ended.
                    let _gone = sender.as_ref().map(|it| it.send(Bytes::from(message.encode_to_vec())));
                }
            }
            if step.answers_max.is_some_and(|max| max <= answers.iter().map(weight).sum()) {
                sender.take();
                return (answers, None);
            }
            let message = match stream.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return (answers, None),
                Err(status) => return (answers, Some(status)),
            };
            let message = DynamicMessage::decode(method.output(), message).unwrap();
            coverage.answer(&message);
            answers.push(schema::json(&message));
        }
    }

    async fn post(&mut self, step: &Step, method: &MethodDescriptor, coverage: &mut Coverage) -> Answers {
        let path = schema::path(method).unwrap();
        for message in &step.messages {
            self.message(method, message, coverage);
        }
        let body: String = step.messages.iter().map(|message| self.own(message).to_string()).collect();
        let Some((status, body)) = wire::post(&self.address, &path, self.token(step), &body).await else {
            return (Vec::new(), Some(Status::unknown("the connection was closed")));
        };
        if status != 200 {
            return (Vec::new(), Some(refusal(status, &body)));
        }
        let mut answers = Vec::new();
        for line in body.lines() {
            let mut answer: Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{path}: {error}: {line}"));
            if method.is_server_streaming() {
                if let Some(error) = answer.get("error") {
                    let code =
                        error.get("code").or(error.get("grpc_code")).and_then(Value::as_i64).unwrap_or(2);
                    let text = error["message"].as_str().unwrap_or(line).to_owned();
                    return (answers, Some(Status::new(i32::try_from(code).unwrap().into(), text)));
                }
                answer = answer["result"].take();
            }
            coverage.answer(&schema::message(method.output(), &answer));
            answers.push(answer);
        }
        (answers, None)
    }
}

/// What a body says of why there is no answer; of a stream, one level deeper. A status that does not fit the code is told, too.
fn refusal(status: u16, body: &str) -> Status {
    let refusal: Value = serde_json::from_str(body).unwrap_or_default();
    let refusal = if refusal["error"].is_object() { &refusal["error"] } else { &refusal };
    let code = refusal["code"].as_i64().and_then(|code| i32::try_from(code).ok()).unwrap_or(2).into();
    let text = refusal["message"].as_str().unwrap_or(body);
    if status == http_status(code) {
        Status::new(code, text)
    } else {
        Status::new(code, format!("{status}: {text}"))
    }
}

/// The usual mapping of gRPC's codes.
fn http_status(code: tonic::Code) -> u16 {
    use tonic::Code;
    match code {
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::ResourceExhausted => 429,
        Code::Cancelled => 499,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
        _ => 500,
    }
}

fn is_own(step: &Step, key: &str) -> bool {
    OWN_PARTS.iter().any(|(rpc, part)| *part == key && (*rpc == "*" || *rpc == step.rpc))
}

/// An answer, and the events in it.
fn weight(answer: &Value) -> usize {
    1.max(answer["events"].as_array().map_or(0, Vec::len))
}

/// Rows with an equal sort key, in the order of their keys.
fn sort_ties(answer: &mut Value, field: &str) {
    if let Some(rows) = answer.get_mut("kvs").and_then(Value::as_array_mut) {
        for ties in rows.chunk_by_mut(|one, other| one[field] == other[field]) {
            ties.sort_by_key(|row| row["key"].to_string());
        }
    }
}

/// The answers of a watch stream by watcher: how events are shared out over messages, and which watcher is first, is no promise.
fn by_watcher(answers: Vec<Value>) -> Value {
    let mut watchers: BTreeMap<String, (Vec<Value>, Vec<Value>)> = BTreeMap::new();
    for mut answer in answers {
        let id = answer.get("watch_id").map_or("0".to_owned(), ToString::to_string);
        let (messages, events) = watchers.entry(id).or_default();
        match answer.get_mut("events").map(Value::take) {
            Some(Value::Array(these)) => events.extend(these),
            _ => messages.push(answer),
        }
    }
    let watchers: Map<String, Value> = watchers
        .into_iter()
        .map(|(id, (messages, events))| (id, json!({"messages": messages, "events": events})))
        .collect();
    // The ids are a part of the messages; here they would only make parts of the findings unlike.
    watchers.into_values().collect()
}
