//! Alarms: what they stop, that they are state like any other, and how the quota leads to them.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use common::{Store, put};
use harmony_types::alarm::{AlarmChange, AlarmOutcome};
use harmony_types::command::Compact;
use harmony_types::fake::fs::Crash;
use harmony_types::lease::{LeaseGrant, LeaseRevoke};
use harmony_types::quota::{Quota, QuotaStep, cost};
use harmony_types::txn::DeleteRange;
use harmony_types::{Alarm, AlarmType, CommandKind, Outcome, OutcomeKind, Refusal, Storage};

const NO_SPACE: AlarmType = AlarmType::NoSpace;

fn raise(alarm: AlarmType, member: u64) -> CommandKind {
    CommandKind::Alarm(AlarmChange::activate(Alarm::new(alarm, member)))
}

fn clear(alarm: AlarmType, member: u64) -> CommandKind {
    CommandKind::Alarm(AlarmChange::deactivate(Alarm::new(alarm, member)))
}

fn delete(key: &'static str) -> CommandKind {
    CommandKind::DeleteRange(DeleteRange { key: key.into(), ..DeleteRange::default() })
}

#[track_caller]
fn check_alarms(store: &Store, expected: &[Alarm]) {
    let alarms = store.storage().alarms();
    assert_eq!(alarms.iter().copied().collect::<Vec<_>>(), expected);
}

#[test]
fn a_full_store_takes_no_puts_and_can_be_emptied() {
    let mut store = Store::new();
    store.run_all([CommandKind::LeaseGrant(LeaseGrant { id: 1, ttl: 60 }), put("a", "1"), put("b", "1")]);
    store.run(raise(NO_SPACE, 7));
    let refused = Outcome::refused(3, Refusal::NoSpace);
    assert_eq!(store.run(put("c", "1")), refused);
    assert_eq!(store.run(CommandKind::LeaseGrant(LeaseGrant { id: 2, ttl: 60 })), refused);
    assert_eq!(store.run(delete("a")).revision, 4);
    let compact = store.run(CommandKind::Compact(Compact { revision: 4 }));
    assert_eq!(compact.kind, Some(OutcomeKind::Compact(4)));
    store.run(CommandKind::LeaseRevoke(LeaseRevoke { id: 1 }));
    assert_eq!(store.storage().leases().unwrap(), []);
    store.run(clear(NO_SPACE, 7));
    assert_eq!(store.run(put("c", "1")).revision, 5);
}

#[test]
fn a_corrupt_member_stops_every_write() {
    let mut store = Store::new();
    store.run_all([put("a", "1"), raise(NO_SPACE, 7), raise(AlarmType::Corrupt, 8)]);
    for command in [put("a", "2"), delete("a"), CommandKind::Compact(Compact { revision: 2 })] {
        assert_eq!(store.run(command), Outcome::refused(2, Refusal::Corrupt));
    }
    assert_eq!(store.storage().query(b"a").unwrap().as_deref(), Some(&b"1"[..]), "reads go on");
    store.run(clear(AlarmType::Corrupt, 8));
    assert_eq!(store.run(put("a", "2")), Outcome::refused(2, Refusal::NoSpace));
}

#[test]
fn a_change_says_what_it_did() {
    let mut store = Store::new();
    let alarm = Alarm::new(NO_SPACE, 7);
    let outcome = |alarm| Outcome { revision: 1, kind: Some(OutcomeKind::Alarm(AlarmOutcome { alarm })) };
    assert_eq!(store.run(clear(NO_SPACE, 7)), outcome(None));
    assert_eq!(store.run(raise(NO_SPACE, 7)), outcome(Some(alarm)));
    assert_eq!(store.run(raise(NO_SPACE, 7)), outcome(Some(alarm)), "once more changes nothing");
    check_alarms(&store, &[alarm]);
    assert_eq!(store.run(clear(NO_SPACE, 8)), outcome(None), "another member's");
    assert_eq!(store.run(clear(NO_SPACE, 7)), outcome(Some(alarm)));
    check_alarms(&store, &[]);
    assert_eq!(store.run(raise(AlarmType::None, 7)), Outcome::refused(1, Refusal::Invalid));
}

#[test]
fn alarms_survive_checkpoint_crash_and_snapshot() {
    let mut store = Store::new();
    let alarms = [Alarm::new(NO_SPACE, 7), Alarm::new(AlarmType::Corrupt, 7)];
    store.run_all([raise(NO_SPACE, 7), raise(NO_SPACE, 8)]);
    store.storage().checkpoint().unwrap();
    store.run_all([raise(AlarmType::Corrupt, 7), clear(NO_SPACE, 8)]);
    let hash = store.storage().hash().unwrap();
    store.lose_power(Crash::LoseUnsynced).unwrap();
    check_alarms(&store, &alarms);
    store.move_by_snapshot();
    check_alarms(&store, &alarms);
    store.restart(true).unwrap();
    check_alarms(&store, &alarms);
    assert_eq!(store.storage().hash().unwrap(), hash);
    assert_eq!(store.run(put("a", "1")), Outcome::refused(1, Refusal::Corrupt));
}

#[test]
fn a_failed_apply_takes_alarms_back() {
    let mut store = Store::new();
    let mut entries = vec![store.entry(raise(NO_SPACE, 7)), store.entry(put("a", "1"))];
    entries[1].data = (&b"\xff\xff"[..]).into();
    store.storage().apply(&entries).unwrap_err();
    check_alarms(&store, &[]);
}

/// What a node does with the quota: asks before it proposes, raises the alarm, and clears it when there is room again.
#[test]
fn the_quota_leads_to_the_alarm_and_back() {
    let quota = Quota { bytes: 20_000 };
    let mut store = Store::new();
    let value = "v".repeat(1_000);
    let mut written = 0;
    loop {
        let command = put(&format!("k{written}"), &value);
        if !quota.admits(store.storage().live_bytes(), cost(&command)) {
            break;
        }
        store.run(command);
        store.storage().checkpoint().unwrap();
        written += 1;
    }
    assert!(3 < written && written < 20, "{written} puts fitted");
    store.run(raise(NO_SPACE, 7));
    assert_eq!(quota.step(store.storage().live_bytes(), true), QuotaStep::Keep);
    // Two deletes: the events at the compact revision itself stay, with the values that they replaced.
    let most = DeleteRange { key: "k1".into(), range_end: "l".into(), ..DeleteRange::default() };
    store.run_all([CommandKind::DeleteRange(most), delete("k0")]);
    let revision = store.storage().revision().as_i64();
    store.run(CommandKind::Compact(Compact { revision }));
    store.storage().checkpoint().unwrap();
    while store.storage().drop_compacted().unwrap() {}
    assert_eq!(quota.step(store.storage().live_bytes(), true), QuotaStep::Clear);
    store.run(clear(NO_SPACE, 7));
    assert_eq!(store.run(put("k0", "1")).revision, revision + 1);
}
