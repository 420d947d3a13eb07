//! Users and roles: changed by commands, stored in rows and, decoded, in the settings; and the check of who proposed a
//! command, which is made when it is applied: then all members judge by the same users and roles, whatever was true when it
//! was proposed.

use std::sync::Arc;

use harmony_types::auth::AuthChange;
use harmony_types::auth::access::Needs;
use harmony_types::{AuthState, Author, CommandKind};

use crate::batch::Batch;
use crate::lease;
use crate::mvcc::OpError;
use crate::tree::rows;
use crate::unified::UnifiedStorage;

/// Whether the author of a command may run it, on the state of `batch`.
///
/// # Errors
/// The refusals of [`AuthState::check`].
pub(crate) fn check(batch: &Batch, author: Option<&Author>, command: &CommandKind) -> Result<(), OpError> {
    let auth = &batch.settings().auth;
    if !auth.enabled {
        return Ok(());
    }
    let keys_of = |id| lease::keys_of(batch, id);
    auth.check(author, &Needs::of(command), keys_of)?.map_err(OpError::Refused)
}

/// Changes users, roles, or whether they count; returns the auth revision then.
///
/// # Errors
/// The refusals of [`AuthState::change`].
pub(crate) fn change(batch: &mut Batch, request: &AuthChange) -> Result<u64, OpError> {
    let mut auth = AuthState::clone(&batch.settings().auth);
    let Some(touched) = auth.change(request).map_err(OpError::Refused)? else {
        return Ok(auth.revision);
    };
    for name in &touched.users {
        batch.set_row(rows::user(name), auth.users.get(name).map(rows::encode));
    }
    for name in &touched.roles {
        batch.set_row(rows::role(name), auth.roles.get(name).map(rows::encode));
    }
    batch.set_row(rows::auth(), Some(rows::encode_auth(&auth)));
    let revision = auth.revision;
    batch.set_auth(auth);
    Ok(revision)
}

impl UnifiedStorage {
    /// Users and roles, as they are at what was applied last.
    pub fn auth(&self) -> Arc<AuthState> {
        Arc::clone(&self.published().settings.auth)
    }
}
