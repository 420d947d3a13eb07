//! Simple tokens: signed, so that every member can check them and none has to remember them.
//!
//! The key comes out of what is replicated and secret already: the hash of the user's own password, with its random salt, and
//! the cluster's id. So there is nothing to distribute or to keep, a restart changes nothing, and a token ends by itself when its
//! user is removed or gets another password, even the same one again.
//!
//! In hexadecimal:
//!
//! | offset | size | meaning |
//! | --- | --- | --- |
//! | 0 | 1 | version, 1 |
//! | 1 | 8 | when it was made, milliseconds since 1970, big-endian |
//! | 9 | 8 | the auth revision then, big-endian |
//! | 17 | n | the user's name |
//! | 17 + n | 32 | HMAC-SHA-256 of all before |

use std::fmt::Write as _;

use harmony_types::ClusterId;
use harmony_types::auth::User;
use ring::hmac;

const VERSION: u8 = 1;

/// Bytes before the name.
const HEAD_BYTES: usize = 17;

/// Bytes of the signature.
const TAG_BYTES: usize = 32;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SimpleToken {
    /// When it was made, milliseconds since 1970 on the calendar of the member that made it.
    pub(super) issued_ms: u64,
    /// The auth revision then.
    pub(super) auth_revision: u64,
    /// Whose it is.
    pub(super) user: String,
}

/// A token as it arrived: what it says is not proved before [`Received::is_signed`].
#[derive(Debug)]
pub(super) struct Received {
    pub(super) token: SimpleToken,
    signed: Vec<u8>,
    tag: Vec<u8>,
}

impl SimpleToken {
    /// The text for the client.
    pub(super) fn sign(&self, key: &hmac::Key) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend(self.issued_ms.to_be_bytes());
        bytes.extend(self.auth_revision.to_be_bytes());
        bytes.extend(self.user.as_bytes());
        let tag = hmac::sign(key, &bytes);
        bytes.extend(tag.as_ref());
        bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // A string takes all that is written to it.
            let _written = write!(text, "{byte:02x}");
            text
        })
    }

    /// Reads a text; `None` when it has not the form of a token.
    pub(super) fn parse(text: &str) -> Option<Received> {
        let mut bytes = unhex(text)?;
        let tag_at = bytes.len().checked_sub(TAG_BYTES)?;
        let tag = bytes.split_off(tag_at);
        let (&version, rest) = bytes.split_first()?;
        let (issued, rest) = rest.split_first_chunk()?;
        let (revision, name) = rest.split_first_chunk()?;
        if version != VERSION {
            return None;
        }
        debug_assert_eq!(HEAD_BYTES + name.len(), bytes.len());
        let token = Self {
            issued_ms: u64::from_be_bytes(*issued),
            auth_revision: u64::from_be_bytes(*revision),
            user: String::from_utf8(name.to_vec()).ok()?,
        };
        Some(Received { token, signed: bytes, tag })
    }
}

impl Received {
    /// Whether it was made with this key. Takes the same time whatever differs.
    pub(super) fn is_signed(&self, key: &hmac::Key) -> bool {
        hmac::verify(key, &self.signed, &self.tag).is_ok()
    }
}

/// The key of a user's tokens; `None` for one without a password, who never gets any.
pub(super) fn key(cluster: ClusterId, user: &User) -> Option<hmac::Key> {
    if user.no_password || user.password_hash.is_empty() {
        return None;
    }
    let secret =
        [&b"harmony simple token 1\0"[..], &cluster.0.to_be_bytes(), &user.password_hash[..]].concat();
    Some(hmac::Key::new(hmac::HMAC_SHA256, &secret))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(hash: &'static str) -> User {
        User { name: "alice".into(), password_hash: hash.into(), ..User::default() }
    }

    fn token() -> SimpleToken {
        SimpleToken { issued_ms: 1_700_000_000_123, auth_revision: 7, user: "alice".into() }
    }

    #[test]
    fn what_was_signed_is_read_back() {
        let key = key(ClusterId(1), &user("hash")).unwrap();
        let text = token().sign(&key);
        assert!(text.is_ascii() && text.len() == 2 * (HEAD_BYTES + 5 + TAG_BYTES), "{text}");
        let received = SimpleToken::parse(&text).unwrap();
        assert_eq!(received.token, token());
        assert!(received.is_signed(&key));
    }

    #[test]
    fn the_key_is_the_clusters_and_the_passwords() {
        let own = key(ClusterId(1), &user("hash")).unwrap();
        let received = SimpleToken::parse(&token().sign(&own)).unwrap();
        assert!(!received.is_signed(&key(ClusterId(2), &user("hash")).unwrap()));
        assert!(!received.is_signed(&key(ClusterId(1), &user("other")).unwrap()));
        assert!(key(ClusterId(1), &user("")).is_none());
        assert!(key(ClusterId(1), &User { no_password: true, ..user("hash") }).is_none());
    }

    #[test]
    fn every_changed_digit_and_every_cut_is_noticed() {
        let key = key(ClusterId(1), &user("hash")).unwrap();
        let text = token().sign(&key);
        for place in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[place] = if bytes[place] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(bytes).unwrap();
            let accepted = SimpleToken::parse(&changed).is_some_and(|received| received.is_signed(&key));
            assert!(!accepted, "digit {place}");
            let cut = SimpleToken::parse(&text[..place]);
            assert!(cut.is_none_or(|received| !received.is_signed(&key)), "cut at {place}");
        }
        for text in ["", "x", "zz", "é", "00", "?"] {
            assert!(SimpleToken::parse(text).is_none(), "{text}");
        }
    }
}
