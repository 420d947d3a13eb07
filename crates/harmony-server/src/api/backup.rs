//! Backups over the API (Maintenance.Snapshot; ETCD API, section 11): the snapshot stream in blobs, and behind it its hash.
//!
//! A saved file is the stream, zeros up to a multiple of 512 bytes, and the SHA-256 of all that: what `etcdctl snapshot
//! save` takes for whole.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use harmony_node::SystemClock;
use harmony_types::{Clock as _, Storage as _, StorageError};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::Api;
use super::maintenance::MaintenanceMetrics;
use super::status::ApiError;
use crate::proto::etcdserverpb as pb;
use crate::version;

/// Bytes of a blob, as etcd's.
const BLOB_BYTES: usize = 32 << 10;

/// What a payload's length is a multiple of.
const ALIGN_BYTES: u64 = 512;

/// Blobs read ahead of a client.
const BLOBS_AHEAD: usize = 16;

/// Backups at the same time: each has a thread of its own.
pub(super) const BACKUPS_MAX: usize = 4;

/// A backup's messages as they are made.
pub(crate) type Blobs = mpsc::Receiver<Result<pb::SnapshotResponse, ApiError>>;

impl Api {
    /// Starts a backup of what is applied on this member. It blocks nobody; a client that reads so slowly that the tree
    /// would have to keep too much for it is told so, and begins again.
    pub(crate) async fn snapshot(&self) -> Result<Blobs, ApiError> {
        self.check_state()?;
        let place = self.backups.clone().try_acquire_owned().map_err(|_| ApiError::TOO_MANY_REQUESTS)?;
        let snapshot = self.blocking(|storage| storage.create_snapshot()).await??;
        let (sender, receiver) = mpsc::channel(BLOBS_AHEAD);
        let backup = Backup {
            stream: snapshot.data.into_reader(),
            header: self.header_now(),
            estimate: self.storage.live_bytes(),
            sent: 0,
            hash: Sha256::new(),
            sender,
            metrics: Arc::clone(&self.maintenance),
            _place: place,
        };
        let started = std::thread::Builder::new().name("harmony-backup".to_owned()).spawn(|| backup.run());
        started.map_err(|error| {
            tracing::error!(%error, "the system refuses a thread for a backup");
            ApiError::TOO_MANY_REQUESTS
        })?;
        Ok(receiver)
    }
}

/// A backup under way, on its own thread.
struct Backup {
    stream: Box<dyn Read + Send>,
    header: pb::ResponseHeader,
    /// About how long the stream will be.
    estimate: u64,
    sent: u64,
    hash: Sha256,
    sender: mpsc::Sender<Result<pb::SnapshotResponse, ApiError>>,
    metrics: Arc<MaintenanceMetrics>,
    _place: OwnedSemaphorePermit,
}

impl Backup {
    fn run(mut self) {
        let clock = SystemClock::new();
        let sent = self.send_all();
        if sent == Ok(true) {
            self.metrics.backups.record(clock.now());
        }
        if let Err(error) = sent {
            tracing::warn!(%error, "backup ended early");
            // Nobody is there any more to hear it.
            let _gone = self.sender.blocking_send(Err(error));
        }
    }

    /// Ends early and well when the client goes away; true when it did not.
    fn send_all(&mut self) -> Result<bool, ApiError> {
        loop {
            let mut blob = Vec::with_capacity(BLOB_BYTES);
            let read = self.stream.by_ref().take(BLOB_BYTES as u64).read_to_end(&mut blob);
            read.map_err(refusal)?;
            let is_last = blob.len() < BLOB_BYTES;
            if is_last {
                let bytes = self.sent + blob.len() as u64;
                let padding = bytes.next_multiple_of(ALIGN_BYTES) - bytes;
                blob.resize(blob.len() + usize::try_from(padding).expect("less than 512"), 0);
            }
            self.hash.update(&blob);
            if !blob.is_empty() && !self.send(blob.into(), is_last) {
                return Ok(false);
            }
            if is_last {
                let hash = self.hash.finalize_reset();
                return Ok(self.send(Bytes::copy_from_slice(&hash), true));
            }
        }
    }

    /// False when the client went away.
    fn send(&mut self, blob: Bytes, is_end_known: bool) -> bool {
        self.sent += blob.len() as u64;
        // How long the stream is, is known only at its end; before, at least something is left.
        let remaining_bytes =
            if is_end_known { 0 } else { self.estimate.saturating_sub(self.sent).max(BLOB_BYTES as u64) };
        let message = pb::SnapshotResponse {
            header: Some(self.header),
            remaining_bytes,
            blob,
            version: version::STORAGE.to_owned(),
        };
        self.sender.blocking_send(Ok(message)).is_ok()
    }
}

/// The storage's error that a stream carries.
fn refusal(error: std::io::Error) -> ApiError {
    match error.downcast::<StorageError>() {
        Ok(error) => error.into(),
        Err(error) => StorageError::io("read", "snapshot")(error).into(),
    }
}
