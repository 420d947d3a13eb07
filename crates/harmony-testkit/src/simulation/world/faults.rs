//! The plan at work.

use std::sync::atomic::Ordering;

use harmony_types::NodeId;
use harmony_types::fake::fs::{CallKind, Fault as DiskFault, MemoryFileSystem};
use harmony_types::fake::seed::Seed;

use super::{Event, World};
use crate::simulation::plan::{Fault, Loss, Step};
use crate::simulation::time::MS;
use crate::simulation::trace::{Digest, mix};

/// What a write to a wrong place moves, bytes.
const BLOCK: usize = 4 << 10;

impl World {
    /// Does one step of the plan. One that is impossible now (a process that is not there) does nothing.
    pub(super) fn fault(&mut self, step: Step) {
        let now = self.now.get();
        let mut digest = Digest::EMPTY;
        digest.bytes(step.fault.to_string().as_bytes());
        self.trace.note(now, &[10, digest.0], || format!("-- {}", step.fault));
        self.picture.event(now, || step.fault.to_string());
        match step.fault {
            Fault::Cut { from, to } => self.network.cut(from, to),
            Fault::Isolate(member) => self.separate(|one, other| one == member || other == member),
            Fault::Split { at, bridge } => self.separate(|one, other| {
                let (low, high) = (one.min(other), one.max(other));
                low <= at && at < high && !(bridge && low == at)
            }),
            Fault::CutClients { member, ms } => self.with(member, |one| {
                one.cut_off_until = one.cut_off_until.max(now + ms * MS);
            }),
            Fault::Heal => self.network.heal_all(),
            Fault::Links(links) => self.network.links = links,
            Fault::Crash { member, loss } => self.crash(member, loss, None),
            Fault::CrashIn { member, work, loss } => {
                self.with(member, |one| one.crash_in = Some((work, loss)));
            }
            Fault::Start(member) => self.start(member),
            Fault::Pause { member, ms } => {
                if let Some(one) = self.members.get_mut(&member) {
                    one.paused_until = one.paused_until.max(now + ms * MS);
                }
                self.schedule.push(now + ms * MS, Event::Resume { member });
            }
            Fault::SlowDisk { member, us } => self.with(member, |one| one.slow_us = us),
            Fault::HangDisk { member, ms } => {
                self.with(member, |one| one.hung_until = one.hung_until.max(now + ms * MS));
            }
            Fault::HangReads { member, ms } => self.with(member, |one| {
                one.hung_until = one.hung_until.max(now + ms * MS);
                one.reads_hung_until = one.hung_until;
            }),
            Fault::FillDisk { member, bytes } => self.with(member, |one| {
                let used = one.disk.used_bytes();
                one.disk.set_capacity(Some(used + bytes));
                one.full = true;
            }),
            Fault::EmptyDisk(member) => self.with(member, super::Member::empty_disk),
            Fault::FailDisk { member, nth } => self.with(member, |one| {
                one.disk.inject(DiskFault::on(CallKind::CHANGING).nth(nth));
            }),
            Fault::Rot(member) => {
                self.rot(member);
                self.invariants.forgive(member);
            }
            Fault::LoseDirectory(member) => {
                self.crash(member, Loss::Unsynced, None);
                self.with(member, |one| {
                    one.disk = MemoryFileSystem::with_dir("/data");
                    one.emptied = true;
                });
                self.invariants.forgive(member);
            }
            Fault::Transfer(member) => {
                if let Some(process) = self
                    .somebody()
                    .and_then(|id| self.members[&id].process.as_ref().map(|process| (id, process)))
                {
                    let (id, process) = process;
                    process.handle.transfer_leader(member);
                    self.follow_up(id);
                }
            }
            Fault::Join(_) | Fault::Remove(_) => self.change_membership(step.fault),
            Fault::Auth(deed) => self.change_auth(deed),
            Fault::Rebuild(member) => self.begin_rebuild(member),
            Fault::Flood(member) => self.flood(member),
            Fault::Compact => self.compact(),
            Fault::Drift { member, ppm } => self.with(member, |one| one.drift_ppm = ppm),
            Fault::JumpCalendar { member, ms } => self.with(member, |one| {
                one.calendar_shift_ms.fetch_add(ms, Ordering::Relaxed);
            }),
        }
    }

    fn with(&mut self, member: NodeId, change: impl FnOnce(&mut super::Member)) {
        if let Some(member) = self.members.get_mut(&member) {
            change(member);
        }
    }

    /// Cuts all links, both ways, between members of which `apart` says so.
    fn separate(&mut self, apart: impl Fn(NodeId, NodeId) -> bool) {
        let ids: Vec<NodeId> = self.members.keys().copied().collect();
        for one in &ids {
            for other in ids.iter().filter(|other| *other != one && apart(*one, **other)) {
                self.network.cut(*one, *other);
            }
        }
    }

    /// Flips a bit of a file that is durable in whole (the tree, or a segment that is not the newest), or has one of its blocks
    /// written over another one.
    fn rot(&mut self, id: NodeId) {
        let mut rng = Seed(mix(self.seed.0 ^ mix(self.now.get() ^ id.get()))).rng();
        self.with(id, |one| {
            let files = one.disk.files();
            let segments = files.iter().filter(|file| file.extension().is_some_and(|end| end == "wal"));
            let newest = segments.max().cloned();
            let old = |file: &&std::path::PathBuf| {
                Some(*file) != newest.as_ref()
                    && file.extension().is_some_and(|end| end == "wal" || end == "redb")
            };
            let files: Vec<_> = files.iter().filter(old).collect();
            if files.is_empty() {
                return;
            }
            let path = *rng.pick(&files);
            let content = one.disk.read_file(path).unwrap_or_default();
            let blocks = content.chunks_exact(BLOCK).len();
            let hurt = if 1 < blocks && rng.chance(1, 3) {
                let (from, to) = (rng.index(0..blocks) * BLOCK, rng.index(0..blocks) * BLOCK);
                one.disk.overwrite(path, to as u64, &content[from..from + BLOCK])
            } else if content.is_empty() {
                return;
            } else {
                one.disk.flip(path, rng.below(content.len() as u64), 1 << rng.below(8))
            };
            one.rotten |= hurt.is_ok();
        });
    }
}
