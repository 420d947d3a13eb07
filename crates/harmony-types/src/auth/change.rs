//! Changes of users and roles (API, section 12): all checks, then the change, or nothing.

use bytes::Bytes;

use super::{
    AuthChange, AuthChangeKind, AuthState, Permission, PermissionType, ROOT_ROLE, ROOT_USER, Role,
    RolePermission, User, UserRole,
};
use crate::command::Refusal;

/// What a change touched, by name: added, changed or gone.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Touched {
    /// Users.
    pub users: Vec<String>,
    /// Roles.
    pub roles: Vec<String>,
}

impl Touched {
    fn user(name: &str) -> Self {
        Self { users: vec![name.to_owned()], roles: Vec::new() }
    }

    fn role(name: &str) -> Self {
        Self { users: Vec::new(), roles: vec![name.to_owned()] }
    }
}

impl AuthState {
    /// Makes a change. `None`: there was nothing to do, and the revision stays. Else it goes up by one, but for switching on,
    /// which changes no permission.
    ///
    /// # Errors
    /// Why it cannot be made; the state is as it was then.
    pub fn change(&mut self, change: &AuthChange) -> Result<Option<Touched>, Refusal> {
        let kind = change.kind.as_ref().ok_or(Refusal::Invalid)?;
        let touched = match kind {
            AuthChangeKind::Enable(true) => return self.enable(),
            AuthChangeKind::Enable(false) => self.disable(),
            AuthChangeKind::UserAdd(user) => self.user_add(user).map(Some),
            AuthChangeKind::UserDelete(name) => self.user_delete(name).map(Some),
            AuthChangeKind::UserChangePassword(user) => self.user_change_password(user).map(Some),
            AuthChangeKind::UserGrantRole(request) => self.user_grant_role(request),
            AuthChangeKind::UserRevokeRole(request) => self.user_revoke_role(request).map(Some),
            AuthChangeKind::RoleAdd(name) => self.role_add(name).map(Some),
            AuthChangeKind::RoleDelete(name) => self.role_delete(name).map(Some),
            AuthChangeKind::RoleGrantPermission(request) => self.role_grant(request).map(Some),
            AuthChangeKind::RoleRevokePermission(request) => self.role_revoke(request).map(Some),
        }?;
        if touched.is_some() {
            self.revision += 1;
        }
        Ok(touched)
    }

    fn enable(&mut self) -> Result<Option<Touched>, Refusal> {
        if self.enabled {
            return Ok(None);
        }
        let root = self.users.get(ROOT_USER).ok_or(Refusal::RootUserMissing)?;
        if !root.has_role(ROOT_ROLE) {
            return Err(Refusal::RootRoleMissing);
        }
        self.enabled = true;
        Ok(Some(Touched::default()))
    }

    fn disable(&mut self) -> Result<Option<Touched>, Refusal> {
        let was_enabled = std::mem::replace(&mut self.enabled, false);
        Ok(was_enabled.then(Touched::default))
    }

    fn user_add(&mut self, user: &User) -> Result<Touched, Refusal> {
        if user.name.is_empty() {
            return Err(Refusal::UserNameEmpty);
        }
        if self.users.contains_key(&user.name) {
            return Err(Refusal::UserExists);
        }
        if !user.no_password && user.password_hash.is_empty() {
            return Err(Refusal::Invalid);
        }
        let password_hash = if user.no_password { Bytes::new() } else { user.password_hash.clone() };
        let added =
            User { name: user.name.clone(), password_hash, no_password: user.no_password, roles: Vec::new() };
        self.users.insert(user.name.clone(), added);
        Ok(Touched::user(&user.name))
    }

    fn user_delete(&mut self, name: &str) -> Result<Touched, Refusal> {
        if self.enabled && name == ROOT_USER {
            return Err(Refusal::InvalidAuthManagement);
        }
        self.users.remove(name).ok_or(Refusal::UserNotFound)?;
        Ok(Touched::user(name))
    }

    fn user_change_password(&mut self, request: &User) -> Result<Touched, Refusal> {
        let user = self.users.get_mut(&request.name).ok_or(Refusal::UserNotFound)?;
        if !user.no_password {
            if request.password_hash.is_empty() {
                return Err(Refusal::Invalid);
            }
            user.password_hash = request.password_hash.clone();
        }
        Ok(Touched::user(&request.name))
    }

    fn user_grant_role(&mut self, request: &UserRole) -> Result<Option<Touched>, Refusal> {
        let user = self.users.get_mut(&request.user).ok_or(Refusal::UserNotFound)?;
        if request.role != ROOT_ROLE && !self.roles.contains_key(&request.role) {
            return Err(Refusal::RoleNotFound);
        }
        let Err(slot) = user.roles.binary_search(&request.role) else { return Ok(None) };
        user.roles.insert(slot, request.role.clone());
        Ok(Some(Touched::user(&request.user)))
    }

    fn user_revoke_role(&mut self, request: &UserRole) -> Result<Touched, Refusal> {
        if self.enabled && request.user == ROOT_USER && request.role == ROOT_ROLE {
            return Err(Refusal::InvalidAuthManagement);
        }
        let user = self.users.get_mut(&request.user).ok_or(Refusal::UserNotFound)?;
        let slot = user.roles.binary_search(&request.role).map_err(|_| Refusal::RoleNotGranted)?;
        user.roles.remove(slot);
        Ok(Touched::user(&request.user))
    }

    fn role_add(&mut self, name: &str) -> Result<Touched, Refusal> {
        if name.is_empty() {
            return Err(Refusal::RoleNameEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(Refusal::RoleExists);
        }
        self.roles.insert(name.to_owned(), Role { name: name.to_owned(), permissions: Vec::new() });
        Ok(Touched::role(name))
    }

    fn role_delete(&mut self, name: &str) -> Result<Touched, Refusal> {
        if self.enabled && name == ROOT_ROLE {
            return Err(Refusal::InvalidAuthManagement);
        }
        self.roles.remove(name).ok_or(Refusal::RoleNotFound)?;
        let mut touched = Touched::role(name);
        for user in self.users.values_mut() {
            if let Ok(slot) = user.roles.binary_search_by(|role| role.as_str().cmp(name)) {
                user.roles.remove(slot);
                touched.users.push(user.name.clone());
            }
        }
        Ok(touched)
    }

    fn role_grant(&mut self, request: &RolePermission) -> Result<Touched, Refusal> {
        let permission = request.permission.as_ref().ok_or(Refusal::PermissionNotGiven)?;
        permission.validate()?;
        let role = self.roles.get_mut(&request.role).ok_or(Refusal::RoleNotFound)?;
        match role.find(permission) {
            Ok(slot) => role.permissions[slot] = permission.clone(),
            Err(slot) => role.permissions.insert(slot, permission.clone()),
        }
        Ok(Touched::role(&request.role))
    }

    fn role_revoke(&mut self, request: &RolePermission) -> Result<Touched, Refusal> {
        let permission = request.permission.as_ref().ok_or(Refusal::PermissionNotGiven)?;
        let role = self.roles.get_mut(&request.role).ok_or(Refusal::RoleNotFound)?;
        let slot = role.find(permission).map_err(|_| Refusal::PermissionNotGranted)?;
        role.permissions.remove(slot);
        Ok(Touched::role(&request.role))
    }
}

impl User {
    /// Whether it has a role.
    #[must_use]
    pub fn has_role(&self, name: &str) -> bool {
        self.roles.iter().any(|role| role == name)
    }
}

impl Role {
    /// Where the permission on the same range is, or would be.
    fn find(&self, permission: &Permission) -> Result<usize, usize> {
        let wanted = (&permission.key, &permission.range_end);
        self.permissions.binary_search_by(|found| (&found.key, &found.range_end).cmp(&wanted))
    }
}

impl Permission {
    /// Checks what must hold whatever the state.
    ///
    /// # Errors
    /// [`Refusal::InvalidAuthManagement`] for a range that can hold no key; [`Refusal::Invalid`] for an unknown type.
    pub fn validate(&self) -> Result<(), Refusal> {
        if self.key.is_empty() || self.range().is_empty() {
            return Err(Refusal::InvalidAuthManagement);
        }
        PermissionType::try_from(self.permission).map(drop).map_err(|_| Refusal::Invalid)
    }
}

#[cfg(test)]
mod tests;
