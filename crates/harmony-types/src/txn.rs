//! Requests on keys: range, put, delete range, transactions; and the rules that a request must pass before it is
//! proposed. Field numbers are ours and frozen: these messages are what the log holds.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::error::RequestError;
use crate::kv::{KeyRange, KeyValue};
use crate::limits::TXN_DEPTH_MAX;

/// In which order a range answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SortOrder {
    /// As stored: by key, ascending.
    None = 0,
    /// Ascending by the target.
    Ascend = 1,
    /// Descending by the target.
    Descend = 2,
}

/// What a range is sorted by; ties are broken by key, ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SortTarget {
    /// The key.
    Key = 0,
    /// The version.
    Version = 1,
    /// The create revision.
    Create = 2,
    /// The mod revision.
    Mod = 3,
    /// The value.
    Value = 4,
}

/// A read of a range of keys at one revision.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Range {
    /// First key, see [`KeyRange`].
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// End, see [`KeyRange`].
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
    /// At most so many keys after filters and sort; 0 or less: all.
    #[prost(int64, tag = "3")]
    pub limit: i64,
    /// At this revision; 0 or less: the newest.
    #[prost(int64, tag = "4")]
    pub revision: i64,
    /// See [`SortOrder`].
    #[prost(enumeration = "SortOrder", tag = "5")]
    pub sort_order: i32,
    /// See [`SortTarget`].
    #[prost(enumeration = "SortTarget", tag = "6")]
    pub sort_target: i32,
    /// Leave the values out.
    #[prost(bool, tag = "7")]
    pub keys_only: bool,
    /// Only count.
    #[prost(bool, tag = "8")]
    pub count_only: bool,
    /// Only keys with at least this mod revision; 0: off. So are the next three.
    #[prost(int64, tag = "9")]
    pub min_mod_revision: i64,
    /// Only keys with at most this mod revision.
    #[prost(int64, tag = "10")]
    pub max_mod_revision: i64,
    /// Only keys with at least this create revision.
    #[prost(int64, tag = "11")]
    pub min_create_revision: i64,
    /// Only keys with at most this create revision.
    #[prost(int64, tag = "12")]
    pub max_create_revision: i64,
}

/// A write of one key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Put {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    /// Lease to attach; 0: none, which detaches the key from its old one.
    #[prost(int64, tag = "3")]
    pub lease: i64,
    /// Answer with the state before.
    #[prost(bool, tag = "4")]
    pub prev_kv: bool,
    /// Keep the value; the key must exist.
    #[prost(bool, tag = "5")]
    pub ignore_value: bool,
    /// Keep the lease; the key must exist.
    #[prost(bool, tag = "6")]
    pub ignore_lease: bool,
}

/// A delete of a range of keys.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeleteRange {
    /// First key, see [`KeyRange`].
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// End, see [`KeyRange`].
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
    /// Answer with the states before.
    #[prost(bool, tag = "3")]
    pub prev_kv: bool,
}

/// How a compare judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum CompareResult {
    /// Must be the same.
    Equal = 0,
    /// The stored one must be greater.
    Greater = 1,
    /// The stored one must be less.
    Less = 2,
    /// Must differ.
    NotEqual = 3,
}

/// What a compare looks at, with the value to compare against.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum CompareTarget {
    /// The version; 0 when the key does not exist.
    #[prost(int64, tag = "4")]
    Version(i64),
    /// The create revision; 0 when the key does not exist.
    #[prost(int64, tag = "5")]
    CreateRevision(i64),
    /// The mod revision; 0 when the key does not exist.
    #[prost(int64, tag = "6")]
    ModRevision(i64),
    /// The value; false whatever the judgement when the key does not exist.
    #[prost(bytes = "bytes", tag = "7")]
    Value(Bytes),
    /// The lease; 0 when the key does not exist.
    #[prost(int64, tag = "8")]
    Lease(i64),
}

/// One condition of a transaction: every key of the range must satisfy it; an empty range is like a missing key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Compare {
    /// First key, see [`KeyRange`].
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// End, see [`KeyRange`].
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
    /// See [`CompareResult`].
    #[prost(enumeration = "CompareResult", tag = "3")]
    pub result: i32,
    /// What to look at. Always present in a valid compare.
    #[prost(oneof = "CompareTarget", tags = "4, 5, 6, 7, 8")]
    pub target: Option<CompareTarget>,
}

/// One operation of a transaction.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TxnOp {
    /// Which one. Always present in a valid transaction.
    #[prost(oneof = "TxnOpKind", tags = "1, 2, 3, 4")]
    pub kind: Option<TxnOpKind>,
}

/// The kinds of operation.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum TxnOpKind {
    /// A read; sees the writes before it in the same transaction.
    #[prost(message, tag = "1")]
    Range(Range),
    /// A write.
    #[prost(message, tag = "2")]
    Put(Put),
    /// A delete.
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRange),
    /// A transaction within; its compares see the state before the outermost one.
    #[prost(message, tag = "4")]
    Txn(Txn),
}

/// A transaction: when all compares hold the operations of `success`, else those of `failure`, at one revision.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Txn {
    /// All must hold.
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    /// Run when they do.
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<TxnOp>,
    /// Run when they do not.
    #[prost(message, repeated, tag = "3")]
    pub failure: Vec<TxnOp>,
}

/// What a range found.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RangeOutcome {
    /// The keys, in the order asked for.
    #[prost(message, repeated, tag = "1")]
    pub kvs: Vec<KeyValue>,
    /// The limit cut the answer.
    #[prost(bool, tag = "2")]
    pub more: bool,
    /// Keys in the range, whatever limit and filters.
    #[prost(int64, tag = "3")]
    pub count: i64,
}

/// What a put did.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PutOutcome {
    /// The state before, if asked for and there was one.
    #[prost(message, optional, tag = "1")]
    pub prev_kv: Option<KeyValue>,
}

/// What a delete did.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeleteRangeOutcome {
    /// How many keys went.
    #[prost(int64, tag = "1")]
    pub deleted: i64,
    /// The states before, if asked for.
    #[prost(message, repeated, tag = "2")]
    pub prev_kvs: Vec<KeyValue>,
}

/// What a transaction did.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TxnOutcome {
    /// Whether the compares held.
    #[prost(bool, tag = "1")]
    pub succeeded: bool,
    /// One for each operation of the branch that ran.
    #[prost(message, repeated, tag = "2")]
    pub responses: Vec<OpOutcome>,
}

/// What one operation of a transaction did.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct OpOutcome {
    /// Which one.
    #[prost(oneof = "OpOutcomeKind", tags = "1, 2, 3, 4")]
    pub kind: Option<OpOutcomeKind>,
}

/// The kinds of answer to an operation.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum OpOutcomeKind {
    /// To a range.
    #[prost(message, tag = "1")]
    Range(RangeOutcome),
    /// To a put.
    #[prost(message, tag = "2")]
    Put(PutOutcome),
    /// To a delete.
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeOutcome),
    /// To a transaction within.
    #[prost(message, tag = "4")]
    Txn(TxnOutcome),
}

impl Range {
    /// The keys asked for.
    #[must_use]
    pub fn range(&self) -> KeyRange {
        KeyRange { key: self.key.clone(), end: self.range_end.clone() }
    }

    /// Checks what must hold whatever the state.
    ///
    /// # Errors
    /// [`RequestError::EmptyKey`], [`RequestError::InvalidSortOption`].
    pub fn validate(&self) -> Result<(), RequestError> {
        if self.key.is_empty() {
            return Err(RequestError::EmptyKey);
        }
        let order = SortOrder::try_from(self.sort_order);
        let target = SortTarget::try_from(self.sort_target);
        if order.is_err() || target.is_err() { Err(RequestError::InvalidSortOption) } else { Ok(()) }
    }
}

impl Put {
    /// Checks what must hold whatever the state.
    ///
    /// # Errors
    /// [`RequestError::EmptyKey`], [`RequestError::ValueProvided`], [`RequestError::LeaseProvided`].
    pub fn validate(&self) -> Result<(), RequestError> {
        if self.key.is_empty() {
            return Err(RequestError::EmptyKey);
        }
        if self.ignore_value && !self.value.is_empty() {
            return Err(RequestError::ValueProvided);
        }
        if self.ignore_lease && self.lease != 0 {
            return Err(RequestError::LeaseProvided);
        }
        Ok(())
    }
}

impl DeleteRange {
    /// The keys to delete.
    #[must_use]
    pub fn range(&self) -> KeyRange {
        KeyRange { key: self.key.clone(), end: self.range_end.clone() }
    }

    /// Checks what must hold whatever the state.
    ///
    /// # Errors
    /// [`RequestError::EmptyKey`].
    pub fn validate(&self) -> Result<(), RequestError> {
        if self.key.is_empty() { Err(RequestError::EmptyKey) } else { Ok(()) }
    }
}

impl Compare {
    /// The keys compared.
    #[must_use]
    pub fn range(&self) -> KeyRange {
        KeyRange { key: self.key.clone(), end: self.range_end.clone() }
    }
}

/// The keys that one branch writes: puts one by one, deletes as ranges.
#[derive(Default)]
struct Writes {
    puts: BTreeSet<Bytes>,
    deletes: Vec<KeyRange>,
}

impl Txn {
    /// True when nothing in it can change the store: only reads at the top level.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| matches!(op.kind, Some(TxnOpKind::Range(_))))
    }

    /// Checks what must hold whatever the state: keys present, at most `ops_max` compares or operations a branch (an
    /// inner transaction has what its parent's largest list leaves), no key written twice in one branch (a delete without an
    /// upper end does not count).
    ///
    /// # Errors
    /// The first [`RequestError`] in etcd's order: the counts, each operation in turn, then duplicates.
    pub fn validate(&self, ops_max: usize) -> Result<(), RequestError> {
        self.validate_ops(ops_max, 0)?;
        Self::check_branch(&self.success)?;
        Self::check_branch(&self.failure)?;
        Ok(())
    }

    fn validate_ops(&self, ops_max: usize, depth: usize) -> Result<(), RequestError> {
        if TXN_DEPTH_MAX < depth {
            return Err(RequestError::TooManyOps);
        }
        let largest = self.compare.len().max(self.success.len()).max(self.failure.len());
        if ops_max < largest {
            return Err(RequestError::TooManyOps);
        }
        if self.compare.iter().any(|compare| compare.key.is_empty()) {
            return Err(RequestError::EmptyKey);
        }
        for op in self.success.iter().chain(&self.failure) {
            match &op.kind {
                Some(TxnOpKind::Range(range)) => range.validate()?,
                Some(TxnOpKind::Put(put)) => put.validate()?,
                Some(TxnOpKind::DeleteRange(delete)) => delete.validate()?,
                Some(TxnOpKind::Txn(txn)) => txn.validate_ops(ops_max - largest, depth + 1)?,
                None => return Err(RequestError::EmptyOp),
            }
        }
        Ok(())
    }

    fn check_branch(ops: &[TxnOp]) -> Result<Writes, RequestError> {
        let mut own = Writes::default();
        for op in ops {
            // A delete of every key from some key on collides with nothing: etcd takes its end, one zero byte, for a key
            // here, so that the range is empty. Clients rely on it to replace all keys in one transaction.
            if let Some(TxnOpKind::DeleteRange(delete)) = &op.kind
                && *delete.range_end != [0]
            {
                own.deletes.push(delete.range());
            }
        }
        for op in ops {
            let Some(TxnOpKind::Txn(txn)) = &op.kind else { continue };
            let then = Self::check_branch(&txn.success)?;
            let otherwise = Self::check_branch(&txn.failure)?;
            // Only one of the two branches runs, so they may share keys; with what stands before them they may not.
            let puts: BTreeSet<Bytes> = then.puts.union(&otherwise.puts).cloned().collect();
            for key in puts {
                if own.deletes.iter().any(|range| range.contains(&key)) || !own.puts.insert(key) {
                    return Err(RequestError::DuplicateKey);
                }
            }
            own.deletes.extend(then.deletes.into_iter().chain(otherwise.deletes));
        }
        for op in ops {
            let Some(TxnOpKind::Put(put)) = &op.kind else { continue };
            if own.deletes.iter().any(|range| range.contains(&put.key)) || !own.puts.insert(put.key.clone()) {
                return Err(RequestError::DuplicateKey);
            }
        }
        Ok(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str) -> TxnOp {
        TxnOp { kind: Some(TxnOpKind::Put(Put { key: key.into(), ..Put::default() })) }
    }

    fn delete(key: &'static str, end: &'static str) -> TxnOp {
        let range = DeleteRange { key: key.into(), range_end: end.into(), prev_kv: false };
        TxnOp { kind: Some(TxnOpKind::DeleteRange(range)) }
    }

    fn nested(success: Vec<TxnOp>, failure: Vec<TxnOp>) -> TxnOp {
        TxnOp { kind: Some(TxnOpKind::Txn(Txn { compare: vec![], success, failure })) }
    }

    #[track_caller]
    fn check(success: Vec<TxnOp>, expected: Result<(), RequestError>) {
        let txn = Txn { compare: vec![], success: success.clone(), failure: vec![] };
        assert_eq!(txn.validate(128), expected, "success branch");
        let txn = Txn { compare: vec![], success: vec![], failure: success };
        assert_eq!(txn.validate(128), expected, "failure branch");
    }

    #[test]
    fn a_branch_writes_each_key_once() {
        let duplicate = Err(RequestError::DuplicateKey);
        check(vec![put("a"), put("b")], Ok(()));
        check(vec![put("a"), put("a")], duplicate);
        check(vec![put("b"), delete("a", "c")], duplicate);
        check(vec![delete("a", "c"), put("b")], duplicate);
        check(vec![delete("a", "c"), delete("b", "d")], Ok(()));
        check(vec![delete("\0", "\0"), put("b"), put("c")], Ok(()));
        check(vec![put("b"), nested(vec![delete("a", "\0")], vec![])], Ok(()));
        check(vec![nested(vec![put("a")], vec![put("a")])], Ok(()));
        check(vec![nested(vec![put("a")], vec![]), put("a")], duplicate);
        check(vec![nested(vec![put("a")], vec![]), nested(vec![], vec![put("a")])], duplicate);
        check(vec![nested(vec![put("a")], vec![]), delete("a", "")], duplicate);
        check(vec![nested(vec![delete("a", "")], vec![]), put("a")], duplicate);
        check(vec![nested(vec![delete("a", "")], vec![put("a")])], Ok(()));
    }

    #[test]
    fn success_and_failure_may_write_the_same_key() {
        let txn = Txn { compare: vec![], success: vec![put("a")], failure: vec![put("a")] };
        assert_eq!(txn.validate(128), Ok(()));
    }

    #[test]
    fn inner_transactions_share_the_budget() {
        let inner = |count: usize| nested((0..count).map(|_| delete("a", "")).collect(), vec![]);
        check(vec![inner(127)], Ok(()));
        check(vec![inner(128)], Err(RequestError::TooManyOps));
        check((0..129).map(|_| delete("a", "")).collect(), Err(RequestError::TooManyOps));
        let deep = (0..=TXN_DEPTH_MAX).fold(put("a"), |op, _| nested(vec![op], vec![]));
        check(vec![deep], Err(RequestError::TooManyOps));
    }

    #[test]
    fn requests_that_are_wrong_in_themselves_are_refused() {
        assert_eq!(Range::default().validate(), Err(RequestError::EmptyKey));
        let sort = Range { key: "a".into(), sort_order: 3, ..Range::default() };
        assert_eq!(sort.validate(), Err(RequestError::InvalidSortOption));
        let value = Put { key: "a".into(), value: "v".into(), ignore_value: true, ..Put::default() };
        assert_eq!(value.validate(), Err(RequestError::ValueProvided));
        let lease = Put { key: "a".into(), lease: 1, ignore_lease: true, ..Put::default() };
        assert_eq!(lease.validate(), Err(RequestError::LeaseProvided));
        assert_eq!(DeleteRange::default().validate(), Err(RequestError::EmptyKey));
        check(vec![TxnOp { kind: None }], Err(RequestError::EmptyOp));
        let compare = Txn { compare: vec![Compare::default()], ..Txn::default() };
        assert_eq!(compare.validate(128), Err(RequestError::EmptyKey));
    }

    #[test]
    fn only_reads_at_the_top_make_a_transaction_read_only() {
        let read = TxnOp { kind: Some(TxnOpKind::Range(Range { key: "a".into(), ..Range::default() })) };
        let txn = |ops: Vec<TxnOp>| Txn { compare: vec![], success: ops, failure: vec![] };
        assert!(txn(vec![]).is_read_only());
        assert!(txn(vec![read.clone()]).is_read_only());
        assert!(!txn(vec![put("a")]).is_read_only());
        assert!(!txn(vec![nested(vec![read], vec![])]).is_read_only());
    }
}
