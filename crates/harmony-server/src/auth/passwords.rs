//! Passwords: bcrypt, away from the threads that serve, and a memory of those that were right, as one check takes some 50 ms.
//!
//! What is remembered is an HMAC of the password under a key that this process made up and nobody else has: no password is
//! kept, and nothing that would help to find one.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use harmony_types::auth::User;
use ring::{hmac, rand};
use tokio::sync::Semaphore;

use super::AuthError;
use super::recent::Recent;

/// Users whose last right password is remembered.
const VERIFIED_MAX: usize = 10_000;

/// Hashes at a time: each takes a whole core.
const RUNNING_MAX: usize = 2;

/// Hashes that run or wait; more are refused.
const WAITING_MAX: usize = 64;

/// Longest password, bytes: bcrypt does not look at more.
const PASSWORD_BYTES_MAX: usize = 72;

/// Why a password was neither hashed nor compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PasswordError {
    /// bcrypt would look at its beginning only.
    TooLong,
    /// Too many wait already.
    Busy,
    /// The work did not end: the server stops, or there are no random numbers.
    Failed,
}

/// See the module.
pub(crate) struct Passwords {
    cost: u32,
    secret: hmac::Key,
    verified: Mutex<Recent<String, Verified>>,
    running: Arc<Semaphore>,
    waiting: Semaphore,
}

/// A password that was right.
struct Verified {
    /// The hash that it fits.
    password_hash: Bytes,
    tag: hmac::Tag,
}

impl Passwords {
    /// # Errors
    /// [`AuthError::Random`].
    pub(super) fn new(cost: u32) -> Result<Self, AuthError> {
        let secret = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new())
            .map_err(|_| AuthError::Random)?;
        Ok(Self {
            cost,
            secret,
            verified: Mutex::new(Recent::new(VERIFIED_MAX)),
            running: Arc::new(Semaphore::new(RUNNING_MAX)),
            waiting: Semaphore::new(WAITING_MAX),
        })
    }

    /// The hash to store for a password.
    ///
    /// # Errors
    /// See [`PasswordError`].
    pub(crate) async fn hash(&self, password: String) -> Result<Bytes, PasswordError> {
        if PASSWORD_BYTES_MAX < password.len() {
            return Err(PasswordError::TooLong);
        }
        let cost = self.cost;
        let hash = self.run(move || bcrypt::hash(password, cost)).await?;
        hash.map(Bytes::from).map_err(|_| PasswordError::Failed)
    }

    /// Whether it is the password of a user who has one.
    ///
    /// # Errors
    /// [`PasswordError::Busy`], [`PasswordError::Failed`].
    pub(crate) async fn is_right(&self, user: &User, password: String) -> Result<bool, PasswordError> {
        if self.is_remembered(user, &password) {
            return Ok(true);
        }
        let tag = hmac::sign(&self.secret, password.as_bytes());
        let password_hash = user.password_hash.clone();
        let right = {
            let hash = password_hash.clone();
            self.run(move || is_hash_of(&hash, &password)).await?
        };
        if right {
            self.lock().insert(user.name.clone(), Verified { password_hash, tag });
        }
        Ok(right)
    }

    fn is_remembered(&self, user: &User, password: &str) -> bool {
        let mut verified = self.lock();
        let Some(known) = verified.get_mut(&user.name) else { return false };
        known.password_hash == user.password_hash
            && hmac::verify(&self.secret, password.as_bytes(), known.tag.as_ref()).is_ok()
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let _waiting = self.waiting.try_acquire().map_err(|_| PasswordError::Busy)?;
        // Neither fails before the server stops.
        let place = Arc::clone(&self.running).acquire_owned().await.map_err(|_| PasswordError::Failed)?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            // The work goes on when the client goes away, and so keeps its place.
            drop(place);
            result
        });
        done.await.map_err(|_| PasswordError::Failed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Recent<String, Verified>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stored hash that is none fits no password.
fn is_hash_of(hash: &[u8], password: &str) -> bool {
    std::str::from_utf8(hash).is_ok_and(|hash| bcrypt::verify(password, hash).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least that bcrypt takes.
    const COST: u32 = 4;

    fn user(hash: Bytes) -> User {
        User { name: "u".into(), password_hash: hash, ..User::default() }
    }

    #[tokio::test]
    async fn the_right_password_is_told_from_others_before_and_after_it_is_remembered() {
        let passwords = Passwords::new(COST).unwrap();
        let first = user(passwords.hash("secret".into()).await.unwrap());
        for _ in 0..2 {
            assert!(!passwords.is_right(&first, "wrong".into()).await.unwrap());
            assert!(!passwords.is_right(&first, String::new()).await.unwrap());
            assert!(passwords.is_right(&first, "secret".into()).await.unwrap());
            assert!(passwords.is_remembered(&first, "secret"));
            assert!(!passwords.is_remembered(&first, "wrong"));
        }
        // Another password, or the same with another salt, makes what is remembered worthless.
        let second = user(passwords.hash("other".into()).await.unwrap());
        assert!(!passwords.is_remembered(&second, "secret"));
        assert!(!passwords.is_right(&second, "secret".into()).await.unwrap());
        assert!(passwords.is_right(&second, "other".into()).await.unwrap());
        assert!(!passwords.is_remembered(&first, "other"));
    }

    #[tokio::test]
    async fn a_password_that_bcrypt_would_cut_is_refused() {
        let passwords = Passwords::new(COST).unwrap();
        let longest = "x".repeat(PASSWORD_BYTES_MAX);
        let hash = passwords.hash(longest.clone()).await.unwrap();
        assert!(passwords.is_right(&user(hash), longest.clone()).await.unwrap());
        assert_eq!(passwords.hash(longest + "x").await, Err(PasswordError::TooLong));
    }

    #[tokio::test]
    async fn hashes_of_others_are_understood_and_nonsense_fits_nothing() {
        // A published test vector, of the version that etcd writes.
        let passwords = Passwords::new(COST).unwrap();
        let known = user(Bytes::from_static(b"$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"));
        assert!(passwords.is_right(&known, "U*U".into()).await.unwrap());
        assert!(!passwords.is_right(&known, "U*V".into()).await.unwrap());
        for nonsense in [&b""[..], b"hash", b"\xff\xff", b"$2b$99$x"] {
            let user = user(Bytes::from_static(nonsense));
            assert!(!passwords.is_right(&user, String::new()).await.unwrap());
        }
    }

    #[tokio::test]
    async fn more_than_may_wait_is_refused_at_once() {
        let passwords = Passwords::new(COST).unwrap();
        let held = passwords.waiting.try_acquire_many(u32::try_from(WAITING_MAX).unwrap()).unwrap();
        assert_eq!(passwords.hash("x".into()).await, Err(PasswordError::Busy));
        drop(held);
        passwords.hash("x".into()).await.unwrap();
    }
}
