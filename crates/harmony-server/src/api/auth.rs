//! The Auth service (ETCD API, section 12). Changes go through the log, which judges them; a password gets only as far as its
//! hash.

use bytes::Bytes;
use harmony_types::auth::access::Needs;
use harmony_types::auth::{
    AuthChangeKind, Permission, PermissionType, ROOT_ROLE, RolePermission, User, UserRole,
};
use harmony_types::{AuthState, Author, CommandKind, Refusal};

use super::Api;
use super::status::ApiError;
use crate::auth::caller::Caller;
use crate::auth::passwords::PasswordError;
use crate::proto::{authpb, etcdserverpb as pb};

impl From<PasswordError> for ApiError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::TooLong => Self::PASSWORD_TOO_LONG,
            PasswordError::Busy => Self::TOO_MANY_REQUESTS,
            PasswordError::Failed => Self::STOPPED,
        }
    }
}

/// The changes: each is a command by its caller, and answers with a header.
impl Api {
    pub(crate) async fn auth_enable(&self, caller: &Caller) -> Result<pb::ResponseHeader, ApiError> {
        self.change_auth(caller, AuthChangeKind::Enable(true)).await
    }

    pub(crate) async fn auth_disable(&self, caller: &Caller) -> Result<pb::ResponseHeader, ApiError> {
        self.change_auth(caller, AuthChangeKind::Enable(false)).await
    }

    pub(crate) async fn user_add(
        &self,
        caller: &Caller,
        request: pb::AuthUserAddRequest,
    ) -> Result<pb::ResponseHeader, ApiError> {
        let no_password = request.options.is_some_and(|options| options.no_password);
        let password_hash = if no_password {
            Bytes::new()
        } else {
            if request.name.is_empty() {
                self.authorize_root(caller).await?;
                return Err(Refusal::UserNameEmpty.into());
            }
            self.hash_password(caller, request.password).await?
        };
        let user = User { name: request.name, password_hash, no_password, roles: Vec::new() };
        self.change_auth(caller, AuthChangeKind::UserAdd(user)).await
    }

    pub(crate) async fn user_change_password(
        &self,
        caller: &Caller,
        request: pb::AuthUserChangePasswordRequest,
    ) -> Result<pb::ResponseHeader, ApiError> {
        let password_hash = self.hash_password(caller, request.password).await?;
        let user = User { name: request.name, password_hash, ..User::default() };
        self.change_auth(caller, AuthChangeKind::UserChangePassword(user)).await
    }

    pub(crate) async fn user_delete(
        &self,
        caller: &Caller,
        request: pb::AuthUserDeleteRequest,
    ) -> Result<pb::ResponseHeader, ApiError> {
        self.change_auth(caller, AuthChangeKind::UserDelete(request.name)).await
    }

    pub(crate) async fn user_grant_role(
        &self,
        caller: &Caller,
        request: pb::AuthUserGrantRoleRequest,
    ) -> Result<pb::ResponseHeader, ApiError> {
        let grant = UserRole { user: request.user, role: request.role };
        self.change_auth(caller, AuthChangeKind::UserGrantRole(grant)).await
    }

    pub(crate) async fn user_revoke_role(
        &self,
        caller: &Caller,
        request: pb::AuthUserRevokeRoleRequest,
    ) -> Result<pb::ResponseHeader, ApiError> {
        let revoke = UserRole { user: request.name, role: request.role };
        self.change_auth(caller, AuthChangeKind::UserRevokeRole(revoke)).await
    }

    pub(crate) async fn role_add(
        &self,
        caller: &Caller,
        request: pb::AuthRoleAddRequest,
    ) -> Result<pb::ResponseHeader, ApiError> {
        self.change_auth(caller, AuthChangeKind::RoleAdd(request.name)).await
    }

    pub(crate) async fn role_delete(
        &self,
        caller: &Caller,
        request: pb::AuthRoleDeleteRequest,
    ) -> Result<pb::ResponseHeader, ApiError> {
        self.change_auth(caller, AuthChangeKind::RoleDelete(request.role)).await
    }

    pub(crate) async fn role_grant_permission(
        &self,
        caller: &Caller,
        request: pb::AuthRoleGrantPermissionRequest,
    ) -> Result<pb::ResponseHeader, ApiError> {
        let permission = request.perm.map(|perm| Permission {
            permission: perm.perm_type,
            key: perm.key,
            range_end: perm.range_end,
        });
        let grant = RolePermission { role: request.name, permission };
        self.change_auth(caller, AuthChangeKind::RoleGrantPermission(grant)).await
    }

    pub(crate) async fn role_revoke_permission(
        &self,
        caller: &Caller,
        request: pb::AuthRoleRevokePermissionRequest,
    ) -> Result<pb::ResponseHeader, ApiError> {
        // The type does not matter.
        let permission = PermissionType::Read.into();
        let permission = Permission { permission, key: request.key, range_end: request.range_end };
        let revoke = RolePermission { role: request.role, permission: Some(permission) };
        self.change_auth(caller, AuthChangeKind::RoleRevokePermission(revoke)).await
    }

    async fn change_auth(
        &self,
        caller: &Caller,
        kind: AuthChangeKind,
    ) -> Result<pb::ResponseHeader, ApiError> {
        let outcome = self.propose_by(caller, CommandKind::Auth(kind.into())).await?;
        Ok(self.header(outcome.revision))
    }

    /// Hashes a password for those who may set one: it takes a core for a while, which not everybody may ask for.
    async fn hash_password(&self, caller: &Caller, password: String) -> Result<Bytes, ApiError> {
        self.authorize_root(caller).await?;
        Ok(self.auth.passwords.hash(password).await?)
    }
}

/// Logging in, and looking.
impl Api {
    /// Open to all: who may not log in yet asks whether they have to.
    pub(crate) async fn auth_status(&self) -> Result<pb::AuthStatusResponse, ApiError> {
        self.linearize().await?;
        let state = self.storage.auth();
        Ok(pb::AuthStatusResponse {
            header: Some(self.header_now()),
            enabled: state.enabled,
            auth_revision: state.revision,
        })
    }

    pub(crate) async fn authenticate(
        &self,
        request: pb::AuthenticateRequest,
    ) -> Result<pb::AuthenticateResponse, ApiError> {
        self.linearize().await?;
        let before = self.storage.auth();
        if !before.enabled {
            return Err(ApiError::AUTH_NOT_ENABLED);
        }
        let user = before.users.get(&request.name).ok_or(ApiError::LOGIN_FAILED)?;
        if user.no_password {
            return Err(ApiError::NO_PASSWORD_USER);
        }
        if !self.auth.passwords.is_right(user, request.password).await? {
            return Err(ApiError::LOGIN_FAILED);
        }
        // The user may be gone since, or have another password: the token is worth nothing then. Its auth revision must not be
        // later than the password's check.
        let token = self.auth.tokens.issue(&before, user).ok_or(ApiError::VERIFY_ONLY)?;
        Ok(pb::AuthenticateResponse { header: Some(self.header_now()), token })
    }

    pub(crate) async fn user_get(
        &self,
        caller: &Caller,
        request: pb::AuthUserGetRequest,
    ) -> Result<pb::AuthUserGetResponse, ApiError> {
        let state = self.look(caller, |user| user.name == request.name).await?;
        let user = state.users.get(&request.name).ok_or(Refusal::UserNotFound)?;
        Ok(pb::AuthUserGetResponse { header: Some(self.header_now()), roles: user.roles.clone() })
    }

    pub(crate) async fn user_list(&self, caller: &Caller) -> Result<pb::AuthUserListResponse, ApiError> {
        let state = self.look(caller, |_| false).await?;
        let users = state.users.keys().cloned().collect();
        Ok(pb::AuthUserListResponse { header: Some(self.header_now()), users })
    }

    pub(crate) async fn role_get(
        &self,
        caller: &Caller,
        request: pb::AuthRoleGetRequest,
    ) -> Result<pb::AuthRoleGetResponse, ApiError> {
        let state = self.look(caller, |user| user.has_role(&request.role)).await?;
        let role = state.roles.get(&request.role).ok_or(Refusal::RoleNotFound)?;
        let perm = match role.name.as_str() {
            ROOT_ROLE => vec![all_keys()],
            _ => role.permissions.iter().map(permission).collect(),
        };
        Ok(pb::AuthRoleGetResponse { header: Some(self.header_now()), perm })
    }

    pub(crate) async fn role_list(&self, caller: &Caller) -> Result<pb::AuthRoleListResponse, ApiError> {
        let state = self.look(caller, |_| false).await?;
        let roles = state.roles.keys().cloned().collect();
        Ok(pb::AuthRoleListResponse { header: Some(self.header_now()), roles })
    }

    /// The current users and roles, for root and for whom it is `own`.
    async fn look(
        &self,
        caller: &Caller,
        own: impl Fn(&User) -> bool,
    ) -> Result<std::sync::Arc<AuthState>, ApiError> {
        self.linearize().await?;
        let needs = |state: &AuthState, author: Option<&Author>| {
            let user = author.and_then(|author| state.users.get(&author.user));
            if user.is_some_and(&own) { Needs::Nothing } else { Needs::Admin }
        };
        self.authorize_as(caller, needs).await
    }
}

/// What the root role may do needs no permission; etcd shows it as this one.
fn all_keys() -> authpb::Permission {
    authpb::Permission {
        perm_type: PermissionType::ReadWrite.into(),
        key: Bytes::new(),
        range_end: Bytes::from_static(&[0]),
    }
}

fn permission(permission: &Permission) -> authpb::Permission {
    authpb::Permission {
        perm_type: permission.permission,
        key: permission.key.clone(),
        range_end: permission.range_end.clone(),
    }
}
