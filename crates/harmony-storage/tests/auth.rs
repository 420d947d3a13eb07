//! Users and roles as state: judged where a command stands in the log, and kept through whatever the store goes through.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use common::{Store, put};
use harmony_types::alarm::AlarmChange;
use harmony_types::auth::{AuthChangeKind, Permission, PermissionType, RolePermission, User, UserRole};
use harmony_types::command::{Compact, PublishMember};
use harmony_types::fake::fs::Crash;
use harmony_types::lease::{LeaseCheckpoint, LeaseGrant, LeaseRevoke};
use harmony_types::txn::{DeleteRange, Put, Txn, TxnOp, TxnOpKind};
use harmony_types::{Alarm, AlarmType, Author, Command, CommandKind, Outcome, OutcomeKind, Refusal, Storage};

fn auth(change: AuthChangeKind) -> CommandKind {
    CommandKind::Auth(change.into())
}

fn user_add(name: &str) -> CommandKind {
    let (name, password_hash) = (name.to_owned(), "hash".into());
    auth(AuthChangeKind::UserAdd(User { name, password_hash, ..User::default() }))
}

fn user_role(user: &str, role: &str) -> UserRole {
    UserRole { user: user.to_owned(), role: role.to_owned() }
}

fn permit(role: &str, key: &'static str, end: &'static str) -> CommandKind {
    let permission = PermissionType::ReadWrite.into();
    let permission = Permission { permission, key: key.into(), range_end: end.into() };
    let request = RolePermission { role: role.to_owned(), permission: Some(permission) };
    auth(AuthChangeKind::RoleGrantPermission(request))
}

/// Root and `u`, who may use the keys from `a` up to `c`; switched on.
fn store() -> Store {
    let mut store = Store::new();
    store.run_all([user_add("root"), auth(AuthChangeKind::UserGrantRole(user_role("root", "root")))]);
    store.run_all([user_add("u"), auth(AuthChangeKind::RoleAdd("r".to_owned()))]);
    store.run_all([auth(AuthChangeKind::UserGrantRole(user_role("u", "r"))), permit("r", "a", "c")]);
    let outcome = store.run(auth(AuthChangeKind::Enable(true)));
    assert_eq!(outcome, Outcome { revision: 1, kind: Some(OutcomeKind::Auth(7)) });
    store
}

/// A command of a user who logged in just now.
fn by(store: &Store, user: &str, kind: CommandKind) -> Command {
    let auth_revision = store.storage().auth().revision;
    Command::by(Author { user: user.to_owned(), auth_revision, by_member: false }, kind)
}

#[track_caller]
fn run_by(store: &mut Store, user: &str, kind: CommandKind) -> Outcome {
    let command = by(store, user, kind);
    store.run(command)
}

#[track_caller]
fn check_denied(store: &mut Store, user: &str, kind: CommandKind, refusal: Refusal) {
    let before = (store.storage().revision(), store.storage().auth());
    let outcome = run_by(store, user, kind);
    assert_eq!(outcome, Outcome::refused(before.0.as_i64(), refusal));
    assert_eq!((store.storage().revision(), store.storage().auth()), before);
}

#[test]
fn a_user_writes_what_its_roles_permit_and_nothing_else() {
    let mut store = store();
    assert_eq!(run_by(&mut store, "u", put("a", "1")).revision, 2);
    check_denied(&mut store, "u", put("c", "1"), Refusal::PermissionDenied);
    check_denied(&mut store, "stranger", put("a", "1"), Refusal::PermissionDenied);
    check_denied(&mut store, "", put("a", "1"), Refusal::UserNameEmpty);
    assert_eq!(run_by(&mut store, "root", put("c", "1")).revision, 3);
    assert_eq!(store.run(put("a", "1")), Outcome::refused(3, Refusal::UserNameEmpty), "nobody's command");
    let delete = |end: &'static str| {
        let range_end = end.into();
        CommandKind::DeleteRange(DeleteRange { key: "a".into(), range_end, ..DeleteRange::default() })
    };
    check_denied(&mut store, "u", delete("d"), Refusal::PermissionDenied);
    assert_eq!(run_by(&mut store, "u", delete("c")).revision, 4);
    let op =
        |key: &'static str| TxnOp { kind: Some(TxnOpKind::Put(Put { key: key.into(), ..Put::default() })) };
    let txn = |success, failure| CommandKind::Txn(Txn { compare: vec![], success, failure });
    let not_taken = txn(vec![op("a")], vec![op("c")]);
    check_denied(&mut store, "u", not_taken, Refusal::PermissionDenied);
    assert_eq!(run_by(&mut store, "u", txn(vec![op("a")], vec![op("b")])).revision, 5);
}

#[test]
fn what_administers_is_for_root_and_members() {
    let mut store = store();
    run_by(&mut store, "u", put("a", "1"));
    let alarm = Alarm::new(AlarmType::NoSpace, 7);
    for command in [
        CommandKind::Compact(Compact { revision: 2 }),
        CommandKind::Alarm(AlarmChange::activate(alarm)),
        user_add("v"),
        auth(AuthChangeKind::Enable(false)),
    ] {
        check_denied(&mut store, "u", command.clone(), Refusal::PermissionDenied);
        check_denied(&mut store, "stranger", command.clone(), Refusal::UserNotFound);
        check_denied(&mut store, "", command, Refusal::UserNameEmpty);
    }
    let compacted = run_by(&mut store, "root", CommandKind::Compact(Compact { revision: 2 }));
    assert_eq!(compacted.kind, Some(OutcomeKind::Compact(2)));
    // A member raises its alarm, ends leases and tells its name with nobody logged in.
    let member = Author { by_member: true, ..Author::default() };
    store.run(Command::by(member.clone(), CommandKind::Alarm(AlarmChange::activate(alarm))));
    assert!(store.storage().alarms().any(AlarmType::NoSpace));
    store.run(Command::by(member, CommandKind::Alarm(AlarmChange::deactivate(alarm))));
    let published = store.run(CommandKind::PublishMember(PublishMember::default()));
    assert_eq!(published.kind, Some(OutcomeKind::PublishMember(false)));
    let checkpoint = store.run(CommandKind::LeaseCheckpoint(LeaseCheckpoint::default()));
    assert!(matches!(checkpoint.kind, Some(OutcomeKind::LeaseCheckpoint(_))));
}

#[test]
fn a_lease_is_touched_by_those_who_may_write_its_keys() {
    let mut store = store();
    run_by(&mut store, "u", CommandKind::LeaseGrant(LeaseGrant { id: 1, ttl: 60 }));
    let leased = |key: &'static str| CommandKind::Put(Put { key: key.into(), lease: 1, ..Put::default() });
    run_by(&mut store, "u", leased("a"));
    run_by(&mut store, "root", leased("z"));
    check_denied(&mut store, "u", leased("b"), Refusal::PermissionDenied);
    check_denied(&mut store, "u", CommandKind::LeaseRevoke(LeaseRevoke { id: 1 }), Refusal::PermissionDenied);
    let unknown = CommandKind::LeaseRevoke(LeaseRevoke { id: 2 });
    check_denied(&mut store, "u", unknown, Refusal::LeaseNotFound);
    check_denied(
        &mut store,
        "",
        CommandKind::LeaseGrant(LeaseGrant { id: 2, ttl: 60 }),
        Refusal::UserNameEmpty,
    );
    run_by(&mut store, "root", put("z", "1"));
    let revoked = run_by(&mut store, "u", CommandKind::LeaseRevoke(LeaseRevoke { id: 1 }));
    assert!(matches!(revoked.kind, Some(OutcomeKind::LeaseRevoke(_))));
}

/// Proposed while it was permitted, applied when it no longer is: in one batch, even.
#[test]
fn a_change_between_proposal_and_apply_counts() {
    let mut store = store();
    let write = by(&store, "u", put("a", "1"));
    let other = by(&store, "root", user_add("v"));
    let outcomes = store.run_all([write.clone(), other, write.clone()]);
    assert_eq!(outcomes[0].revision, 2);
    assert_eq!(outcomes[2], Outcome::refused(2, Refusal::AuthRevisionOld), "log in again");
    run_by(&mut store, "u", put("a", "2"));

    let revoke = auth(AuthChangeKind::UserRevokeRole(user_role("u", "r")));
    run_by(&mut store, "root", revoke);
    check_denied(&mut store, "u", put("a", "3"), Refusal::PermissionDenied);

    // An administrator who is none any more.
    run_by(&mut store, "root", auth(AuthChangeKind::UserGrantRole(user_role("u", "root"))));
    let last = by(&store, "u", user_add("w"));
    let revoke = by(&store, "root", auth(AuthChangeKind::UserRevokeRole(user_role("u", "root"))));
    let outcomes = store.run_all([revoke, last]);
    assert_eq!(outcomes[1], Outcome::refused(3, Refusal::PermissionDenied));
}

#[test]
fn users_and_roles_survive_checkpoint_crash_and_snapshot() {
    let mut store = store();
    store.storage().checkpoint().unwrap();
    run_by(&mut store, "root", user_add("v"));
    run_by(&mut store, "root", auth(AuthChangeKind::UserGrantRole(user_role("v", "r"))));
    run_by(&mut store, "root", auth(AuthChangeKind::UserDelete("u".to_owned())));
    let (state, hash) = (store.storage().auth(), store.storage().hash().unwrap());
    assert_eq!(state.users.keys().collect::<Vec<_>>(), ["root", "v"]);
    store.lose_power(Crash::LoseUnsynced).unwrap();
    assert_eq!(store.storage().auth(), state);
    store.move_by_snapshot();
    assert_eq!(store.storage().auth(), state);
    store.restart(true).unwrap();
    assert_eq!(store.storage().auth(), state);
    assert_eq!(store.storage().hash().unwrap(), hash);
    run_by(&mut store, "root", auth(AuthChangeKind::RoleDelete("r".to_owned())));
    store.restart(true).unwrap();
    assert!(store.storage().auth().users["v"].roles.is_empty());
    assert!(store.storage().auth().roles.is_empty());
}

#[test]
fn a_failed_apply_takes_users_back() {
    let mut store = store();
    let before = store.storage().auth();
    let (add, off) =
        (by(&store, "root", user_add("v")), by(&store, "root", auth(AuthChangeKind::Enable(false))));
    let mut entries = vec![store.entry(add), store.entry(off), store.entry(put("a", "1"))];
    entries[2].data = (&b"\xff\xff"[..]).into();
    store.storage().apply(&entries).unwrap_err();
    assert_eq!(store.storage().auth(), before);
    check_denied(&mut Store::new(), "u", auth(AuthChangeKind::Enable(true)), Refusal::RootUserMissing);
}
