//! Watch streams (ETCD API, section 7) over the hub of `harmony-node`: one task a stream takes requests, polls the hub and
//! sends, and ends with its client.
//!
//! A client that does not read holds up its own stream alone: what happens meanwhile stays with the hub, within the hub's
//! bounds, and here waits no more than one poll.
//!
//! Reading order: this file (one stream), [`permission`] (who may watch what, and still may), [`responses`] (what the hub says,
//! as responses).

mod permission;
mod responses;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use harmony_node::watch::{WatchMessage, WatchRefusal, WatchRequest, WatchWake};
use harmony_node::{WatchHub, WatchStream};
use harmony_types::{AuthState, Author, KeyRange, Revision, WatchId};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::Api;
use super::status::ApiError;
use crate::auth::caller::Caller;
use crate::proto::etcdserverpb as pb;
use pb::watch_create_request::FilterType;
use pb::watch_request::RequestUnion;
use responses::Responses;

/// What is asked of the hub at once, bytes.
const POLL_BYTES: u64 = 256 << 10;

/// Refusals that may wait for a client which does not read them, before its requests wait, too.
const WAITING_MAX: usize = 1000;

/// Election timeouts without a leader that end a stream which asked for one.
const LEADERLESS_MAX: u32 = 3;

/// The responses as they are made.
pub(crate) type Watched = mpsc::Receiver<Result<pb::WatchResponse, ApiError>>;

/// What all streams share.
#[derive(Debug)]
pub(crate) struct Watches {
    pub(crate) hub: WatchHub,
    /// Between two notices of progress.
    pub(crate) progress_interval: Duration,
    /// How long the cluster may be without a leader before it elects one.
    pub(crate) election_timeout: Duration,
}

/// Wakes a stream's task.
struct Wake(Notify);

impl WatchWake for Wake {
    fn wake(&self) {
        self.0.notify_one();
    }
}

/// A watcher of the stream, as its client asked for it.
struct Watcher {
    author: Option<Author>,
    keys: KeyRange,
    may_split: bool,
}

/// One stream.
struct Stream {
    api: Arc<Api>,
    caller: Caller,
    hub: WatchStream,
    wake: Arc<Wake>,
    watchers: BTreeMap<WatchId, Watcher>,
    /// One of which the hub has yet to say that it was created. No request is taken meanwhile: so answers keep their order,
    /// and what is still said of an earlier watcher of the same id is not taken for its.
    creating: Option<(WatchId, Watcher)>,
    /// One of which the hub has yet to say that it is canceled; no request is taken meanwhile, either.
    canceling: Option<WatchId>,
    /// The users and roles by which all watchers were judged.
    judged_by: Arc<AuthState>,
    responses: Responses,
    /// The hub has nothing before it wakes us.
    is_dry: bool,
}

impl Api {
    /// Begins a stream. It goes on when `requests` end, for as long as it has watchers and somebody receives.
    ///
    /// # Errors
    /// There is no leader, and the client asks for one; this member's state is damaged.
    pub(crate) fn watch(
        self: &Arc<Self>,
        caller: Caller,
        needs_leader: bool,
        requests: mpsc::Receiver<pb::WatchRequest>,
    ) -> Result<Watched, ApiError> {
        self.check_state()?;
        if needs_leader && self.node.leader().is_none() {
            return Err(ApiError::NO_LEADER);
        }
        let wake = Arc::new(Wake(Notify::new()));
        let stream = Stream {
            api: Arc::clone(self),
            caller,
            hub: self.watches.hub.stream(Arc::clone(&wake) as _),
            wake,
            watchers: BTreeMap::new(),
            creating: None,
            canceling: None,
            judged_by: self.storage.auth(),
            responses: Responses::new(self.limits.request_bytes_max),
            is_dry: false,
        };
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(stream.run(needs_leader, requests, sender));
        Ok(receiver)
    }
}

impl Stream {
    async fn run(
        mut self,
        needs_leader: bool,
        mut requests: mpsc::Receiver<pb::WatchRequest>,
        sender: mpsc::Sender<Result<pb::WatchResponse, ApiError>>,
    ) {
        let Watches { progress_interval, election_timeout, .. } = self.api.watches;
        let mut progress = ticks(spread(progress_interval, Arc::as_ptr(&self.wake).addr()));
        let mut leader = ticks(election_timeout);
        let (mut leaderless, mut is_open) = (0, true);
        loop {
            self.fill();
            let has_some = self.responses.has_some();
            let is_answered = self.creating.is_none() && self.canceling.is_none();
            if !is_open && !has_some && self.watchers.is_empty() && is_answered {
                return;
            }
            let takes = is_open && is_answered && self.responses.count() < WAITING_MAX;
            tokio::select! {
                permit = sender.reserve(), if has_some => {
                    let (Ok(permit), Some(response)) = (permit, self.responses.next()) else { return };
                    let is_last = response.is_err();
                    permit.send(response);
                    if is_last {
                        return;
                    }
                }
                request = requests.recv(), if takes => match request {
                    Some(request) => self.take(request).await,
                    None => is_open = false,
                },
                () = self.wake.0.notified() => self.is_dry = false,
                _ = progress.tick() => self.hub.notify_progress(),
                _ = leader.tick() => {
                    if self.api.is_corrupt() {
                        self.responses.end(ApiError::CORRUPT);
                    }
                    leaderless = if self.api.node.leader().is_some() { 0 } else { leaderless + 1 };
                    if needs_leader && leaderless == LEADERLESS_MAX {
                        self.responses.end(ApiError::NO_LEADER);
                    }
                }
                () = sender.closed() => return,
            }
        }
    }

    /// Gets something to send, if there is anything.
    fn fill(&mut self) {
        while !self.responses.has_some() && !self.is_dry {
            // What a damaged state made of an entry is not what happened.
            if self.api.is_corrupt() {
                self.responses.end(ApiError::CORRUPT);
                return;
            }
            let messages = self.hub.poll(POLL_BYTES);
            self.is_dry = messages.is_empty();
            // After the poll: by then this member knows every change of a right that came before what was polled.
            self.judge_again();
            for message in messages {
                match &message {
                    WatchMessage::Created { .. } => {
                        if let Some((id, watcher)) = self.creating.take() {
                            self.responses.created(id, watcher.may_split);
                            self.watchers.insert(id, watcher);
                        }
                    }
                    WatchMessage::Canceled { id, .. } => {
                        self.watchers.remove(id);
                        self.canceling.take_if(|canceling| canceling == id);
                    }
                    _ => {}
                }
                self.responses.add(&self.api, message);
            }
        }
    }

    async fn take(&mut self, request: pb::WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(request).await,
            // Nothing is said of an unknown one, as etcd does.
            Some(RequestUnion::CancelRequest(request)) => {
                let id = WatchId(request.watch_id);
                self.canceling = self.hub.cancel(id).then_some(id);
            }
            Some(RequestUnion::ProgressRequest(_)) => self.hub.request_progress(),
            // From a newer client; etcd leaves it unanswered, too.
            None => {}
        }
        self.is_dry = false;
    }

    async fn create(&mut self, request: pb::WatchCreateRequest) {
        // Once, for the permission and for what is watched.
        let keys = keys_of(&request);
        let author = match self.judge(&keys).await {
            Ok(author) => author,
            Err(error) => return self.refuse(error.as_grpc_text()),
        };
        let start = match u64::try_from(request.start_revision) {
            Ok(0) => None,
            Ok(revision) => Some(Revision(revision)),
            Err(_) => return self.refuse(ApiError::COMPACTED.message.into_owned()),
        };
        let filters = |filter: FilterType| request.filters.contains(&i32::from(filter));
        let watch = WatchRequest {
            keys: keys.clone(),
            start,
            id: Some(WatchId(request.watch_id)).filter(|id| *id != WatchId(0)),
            prev_kv: request.prev_kv,
            no_puts: filters(FilterType::Noput),
            no_deletes: filters(FilterType::Nodelete),
            progress_notify: request.progress_notify,
        };
        match self.hub.create(&watch) {
            Ok(id) => {
                self.creating = Some((id, Watcher { author, keys, may_split: request.fragment }));
            }
            Err(WatchRefusal::EmptyRange) => self.refuse("mvcc: watcher range is empty".to_owned()),
            Err(WatchRefusal::DuplicateId) => {
                self.refuse("mvcc: duplicate watch ID provided on the WatchStream".to_owned());
            }
            Err(refusal @ WatchRefusal::TooMany) => self.refuse(format!("etcdserver: {refusal}")),
            // The stream's last message says so.
            Err(WatchRefusal::Closed) => {}
        }
    }

    fn refuse(&mut self, reason: String) {
        let header = self.api.header(self.hub.revision().as_i64());
        self.responses.refuse(header, reason);
    }
}

/// The keys that a request means: the empty key is the first that there can be.
fn keys_of(request: &pb::WatchCreateRequest) -> KeyRange {
    let key = if request.key.is_empty() { vec![0].into() } else { request.key.clone() };
    KeyRange { key, end: request.range_end.clone() }
}

/// The interval and up to a tenth of it, so that streams which began together do not all speak at once.
fn spread(interval: Duration, number: usize) -> Duration {
    let thousandths = u32::try_from(number / 64 % 101).unwrap_or_default();
    interval + interval * thousandths / 1000
}

/// Ticks from one period on.
fn ticks(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_spread_over_a_tenth_of_the_interval() {
        let interval = Duration::from_secs(600);
        for number in (0..1_000_000).step_by(4096) {
            let spread = spread(interval, number);
            assert!((interval..=interval * 11 / 10).contains(&spread), "{spread:?}");
        }
        assert_ne!(spread(interval, 0), spread(interval, 64));
    }

    #[test]
    fn the_empty_key_is_the_first_one() {
        let keys = keys_of(&pb::WatchCreateRequest { range_end: "b".into(), ..Default::default() });
        assert_eq!(keys, KeyRange { key: "\0".into(), end: "b".into() });
    }
}
