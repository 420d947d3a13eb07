//! Who calls, and whether they may: asked before every call that is not open to all (ETCD API, section 12).
//!
//! What goes through the log is judged there, by the users and roles at its place: a command only carries its author. A
//! read is judged on the state that it reads, before and after, so that nobody reads what was written after a right was taken
//! away. What touches this member alone is judged on this member's state.

use std::sync::Arc;

use harmony_types::auth::access::Needs;
use harmony_types::{AuthState, Author, CommandKind, LeaseId, Outcome, StorageError};

use super::Api;
use super::status::ApiError;
use crate::auth::caller::Caller;
use crate::auth::tokens::TokenError;

/// What an RPC asks of who calls; which RPC has which stands in the table of `net::methods`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// Nothing.
    Open,
    /// To be a user.
    User,
    /// The root role, on this member's state.
    Root,
    /// What the request needs, of which the log is the judge: [`Needs::of`] the command.
    Command,
    /// What the request needs, of which its handler is the judge.
    Request,
}

impl Api {
    /// Whether permissions are asked for at all.
    pub(crate) fn asks_for_rights(&self) -> bool {
        self.storage.auth().enabled
    }

    /// Checks the right for a call whose request does not matter.
    ///
    /// # Errors
    /// Why the caller may not.
    pub(crate) async fn admit(&self, caller: &Caller, right: Right) -> Result<(), ApiError> {
        match right {
            Right::Open | Right::Command | Right::Request => Ok(()),
            Right::User => self.authorize(caller, || Needs::User(Vec::new())).await.map(drop),
            Right::Root => self.authorize(caller, || Needs::Admin).await.map(drop),
        }
    }

    /// Checks on this member's state of now what somebody needs, and returns that state. `needs` is asked only while
    /// permissions are.
    ///
    /// # Errors
    /// Why the caller may not.
    pub(crate) async fn authorize(
        &self,
        caller: &Caller,
        needs: impl Fn() -> Needs,
    ) -> Result<Arc<AuthState>, ApiError> {
        self.authorize_as(caller, |_, _| needs()).await
    }

    /// As [`Api::authorize`], for what needs more or less according to who calls.
    ///
    /// # Errors
    /// Why the caller may not.
    pub(crate) async fn authorize_as(
        &self,
        caller: &Caller,
        needs: impl Fn(&AuthState, Option<&Author>) -> Needs,
    ) -> Result<Arc<AuthState>, ApiError> {
        // Without a state nobody knows who may what.
        if self.storage.is_lost() {
            return Err(ApiError::CORRUPT);
        }
        let (author, state) = self.identify(caller).await?;
        if state.enabled {
            self.judge(&state, author.as_ref(), &needs(&state, author.as_ref()))?;
        }
        Ok(state)
    }

    /// As [`Api::authorize`] for root, but a refusal counts only when this member knows all that was acknowledged.
    ///
    /// # Errors
    /// Why the caller may not.
    pub(crate) async fn authorize_root(&self, caller: &Caller) -> Result<(), ApiError> {
        if self.authorize(caller, || Needs::Admin).await.is_err() {
            self.linearize().await?;
            self.authorize(caller, || Needs::Admin).await?;
        }
        Ok(())
    }

    /// Reads what somebody may read.
    ///
    /// # Errors
    /// Why the caller may not; else as `read`.
    pub(crate) async fn read_permitted<T>(
        &self,
        caller: &Caller,
        needs: impl Fn() -> Needs,
        read: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let before = self.authorize(caller, &needs).await?;
        let result = read.await?;
        if !Arc::ptr_eq(&before, &self.storage.auth()) {
            self.authorize(caller, &needs).await?;
        }
        Ok(result)
    }

    /// Proposes a command on behalf of the caller and waits until it is applied here. Whether the caller may do that is judged
    /// there.
    ///
    /// # Errors
    /// Why the caller may not; else as [`Api::propose`].
    pub(super) async fn propose_by(&self, caller: &Caller, kind: CommandKind) -> Result<Outcome, ApiError> {
        let Some(mut author) = self.identify(caller).await?.0 else {
            return self.propose(None, kind).await;
        };
        loop {
            let revision = author.auth_revision;
            let result = self.propose(Some(author), kind.clone()).await;
            if result != Err(ApiError::AUTH_REVISION_OLD) {
                return result;
            }
            // Nothing was done, and by now this member knows the change that came in between. Whoever is still the same user after
            // it need not log in again.
            match self.identify(caller).await?.0 {
                Some(newer) if revision < newer.auth_revision => author = newer,
                _ => return result,
            }
        }
    }

    /// On whose behalf the caller acts, and the users and roles that say so; `None` for nobody's.
    pub(super) async fn identify(
        &self,
        caller: &Caller,
    ) -> Result<(Option<Author>, Arc<AuthState>), ApiError> {
        let mut state = self.storage.auth();
        let Some(token) = &caller.token else {
            let author = caller.certificate.as_ref().map(|user| Author {
                user: user.0.clone(),
                auth_revision: state.revision,
                by_member: false,
            });
            return Ok((author, state));
        };
        let mut checked = self.auth.tokens.check(&state, token);
        if checked == Err(TokenError::Ahead) {
            self.linearize().await?;
            state = self.storage.auth();
            checked = self.auth.tokens.check(&state, token);
        }
        match checked {
            Ok(author) => Ok((Some(author), state)),
            // Nobody asks: a token from before permissions were switched off does no harm.
            Err(_) if !state.enabled => Ok((None, state)),
            Err(_) => Err(ApiError::INVALID_TOKEN),
        }
    }

    /// Checks what somebody needs by these users and roles.
    ///
    /// # Errors
    /// Why the caller may not.
    pub(super) fn judge(
        &self,
        state: &AuthState,
        author: Option<&Author>,
        needs: &Needs,
    ) -> Result<(), ApiError> {
        let keys_of = |lease: LeaseId| {
            let lease = self.storage.lease_with_keys(lease)?;
            Ok::<_, StorageError>(lease.map(|(_, keys)| keys).unwrap_or_default())
        };
        state.check(author, needs, keys_of)?.map_err(ApiError::from)
    }
}
