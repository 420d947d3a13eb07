//! The URLs in the configuration: `http://host:port` or `https://host:port`, nothing more.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

/// A host and port that the server listens on, or tells others to use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    host: String,
    port: u16,
    tls: bool,
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it and what it should look like, as the end of a sentence that begins with the URL.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("has no scheme: write http://{text}"));
        };
        match scheme {
            "http" | "https" => {}
            "unix" | "unixs" => {
                return Err("is a Unix socket, which is not supported: use http://".to_owned());
            }
            _ => return Err(format!("has the unknown scheme {scheme:?}: use http://")),
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            return Err("may hold nothing behind the port: write http://host:port".to_owned());
        }
        let Some((host, port)) = rest.rsplit_once(':') else {
            return Err(format!("has no port: write http://{rest}:2379 or the port you mean"));
        };
        let Ok(port) = port.parse() else {
            return Err(format!("has the port {port:?}: write a number from 0 to 65535"));
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let valid = match bare {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
            }
        };
        if !valid {
            return Err(format!(
                "has the host {host:?}: write a name, an IPv4 address, or an IPv6 address in []"
            ));
        }
        Ok(Self { host: host.to_owned(), port, tls: scheme == "https" })
    }

    /// True for `https://`.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.tls
    }

    /// The host without the brackets of an IPv6 address.
    #[must_use]
    pub fn bare_host(&self) -> &str {
        self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&self.host)
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// True when the host stands for every address of the machine: good to listen on, useless to reach it by.
    #[must_use]
    pub fn is_unspecified(&self) -> bool {
        matches!(self.host.as_str(), "0.0.0.0" | "[::]")
    }

    /// The same host with the port that the system gave for port 0.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        Self { host: self.host.clone(), port, tls: self.tls }
    }

    /// The address to listen on. A name may be looked up; of several addresses IPv4 comes first.
    ///
    /// # Errors
    /// The name has no address.
    pub fn resolve(&self) -> io::Result<SocketAddr> {
        let mut addresses: Vec<SocketAddr> = self.authority().to_socket_addrs()?.collect();
        addresses.sort_by_key(SocketAddr::is_ipv6);
        addresses
            .first()
            .copied()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address"))
    }

    /// `host:port`.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_urls_print_as_they_were_read() {
        for url in ["http://localhost:2379", "http://10.0.0.1:1", "https://[::1]:2380", "https://a-b.c_d:0"] {
            assert_eq!(Url::parse(url).unwrap().to_string(), url);
        }
        assert_eq!(Url::parse("http://h:1/").unwrap().to_string(), "http://h:1");
    }

    #[test]
    fn each_bad_url_is_told_what_to_do() {
        for (url, part) in [
            ("localhost:2379", "write http://localhost:2379"),
            ("unix:///tmp/s", "Unix socket"),
            ("ftp://h:1", "unknown scheme"),
            ("http://h", "no port"),
            ("http://h:65536", "65535"),
            ("http://h:x", "port \"x\""),
            ("http://:1", "host \"\""),
            ("http://::1:1", "host \"::1\""),
            ("http://a b:1", "host \"a b\""),
            ("http://h:1/path", "behind the port"),
            ("http://u@h:1", "behind the port"),
        ] {
            let error = Url::parse(url).unwrap_err();
            assert!(error.contains(part), "{url}: {error}");
        }
    }

    #[test]
    fn localhost_resolves_to_a_loopback_address() {
        let address = Url::parse("http://localhost:7").unwrap().resolve().unwrap();
        assert!(address.ip().is_loopback());
        assert_eq!(address.port(), 7);
    }
}
