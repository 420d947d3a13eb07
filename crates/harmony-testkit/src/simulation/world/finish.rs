//! The end of a run: faults stop, the cluster must serve again within a bound, and must hold what it acknowledged.

use std::collections::BTreeMap;

use harmony_types::history::{EventsRequest, HistoryPosition};
use harmony_types::{EventType, KeyRange, NodeId, Revision, Storage};

use super::{Event, Phase, World};
use crate::history::Request;
use crate::simulation::time::{MS, SECOND};

/// Within which every client must have been served once faults have ended: some elections, a snapshot, and what waits.
const BOUND: u64 = 30 * SECOND;
/// Within which the members must then have come to the same.
const SETTLING: u64 = 15 * SECOND;
/// Between two looks.
const LOOK: u64 = 100 * MS;

impl World {
    /// Ends all faults.
    pub(super) fn make_peace(&mut self) {
        let now = self.now.get();
        self.trace.note(now, &[11], || "-- peace".to_owned());
        self.picture.event(now, || "faults end".to_owned());
        self.network.heal_all();
        let ids: Vec<NodeId> = self.members.keys().copied().collect();
        for id in ids {
            if let Some(member) = self.members.get_mut(&id) {
                member.paused_until = 0;
                member.cut_off_until = 0;
                member.hung_until = 0;
                member.reads_hung_until = 0;
                member.crash_in = None;
                member.slow_us = 0;
                member.empty_disk();
                member.disk.clear_faults();
                member.drift_ppm = 0;
            }
            self.release(id);
            self.start(id);
        }
        let unserved = (1u64 << self.sessions.len()) - 1;
        self.phase = Phase::Healing { since: now, unserved };
        self.schedule.push(now + LOOK, Event::Look);
    }

    /// Whether the cluster serves again, and then whether all hold the same.
    pub(super) fn look(&mut self) {
        let now = self.now.get();
        if matches!(self.phase, Phase::Healing { .. }) {
            self.disable_auth();
        }
        match self.phase {
            Phase::Healing { unserved: 0, .. } => self.phase = Phase::Settling { since: now },
            Phase::Healing { since, unserved } if since + BOUND <= now => {
                let states = self.states();
                return self.violation(format!(
                    "clients {unserved:#b} were not served within {} s after the faults had ended: {states}",
                    BOUND / SECOND
                ));
            }
            Phase::Settling { since } => {
                if self.all_applied_the_same() && self.calls.is_empty() && self.all_watches_told() {
                    self.phase = Phase::Over;
                    self.count_metrics();
                    return self.check_end();
                }
                if since + SETTLING <= now {
                    let states = self.states();
                    let what = if self.all_watches_told() {
                        "members do not come to the same state"
                    } else {
                        "a watch is not told what happened"
                    };
                    return self.violation(format!("{what}: {states}"));
                }
            }
            Phase::Faults | Phase::Healing { .. } | Phase::Over => {}
        }
        self.schedule.push(now + LOOK, Event::Look);
    }

    fn all_applied_the_same(&self) -> bool {
        let processes = self.members.values().filter_map(|member| member.process.as_ref());
        let mut applied = processes.map(|process| process.storage.applied().index);
        let first = applied.next();
        applied.all(|index| Some(index) == first)
    }

    fn states(&self) -> String {
        let mut text = String::new();
        for member in self.members.values() {
            let state = match (&member.process, &member.gone) {
                (Some(process), _) => {
                    let status = process.node.status();
                    format!(
                        "{:?} of {:?} term {} commit {} last {} applied {}",
                        status.state,
                        status.leader.map(NodeId::get),
                        status.term,
                        status.commit,
                        status.last,
                        process.storage.applied().index
                    )
                }
                (None, Some(reason)) => format!("gone: {reason}"),
                (None, None) => "down".to_owned(),
            };
            text.push_str(&format!("n{} {state}; ", member.id));
        }
        text
    }

    /// All members hold the same, and all that was acknowledged and is not compacted is in it.
    fn check_end(&mut self) {
        let mut hashes = BTreeMap::new();
        // A rotten disk may refuse to be read.
        for member in self.members.values().filter(|member| !member.rotten) {
            if let Some(process) = &member.process {
                let history = process.storage.hash_kv(0).map_err(|error| error.to_string());
                // See `Invariants::any_joined`.
                let whole = (!self.invariants.any_joined).then(|| process.storage.hash().ok());
                hashes.insert(member.id, (history, whole));
            }
        }
        let mut values = hashes.values();
        let first = values.next();
        if values.any(|hash| Some(hash) != first) {
            return self.violation(format!("the members' states differ: {hashes:?}"));
        }
        if let Err(what) = self.check_acknowledged() {
            self.violation(what);
        }
    }

    fn check_acknowledged(&self) -> Result<(), String> {
        let sound = self.members.values().filter(|member| !member.rotten);
        let found = sound.filter_map(|member| Some((member.id, member.process.as_ref()?))).next();
        let Some((id, process)) = found else { return Ok(()) };
        let compacted = process.storage.compact_revision();
        let request = EventsRequest {
            first: HistoryPosition { revision: Revision(compacted.0.max(1)), sub: 0 },
            keys: KeyRange::all(),
            prev_kv: false,
            bytes_max: u64::MAX,
            rows_max: u64::MAX,
        };
        let events = process
            .storage
            .events(&request)
            .map_err(|error| format!("n{id} cannot tell its history: {error}"))?;
        let mut written = BTreeMap::new();
        for event in &events.events {
            if let (Some(kv), true) = (&event.kv, event.event_type == i32::from(EventType::Put)) {
                written.insert((kv.mod_revision, kv.key.clone()), kv.value.clone());
            }
        }
        for operation in &self.history.operations {
            let (Some(revision), Request::Put(put)) = (operation.revision(), &operation.request) else {
                continue;
            };
            if revision <= compacted {
                continue;
            }
            if written.get(&(revision.as_i64(), put.key.clone())) != Some(&put.value) {
                return Err(format!("acknowledged and not there: {operation}"));
            }
        }
        Ok(())
    }
}
