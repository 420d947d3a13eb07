//! Plans as text.

use std::fmt;
use std::str::FromStr;

use harmony_types::NodeId;

use super::{AuthDeed, Fault, Loss, Plan, Step, Work};
use crate::simulation::network::Links;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.at_ms, self.fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut { from, to } => write!(f, "cut {} {}", from.get(), to.get()),
            Self::Isolate(member) => write!(f, "isolate {}", member.get()),
            Self::Split { at, bridge: false } => write!(f, "split {}", at.get()),
            Self::Split { at, bridge: true } => write!(f, "bridge {}", at.get()),
            Self::CutClients { member, ms } => write!(f, "cut-clients {} {ms}", member.get()),
            Self::Heal => write!(f, "heal"),
            Self::Links(Links { loss, duplicates, reordered, stale, delay_us }) => {
                write!(f, "links {loss} {duplicates} {reordered} {stale} {delay_us}")
            }
            Self::Crash { member, loss } => write!(f, "crash {} {}", member.get(), loss.word()),
            Self::CrashIn { member, work, loss } => {
                write!(f, "crash-in {} {} {}", member.get(), work.word(), loss.word())
            }
            Self::Start(member) => write!(f, "start {}", member.get()),
            Self::Pause { member, ms } => write!(f, "pause {} {ms}", member.get()),
            Self::SlowDisk { member, us } => write!(f, "slow-disk {} {us}", member.get()),
            Self::HangDisk { member, ms } => write!(f, "hang-disk {} {ms}", member.get()),
            Self::HangReads { member, ms } => write!(f, "hang-reads {} {ms}", member.get()),
            Self::FillDisk { member, bytes } => write!(f, "fill-disk {} {bytes}", member.get()),
            Self::EmptyDisk(member) => write!(f, "empty-disk {}", member.get()),
            Self::FailDisk { member, nth } => write!(f, "fail-disk {} {nth}", member.get()),
            Self::Rot(member) => write!(f, "rot {}", member.get()),
            Self::LoseDirectory(member) => write!(f, "lose-directory {}", member.get()),
            Self::Transfer(member) => write!(f, "transfer {}", member.get()),
            Self::Join(member) => write!(f, "join {}", member.get()),
            Self::Remove(member) => write!(f, "remove {}", member.get()),
            Self::Auth(deed) => write!(f, "auth {}", deed.word()),
            Self::Rebuild(member) => write!(f, "rebuild {}", member.get()),
            Self::Flood(member) => write!(f, "flood {}", member.get()),
            Self::Compact => write!(f, "compact"),
            Self::Drift { member, ppm } => write!(f, "drift {} {ppm}", member.get()),
            Self::JumpCalendar { member, ms } => write!(f, "jump-calendar {} {ms}", member.get()),
        }
    }
}

impl Loss {
    const ALL: [Self; 3] = [Self::Nothing, Self::Unsynced, Self::Torn];

    fn word(self) -> &'static str {
        match self {
            Self::Nothing => "kept",
            Self::Unsynced => "unsynced",
            Self::Torn => "torn",
        }
    }

    fn parse(word: &str) -> Result<Self, &'static str> {
        let loss = Self::ALL.into_iter().find(|loss| loss.word() == word);
        loss.ok_or("the disk's loss is kept, unsynced or torn")
    }
}

impl AuthDeed {
    pub(super) const ALL: [Self; 4] = [Self::Enable, Self::Narrow, Self::Widen, Self::Disable];

    fn word(self) -> &'static str {
        match self {
            Self::Enable => "enable",
            Self::Narrow => "narrow",
            Self::Widen => "widen",
            Self::Disable => "disable",
        }
    }

    fn parse(word: &str) -> Result<Self, &'static str> {
        let deed = Self::ALL.into_iter().find(|deed| deed.word() == word);
        deed.ok_or("permissions are: enable, narrow, widen or disable")
    }
}

impl Work {
    pub(super) const ALL: [Self; 4] = [Self::Sync, Self::Apply, Self::Checkpoint, Self::Snapshot];

    fn word(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Apply => "apply",
            Self::Checkpoint => "checkpoint",
            Self::Snapshot => "snapshot",
        }
    }

    fn parse(word: &str) -> Result<Self, &'static str> {
        let work = Self::ALL.into_iter().find(|work| work.word() == word);
        work.ok_or("a process ends in a sync, apply, checkpoint or snapshot")
    }
}

/// A line that is no step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the plan, {text:?}: {reason}")]
pub struct PlanError {
    /// Which line, from 1.
    pub line: usize,
    /// What it says.
    pub text: String,
    /// What is wrong.
    pub reason: &'static str,
}

impl FromStr for Plan {
    type Err = PlanError;

    /// Reads what `Display` wrote; empty lines and those that begin with `#` are skipped.
    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut steps: Vec<Step> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let error = |reason| PlanError { line: number + 1, text: line.to_owned(), reason };
            let step = parse(line).map_err(error)?;
            if steps.last().is_some_and(|last| step.at_ms < last.at_ms) {
                return Err(error("it comes before the step above it"));
            }
            steps.push(step);
        }
        Ok(Self { steps })
    }
}

fn parse(line: &str) -> Result<Step, &'static str> {
    let mut words = Words { words: line.split_whitespace() };
    let at_ms = words.number()?;
    let fault = match words.word()? {
        "cut" => Fault::Cut { from: words.member()?, to: words.member()? },
        "isolate" => Fault::Isolate(words.member()?),
        "split" => Fault::Split { at: words.member()?, bridge: false },
        "bridge" => Fault::Split { at: words.member()?, bridge: true },
        "cut-clients" => Fault::CutClients { member: words.member()?, ms: words.number()? },
        "heal" => Fault::Heal,
        "links" => Fault::Links(Links {
            loss: words.number()?,
            duplicates: words.number()?,
            reordered: words.number()?,
            stale: words.number()?,
            delay_us: words.number()?,
        }),
        "crash" => Fault::Crash { member: words.member()?, loss: Loss::parse(words.word()?)? },
        "crash-in" => Fault::CrashIn {
            member: words.member()?,
            work: Work::parse(words.word()?)?,
            loss: Loss::parse(words.word()?)?,
        },
        "start" => Fault::Start(words.member()?),
        "pause" => Fault::Pause { member: words.member()?, ms: words.number()? },
        "slow-disk" => Fault::SlowDisk { member: words.member()?, us: words.number()? },
        "hang-disk" => Fault::HangDisk { member: words.member()?, ms: words.number()? },
        "hang-reads" => Fault::HangReads { member: words.member()?, ms: words.number()? },
        "fill-disk" => Fault::FillDisk { member: words.member()?, bytes: words.number()? },
        "empty-disk" => Fault::EmptyDisk(words.member()?),
        "fail-disk" => Fault::FailDisk { member: words.member()?, nth: words.number::<u64>()?.max(1) },
        "rot" => Fault::Rot(words.member()?),
        "lose-directory" => Fault::LoseDirectory(words.member()?),
        "transfer" => Fault::Transfer(words.member()?),
        "join" => Fault::Join(words.member()?),
        "remove" => Fault::Remove(words.member()?),
        "auth" => Fault::Auth(AuthDeed::parse(words.word()?)?),
        "rebuild" => Fault::Rebuild(words.member()?),
        "flood" => Fault::Flood(words.member()?),
        "compact" => Fault::Compact,
        "drift" => Fault::Drift { member: words.member()?, ppm: words.number()? },
        "jump-calendar" => Fault::JumpCalendar { member: words.member()?, ms: words.number()? },
        _ => return Err("an unknown fault"),
    };
    if words.words.next().is_some() {
        return Err("more words than the fault has");
    }
    Ok(Step { at_ms, fault })
}

struct Words<'a> {
    words: std::str::SplitWhitespace<'a>,
}

impl<'a> Words<'a> {
    fn word(&mut self) -> Result<&'a str, &'static str> {
        self.words.next().ok_or("a word is missing")
    }

    fn number<T: FromStr>(&mut self) -> Result<T, &'static str> {
        self.word()?.parse().map_err(|_| "a number is wrong")
    }

    fn member(&mut self) -> Result<NodeId, &'static str> {
        NodeId::new(self.number()?).ok_or("no member has the id 0")
    }
}

#[cfg(test)]
mod tests {
    use harmony_types::fake::seed::Seed;

    use super::*;
    use crate::simulation::plan::Intensity;

    #[test]
    fn a_plan_survives_its_text() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let plan = Plan::generate(Seed(seed), Intensity::Wild, 5, 60_000);
            let text = plan.to_string();
            assert_eq!(text.parse::<Plan>().as_ref(), Ok(&plan), "{text}");
            seen.extend(
                plan.steps
                    .iter()
                    .map(|step| std::mem::discriminant(&step.fault))
                    .map(|one| format!("{one:?}")),
            );
        }
        assert!(23 <= seen.len(), "{} kinds of fault", seen.len());
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, reason) in [
            ("100 explode 1", "an unknown fault"),
            ("100 crash 1", "a word is missing"),
            ("100 crash 1 gone", "the disk's loss is kept, unsynced or torn"),
            ("100 crash-in 1 bed torn", "a process ends in a sync, apply, checkpoint or snapshot"),
            ("100 start 0", "no member has the id 0"),
            ("100 heal 1", "more words than the fault has"),
            ("soon heal", "a number is wrong"),
            ("100 heal\n\n99 heal", "it comes before the step above it"),
        ] {
            let error = text.parse::<Plan>().unwrap_err();
            assert_eq!(error.reason, reason);
            assert!(error.to_string().contains(error.text.as_str()));
        }
        let plan: Plan = "# a comment\n\n 5 heal \n".parse().unwrap();
        assert_eq!(plan.steps, [Step { at_ms: 5, fault: Fault::Heal }]);
    }
}
