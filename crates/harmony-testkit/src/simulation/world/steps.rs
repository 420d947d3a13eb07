//! Processes: their steps, what each step leads to, and how they end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use harmony_node::stepped::{APPLY_RETRY, CHECKPOINT_INTERVAL, Due};
use harmony_types::fake::fs::{CallKind, Crash, Fault};
use harmony_types::fake::seed::Seed;
use harmony_types::{Clock, NodeError, NodeId, Storage};

use super::{Event, Step, World};
use crate::history::Moment;
use crate::simulation::member::{Member, Process};
use crate::simulation::plan::{Loss, Work};
use crate::simulation::probes::Probe;
use crate::simulation::time::{MS, SECOND, US, drifted};
use crate::simulation::trace::mix;
use crate::trace::MarkKind;

/// What a full disk says, in the system's words or in the storage's.
const NO_ROOM: [&str; 2] = ["No space left on device", "and the disk has"];

/// Until a keeper that could not read its leases tries again.
const LEASE_RETRY: Duration = Duration::from_millis(100);

/// A beat of a member's logical time, on its own clock.
const BEAT: u64 = 100 * MS;

impl World {
    /// Starts a member's process, unless one runs or it never comes back.
    pub(super) fn start(&mut self, id: NodeId) {
        let now = self.now.get();
        let Some(member) = self.members.get_mut(&id) else { return };
        if member.process.is_some() || member.gone.is_some() {
            return;
        }
        member.paused_until = 0;
        let seed = self.seed.0;
        let started = guarded(|| member.start(&self.now, seed));
        let life = member.life;
        self.trace.note(now, &[1, id.get(), life, u64::from(started.is_ok())], || {
            format!("n{id} starts, life {life}: {started:?}")
        });
        self.network.forget(id);
        self.held.remove(&id);
        self.picture.mark(now, id, MarkKind::Start);
        self.told.restarts.push((id, Moment(now)));
        if let Err(error) = started {
            self.ended(id, error);
            return;
        }
        let drift_ppm = self.members[&id].drift_ppm;
        let first = self.pace.below(BEAT);
        self.plan_step(id, drifted(first, -drift_ppm), Step::Tick);
        self.plan_step(id, nanos(CHECKPOINT_INTERVAL) + first, Step::CheckpointDue);
        self.plan_step(id, first, Step::LeaseBeat);
        self.schedule.push(self.now.get(), Event::Greet { member: id, life });
        if self.members[&id].disk.files().iter().any(|file| file.to_string_lossy().contains("torn-")) {
            self.probe(Probe::TornTailCut);
        }
        self.follow_up(id);
    }

    fn plan_step(&mut self, member: NodeId, after: u64, step: Step) {
        let life = self.members[&member].life;
        self.schedule.push(self.now.get() + after, Event::Step { member, life, step });
    }

    /// Does one step, if the process that it was planned for is still there.
    pub(super) fn step(&mut self, id: NodeId, life: u64, step: Step) {
        let now = self.now.get();
        let Some(Event::Step { .. }) = self.hold(id, Event::Step { member: id, life, step }) else { return };
        let Some(member) = self.members.get_mut(&id) else { return };
        let (hung_until, reads_hung_until) = (member.hung_until, member.reads_hung_until);
        let crash_in = member.crash_in;
        let drift_ppm = member.drift_ppm;
        if member.process_of(life).is_none() {
            return;
        }
        let until = match step {
            Step::Sync { .. } | Step::Snapshots | Step::Checkpoint | Step::Witness | Step::Rebuild => {
                hung_until
            }
            Step::Apply => reads_hung_until,
            _ => 0,
        };
        if now < until {
            self.plan_step(id, until - now + 50 * US, step);
            return;
        }
        if let Some((_, loss)) = crash_in.filter(|(work, _)| step.work() == Some(*work)) {
            return self.crash(id, loss, Some(step));
        }
        match step {
            Step::Tick => self.plan_step(id, drifted(BEAT, -drift_ppm), Step::Tick),
            Step::CheckpointDue => {
                self.plan_step(id, nanos(CHECKPOINT_INTERVAL), Step::CheckpointDue);
                self.begin_checkpoint(id);
                return;
            }
            _ => {}
        }
        let Some(process) = self.members.get_mut(&id).and_then(|member| member.process_of(life)) else {
            return;
        };
        let result = guarded(|| run(process, step));
        if step == Step::LeaseBeat {
            // A moment later on the world's clock is later on the member's, too.
            let wait = drifted(nanos(process.keeper_wait), -drift_ppm).max(20 * US);
            self.plan_step(id, wait, Step::LeaseBeat);
        }
        let Some(process) = self.members.get_mut(&id).and_then(|member| member.process_of(life)) else {
            return;
        };
        let status = process.node.status();
        let numbers = [2, id.get(), step.number(), status.term.0, status.commit.0, status.last.0];
        self.trace.note(now, &numbers, || {
            format!(
                "n{id} {step:?} -> {:?} term {} commit {} last {} {}",
                status.state,
                status.term,
                status.commit,
                status.last,
                result.as_ref().err().map(ToString::to_string).unwrap_or_default()
            )
        });
        match result {
            Ok(()) => {
                self.probe_step(id, step);
                if step == Step::Checkpoint {
                    self.check_power_failure(id);
                }
                // The others change nothing that is looked at.
                if !matches!(step, Step::Publish | Step::History | Step::Leases | Step::LeaseBeat) {
                    self.check(id);
                }
                self.follow_up(id);
            }
            Err(error) => self.ended(id, error),
        }
    }

    /// Plans what the process wants done next, and sends what it says.
    pub(super) fn follow_up(&mut self, id: NodeId) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let slow_us = member.slow_us;
        let Some(process) = &mut member.process else { return };
        let Due { turn, sync, apply, room, snapshots, checkpoint, witness } = process.node.due();
        let mut steps: [Option<(Step, u64, u64)>; 8] = [None; 8];
        let under_way = &mut process.under_way;
        if turn && !under_way.turn {
            under_way.turn = true;
            steps[0] = Some((Step::Turn, 5 * US, 40 * US));
        }
        if sync
            && under_way.sync.is_none()
            && let Some(number) = process.node.begin_sync()
        {
            process.under_way.sync = Some(number);
            let began = self.now.get();
            let shortest = slow_us.max(60) * US;
            steps[1] = Some((Step::Sync { number, began }, shortest, shortest * 6));
        }
        let under_way = &mut process.under_way;
        if (apply || room) && !under_way.apply {
            under_way.apply = true;
            let wait = if apply { 10 * US } else { nanos(APPLY_RETRY) };
            steps[2] = Some((Step::Apply, wait, wait + 300 * US));
        }
        if snapshots && !under_way.snapshots {
            under_way.snapshots = true;
            steps[3] = Some((Step::Snapshots, MS, 20 * MS));
        }
        if witness && !under_way.witness {
            under_way.witness = true;
            steps[4] = Some((Step::Witness, MS, 20 * MS));
        }
        if process.hub.publish_due() && !under_way.publish {
            under_way.publish = true;
            steps[5] = Some((Step::Publish, 5 * US, 500 * US));
        }
        process.behind |= process.hub.history_due();
        if process.behind && !under_way.history {
            under_way.history = true;
            steps[6] = Some((Step::History, 20 * US, 3 * MS));
        }
        if process.keeper.step_due() && !under_way.leases {
            under_way.leases = true;
            steps[7] = Some((Step::Leases, 5 * US, 100 * US));
        }
        let packets = process.outbox.take();
        for (step, shortest, longest) in steps.into_iter().flatten() {
            let after = self.pace.range(shortest..longest);
            self.plan_step(id, after, step);
        }
        if checkpoint {
            self.begin_checkpoint(id);
        }
        self.send(id, packets);
    }

    fn begin_checkpoint(&mut self, id: NodeId) {
        let Some(process) = self.members.get_mut(&id).and_then(|member| member.process.as_mut()) else {
            return;
        };
        if !std::mem::replace(&mut process.under_way.checkpoint, true) {
            let after = self.pace.range(MS..60 * MS);
            self.plan_step(id, after, Step::Checkpoint);
        }
    }

    /// An operator has the tree written anew.
    pub(super) fn begin_rebuild(&mut self, id: NodeId) {
        let Some(process) = self.members.get_mut(&id).and_then(|member| member.process.as_mut()) else {
            return;
        };
        if !std::mem::replace(&mut process.under_way.rebuild, true) {
            let after = self.pace.range(MS..200 * MS);
            self.plan_step(id, after, Step::Rebuild);
        }
    }

    /// What must hold.
    fn check(&mut self, id: NodeId) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let saves = !member.full;
        let Some(process) = &mut member.process else { return };
        let status = process.node.status();
        let before = process.seen;
        if let Err(what) = self.invariants.look(id, &status, &process.storage, saves, &mut process.seen) {
            return self.violation(what);
        }
        let after = process.seen;
        self.picture.seen(self.now.get(), id, &before, &after);
        self.told.listen(&process.storage);
        let pending =
            std::mem::replace(&mut member.pending, process.handle.metrics().proposals_pending.get());
        if after.leads && (!before.leads || before.term != after.term) {
            self.probe(Probe::LeaderElected);
        }
        if before.leads && !after.leads && pending != 0 {
            self.probe(Probe::LeaderLostWithProposals);
        }
        if after.last < before.last {
            self.probe(Probe::LogTruncated);
        }
    }

    /// A checkpoint and the log that it needs are on disk together.
    fn check_power_failure(&mut self, id: NodeId) {
        let member = self.members.get(&id).filter(|member| !member.rotten && !member.full);
        if let Some(Err(what)) = member.map(Member::survives_power_failure) {
            self.violation(format!("n{id} would not survive a power failure now: {what}"));
        }
    }

    fn probe_step(&mut self, id: NodeId, step: Step) {
        match step {
            Step::Snapshots => self.probe(Probe::SnapshotSent),
            Step::Rebuild => self.probe(Probe::Rebuilt),
            Step::Checkpoint => {
                self.probe(Probe::Checkpoint);
                let bounds = self.members[&id].process.as_ref().map(|process| process.storage.bounds());
                if bounds.is_some_and(|bounds| bounds.boundary.0 != 0) {
                    self.probe(Probe::LogReleased);
                }
            }
            _ => {}
        }
    }

    /// A process dies, in the middle of what it does: of this step, if one is named.
    pub(super) fn crash(&mut self, id: NodeId, loss: Loss, within: Option<Step>) {
        let now = self.now.get();
        let chance = Seed(mix(self.seed.0 ^ mix(now) ^ id.get()));
        let Some(member) = self.members.get_mut(&id) else { return };
        let Some(process) = &mut member.process else { return };
        self.trace.note(now, &[3, id.get(), loss as u64], || format!("n{id} crashes, {loss:?} lost"));
        // What was under way got as far as some call that changes the disk.
        let mut rng = chance.rng();
        let mut cut_short = Vec::new();
        if let Some(number) = process.under_way.sync {
            cut_short.push((Step::Sync { number, began: now }, Probe::CrashInSync));
        }
        if process.under_way.apply {
            cut_short.push((Step::Apply, Probe::CrashInApply));
        }
        if process.under_way.checkpoint {
            cut_short.push((Step::Checkpoint, Probe::CrashInCheckpoint));
        }
        if process.under_way.rebuild {
            cut_short.push((Step::Rebuild, Probe::CrashInRebuild));
        }
        if process.under_way.snapshots {
            cut_short.push((Step::Snapshots, Probe::CrashInSnapshot));
        }
        if let Some(within) = within {
            cut_short.retain(|(step, _)| step.work() == within.work());
        }
        if !cut_short.is_empty() {
            let (step, probe) = *rng.pick(&cut_short);
            let nth = rng.range(1..24);
            member
                .disk
                .inject(Fault::on(CallKind::CHANGING).nth(nth).short_write(rng.index(0..4_096)).lasting());
            // It ends by the failure, or just before the power does.
            let _ended = guarded(|| run(process, step));
            self.probes.add(probe, 1);
        }
        self.bury(id, |disk| match loss {
            // The system goes on, and has what the process wrote.
            Loss::Nothing => None,
            Loss::Unsynced => Some(disk.crash_image(Crash::LoseUnsynced)),
            Loss::Torn => Some(disk.crash_image(Crash::Seeded(Seed(mix(chance.0))))),
        });
    }

    /// Ends a process, and does to its disk what `lose` says.
    fn bury(
        &mut self,
        id: NodeId,
        lose: impl FnOnce(
            &harmony_types::fake::fs::MemoryFileSystem,
        ) -> Option<harmony_types::fake::fs::MemoryFileSystem>,
    ) {
        self.picture.mark(self.now.get(), id, MarkKind::Crash);
        self.break_watches(id);
        let Some(member) = self.members.get_mut(&id) else { return };
        member.crash_in = None;
        let image = lose(&member.disk);
        // What it does when it is dropped must not reach the disk.
        member.disk.inject(Fault::on(CallKind::CHANGING).lasting());
        let process = member.process.take();
        let pending = process.as_ref().map(metrics_of);
        // Its waiters end, and may not be heard: a client learns of a broken connection.
        drop(process);
        member.disk.clear_faults();
        member.faults_before = member.disk.faults_struck();
        if let Some(image) = image {
            member.disk = image;
            member.faults_before = 0;
        }
        member.life += 1;
        self.network.forget(id);
        self.held.remove(&id);
        for (probe, times) in pending.into_iter().flatten() {
            self.probes.add(probe, times);
        }
    }

    /// A process ended by itself, or did not start: what a supervisor makes of it.
    pub(super) fn ended(&mut self, id: NodeId, error: NodeError) {
        let now = self.now.get();
        let Some(member) = self.members.get_mut(&id) else { return };
        let failure = member.process.as_ref().and_then(|process| process.handle.failure());
        let struck = member.disk.faults_struck() != member.faults_before;
        let started = member.process.is_some();
        let reason = failure.unwrap_or_else(|| describe(&error));
        self.trace.note(now, &[4, id.get()], || format!("n{id} ends: {reason}"));
        self.picture.note(now, id, || format!("ends: {reason}"));
        self.bury(id, |_| None);
        let removed =
            matches!(error, NodeError::Removed { .. }) || reason.contains("was removed from the cluster");
        let forgot = matches!(error, NodeError::Forgot { .. })
            || reason.contains("had acknowledged index")
            || reason.contains("on another data directory");
        let Some(member) = self.members.get_mut(&id) else { return };
        let probe = if removed {
            member.gone = Some(reason);
            Probe::Removed
        } else if forgot && (member.emptied || member.rotten) {
            member.gone = Some(reason);
            Probe::Forgot
        } else if member.rotten && !started {
            member.gone = Some(reason);
            Probe::DamageFound
        } else if struck
            || member.rotten
            // On a full disk it may not start; one that runs waits for room.
            || (member.full && !started && NO_ROOM.iter().any(|words| reason.contains(words)))
        {
            let at = now + self.pace.range(500 * MS..3 * SECOND);
            self.schedule.push(at, Event::Restart { member: id });
            Probe::DiskEndedMember
        } else {
            return self.violation(format!("n{id} ended, though its disk was not hurt: {reason}"));
        };
        self.probe(probe);
        if struck {
            self.probe(Probe::DiskCallFailed);
        }
    }
}

/// What a process counted of rare things.
fn metrics_of(process: &Process) -> [(Probe, u64); 10] {
    let metrics = process.handle.metrics();
    let (leases, watches) = (process.keeper.metrics(), process.hub.metrics());
    [
        (Probe::EarlyElection, metrics.early_elections.get()),
        (Probe::ReadRestarted, metrics.read_retries.get()),
        (Probe::SnapshotInstalled, metrics.snapshots_installed.get()),
        (Probe::DiskStall, metrics.disk_stalls.get()),
        (Probe::NoSpace, metrics.proposals_no_space.get()),
        (Probe::ApplyWaited, metrics.apply_waits.get()),
        (Probe::Promoted, metrics.promotions.get()),
        (Probe::WatchReadHistory, watches.history_reads.get()),
        (Probe::LeaseExpired, leases.expired.get()),
        (Probe::LeaseCheckpointed, leases.checkpointed.get()),
    ]
}

impl World {
    /// Takes in what the processes that still run have counted.
    pub(super) fn count_metrics(&mut self) {
        let counted: Vec<_> =
            self.members.values().filter_map(|member| member.process.as_ref().map(metrics_of)).collect();
        for (probe, times) in counted.into_iter().flatten() {
            self.probes.add(probe, times);
        }
    }
}

fn run(process: &mut Process, step: Step) -> Result<(), NodeError> {
    match step {
        Step::Tick => process.node.turn(true),
        Step::Turn => {
            process.under_way.turn = false;
            process.node.turn(false)
        }
        Step::Sync { number, began } => {
            process.under_way.sync = None;
            process.node.finish_sync(number, Duration::from_nanos(began))
        }
        Step::Apply => {
            process.under_way.apply = false;
            process.node.apply()
        }
        Step::Snapshots => {
            process.under_way.snapshots = false;
            process.node.send_snapshots()
        }
        Step::Checkpoint => {
            process.under_way.checkpoint = false;
            process.node.checkpoint()
        }
        Step::Witness => {
            process.under_way.witness = false;
            process.node.save_witness()
        }
        Step::CheckpointDue => Ok(()),
        Step::Rebuild => {
            process.under_way.rebuild = false;
            // Whoever asked for it hears of its end. A disk that was hurt ends the node at its next call.
            let _rebuilt = process.storage.rebuild();
            Ok(())
        }
        Step::Publish => {
            process.under_way.publish = false;
            process.hub.publish_step();
            Ok(())
        }
        Step::History => {
            process.under_way.history = false;
            process.behind = process.hub.history_step();
            Ok(())
        }
        Step::Leases | Step::LeaseBeat => {
            process.under_way.leases &= step != Step::Leases;
            // What it cannot read now it reads at its next turn; the node meets the same damage, and says so.
            let now = process.clock.now();
            let wait = process.keeper.step().map(|next| next.saturating_sub(now));
            process.keeper_wait = wait.unwrap_or(LEASE_RETRY);
            Ok(())
        }
    }
}

impl Step {
    fn number(self) -> u64 {
        match self {
            Self::Tick => 1,
            Self::Turn => 2,
            Self::Sync { number, .. } => 3 | number << 8,
            Self::Apply => 4,
            Self::Snapshots => 5,
            Self::Checkpoint => 6,
            Self::CheckpointDue => 7,
            Self::Witness => 13,
            Self::Publish => 8,
            Self::History => 9,
            Self::Leases => 10,
            Self::LeaseBeat => 11,
            Self::Rebuild => 12,
        }
    }

    fn work(self) -> Option<Work> {
        match self {
            Self::Sync { .. } => Some(Work::Sync),
            Self::Apply => Some(Work::Apply),
            Self::Checkpoint => Some(Work::Checkpoint),
            Self::Snapshots => Some(Work::Snapshot),
            _ => None,
        }
    }
}

/// A panic is an end, too.
fn guarded(work: impl FnOnce() -> Result<(), NodeError>) -> Result<(), NodeError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        Err(NodeError::InvalidMessage { reason: format!("panic: {}", text.unwrap_or_default()) })
    })
}

/// An error with all that caused it.
fn describe(error: &NodeError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
