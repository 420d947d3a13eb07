//! etcd's data model in the plainest form: a list of all writes ever made, replayed for every question.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use harmony_types::alarm::AlarmOutcome;
use harmony_types::lease::{LeaseCheckpointOutcome, LeaseGrantOutcome, LeaseRevokeOutcome};
use harmony_types::txn::{
    Compare, CompareTarget, DeleteRange, DeleteRangeOutcome, OpOutcome, OpOutcomeKind, Put, PutOutcome,
    Range, RangeOutcome, Txn, TxnOp, TxnOpKind, TxnOutcome,
};
use harmony_types::{
    Command, CommandKind, KeyRange, KeyValue, Lease, LeaseId, Outcome, OutcomeKind, Refusal,
};
use prost::Message as _;

use super::model_auth::ModelAuth;

pub type State = BTreeMap<Bytes, KeyValue>;

/// One write: a key value, or a delete.
#[derive(Clone)]
struct Write {
    revision: i64,
    sub: i64,
    key: Bytes,
    kv: Option<KeyValue>,
}

#[derive(Clone)]
pub struct Model {
    pub revision: i64,
    pub compact: i64,
    pub leases: BTreeMap<i64, Lease>,
    pub alarms: BTreeSet<(i32, u64)>,
    pub auth: ModelAuth,
    writes: Vec<Write>,
}

impl Model {
    pub fn new() -> Self {
        Self {
            revision: 1,
            compact: 0,
            leases: BTreeMap::new(),
            alarms: BTreeSet::new(),
            auth: ModelAuth::new(),
            writes: Vec::new(),
        }
    }

    pub fn state_at(&self, revision: i64) -> State {
        let mut state = State::new();
        for write in self.writes.iter().filter(|write| write.revision <= revision) {
            match &write.kv {
                Some(kv) => state.insert(write.key.clone(), kv.clone()),
                None => state.remove(&write.key),
            };
        }
        state
    }

    /// The keys of a lease, as the newest state has them.
    pub fn leased(&self, id: i64) -> Vec<Bytes> {
        let state = self.state_at(self.revision);
        state.into_values().filter(|kv| kv.lease == id).map(|kv| kv.key).collect()
    }

    fn check_lease(&self, id: i64) -> Result<(), Refusal> {
        if id == 0 || self.leases.contains_key(&id) { Ok(()) } else { Err(Refusal::LeaseNotFound) }
    }

    fn check_grant(&self, id: i64, ttl: i64) -> Result<(), Refusal> {
        match (id, ttl) {
            (_, 9_000_000_001..) => Err(Refusal::LeaseTtlTooLarge),
            (0, _) | (_, ..=0) => Err(Refusal::Invalid),
            _ if self.leases.contains_key(&id) => Err(Refusal::LeaseExists),
            _ => Ok(()),
        }
    }

    fn check_revision(&self, revision: i64) -> Result<(), Refusal> {
        match revision {
            ..=0 => Ok(()),
            _ if self.revision < revision => Err(Refusal::FutureRevision),
            _ if revision < self.compact => Err(Refusal::Compacted),
            _ => Ok(()),
        }
    }

    pub fn range(&self, request: &Range) -> Result<RangeOutcome, Refusal> {
        self.check_revision(request.revision)?;
        let revision = if request.revision <= 0 { self.revision } else { request.revision };
        Ok(range_of(&self.state_at(revision), request))
    }

    pub fn apply(&mut self, command: &Command) -> Outcome {
        let kind = command.kind.as_ref().unwrap();
        let before = self.state_at(self.revision);
        let mut run = Run { model: self, state: before.clone(), before, writes: Vec::new() };
        let done = match kind {
            kind if run.model.alarm_stops(kind).is_err() => Err(run.model.alarm_stops(kind).unwrap_err()),
            _ if run.model.denied(command).is_some() => Err(run.model.denied(command).unwrap()),
            CommandKind::Auth(request) => {
                let mut auth = run.model.auth.clone();
                auth.change(request.kind.as_ref().unwrap()).map(|()| OutcomeKind::Auth(auth.revision))
            }
            // A put of its own is refused for its lease first, one in a transaction for its key.
            CommandKind::Put(put) if run.model.check_lease(put.lease).is_err() => Err(Refusal::LeaseNotFound),
            CommandKind::Put(put) => run.check_put(put).map(|()| OutcomeKind::Put(run.put(put))),
            CommandKind::DeleteRange(delete) => Ok(OutcomeKind::DeleteRange(run.delete(delete))),
            CommandKind::Txn(txn) if txn.validate(usize::MAX).is_err() => Err(Refusal::Invalid),
            CommandKind::Txn(txn) => run.check_txn(txn).map(|()| OutcomeKind::Txn(run.txn(txn))),
            CommandKind::Compact(request) if request.revision <= run.model.compact => Err(Refusal::Compacted),
            CommandKind::Compact(request) if run.model.revision < request.revision => {
                Err(Refusal::FutureRevision)
            }
            CommandKind::Compact(request) => Ok(OutcomeKind::Compact(request.revision)),
            CommandKind::PublishMember(_) => Ok(OutcomeKind::PublishMember(false)),
            CommandKind::LeaseGrant(request) => run
                .model
                .check_grant(request.id, request.ttl)
                .map(|()| OutcomeKind::LeaseGrant(LeaseGrantOutcome { id: request.id, ttl: request.ttl })),
            CommandKind::LeaseRevoke(request) => run.model.check_lease(request.id).map(|()| {
                let keys = run.model.leased(request.id);
                for key in &keys {
                    run.write(key, None);
                }
                OutcomeKind::LeaseRevoke(LeaseRevokeOutcome { deleted: i64::try_from(keys.len()).unwrap() })
            }),
            CommandKind::Alarm(request) => {
                let alarm = request.alarm.unwrap();
                let is_raised = run.model.alarms.contains(&(alarm.alarm, alarm.member));
                let alarm = (request.action == 1 || is_raised).then_some(alarm);
                Ok(OutcomeKind::Alarm(AlarmOutcome { alarm }))
            }
            CommandKind::LeaseCheckpoint(request) => {
                let exists = |id| run.model.leases.contains_key(&id);
                let known = request.leases.iter().filter(|lease| exists(lease.id)).count();
                let known = i64::try_from(known).unwrap();
                match request.leases.iter().any(|lease| lease.remaining_ttl < 0) {
                    true => Err(Refusal::Invalid),
                    false => Ok(OutcomeKind::LeaseCheckpoint(LeaseCheckpointOutcome { known })),
                }
            }
        };
        let writes = run.writes;
        if done.is_ok() {
            self.change_leases(kind);
            self.change_alarms(kind);
            if let CommandKind::Auth(request) = kind {
                self.auth.change(request.kind.as_ref().unwrap()).unwrap();
            }
        }
        if let Ok(OutcomeKind::Compact(revision)) = &done {
            self.compact = *revision;
        }
        if !writes.is_empty() {
            self.revision += 1;
            self.writes.extend(writes);
        }
        match done {
            Ok(kind) => Outcome { revision: self.revision, kind: Some(kind) },
            Err(refusal) => Outcome::refused(self.revision, refusal),
        }
    }

    /// Why the author may not run the command.
    fn denied(&self, command: &Command) -> Option<Refusal> {
        self.auth.denied(command, |lease| self.leased(lease))
    }

    /// Raised alarms: 1 stops what adds, 2 whatever writes.
    fn alarm_stops(&self, kind: &CommandKind) -> Result<(), Refusal> {
        let raised = |alarm| self.alarms.iter().any(|(raised, _)| *raised == alarm);
        let adds = match kind {
            CommandKind::Put(_) | CommandKind::LeaseGrant(_) => true,
            CommandKind::Txn(txn) => has_put(txn),
            CommandKind::DeleteRange(_) | CommandKind::Compact(_) | CommandKind::LeaseRevoke(_) => false,
            _ => return Ok(()),
        };
        match adds {
            _ if raised(2) => Err(Refusal::Corrupt),
            true if raised(1) => Err(Refusal::NoSpace),
            _ => Ok(()),
        }
    }

    fn change_alarms(&mut self, kind: &CommandKind) {
        if let CommandKind::Alarm(request) = kind {
            let alarm = request.alarm.unwrap();
            if request.action == 1 {
                self.alarms.insert((alarm.alarm, alarm.member));
            } else {
                self.alarms.remove(&(alarm.alarm, alarm.member));
            }
        }
    }

    fn change_leases(&mut self, kind: &CommandKind) {
        match kind {
            CommandKind::LeaseGrant(request) => {
                let lease = Lease { id: LeaseId(request.id), ttl_s: request.ttl, remaining_ttl_s: 0 };
                self.leases.insert(request.id, lease);
            }
            CommandKind::LeaseRevoke(request) => {
                self.leases.remove(&request.id);
            }
            CommandKind::LeaseCheckpoint(request) => {
                for remaining in &request.leases {
                    if let Some(lease) = self.leases.get_mut(&remaining.id) {
                        lease.remaining_ttl_s = remaining.remaining_ttl.min(lease.ttl_s);
                    }
                }
            }
            _ => {}
        }
    }

    /// For each key its newest write up to a revision, unless that is a delete.
    fn keep(&self, revision: i64) -> BTreeSet<(i64, i64)> {
        let mut newest: BTreeMap<&Bytes, &Write> = BTreeMap::new();
        for write in self.writes.iter().filter(|write| write.revision <= revision) {
            newest.insert(&write.key, write);
        }
        newest.values().filter(|write| write.kv.is_some()).map(|write| (write.revision, write.sub)).collect()
    }

    /// etcd's HashKV, as its source does it on the table that compaction left.
    pub fn hash_kv(&self, revision: i64) -> u32 {
        let kept_by_compaction = self.keep(self.compact);
        let keep = self.keep(revision);
        let mut hash = crc32c::crc32c(b"key");
        for write in &self.writes {
            let id = (write.revision, write.sub);
            let compacted = write.revision <= self.compact;
            let stored = !compacted
                || kept_by_compaction.contains(&id)
                || (write.kv.is_none() && write.revision == self.compact);
            let skipped = (compacted && !keep.is_empty() && !keep.contains(&id))
                || (write.kv.is_none() && write.revision == self.compact);
            if !stored || revision < write.revision || skipped {
                continue;
            }
            let mut key = write.revision.to_be_bytes().to_vec();
            key.push(b'_');
            key.extend_from_slice(&write.sub.to_be_bytes());
            let value = match &write.kv {
                Some(kv) => kv.encode_to_vec(),
                None => {
                    key.push(b't');
                    KeyValue { key: write.key.clone(), ..KeyValue::default() }.encode_to_vec()
                }
            };
            hash = crc32c::crc32c_append(crc32c::crc32c_append(hash, &key), &value);
        }
        hash
    }
}

fn has_put(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op.kind.as_ref().unwrap() {
        TxnOpKind::Put(_) => true,
        TxnOpKind::Txn(inner) => has_put(inner),
        _ => false,
    })
}

fn range_of(state: &State, request: &Range) -> RangeOutcome {
    let range = request.range();
    let all: Vec<&KeyValue> = state.values().filter(|kv| range.contains(&kv.key)).collect();
    let count = i64::try_from(all.len()).unwrap();
    if request.count_only {
        return RangeOutcome { kvs: vec![], more: false, count };
    }
    let passes = |number: i64, min: i64, max: i64| (min == 0 || number >= min) && (max == 0 || number <= max);
    let mut kvs: Vec<KeyValue> = all
        .into_iter()
        .filter(|kv| passes(kv.mod_revision, request.min_mod_revision, request.max_mod_revision))
        .filter(|kv| passes(kv.create_revision, request.min_create_revision, request.max_create_revision))
        .cloned()
        .collect();
    kvs.sort_by(|a, b| {
        let order = match request.sort_target {
            0 => a.key.cmp(&b.key),
            1 => a.version.cmp(&b.version),
            2 => a.create_revision.cmp(&b.create_revision),
            3 => a.mod_revision.cmp(&b.mod_revision),
            _ => a.value.cmp(&b.value),
        };
        let order = if request.sort_order == 2 { order.reverse() } else { order };
        order.then(a.key.cmp(&b.key))
    });
    let limit = if request.limit <= 0 { usize::MAX } else { usize::try_from(request.limit).unwrap() };
    let more = limit < kvs.len();
    kvs.truncate(limit);
    if request.keys_only {
        for kv in &mut kvs {
            kv.value = Bytes::new();
        }
    }
    RangeOutcome { kvs, more, count }
}

/// A command under way.
struct Run<'a> {
    model: &'a Model,
    before: State,
    state: State,
    writes: Vec<Write>,
}

impl Run<'_> {
    fn write(&mut self, key: &Bytes, kv: Option<KeyValue>) {
        let sub = i64::try_from(self.writes.len()).unwrap();
        match &kv {
            Some(kv) => self.state.insert(key.clone(), kv.clone()),
            None => self.state.remove(key),
        };
        self.writes.push(Write { revision: self.model.revision + 1, sub, key: key.clone(), kv });
    }

    fn check_put(&self, put: &Put) -> Result<(), Refusal> {
        if (put.ignore_value || put.ignore_lease) && !self.before.contains_key(&put.key) {
            return Err(Refusal::KeyNotFound);
        }
        self.model.check_lease(put.lease)
    }

    fn put(&mut self, put: &Put) -> PutOutcome {
        let prev = self.state.get(&put.key).cloned();
        let revision = self.model.revision + 1;
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: prev.as_ref().map_or(revision, |prev| prev.create_revision),
            mod_revision: revision,
            version: prev.as_ref().map_or(1, |prev| prev.version + 1),
            value: match &prev {
                Some(prev) if put.ignore_value => prev.value.clone(),
                _ => put.value.clone(),
            },
            lease: match &prev {
                Some(prev) if put.ignore_lease => prev.lease,
                _ => put.lease,
            },
        };
        self.write(&put.key, Some(kv));
        PutOutcome { prev_kv: prev.filter(|_| put.prev_kv) }
    }

    fn delete(&mut self, delete: &DeleteRange) -> DeleteRangeOutcome {
        let range = delete.range();
        let gone: Vec<KeyValue> = self.state.values().filter(|kv| range.contains(&kv.key)).cloned().collect();
        for kv in &gone {
            self.write(&kv.key, None);
        }
        let deleted = i64::try_from(gone.len()).unwrap();
        DeleteRangeOutcome { deleted, prev_kvs: if delete.prev_kv { gone } else { vec![] } }
    }

    fn branch<'t>(&self, txn: &'t Txn) -> (bool, &'t [TxnOp]) {
        let holds = txn.compare.iter().all(|compare| holds(&self.before, compare));
        (holds, if holds { &txn.success } else { &txn.failure })
    }

    /// All operations that will run.
    fn taken<'t>(&self, txn: &'t Txn, ops: &mut Vec<&'t TxnOpKind>) {
        for op in self.branch(txn).1 {
            match op.kind.as_ref().unwrap() {
                TxnOpKind::Txn(inner) => self.taken(inner, ops),
                kind => ops.push(kind),
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
                self.model.check_revision(range.revision)?;
            }
        }
        Ok(())
    }

    fn txn(&mut self, txn: &Txn) -> TxnOutcome {
        let (succeeded, ops) = self.branch(txn);
        let mut responses = Vec::new();
        for op in ops {
            let kind = match op.kind.as_ref().unwrap() {
                TxnOpKind::Range(range) if range.revision <= 0 => {
                    OpOutcomeKind::Range(range_of(&self.state, range))
                }
                TxnOpKind::Range(range) => OpOutcomeKind::Range(self.model.range(range).unwrap()),
                TxnOpKind::Put(put) => OpOutcomeKind::Put(self.put(put)),
                TxnOpKind::DeleteRange(delete) => OpOutcomeKind::DeleteRange(self.delete(delete)),
                TxnOpKind::Txn(inner) => OpOutcomeKind::Txn(self.txn(inner)),
            };
            responses.push(OpOutcome::from(kind));
        }
        TxnOutcome { succeeded, responses }
    }
}

fn holds(state: &State, compare: &Compare) -> bool {
    let range: KeyRange = compare.range();
    let target = compare.target.as_ref().unwrap();
    let judge = |order: Ordering| match compare.result {
        0 => order == Ordering::Equal,
        1 => order == Ordering::Greater,
        2 => order == Ordering::Less,
        _ => order != Ordering::Equal,
    };
    let missing = KeyValue::default();
    let mut kvs: Vec<&KeyValue> = state.values().filter(|kv| range.contains(&kv.key)).collect();
    if kvs.is_empty() {
        if let CompareTarget::Value(_) = target {
            return false;
        }
        kvs.push(&missing);
    }
    kvs.into_iter().all(|kv| match target {
        CompareTarget::Version(wanted) => judge(kv.version.cmp(wanted)),
        CompareTarget::CreateRevision(wanted) => judge(kv.create_revision.cmp(wanted)),
        CompareTarget::ModRevision(wanted) => judge(kv.mod_revision.cmp(wanted)),
        CompareTarget::Lease(wanted) => judge(kv.lease.cmp(wanted)),
        CompareTarget::Value(wanted) => judge(kv.value.cmp(wanted)),
    })
}
