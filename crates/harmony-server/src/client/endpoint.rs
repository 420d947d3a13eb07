//! Where a server listens: `host:port`, with or without `http://` or `https://`.

use std::fmt;
use std::io;
use std::time::Duration;

use harmony_node::tls::{Dialer, MaybeTls};
use http::uri::{Authority, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Error};

/// How long a connection may be silent while a call waits on it, before it is asked for a sign of life. etcd takes less than 5 s
/// for an attack.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How long that sign of life may take, as `etcdctl` has it.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(6);

/// One server's client address.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    authority: Authority,
    /// What its scheme says of TLS; `None` without a scheme.
    is_tls: Option<bool>,
    /// With what TLS is spoken.
    tls: Option<Dialer>,
}

impl Endpoint {
    /// Reads `host:port`, `http://host:port` or `https://host:port`.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |reason: &str| Err(format!("endpoint \"{text}\": {reason}"));
        let (is_tls, rest) = match text.split_once("://") {
            None => (None, text),
            Some(("http", rest)) => (Some(false), rest.strip_suffix('/').unwrap_or(rest)),
            Some(("https", rest)) => (Some(true), rest.strip_suffix('/').unwrap_or(rest)),
            Some((scheme, _)) => return wrong(&format!("unknown scheme {scheme}, expected http or https")),
        };
        let Ok(authority) = rest.parse::<Authority>() else {
            return wrong("expected host:port");
        };
        match authority.port_u16() {
            None | Some(0) => wrong("expected host:port"),
            Some(_) if authority.host().is_empty() => wrong("expected host:port"),
            Some(_) => Ok(Self { authority, is_tls, tls: None }),
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

    /// What its scheme says of TLS; `None` without a scheme.
    pub(crate) fn is_tls(&self) -> Option<bool> {
        self.is_tls
    }

    /// The same, spoken to through TLS.
    pub(crate) fn with_tls(self, dialer: Dialer) -> Self {
        Self { tls: Some(dialer), ..self }
    }

    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there, or TLS does not come about.
    pub(crate) async fn connect(&self) -> io::Result<MaybeTls<TcpStream>> {
        let stream = TcpStream::connect(self.authority.as_str()).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => Ok(MaybeTls::Plain(stream)),
            Some(dialer) => {
                let stream = dialer.connect(self.authority.host(), stream).await?;
                Ok(MaybeTls::Tls(Box::new(stream.into())))
            }
        }
    }

    /// Connects for gRPC, anew whenever the connection breaks.
    ///
    /// # Errors
    /// As [`Endpoint::connect`].
    pub(crate) async fn channel(&self) -> Result<Channel, Error> {
        let own = self.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let own = own.clone();
            async move { own.connect().await.map(TokioIo::new) }
        });
        self.transport().connect_with_connector(connector).await
    }

    /// The URL of this path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme(), self.authority)
    }

    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// As tonic wants it.
    fn transport(&self) -> tonic::transport::Endpoint {
        let uri = Uri::builder()
            .scheme(self.scheme())
            .authority(self.authority.clone())
            .path_and_query("/")
            .build()
            .expect("scheme, authority and path make a URI");
        // A server that is gone without a word is noticed also by a call that waits for others.
        tonic::transport::Endpoint::from(uri)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tls {
            None => write!(f, "{}", self.authority),
            Some(_) => write!(f, "https://{}", self.authority),
        }
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
        let schemes: Vec<_> = list.iter().map(Endpoint::is_tls).collect();
        assert_eq!(schemes, [None, Some(false), None]);
        assert_eq!(Endpoint::parse("https://h:1/").unwrap().is_tls(), Some(true));
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
        check("ftp://a:1", "unknown scheme ftp, expected http or https");
        assert_eq!(Endpoint::parse_list(" ,").unwrap_err(), "no endpoint given");
    }
}
