//! What goes wrong around a keeper, and what piles up in it.

use harmony_types::lease::LeaseRevoke;

use super::*;

/// Seconds until which tests wait.
const LONG_S: u32 = 30;

#[test]
fn a_turn_that_cannot_read_the_leases_loses_no_end_of_a_call() {
    let mut world = World::new();
    world.settle();
    let id = world.grant(5);
    world.settle();
    let renewed = world.renew(0, id);
    world.pass(Duration::ZERO, &[]);
    // The round that the renewal waits for comes back together with word that the leases are to be read anew.
    let observers = world.cluster.lock().unwrap().observers.clone();
    observers[0].replaced();
    world.cluster.lock().unwrap().is_damaged = true;
    world.confirm();
    assert!(world.keepers[0].step().is_err());
    let refused = world.renew(0, id);
    assert!(world.keepers[0].step().is_err());
    let heard = std::mem::take(&mut *world.answers.0.lock().unwrap());
    assert!(
        matches!(heard[..], [(token, Err(NodeError::Busy))] if token == refused),
        "who asks meanwhile is refused at once: {heard:?}"
    );
    world.cluster.lock().unwrap().is_damaged = false;
    world.keepers[0].step().unwrap();
    let heard = std::mem::take(&mut *world.answers.0.lock().unwrap());
    assert!(
        matches!(heard[..], [(token, Ok(5))] if token == renewed),
        "the round is not asked for twice: {heard:?}"
    );
    for _ in 0..10 * LONG_S {
        world.pass(BEAT, &[]);
        world.settle();
    }
    assert!(!world.alive(id), "it ends all the same");
}

#[test]
fn a_revocation_whose_end_comes_while_the_leases_cannot_be_read_leaves_room_for_others() {
    let mut world = World::new();
    world.settle();
    let many: Vec<LeaseId> = (0..200).map(|_| world.grant(2)).collect();
    world.settle();
    world.pass(Duration::from_secs(2), &[]);
    world.confirm();
    world.pass(Duration::ZERO, &[]);
    let observers = world.cluster.lock().unwrap().observers.clone();
    observers[0].replaced();
    world.cluster.lock().unwrap().is_damaged = true;
    while world.commit() {}
    assert!(world.keepers[0].step().is_err());
    world.cluster.lock().unwrap().is_damaged = false;
    for _ in 0..10 * LONG_S {
        world.pass(BEAT, &[]);
        world.settle();
    }
    assert!(many.iter().all(|id| !world.alive(*id)), "all of them end");
}

#[test]
fn leases_that_were_revoked_long_before_their_time_leave_nothing_behind() {
    let mut world = World::new();
    world.settle();
    for _ in 0..10_000 {
        let id = world.grant(1_000_000_000);
        let mut cluster = world.cluster.lock().unwrap();
        // A client gives it back, whatever it was promised.
        cluster.promised.insert(id, Duration::ZERO);
        let outcome = cluster.apply(CommandKind::LeaseRevoke(LeaseRevoke { id: id.0 }).into());
        assert!(!matches!(outcome.kind, Some(OutcomeKind::Refused(_))));
        drop(cluster);
        world.keepers[0].step().unwrap();
    }
    let deadlines = world.keepers[0].deadline_count();
    assert!(deadlines <= 1_025, "{deadlines} moments to look at no lease");
}
