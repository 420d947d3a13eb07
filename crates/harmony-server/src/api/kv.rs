//! The KV service (ETCD API, sections 3 to 6).

use harmony_storage::UnifiedStorage;
use harmony_types::auth::access::Needs;
use harmony_types::command::Compact;
use harmony_types::txn::Range;
use harmony_types::{CommandKind, Outcome, OutcomeKind, StorageError};

use super::status::ApiError;
use super::{Api, convert, mismatch, validate};
use crate::auth::caller::Caller;
use crate::proto::etcdserverpb as pb;
use pb::request_op::Request;

impl Api {
    pub(crate) async fn range(
        &self,
        caller: &Caller,
        request: pb::RangeRequest,
    ) -> Result<pb::RangeResponse, ApiError> {
        let serializable = request.serializable;
        let range = convert::range(request);
        range.validate()?;
        if serializable {
            self.check_state()?;
        } else {
            if self.node.is_learner() {
                return Err(ApiError::LEARNER);
            }
            self.linearize().await?;
        }
        let keys = range.range();
        let read = async {
            let result = if is_small(&range) {
                self.storage.range(&range)
            } else {
                self.blocking(move |storage| storage.range(&range)).await?
            };
            Ok(result?)
        };
        let result = self.read_permitted(caller, || Needs::read(keys.clone()), read).await?;
        Ok(convert::range_response(self.header(result.revision.as_i64()), result.outcome))
    }

    pub(crate) async fn put(
        &self,
        caller: &Caller,
        request: pb::PutRequest,
    ) -> Result<pb::PutResponse, ApiError> {
        let put = convert::put(request);
        put.validate()?;
        match self.propose_by(caller, CommandKind::Put(put)).await? {
            Outcome { revision, kind: Some(OutcomeKind::Put(outcome)) } => {
                Ok(convert::put_response(self.header(revision), outcome))
            }
            other => Err(mismatch(&other)),
        }
    }

    pub(crate) async fn delete_range(
        &self,
        caller: &Caller,
        request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, ApiError> {
        let delete = convert::delete_range(request);
        delete.validate()?;
        match self.propose_by(caller, CommandKind::DeleteRange(delete)).await? {
            Outcome { revision, kind: Some(OutcomeKind::DeleteRange(outcome)) } => {
                Ok(convert::delete_range_response(self.header(revision), outcome))
            }
            other => Err(mismatch(&other)),
        }
    }

    pub(crate) async fn txn(
        &self,
        caller: &Caller,
        request: pb::TxnRequest,
    ) -> Result<pb::TxnResponse, ApiError> {
        let serializable = is_serializable(&request);
        let txn = convert::txn(request);
        validate::txn(&txn, &self.limits)?;
        let outcome = if txn.is_read_only() {
            if serializable {
                self.check_state()?;
            } else {
                self.linearize().await?;
            }
            let command = CommandKind::Txn(txn.clone());
            let read = async { Ok(self.blocking(move |storage| storage.read_txn(&txn)).await??) };
            self.read_permitted(caller, || Needs::of(&command), read).await?
        } else {
            self.propose_by(caller, CommandKind::Txn(txn)).await?
        };
        match outcome {
            Outcome { revision, kind: Some(OutcomeKind::Txn(outcome)) } => {
                Ok(convert::txn_response(self.header(revision), outcome))
            }
            Outcome { kind: Some(OutcomeKind::Refused(refusal)), .. } => Err(refused(refusal)),
            other => Err(mismatch(&other)),
        }
    }

    /// The history is gone for readers on return; with `physical` its space on this member is free, too.
    pub(crate) async fn compact(
        &self,
        caller: &Caller,
        request: pb::CompactionRequest,
    ) -> Result<pb::CompactionResponse, ApiError> {
        let compact = Compact { revision: request.revision };
        let outcome = self.propose_by(caller, CommandKind::Compact(compact)).await?;
        if request.physical {
            self.blocking(drop_compacted).await??;
        }
        Ok(pb::CompactionResponse { header: Some(self.header(outcome.revision)) })
    }
}

/// In bounded steps, between which commands are applied.
fn drop_compacted(storage: &UnifiedStorage) -> Result<(), StorageError> {
    while storage.drop_compacted()? {}
    Ok(())
}

/// One key. Every other range may read much, whatever its limit: the answer counts all keys of the range.
fn is_small(range: &Range) -> bool {
    range.range_end.is_empty()
}

/// Only reads that all ask for local state. One without any operation is linearizable: nobody asked for less.
fn is_serializable(request: &pb::TxnRequest) -> bool {
    let mut ops = request.success.iter().chain(&request.failure).peekable();
    ops.peek().is_some()
        && ops.all(|op| matches!(&op.request, Some(Request::RequestRange(range)) if range.serializable))
}

fn refused(refusal: i32) -> ApiError {
    harmony_types::Refusal::try_from(refusal).unwrap_or(harmony_types::Refusal::Unspecified).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(serializable: bool) -> pb::RequestOp {
        let range = pb::RangeRequest { key: "k".into(), serializable, ..pb::RangeRequest::default() };
        pb::RequestOp { request: Some(Request::RequestRange(range)) }
    }

    #[test]
    fn a_transaction_is_serializable_only_when_every_read_asks_for_it() {
        let txn = |success, failure| pb::TxnRequest { compare: vec![], success, failure };
        assert!(is_serializable(&txn(vec![op(true)], vec![op(true)])));
        assert!(!is_serializable(&txn(vec![op(true)], vec![op(false)])));
        assert!(!is_serializable(&txn(vec![], vec![])), "compares alone are linearizable");
        assert!(!is_serializable(&txn(vec![pb::RequestOp::default()], vec![])));
    }

    #[test]
    fn ranges_leave_the_network_thread() {
        let range = |end: &'static str, limit| Range {
            key: "a".into(),
            range_end: end.into(),
            limit,
            ..Range::default()
        };
        assert!(is_small(&range("", 0)));
        assert!(!is_small(&range("b", 1)), "the answer counts what the limit leaves out");
    }
}
