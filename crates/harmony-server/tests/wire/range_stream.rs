//! Ranges as streams: together the unary answer, whatever happens meanwhile.

use harmony_server::proto::etcdserverpb as pb;
use tonic::Code;

use crate::served::{Served, all, check_refusal};

impl Served {
    async fn chunks(&mut self, request: pb::RangeRequest) -> Vec<pb::RangeResponse> {
        let mut stream = self.kv.range_stream(request).await.unwrap().into_inner();
        let mut chunks = Vec::new();
        while let Some(chunk) = stream.message().await.unwrap() {
            chunks.push(chunk.range_response.unwrap());
        }
        chunks
    }

    async fn fill(&mut self, keys: usize, bytes: usize) {
        for number in 0..keys {
            self.put(&format!("key{number:04}"), &"v".repeat(bytes)).await;
        }
    }
}

/// What a client makes of the pieces.
fn merged(chunks: Vec<pb::RangeResponse>) -> pb::RangeResponse {
    let mut whole = pb::RangeResponse::default();
    let count = chunks.len();
    for (number, chunk) in chunks.into_iter().enumerate() {
        let is_last = number + 1 == count;
        assert_eq!((chunk.header.is_some(), chunk.count != 0 || chunk.more), (is_last, is_last), "{number}");
        whole.kvs.extend(chunk.kvs);
        (whole.header, whole.count, whole.more) = (chunk.header, chunk.count, chunk.more);
    }
    whole
}

#[tokio::test]
async fn the_pieces_are_the_whole_answer() {
    let mut served = Served::start("").await;
    served.fill(300, 2_000).await;
    for request in [
        all(),
        pb::RangeRequest { serializable: true, ..all() },
        pb::RangeRequest { limit: 77, ..all() },
        pb::RangeRequest { keys_only: true, ..all() },
        pb::RangeRequest { count_only: true, ..all() },
        pb::RangeRequest { revision: 150, sort_order: 1, ..all() },
    ] {
        let expected = served.kv.range(request.clone()).await.unwrap().into_inner();
        let chunks = served.chunks(request).await;
        assert_eq!(chunks.len() > 1, expected.kvs.iter().map(|kv| kv.value.len()).sum::<usize>() > 100_000);
        assert_eq!(merged(chunks), expected);
    }
    served.stop().await;
}

#[tokio::test]
async fn a_stream_stays_at_its_revision_whatever_is_compacted() {
    let mut served = Served::start("").await;
    served.fill(400, 10_000).await;
    let expected = served.kv.range(all()).await.unwrap().into_inner();
    let mut stream = served.kv.range_stream(all()).await.unwrap().into_inner();
    let mut chunks = vec![stream.message().await.unwrap().unwrap().range_response.unwrap()];
    served.fill(400, 1).await;
    let revision = served.put("last", "").await;
    served.kv.compact(pb::CompactionRequest { revision, physical: true }).await.unwrap();
    while let Some(chunk) = stream.message().await.unwrap() {
        chunks.push(chunk.range_response.unwrap());
    }
    assert!(4 < chunks.len(), "{}", chunks.len());
    assert_eq!(merged(chunks), expected);
    served.stop().await;
}

#[tokio::test]
async fn what_cannot_be_streamed_is_refused() {
    let mut served = Served::start("").await;
    served.put("a", "1").await;
    let sort = "RangeStream does not support custom sort orders";
    let filter = "RangeStream does not support revision filters";
    for (request, code, message) in [
        (pb::RangeRequest { sort_order: 2, ..all() }, Code::Unimplemented, sort),
        (pb::RangeRequest { sort_target: 1, ..all() }, Code::Unimplemented, sort),
        (pb::RangeRequest { max_mod_revision: 1, ..all() }, Code::Unimplemented, filter),
        (pb::RangeRequest::default(), Code::InvalidArgument, "etcdserver: key is not provided"),
        (
            pb::RangeRequest { revision: 9, ..all() },
            Code::OutOfRange,
            "etcdserver: mvcc: required revision is a future revision",
        ),
    ] {
        check_refusal(served.kv.range_stream(request).await, code, message);
    }
    served.stop().await;
}
