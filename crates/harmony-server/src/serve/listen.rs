//! Ports, bound before anything else is started.

use std::io;
use std::net::{SocketAddr, TcpListener};

use harmony_node::{TlsError, TransportError};

use super::ServeError;
use crate::config::{Url, peer_tls};

/// Listens for clients.
pub(super) fn clients(urls: &[Url]) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), ServeError> {
    let listeners = bind(urls, "listen-client-urls")?;
    let mut addresses = Vec::new();
    for (listener, url) in listeners.iter().zip(urls) {
        addresses.push(listener.local_addr().map_err(|source| refusal(url, "listen-client-urls", source))?);
    }
    Ok((listeners, addresses))
}

/// Where the transport is to listen for peers, with TLS or without.
pub(super) fn peers(urls: &[Url], tls: bool) -> Result<Vec<SocketAddr>, ServeError> {
    let urls = urls.iter().filter(|url| url.is_tls() == tls);
    urls.map(|url| url.resolve().map_err(|source| refusal(url, "listen-peer-urls", source))).collect()
}

/// The transport's refusal, with the flag.
pub(super) fn refused_peer(urls: &[Url], error: TransportError) -> ServeError {
    match error {
        TransportError::Listen { address, source } => {
            match urls.iter().find(|url| url.resolve().is_ok_and(|resolved| resolved == address)) {
                Some(url) => refusal(url, "listen-peer-urls", source),
                None => TransportError::Listen { address, source }.into(),
            }
        }
        TransportError::Tls(source) => match &source {
            TlsError::Read { file, .. } | TlsError::Content { file, .. } => {
                ServeError::PeerTls { flag: peer_tls::flag_of(*file), source }
            }
            _ => TransportError::Tls(source).into(),
        },
        error => error.into(),
    }
}

fn bind(urls: &[Url], flag: &'static str) -> Result<Vec<TcpListener>, ServeError> {
    urls.iter()
        .map(|url| url.resolve().and_then(TcpListener::bind).map_err(|source| refusal(url, flag, source)))
        .collect()
}

fn refusal(url: &Url, flag: &'static str, source: io::Error) -> ServeError {
    let advice = match source.kind() {
        io::ErrorKind::AddrInUse => "stop the process that uses the port, or choose another with",
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege; choose another with",
        _ => "choose an address of this machine with",
    };
    ServeError::Listen { url: url.clone(), flag, advice, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named_with_its_flag() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}", taken.local_addr().unwrap())).unwrap();
        let error = clients(std::slice::from_ref(&url)).unwrap_err().to_string();
        for part in [&url.to_string(), "stop the process", "--listen-client-urls"] {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
        let source = io::Error::from(io::ErrorKind::AddrInUse);
        let refused = TransportError::Listen { address: taken.local_addr().unwrap(), source };
        let error = refused_peer(&[url], refused).to_string();
        assert!(error.contains("--listen-peer-urls"), "{error}");
    }

    #[test]
    fn port_0_is_any_port() {
        let (_listeners, addresses) = clients(&[Url::parse("http://127.0.0.1:0").unwrap()]).unwrap();
        assert_ne!(addresses[0].port(), 0);
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let error = clients(&[Url::parse("http://192.0.2.1:0").unwrap()]).unwrap_err().to_string();
        assert!(error.contains("choose an address of this machine"), "{error}");
    }
}
