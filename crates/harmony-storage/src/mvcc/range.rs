//! Range reads with every option of etcd's Range (API, section 3).

use std::cmp::Ordering;

use bytes::Bytes;
use harmony_types::txn::{Range, RangeOutcome, SortOrder, SortTarget};
use harmony_types::{KeyValue, StorageError};

use super::{At, history};
use crate::tree::NEXT;
use crate::tree::record::{VersionBuf, VersionRef};
use crate::view::{Reads, VisitVersion};

/// Answers `request` at `at`, whatever the revision in the request.
///
/// The order of things is etcd's: read, count, filter, sort, limit, leave out the values. Where etcd sorts only what the
/// limit let through, this sorts the whole range.
///
/// # Errors
/// What reading the tables reports.
pub(crate) fn range(
    reads: &(impl Reads + ?Sized),
    request: &Range,
    at: At,
) -> Result<RangeOutcome, StorageError> {
    answer(request, |visit| history::live_versions(reads, &request.range(), at, visit))
}

/// As [`range`] at the newest revision, for a request of a single key, whose newest version this is.
///
/// # Errors
/// None.
pub(crate) fn of_version(request: &Range, newest: Option<&VersionBuf>) -> Result<RangeOutcome, StorageError> {
    answer(request, |visit| match newest.filter(|version| version.live) {
        Some(version) => visit(&request.key, version.borrowed()).map(|_| ()),
        None => Ok(()),
    })
}

/// Answers `request` from the versions that `visit_all` visits.
fn answer(
    request: &Range,
    visit_all: impl FnOnce(VisitVersion<'_>) -> Result<(), StorageError>,
) -> Result<RangeOutcome, StorageError> {
    let mut outcome = RangeOutcome::default();
    let plan = Plan::new(request);
    visit_all(&mut |key, version| {
        outcome.count += 1;
        if request.count_only || plan.is_full(outcome.kvs.len()) {
            // One more than the limit shows that there are more; the rest is only counted.
            return Ok(NEXT);
        }
        if passes(request, &version) {
            let value = if plan.with_values { Bytes::copy_from_slice(version.value) } else { Bytes::new() };
            outcome.kvs.push(version.to_key_value(Bytes::copy_from_slice(key), value));
        }
        Ok(NEXT)
    })?;
    plan.sort(&mut outcome.kvs);
    if let Some(limit) = plan.limit
        && limit < outcome.kvs.len()
    {
        outcome.kvs.truncate(limit);
        outcome.more = true;
    }
    if request.keys_only && plan.with_values {
        for kv in &mut outcome.kvs {
            kv.value = Bytes::new();
        }
    }
    Ok(outcome)
}

/// What the sort options come down to.
struct Plan {
    target: SortTarget,
    order: SortOrder,
    limit: Option<usize>,
    with_values: bool,
}

impl Plan {
    /// Unknown sort options count as none: [`Range::validate`] refuses them before.
    fn new(request: &Range) -> Self {
        let target = SortTarget::try_from(request.sort_target).unwrap_or(SortTarget::Key);
        let order = SortOrder::try_from(request.sort_order).unwrap_or(SortOrder::None);
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit != 0);
        let with_values = !request.keys_only || target == SortTarget::Value;
        Self { target, order, limit, with_values }
    }

    /// True when keys come in the order in which they are to be answered.
    fn is_stored_order(&self) -> bool {
        self.target == SortTarget::Key && self.order != SortOrder::Descend
    }

    fn is_full(&self, kvs: usize) -> bool {
        self.is_stored_order() && self.limit.is_some_and(|limit| limit < kvs)
    }

    fn sort(&self, kvs: &mut [KeyValue]) {
        if self.is_stored_order() {
            return;
        }
        let by_target = |a: &KeyValue, b: &KeyValue| -> Ordering {
            match self.target {
                SortTarget::Key => a.key.cmp(&b.key),
                SortTarget::Version => a.version.cmp(&b.version),
                SortTarget::Create => a.create_revision.cmp(&b.create_revision),
                SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
                SortTarget::Value => a.value.cmp(&b.value),
            }
        };
        // The sort is stable and the input in key order, so ties stay in key order either way.
        match self.order {
            SortOrder::Descend => kvs.sort_by(|a, b| by_target(b, a)),
            SortOrder::None | SortOrder::Ascend => kvs.sort_by(by_target),
        }
    }
}

/// The revision filters; 0 is off.
pub(super) fn passes(request: &Range, version: &VersionRef<'_>) -> bool {
    let within = |number: i64, min: i64, max: i64| (min == 0 || min <= number) && (max == 0 || number <= max);
    within(version.written.revision.as_i64(), request.min_mod_revision, request.max_mod_revision)
        && within(version.create.as_i64(), request.min_create_revision, request.max_create_revision)
}
