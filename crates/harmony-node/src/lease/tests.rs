//! Keepers of three members, with leaders that change, pause and do not know it: no lease ends early, and each ends.

mod faults;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use harmony_types::fake::clock::VirtualClock;
use harmony_types::fake::seed::{SeededRng, for_each_seed};
use harmony_types::lease::{LeaseGrantOutcome, LeaseRevokeOutcome};
use harmony_types::transport::ForwardError;
use harmony_types::{
    Clock, Command, CommandKind, Lease, LeaseChange, LeaseId, LeaseObserver, Leases, NodeError, NodeId,
    Outcome, OutcomeKind, PeerMessage, Refusal, StorageError, Term,
};
use prost::Message as _;

use super::*;
use crate::waiter::{ReplySink, Waiter};

const ELECTION: Duration = Duration::from_secs(1);
const BEAT: Duration = Duration::from_millis(100);

/// A cluster as a keeper sees it: who leads, what is proposed, what is applied on all members at once.
struct Cluster {
    clock: VirtualClock,
    term: u64,
    leader: usize,
    /// In which term each member believes to lead.
    believes: Vec<Option<Term>>,
    confirms: Vec<(usize, Term, Waiter<()>)>,
    /// Proposed and not yet committed: by whom, in which term.
    log: VecDeque<(usize, Term, Command, Waiter<Outcome>)>,
    leases: BTreeMap<LeaseId, Lease>,
    observers: Vec<Arc<dyn LeaseObserver>>,
    /// Until when each lease was promised to live.
    promised: BTreeMap<LeaseId, Duration>,
    revoked: u64,
    doors: Vec<Weak<dyn LeasePeers>>,
    /// Messages under way: from, to, what.
    wires: VecDeque<(usize, NodeId, PeerMessage)>,
    /// Leases cannot be read.
    is_damaged: bool,
}

type Shared = Arc<Mutex<Cluster>>;

struct Member(usize, Shared);

impl LeaseHost for Member {
    fn leadership(&self) -> Leadership {
        let cluster = self.1.lock().unwrap();
        let leader = NodeId::new(cluster.leader as u64 + 1);
        Leadership { leader, own_term: cluster.believes[self.0] }
    }

    fn confirm(&self, waiter: Waiter<()>) {
        let mut cluster = self.1.lock().unwrap();
        let term = Term(cluster.term);
        cluster.confirms.push((self.0, term, waiter));
    }

    fn propose(&self, term: Term, data: Bytes, waiter: Waiter<Outcome>) {
        let mut cluster = self.1.lock().unwrap();
        if cluster.believes[self.0] == Some(term) {
            cluster.log.push_back((self.0, term, Command::decode(data).unwrap(), waiter));
        } else {
            drop(cluster);
            waiter.complete(Err(NodeError::NotLeader { leader: None }));
        }
    }

    fn send(&self, to: NodeId, messages: Vec<PeerMessage>) {
        let mut cluster = self.1.lock().unwrap();
        cluster.wires.extend(messages.into_iter().map(|message| (self.0, to, message)));
    }

    fn attach(&self, door: Weak<dyn LeasePeers>) {
        self.1.lock().unwrap().doors.push(door);
    }
}

struct Replicated(Shared);

impl Leases for Replicated {
    fn leases(&self) -> Result<Vec<Lease>, StorageError> {
        let cluster = self.0.lock().unwrap();
        if cluster.is_damaged {
            return Err(StorageError::CrcMismatch { place: "a page".to_owned(), expected: 1, found: 2 });
        }
        Ok(cluster.leases.values().copied().collect())
    }

    fn observe_leases(&self, observer: Arc<dyn LeaseObserver>) {
        observer.replaced();
        self.0.lock().unwrap().observers.push(observer);
    }
}

/// Clients: what they asked, when, and what they heard.
#[derive(Default)]
struct Answers(Mutex<Vec<(u64, Result<i64, NodeError>)>>);

impl ReplySink<i64> for Answers {
    fn complete(&self, batch: Vec<(u64, Result<i64, NodeError>)>) {
        self.0.lock().unwrap().extend(batch);
    }
}

struct World {
    cluster: Shared,
    clock: VirtualClock,
    keepers: Vec<LeaseKeeper>,
    answers: Arc<Answers>,
    asked: Vec<(Duration, LeaseId)>,
    next_id: i64,
}

impl World {
    fn new() -> Self {
        let clock = VirtualClock::new();
        let cluster = Arc::new(Mutex::new(Cluster {
            clock: clock.clone(),
            term: 1,
            leader: 0,
            believes: vec![Some(Term(1)), None, None],
            confirms: Vec::new(),
            log: VecDeque::new(),
            leases: BTreeMap::new(),
            observers: Vec::new(),
            promised: BTreeMap::new(),
            revoked: 0,
            doors: Vec::new(),
            wires: VecDeque::new(),
            is_damaged: false,
        }));
        let keeper = |member| {
            LeaseKeeper::new(
                Arc::new(Replicated(Arc::clone(&cluster))),
                Arc::new(Member(member, Arc::clone(&cluster))),
                Arc::new(clock.clone()),
                LeaseOptions { checkpoint_interval: Duration::from_secs(20), ..LeaseOptions::new(ELECTION) },
                member as u64,
            )
        };
        let keepers = (0..3).map(keeper).collect();
        Self { cluster, clock, keepers, answers: Arc::default(), asked: Vec::new(), next_id: 0 }
    }

    fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Time goes on, and the keepers that are not paused have turns.
    fn pass(&mut self, by: Duration, paused: &[usize]) {
        self.clock.advance(by);
        for (member, keeper) in self.keepers.iter().enumerate() {
            if !paused.contains(&member) {
                keeper.step().unwrap();
            }
        }
        self.hear();
    }

    /// Commits what the leader proposed, and confirms its leadership.
    fn settle(&mut self) {
        for _ in 0..4 {
            while self.deliver() {}
            self.confirm();
            while self.commit() {}
            self.pass(Duration::ZERO, &[]);
        }
    }

    fn confirm(&self) {
        let mut cluster = self.cluster.lock().unwrap();
        let (leader, term) = (cluster.leader, Term(cluster.term));
        let confirms = std::mem::take(&mut cluster.confirms);
        let (done, waits): (Vec<_>, Vec<_>) =
            confirms.into_iter().partition(|(member, asked, _)| *member == leader && *asked == term);
        // A member that does not lead any more is asked for its own, as a follower: the round comes back all the same.
        cluster.confirms = waits;
        let lost: Vec<_> = cluster.confirms.extract_if(.., |(_, asked, _)| *asked < term).collect();
        drop(cluster);
        for (_, _, waiter) in done.into_iter().chain(lost) {
            waiter.complete(Ok(()));
        }
    }

    /// Brings the oldest message to its member.
    fn deliver(&self) -> bool {
        let mut cluster = self.cluster.lock().unwrap();
        let Some((from, to, message)) = cluster.wires.pop_front() else { return false };
        let door = cluster.doors[usize::try_from(to.get()).unwrap() - 1].upgrade().unwrap();
        drop(cluster);
        door.receive(NodeId::new(from as u64 + 1).unwrap(), message);
        true
    }

    /// Applies the first entry of the leader's log.
    fn commit(&self) -> bool {
        let mut cluster = self.cluster.lock().unwrap();
        let term = Term(cluster.term);
        let Some(at) = cluster.log.iter().position(|(_, proposed, ..)| *proposed == term) else {
            return false;
        };
        let (_, _, command, waiter) = cluster.log.remove(at).unwrap();
        let outcome = cluster.apply(command);
        drop(cluster);
        waiter.complete(Ok(outcome));
        true
    }

    /// Another member leads. What the old leader proposed survives up to `kept` entries; the old one may not know yet.
    fn elect(&mut self, leader: usize, kept: usize, old_knows: bool) {
        for _ in 0..kept {
            self.commit();
        }
        let mut cluster = self.cluster.lock().unwrap();
        cluster.term += 1;
        cluster.leader = leader;
        let term = Term(cluster.term);
        for member in 0..3 {
            if old_knows || member == leader {
                cluster.believes[member] = None;
            }
        }
        cluster.believes[leader] = Some(term);
        drop(cluster);
        self.learn();
    }

    /// Everybody hears who leads: what others proposed is lost.
    fn learn(&self) {
        let mut cluster = self.cluster.lock().unwrap();
        let believes = cluster.believes.clone();
        let lost: Vec<_> = {
            let (kept, lost) = std::mem::take(&mut cluster.log)
                .into_iter()
                .partition(|(member, term, ..)| believes[*member] == Some(*term));
            cluster.log = kept;
            let lost: VecDeque<_> = lost;
            lost.into()
        };
        drop(cluster);
        for (_, _, _, waiter) in lost {
            waiter.complete(Err(NodeError::LeaderChanged));
        }
    }

    fn all_know(&self) {
        let mut cluster = self.cluster.lock().unwrap();
        let leader = cluster.leader;
        for member in 0..3 {
            if member != leader {
                cluster.believes[member] = None;
            }
        }
        drop(cluster);
        self.learn();
    }

    fn grant(&mut self, ttl: i64) -> LeaseId {
        self.next_id += 1;
        let id = LeaseId(self.next_id);
        let mut cluster = self.cluster.lock().unwrap();
        let until = self.clock.now() + Duration::from_secs(ttl.cast_unsigned());
        cluster.promised.insert(id, until);
        let grant = harmony_types::lease::LeaseGrant { id: id.0, ttl };
        cluster.apply(CommandKind::LeaseGrant(grant).into());
        id
    }

    fn renew(&mut self, member: usize, id: LeaseId) -> u64 {
        let token = self.asked.len() as u64;
        self.asked.push((self.now(), id));
        self.keepers[member].renew(id, Waiter::new(Arc::clone(&self.answers) as _, token));
        token
    }

    /// What clients are told holds from when they asked.
    fn hear(&self) {
        let mut cluster = self.cluster.lock().unwrap();
        for (token, result) in self.answers.0.lock().unwrap().drain(..) {
            let (asked, id) = self.asked[usize::try_from(token).unwrap()];
            match result {
                Ok(0) => assert!(!cluster.leases.contains_key(&id), "{id:?} lives and was said to be gone"),
                Ok(ttl) => {
                    let until = asked + Duration::from_secs(ttl.cast_unsigned());
                    let alive = cluster.leases.contains_key(&id);
                    assert!(alive || until <= cluster.clock.now(), "{id:?} is gone and was said to live");
                    let promised = cluster.promised.entry(id).or_default();
                    *promised = until.max(*promised);
                }
                Err(_) => {}
            }
        }
    }

    fn alive(&self, id: LeaseId) -> bool {
        self.cluster.lock().unwrap().leases.contains_key(&id)
    }
}

impl Cluster {
    fn apply(&mut self, command: Command) -> Outcome {
        let (kind, changes) = match command.kind.unwrap() {
            CommandKind::LeaseGrant(grant) => {
                let id = LeaseId(grant.id);
                self.leases.insert(id, Lease { id, ttl_s: grant.ttl, remaining_ttl_s: 0 });
                let outcome = LeaseGrantOutcome { id: grant.id, ttl: grant.ttl };
                (OutcomeKind::LeaseGrant(outcome), vec![LeaseChange::Granted { id, ttl_s: grant.ttl }])
            }
            CommandKind::LeaseRevoke(revoke) => {
                let id = LeaseId(revoke.id);
                if self.leases.remove(&id).is_none() {
                    return Outcome::refused(1, Refusal::LeaseNotFound);
                }
                let (now, promised) = (self.clock.now(), self.promised[&id]);
                assert!(promised <= now, "{id:?} ended at {now:?}, promised until {promised:?}");
                self.revoked += 1;
                (OutcomeKind::LeaseRevoke(LeaseRevokeOutcome::default()), vec![LeaseChange::Revoked { id }])
            }
            CommandKind::LeaseCheckpoint(checkpoint) => {
                let mut changes = Vec::new();
                for one in checkpoint.leases {
                    let id = LeaseId(one.id);
                    if let Some(lease) = self.leases.get_mut(&id) {
                        lease.remaining_ttl_s = one.remaining_ttl;
                    }
                    changes.push(LeaseChange::Remaining { id, remaining_ttl_s: one.remaining_ttl });
                }
                (
                    OutcomeKind::LeaseCheckpoint(harmony_types::lease::LeaseCheckpointOutcome::default()),
                    changes,
                )
            }
            other => panic!("a keeper proposed {other:?}"),
        };
        for observer in &self.observers {
            observer.changed(changes.clone());
        }
        Outcome { revision: 1, kind: Some(kind) }
    }
}

#[test]
fn a_lease_ends_after_its_ttl_and_a_renewed_one_later() {
    let mut world = World::new();
    world.settle();
    let (one, other) = (world.grant(5), world.grant(5));
    world.settle();
    world.pass(Duration::from_secs(4), &[]);
    world.renew(0, other);
    world.settle();
    world.pass(Duration::from_millis(999), &[]);
    world.settle();
    assert!(world.alive(one), "not early");
    world.pass(BEAT, &[]);
    world.settle();
    assert!(!world.alive(one) && world.alive(other));
    world.pass(Duration::from_secs(4), &[]);
    world.settle();
    assert!(!world.alive(other));
}

#[test]
fn a_follower_and_a_leader_without_a_quorum_answer_nothing() {
    let mut world = World::new();
    world.settle();
    let id = world.grant(5);
    world.settle();
    world.renew(1, id);
    world.pass(Duration::ZERO, &[]);
    world.elect(1, 0, false);
    let renewed = world.renew(0, id);
    world.pass(BEAT, &[]);
    // It stands still, and nobody confirms: whatever it believes, it neither renews nor revokes.
    for _ in 0..100 {
        world.pass(BEAT, &[1, 2]);
        world.learn();
    }
    assert!(world.alive(id));
    assert_eq!(world.cluster.lock().unwrap().revoked, 0);
    let _ = renewed;
    world.all_know();
    world.settle();
    for _ in 0..100 {
        world.pass(BEAT, &[]);
        world.settle();
    }
    assert!(!world.alive(id), "the leader ends it");
}

#[test]
fn time_goes_on_counting_through_leaders_that_change_every_two_seconds() {
    let mut world = World::new();
    let ids: Vec<LeaseId> = (0..50).map(|_| world.grant(10)).collect();
    let mut gone_at = None;
    for beat in 0..1_000u32 {
        world.pass(BEAT, &[]);
        world.settle();
        if beat % 20 == 19 {
            let leader = (world.cluster.lock().unwrap().leader + 1) % 3;
            world.elect(leader, 0, true);
        }
        if ids.iter().all(|id| !world.alive(*id)) {
            gone_at.get_or_insert(world.now());
        }
    }
    let gone_at = gone_at.expect("they end");
    assert!(Duration::from_secs(10) <= gone_at && gone_at <= Duration::from_secs(40), "{gone_at:?}");
}

#[test]
fn revocations_are_paced_and_none_is_forgotten() {
    let mut world = World::new();
    world.settle();
    for _ in 0..5_000 {
        world.grant(2);
    }
    world.settle();
    world.pass(Duration::from_secs(2), &[]);
    let mut most = 0;
    for second in 0..15 {
        let before = world.cluster.lock().unwrap().revoked;
        for _ in 0..10 {
            world.pass(BEAT, &[]);
            world.settle();
        }
        most = most.max(world.cluster.lock().unwrap().revoked - before);
        if second == 1 {
            world.elect(1, 1, true);
        }
    }
    assert!(most <= 1_100, "{most} in a second");
    assert_eq!(world.cluster.lock().unwrap().leases.len(), 0);
}

#[test]
fn a_follower_asks_the_leader_once_and_ends_each_call_once() {
    let mut world = World::new();
    world.settle();
    let id = world.grant(5);
    world.settle();
    let heard = |world: &mut World| std::mem::take(&mut *world.answers.0.lock().unwrap());
    let turn = |world: &World| {
        for keeper in &world.keepers {
            keeper.step().unwrap();
        }
    };
    let wires = |world: &World| world.cluster.lock().unwrap().wires.len();

    // Renewed, and one that is not there: answered behind a round that the leader began after it was asked.
    let (renewed, gone) = (world.renew(1, id), world.renew(1, LeaseId(99)));
    turn(&world);
    assert_eq!(wires(&world), 2);
    while world.deliver() {}
    turn(&world);
    assert!(heard(&mut world).is_empty() && wires(&world) == 0, "not on a belief");
    world.confirm();
    turn(&world);
    while world.deliver() {}
    turn(&world);
    let mut ends = heard(&mut world);
    ends.sort_by_key(|(token, _)| *token);
    assert!(
        matches!(ends[..], [(one, Ok(5)), (other, Ok(0))] if (one, other) == (renewed, gone)),
        "{ends:?}"
    );

    // An answer that nobody waits for, or that somebody else gives, ends nothing.
    let asked = world.renew(1, id);
    turn(&world);
    let call = world.cluster.lock().unwrap().wires.pop_front().unwrap().2;
    let PeerMessage::LeaseCall { request, .. } = call else { panic!("{call:?}") };
    let reply = |request| PeerMessage::LeaseReply { request, result: Ok(None) };
    let door = world.cluster.lock().unwrap().doors[1].upgrade().unwrap();
    let member = |number| NodeId::new(number).unwrap();
    door.receive(member(3), reply(request));
    door.receive(member(1), reply(request + 1));
    turn(&world);
    assert!(heard(&mut world).is_empty());
    // The leader may not have heard it: whoever called may call again.
    door.unreachable(member(3));
    turn(&world);
    assert!(heard(&mut world).is_empty(), "another member's trouble");
    door.unreachable(member(1));
    turn(&world);
    let ends = heard(&mut world);
    assert!(matches!(ends[..], [(token, Err(NodeError::LeaderChanged))] if token == asked), "{ends:?}");

    // Nothing comes back.
    let asked = world.renew(1, id);
    turn(&world);
    world.cluster.lock().unwrap().wires.clear();
    world.clock.advance(3 * ELECTION);
    turn(&world);
    let ends = heard(&mut world);
    assert!(matches!(ends[..], [(token, Err(NodeError::LeaderChanged))] if token == asked), "{ends:?}");

    // The leader is another before it answers, and the one that was asked passes nothing on.
    let asked = world.renew(1, id);
    turn(&world);
    world.elect(2, 0, true);
    while world.deliver() {}
    turn(&world);
    let ends = heard(&mut world);
    assert!(matches!(ends[..], [(token, Err(NodeError::LeaderChanged))] if token == asked), "{ends:?}");
    let left = std::mem::take(&mut world.cluster.lock().unwrap().wires);
    let not_leader = |(from, to, message): &(usize, NodeId, PeerMessage)| {
        (*from, to.get()) == (0, 2)
            && matches!(message, PeerMessage::LeaseReply { result: Err(ForwardError::NotLeader), .. })
    };
    assert!(left.len() == 1 && left.iter().all(not_leader), "{left:?}");
}

fn random_life(rng: &mut SeededRng) {
    let mut world = World::new();
    let mut paused: Vec<usize> = Vec::new();
    for _ in 0..1_500 {
        match rng.below(30) {
            0..12 => {
                let by = *rng.pick(&[10, 50, 100, 300, 900]);
                world.pass(Duration::from_millis(by), &paused);
            }
            12..14 => drop(world.deliver()),
            14..16 => world.confirm(),
            16..21 => drop(world.commit()),
            21 => drop(world.grant(rng.range(2..30).cast_signed())),
            22..26 => {
                let ids: Vec<LeaseId> = world.cluster.lock().unwrap().promised.keys().copied().collect();
                if !ids.is_empty() {
                    let recent = ids.len().saturating_sub(6);
                    let id = ids[rng.index(recent..ids.len())];
                    let member = rng.index(0..3);
                    world.renew(member, id);
                }
            }
            26 if rng.chance(1, 6) => {
                // No two leaders within the time of an election.
                let (leader, kept, knows) = (rng.index(0..3), rng.index(0..4), rng.chance(1, 2));
                world.elect(leader, kept, knows);
            }
            27 => world.all_know(),
            28 if rng.chance(1, 4) => {
                let member = rng.index(0..3);
                if paused.contains(&member) {
                    paused.retain(|other| *other != member);
                } else {
                    paused.push(member);
                }
            }
            29 if rng.chance(1, 2) => drop(world.cluster.lock().unwrap().wires.pop_front()),
            29 if rng.chance(1, 5) => world.pass(Duration::from_secs(40), &paused),
            _ => {}
        }
    }
    world.all_know();
    let longest = Duration::from_secs(31);
    let end = world.now() + longest + 4 * ELECTION;
    while world.now() < end {
        world.pass(BEAT, &[]);
        world.settle();
    }
    let left = world.cluster.lock().unwrap().leases.len();
    assert_eq!(left, 0, "every lease ends once its time and a new leader's grace are over");
}

#[test]
fn whatever_leaders_do_no_lease_ends_early_and_all_end() {
    for_each_seed(1..16, 4, |_, rng| random_life(rng));
}
