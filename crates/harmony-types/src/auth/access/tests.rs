//! The union of permissions, what commands need, and who has it.

use std::convert::Infallible;

use super::*;
use crate::auth::{AuthChange, AuthChangeKind, Role};
use crate::command::{Compact, PublishMember};
use crate::lease::{LeaseGrant, LeaseRevoke};
use crate::txn::{Compare, Range};

fn range(key: &'static str, end: &'static str) -> KeyRange {
    KeyRange { key: key.into(), end: end.into() }
}

fn permission(permission: PermissionType, key: &'static str, end: &'static str) -> Permission {
    Permission { permission: permission.into(), key: key.into(), range_end: end.into() }
}

/// Root; and `u` with the roles `r` and `s`, whose permissions are given. Switched on, revision 9.
fn state(r: Vec<Permission>, s: Vec<Permission>) -> AuthState {
    let mut state = AuthState { enabled: true, revision: 9, ..AuthState::default() };
    for (name, roles) in [("root", vec!["root"]), ("u", vec!["gone", "r", "s"]), ("nobody", vec![])] {
        let roles = roles.into_iter().map(str::to_owned).collect();
        state.users.insert(name.to_owned(), User { name: name.to_owned(), roles, ..User::default() });
    }
    for (name, permissions) in [("r", r), ("s", s)] {
        state.roles.insert(name.to_owned(), Role { name: name.to_owned(), permissions });
    }
    state
}

fn author(user: &str) -> Author {
    Author { user: user.to_owned(), auth_revision: 9, by_member: false }
}

fn check(state: &AuthState, author: Option<&Author>, needs: &Needs) -> Result<(), Refusal> {
    let keys_of = |lease: LeaseId| match lease {
        LeaseId(1) => Ok(vec!["a".into(), "b".into()]),
        LeaseId(_) => Ok::<_, Infallible>(vec![]),
    };
    match state.check(author, needs, keys_of) {
        Ok(checked) => checked,
        Err(impossible) => match impossible {},
    }
}

#[test]
fn a_range_may_be_covered_by_several_permissions() {
    use PermissionType::{Read, ReadWrite, Write};
    let state = state(
        vec![permission(Read, "a", "c"), permission(Read, "p", "\0"), permission(Write, "f", "g")],
        vec![permission(ReadWrite, "b", "e"), permission(Read, "e", ""), permission(Read, "e\0", "f")],
    );
    let user = &state.users["u"];
    for (access, key, end, expected) in [
        (Access::Read, "a", "", true),
        (Access::Read, "a", "e", true),
        (Access::Read, "a", "e\0", true),
        (Access::Read, "a", "f", true),
        (Access::Read, "a", "g", false),
        (Access::Read, "a", "\0", false),
        (Access::Read, "p", "\0", true),
        (Access::Read, "z", "\0", true),
        (Access::Read, "q", "r", true),
        (Access::Read, "o", "q", false),
        (Access::Read, "\0", "\0", false),
        (Access::Read, "0", "b", false),
        (Access::Read, "e", "", true),
        (Access::Read, "f", "", false),
        (Access::Write, "a", "", false),
        (Access::Write, "b", "e", true),
        (Access::Write, "b", "e\0", false),
        (Access::Write, "f", "", true),
        (Access::Write, "f", "g", true),
        (Access::Write, "b", "g", false),
        (Access::Write, "y", "x", true),
    ] {
        assert_eq!(state.permits(user, access, &range(key, end)), expected, "{access:?} {key:?}..{end:?}");
    }
    assert!(state.permits(&state.users["root"], Access::Write, &KeyRange::all()));
    assert!(!state.permits(&state.users["nobody"], Access::Read, &range("a", "")));
}

/// Against each key one by one, on random permissions.
#[test]
fn a_range_is_permitted_when_each_of_its_keys_is() {
    const POINTS: [&str; 5] = ["a", "a\0", "b", "c", "d"];
    const ENDS: [&str; 6] = ["", "\0", "a\0", "b", "c", "d"];
    // A small generator of its own: the crate's seeds are a feature that this crate's tests may run without.
    let mut number = 1u64;
    let mut below = |bound: usize| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(number >> 33).unwrap() % bound
    };
    let (mut allowed, mut denied) = (0, 0);
    for _ in 0..20_000 {
        let permissions = (0..below(4))
            .map(|_| permission(PermissionType::Read, POINTS[below(5)], ENDS[below(6)]))
            .filter(|permission| permission.validate().is_ok())
            .collect::<Vec<_>>();
        let wanted = range(POINTS[below(5)], ENDS[below(6)]);
        // Nothing begins or ends between two of these points.
        let points = ["a", "a\0", "a\0\0", "b", "b\0", "c", "c\0", "d", "d\0"];
        let mut within = points.iter().filter(|point| wanted.contains(point.as_bytes()));
        let expected = within
            .all(|point| permissions.iter().any(|permission| permission.range().contains(point.as_bytes())));
        let state = state(permissions.clone(), vec![]);
        let found = state.permits(&state.users["u"], Access::Read, &wanted);
        assert_eq!(found, expected, "{wanted:?} by {permissions:?}");
        *if found { &mut allowed } else { &mut denied } += 1;
    }
    assert!(1_000 < allowed && 1_000 < denied, "{allowed} allowed, {denied} denied");
}

#[test]
fn each_command_needs_what_it_touches() {
    let read = |key, end| Need::Range(Access::Read, range(key, end));
    let write = |key, end| Need::Range(Access::Write, range(key, end));
    let of = |command| match Needs::of(&command) {
        Needs::User(needs) => needs,
        needs => panic!("{needs:?}"),
    };
    let put = Put { key: "a".into(), lease: 7, prev_kv: true, ..Put::default() };
    let of_put = [write("a", ""), read("a", ""), Need::Lease(LeaseId(7))];
    assert_eq!(of(CommandKind::Put(put.clone())), of_put);
    assert_eq!(of(CommandKind::Put(Put { lease: 0, prev_kv: false, ..put.clone() })), of_put[..1]);
    let delete = DeleteRange { key: "a".into(), range_end: "c".into(), prev_kv: true };
    assert_eq!(of(CommandKind::DeleteRange(delete.clone())), [write("a", "c"), read("a", "c")]);
    assert_eq!(of(CommandKind::LeaseGrant(LeaseGrant::default())), []);
    assert_eq!(of(CommandKind::LeaseRevoke(LeaseRevoke { id: 3 })), [Need::Lease(LeaseId(3))]);
    assert_eq!(Needs::of(&CommandKind::Compact(Compact::default())), Needs::Admin);
    assert_eq!(Needs::of(&CommandKind::Alarm(Default::default())), Needs::Admin);
    assert_eq!(Needs::of(&CommandKind::Auth(AuthChange::from(AuthChangeKind::Enable(false)))), Needs::Admin);
    assert_eq!(Needs::of(&CommandKind::LeaseCheckpoint(Default::default())), Needs::Nothing);
    assert_eq!(Needs::of(&CommandKind::PublishMember(PublishMember::default())), Needs::Nothing);

    let op = |kind| TxnOp { kind: Some(kind) };
    let compare = Compare { key: "c".into(), range_end: "d".into(), ..Compare::default() };
    let inner =
        Txn { compare: vec![compare.clone()], failure: vec![op(TxnOpKind::Put(put))], ..Txn::default() };
    let one = Range { key: "r".into(), ..Range::default() };
    let txn = Txn {
        compare: vec![compare],
        success: vec![op(TxnOpKind::Range(one)), op(TxnOpKind::Txn(inner))],
        failure: vec![op(TxnOpKind::DeleteRange(delete))],
    };
    let mut expected = vec![read("c", "d"), read("r", ""), read("c", "d")];
    expected.extend(of_put);
    expected.extend([write("a", "c"), read("a", "c")]);
    assert_eq!(of(CommandKind::Txn(txn)), expected, "both branches, and all within");
}

#[test]
fn nobody_gets_in_and_root_may_everything() {
    let state = state(vec![], vec![]);
    let (all, admin) = (Needs::read(KeyRange::all()), Needs::Admin);
    for needs in [&all, &admin, &Needs::User(vec![])] {
        assert_eq!(check(&state, None, needs), Err(Refusal::UserNameEmpty));
        assert_eq!(check(&state, Some(&author("")), needs), Err(Refusal::UserNameEmpty));
        assert_eq!(check(&state, Some(&author("root")), needs), Ok(()));
        let member = Author { by_member: true, ..Author::default() };
        assert_eq!(check(&state, Some(&member), needs), Ok(()));
        let off = AuthState { enabled: false, ..state.clone() };
        assert_eq!(check(&off, None, needs), Ok(()), "switched off");
    }
    assert_eq!(check(&state, None, &Needs::Nothing), Ok(()));
    assert_eq!(check(&state, Some(&author("u")), &admin), Err(Refusal::PermissionDenied));
    assert_eq!(check(&state, Some(&author("stranger")), &admin), Err(Refusal::UserNotFound));
    assert_eq!(check(&state, Some(&author("stranger")), &all), Err(Refusal::PermissionDenied));
    assert_eq!(check(&state, Some(&author("nobody")), &Needs::User(vec![])), Ok(()), "a user without roles");
}

#[test]
fn a_proof_from_before_a_change_does_not_count() {
    let state = state(vec![permission(PermissionType::Read, "a", "")], vec![]);
    let needs = Needs::read(range("a", ""));
    assert_eq!(check(&state, Some(&author("u")), &needs), Ok(()));
    for user in ["u", "root", "stranger"] {
        let old = Author { auth_revision: 8, ..author(user) };
        assert_eq!(check(&state, Some(&old), &needs), Err(Refusal::AuthRevisionOld));
    }
    let old = Author { auth_revision: 8, ..author("root") };
    assert_eq!(check(&state, Some(&old), &Needs::Admin), Ok(()), "judged by the state alone");
}

#[test]
fn a_lease_needs_all_its_keys() {
    use PermissionType::Write;
    let needs = |lease| Needs::User(vec![Need::Lease(LeaseId(lease))]);
    let part = state(vec![permission(Write, "a", "")], vec![]);
    assert_eq!(check(&part, Some(&author("u")), &needs(1)), Err(Refusal::PermissionDenied));
    assert_eq!(check(&part, Some(&author("u")), &needs(2)), Ok(()), "a lease without keys");
    let whole = state(vec![permission(Write, "a", "")], vec![permission(Write, "b", "c")]);
    assert_eq!(check(&whole, Some(&author("u")), &needs(1)), Ok(()));
}
