//! etcd's data model for a checker: one state with all its versions, which takes back what it did.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use harmony_types::lease::{LeaseGrant, LeaseRevoke};
use harmony_types::limits::LEASE_TTL_S_MAX;
use harmony_types::txn::{
    CompareResult, CompareTarget, DeleteRange, DeleteRangeOutcome, OpOutcome, OpOutcomeKind, Put, PutOutcome,
    Range, RangeOutcome, SortOrder, SortTarget, TxnOpKind, TxnOutcome,
};
use harmony_types::{Compare, Event, EventType, KeyRange, KeyValue, Refusal, Revision, Txn, TxnOp};

use crate::history::{Reply, Request};

/// A store that was empty, at revision 1, and all that was done to it since.
#[derive(Debug)]
pub(crate) struct Store {
    revision: i64,
    compacted: i64,
    leases: BTreeSet<i64>,
    /// Which leases exist is not known: all do.
    has_every_lease: bool,
    /// All versions of each key, by revision.
    keys: BTreeMap<Bytes, Vec<Version>>,
    /// What to take back, newest last.
    changes: Vec<Change>,
    fingerprint: u128,
}

#[derive(Clone, Debug)]
struct Version {
    revision: i64,
    /// `None`: deleted.
    kv: Option<KeyValue>,
}

#[derive(Debug)]
enum Change {
    Wrote { key: Bytes, hash: u128 },
    Revision,
    Compacted { before: i64, hash: u128 },
    LeaseGranted { id: i64, hash: u128 },
    LeaseEnded { id: i64, hash: u128 },
}

/// A place in the list of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(usize);

impl Store {
    pub(crate) const fn new() -> Self {
        Self {
            revision: 1,
            compacted: 0,
            leases: BTreeSet::new(),
            has_every_lease: false,
            keys: BTreeMap::new(),
            changes: Vec::new(),
            fingerprint: 0,
        }
    }

    /// One of whose leases nothing is known, so that none is missed.
    pub(crate) fn with_every_lease() -> Self {
        Self { has_every_lease: true, ..Self::new() }
    }

    pub(crate) const fn revision(&self) -> i64 {
        self.revision
    }

    /// Equal for equal states (versions of the past included), different for different ones, but for chance: 128 bits.
    pub(crate) const fn fingerprint(&self) -> u128 {
        self.fingerprint
    }

    /// Where the store stands.
    pub(crate) const fn mark(&self) -> Mark {
        Mark(self.changes.len())
    }

    /// Whether anything changed since.
    pub(crate) fn has_changed(&self, since: Mark) -> bool {
        since.0 < self.changes.len()
    }

    /// The keys written since.
    pub(crate) fn written(&self, since: Mark) -> impl Iterator<Item = &Bytes> {
        self.changes[since.0..].iter().filter_map(|change| match change {
            Change::Wrote { key, .. } => Some(key),
            _ => None,
        })
    }

    /// Takes back all that was done since.
    pub(crate) fn undo(&mut self, to: Mark) {
        while to.0 < self.changes.len() {
            match self.changes.pop().expect("the list is longer than the mark") {
                Change::Wrote { key, hash } => {
                    let versions = self.keys.get_mut(&key).expect("a written key has versions");
                    versions.pop();
                    if versions.is_empty() {
                        self.keys.remove(&key);
                    }
                    self.fingerprint ^= hash;
                }
                Change::Revision => self.revision -= 1,
                Change::Compacted { before, hash } => {
                    self.compacted = before;
                    self.fingerprint ^= hash;
                }
                Change::LeaseGranted { id, hash } => {
                    self.leases.remove(&id);
                    self.fingerprint ^= hash;
                }
                Change::LeaseEnded { id, hash } => {
                    self.leases.insert(id);
                    self.fingerprint ^= hash;
                }
            }
        }
    }

    /// The key as it was at a revision; its newest version for a revision to come.
    pub(crate) fn get(&self, key: &[u8], at: i64) -> Option<&KeyValue> {
        newest(self.keys.get(key)?, at)
    }

    /// Answers a request as etcd would, and changes what it asks to change.
    ///
    /// # Errors
    /// The refusal; nothing changed.
    pub(crate) fn run(&mut self, request: &Request) -> Result<Reply, Refusal> {
        let mark = self.mark();
        let reply = match request {
            Request::Range { range, .. } => Reply::Range(self.range(range)?),
            // A put of its own is refused for its lease first, one in a transaction for its key.
            Request::Put(put) => {
                self.check_lease(put.lease)?;
                self.check_put(put)?;
                Reply::Put(self.put(put))
            }
            Request::DeleteRange(delete) => Reply::DeleteRange(self.delete(delete)),
            Request::Txn(txn) => {
                self.check_txn(txn)?;
                Reply::Txn(self.txn(txn))
            }
            Request::Compact(revision) => self.compact(*revision)?,
            Request::LeaseGrant(grant) => self.grant(*grant)?,
            Request::LeaseRevoke(revoke) => self.revoke(*revoke)?,
            Request::LeaseRenew(id) => Reply::LeaseRenew { ttl_s: i64::from(self.leases.contains(&id.0)) },
        };
        if self.written(mark).next().is_some() {
            self.changes.push(Change::Revision);
            self.revision += 1;
        }
        Ok(reply)
    }

    /// Writes the next revision as a list of events tells it.
    ///
    /// # Errors
    /// The first event that no store can have made here.
    pub(crate) fn write_events(&mut self, events: &[Event]) -> Result<(), String> {
        let revision = self.revision + 1;
        for event in events {
            let kv = event.kv.as_ref().ok_or("an event without a key")?;
            let before = self.get(&kv.key, revision);
            let is_delete = EventType::try_from(event.event_type) == Ok(EventType::Delete);
            let right = match before {
                None if is_delete => return Err(format!("{:?} is deleted, but it did not exist", kv.key)),
                _ if is_delete => (0, revision, 0),
                None => (revision, revision, 1),
                Some(before) => (before.create_revision, revision, before.version + 1),
            };
            let told = (kv.create_revision, kv.mod_revision, kv.version);
            if told != right {
                return Err(format!(
                    "{:?} has create, mod revision and version {told:?}, not {right:?}",
                    kv.key
                ));
            }
            if event.prev_kv.is_some() && event.prev_kv.as_ref() != before {
                return Err(format!("{:?} replaced {before:?}, not {:?}", kv.key, event.prev_kv));
            }
            self.write(&kv.key, (!is_delete).then(|| kv.clone()));
        }
        self.changes.push(Change::Revision);
        self.revision = revision;
        Ok(())
    }

    /// What happened in a revision, in the order of its writes, with what each event replaced.
    pub(crate) fn events_since(&self, since: Mark) -> Vec<Event> {
        // One key may be written twice in a revision: deleted, then put.
        let mut later: BTreeMap<&Bytes, usize> = BTreeMap::new();
        let mut events: Vec<Event> = Vec::new();
        for change in self.changes[since.0..].iter().rev() {
            let Change::Wrote { key, .. } = change else { continue };
            let versions = &self.keys[key];
            let skipped = later.entry(key).or_default();
            *skipped += 1;
            let place = versions.len() - *skipped;
            let version = &versions[place];
            let prev_kv = place.checked_sub(1).and_then(|before| versions[before].kv.clone());
            events.push(match &version.kv {
                Some(kv) => Event { event_type: EventType::Put.into(), kv: Some(kv.clone()), prev_kv },
                None => {
                    let key = key.clone();
                    let kv = KeyValue { key, mod_revision: version.revision, ..KeyValue::default() };
                    Event { event_type: EventType::Delete.into(), kv: Some(kv), prev_kv }
                }
            });
        }
        events.reverse();
        events
    }

    fn write(&mut self, key: &Bytes, kv: Option<KeyValue>) {
        let revision = self.revision + 1;
        let hash = hash_of(&(revision, key, &kv));
        self.fingerprint ^= hash;
        self.keys.entry(key.clone()).or_default().push(Version { revision, kv });
        self.changes.push(Change::Wrote { key: key.clone(), hash });
    }

    fn check_lease(&self, id: i64) -> Result<(), Refusal> {
        if id == 0 || self.has_every_lease || self.leases.contains(&id) {
            Ok(())
        } else {
            Err(Refusal::LeaseNotFound)
        }
    }

    fn check_put(&self, put: &Put) -> Result<(), Refusal> {
        if (put.ignore_value || put.ignore_lease) && self.get(&put.key, self.revision).is_none() {
            return Err(Refusal::KeyNotFound);
        }
        self.check_lease(put.lease)
    }

    const fn check_revision(&self, revision: i64) -> Result<(), Refusal> {
        match revision {
            ..=0 => Ok(()),
            _ if self.revision < revision => Err(Refusal::FutureRevision),
            _ if revision < self.compacted => Err(Refusal::Compacted),
            _ => Ok(()),
        }
    }

    fn put(&mut self, put: &Put) -> PutOutcome {
        let revision = self.revision + 1;
        let before = self.get(&put.key, revision).cloned();
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: before.as_ref().map_or(revision, |before| before.create_revision),
            mod_revision: revision,
            version: before.as_ref().map_or(0, |before| before.version) + 1,
            value: match &before {
                Some(before) if put.ignore_value => before.value.clone(),
                _ => put.value.clone(),
            },
            lease: match &before {
                Some(before) if put.ignore_lease => before.lease,
                _ => put.lease,
            },
        };
        self.write(&put.key, Some(kv));
        PutOutcome { prev_kv: before.filter(|_| put.prev_kv) }
    }

    fn delete(&mut self, delete: &DeleteRange) -> DeleteRangeOutcome {
        let gone: Vec<KeyValue> = self.in_range(&delete.range(), i64::MAX).cloned().collect();
        for kv in &gone {
            self.write(&kv.key, None);
        }
        let deleted = count(gone.len());
        DeleteRangeOutcome { deleted, prev_kvs: if delete.prev_kv { gone } else { Vec::new() } }
    }

    fn compact(&mut self, to: Revision) -> Result<Reply, Refusal> {
        let to = i64::try_from(to.0).map_err(|_| Refusal::FutureRevision)?;
        if to <= self.compacted {
            return Err(Refusal::Compacted);
        }
        if self.revision < to {
            return Err(Refusal::FutureRevision);
        }
        let hash = hash_of(&("compacted", self.compacted, to));
        self.fingerprint ^= hash;
        self.changes.push(Change::Compacted { before: self.compacted, hash });
        self.compacted = to;
        Ok(Reply::Compact)
    }

    fn grant(&mut self, grant: LeaseGrant) -> Result<Reply, Refusal> {
        if LEASE_TTL_S_MAX < grant.ttl {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if !self.leases.insert(grant.id) {
            return Err(Refusal::LeaseExists);
        }
        let hash = hash_of(&("lease", grant.id));
        self.fingerprint ^= hash;
        self.changes.push(Change::LeaseGranted { id: grant.id, hash });
        Ok(Reply::LeaseGrant { ttl_s: grant.ttl })
    }

    fn revoke(&mut self, revoke: LeaseRevoke) -> Result<Reply, Refusal> {
        self.check_lease(revoke.id)?;
        if self.leases.remove(&revoke.id) {
            let hash = hash_of(&("lease", revoke.id));
            self.fingerprint ^= hash;
            self.changes.push(Change::LeaseEnded { id: revoke.id, hash });
        }
        let attached = self.in_range(&KeyRange::all(), i64::MAX).filter(|kv| kv.lease == revoke.id);
        for key in attached.map(|kv| kv.key.clone()).collect::<Vec<_>>() {
            self.write(&key, None);
        }
        Ok(Reply::LeaseRevoke)
    }

    fn in_range<'a>(&'a self, range: &KeyRange, at: i64) -> impl Iterator<Item = &'a KeyValue> + use<'a> {
        let bounds = (!range.is_empty()).then(|| range.bounds());
        let versions = bounds.map(|bounds| self.keys.range::<[u8], _>(bounds));
        versions.into_iter().flatten().filter_map(move |(_, versions)| newest(versions, at))
    }

    pub(crate) fn range(&self, request: &Range) -> Result<RangeOutcome, Refusal> {
        self.check_revision(request.revision)?;
        let at = if request.revision <= 0 { i64::MAX } else { request.revision };
        Ok(select(self.in_range(&request.range(), at).collect(), request))
    }

    fn holds(&self, compare: &Compare) -> bool {
        let missing = KeyValue::default();
        let mut kvs: Vec<&KeyValue> = self.in_range(&compare.range(), self.revision).collect();
        if kvs.is_empty() {
            if let Some(CompareTarget::Value(_)) = compare.target {
                return false;
            }
            kvs.push(&missing);
        }
        kvs.into_iter().all(|kv| {
            let order = match &compare.target {
                Some(CompareTarget::Version(wanted)) => kv.version.cmp(wanted),
                Some(CompareTarget::CreateRevision(wanted)) => kv.create_revision.cmp(wanted),
                Some(CompareTarget::ModRevision(wanted)) => kv.mod_revision.cmp(wanted),
                Some(CompareTarget::Lease(wanted)) => kv.lease.cmp(wanted),
                Some(CompareTarget::Value(wanted)) => kv.value.cmp(wanted),
                None => return false,
            };
            match CompareResult::try_from(compare.result) {
                Ok(CompareResult::Equal) => order == Ordering::Equal,
                Ok(CompareResult::Greater) => order == Ordering::Greater,
                Ok(CompareResult::Less) => order == Ordering::Less,
                Ok(CompareResult::NotEqual) => order != Ordering::Equal,
                Err(_) => false,
            }
        })
    }

    /// The branch that runs. All compares see the state before the outermost transaction.
    fn branch<'t>(&self, txn: &'t Txn) -> (bool, &'t [TxnOp]) {
        let holds = txn.compare.iter().all(|compare| self.holds(compare));
        (holds, if holds { &txn.success } else { &txn.failure })
    }

    /// All operations that will run.
    fn taken<'t>(&self, txn: &'t Txn, ops: &mut Vec<&'t TxnOpKind>) {
        for op in self.branch(txn).1 {
            match &op.kind {
                Some(TxnOpKind::Txn(inner)) => self.taken(inner, ops),
                Some(kind) => ops.push(kind),
                None => {}
            }
        }
    }

    fn check_txn(&self, txn: &Txn) -> Result<(), Refusal> {
        let mut ops = Vec::new();
        self.taken(txn, &mut ops);
        for op in &ops {
            if let TxnOpKind::Put(put) = op {
                self.check_put(put)?;
            }
        }
        for op in &ops {
            if let TxnOpKind::Range(range) = op {
                self.check_revision(range.revision)?;
            }
        }
        Ok(())
    }

    fn txn(&mut self, txn: &Txn) -> TxnOutcome {
        let (succeeded, ops) = self.branch(txn);
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            responses.push(OpOutcome::from(match &op.kind {
                Some(TxnOpKind::Range(range)) => {
                    OpOutcomeKind::Range(self.range(range).expect("check_txn let its revision pass"))
                }
                Some(TxnOpKind::Put(put)) => OpOutcomeKind::Put(self.put(put)),
                Some(TxnOpKind::DeleteRange(delete)) => OpOutcomeKind::DeleteRange(self.delete(delete)),
                Some(TxnOpKind::Txn(inner)) => OpOutcomeKind::Txn(self.txn(inner)),
                None => continue,
            }));
        }
        TxnOutcome { succeeded, responses }
    }
}

fn newest(versions: &[Version], at: i64) -> Option<&KeyValue> {
    let place = match versions.last() {
        Some(last) if last.revision <= at => versions.len(),
        _ => versions.partition_point(|version| version.revision <= at),
    };
    place.checked_sub(1).and_then(|place| versions[place].kv.as_ref())
}

/// Filters, sorts and cuts what a range found.
fn select(found: Vec<&KeyValue>, request: &Range) -> RangeOutcome {
    let count = count(found.len());
    if request.count_only {
        return RangeOutcome { kvs: Vec::new(), more: false, count };
    }
    let passes = |number: i64, min: i64, max: i64| (min == 0 || min <= number) && (max == 0 || number <= max);
    let mut kvs: Vec<KeyValue> = found
        .into_iter()
        .filter(|kv| passes(kv.mod_revision, request.min_mod_revision, request.max_mod_revision))
        .filter(|kv| passes(kv.create_revision, request.min_create_revision, request.max_create_revision))
        .cloned()
        .collect();
    kvs.sort_by(|a, b| {
        let order = match SortTarget::try_from(request.sort_target) {
            Ok(SortTarget::Version) => a.version.cmp(&b.version),
            Ok(SortTarget::Create) => a.create_revision.cmp(&b.create_revision),
            Ok(SortTarget::Mod) => a.mod_revision.cmp(&b.mod_revision),
            Ok(SortTarget::Value) => a.value.cmp(&b.value),
            Ok(SortTarget::Key) | Err(_) => a.key.cmp(&b.key),
        };
        let is_turned = SortOrder::try_from(request.sort_order) == Ok(SortOrder::Descend);
        if is_turned { order.reverse() } else { order }.then(a.key.cmp(&b.key))
    });
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let more = limit < kvs.len();
    kvs.truncate(limit);
    if request.keys_only {
        for kv in &mut kvs {
            kv.value = Bytes::new();
        }
    }
    RangeOutcome { kvs, more, count }
}

fn count(of: usize) -> i64 {
    i64::try_from(of).expect("what is in memory is fewer than 2^63")
}

/// 128 bits of any value, the same in every run.
pub(crate) fn hash_of(value: &impl Hash) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, value).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}

#[cfg(test)]
mod tests;
