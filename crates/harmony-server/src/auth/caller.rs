//! What a request says about who sends it, before anybody believes it.

/// The user that a client's certificate names. The listener puts it on a connection's requests when it has checked the
/// certificate; a request that comes through the JSON gateway has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateUser(pub(crate) String);

/// Who sends a request, as it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The token of an earlier login.
    pub(crate) token: Option<String>,
    /// Who the certificate says; counts when there is no token.
    pub(crate) certificate: Option<CertificateUser>,
}

/// The header that holds the token, and the one that the JSON gateway gets it in.
const HEADERS: [&str; 2] = ["token", "authorization"];

impl Caller {
    /// Reads it from a request's head.
    pub(crate) fn of(headers: &http::HeaderMap, extensions: &http::Extensions) -> Self {
        // A token that is no text is none of ours, and refused as such.
        let text = |value: &http::HeaderValue| value.to_str().unwrap_or("?").to_owned();
        Self {
            token: HEADERS.iter().find_map(|name| headers.get(*name)).map(text),
            certificate: extensions.get::<CertificateUser>().cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_in_either_header() {
        let caller = |headers: &[(&'static str, &'static str)]| {
            let headers = headers.iter().map(|(name, value)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
            });
            Caller::of(&headers.collect(), &http::Extensions::new()).token
        };
        assert_eq!(caller(&[]), None);
        assert_eq!(caller(&[("token", "a")]).as_deref(), Some("a"));
        assert_eq!(caller(&[("authorization", "b")]).as_deref(), Some("b"));
        assert_eq!(caller(&[("authorization", "b"), ("token", "a")]).as_deref(), Some("a"));
    }

    #[test]
    fn the_listener_says_who_the_certificate_names() {
        let mut extensions = http::Extensions::new();
        extensions.insert(CertificateUser("u".into()));
        let caller = Caller::of(&http::HeaderMap::new(), &extensions);
        assert_eq!(caller, Caller { token: None, certificate: Some(CertificateUser("u".into())) });
    }
}
