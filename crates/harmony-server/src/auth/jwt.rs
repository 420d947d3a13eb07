//! JSON Web Tokens, with keys that the operator gives to every member: other systems can make them as well.
//!
//! The claims are etcd's: `username`, `revision` (the auth revision for which the token holds) and `exp`. Any change of users
//! or roles makes a token old. Expiry is on the calendar by nature: members and issuers need clocks that agree.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::AuthError;
use crate::config::JwtConfig;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Claims {
    pub(super) username: String,
    pub(super) revision: u64,
    /// Seconds since 1970 at which it ends; one without never does. JSON has no integers, so another issuer may send a fraction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exp: Option<f64>,
}

impl Claims {
    /// Whether its time is up.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of many millennia are exact")]
    pub(super) fn is_expired(&self, unix_ms: u64) -> bool {
        self.exp.is_some_and(|exp| exp * 1000.0 < unix_ms as f64)
    }
}

/// The keys and what to do with them.
pub(super) struct Jwt {
    header: Header,
    validation: Validation,
    /// `None` when this member only checks tokens that others make.
    signing: Option<EncodingKey>,
    checking: DecodingKey,
    ttl: Duration,
}

impl Jwt {
    /// Reads the keys.
    ///
    /// # Errors
    /// [`AuthError::Key`].
    pub(super) fn new(config: &JwtConfig) -> Result<Self, AuthError> {
        let (signing, checking) = match config.method {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
                let secret = read(config.private_key.as_deref())?.unwrap_or_default();
                (Some(EncodingKey::from_secret(&secret)), DecodingKey::from_secret(&secret))
            }
            Algorithm::ES256 | Algorithm::ES384 => {
                pair(config, EncodingKey::from_ec_pem, DecodingKey::from_ec_pem)?
            }
            Algorithm::EdDSA => pair(config, EncodingKey::from_ed_pem, DecodingKey::from_ed_pem)?,
            _ => pair(config, EncodingKey::from_rsa_pem, DecodingKey::from_rsa_pem)?,
        };
        let mut validation = Validation::new(config.method);
        // The claims are read by their types and judged here: by this member's clock, and `exp` may be missing.
        validation.required_spec_claims = HashSet::new();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let jwt = Self { header: Header::new(config.method), validation, signing, checking, ttl: config.ttl };
        jwt.prove(config)?;
        Ok(jwt)
    }

    /// Keys that do not belong together would be noticed by the first client.
    fn prove(&self, config: &JwtConfig) -> Result<(), AuthError> {
        let Some(text) = self.sign("", 0, 0) else {
            return match &self.signing {
                Some(_) => Err(key_error(config.private_key.as_deref(), "cannot sign with this method")),
                None => Ok(()),
            };
        };
        match self.claims(&text) {
            Some(_) => Ok(()),
            None => {
                Err(key_error(config.public_key.as_deref(), "is not the public key of the private key given"))
            }
        }
    }

    /// A token for a user; `None` for a member that only checks them.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of many millennia are exact")]
    pub(super) fn sign(&self, user: &str, revision: u64, unix_ms: u64) -> Option<String> {
        let exp = unix_ms as f64 / 1000.0 + self.ttl.as_secs_f64();
        let claims = Claims { username: user.to_owned(), revision, exp: Some(exp.floor()) };
        jsonwebtoken::encode(&self.header, &claims, self.signing.as_ref()?).ok()
    }

    /// What a token says, if it was signed with the key and by the method of this cluster.
    pub(super) fn claims(&self, text: &str) -> Option<Claims> {
        jsonwebtoken::decode(text, &self.checking, &self.validation).ok().map(|token| token.claims)
    }
}

type Pair = (Option<EncodingKey>, DecodingKey);

fn pair(
    config: &JwtConfig,
    signing: impl Fn(&[u8]) -> jsonwebtoken::errors::Result<EncodingKey>,
    checking: impl Fn(&[u8]) -> jsonwebtoken::errors::Result<DecodingKey>,
) -> Result<Pair, AuthError> {
    let wrong = |path: Option<&Path>, error: jsonwebtoken::errors::Error| {
        key_error(path, &format!("is no key in PEM form for {:?}: {error}", config.method))
    };
    let (private, public) = (config.private_key.as_deref(), config.public_key.as_deref());
    let signing =
        read(private)?.map(|pem| signing(&pem).map_err(|error| wrong(private, error))).transpose()?;
    let pem = read(public)?.unwrap_or_default();
    Ok((signing, checking(&pem).map_err(|error| wrong(public, error))?))
}

fn read(path: Option<&Path>) -> Result<Option<Vec<u8>>, AuthError> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| key_error(Some(path), &error.to_string()));
    path.map(read).transpose()
}

fn key_error(path: Option<&Path>, reason: &str) -> AuthError {
    AuthError::Key { path: path.unwrap_or(Path::new("")).to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;
