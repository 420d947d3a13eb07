//! Answers as JSON, in the shape of `etcdctl -w json`: numbers as numbers, bytes in base64, zero fields left out.

pub(crate) mod auth;
pub(crate) mod lease;

use std::fmt::{self, Write};

use harmony_types::KeyValue;
use serde::{Serialize, Serializer};

use crate::proto::etcdserverpb as pb;

fn zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A response header.
#[derive(Serialize)]
pub(crate) struct Header {
    #[serde(skip_serializing_if = "zero")]
    cluster_id: u64,
    #[serde(skip_serializing_if = "zero")]
    member_id: u64,
    #[serde(skip_serializing_if = "zero")]
    revision: i64,
    #[serde(skip_serializing_if = "zero")]
    raft_term: u64,
}

impl From<&pb::ResponseHeader> for Header {
    fn from(header: &pb::ResponseHeader) -> Self {
        Self {
            cluster_id: header.cluster_id,
            member_id: header.member_id,
            revision: header.revision,
            raft_term: header.raft_term,
        }
    }
}

fn header(header: Option<&pb::ResponseHeader>) -> Option<Header> {
    header.map(Header::from)
}

/// A key with its value.
#[derive(Serialize)]
pub(crate) struct Kv<'a> {
    key: Base64<'a>,
    #[serde(skip_serializing_if = "zero")]
    create_revision: i64,
    #[serde(skip_serializing_if = "zero")]
    mod_revision: i64,
    #[serde(skip_serializing_if = "zero")]
    version: i64,
    #[serde(skip_serializing_if = "Base64::is_empty")]
    value: Base64<'a>,
    #[serde(skip_serializing_if = "zero")]
    lease: i64,
}

impl<'a> From<&'a KeyValue> for Kv<'a> {
    fn from(kv: &'a KeyValue) -> Self {
        Self {
            key: Base64(&kv.key),
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            value: Base64(&kv.value),
            lease: kv.lease,
        }
    }
}

/// The answer to a put.
#[derive(Serialize)]
pub(crate) struct Put<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_kv: Option<Kv<'a>>,
}

impl<'a> From<&'a pb::PutResponse> for Put<'a> {
    fn from(response: &'a pb::PutResponse) -> Self {
        Self { header: header(response.header.as_ref()), prev_kv: response.prev_kv.as_ref().map(Kv::from) }
    }
}

/// The answer to a range.
#[derive(Serialize)]
pub(crate) struct Range<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kvs: Vec<Kv<'a>>,
    #[serde(skip_serializing_if = "zero")]
    more: bool,
    #[serde(skip_serializing_if = "zero")]
    count: i64,
}

impl<'a> From<&'a pb::RangeResponse> for Range<'a> {
    fn from(response: &'a pb::RangeResponse) -> Self {
        Self {
            header: header(response.header.as_ref()),
            kvs: response.kvs.iter().map(Kv::from).collect(),
            more: response.more,
            count: response.count,
        }
    }
}

/// A response of a watch, with the names that etcd's client gives it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Watch<'a> {
    header: Option<Header>,
    events: Vec<Event<'a>>,
    compact_revision: i64,
    canceled: bool,
    created: bool,
}

/// A change.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type", skip_serializing_if = "zero")]
    event_type: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    kv: Option<Kv<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_kv: Option<Kv<'a>>,
}

impl<'a> From<&'a pb::WatchResponse> for Watch<'a> {
    fn from(response: &'a pb::WatchResponse) -> Self {
        let events = response.events.iter().map(|event| Event {
            event_type: event.event_type,
            kv: event.kv.as_ref().map(Kv::from),
            prev_kv: event.prev_kv.as_ref().map(Kv::from),
        });
        Self {
            header: header(response.header.as_ref()),
            events: events.collect(),
            compact_revision: response.compact_revision,
            canceled: response.canceled,
            created: response.created,
        }
    }
}

/// The answer to a delete.
#[derive(Serialize)]
pub(crate) struct Delete<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "zero")]
    deleted: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prev_kvs: Vec<Kv<'a>>,
}

impl<'a> From<&'a pb::DeleteRangeResponse> for Delete<'a> {
    fn from(response: &'a pb::DeleteRangeResponse) -> Self {
        Self {
            header: header(response.header.as_ref()),
            deleted: response.deleted,
            prev_kvs: response.prev_kvs.iter().map(Kv::from).collect(),
        }
    }
}

/// The answer to a transaction.
#[derive(Serialize)]
pub(crate) struct Txn<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "zero")]
    succeeded: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    responses: Vec<Wrapped<'a>>,
}

/// `etcdctl` prints the wrapper that Go's protobuf puts around a union; scripts expect it.
#[derive(Serialize)]
struct Wrapped<'a> {
    #[serde(rename = "Response")]
    response: Option<Op<'a>>,
}

#[derive(Serialize)]
enum Op<'a> {
    #[serde(rename = "response_range")]
    Range(Range<'a>),
    #[serde(rename = "response_put")]
    Put(Put<'a>),
    #[serde(rename = "response_delete_range")]
    Delete(Delete<'a>),
    #[serde(rename = "response_txn")]
    Txn(Txn<'a>),
}

impl<'a> From<&'a pb::TxnResponse> for Txn<'a> {
    fn from(response: &'a pb::TxnResponse) -> Self {
        use pb::response_op::Response;
        let op = |response: &'a pb::ResponseOp| Wrapped {
            response: response.response.as_ref().map(|response| match response {
                Response::ResponseRange(range) => Op::Range(range.into()),
                Response::ResponsePut(put) => Op::Put(put.into()),
                Response::ResponseDeleteRange(delete) => Op::Delete(delete.into()),
                Response::ResponseTxn(txn) => Op::Txn(txn.into()),
            }),
        };
        Self {
            header: header(response.header.as_ref()),
            succeeded: response.succeeded,
            responses: response.responses.iter().map(op).collect(),
        }
    }
}

/// One endpoint's status.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct EndpointStatus {
    endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "zero")]
    version: String,
    #[serde(skip_serializing_if = "zero")]
    db_size: i64,
    #[serde(skip_serializing_if = "zero")]
    leader: u64,
    #[serde(skip_serializing_if = "zero")]
    raft_index: u64,
    #[serde(skip_serializing_if = "zero")]
    raft_term: u64,
    #[serde(skip_serializing_if = "zero")]
    raft_applied_index: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
    #[serde(skip_serializing_if = "zero")]
    db_size_in_use: i64,
    #[serde(skip_serializing_if = "zero")]
    is_learner: bool,
    #[serde(skip_serializing_if = "zero")]
    storage_version: String,
    #[serde(skip_serializing_if = "zero")]
    db_size_quota: i64,
}

impl EndpointStatus {
    /// What an endpoint answered, or why it did not.
    pub(crate) fn new(endpoint: String, answer: Result<&pb::StatusResponse, String>) -> Self {
        let (status, error) = match answer {
            Ok(status) => (Some(Status::from(status)), None),
            Err(error) => (None, Some(error)),
        };
        Self { endpoint, status, error }
    }
}

impl From<&pb::StatusResponse> for Status {
    fn from(status: &pb::StatusResponse) -> Self {
        Self {
            header: header(status.header.as_ref()),
            version: status.version.clone(),
            db_size: status.db_size,
            leader: status.leader,
            raft_index: status.raft_index,
            raft_term: status.raft_term,
            raft_applied_index: status.raft_applied_index,
            errors: status.errors.clone(),
            db_size_in_use: status.db_size_in_use,
            is_learner: status.is_learner,
            storage_version: status.storage_version.clone(),
            db_size_quota: status.db_size_quota,
        }
    }
}

/// The members of a cluster, behind the one that an answer is about.
#[derive(Serialize)]
pub(crate) struct Members<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<Member<'a>>,
    members: Vec<Member<'a>>,
}

#[derive(Serialize)]
struct Member<'a> {
    #[serde(rename = "ID")]
    id: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(rename = "peerURLs")]
    peer_urls: &'a [String],
    #[serde(rename = "clientURLs", skip_serializing_if = "<[String]>::is_empty")]
    client_urls: &'a [String],
    #[serde(rename = "isLearner", skip_serializing_if = "zero")]
    is_learner: bool,
}

impl<'a> Members<'a> {
    pub(crate) fn new(
        head: Option<&pb::ResponseHeader>,
        one: Option<&'a pb::Member>,
        all: &'a [pb::Member],
    ) -> Self {
        let member = |member: &'a pb::Member| Member {
            id: member.id,
            name: &member.name,
            peer_urls: &member.peer_ur_ls,
            client_urls: &member.client_ur_ls,
            is_learner: member.is_learner,
        };
        Self { header: header(head), member: one.map(member), members: all.iter().map(member).collect() }
    }
}

/// Bytes as base64 text, with padding (RFC 4648, section 4).
struct Base64<'a>(&'a [u8]);

impl Base64<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Base64<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        for chunk in self.0.chunks(3) {
            let byte = |at: usize| chunk.get(at).map_or(0, |byte| usize::from(*byte));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            for digit in 0..4 {
                let padding = digit > chunk.len();
                let letter = ALPHABET[bits >> (18 - 6 * digit) & 63];
                f.write_char(if padding { '=' } else { char::from(letter) })?;
            }
        }
        Ok(())
    }
}

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads_to_four() {
        let check = |bytes: &[u8], text: &str| assert_eq!(Base64(bytes).to_string(), text);
        check(b"", "");
        check(b"f", "Zg==");
        check(b"fo", "Zm8=");
        check(b"foo", "Zm9v");
        check(b"foob", "Zm9vYg==");
        check(&[0xff, 0xfe, 0xfb], "//77");
    }

    #[test]
    fn a_transaction_looks_as_etcdctl_prints_it() {
        let put = pb::PutResponse {
            header: Some(pb::ResponseHeader { revision: 8, ..pb::ResponseHeader::default() }),
            prev_kv: None,
        };
        let response = pb::TxnResponse {
            header: Some(pb::ResponseHeader { cluster_id: 3, member_id: 4, revision: 8, raft_term: 2 }),
            succeeded: true,
            responses: vec![pb::ResponseOp { response: Some(pb::response_op::Response::ResponsePut(put)) }],
        };
        assert_eq!(
            serde_json::to_string(&Txn::from(&response)).unwrap(),
            "{\"header\":{\"cluster_id\":3,\"member_id\":4,\"revision\":8,\"raft_term\":2},\"succeeded\":true,\
             \"responses\":[{\"Response\":{\"response_put\":{\"header\":{\"revision\":8}}}}]}"
        );
    }
}
