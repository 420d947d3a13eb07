//! The Election service (ETCD API, section 9).

use std::sync::Arc;

use bytes::Bytes;
use harmony_types::auth::access::Needs;
use harmony_types::{EventType, KeyRange, KeyValue};
use pb::request_op::Request;
use tokio::sync::mpsc;

use super::Api;
use super::candidate::{created_at, keys_of, oldest, op, prefix_of};
use super::key_watch::KeyWatch;
use super::status::{ApiError, Code};
use crate::auth::caller::Caller;
use crate::proto::etcdserverpb as pb;
use crate::proto::v3electionpb as election;

const NO_LEADER: ApiError = ApiError::new(Code::Unknown, "election: no leader");
const NOT_LEADER: ApiError = ApiError::new(Code::Unknown, "election: not leader");
const MISSING_LEADER_KEY: ApiError = ApiError::new(Code::Unknown, "\"leader\" field must be provided");

/// The leaders as they come.
pub(crate) type Observed = mpsc::Receiver<Result<election::LeaderResponse, ApiError>>;

impl Api {
    /// Waits until the client leads. One that goes away meanwhile leaves nothing behind.
    pub(crate) async fn campaign(
        self: &Arc<Self>,
        caller: Caller,
        request: election::CampaignRequest,
    ) -> Result<election::CampaignResponse, ApiError> {
        let election::CampaignRequest { name, lease, value } = request;
        let mut candidate = self.candidate(caller.clone(), &name, lease, value.clone()).await?;
        if candidate.found.as_ref().is_some_and(|found| *found != value) {
            let (key, revision, lease) = (candidate.key.clone(), candidate.revision, candidate.lease);
            self.put_if_created_at(&caller, &key, revision, lease, value).await?;
        }
        if !candidate.turn().await? {
            return Err(NOT_LEADER);
        }
        let (key, rev, lease, header) = candidate.keep();
        let leader = election::LeaderKey { name, key, rev, lease };
        Ok(election::CampaignResponse { header, leader: Some(leader) })
    }

    /// Replaces the value of a leader that still leads.
    pub(crate) async fn proclaim(
        &self,
        caller: &Caller,
        request: election::ProclaimRequest,
    ) -> Result<election::ProclaimResponse, ApiError> {
        let leader = request.leader.ok_or(MISSING_LEADER_KEY)?;
        let lease = self.session(caller, leader.lease).await?;
        let header = self.put_if_created_at(caller, &leader.key, leader.rev, lease, request.value).await?;
        Ok(election::ProclaimResponse { header })
    }

    /// Who leads.
    pub(crate) async fn leader(
        &self,
        caller: &Caller,
        request: election::LeaderRequest,
    ) -> Result<election::LeaderResponse, ApiError> {
        let answer = self.range(caller, oldest(&prefix_of(&request.name))).await?;
        let kv = answer.kvs.into_iter().next().ok_or(NO_LEADER)?;
        Ok(election::LeaderResponse { header: answer.header, kv: Some(kv) })
    }

    /// Gives leadership up; one that does not lead any more has nothing to give, and hears so.
    pub(crate) async fn resign(
        &self,
        caller: &Caller,
        request: election::ResignRequest,
    ) -> Result<election::ResignResponse, ApiError> {
        let leader = request.leader.ok_or(MISSING_LEADER_KEY)?;
        let delete = pb::DeleteRangeRequest { key: leader.key.clone(), ..pb::DeleteRangeRequest::default() };
        let txn = pb::TxnRequest {
            compare: vec![created_at(&leader.key, leader.rev)],
            success: vec![op(Request::RequestDeleteRange(delete))],
            failure: Vec::new(),
        };
        let answer = self.txn(caller, txn).await?;
        if answer.succeeded {
            Ok(election::ResignResponse { header: answer.header })
        } else {
            Err(NOT_LEADER)
        }
    }

    /// Tells every leader, and every value of each, for as long as somebody receives.
    pub(crate) async fn observe(
        self: &Arc<Self>,
        caller: Caller,
        request: election::LeaderRequest,
    ) -> Result<Observed, ApiError> {
        let prefix = prefix_of(&request.name);
        // A refusal is the answer to the call, not to its first message.
        self.authorize(&caller, || Needs::read(keys_of(&prefix))).await?;
        let (sender, receiver) = mpsc::channel(1);
        let api = Arc::clone(self);
        tokio::spawn(async move {
            let watching = Observer { api: &api, caller: &caller, prefix: &prefix, sender: &sender };
            let ended = tokio::select! {
                ended = watching.run() => ended,
                () = sender.closed() => return,
            };
            if let Err(error) = ended {
                // The receiver is gone when the client went away.
                let _gone = sender.send(Err(error)).await;
            }
        });
        Ok(receiver)
    }

    /// Puts a value while the key is still that of its candidate.
    async fn put_if_created_at(
        &self,
        caller: &Caller,
        key: &Bytes,
        revision: i64,
        lease: i64,
        value: Bytes,
    ) -> Result<Option<pb::ResponseHeader>, ApiError> {
        let put = pb::PutRequest { key: key.clone(), value, lease, ..pb::PutRequest::default() };
        let txn = pb::TxnRequest {
            compare: vec![created_at(key, revision)],
            success: vec![op(Request::RequestPut(put))],
            failure: Vec::new(),
        };
        let answer = self.txn(caller, txn).await?;
        if answer.succeeded { Ok(answer.header) } else { Err(NOT_LEADER) }
    }
}

/// One stream of leaders.
struct Observer<'a> {
    api: &'a Api,
    caller: &'a Caller,
    prefix: &'a Bytes,
    sender: &'a mpsc::Sender<Result<election::LeaderResponse, ApiError>>,
}

impl Observer<'_> {
    async fn run(&self) -> Result<(), ApiError> {
        loop {
            let answer = self.api.range(self.caller, oldest(self.prefix)).await?;
            let seen = answer.header.map_or(0, |header| header.revision);
            let (kv, seen) = match answer.kvs.into_iter().next() {
                Some(kv) => (kv, seen),
                // The first key that is put leads, and all that were put since are younger.
                None => match self.first_put(seen).await? {
                    Some(kv) => {
                        let seen = kv.mod_revision;
                        (kv, seen)
                    }
                    None => continue,
                },
            };
            let key = KeyRange::single(kv.key.clone());
            if !self.tell(seen, kv).await? {
                return Ok(());
            }
            let mut watch = KeyWatch::behind(self.api, seen, &[key])?;
            while let Some(event) = watch.next().await?
                && event.event_type() == EventType::Put
                && let Some(kv) = event.kv.clone()
            {
                if !self.tell(kv.mod_revision, kv).await? {
                    return Ok(());
                }
            }
        }
    }

    async fn first_put(&self, seen: i64) -> Result<Option<KeyValue>, ApiError> {
        let mut watch = KeyWatch::behind(self.api, seen, &[keys_of(self.prefix)])?;
        while let Some(event) = watch.next().await? {
            if event.event_type() == EventType::Put {
                return Ok(event.kv.clone());
            }
        }
        Ok(None)
    }

    /// Tells a leader to who still may hear of it; `false` when nobody listens.
    async fn tell(&self, revision: i64, kv: KeyValue) -> Result<bool, ApiError> {
        self.api.authorize(self.caller, || Needs::read(keys_of(self.prefix))).await?;
        let response = election::LeaderResponse { header: Some(self.api.header(revision)), kv: Some(kv) };
        Ok(self.sender.send(Ok(response)).await.is_ok())
    }
}
