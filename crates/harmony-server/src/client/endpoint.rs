//! Where a server listens: `host:port`, with or without `http://`.

use std::fmt;

use http::uri::{Authority, Uri};

/// One server's client address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    authority: Authority,
}

impl Endpoint {
    /// Reads `host:port` or `http://host:port`.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |reason: &str| Err(format!("endpoint \"{text}\": {reason}"));
        let rest = match text.split_once("://") {
            None => text,
            Some(("http", rest)) => rest.strip_suffix('/').unwrap_or(rest),
            Some(("https", _)) => return wrong("TLS is not supported yet, use http://"),
            Some((scheme, _)) => return wrong(&format!("unknown scheme {scheme}, expected http")),
        };
        let Ok(authority) = rest.parse::<Authority>() else {
            return wrong("expected host:port");
        };
        match authority.port_u16() {
            None | Some(0) => wrong("expected host:port"),
            Some(_) if authority.host().is_empty() => wrong("expected host:port"),
            Some(_) => Ok(Self { authority }),
        }
    }

    /// Reads a list separated by commas; spaces around an endpoint do not count.
    ///
    /// # Errors
    /// As [`Endpoint::parse`], or that the list is empty.
    pub(crate) fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        let endpoints: Vec<_> = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(Self::parse)
            .collect::<Result<_, _>>()?;
        if endpoints.is_empty() {
            return Err("no endpoint given".to_owned());
        }
        Ok(endpoints)
    }

    /// `host:port`.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// As tonic wants it.
    pub(crate) fn transport(&self) -> tonic::transport::Endpoint {
        let uri = Uri::builder()
            .scheme("http")
            .authority(self.authority.clone())
            .path_and_query("/")
            .build()
            .expect("scheme, authority and path make a URI");
        tonic::transport::Endpoint::from(uri)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_come_with_and_without_a_scheme() {
        let list = Endpoint::parse_list("127.0.0.1:2379, http://localhost:1/,[::1]:2,").unwrap();
        let texts: Vec<_> = list.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["127.0.0.1:2379", "localhost:1", "[::1]:2"]);
    }

    #[test]
    fn a_wrong_endpoint_says_why() {
        let check = |text: &str, reason: &str| {
            assert_eq!(Endpoint::parse(text).unwrap_err(), format!("endpoint \"{text}\": {reason}"));
        };
        check("localhost", "expected host:port");
        check("localhost:x", "expected host:port");
        check("localhost:0", "expected host:port");
        check(":2379", "expected host:port");
        check("http://a:1/path", "expected host:port");
        check("https://a:1", "TLS is not supported yet, use http://");
        check("ftp://a:1", "unknown scheme ftp, expected http");
        assert_eq!(Endpoint::parse_list(" ,").unwrap_err(), "no endpoint given");
    }
}
