//! The world: members, links and clients in one thread, driven by one schedule.
//!
//! Between two events nothing moves. An event is one step of one process, the arrival of one message, one deed of a client, one
//! fault of the plan. After each, the world looks at what the process wants done, plans it, and checks what must hold.

mod auth;
mod clients;
mod faults;
mod finish;
mod links;
mod steps;
mod watches;

use std::collections::BTreeMap;
use std::sync::Arc;

use harmony_node::watch::WatchMessage;
use harmony_types::fake::seed::{Seed, SeededRng};
use harmony_types::{Membership, Message, NodeId, PeerMessage, Role, SnapshotMeta};

use super::client::{Call, Replies, Session};
use super::invariants::Invariants;
use super::member::{Member, member_of_cluster};
use super::network::Network;
use super::picture::Picture;
use super::plan::{self, Fault, Plan};
use super::probes::{Probe, Probes};
use super::time::{MS, Now, Schedule};
use super::told::Told;
use super::trace::{Trace, mix};
use super::watcher::{Watcher, Woken};
use super::{Options, Report, Violation};
use crate::check::lease::ClockError;
use crate::check::log::Log;
use crate::check::search::Limits;
use crate::check::{self, Verdict, linearizable, serializable};
use crate::history::{History, OperationOutcome};

/// What the search for an order may take: a fraction of a second.
const CHECK: Limits = Limits { steps_max: 2_000_000, states_max: 200_000 };

/// What happens next.
enum Event {
    /// A step of a process.
    Step { member: NodeId, life: u64, step: Step },
    /// A message arrives.
    Message { from: NodeId, from_life: u64, to: NodeId, sent: u64, message: PeerMessage },
    /// A whole snapshot arrives.
    Snapshot(Box<SnapshotArrival>),
    /// A member learns that a peer was not reached.
    NotReached { member: NodeId, life: u64, peer: NodeId, gone: bool },
    /// A snapshot's sender learns what became of it.
    SnapshotSent { member: NodeId, life: u64, peer: NodeId, arrived: bool },
    /// A process tries to reach the peers that it has not greeted, as a transport does.
    Greet { member: NodeId, life: u64 },
    /// A client's next call.
    Next { session: usize },
    /// A call arrives at its member.
    Call { token: u64 },
    /// An answer arrives at its client.
    Answer { token: u64, outcome: OperationOutcome },
    /// A client gives a call up.
    GiveUp { token: u64 },
    /// A step of the plan.
    Fault(usize),
    /// A process is started by its supervisor.
    Restart { member: NodeId },
    /// A process that stood still goes on, if no other pause holds it.
    Resume { member: NodeId },
    /// A client begins to watch.
    Watch { watcher: usize },
    /// A watch arrives at its member.
    WatchArrives { watcher: usize, connection: u64, member: NodeId },
    /// A member reads the stream of a watch.
    Poll { watcher: usize, connection: u64 },
    /// A watch is told something.
    WatchTold { watcher: usize, connection: u64, message: Box<WatchMessage> },
    /// The connection of a watch has ended.
    WatchBroken { watcher: usize, connection: u64 },
    /// What a client does with its watch.
    WatchDeed { watcher: usize },
    /// Faults end.
    Peace,
    /// A look at whether the cluster serves again.
    Look,
}

/// A snapshot on its way.
struct SnapshotArrival {
    from: NodeId,
    from_life: u64,
    announcement: Message,
    meta: SnapshotMeta,
    content: bytes::Bytes,
}

/// A step of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Tick,
    Turn,
    Sync {
        number: u64,
        began: u64,
    },
    Apply,
    Snapshots,
    Checkpoint,
    /// The interval between two checkpoints is over.
    CheckpointDue,
    /// The tree is written anew.
    Rebuild,
    /// The watch hub takes in what was applied.
    Publish,
    /// The watch hub reads a piece of history.
    History,
    /// The lease keeper has a turn, as something came in.
    Leases,
    /// The lease keeper has a turn, as it is time.
    LeaseBeat,
}

/// See the module.
pub struct World {
    seed: Seed,
    options: Options,
    plan: Plan,
    now: Now,
    schedule: Schedule<Event>,
    trace: Trace,
    picture: Picture,
    probes: Probes,
    network: Network,
    members: BTreeMap<NodeId, Member>,
    sessions: Vec<Session>,
    watchers: Vec<Watcher>,
    /// Streams of watches that have something to read.
    woken: Arc<Woken>,
    calls: BTreeMap<u64, Call>,
    /// Membership changes under way.
    changes: BTreeMap<u64, Fault>,
    next_token: u64,
    replies: Arc<Replies>,
    history: History,
    /// When an operator asked last for permissions to be switched off.
    auth_asked: u64,
    invariants: Invariants,
    told: Told,
    violations: Vec<Violation>,
    /// How long steps take.
    pace: SeededRng,
    phase: Phase,
    /// Events that came for a process that stands still.
    held: BTreeMap<NodeId, Vec<Event>>,
}

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The plan is at work.
    Faults,
    /// Faults have ended, at this time; these sessions have not been answered a call that they made since.
    Healing { since: u64, unserved: u64 },
    /// All were served; the last calls and entries are on their way.
    Settling { since: u64 },
    /// Done.
    Over,
}

impl World {
    /// A world of this seed, with a plan that is generated from it.
    #[must_use]
    pub fn new(seed: Seed, options: Options) -> Self {
        let plan = Plan::generate(seed, options.intensity, options.members, options.length_ms);
        Self::with_plan(seed, options, plan)
    }

    /// A world of this seed, with a plan of its own.
    #[must_use]
    pub fn with_plan(seed: Seed, options: Options, plan: Plan) -> Self {
        let mut rng = Seed(mix(seed.0)).rng();
        let founders =
            (1..=options.members).filter_map(NodeId::new).map(|id| member_of_cluster(id, Role::Voter));
        let founders = Membership::from_members(founders);
        let members = founders.voters.iter().map(|id| (*id, Member::new(*id, founders.clone()))).collect();
        Self {
            seed,
            now: Now::default(),
            schedule: Schedule::new(),
            trace: Trace::new(options.keep_trace),
            picture: Picture::new(options.keep_trace),
            probes: Probes::default(),
            network: Network::new(rng.split()),
            members,
            sessions: (1..=options.clients).map(|number| Session::new(number, rng.split())).collect(),
            watchers: (0..options.watchers)
                .map(|number| Watcher::new(options.clients + 1 + number, rng.split()))
                .collect(),
            woken: Arc::default(),
            calls: BTreeMap::new(),
            changes: BTreeMap::new(),
            next_token: 0,
            replies: Arc::default(),
            history: History::default(),
            auth_asked: 0,
            invariants: Invariants::default(),
            told: Told::default(),
            violations: Vec::new(),
            pace: rng.split(),
            phase: Phase::Faults,
            held: BTreeMap::new(),
            options,
            plan,
        }
    }

    /// Runs to the end, or to the first violation.
    #[must_use]
    pub fn run(mut self) -> Report {
        let ids: Vec<NodeId> = self.members.keys().copied().collect();
        for id in ids {
            self.start(id);
        }
        for session in 0..self.sessions.len() {
            let at = self.sessions[session].think(1_000);
            self.schedule.push(at, Event::Next { session });
        }
        for watcher in 0..self.watchers.len() {
            let at = self.watchers[watcher].think();
            self.schedule.push(at, Event::Watch { watcher });
            self.schedule.push(2 * at, Event::WatchDeed { watcher });
        }
        for (number, step) in self.plan.steps.iter().enumerate() {
            self.schedule.push(step.at_ms * MS, Event::Fault(number));
        }
        self.schedule.push(self.options.length_ms * MS, Event::Peace);
        while self.phase != Phase::Over && self.violations.is_empty() {
            let Some((at, event)) = self.schedule.pop() else { break };
            self.now.set(at);
            self.handle(event);
            self.take_replies();
            self.take_woken();
        }
        self.report()
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Step { member, life, step } => self.step(member, life, step),
            Event::Message { from, from_life, to, sent, message } => {
                self.arrive(from, from_life, to, sent, message);
            }
            Event::Snapshot(arrival) => self.arrive_snapshot(arrival),
            Event::NotReached { member, life, peer, gone } => self.not_reached(member, life, peer, gone),
            Event::SnapshotSent { member, life, peer, arrived } => {
                self.snapshot_sent(member, life, peer, arrived);
            }
            Event::Greet { member, life } => self.greet_all(member, life),
            Event::Next { session } => self.call(session),
            Event::Call { token } => self.arrive_call(token),
            Event::Answer { token, outcome } => self.answer(token, outcome),
            Event::GiveUp { token } => self.give_up(token),
            Event::Fault(number) => {
                if self.phase == Phase::Faults {
                    self.fault(self.plan.steps[number]);
                }
            }
            Event::Restart { member } => self.start(member),
            Event::Resume { member } => {
                if self.members.get(&member).is_some_and(|one| one.paused_until <= self.now.get()) {
                    self.release(member);
                }
            }
            Event::Watch { watcher } => self.watch(watcher),
            Event::WatchArrives { watcher, connection, member } => {
                self.watch_arrives(watcher, connection, member);
            }
            Event::Poll { watcher, connection } => self.poll(watcher, connection),
            Event::WatchTold { watcher, connection, message } => {
                self.watch_told(watcher, connection, message);
            }
            Event::WatchBroken { watcher, connection } => self.watch_broken(watcher, connection),
            Event::WatchDeed { watcher } => self.watch_deed(watcher),
            Event::Peace => self.make_peace(),
            Event::Look => self.look(),
        }
    }

    fn violation(&mut self, what: String) {
        let at = self.now.get();
        self.trace.say(at, || format!("VIOLATION {what}"));
        self.picture.event(at, || format!("VIOLATION {what}"));
        self.violations.push(Violation { at_ms: at / MS, what });
    }

    /// Whether a member and its clients hear each other.
    fn is_cut_off(&self, member: NodeId) -> bool {
        self.members.get(&member).is_some_and(|one| self.now.get() < one.cut_off_until)
    }

    fn probe(&mut self, probe: Probe) {
        self.probes.add(probe, 1);
    }

    /// Keeps what came for a process that stands still; gives it back when it does not.
    fn hold(&mut self, member: NodeId, event: Event) -> Option<Event> {
        let paused = self.members.get(&member).is_some_and(|one| self.now.get() < one.paused_until);
        if !paused {
            return Some(event);
        }
        self.held.entry(member).or_default().push(event);
        None
    }

    /// A process goes on: what came meanwhile comes now.
    fn release(&mut self, member: NodeId) {
        let now = self.now.get();
        for event in self.held.remove(&member).unwrap_or_default() {
            self.schedule.push(now, event);
        }
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// Whether the history agrees with what happened, and is linearizable; why nobody knows, if it takes too long to find out.
    fn judge(&mut self) -> Option<String> {
        let verdict = if let Some(events) = self.told.take_whole() {
            let judged = Log::from_events(events).and_then(|log| {
                check::watch::check(&self.history, &log)?;
                check::lease::check(&self.history, &log, self.clock_error())?;
                serializable::check(&self.history, &log, &self.told.restarts)?;
                Ok(linearizable::check_with_log(&self.history, &log, CHECK))
            });
            match judged {
                Ok(verdict) => verdict,
                Err(violation) => Verdict::Violated(violation),
            }
        } else {
            linearizable::check(&self.history, CHECK)
        };
        match verdict {
            Verdict::Holds => None,
            Verdict::Undecided(reason) => Some(reason),
            Verdict::Violated(violation) => {
                self.violation(violation.to_string());
                None
            }
        }
    }

    /// How far the members' clocks may be apart.
    fn clock_error(&self) -> ClockError {
        let drift = |step: &plan::Step| match step.fault {
            Fault::Drift { ppm, .. } => ppm.unsigned_abs(),
            _ => 0,
        };
        let ppm = self.plan.steps.iter().map(drift).max().unwrap_or_default();
        ClockError { per_mille: ppm.div_ceil(1_000) }
    }

    fn report(mut self) -> Report {
        let undecided = if self.options.judge { self.judge() } else { None };
        let picture = self.picture.into_trace().map(|picture| crate::trace::Trace {
            title: format!(
                "seed {}: {}",
                self.seed,
                self.violations.first().map_or("no violation", |one| &one.what)
            ),
            nodes: self.members.keys().copied().collect(),
            history: self.history.clone(),
            ..picture
        });
        Report {
            undecided,
            seed: self.seed,
            trace_hash: self.trace.hash(),
            events: self.trace.events(),
            simulated_ms: self.now.get() / MS,
            plan: self.plan,
            history: self.history,
            probes: self.probes,
            violations: self.violations,
            trace: self.trace.into_lines(),
            picture,
        }
    }
}
