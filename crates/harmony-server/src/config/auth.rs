//! How clients log in: `--auth-token`, `--auth-token-ttl`, `--bcrypt-cost`.

use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::Algorithm;

use super::Check;

/// How long a token that is not used is good for, seconds, as etcd's.
const TOKEN_TTL_S: u64 = 300;

/// How long a JWT is good for, as etcd's.
const JWT_TTL: Duration = Duration::from_secs(300);

/// Work of a password's hash, as bcrypt's own default and etcd's: some 50 ms.
const BCRYPT_COST: u32 = 10;

/// What logging in needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthConfig {
    /// The form of tokens.
    pub token: TokenConfig,
    /// Work of a password's hash: its logarithm, 4 to 31.
    pub bcrypt_cost: u32,
}

/// The form of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenConfig {
    /// Our own.
    Simple {
        /// How long one that is not used is good for.
        ttl: Duration,
    },
    /// JSON Web Tokens.
    Jwt(JwtConfig),
}

/// Keys of JSON Web Tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtConfig {
    /// The method to sign with, and the only one that is accepted.
    pub method: Algorithm,
    /// File with the public key, PEM. There is one, but for a method with a secret.
    pub public_key: Option<PathBuf>,
    /// File with the private key, PEM, or with the secret. Without one this member checks tokens and makes none.
    pub private_key: Option<PathBuf>,
    /// How long a token is good for.
    pub ttl: Duration,
}

impl Check {
    pub(super) fn auth(&mut self, token: Option<&str>, ttl: Option<u64>, cost: Option<u64>) -> AuthConfig {
        let ttl = ttl.unwrap_or(TOKEN_TTL_S);
        if ttl == 0 {
            self.mistake("auth-token-ttl", "is 0: use 1 second or more".to_owned());
        }
        let simple = TokenConfig::Simple { ttl: Duration::from_secs(ttl) };
        let text = token.unwrap_or("simple");
        let token = match text.split_once(',').unwrap_or((text, "")) {
            ("simple", "") => simple,
            ("jwt", options) => match jwt(options) {
                Ok(config) => TokenConfig::Jwt(config),
                Err(reason) => {
                    self.mistake("auth-token", reason);
                    simple
                }
            },
            (other, _) => {
                self.mistake(
                    "auth-token",
                    format!("is {other:?}: use simple, or jwt,sign-method=METHOD,pub-key=FILE,priv-key=FILE"),
                );
                simple
            }
        };
        let bcrypt_cost = match cost.map(u32::try_from) {
            None => BCRYPT_COST,
            Some(Ok(cost)) if (4..=31).contains(&cost) => cost,
            Some(_) => {
                self.mistake("bcrypt-cost", format!("is {}: use 4 to 31", cost.unwrap_or_default()));
                BCRYPT_COST
            }
        };
        AuthConfig { token, bcrypt_cost }
    }
}

fn jwt(options: &str) -> Result<JwtConfig, String> {
    let (mut method, mut public_key, mut private_key, mut ttl) = (None, None, None, JWT_TTL);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("sign-method", name)) => {
                method = Some(name.parse::<Algorithm>().map_err(|_| {
                    format!(
                        "sign-method is {name:?}: use HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, \
                         ES384 or EdDSA"
                    )
                })?);
            }
            Some(("pub-key", path)) => public_key = Some(PathBuf::from(path)),
            Some(("priv-key", path)) => private_key = Some(PathBuf::from(path)),
            Some(("ttl", text)) => {
                ttl = crate::client::args::parse_duration(text).map_err(|error| format!("ttl: {error}"))?;
            }
            _ => return Err(format!("has {option:?}: jwt takes sign-method, pub-key, priv-key and ttl")),
        }
    }
    let method = method.ok_or("needs sign-method for jwt, such as sign-method=RS256")?;
    let has_secret = matches!(method, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512);
    if has_secret && private_key.is_none() {
        return Err(format!("needs priv-key for {method:?}: a file with the secret"));
    }
    if !has_secret && public_key.is_none() {
        return Err(format!("needs pub-key for {method:?}: a file with the public key in PEM form"));
    }
    Ok(JwtConfig { method, public_key: public_key.filter(|_| !has_secret), private_key, ttl })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(token: Option<&str>, expected: Result<TokenConfig, &str>) {
        let mut check = Check::default();
        let config = check.auth(token, Some(7), None);
        match expected {
            Ok(expected) => assert_eq!((config.token, check.mistakes.len()), (expected, 0)),
            Err(text) => {
                let [mistake] = &check.mistakes[..] else { panic!("{:?}", check.mistakes) };
                assert!(mistake.starts_with("--auth-token ") && mistake.contains(text), "{mistake}");
            }
        }
    }

    #[test]
    fn tokens_come_in_two_forms() {
        let simple = TokenConfig::Simple { ttl: Duration::from_secs(7) };
        check(None, Ok(simple.clone()));
        check(Some("simple"), Ok(simple));
        let jwt = |method, public: Option<&str>, private: Option<&str>, seconds| {
            TokenConfig::Jwt(JwtConfig {
                method,
                public_key: public.map(PathBuf::from),
                private_key: private.map(PathBuf::from),
                ttl: Duration::from_secs(seconds),
            })
        };
        check(
            Some("jwt,pub-key=a.pub,priv-key=a,sign-method=RS512,ttl=10m"),
            Ok(jwt(Algorithm::RS512, Some("a.pub"), Some("a"), 600)),
        );
        check(
            Some("jwt,sign-method=ES256,pub-key=a.pub"),
            Ok(jwt(Algorithm::ES256, Some("a.pub"), None, 300)),
        );
        check(Some("jwt,sign-method=HS256,priv-key=s"), Ok(jwt(Algorithm::HS256, None, Some("s"), 300)));
    }

    #[test]
    fn mistakes_are_named() {
        check(Some("smiple"), Err("use simple, or jwt"));
        check(Some("simple,ttl=1s"), Err("use simple, or jwt"));
        check(Some(""), Err("use simple, or jwt"));
        check(Some("jwt"), Err("needs sign-method"));
        check(Some("jwt,sign-method=none,pub-key=a"), Err("sign-method is \"none\""));
        check(Some("jwt,sign-method=RS256,priv-key=a"), Err("needs pub-key for RS256"));
        check(Some("jwt,sign-method=HS256,pub-key=a"), Err("needs priv-key for HS256"));
        check(Some("jwt,sign-method=RS256,pub-key=a,ttl=5"), Err("ttl: \"5\" is no duration"));
        check(Some("jwt,sign-method=RS256,key=a"), Err("has \"key=a\""));
    }

    #[test]
    fn the_cost_and_the_lifetime_have_bounds() {
        for (ttl, cost, expected) in
            [(1, 4, 0), (1, 31, 0), (1, 3, 1), (1, 32, 1), (1, u64::MAX, 1), (0, 9, 1)]
        {
            let mut check = Check::default();
            let config = check.auth(None, Some(ttl), Some(cost));
            assert_eq!(check.mistakes.len(), expected, "{ttl} {cost}: {config:?}");
        }
        assert_eq!(Check::default().auth(None, None, None).bcrypt_cost, 10);
    }
}
