//! Each change, its refusals, and what it does to the revision.

use super::*;

fn kinds(state: &mut AuthState, changes: impl IntoIterator<Item = AuthChangeKind>) {
    for change in changes {
        state.change(&change.clone().into()).unwrap_or_else(|refusal| panic!("{change:?}: {refusal:?}"));
    }
}

fn user(name: &str) -> User {
    User { name: name.to_owned(), password_hash: "hash".into(), ..User::default() }
}

fn grant(user: &str, role: &str) -> AuthChangeKind {
    AuthChangeKind::UserGrantRole(UserRole { user: user.to_owned(), role: role.to_owned() })
}

fn revoke(user: &str, role: &str) -> AuthChangeKind {
    AuthChangeKind::UserRevokeRole(UserRole { user: user.to_owned(), role: role.to_owned() })
}

fn on_role(role: &str, permission: PermissionType, key: &'static str, end: &'static str) -> RolePermission {
    let permission = Permission { permission: permission.into(), key: key.into(), range_end: end.into() };
    RolePermission { role: role.to_owned(), permission: Some(permission) }
}

fn permit(role: &str, permission: PermissionType, key: &'static str, end: &'static str) -> AuthChangeKind {
    AuthChangeKind::RoleGrantPermission(on_role(role, permission, key, end))
}

/// Root and one more user with one more role, switched on; revision 6.
fn state() -> AuthState {
    let mut state = AuthState::default();
    let add = |name: &str| AuthChangeKind::UserAdd(user(name));
    kinds(&mut state, [add("root"), grant("root", "root"), add("u")]);
    kinds(
        &mut state,
        [AuthChangeKind::RoleAdd("r".to_owned()), grant("u", "r"), AuthChangeKind::Enable(true)],
    );
    assert_eq!(state.revision, 6);
    state
}

#[track_caller]
fn check_refused(state: &AuthState, change: AuthChangeKind, refusal: Refusal) {
    let mut copy = state.clone();
    assert_eq!(copy.change(&change.into()), Err(refusal));
    assert_eq!(&copy, state, "a refused change changes nothing");
}

#[test]
fn switching_on_needs_root_and_is_done_once() {
    let mut state = AuthState::default();
    check_refused(&state, AuthChangeKind::Enable(true), Refusal::RootUserMissing);
    kinds(&mut state, [AuthChangeKind::UserAdd(user("root"))]);
    check_refused(&state, AuthChangeKind::Enable(true), Refusal::RootRoleMissing);
    kinds(&mut state, [grant("root", "root")]);
    assert_eq!(state.revision, 3);
    assert_eq!(state.change(&AuthChangeKind::Enable(true).into()), Ok(Some(Touched::default())));
    assert_eq!(state.change(&AuthChangeKind::Enable(true).into()), Ok(None));
    assert_eq!((state.enabled, state.revision), (true, 3));
    assert_eq!(state.change(&AuthChangeKind::Enable(false).into()), Ok(Some(Touched::default())));
    assert_eq!(state.change(&AuthChangeKind::Enable(false).into()), Ok(None));
    assert_eq!((state.enabled, state.revision), (false, 4));
}

#[test]
fn while_switched_on_root_stays() {
    let mut state = state();
    kinds(&mut state, [AuthChangeKind::RoleAdd("root".to_owned())]);
    let changes = [
        AuthChangeKind::UserDelete("root".to_owned()),
        AuthChangeKind::RoleDelete("root".to_owned()),
        revoke("root", "root"),
    ];
    for change in changes.clone() {
        check_refused(&state, change, Refusal::InvalidAuthManagement);
    }
    kinds(&mut state, [AuthChangeKind::Enable(false)]);
    let [delete_user, delete_role, revoke_role] = changes;
    kinds(&mut state, [revoke_role, delete_role, delete_user]);
    assert!(!state.users.contains_key("root") && !state.roles.contains_key("root"));
}

#[test]
fn what_is_not_there_or_is_there_already_is_refused() {
    let state = state();
    let no_permission = RolePermission { role: "r".to_owned(), permission: None };
    let read = PermissionType::Read;
    for (change, refusal) in [
        (AuthChangeKind::UserAdd(user("")), Refusal::UserNameEmpty),
        (AuthChangeKind::UserAdd(user("u")), Refusal::UserExists),
        (AuthChangeKind::UserAdd(User { name: "w".to_owned(), ..User::default() }), Refusal::Invalid),
        (AuthChangeKind::UserDelete("w".to_owned()), Refusal::UserNotFound),
        (AuthChangeKind::UserChangePassword(user("w")), Refusal::UserNotFound),
        (grant("w", "r"), Refusal::UserNotFound),
        (grant("u", "s"), Refusal::RoleNotFound),
        (revoke("w", "r"), Refusal::UserNotFound),
        (revoke("u", "s"), Refusal::RoleNotGranted),
        (AuthChangeKind::RoleAdd(String::new()), Refusal::RoleNameEmpty),
        (AuthChangeKind::RoleAdd("r".to_owned()), Refusal::RoleExists),
        (AuthChangeKind::RoleDelete("s".to_owned()), Refusal::RoleNotFound),
        (AuthChangeKind::RoleGrantPermission(no_permission.clone()), Refusal::PermissionNotGiven),
        (AuthChangeKind::RoleRevokePermission(no_permission), Refusal::PermissionNotGiven),
        (permit("s", read, "a", ""), Refusal::RoleNotFound),
        (permit("r", read, "", ""), Refusal::InvalidAuthManagement),
        (permit("r", read, "b", "a"), Refusal::InvalidAuthManagement),
        (AuthChangeKind::RoleRevokePermission(on_role("s", read, "a", "")), Refusal::RoleNotFound),
        (AuthChangeKind::RoleRevokePermission(on_role("r", read, "a", "")), Refusal::PermissionNotGranted),
    ] {
        check_refused(&state, change, refusal);
    }
    let mut unknown = state;
    assert_eq!(unknown.change(&AuthChange { kind: None }), Err(Refusal::Invalid));
    let mut other = on_role("r", read, "a", "");
    other.permission.as_mut().unwrap().permission = 3;
    check_refused(&unknown, AuthChangeKind::RoleGrantPermission(other), Refusal::Invalid);
}

#[test]
fn a_role_granted_twice_changes_nothing() {
    let mut state = state();
    assert_eq!(state.change(&grant("u", "r").into()), Ok(None));
    assert_eq!(state.revision, 6);
    kinds(&mut state, [AuthChangeKind::RoleAdd("a".to_owned()), grant("u", "a")]);
    assert_eq!(state.users["u"].roles, ["a", "r"], "in order");
}

#[test]
fn a_deleted_role_is_taken_from_its_users() {
    let mut state = state();
    let touched = state.change(&AuthChangeKind::RoleDelete("r".to_owned()).into());
    let expected = Touched { users: vec!["u".to_owned()], roles: vec!["r".to_owned()] };
    assert_eq!(touched, Ok(Some(expected)));
    assert!(state.users["u"].roles.is_empty());
    assert_eq!(state.revision, 7);
}

#[test]
fn a_user_without_password_never_gets_one() {
    let mut state = state();
    let cert = User { no_password: true, roles: vec!["r".to_owned()], ..user("cert") };
    kinds(&mut state, [AuthChangeKind::UserAdd(cert), AuthChangeKind::UserChangePassword(user("cert"))]);
    let expected = User { name: "cert".to_owned(), no_password: true, ..User::default() };
    assert_eq!(state.users["cert"], expected, "roles come by grants alone");
    let new = User { password_hash: "new".into(), ..user("u") };
    kinds(&mut state, [AuthChangeKind::UserChangePassword(new)]);
    assert_eq!(state.users["u"].password_hash, "new");
    assert_eq!(state.users["u"].roles, ["r"]);
    let empty = User { name: "u".to_owned(), ..User::default() };
    check_refused(&state, AuthChangeKind::UserChangePassword(empty), Refusal::Invalid);
}

#[test]
fn a_permission_on_the_same_range_is_replaced() {
    let mut state = state();
    let ranges = |state: &AuthState| {
        let of = |permission: &Permission| {
            (permission.permission, permission.key.clone(), permission.range_end.clone())
        };
        state.roles["r"].permissions.iter().map(of).collect::<Vec<_>>()
    };
    kinds(
        &mut state,
        [
            permit("r", PermissionType::Read, "b", ""),
            permit("r", PermissionType::Read, "a", "c"),
            permit("r", PermissionType::Read, "a", ""),
            permit("r", PermissionType::ReadWrite, "a", "c"),
        ],
    );
    let expected = [(0, "a".into(), "".into()), (2, "a".into(), "c".into()), (0, "b".into(), "".into())];
    assert_eq!(ranges(&state), expected);
    kinds(&mut state, [AuthChangeKind::RoleRevokePermission(on_role("r", PermissionType::Read, "a", "c"))]);
    assert_eq!(ranges(&state), [expected[0].clone(), expected[2].clone()]);
    assert_eq!(state.revision, 11);
}
