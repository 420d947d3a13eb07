//! Users, roles and what they may do, as replicated state: the state itself and the commands that change it. Passwords come
//! hashed; tokens and sessions belong to the layers above.
//!
//! - [`access`]: what a command needs, and whether its author has it: pure functions.
//! - [`change`]: what a change makes of the state.

pub mod access;
pub mod change;

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::kv::KeyRange;

/// The user without whom users and roles cannot be switched on.
pub const ROOT_USER: &str = "root";

/// The role that may do everything; it needs no permission of its own.
pub const ROOT_ROLE: &str = "root";

/// All users and roles.
///
/// Invariants: users and roles stand under their own names, which are not empty; a user's roles ascend, and so do a role's
/// permissions by key and end; a user's roles exist, but for the root role, which need not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthState {
    /// Whether permissions are asked for at all.
    pub enabled: bool,
    /// Changes so far, from 1; see [`Author::auth_revision`].
    pub revision: u64,
    /// The users by name.
    pub users: BTreeMap<String, User>,
    /// The roles by name.
    pub roles: BTreeMap<String, Role>,
}

/// Nobody, switched off.
impl Default for AuthState {
    fn default() -> Self {
        Self { enabled: false, revision: 1, users: BTreeMap::new(), roles: BTreeMap::new() }
    }
}

/// A user; also its stored form.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct User {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Whatever the proposer made of the password; empty for a user without one.
    #[prost(bytes = "bytes", tag = "2")]
    pub password_hash: Bytes,
    /// Has no password, and gets in by a certificate alone.
    #[prost(bool, tag = "3")]
    pub no_password: bool,
    /// Its roles.
    #[prost(string, repeated, tag = "4")]
    pub roles: Vec<String>,
}

/// A role; also its stored form.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Role {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What it permits.
    #[prost(message, repeated, tag = "2")]
    pub permissions: Vec<Permission>,
}

/// What a permission is for, in etcd's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum PermissionType {
    /// Reading.
    Read = 0,
    /// Writing, without reading.
    Write = 1,
    /// Both.
    ReadWrite = 2,
}

/// What a role permits on a range of keys.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Permission {
    /// See [`PermissionType`].
    #[prost(enumeration = "PermissionType", tag = "1")]
    pub permission: i32,
    /// First key, see [`KeyRange`].
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
    /// End, see [`KeyRange`].
    #[prost(bytes = "bytes", tag = "3")]
    pub range_end: Bytes,
}

impl Permission {
    /// The keys that it is for.
    #[must_use]
    pub fn range(&self) -> KeyRange {
        KeyRange { key: self.key.clone(), end: self.range_end.clone() }
    }
}

/// On whose behalf a command was proposed. A command without an author is nobody's: it is refused where one is needed.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Author {
    /// The user; empty for a client that did not say who it is.
    #[prost(string, tag = "1")]
    pub user: String,
    /// [`AuthState::revision`] when the client proved to be that user: what changed since may have been meant for it.
    #[prost(uint64, tag = "2")]
    pub auth_revision: u64,
    /// A member's own doing, such as the revoke of a lease whose time is up: nothing is asked for. Never set for a client.
    #[prost(bool, tag = "3")]
    pub by_member: bool,
}

/// A change of users, roles, or whether they count.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AuthChange {
    /// Which one. `None` after decoding is one that this release does not know.
    #[prost(oneof = "AuthChangeKind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub kind: Option<AuthChangeKind>,
}

/// The kinds of change.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum AuthChangeKind {
    /// Ask for permissions from now on, or no longer.
    #[prost(bool, tag = "1")]
    Enable(bool),
    /// Add a user. Its roles are left out.
    #[prost(message, tag = "2")]
    UserAdd(User),
    /// Remove a user, by name.
    #[prost(string, tag = "3")]
    UserDelete(String),
    /// Replace a user's password. Only name and hash count.
    #[prost(message, tag = "4")]
    UserChangePassword(User),
    /// Give a role to a user.
    #[prost(message, tag = "5")]
    UserGrantRole(UserRole),
    /// Take a role from a user.
    #[prost(message, tag = "6")]
    UserRevokeRole(UserRole),
    /// Add a role without permissions, by name.
    #[prost(string, tag = "7")]
    RoleAdd(String),
    /// Remove a role, by name, from all users too.
    #[prost(string, tag = "8")]
    RoleDelete(String),
    /// Give a permission to a role; one on the same range is replaced.
    #[prost(message, tag = "9")]
    RoleGrantPermission(RolePermission),
    /// Take the permission on a range from a role, whatever its type.
    #[prost(message, tag = "10")]
    RoleRevokePermission(RolePermission),
}

/// A user and a role.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct UserRole {
    /// The user.
    #[prost(string, tag = "1")]
    pub user: String,
    /// The role.
    #[prost(string, tag = "2")]
    pub role: String,
}

/// A role and a permission.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RolePermission {
    /// The role.
    #[prost(string, tag = "1")]
    pub role: String,
    /// The permission; always present in a valid change.
    #[prost(message, optional, tag = "2")]
    pub permission: Option<Permission>,
}

impl From<AuthChangeKind> for AuthChange {
    fn from(kind: AuthChangeKind) -> Self {
        Self { kind: Some(kind) }
    }
}
