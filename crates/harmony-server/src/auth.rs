//! Who calls: tokens and passwords. What a user may do is replicated state, in `harmony_types::auth`; where it is asked for, in
//! `api::access`.
//!
//! Reading order: [`caller`], what a request says; [`tokens`], what a token proves, of the two forms [`simple`] and [`jwt`];
//! [`passwords`]; [`recent`], the bounded memory of both.

pub(crate) mod caller;
pub(crate) mod jwt;
pub(crate) mod passwords;
mod recent;
mod simple;
pub(crate) mod tokens;

use std::sync::Arc;

use harmony_types::{Clock, ClusterId};

use crate::config::AuthConfig;
use passwords::Passwords;
use tokens::Tokens;

/// Why a server cannot tell who calls.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// A key of `--auth-token` cannot be used.
    #[error("--auth-token: {path}: {reason}")]
    Key {
        /// The key's file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// What this member needs to tell who calls.
pub(crate) struct Authenticator {
    pub(crate) tokens: Tokens,
    pub(crate) passwords: Arc<Passwords>,
}

impl Authenticator {
    /// # Errors
    /// See [`AuthError`].
    pub(crate) fn new(
        config: &AuthConfig,
        cluster: ClusterId,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AuthError> {
        Ok(Self {
            tokens: Tokens::new(&config.token, cluster, clock)?,
            passwords: Arc::new(Passwords::new(config.bcrypt_cost)?),
        })
    }
}
