//! Plans from a seed.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use harmony_types::NodeId;
use harmony_types::fake::seed::{Seed, SeededRng};

use super::{AuthDeed, Fault, Loss, Plan, Step, Work};
use crate::simulation::network::Links;

/// How much goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Intensity {
    /// Nothing but an operator's deeds, seldom.
    Calm,
    /// A fault every few seconds; a quorum is up most of the time.
    #[default]
    Moderate,
    /// Several faults a second; often no quorum is up, and disks rot.
    Wild,
}

impl Intensity {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Calm, Self::Moderate, Self::Wild];

    fn word(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Moderate => "moderate",
            Self::Wild => "wild",
        }
    }
}

impl fmt::Display for Intensity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Intensity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|intensity| intensity.word() == text);
        found.ok_or_else(|| format!("an intensity is calm, moderate or wild, not {text:?}"))
    }
}

/// What has gone wrong so far, as far as the next fault must know.
struct Generator {
    rng: SeededRng,
    intensity: Intensity,
    members: Vec<NodeId>,
    down: BTreeSet<NodeId>,
    /// They lost what they had acknowledged.
    lost: BTreeSet<NodeId>,
    /// How many may: as many as the first quorum can do without, and none where members are removed.
    losses_max: usize,
    next_member: u64,
    steps: Vec<Step>,
}

impl Plan {
    /// A plan for a cluster of members 1 to `members`, over the first `length_ms` milliseconds.
    #[must_use]
    pub fn generate(seed: Seed, intensity: Intensity, members: u64, length_ms: u64) -> Self {
        let mut rng = Seed(seed.0 ^ 0x706c_616e).rng();
        let spare = usize::try_from(members.saturating_sub(1) / 2).unwrap_or(0);
        let losses_max = if intensity == Intensity::Wild && rng.chance(1, 2) { spare } else { 0 };
        let mut generator = Generator {
            rng,
            intensity,
            members: (1..=members).filter_map(NodeId::new).collect(),
            down: BTreeSet::new(),
            lost: BTreeSet::new(),
            losses_max,
            next_member: members + 1,
            steps: Vec::new(),
        };
        let mut at_ms = 1_500;
        while at_ms < length_ms {
            generator.step(at_ms);
            at_ms += generator.pause();
            if intensity == Intensity::Wild && generator.rng.chance(1, 12) {
                at_ms = generator.rest(at_ms);
            }
        }
        let mut steps = generator.steps;
        steps.retain(|step| step.at_ms < length_ms);
        steps.sort_by_key(|step| step.at_ms);
        Self { steps }
    }
}

impl Generator {
    /// Until the next fault, milliseconds.
    fn pause(&mut self) -> u64 {
        match self.intensity {
            Intensity::Calm => self.rng.range(4_000..12_000),
            Intensity::Moderate => self.rng.range(500..5_000),
            Intensity::Wild => self.rng.range(20..1_200),
        }
    }

    /// Between two storms there is time to elect a leader and to be served. Returns when the next one begins.
    fn rest(&mut self, at_ms: u64) -> u64 {
        self.push(at_ms, Fault::Heal);
        self.members.clone().into_iter().for_each(|member| self.push(at_ms, Fault::Start(member)));
        at_ms + self.rng.range(1_500..4_000)
    }

    fn member(&mut self) -> NodeId {
        *self.rng.pick(&self.members)
    }

    fn push(&mut self, at_ms: u64, fault: Fault) {
        self.steps.push(Step { at_ms, fault });
    }

    /// Members that may be down or lost at once.
    fn spare(&self) -> usize {
        (self.members.len() - 1) / 2
    }

    fn step(&mut self, at_ms: u64) {
        if self.intensity == Intensity::Calm {
            return self.deed(at_ms);
        }
        match self.rng.below(100) {
            0..25 => self.crash(at_ms),
            25..45 => self.partition(at_ms),
            45..57 => self.links(at_ms),
            57..67 => {
                let (member, ms) = (self.member(), self.rng.range(100..4_000));
                self.push(at_ms, Fault::Pause { member, ms });
            }
            67..85 => self.disk(at_ms),
            85..90 => self.clock(at_ms),
            _ => self.deed(at_ms),
        }
    }

    /// A crash, and a start some time later.
    fn crash(&mut self, at_ms: u64) {
        let member = self.member();
        self.down.retain(|down| self.steps.iter().all(|step| !starts_by(step, *down, at_ms)));
        if self.intensity == Intensity::Moderate && self.spare() <= self.down.len() {
            return;
        }
        self.down.insert(member);
        let loss = *self.rng.pick(&[Loss::Nothing, Loss::Unsynced, Loss::Torn, Loss::Torn]);
        if self.rng.chance(1, 3) {
            let work = *self.rng.pick(&Work::ALL);
            self.push(at_ms, Fault::CrashIn { member, work, loss });
        } else {
            self.push(at_ms, Fault::Crash { member, loss });
        }
        let back = at_ms + self.rng.range(10..8_000);
        self.push(back, Fault::Start(member));
    }

    fn partition(&mut self, at_ms: u64) {
        let (one, other) = (self.member(), self.member());
        if self.rng.chance(1, 5) {
            let ms = self.rng.range(200..8_000);
            return self.push(at_ms, Fault::CutClients { member: one, ms });
        }
        let fault = match self.rng.below(4) {
            0 if one != other => Fault::Cut { from: one, to: other },
            1 => Fault::Split { at: one, bridge: false },
            2 => Fault::Split { at: one, bridge: true },
            _ => Fault::Isolate(one),
        };
        self.push(at_ms, fault);
        let until = at_ms + self.rng.range(200..8_000);
        self.push(until, Fault::Heal);
    }

    fn links(&mut self, at_ms: u64) {
        let rng = &mut self.rng;
        let most = if self.intensity == Intensity::Wild { 200 } else { 40 };
        let links = Links {
            loss: rng.below(most),
            duplicates: rng.below(most),
            reordered: rng.below(most),
            stale: rng.below(most / 4),
            delay_us: *rng.pick(&[200, 500, 2_000, 20_000, 80_000]),
        };
        let until = at_ms + rng.range(500..6_000);
        self.push(at_ms, Fault::Links(links));
        self.push(until, Fault::Links(Links::CALM));
    }

    fn disk(&mut self, at_ms: u64) {
        let member = self.member();
        match self.rng.below(10) {
            0..3 => {
                let us = *self.rng.pick(&[2_000, 10_000, 50_000, 200_000]);
                let until = at_ms + self.rng.range(500..6_000);
                self.push(at_ms, Fault::SlowDisk { member, us });
                self.push(until, Fault::SlowDisk { member, us: 0 });
            }
            3..6 => {
                let ms = self.rng.range(100..6_000);
                let fault = if self.rng.chance(1, 2) {
                    Fault::HangDisk { member, ms }
                } else {
                    Fault::HangReads { member, ms }
                };
                self.push(at_ms, fault);
            }
            6..8 => {
                let bytes = *self.rng.pick(&[0, 4 << 10, 64 << 10, 256 << 10, 1 << 20]);
                let until = at_ms + self.rng.range(500..6_000);
                self.push(at_ms, Fault::FillDisk { member, bytes });
                self.push(until, Fault::EmptyDisk(member));
            }
            8 => {
                let nth = self.rng.range(1..60);
                self.push(at_ms, Fault::FailDisk { member, nth });
                // Its supervisor starts it again.
                let back = at_ms + self.rng.range(1_000..9_000);
                self.push(back, Fault::Start(member));
            }
            _ => self.loss(at_ms, member),
        }
    }

    /// A member that loses for good what it acknowledged: a minority of them at most.
    fn loss(&mut self, at_ms: u64, member: NodeId) {
        if self.intensity != Intensity::Wild || self.spare() <= self.lost.len() || self.lost.contains(&member)
        {
            return;
        }
        self.lost.insert(member);
        if self.rng.chance(1, 2) {
            self.push(at_ms, Fault::LoseDirectory(member));
        } else {
            self.push(at_ms, Fault::Crash { member, loss: Loss::Unsynced });
            self.push(at_ms + 1, Fault::Rot(member));
        }
        let back = at_ms + self.rng.range(100..3_000);
        self.push(back, Fault::Start(member));
    }

    /// Permissions for a while, narrower and wider.
    fn auth(&mut self, at_ms: u64) {
        let mut at_ms = at_ms;
        self.push(at_ms, Fault::Auth(AuthDeed::Enable));
        for _ in 0..self.rng.below(5) {
            at_ms += self.rng.range(100..1_500);
            let deed = *self.rng.pick(&[AuthDeed::Narrow, AuthDeed::Widen]);
            self.push(at_ms, Fault::Auth(deed));
        }
        at_ms += self.rng.range(100..2_000);
        self.push(at_ms, Fault::Auth(AuthDeed::Disable));
    }

    fn clock(&mut self, at_ms: u64) {
        let member = self.member();
        if self.rng.chance(1, 2) {
            let ppm = *self.rng.pick(&[-100_000, -500, 0, 500, 100_000]);
            self.push(at_ms, Fault::Drift { member, ppm });
        } else {
            let ms = *self.rng.pick(&[-86_400_000, -5_000, 5_000, 86_400_000]);
            self.push(at_ms, Fault::JumpCalendar { member, ms });
        }
    }

    /// What an operator does.
    fn deed(&mut self, at_ms: u64) {
        let member = self.member();
        match self.rng.below(10) {
            0..3 => self.push(at_ms, Fault::Transfer(member)),
            3 if self.rng.chance(1, 4) => self.push(at_ms, Fault::Flood(member)),
            3..5 => self.push(at_ms, Fault::Rebuild(member)),
            5 => self.auth(at_ms),
            6..8 => self.push(at_ms, Fault::Compact),
            8 => {
                if let Some(member) = NodeId::new(self.next_member) {
                    self.next_member += 1;
                    self.members.push(member);
                    self.push(at_ms, Fault::Join(member));
                }
            }
            _ if 3 < self.members.len() && self.losses_max == 0 => {
                self.members.retain(|one| *one != member);
                self.push(at_ms, Fault::Remove(member));
            }
            _ => {}
        }
    }
}

fn starts_by(step: &Step, member: NodeId, at_ms: u64) -> bool {
    step.fault == Fault::Start(member) && step.at_ms <= at_ms
}
