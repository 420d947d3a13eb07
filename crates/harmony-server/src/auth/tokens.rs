//! What a token proves, and new tokens.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use harmony_types::auth::User;
use harmony_types::{AuthState, Author, Clock, ClusterId};

use super::AuthError;
use super::jwt::{Claims, Jwt};
use super::recent::Recent;
use super::simple::{self, SimpleToken};
use crate::config::TokenConfig;

/// Tokens that this member remembers to have checked.
const KNOWN_MAX: usize = 10_000;

/// Longest token that is looked at, bytes.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// Why a token proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenError {
    /// It is none of ours, or no longer.
    Invalid,
    /// It was made later than what this member knows: to be asked again when it has caught up.
    Ahead,
}

/// Makes and checks tokens. Whoever logged in on one member is known on all.
pub(crate) struct Tokens {
    form: Form,
    cluster: ClusterId,
    clock: Arc<dyn Clock>,
}

enum Form {
    Simple {
        ttl: Duration,
        sessions: Mutex<Recent<String, Session>>,
    },
    Jwt {
        keys: Box<Jwt>,
        /// Checking a signature may take as long as a whole read.
        checked: Mutex<Recent<String, Claims>>,
    },
}

/// A simple token that was in order here.
struct Session {
    user: String,
    /// The user's hash then: a token dies with it.
    password_hash: Bytes,
    /// On this member's own clock.
    last_used: Duration,
}

impl Tokens {
    /// # Errors
    /// [`AuthError::Key`].
    pub(super) fn new(
        config: &TokenConfig,
        cluster: ClusterId,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AuthError> {
        let form = match config {
            TokenConfig::Simple { ttl } => {
                Form::Simple { ttl: *ttl, sessions: Mutex::new(Recent::new(KNOWN_MAX)) }
            }
            TokenConfig::Jwt(config) => {
                Form::Jwt { keys: Box::new(Jwt::new(config)?), checked: Mutex::new(Recent::new(KNOWN_MAX)) }
            }
        };
        Ok(Self { form, cluster, clock })
    }

    /// A token for a user who has just logged in; `None` when this member cannot make any for it.
    pub(crate) fn issue(&self, state: &AuthState, user: &User) -> Option<String> {
        let (issued_ms, auth_revision) = (self.clock.unix_ms(), state.revision);
        match &self.form {
            Form::Simple { .. } => {
                let token = SimpleToken { issued_ms, auth_revision, user: user.name.clone() };
                Some(token.sign(&simple::key(self.cluster, user)?))
            }
            Form::Jwt { keys, .. } => keys.sign(&user.name, auth_revision, issued_ms),
        }
    }

    /// On whose behalf the holder of a token acts. A simple token stands for its user as long as it is used, whatever changes
    /// but the password; a JWT for its user at one auth revision.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub(crate) fn check(&self, state: &AuthState, text: &str) -> Result<Author, TokenError> {
        if TOKEN_BYTES_MAX < text.len() {
            return Err(TokenError::Invalid);
        }
        let (user, auth_revision) = match &self.form {
            Form::Simple { ttl, sessions } => {
                (self.check_simple(state, text, *ttl, sessions)?, state.revision)
            }
            Form::Jwt { keys, checked } => {
                let claims = self.check_jwt(text, keys, checked)?;
                if state.revision < claims.revision {
                    return Err(TokenError::Ahead);
                }
                (claims.username, claims.revision)
            }
        };
        Ok(Author { user, auth_revision, by_member: false })
    }

    fn check_simple(
        &self,
        state: &AuthState,
        text: &str,
        ttl: Duration,
        sessions: &Mutex<Recent<String, Session>>,
    ) -> Result<String, TokenError> {
        let now = self.clock.now();
        let mut sessions = sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = sessions.get_mut(text)
            && state.users.get(&session.user).is_some_and(|user| user.password_hash == session.password_hash)
        {
            if ttl < now.saturating_sub(session.last_used) {
                return Err(TokenError::Invalid);
            }
            session.last_used = now;
            return Ok(session.user.clone());
        }
        let received = SimpleToken::parse(text).ok_or(TokenError::Invalid)?;
        let token = &received.token;
        let user = state.users.get(&token.user);
        let signed = user
            .is_some_and(|user| simple::key(self.cluster, user).is_some_and(|key| received.is_signed(&key)));
        let Some(user) = user.filter(|_| signed) else {
            let is_ahead = state.revision < token.auth_revision;
            return Err(if is_ahead { TokenError::Ahead } else { TokenError::Invalid });
        };
        // Members' calendars may differ either way; by more than a lifetime they say nothing any more.
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        if ttl_ms < self.clock.unix_ms().abs_diff(token.issued_ms) {
            return Err(TokenError::Invalid);
        }
        let session =
            Session { user: user.name.clone(), password_hash: user.password_hash.clone(), last_used: now };
        sessions.insert(text.to_owned(), session);
        Ok(user.name.clone())
    }

    fn check_jwt(
        &self,
        text: &str,
        keys: &Jwt,
        checked: &Mutex<Recent<String, Claims>>,
    ) -> Result<Claims, TokenError> {
        let lock = || checked.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().get_mut(text).cloned();
        let claims = match known {
            Some(claims) => claims,
            None => {
                let claims = keys.claims(text).ok_or(TokenError::Invalid)?;
                lock().insert(text.to_owned(), claims.clone());
                claims
            }
        };
        if claims.is_expired(self.clock.unix_ms()) { Err(TokenError::Invalid) } else { Ok(claims) }
    }
}

#[cfg(test)]
mod tests;
