//! Suites of TLS 1.2 by their registered names, as etcd's `--cipher-suites` spells them.

use rustls::crypto::{CryptoProvider, ring};

/// A suite of TLS 1.2 that can be used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CipherSuite(rustls::CipherSuite);

/// Names that Go had before the registered ones, and what they stand for.
const OLD_NAMES: [(&str, &str); 2] = [
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
];

impl CipherSuite {
    /// Finds one by its name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let name = OLD_NAMES.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new);
        known().find(|suite| suite.0.as_str() == Some(name))
    }

    /// All of them, by their names.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        known().filter_map(|suite| suite.0.as_str()).collect()
    }
}

fn known() -> impl Iterator<Item = CipherSuite> {
    let suites = ring::default_provider().cipher_suites.into_iter();
    suites.filter(|suite| suite.tls13().is_none()).map(|suite| CipherSuite(suite.suite()))
}

/// The arithmetic, with these suites of TLS 1.2 or all.
pub(super) fn provider(suites: &[CipherSuite]) -> CryptoProvider {
    let mut provider = ring::default_provider();
    if !suites.is_empty() {
        provider
            .cipher_suites
            .retain(|suite| suite.tls13().is_some() || suites.contains(&CipherSuite(suite.suite())));
    }
    provider
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_have_their_registered_names_and_gos_old_ones() {
        let names = CipherSuite::names();
        assert!(names.contains(&"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"), "{names:?}");
        for name in &names {
            assert_eq!(CipherSuite::parse(name).and_then(|suite| suite.0.as_str()), Some(*name));
        }
        for (old, new) in OLD_NAMES {
            assert_eq!(CipherSuite::parse(old), CipherSuite::parse(new));
            assert!(names.contains(&new));
        }
        for none in ["", "TLS_RSA_WITH_AES_128_CBC_SHA", "TLS13_AES_128_GCM_SHA256"] {
            assert_eq!(CipherSuite::parse(none), None, "{none}");
        }
    }
}
