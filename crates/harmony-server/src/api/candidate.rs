//! Whose turn it is: the way in which locks and elections agree (ETCD API, section 9), in the key layout of etcd's clients, so
//! that those which do it by themselves contend with those which ask the server.
//!
//! A candidate puts the key `name/` + lease id in lower hex, once, and waits until no key of the name is older than its own.
//! It waits for the youngest of the older ones alone, so that a key which goes wakes one candidate.

use std::sync::Arc;

use bytes::Bytes;
use harmony_types::{EventType, KeyRange, KeyValue};
use pb::compare::TargetUnion;
use pb::request_op::Request;
use pb::response_op::Response;
use tokio::runtime::Handle;

use super::Api;
use super::key_watch::KeyWatch;
use super::status::ApiError;
use crate::auth::caller::Caller;
use crate::proto::etcdserverpb as pb;

/// Seconds of the lease that is made for who brings none. Nobody renews it.
const SESSION_TTL_S: i64 = 60;

/// A key that waits for its turn, or has it. Unless it is kept, dropping it deletes the key: its client went away.
pub(super) struct Candidate {
    api: Arc<Api>,
    caller: Caller,
    /// `name/`.
    prefix: Bytes,
    pub(super) key: Bytes,
    pub(super) lease: i64,
    /// At which its key was created.
    pub(super) revision: i64,
    /// The value that the key had before, if it was there.
    pub(super) found: Option<Bytes>,
    pub(super) header: Option<pb::ResponseHeader>,
    is_kept: bool,
}

/// The keys of a name: `name/`.
pub(super) fn prefix_of(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// All keys that begin with a prefix which ends with a slash.
pub(super) fn keys_of(prefix: &[u8]) -> KeyRange {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    KeyRange { key: Bytes::copy_from_slice(prefix), end: end.into() }
}

/// The key was created at this revision; 0: it is not there.
pub(super) fn created_at(key: &Bytes, revision: i64) -> pb::Compare {
    pb::Compare {
        result: pb::compare::CompareResult::Equal.into(),
        target: pb::compare::CompareTarget::Create.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..pb::Compare::default()
    }
}

pub(super) fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// The oldest key of a name: its holder's.
pub(super) fn oldest(prefix: &Bytes) -> pb::RangeRequest {
    let KeyRange { key, end } = keys_of(prefix);
    pb::RangeRequest {
        key,
        range_end: end,
        limit: 1,
        sort_order: pb::range_request::SortOrder::Ascend.into(),
        sort_target: pb::range_request::SortTarget::Create.into(),
        ..pb::RangeRequest::default()
    }
}

fn first_of(response: Option<pb::ResponseOp>) -> Option<KeyValue> {
    match response?.response? {
        Response::ResponseRange(range) => range.kvs.into_iter().next(),
        _ => None,
    }
}

impl Api {
    /// The lease that a client brings, or a new one.
    pub(super) async fn session(&self, caller: &Caller, lease: i64) -> Result<i64, ApiError> {
        if lease != 0 {
            return Ok(lease);
        }
        let grant = pb::LeaseGrantRequest { ttl: SESSION_TTL_S, id: 0 };
        Ok(self.lease_grant(caller, grant).await?.id)
    }

    /// Puts the key of a candidate, or finds it there: the same lease asks again.
    pub(super) async fn candidate(
        self: &Arc<Self>,
        caller: Caller,
        name: &[u8],
        lease: i64,
        value: Bytes,
    ) -> Result<Candidate, ApiError> {
        let lease = self.session(&caller, lease).await?;
        let prefix = prefix_of(name);
        let key = Bytes::from([&prefix[..], format!("{lease:x}").as_bytes()].concat());
        let put = pb::PutRequest { key: key.clone(), value, lease, ..pb::PutRequest::default() };
        let get = pb::RangeRequest { key: key.clone(), ..pb::RangeRequest::default() };
        let txn = pb::TxnRequest {
            compare: vec![created_at(&key, 0)],
            success: vec![op(Request::RequestPut(put))],
            failure: vec![op(Request::RequestRange(get))],
        };
        let answer = self.txn(&caller, txn).await?;
        let found = first_of(answer.responses.into_iter().next()).filter(|_| !answer.succeeded);
        let put_at = answer.header.map_or(0, |header| header.revision);
        Ok(Candidate {
            api: Arc::clone(self),
            caller,
            prefix,
            key,
            lease,
            revision: found.as_ref().map_or(put_at, |kv| kv.create_revision),
            found: found.map(|kv| kv.value),
            header: answer.header,
            is_kept: false,
        })
    }
}

impl Candidate {
    /// Waits until it is its turn; `false` when its key is gone: its lease ended, or somebody deleted it.
    pub(super) async fn turn(&mut self) -> Result<bool, ApiError> {
        loop {
            let own = pb::RangeRequest { key: self.key.clone(), ..pb::RangeRequest::default() };
            let KeyRange { key, end } = keys_of(&self.prefix);
            let before = pb::RangeRequest {
                key,
                range_end: end,
                limit: 1,
                sort_order: pb::range_request::SortOrder::Descend.into(),
                sort_target: pb::range_request::SortTarget::Create.into(),
                max_create_revision: self.revision - 1,
                keys_only: true,
                ..pb::RangeRequest::default()
            };
            let txn = pb::TxnRequest {
                compare: Vec::new(),
                success: vec![op(Request::RequestRange(own)), op(Request::RequestRange(before))],
                failure: Vec::new(),
            };
            let answer = self.api.txn(&self.caller, txn).await?;
            let mut responses = answer.responses.into_iter();
            let own = first_of(responses.next());
            if own.is_none_or(|own| own.create_revision != self.revision) {
                // Nothing is left to delete.
                self.is_kept = true;
                return Ok(false);
            }
            self.header = answer.header;
            let Some(before) = first_of(responses.next()) else { return Ok(true) };
            let seen = answer.header.map_or(0, |header| header.revision);
            let keys = [KeyRange::single(before.key), KeyRange::single(self.key.clone())];
            let mut watch = KeyWatch::behind(&self.api, seen, &keys)?;
            while let Some(event) = watch.next().await?
                && event.event_type() != EventType::Delete
            {}
        }
    }

    /// Leaves the key where it is: it is the client's from now on.
    pub(super) fn keep(mut self) -> (Bytes, i64, i64, Option<pb::ResponseHeader>) {
        self.is_kept = true;
        (std::mem::take(&mut self.key), self.revision, self.lease, self.header)
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        let delete = pb::DeleteRangeRequest { key: self.key.clone(), ..pb::DeleteRangeRequest::default() };
        let txn = pb::TxnRequest {
            compare: vec![created_at(&self.key, self.revision)],
            success: vec![op(Request::RequestDeleteRange(delete))],
            failure: Vec::new(),
        };
        // None while the server ends.
        let Ok(runtime) = Handle::try_current() else { return };
        let (api, caller) = (Arc::clone(&self.api), self.caller.clone());
        runtime.spawn(async move {
            if let Err(error) = api.txn(&caller, txn).await {
                // It goes with its lease.
                tracing::info!(?error, "the key of a candidate that went away stays");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_name_lie_behind_its_slash() {
        let prefix = prefix_of(b"a");
        assert_eq!(prefix, "a/");
        assert_eq!(keys_of(&prefix), KeyRange { key: "a/".into(), end: "a0".into() });
    }
}
