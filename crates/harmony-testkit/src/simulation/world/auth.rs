//! Users and roles while the cluster is under way: what an operator changes, and on whose behalf clients' commands are proposed.
//!
//! That all members decide the same at each place of the log is part of their rolling hash, which takes in every refusal; that what was
//! refused changed nothing is the judges' to see.

use std::sync::Arc;

use bytes::Bytes;
use harmony_node::Waiter;
use harmony_types::auth::{
    AuthChange, AuthChangeKind, Author, Permission, PermissionType, ROOT_ROLE, ROOT_USER, RolePermission,
    User, UserRole,
};
use harmony_types::{Command, CommandKind, KeyRange, NodeId};

use super::World;
use crate::simulation::member::Process;
use crate::simulation::plan::AuthDeed;
use crate::simulation::time::SECOND;

/// The role of all clients.
const ROLE: &str = "clients";
/// How long an operator waits before permissions are switched off again.
const PATIENCE: u64 = SECOND;

/// A client's user.
fn user(session: usize) -> String {
    format!("client {session}")
}

impl World {
    /// An operator changes users and roles.
    pub(super) fn change_auth(&mut self, deed: AuthDeed) {
        let Some(id) = self.somebody() else { return };
        let changes = match deed {
            AuthDeed::Enable => self.enable(),
            AuthDeed::Narrow => {
                vec![
                    AuthChangeKind::RoleRevokePermission(all_keys()),
                    AuthChangeKind::RoleGrantPermission(some_keys()),
                ]
            }
            AuthDeed::Widen => vec![AuthChangeKind::RoleGrantPermission(all_keys())],
            AuthDeed::Disable => vec![AuthChangeKind::Enable(false)],
        };
        for change in changes {
            self.propose_as_root(id, CommandKind::Auth(AuthChange::from(change)));
        }
        self.follow_up(id);
    }

    fn propose_as_root(&mut self, id: NodeId, kind: CommandKind) {
        // No call has this number: nobody waits for the answer.
        let token = self.token();
        let Some(process) = self.members.get(&id).and_then(|member| member.process.as_ref()) else { return };
        let command = Command { kind: Some(kind), author: Some(author(process, ROOT_USER.to_owned())) };
        process.handle.propose(command.encode_to_bytes(), Waiter::new(Arc::clone(&self.replies) as _, token));
    }

    /// All users with their roles, and permissions switched on. What is there already is refused.
    fn enable(&self) -> Vec<AuthChangeKind> {
        let add = |name: String| {
            let user = User { name, password_hash: Bytes::from_static(b"hash"), ..User::default() };
            AuthChangeKind::UserAdd(user)
        };
        let grant = |user: String, role: &str| {
            AuthChangeKind::UserGrantRole(UserRole { user, role: role.to_owned() })
        };
        let mut changes = vec![
            add(ROOT_USER.to_owned()),
            AuthChangeKind::RoleAdd(ROOT_ROLE.to_owned()),
            grant(ROOT_USER.to_owned(), ROOT_ROLE),
            AuthChangeKind::RoleAdd(ROLE.to_owned()),
            AuthChangeKind::RoleGrantPermission(all_keys()),
        ];
        for session in 0..self.sessions.len() {
            changes.extend([add(user(session)), grant(user(session), ROLE)]);
        }
        changes.push(AuthChangeKind::Enable(true));
        changes
    }

    /// On whose behalf a call is proposed at the member that it came to: `None` is the operator.
    pub(super) fn author_of(&self, session: Option<usize>, process: &Process) -> Author {
        author(process, session.map_or_else(|| ROOT_USER.to_owned(), user))
    }

    /// Has permissions switched off, until they are: clients that may do nothing cannot be served.
    pub(super) fn disable_auth(&mut self) {
        let now = self.now.get();
        let is_on = |process: &Process| process.storage.auth().enabled;
        let any = self.members.values().filter_map(|member| member.process.as_ref()).any(is_on);
        if any && self.auth_asked + PATIENCE <= now {
            self.auth_asked = now;
            self.change_auth(AuthDeed::Disable);
        }
    }
}

/// What a member knows of a user that has proved who it is.
fn author(process: &Process, user: String) -> Author {
    Author { user, auth_revision: process.storage.auth().revision, by_member: false }
}

fn permission(keys: KeyRange) -> RolePermission {
    let KeyRange { key, end: range_end } = keys;
    let permission = Permission { permission: PermissionType::ReadWrite.into(), key, range_end };
    RolePermission { role: ROLE.to_owned(), permission: Some(permission) }
}

fn all_keys() -> RolePermission {
    permission(KeyRange::prefix(b"k"))
}

fn some_keys() -> RolePermission {
    permission(KeyRange { key: Bytes::from_static(b"k0"), end: Bytes::from_static(b"k3") })
}
