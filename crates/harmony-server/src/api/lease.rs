//! The Lease service (ETCD API, section 8): grants and revocations go through the log, renewals and questions to the keeper.

use std::sync::Arc;
use std::time::Duration;

use harmony_node::LeaseKeeper;
use harmony_node::lease::{LeaseOptions, TimeToLive};
use harmony_types::auth::access::{Access, Need, Needs};
use harmony_types::lease::LeaseRevoke;
use harmony_types::{CommandKind, KeyRange, LeaseId, NodeError, Outcome, OutcomeKind, StorageError};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::status::{ApiError, Code};
use super::{Api, mismatch};
use crate::auth::caller::Caller;
use crate::net::Task;
use crate::net::replies::{Receiver, Replies};
use crate::proto::etcdserverpb as pb;

/// Renewals of one stream under way: they share the keeper's round.
const RENEWALS_AT_ONCE: usize = 64;

/// Rest before a call that nobody could answer is made again, as etcd's.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// TTL of a lease that is not there.
const GONE: i64 = -1;

/// The answers of a keep-alive stream.
pub(crate) type KeptAlive = mpsc::Receiver<Result<pb::LeaseKeepAliveResponse, ApiError>>;

/// A renewal under way.
struct Asked {
    id: i64,
    header: pb::ResponseHeader,
    receiver: Receiver<i64>,
}

/// The keeper, and those who wait for it.
pub(crate) struct KeptLeases {
    pub(crate) keeper: LeaseKeeper,
    options: LeaseOptions,
    renewals: Arc<Replies<i64>>,
    questions: Arc<Replies<Option<TimeToLive>>>,
    stopping: watch::Sender<bool>,
}

impl KeptLeases {
    pub(crate) fn new(keeper: LeaseKeeper, options: LeaseOptions) -> Self {
        Self {
            keeper,
            options,
            renewals: Replies::new(),
            questions: Replies::new(),
            stopping: watch::Sender::new(false),
        }
    }

    /// What must run on the network thread for as long as requests are served.
    pub(super) fn tasks(&self) -> [Task; 2] {
        [Box::pin(Arc::clone(&self.renewals).deliver()), Box::pin(Arc::clone(&self.questions).deliver())]
    }

    /// Ends the keeper, then the keep-alive streams, which would not end by themselves.
    pub(crate) fn stop(&self) {
        self.keeper.stop();
        self.stopping.send_replace(true);
    }
}

impl Api {
    pub(crate) async fn lease_grant(
        &self,
        caller: &Caller,
        request: pb::LeaseGrantRequest,
    ) -> Result<pb::LeaseGrantResponse, ApiError> {
        let grant = self.leases.options.grant(request.id, request.ttl, chance()?);
        match self.propose_by(caller, CommandKind::LeaseGrant(grant)).await? {
            Outcome { revision, kind: Some(OutcomeKind::LeaseGrant(outcome)) } => {
                Ok(pb::LeaseGrantResponse {
                    header: Some(self.header(revision)),
                    id: outcome.id,
                    ttl: outcome.ttl,
                    error: String::new(),
                })
            }
            other => Err(mismatch(&other)),
        }
    }

    pub(crate) async fn lease_revoke(
        &self,
        caller: &Caller,
        request: pb::LeaseRevokeRequest,
    ) -> Result<pb::LeaseRevokeResponse, ApiError> {
        let revoke = LeaseRevoke { id: request.id };
        let outcome = self.propose_by(caller, CommandKind::LeaseRevoke(revoke)).await?;
        Ok(pb::LeaseRevokeResponse { header: Some(self.header(outcome.revision)) })
    }

    /// The keys are those at the moment of the answer. Only the leader knows what is left.
    pub(crate) async fn lease_time_to_live(
        &self,
        caller: &Caller,
        request: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, ApiError> {
        self.authorize(caller, || Needs::User(Vec::new())).await?;
        let id = LeaseId(request.id);
        let ask = || {
            let (waiter, receiver) = self.leases.questions.waiter();
            self.leases.keeper.time_to_live(id, waiter);
            receiver
        };
        let mut left = self.answer(ask(), ask).await?;
        let mut keys = Vec::new();
        if request.keys && left.is_some() {
            // This member may be behind the leader that answered.
            self.linearize().await?;
            match self.blocking(move |storage| storage.lease_with_keys(id)).await?? {
                Some((_, attached)) => keys = attached,
                // It went since.
                None => left = None,
            }
            self.authorize(caller, || reads_of(&keys)).await?;
        }
        Ok(pb::LeaseTimeToLiveResponse {
            header: Some(self.header_now()),
            id: request.id,
            ttl: left.map_or(GONE, |left| left.remaining_s),
            granted_ttl: left.map_or(0, |left| left.granted_s),
            keys,
        })
    }

    /// This member's list. It tells which leases hold keys: whoever asks must be allowed to read all of these.
    pub(crate) async fn lease_leases(&self, caller: &Caller) -> Result<pb::LeaseLeasesResponse, ApiError> {
        self.authorize(caller, || Needs::User(Vec::new())).await?;
        let with_keys = self.asks_for_rights();
        let (leases, keys) = self
            .blocking(move |storage| {
                let leases = storage.leases()?;
                let mut keys = Vec::new();
                for lease in leases.iter().filter(|_| with_keys) {
                    keys.extend(storage.lease_with_keys(lease.id)?.into_iter().flat_map(|(_, keys)| keys));
                }
                Ok::<_, StorageError>((leases, keys))
            })
            .await??;
        self.authorize(caller, || reads_of(&keys)).await?;
        let leases = leases.into_iter().map(|lease| pb::LeaseStatus { id: lease.id.0 }).collect();
        Ok(pb::LeaseLeasesResponse { header: Some(self.header_now()), leases })
    }

    /// Renews leases for as long as both sides want to; answers come in the order of the requests.
    pub(crate) async fn lease_keep_alive(
        self: &Arc<Self>,
        caller: &Caller,
        requests: mpsc::Receiver<pb::LeaseKeepAliveRequest>,
    ) -> Result<KeptAlive, ApiError> {
        self.authorize(caller, || Needs::User(Vec::new())).await?;
        let (asked, under_way) = mpsc::channel(RENEWALS_AT_ONCE);
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(Arc::clone(self).ask(requests, asked));
        tokio::spawn(Arc::clone(self).answer_renewals(under_way, sender));
        Ok(receiver)
    }

    /// The keeper's answer. While the cluster has no leader, or leadership moves, it is asked again, for as long as a request
    /// may take: nothing comes of being asked twice.
    async fn answer<T>(
        &self,
        first: Receiver<T>,
        mut ask: impl FnMut() -> Receiver<T>,
    ) -> Result<T, ApiError> {
        let end = Instant::now() + self.limits.timeout;
        let mut receiver = first;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match receiver.answer(left).await {
                Err(NodeError::NotLeader { .. } | NodeError::LeaderChanged) => {}
                ended => return ended.map_err(ApiError::from),
            }
            if end <= Instant::now() + ASK_AGAIN {
                let leaderless = self.node.leader().is_none();
                return Err(if leaderless { ApiError::NO_LEADER } else { ApiError::TIMEOUT });
            }
            sleep(ASK_AGAIN).await;
            receiver = ask();
        }
    }

    async fn ask(
        self: Arc<Self>,
        mut requests: mpsc::Receiver<pb::LeaseKeepAliveRequest>,
        asked: mpsc::Sender<Asked>,
    ) {
        let mut stopping = self.leases.stopping.subscribe();
        loop {
            let id = tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => request.id,
                    None => return,
                },
                () = asked.closed() => return,
                // The keeper has ended: it answers this one with the end of the server.
                _ = stopping.wait_for(|stopping| *stopping) => 0,
            };
            let Ok(place) = asked.reserve().await else { return };
            // Before the renewal: who reads its revision must not take the lease for one that lived then, if it was revoked
            // in between.
            let header = self.header_now();
            let (waiter, receiver) = self.leases.renewals.waiter();
            self.leases.keeper.renew(LeaseId(id), waiter);
            place.send(Asked { id, header, receiver });
        }
    }

    async fn answer_renewals(
        self: Arc<Self>,
        mut under_way: mpsc::Receiver<Asked>,
        sender: mpsc::Sender<Result<pb::LeaseKeepAliveResponse, ApiError>>,
    ) {
        loop {
            let renewed = tokio::select! {
                renewed = under_way.recv() => renewed,
                () = sender.closed() => return,
            };
            let Some(Asked { id, header, receiver }) = renewed else { return };
            let ask = || {
                let (waiter, receiver) = self.leases.renewals.waiter();
                self.leases.keeper.renew(LeaseId(id), waiter);
                receiver
            };
            let answer = match self.answer(receiver, ask).await {
                Ok(ttl) => Ok(pb::LeaseKeepAliveResponse { header: Some(header), id, ttl }),
                Err(error) => Err(error),
            };
            let failed = answer.is_err();
            if sender.send(answer).await.is_err() || failed {
                return;
            }
        }
    }
}

fn reads_of(keys: &[bytes::Bytes]) -> Needs {
    let reads = keys.iter().map(|key| Need::Range(Access::Read, KeyRange::single(key.clone())));
    Needs::User(reads.collect())
}

/// For an id that nobody else picks.
fn chance() -> Result<u64, ApiError> {
    let mut bytes = [0; 8];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => Ok(u64::from_le_bytes(bytes)),
        Err(_) => Err(ApiError {
            code: Code::Unknown,
            message: "etcdserver: the system gives no random numbers".into(),
        }),
    }
}
