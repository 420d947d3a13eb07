//! What a peer URL says: where, and whether through TLS.

use crate::transport::TransportError;

/// A peer's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address<'a> {
    /// `host:port`.
    pub(super) authority: &'a str,
    /// The URL begins with `https://`.
    pub(super) tls: bool,
}

impl<'a> Address<'a> {
    /// Reads a peer URL.
    ///
    /// # Errors
    /// [`TransportError::Url`] says what it should look like.
    pub(super) fn of(url: &'a str) -> Result<Self, TransportError> {
        let wrong = |reason| TransportError::Url { url: url.to_owned(), reason };
        let (tls, rest) = match url.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err(wrong("it must begin with http:// or https://")),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        match authority.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok() => {
                Ok(Self { authority, tls })
            }
            _ => Err(wrong("it must have the form http://host:port")),
        }
    }

    /// The host, as a certificate names it.
    pub(super) fn host(&self) -> &'a str {
        let host = self.authority.rsplit_once(':').map_or(self.authority, |(host, _)| host);
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_urls_have_one_form() {
        for (url, authority, host, tls) in [
            ("http://localhost:2380", "localhost:2380", "localhost", false),
            ("http://[::1]:2380/", "[::1]:2380", "::1", false),
            ("https://h.example:1", "h.example:1", "h.example", true),
        ] {
            let address = Address::of(url).unwrap();
            assert_eq!(address, Address { authority, tls });
            assert_eq!(address.host(), host);
        }
        for url in ["localhost:2380", "ftp://a:1", "http://a", "http://:1", "https://a:99999", "http://a/b:1"]
        {
            assert!(matches!(Address::of(url), Err(TransportError::Url { .. })), "{url}");
        }
    }
}
