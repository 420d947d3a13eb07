//! A range as a stream (ETCD API, section 3: RangeStream): pieces of one view, so that a list of any length is nowhere held
//! whole and no compaction ends it.

use harmony_storage::RangeChunks;
use harmony_types::auth::access::Needs;
use tokio::sync::mpsc;

use super::status::{ApiError, Code};
use super::{Api, convert};
use crate::auth::caller::Caller;
use crate::proto::etcdserverpb as pb;
use pb::range_request::{SortOrder, SortTarget};

/// Bytes of the first piece, which should come soon; each is twice as long as the one before.
const FIRST_BYTES: usize = 32 << 10;

/// Bytes of the longest one.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// The pieces as they are read.
pub(crate) type Chunks = mpsc::Receiver<Result<pb::RangeStreamResponse, ApiError>>;

impl Api {
    /// Begins the stream. While its client does not read, it holds a view and no thread.
    pub(crate) async fn range_stream(
        &self,
        caller: &Caller,
        request: pb::RangeRequest,
    ) -> Result<Chunks, ApiError> {
        check(&request)?;
        let serializable = request.serializable;
        let range = convert::range(request);
        range.validate()?;
        if serializable {
            self.check_state()?;
        } else {
            self.linearize().await?;
        }
        let keys = range.range();
        let begin = async { Ok(self.blocking(move |storage| storage.view()?.into_chunks(range)).await??) };
        let chunks = self.read_permitted(caller, || Needs::read(keys.clone()), begin).await?;
        let header = self.header(chunks.view().revision().as_i64());
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(send(chunks, header, sender));
        Ok(receiver)
    }
}

/// Refuses what has an order of its own, in etcd's words.
fn check(request: &pb::RangeRequest) -> Result<(), ApiError> {
    let refusal = |message: &'static str| ApiError { code: Code::Unimplemented, message: message.into() };
    if request.sort_order == i32::from(SortOrder::Descend)
        || request.sort_target != i32::from(SortTarget::Key)
    {
        return Err(refusal("RangeStream does not support custom sort orders"));
    }
    let filters = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if filters != [0; 4] {
        return Err(refusal("RangeStream does not support revision filters"));
    }
    Ok(())
}

async fn send(
    mut chunks: RangeChunks,
    header: pb::ResponseHeader,
    sender: mpsc::Sender<Result<pb::RangeStreamResponse, ApiError>>,
) {
    let mut bytes_max = FIRST_BYTES;
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let chunk = chunks.next_chunk(bytes_max);
            (chunks, chunk)
        });
        // It fails only when the runtime ends, or when the read panicked.
        let Ok((rest, chunk)) = read.await else { return };
        chunks = rest;
        bytes_max = CHUNK_BYTES_MAX.min(2 * bytes_max);
        let message = match chunk {
            Ok(Some(chunk)) => {
                let end = chunk.end;
                let response = pb::RangeResponse {
                    header: end.map(|_| header),
                    more: end.is_some_and(|end| end.more),
                    count: end.map_or(0, |end| end.count),
                    kvs: chunk.kvs,
                };
                Ok(pb::RangeStreamResponse { range_response: Some(response) })
            }
            Ok(None) => return,
            Err(error) => Err(error.into()),
        };
        let is_last = message.is_err();
        // The client may have gone away.
        if sender.send(message).await.is_err() || is_last {
            return;
        }
    }
}
