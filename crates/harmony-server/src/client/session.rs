//! A lease that is renewed for as long as something is done under it: what locks and leadership live on.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status, Streaming};

use super::{Client, ClientError, Connection, RESUME_PAUSE};
use crate::proto::etcdserverpb as pb;

/// Longest time between two renewals, however long the lease: what a server says is not trusted with a sum of times.
const RENEWAL_PAUSE_MAX: Duration = Duration::from_hours(1);

/// The stream on which a lease is renewed.
struct Stream {
    requests: mpsc::Sender<pb::LeaseKeepAliveRequest>,
    answers: Streaming<pb::LeaseKeepAliveResponse>,
}

impl Stream {
    /// Opens one, and renews a lease with its first request.
    async fn open(
        connection: Connection,
        id: i64,
    ) -> Result<Response<(pb::LeaseKeepAliveResponse, Self)>, Status> {
        let (requests, receiver) = mpsc::channel(1);
        let mut leases = super::lease(connection);
        let stream = leases.lease_keep_alive(ReceiverStream::new(receiver));
        // Some servers answer nothing at all before they were asked something.
        let ask = async {
            let _gone = requests.send(pb::LeaseKeepAliveRequest { id }).await;
        };
        let (answers, ()) = tokio::join!(stream, ask);
        let mut answers = answers?.into_inner();
        let answer = answers.message().await?.ok_or_else(|| Status::unavailable("the stream ended"))?;
        Ok(Response::new((answer, Self { requests, answers })))
    }

    /// Renews a lease; `None` when the stream ended.
    async fn renew(&mut self, id: i64) -> Option<pb::LeaseKeepAliveResponse> {
        self.requests.send(pb::LeaseKeepAliveRequest { id }).await.ok()?;
        self.answers.message().await.ok()?
    }
}

/// Renews one lease.
pub(crate) struct Renewals {
    client: Client,
    id: i64,
    stream: Option<Stream>,
}

impl Renewals {
    pub(crate) fn new(client: Client, id: i64) -> Self {
        Self { client, id, stream: None }
    }

    /// Renews it once, on the stream that is open, else at the first endpoint that answers. A TTL of 0: it is gone.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub(crate) async fn renew(&mut self) -> Result<pb::LeaseKeepAliveResponse, ClientError> {
        if let Some(mut stream) = self.stream.take()
            && let Ok(Some(answer)) = timeout(self.client.command_timeout(), stream.renew(self.id)).await
        {
            self.stream = Some(stream);
            return Ok(answer);
        }
        let id = self.id;
        let (answer, stream) =
            self.client.read(async |connection| Stream::open(connection, id).await).await?;
        self.stream = Some(stream);
        Ok(answer)
    }

    /// Renews it three times in its TTL and hands every answer to `tell`, until it is gone.
    ///
    /// # Errors
    /// As [`Client::read`]: of the first renewal, or when nobody said for a whole TTL that the lease is still there. As
    /// `tell`.
    pub(crate) async fn keep(
        &mut self,
        mut tell: impl FnMut(&pb::LeaseKeepAliveResponse) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        // On an open one an answer may be on its way that nobody waited for.
        self.stream = None;
        let mut lives_until = None;
        loop {
            let asked_at = Instant::now();
            match self.renew().await {
                Ok(answer) => {
                    let Some(ttl) = seconds(answer.ttl) else { return Ok(()) };
                    tell(&answer)?;
                    lives_until = Some(asked_at + ttl);
                    sleep(ttl / 3).await;
                }
                Err(error) => {
                    let is_over = lives_until.is_none_or(|until| until <= Instant::now());
                    if is_over || !error.may_pass() {
                        return Err(error);
                    }
                    sleep(RESUME_PAUSE).await;
                }
            }
        }
    }
}

/// A TTL as a time; `None` for a lease that is gone.
fn seconds(ttl: i64) -> Option<Duration> {
    let ttl = u64::try_from(ttl).ok().filter(|ttl| *ttl != 0)?;
    Some(Duration::from_secs(ttl).min(3 * RENEWAL_PAUSE_MAX))
}

/// A lease of this process's own.
pub(crate) struct Session {
    client: Client,
    lease: i64,
    renewals: Renewals,
}

impl Session {
    /// Asks for a lease.
    ///
    /// # Errors
    /// As [`Client::write`].
    pub(crate) async fn start(client: &Client, ttl_s: i64) -> Result<Self, ClientError> {
        let grant = pb::LeaseGrantRequest { id: 0, ttl: ttl_s };
        let call = async |connection| super::lease(connection).lease_grant(grant).await;
        let lease = client.write(call).await?.id;
        Ok(Self { client: client.clone(), lease, renewals: Renewals::new(client.clone(), lease) })
    }

    /// The lease's id.
    pub(crate) fn lease(&self) -> i64 {
        self.lease
    }

    /// Does something while the lease is renewed; `None` when the lease was gone first.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            // An error, too, means that nobody vouches for it any more.
            _ = self.renewals.keep(|_| Ok(())) => None,
        }
    }

    /// Gives the lease back, and with it every key that it holds.
    ///
    /// # Errors
    /// As [`Client::write`]; it goes by itself then, a TTL later.
    pub(crate) async fn close(self) -> Result<(), ClientError> {
        let revoke = pb::LeaseRevokeRequest { id: self.lease };
        let call = async |connection| super::lease(connection).lease_revoke(revoke).await;
        match self.client.write(call).await {
            Ok(_) | Err(ClientError::Refused { code: Code::NotFound, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_of_nothing_is_a_lease_that_is_gone_and_one_of_ages_is_no_overflow() {
        assert_eq!((seconds(0), seconds(-1)), (None, None));
        assert_eq!(seconds(10), Some(Duration::from_secs(10)));
        assert_eq!(seconds(i64::MAX), Some(3 * RENEWAL_PAUSE_MAX));
    }
}
