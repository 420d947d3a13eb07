//! Users and roles in the plainest form, and permissions judged key by key.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use harmony_types::auth::{AuthChangeKind, Permission, User};
use harmony_types::txn::{Put, Txn, TxnOpKind};
use harmony_types::{AuthState, Command, CommandKind, KeyRange, Refusal};

/// Bits of a permission, by its number.
const READS: [bool; 3] = [true, false, true];
const WRITES: [bool; 3] = [false, true, true];

#[derive(Clone)]
pub struct ModelAuth {
    pub enabled: bool,
    pub revision: u64,
    users: BTreeMap<String, (User, BTreeSet<String>)>,
    roles: BTreeMap<String, BTreeMap<(Bytes, Bytes), i32>>,
}

impl ModelAuth {
    pub fn new() -> Self {
        Self { enabled: false, revision: 1, users: BTreeMap::new(), roles: BTreeMap::new() }
    }

    /// Compares with what the storage says.
    pub fn check(&self, found: &AuthState) {
        assert_eq!((found.enabled, found.revision), (self.enabled, self.revision));
        let users = self.users.values().map(|(user, roles)| {
            let roles = roles.iter().cloned().collect();
            User { roles, ..user.clone() }
        });
        assert_eq!(found.users.values().cloned().collect::<Vec<_>>(), users.collect::<Vec<_>>());
        let of = |permission: &Permission| {
            ((permission.key.clone(), permission.range_end.clone()), permission.permission)
        };
        let roles = found.roles.iter();
        let roles = roles.map(|(name, role)| (name.clone(), role.permissions.iter().map(of).collect()));
        assert_eq!(roles.collect::<BTreeMap<_, _>>(), self.roles);
    }

    pub fn change(&mut self, change: &AuthChangeKind) -> Result<(), Refusal> {
        let Self { enabled, users, roles, .. } = self;
        let enabled = *enabled;
        let is_root = |name: &str| enabled && name == "root";
        match change {
            AuthChangeKind::Enable(true) if enabled => return Ok(()),
            AuthChangeKind::Enable(true) => {
                let (_, roles) = users.get("root").ok_or(Refusal::RootUserMissing)?;
                if !roles.contains("root") {
                    return Err(Refusal::RootRoleMissing);
                }
                self.enabled = true;
                return Ok(());
            }
            AuthChangeKind::Enable(false) if !enabled => return Ok(()),
            AuthChangeKind::Enable(false) => self.enabled = false,
            AuthChangeKind::UserAdd(user) => {
                if user.name.is_empty() {
                    return Err(Refusal::UserNameEmpty);
                }
                if users.contains_key(&user.name) {
                    return Err(Refusal::UserExists);
                }
                if user.password_hash.is_empty() && !user.no_password {
                    return Err(Refusal::Invalid);
                }
                let mut user = user.clone();
                if user.no_password {
                    user.password_hash = Bytes::new();
                }
                users.insert(user.name.clone(), (user, BTreeSet::new()));
            }
            AuthChangeKind::UserDelete(name) if is_root(name) => return Err(Refusal::InvalidAuthManagement),
            AuthChangeKind::UserDelete(name) => drop(users.remove(name).ok_or(Refusal::UserNotFound)?),
            AuthChangeKind::UserChangePassword(new) => {
                let (user, _) = users.get_mut(&new.name).ok_or(Refusal::UserNotFound)?;
                if !user.no_password {
                    user.password_hash = new.password_hash.clone();
                }
            }
            AuthChangeKind::UserGrantRole(request) => {
                let (_, granted) = users.get_mut(&request.user).ok_or(Refusal::UserNotFound)?;
                if request.role != "root" && !roles.contains_key(&request.role) {
                    return Err(Refusal::RoleNotFound);
                }
                if !granted.insert(request.role.clone()) {
                    return Ok(());
                }
            }
            AuthChangeKind::UserRevokeRole(request) => {
                if is_root(&request.user) && request.role == "root" {
                    return Err(Refusal::InvalidAuthManagement);
                }
                let (_, granted) = users.get_mut(&request.user).ok_or(Refusal::UserNotFound)?;
                if !granted.remove(&request.role) {
                    return Err(Refusal::RoleNotGranted);
                }
            }
            AuthChangeKind::RoleAdd(name) if name.is_empty() => return Err(Refusal::RoleNameEmpty),
            AuthChangeKind::RoleAdd(name) if roles.contains_key(name) => return Err(Refusal::RoleExists),
            AuthChangeKind::RoleAdd(name) => drop(roles.insert(name.clone(), BTreeMap::new())),
            AuthChangeKind::RoleDelete(name) if is_root(name) => return Err(Refusal::InvalidAuthManagement),
            AuthChangeKind::RoleDelete(name) => {
                roles.remove(name).ok_or(Refusal::RoleNotFound)?;
                for (_, granted) in users.values_mut() {
                    granted.remove(name);
                }
            }
            AuthChangeKind::RoleGrantPermission(request) => {
                let granted = request.permission.as_ref().ok_or(Refusal::PermissionNotGiven)?;
                if granted.range().is_empty() {
                    return Err(Refusal::InvalidAuthManagement);
                }
                let role = roles.get_mut(&request.role).ok_or(Refusal::RoleNotFound)?;
                role.insert((granted.key.clone(), granted.range_end.clone()), granted.permission);
            }
            AuthChangeKind::RoleRevokePermission(request) => {
                let revoked = request.permission.as_ref().ok_or(Refusal::PermissionNotGiven)?;
                let role = roles.get_mut(&request.role).ok_or(Refusal::RoleNotFound)?;
                let range = (revoked.key.clone(), revoked.range_end.clone());
                role.remove(&range).ok_or(Refusal::PermissionNotGranted)?;
            }
        }
        self.revision += 1;
        Ok(())
    }

    /// Whether the user may use every key of a range. Permissions begin and end at these points and right behind them, so
    /// the keys between two of them are all alike.
    fn may(&self, user: &str, bits: [bool; 3], range: &KeyRange) -> bool {
        let granted: Vec<KeyRange> = self.users[user]
            .1
            .iter()
            .filter_map(|role| self.roles.get(role))
            .flatten()
            .filter(|(_, permission)| bits[usize::try_from(**permission).unwrap()])
            .map(|((key, end), _)| KeyRange { key: key.clone(), end: end.clone() })
            .collect();
        let mut points: Vec<Vec<u8>> = vec![range.key.to_vec()];
        for granted in &granted {
            points.extend([granted.key.to_vec(), granted.end.to_vec()]);
        }
        let behind = points.clone().into_iter().map(|point| [point, vec![0]].concat());
        points.extend(behind.collect::<Vec<_>>());
        let mut within = points.iter().filter(|point| range.contains(point));
        within.all(|point| granted.iter().any(|granted| granted.contains(point)))
    }

    pub fn denied(&self, command: &Command, leased: impl Fn(i64) -> Vec<Bytes>) -> Option<Refusal> {
        let kind = command.kind.as_ref().unwrap();
        let by_member = command.author.as_ref().is_some_and(|author| author.by_member);
        if !self.enabled || by_member || matches!(kind, CommandKind::LeaseCheckpoint(_)) {
            return None;
        }
        let author = command.author.clone().unwrap_or_default();
        let is_root = self.users.get(&author.user).map(|(_, roles)| roles.contains("root"));
        let is_admin = matches!(kind, CommandKind::Auth(_) | CommandKind::Alarm(_) | CommandKind::Compact(_));
        match is_root {
            _ if author.user.is_empty() => return Some(Refusal::UserNameEmpty),
            None if is_admin => return Some(Refusal::UserNotFound),
            Some(false) if is_admin => return Some(Refusal::PermissionDenied),
            Some(true) if is_admin => return None,
            _ if author.auth_revision < self.revision => return Some(Refusal::AuthRevisionOld),
            None => return Some(Refusal::PermissionDenied),
            Some(true) => return None,
            Some(false) => {}
        }
        let user = author.user.as_str();
        let lease = |id: i64| {
            id == 0 || leased(id).into_iter().all(|key| self.may(user, WRITES, &KeyRange::single(key)))
        };
        let allowed = match kind {
            CommandKind::LeaseRevoke(request) => lease(request.id),
            CommandKind::LeaseGrant(_) => true,
            CommandKind::Put(put) => self.may_put(user, put, &lease),
            CommandKind::DeleteRange(delete) => {
                let range = delete.range();
                self.may(user, WRITES, &range) && (!delete.prev_kv || self.may(user, READS, &range))
            }
            CommandKind::Txn(txn) => self.may_txn(user, txn, &lease),
            kind => panic!("{kind:?}"),
        };
        if allowed { None } else { Some(Refusal::PermissionDenied) }
    }

    fn may_put(&self, user: &str, put: &Put, lease: &dyn Fn(i64) -> bool) -> bool {
        let key = KeyRange::single(put.key.clone());
        let may_read = !put.prev_kv || self.may(user, READS, &key);
        self.may(user, WRITES, &key) && may_read && lease(put.lease)
    }

    fn may_txn(&self, user: &str, txn: &Txn, lease: &dyn Fn(i64) -> bool) -> bool {
        let compares = txn.compare.iter().all(|compare| self.may(user, READS, &compare.range()));
        let mut ops = txn.success.iter().chain(&txn.failure).map(|op| op.kind.as_ref().unwrap());
        compares
            && ops.all(|op| match op {
                TxnOpKind::Range(range) => self.may(user, READS, &range.range()),
                TxnOpKind::Put(put) => self.may_put(user, put, lease),
                TxnOpKind::DeleteRange(delete) => {
                    let range = delete.range();
                    self.may(user, WRITES, &range) && (!delete.prev_kv || self.may(user, READS, &range))
                }
                TxnOpKind::Txn(inner) => self.may_txn(user, inner, lease),
            })
    }
}
